//! A line in a file: small cells are read into memory, large ones go to another file without their escapes.

use walferry_schema::{Row, RowBuilder};

use super::{CopyTextError, NULL, counted, unescape, unescape_one};
use crate::error::{Error, Result};
use crate::large::{LARGE_BYTES, LargeRows, SpooledFrame};

/// One read takes so much.
const READ_BYTES: u64 = 256 * 1024;
/// No escape is longer: `\377`.
const ESCAPE_BYTES: usize = 4;

/// A line of which a part was read.
struct Line<'a> {
    large_rows: &'a LargeRows,
    row: RowBuilder,
    found: usize,
    /// The texts of the small cells.
    data: Vec<u8>,
    /// What of the last cell was read and is not unescaped.
    raw: Vec<u8>,
    /// Where the last cell begins in the file of large ones, when it is one.
    begun: Option<u64>,
    large: SpooledFrame,
    is_over: bool,
}

/// What stands in the way of a row.
pub(crate) enum SpooledError {
    /// A file cannot be written or read.
    Spool(Error),
    /// The line is not of the format.
    Text(CopyTextError),
}

/// The row of the one line that a file holds.
///
/// # Errors
/// When a file cannot be written or read, or the line is not of the format.
pub(crate) fn decode_spooled(
    file: &SpooledFrame,
    columns: usize,
    large_rows: &LargeRows,
) -> Result<Row, SpooledError> {
    let mut line = Line {
        large_rows,
        row: RowBuilder::with_capacity(columns),
        found: 0,
        data: Vec::new(),
        raw: Vec::new(),
        begun: None,
        large: large_rows.file().map_err(Error::spool_row(large_rows))?,
        is_over: false,
    };
    let mut at = 0;
    while let Some(left @ 1..) = file.bytes().checked_sub(at) {
        let length = left.min(READ_BYTES);
        let mut part = vec![0; usize::try_from(length).unwrap_or_default()];
        let read = file.read_at(at, &mut part);
        read.map_err(Error::spool_row(large_rows))?;
        line.take(&part)?;
        at = at.saturating_add(length);
    }
    line.finish(columns)
}

// === impl Line ===

impl Line<'_> {
    fn take(&mut self, part: &[u8]) -> Result<(), SpooledError> {
        let mut rest = part;
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\t' | b'\n')) {
            let (cell, after) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            self.add(cell)?;
            self.end_cell()?;
            let (separator, after) = after.split_first().unwrap_or((&b'\n', &[]));
            self.is_over = *separator == b'\n';
            rest = after;
        }
        self.add(rest)
    }

    fn add(&mut self, raw: &[u8]) -> Result<(), SpooledError> {
        if self.is_over && !raw.is_empty() {
            return Err(CopyTextError::SecondLine.into());
        }
        self.raw.extend_from_slice(raw);
        if self.raw.len() >= LARGE_BYTES {
            self.spool(false)?;
        }
        Ok(())
    }

    fn end_cell(&mut self) -> Result<(), SpooledError> {
        self.found = self.found.saturating_add(1);
        if let Some(start) = self.begun {
            self.spool(true)?;
            let length = self.large.bytes().saturating_sub(start);
            self.row.spooled(start, length);
            self.begun = None;
        } else if self.raw == NULL {
            self.row.null();
        } else {
            let start = self.data.len();
            unescape(&self.raw, &mut self.data)?;
            let length = self.data.len().saturating_sub(start);
            self.row.text(start, length);
        }
        self.raw.clear();
        Ok(())
    }

    /// Moves what was read of the cell to the file of large ones, but for an escape whose end is not here yet.
    fn spool(&mut self, is_end: bool) -> Result<(), SpooledError> {
        self.begun.get_or_insert(self.large.bytes());
        let mut plain = Vec::with_capacity(self.raw.len());
        let left = unescape_part(&self.raw, &mut plain, is_end)?;
        let written = self.large.write(&plain);
        written.map_err(Error::spool_row(self.large_rows))?;
        let done = self.raw.len().saturating_sub(left);
        self.raw.drain(..done);
        Ok(())
    }

    fn finish(self, columns: usize) -> Result<Row, SpooledError> {
        if !self.is_over {
            return Err(CopyTextError::Truncated.into());
        }
        counted(self.found, columns)?;
        let spool = self.large.into_spool();
        Ok(self.row.build_spooled(self.data.into(), Some(spool)))
    }
}

/// Unescapes a part of a cell: how many bytes at its end may be part of an escape that goes on.
fn unescape_part(raw: &[u8], plain: &mut Vec<u8>, is_end: bool) -> Result<usize, CopyTextError> {
    let mut rest = raw;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        let (before, escape) = rest.split_at_checked(at).unwrap_or((rest, &[]));
        plain.extend_from_slice(before);
        if !is_end && escape.len() < ESCAPE_BYTES {
            return Ok(escape.len());
        }
        let (byte, after) = unescape_one(escape)?;
        plain.push(byte);
        rest = after;
    }
    plain.extend_from_slice(rest);
    Ok(0)
}

impl From<CopyTextError> for SpooledError {
    fn from(error: CopyTextError) -> Self {
        Self::Text(error)
    }
}

impl From<Error> for SpooledError {
    fn from(error: Error) -> Self {
        Self::Spool(error)
    }
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests build their own inputs"
)]
mod tests {
    use super::super::decode_line;
    use super::*;
    use crate::large::tests::{large_rows, spooled};
    use proptest::prelude::*;
    use walferry_schema::Cell;

    fn decode(line: &[u8], columns: usize) -> Result<Row, CopyTextError> {
        let decoded = decode_spooled(&spooled(line), columns, &large_rows(0));
        decoded.map_err(|error| match error {
            SpooledError::Text(error) => error,
            SpooledError::Spool(error) => panic!("{error}"),
        })
    }

    fn texts(row: &Row) -> Vec<Option<Vec<u8>>> {
        let text = |cell: Cell<'_>| match cell {
            Cell::Text(text) => Some(text.to_vec()),
            Cell::Large(large) => {
                let mut text = Vec::new();
                std::io::Read::read_to_end(&mut large.reader(), &mut text).unwrap();
                Some(text)
            }
            Cell::Null | Cell::Unchanged => None,
        };
        row.cells().map(text).collect()
    }

    #[test]
    fn a_line_in_a_file_is_the_one_in_memory_and_its_large_cells_are_not_held() {
        let read = usize::try_from(READ_BYTES).unwrap();
        // The escapes stand across the ends of the reads, each time elsewhere.
        for shift in 0..6 {
            let large = [vec![b'x'; read - shift], b"\\n\\\\\\t\\101".repeat(40_000)].concat();
            let line = [
                b"1\t\\N\t\\\\x\\n\t",
                large.as_slice(),
                b"\t",
                &large[read..],
            ]
            .concat();
            let row = decode(&[&line, &b"\n"[..]].concat(), 5).unwrap();
            let held = decode_line(line.into(), 5).unwrap();
            assert!(texts(&row) == texts(&held), "{shift}");
            let is_large = |cell| matches!(cell, Cell::Large(_));
            let large: Vec<_> = row.cells().map(is_large).collect();
            assert_eq!(large, [false, false, false, true, true]);
        }
    }

    #[test]
    fn a_line_that_is_not_of_the_format_is_an_error() {
        let large = "x".repeat(LARGE_BYTES);
        let cases = [
            (
                format!("{large}\n"),
                CopyTextError::CellCount {
                    found: 1,
                    expected: 2,
                },
            ),
            (format!("1\t{large}"), CopyTextError::Truncated),
            (format!("1\t{large}\\\n"), CopyTextError::DanglingBackslash),
            (format!("1\t{large}\n2\t3\n"), CopyTextError::SecondLine),
        ];
        for (line, expected) in cases {
            assert_eq!(decode(line.as_bytes(), 2).unwrap_err(), expected);
        }
    }

    proptest! {
        #[test]
        fn any_line_is_what_it_is_in_memory(line in "([a\\\\nx1\t]|\\\\N){0,40}", columns in 1_usize..4) {
            let row = decode(format!("{line}\n").as_bytes(), columns);
            let held = decode_line(line.into_bytes().into(), columns);
            prop_assert_eq!(row.as_ref().map(texts), held.as_ref().map(texts));
        }
    }
}
