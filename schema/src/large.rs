//! Values that are too large to go with their row: they are read piece by piece, from memory or from a file.

use std::fmt;
use std::io;
use std::sync::Arc;

/// Bytes that stand elsewhere than in memory.
pub trait ReadAt: Send + Sync {
    /// Fills the buffer with what stands at `offset`.
    ///
    /// # Errors
    /// When the bytes cannot be read, or end before the buffer is full.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// Where the large values of a row stand; it goes with its last row.
#[derive(Clone)]
pub struct Spool(Arc<dyn ReadAt>);

/// The text of a large value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Large<'a> {
    /// In memory.
    Held(&'a [u8]),
    /// In a spool.
    Spooled {
        /// The spool.
        spool: &'a Spool,
        /// Where the text begins there.
        offset: u64,
        /// How many bytes it has.
        bytes: u64,
    },
}

/// Reads the text of a large value from its beginning.
#[derive(Debug)]
pub struct LargeReader<'a> {
    large: Large<'a>,
    at: u64,
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        Large::Held(self).read_at(offset, buffer)
    }
}

// === impl Spool ===

impl Spool {
    /// A spool over a file or something like it.
    pub fn new(file: impl ReadAt + 'static) -> Self {
        Self(Arc::new(file))
    }

    /// Fills the buffer with what stands at `offset`.
    ///
    /// # Errors
    /// As [`ReadAt::read_at`].
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer)
    }
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spool")
    }
}

impl PartialEq for Spool {
    /// Whether it is the same one.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Spool {}

// === impl Large ===

impl<'a> Large<'a> {
    /// How many bytes the text has.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Held(text) => text.len() as u64,
            Self::Spooled { bytes, .. } => *bytes,
        }
    }

    /// Reads the text from its beginning.
    pub fn reader(self) -> LargeReader<'a> {
        LargeReader { large: self, at: 0 }
    }

    /// Fills the buffer with what stands at `at` of the text.
    ///
    /// # Errors
    /// As [`ReadAt::read_at`].
    pub fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Held(text) => {
                let rest = usize::try_from(at).ok().and_then(|at| text.get(at..));
                let part = rest.and_then(|rest| rest.get(..buffer.len()));
                buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
            Self::Spooled { spool, offset, .. } => spool.read_at(offset + at, buffer),
        }
    }
}

impl io::Read for LargeReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.large.bytes().saturating_sub(self.at);
        let length = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let part = buffer.get_mut(..length).unwrap_or_default();
        self.large.read_at(self.at, part)?;
        self.at += length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_text_is_read_from_memory_and_from_a_spool_alike() {
        let spool = Spool::new(b"..abcdef".to_vec());
        let spooled = Large::Spooled {
            spool: &spool,
            offset: 2,
            bytes: 5,
        };
        for large in [Large::Held(b"abcde"), spooled] {
            let mut reader = large.reader();
            let mut first = [0; 2];
            reader.read_exact(&mut first).unwrap();
            let mut rest = String::new();
            reader.read_to_string(&mut rest).unwrap();
            assert_eq!((&first, rest.as_str(), large.bytes()), (b"ab", "cde", 5));
        }
    }
}
