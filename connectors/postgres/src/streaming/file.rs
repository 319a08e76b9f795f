//! The messages of one transaction in a file.
//!
//! - The file has no name: nothing is left of it once it is closed, however that comes about.
//! - Messages come out as they went in, up to where the file was last truncated.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use bytes::{Buf, BufMut};
use walferry_schema::Lsn;

use crate::large::{LargeRows, SpooledFrame};
use crate::stream::frame::{DATA_HEADER_BYTES, StreamFrame};

/// What is gathered before it is written, and read at a time.
const BUFFER_BYTES: usize = 64 * 1024;
/// An LSN, and the message's length.
const HEADER_BYTES: usize = 8 + 4;

/// A file that is being written.
pub(super) struct Recording {
    file: File,
    /// What is not in the file yet.
    buffer: Vec<u8>,
    written_bytes: u64,
}

/// A file that is being read.
pub(super) struct Replay(BufReader<File>);

// === impl Recording ===

impl Recording {
    /// An empty file in a directory.
    pub(super) fn new(directory: &Path) -> io::Result<Self> {
        Ok(Self {
            file: tempfile::tempfile_in(directory)?,
            buffer: Vec::new(),
            written_bytes: 0,
        })
    }

    /// How long it is.
    pub(super) fn bytes(&self) -> u64 {
        self.written_bytes.saturating_add(self.buffer.len() as u64)
    }

    /// Adds a message, its type and the rest of it: whether the file has grown.
    pub(super) fn append(&mut self, (lsn, tag, rest): (Lsn, u8, &[u8])) -> io::Result<bool> {
        let length = u32::try_from(rest.len().saturating_add(1));
        self.buffer.put_u64(lsn.0);
        self.buffer.put_u32(length.map_err(io::Error::other)?);
        self.buffer.put_u8(tag);
        self.buffer.put_slice(rest);
        let is_full = self.buffer.len() >= BUFFER_BYTES;
        if is_full {
            self.write()?;
        }
        Ok(is_full)
    }

    /// Adds a message whose rest stands in another file from a place on.
    pub(super) fn append_file(
        &mut self,
        (lsn, tag): (Lsn, u8),
        file: &SpooledFrame,
        mut at: u64,
    ) -> io::Result<()> {
        let mut left = file.bytes().saturating_sub(at);
        let length = u32::try_from(left.saturating_add(1));
        self.buffer.put_u64(lsn.0);
        self.buffer.put_u32(length.map_err(io::Error::other)?);
        self.buffer.put_u8(tag);
        let mut part = vec![0; BUFFER_BYTES];
        while left > 0 {
            self.write()?;
            let length = usize::try_from(left).map_or(BUFFER_BYTES, |left| left.min(BUFFER_BYTES));
            let part = part.get_mut(..length).unwrap_or_default();
            file.read_at(at, part)?;
            self.buffer.put_slice(part);
            at = at.saturating_add(length as u64);
            left = left.saturating_sub(length as u64);
        }
        self.write()
    }

    /// Writes what was gathered, and gives its memory back.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.write()?;
        self.buffer = Vec::new();
        Ok(())
    }

    /// Drops everything from a place on.
    pub(super) fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.write()?;
        self.file.set_len(bytes)?;
        self.file.seek(SeekFrom::Start(bytes))?;
        self.written_bytes = bytes;
        Ok(())
    }

    /// Reads it from its beginning.
    pub(super) fn replay(mut self) -> io::Result<Replay> {
        self.write()?;
        self.file.rewind()?;
        Ok(Replay(BufReader::with_capacity(BUFFER_BYTES, self.file)))
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.written_bytes = self.bytes();
        self.buffer.clear();
        Ok(())
    }
}

// === impl Replay ===

impl Replay {
    /// The next message, in a file of its own where it is too large for memory; none at the end.
    pub(super) fn next(&mut self, large_rows: &LargeRows) -> io::Result<Option<StreamFrame>> {
        if self.0.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let mut header = [0; HEADER_BYTES];
        self.0.read_exact(&mut header)?;
        let mut header = header.as_slice();
        let (lsn, length) = (Lsn(header.get_u64()), header.get_u32());
        let length = usize::try_from(length).map_err(io::Error::other)?;
        if length > large_rows.max_row_bytes {
            let message = self.spooled(length, large_rows)?;
            return Ok(Some(StreamFrame::Spooled { lsn, message }));
        }
        let mut message = vec![0; length];
        self.0.read_exact(&mut message)?;
        let message = message.into();
        Ok(Some(StreamFrame::Data { lsn, message }))
    }

    /// The next bytes as the link would have spooled them.
    fn spooled(&mut self, length: usize, large_rows: &LargeRows) -> io::Result<SpooledFrame> {
        let mut file = large_rows.file()?;
        file.write(&[0; DATA_HEADER_BYTES])?;
        let mut left = length;
        while left > 0 {
            let here = self.0.fill_buf()?;
            let part = here.get(..left.min(here.len())).unwrap_or_default();
            if part.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            file.write(part)?;
            let taken = part.len();
            self.0.consume(taken);
            left = left.saturating_sub(taken);
        }
        Ok(file)
    }
}
