//! Files for rows that are too large for memory. They have no name: whatever ends the process frees their room.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use walferry_core::Finding;
use walferry_schema::{Cell, Large, ReadAt, Relation, Row, RowBuilder, RowOp, Spool};

/// Values of a spooled row stay in memory below this size.
pub(crate) const LARGE_BYTES: usize = 64 * 1024;

/// Which rows are spooled, and where.
#[derive(Clone, Debug)]
pub(crate) struct LargeRows {
    /// Messages of the server that are larger are.
    pub(crate) max_row_bytes: usize,
    pub(crate) directory: Arc<PathBuf>,
}

/// A message in a file.
#[derive(Debug)]
pub(crate) struct SpooledFrame {
    file: File,
    bytes: u64,
}

/// A file that only what was written is read of.
struct SpoolFile(File);

/// Whether rows can be spooled in a directory.
pub fn examine_spool(directory: &Path) -> Finding {
    let (subject, shown) = ("source.spool", directory.display());
    match tempfile::tempfile_in(directory) {
        Ok(_) => Finding::pass(subject, format!("{shown} can be written to")),
        Err(error) => {
            let found = format!("{shown} cannot be written to: {error}");
            let remedy =
                "let walferry's user write there, or choose another directory by source.spool";
            Finding::fail(subject, found, remedy)
        }
    }
}

// === impl LargeRows ===

impl LargeRows {
    /// An empty file.
    pub(crate) fn file(&self) -> io::Result<SpooledFrame> {
        let file = tempfile::tempfile_in(&*self.directory)?;
        Ok(SpooledFrame { file, bytes: 0 })
    }
}

// === impl SpooledFrame ===

impl SpooledFrame {
    /// How many bytes it has.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends bytes. They go to the system's memory: the disk is not waited for.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Fills the buffer with what stands at `offset`.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    /// The same, to be read by rows.
    pub(crate) fn into_spool(self) -> Spool {
        Spool::new(SpoolFile(self.file))
    }
}

impl ReadAt for SpoolFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
}

/// The change with the key's values in memory, whatever their size: an index takes only small ones, but compressed.
pub(crate) fn with_key(op: RowOp, relation: &Relation) -> io::Result<RowOp> {
    let has_large = match &op {
        RowOp::Insert { new } => new.has_large(),
        RowOp::Update { old, new } => new.has_large() || old.as_ref().is_some_and(Row::has_large),
        RowOp::Delete { old } => old.has_large(),
    };
    if !has_large {
        return Ok(op);
    }
    let key = relation.key_columns();
    let loaded = |row: Row| row_with_key(row, &key);
    Ok(match op {
        RowOp::Insert { new } => RowOp::Insert { new: loaded(new)? },
        RowOp::Update { old, new } => RowOp::Update {
            old: old.map(loaded).transpose()?,
            new: loaded(new)?,
        },
        RowOp::Delete { old } => RowOp::Delete { old: loaded(old)? },
    })
}

/// The row with the values of these columns in memory.
pub(crate) fn row_with_key(row: Row, key: &[usize]) -> io::Result<Row> {
    let is_large = |index: &usize| matches!(row.cell(*index), Cell::Large(_));
    if !key.iter().any(is_large) {
        return Ok(row);
    }
    let (mut data, mut loaded) = (Vec::new(), RowBuilder::with_capacity(row.len()));
    for (index, cell) in row.cells().enumerate() {
        let start = data.len();
        match cell {
            Cell::Null => loaded.null(),
            Cell::Unchanged => loaded.unchanged(),
            Cell::Text(text) => {
                data.extend_from_slice(text);
                loaded.text(start, text.len());
            }
            Cell::Large(large) if key.contains(&index) => {
                io::Read::read_to_end(&mut large.reader(), &mut data)?;
                loaded.text(start, data.len() - start);
            }
            Cell::Large(Large::Held(text)) => {
                data.extend_from_slice(text);
                loaded.held(start, text.len());
            }
            Cell::Large(Large::Spooled { offset, bytes, .. }) => loaded.spooled(offset, bytes),
        }
    }
    Ok(loaded.build_spooled(data.into(), row.spool().cloned()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Files in the system's temporary directory.
    pub(crate) fn large_rows(max_row_bytes: usize) -> LargeRows {
        LargeRows {
            max_row_bytes,
            directory: Arc::new(std::env::temp_dir()),
        }
    }

    /// A file with this content.
    pub(crate) fn spooled(content: &[u8]) -> SpooledFrame {
        let mut file = large_rows(0).file().unwrap();
        file.write(content).unwrap();
        file
    }

    #[test]
    fn a_keys_values_are_held_and_the_others_stay_where_they_are() {
        let mut row = RowBuilder::with_capacity(3);
        row.spooled(0, 2);
        row.text(0, 2);
        row.spooled(2, 3);
        let row = row.build_spooled("ab".into(), Some(spooled(b"xyuvw").into_spool()));
        let row = row_with_key(row, &[0]).unwrap();
        assert_eq!(row.cell(0), Cell::Text(b"xy"));
        assert_eq!(row.cell(1), Cell::Text(b"ab"));
        let Cell::Large(large) = row.cell(2) else {
            panic!("it is large");
        };
        let mut text = Vec::new();
        io::Read::read_to_end(&mut large.reader(), &mut text).unwrap();
        assert_eq!(text, b"uvw");
    }
}
