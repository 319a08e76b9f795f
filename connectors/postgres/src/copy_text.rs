//! The text format of `COPY … TO STDOUT`.
//!
//! - Any bytes give rows or an error, never a panic.
//! - A line without escapes is not copied: its row holds the message.
//! - A line may be spread over messages, and a message may hold many lines.
//!
//! Source: <https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.2>

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

pub(crate) mod error;
mod spooled;

use bytes::{Bytes, BytesMut};
use walferry_schema::{Row, RowBuilder};

use crate::large::{LargeRows, SpooledFrame};
pub use error::CopyTextError;
pub(crate) use spooled::SpooledError;

const NULL: &[u8] = b"\\N";

/// Makes rows of the messages of one COPY.
#[derive(Debug)]
pub struct CopyTextDecoder {
    columns: usize,
    /// The beginning of a line whose end has not come yet.
    begun: BytesMut,
}

// === impl CopyTextDecoder ===

impl CopyTextDecoder {
    /// A decoder of lines with this many cells.
    pub fn new(columns: usize) -> Self {
        Self {
            columns,
            begun: BytesMut::new(),
        }
    }

    /// Appends the rows whose lines end in `message`.
    ///
    /// # Errors
    /// When a line is not of the format.
    pub fn decode(&mut self, message: Bytes, rows: &mut Vec<Row>) -> Result<(), CopyTextError> {
        let mut rest = message;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = rest.split_to(end);
            let _newline = rest.split_to(1);
            rows.push(decode_line(self.whole(line), self.columns)?);
        }
        self.begun.extend_from_slice(&rest);
        Ok(())
    }

    /// The row of a message in a file, which is one line.
    pub(crate) fn decode_spooled(
        &self,
        file: &SpooledFrame,
        large_rows: &LargeRows,
    ) -> Result<Row, SpooledError> {
        if !self.begun.is_empty() {
            return Err(CopyTextError::SecondLine.into());
        }
        spooled::decode_spooled(file, self.columns, large_rows)
    }

    /// Checks that no line was left unfinished.
    ///
    /// # Errors
    /// When one was.
    pub fn finish(self) -> Result<(), CopyTextError> {
        if self.begun.is_empty() {
            Ok(())
        } else {
            Err(CopyTextError::Truncated)
        }
    }

    fn whole(&mut self, end: Bytes) -> Bytes {
        if self.begun.is_empty() {
            return end;
        }
        self.begun.extend_from_slice(&end);
        self.begun.split().freeze()
    }
}

/// The row of one line, given without its newline.
///
/// # Errors
/// When the line does not have `columns` cells, or one ends in a backslash.
pub fn decode_line(line: Bytes, columns: usize) -> Result<Row, CopyTextError> {
    // No column and one empty text are the same line.
    if columns == 0 && line.is_empty() {
        return Ok(RowBuilder::with_capacity(0).build(line));
    }
    let mut row = RowBuilder::with_capacity(columns);
    let (mut found, mut at) = (0_usize, 0_usize);
    for cell in line.split(|byte| *byte == b'\t') {
        if cell == NULL {
            row.null();
        } else if cell.contains(&b'\\') {
            return decode_escaped(&line, columns);
        } else {
            row.text(at, cell.len());
        }
        found = found.saturating_add(1);
        at = at.saturating_add(cell.len()).saturating_add(1);
    }
    counted(found, columns)?;
    Ok(row.build(line))
}

/// The same for a line with escapes, which needs a buffer of its own.
fn decode_escaped(line: &[u8], columns: usize) -> Result<Row, CopyTextError> {
    let mut data = Vec::with_capacity(line.len());
    let mut row = RowBuilder::with_capacity(columns);
    let mut found = 0_usize;
    for cell in line.split(|byte| *byte == b'\t') {
        if cell == NULL {
            row.null();
        } else {
            let start = data.len();
            unescape(cell, &mut data)?;
            row.text(start, data.len().saturating_sub(start));
        }
        found = found.saturating_add(1);
    }
    counted(found, columns)?;
    Ok(row.build(data.into()))
}

fn counted(found: usize, expected: usize) -> Result<(), CopyTextError> {
    if found == expected {
        Ok(())
    } else {
        Err(CopyTextError::CellCount { found, expected })
    }
}

fn unescape(cell: &[u8], data: &mut Vec<u8>) -> Result<(), CopyTextError> {
    let mut rest = cell;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        let (plain, escape) = rest.split_at_checked(at).unwrap_or((rest, &[]));
        data.extend_from_slice(plain);
        let (byte, after) = unescape_one(escape)?;
        data.push(byte);
        rest = after;
    }
    data.extend_from_slice(rest);
    Ok(())
}

/// The byte that an escape stands for, and what follows it.
fn unescape_one(escape: &[u8]) -> Result<(u8, &[u8]), CopyTextError> {
    let [_backslash, kind, rest @ ..] = escape else {
        return Err(CopyTextError::DanglingBackslash);
    };
    Ok(match kind {
        b'b' => (0x08, rest),
        b'f' => (0x0c, rest),
        b'n' => (b'\n', rest),
        b'r' => (b'\r', rest),
        b't' => (b'\t', rest),
        b'v' => (0x0b, rest),
        b'x' => digits(rest, 16, 2).unwrap_or((b'x', rest)),
        b'0'..=b'7' => digits(escape.get(1..).unwrap_or_default(), 8, 3).unwrap_or((*kind, rest)),
        other => (*other, rest),
    })
}

/// The byte that up to `most` digits give, and what follows them; `None` without a digit.
fn digits(text: &[u8], radix: u32, most: usize) -> Option<(u8, &[u8])> {
    let is_digit = |byte: &u8| char::from(*byte).is_digit(radix);
    let count = text
        .iter()
        .take(most)
        .take_while(|byte| is_digit(byte))
        .count();
    let (digits, rest) = text.split_at_checked(count)?;
    let number = u32::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()?;
    // As PostgreSQL does: three octal digits above 377 lose their ninth bit.
    u8::try_from(number & 0xff).ok().map(|byte| (byte, rest))
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests build their own inputs"
)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use walferry_schema::Cell;

    fn texts(row: &Row) -> Vec<Option<Vec<u8>>> {
        let text = |cell| match cell {
            Cell::Text(text) => Some(text.to_vec()),
            Cell::Null | Cell::Unchanged | Cell::Large(_) => None,
        };
        row.cells().map(text).collect()
    }

    fn decode(line: &'static [u8], columns: usize) -> Result<Vec<Option<Vec<u8>>>, CopyTextError> {
        decode_line(Bytes::from_static(line), columns).map(|row| texts(&row))
    }

    /// What `CopyAttributeOutText` of PostgreSQL's copyto.c writes.
    fn encode(row: &[Option<Vec<u8>>]) -> Vec<u8> {
        let cells = row.iter().map(|cell| {
            let Some(text) = cell else {
                return NULL.to_vec();
            };
            let escaped = text.iter().map(|byte| match byte {
                0x08 => b"\\b".to_vec(),
                0x0c => b"\\f".to_vec(),
                b'\n' => b"\\n".to_vec(),
                b'\r' => b"\\r".to_vec(),
                b'\t' => b"\\t".to_vec(),
                0x0b => b"\\v".to_vec(),
                b'\\' => b"\\\\".to_vec(),
                other => vec![*other],
            });
            escaped.collect::<Vec<_>>().concat()
        });
        let mut line = cells.collect::<Vec<_>>().join(&b'\t');
        line.push(b'\n');
        line
    }

    #[test]
    fn every_escape_is_read() {
        let cells = decode(
            b"a\\b\\f\\n\\r\\t\\v\\\\\\q\t\\N\t\\101\\7\\x41\\xg\\x4g\t\\\\N\t",
            5,
        )
        .unwrap();
        let text = |text: &[u8]| Some(text.to_vec());
        let expected = [
            text(b"a\x08\x0c\n\r\t\x0b\\q"),
            None,
            text(b"A\x07Axg\x04g"),
            text(b"\\N"),
            text(b""),
        ];
        assert_eq!(cells, expected);
    }

    #[test]
    fn a_line_without_columns_and_one_with_an_empty_text_differ_by_the_count() {
        assert_eq!(decode(b"", 0), Ok(vec![]));
        assert_eq!(decode(b"", 1), Ok(vec![Some(vec![])]));
        assert_eq!(
            decode(b"", 2),
            Err(CopyTextError::CellCount {
                found: 1,
                expected: 2
            })
        );
        assert_eq!(
            decode(b"a\t\\\\", 1),
            Err(CopyTextError::CellCount {
                found: 2,
                expected: 1
            })
        );
        assert_eq!(decode(b"a\\", 1), Err(CopyTextError::DanglingBackslash));
    }

    #[test]
    fn a_line_without_escapes_is_not_copied() {
        let line = Bytes::from_static(b"one\t\\N\tthree");
        let row = decode_line(line.clone(), 3).unwrap();
        let Cell::Text(text) = row.cell(2) else {
            panic!("not a text")
        };
        assert!(line.as_ptr_range().contains(&text.as_ptr()));
    }

    #[test]
    fn an_unfinished_line_is_an_error() {
        let mut decoder = CopyTextDecoder::new(1);
        let mut rows = Vec::new();
        decoder
            .decode(Bytes::from_static(b"a\nb"), &mut rows)
            .unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(decoder.finish(), Err(CopyTextError::Truncated));
    }

    proptest! {
        #[test]
        fn rows_round_trip_however_messages_are_cut(
            rows in prop::collection::vec(
                prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..12)), 3),
                0..8,
            ),
            cuts in prop::collection::vec(1_usize..30, 1..6),
        ) {
            let mut data = Bytes::from(rows.iter().flat_map(|row| encode(row)).collect::<Vec<_>>());
            let mut decoder = CopyTextDecoder::new(3);
            let mut decoded = Vec::new();
            for length in cuts.iter().cycle() {
                if data.is_empty() {
                    break;
                }
                let message = data.split_to((*length).min(data.len()));
                decoder.decode(message, &mut decoded).unwrap();
            }
            prop_assert_eq!(decoder.finish(), Ok(()));
            prop_assert_eq!(decoded.iter().map(texts).collect::<Vec<_>>(), rows);
        }

        #[test]
        fn any_line_is_a_row_or_an_error_and_never_a_panic(line: Vec<u8>, columns in 0_usize..5) {
            let _ = decode_line(line.clone().into(), columns);
            let escaped = line.iter().flat_map(|byte| [b'\\', *byte]).collect::<Vec<_>>();
            let _ = decode_line(escaped.into(), columns);
        }
    }
}
