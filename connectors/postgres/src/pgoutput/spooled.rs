//! Changes in a file: small values are read into memory, large ones stay where they are.

use std::io;

use walferry_schema::{Row, RowBuilder};

use super::{DecodeError, Message, decode};
use crate::large::{LARGE_BYTES, SpooledFrame};

/// A message in a file that cannot be decoded.
#[derive(Debug)]
pub(crate) enum SpooledError {
    /// The file cannot be read.
    Io(io::Error),
    /// What it holds is no message.
    Decode(DecodeError),
}

/// A message in a file from `at` on, and how far it was read.
struct Reader<'a> {
    file: &'a SpooledFrame,
    at: u64,
}

/// A tuple of a change: its type and its cells, the texts of the small ones in memory.
type Tuple = (u8, RowBuilder, Vec<u8>);

/// Decodes the message that stands in a file from `at` on.
///
/// # Errors
/// When the file cannot be read or holds no message. One that is no change is read into memory.
pub(crate) fn decode_spooled(file: SpooledFrame, at: u64) -> Result<Message, SpooledError> {
    let mut reader = Reader { file: &file, at };
    let (kind, relation) = (reader.u8()?, reader.u32()?);
    if !b"IUD".contains(&kind) {
        let bytes = file.bytes().saturating_sub(at);
        let message = Reader { file: &file, at }.take(bytes)?;
        return decode(message.into()).map_err(SpooledError::Decode);
    }
    let mut tuples = vec![reader.tuple()?];
    if reader.at < file.bytes() {
        tuples.push(reader.tuple()?);
    }
    if let Some(left @ 1..) = file.bytes().checked_sub(reader.at) {
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        return Err(DecodeError::Trailing(left).into());
    }
    let kinds: Vec<u8> = tuples.iter().map(|(kind, ..)| *kind).collect();
    let spool = file.into_spool();
    let mut rows = tuples
        .into_iter()
        .map(|(_, row, data)| row.build_spooled(data.into(), Some(spool.clone())));
    message((kind, relation), &kinds, (rows.next(), rows.next()))
}

fn message(
    (kind, relation): (u8, u32),
    tuples: &[u8],
    rows: (Option<Row>, Option<Row>),
) -> Result<Message, SpooledError> {
    Ok(match (kind, tuples, rows) {
        (b'I', [b'N'], (Some(new), _)) => Message::Insert { relation, new },
        (b'U', [b'N'], (Some(new), _)) => Message::Update {
            relation,
            old: None,
            new,
        },
        (b'U', [b'K' | b'O', b'N'], (old, Some(new))) => Message::Update { relation, old, new },
        (b'D', [b'K' | b'O'], (Some(old), _)) => Message::Delete { relation, old },
        (_, tuples, _) => {
            let last = tuples.last().copied().unwrap_or_default();
            return Err(DecodeError::UnknownTuple(last).into());
        }
    })
}

// === impl Reader ===

impl Reader<'_> {
    fn tuple(&mut self) -> Result<Tuple, SpooledError> {
        let (kind, count) = (self.u8()?, self.u16()?);
        let (mut row, mut data) = (RowBuilder::with_capacity(count.into()), Vec::new());
        for _ in 0..count {
            match self.u8()? {
                b'n' => row.null(),
                b'u' => row.unchanged(),
                b't' => self.text(&mut row, &mut data)?,
                b'b' => return Err(DecodeError::BinaryCell.into()),
                other => return Err(DecodeError::UnknownCell(other).into()),
            }
        }
        Ok((kind, row, data))
    }

    fn text(&mut self, row: &mut RowBuilder, data: &mut Vec<u8>) -> Result<(), SpooledError> {
        let length = self.u32()?;
        if u64::from(length) >= LARGE_BYTES as u64 {
            row.spooled(self.at, length.into());
            self.at = self.at.saturating_add(length.into());
            return self.check();
        }
        let text = self.take(length.into())?;
        row.text(data.len(), text.len());
        data.extend_from_slice(&text);
        Ok(())
    }

    fn take(&mut self, bytes: u64) -> Result<Vec<u8>, SpooledError> {
        let at = self.at;
        self.at = at.saturating_add(bytes);
        self.check()?;
        let mut taken = vec![0; usize::try_from(bytes).unwrap_or_default()];
        self.file
            .read_at(at, &mut taken)
            .map_err(SpooledError::Io)?;
        Ok(taken)
    }

    /// Whether the file has all that was read or passed over.
    fn check(&self) -> Result<(), SpooledError> {
        if self.at > self.file.bytes() {
            return Err(DecodeError::Truncated.into());
        }
        Ok(())
    }

    fn u8(&mut self) -> Result<u8, SpooledError> {
        self.array().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Result<u16, SpooledError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, SpooledError> {
        self.array().map(u32::from_be_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SpooledError> {
        let taken = self.take(N as u64)?;
        taken.try_into().map_err(|_| DecodeError::Truncated.into())
    }
}

impl From<DecodeError> for SpooledError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests build their own inputs"
)]
mod tests {
    use super::*;
    use crate::large::tests::spooled;
    use proptest::prelude::*;
    use walferry_schema::Cell;

    const LARGE: usize = LARGE_BYTES + 3;

    fn tuple(kind: u8, cells: &[Option<&[u8]>]) -> Vec<u8> {
        let mut tuple = vec![kind];
        tuple.extend(u16::try_from(cells.len()).unwrap().to_be_bytes());
        for cell in cells {
            match cell {
                None => tuple.push(b'u'),
                Some(text) => {
                    tuple.push(b't');
                    tuple.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                    tuple.extend_from_slice(text);
                }
            }
        }
        tuple
    }

    /// The frame of a change, after a prefix that is no part of the message.
    fn frame(kind: u8, tuples: &[Vec<u8>]) -> Vec<u8> {
        [b"prefix".as_slice(), &[kind, 0, 0, 0, 7], &tuples.concat()].concat()
    }

    fn texts(row: &Row) -> Vec<Option<Vec<u8>>> {
        let text = |cell: Cell<'_>| match cell {
            Cell::Text(text) => Some(text.to_vec()),
            Cell::Large(large) => {
                let mut text = Vec::new();
                io::Read::read_to_end(&mut large.reader(), &mut text).unwrap();
                Some(text)
            }
            Cell::Null | Cell::Unchanged => None,
        };
        row.cells().map(text).collect()
    }

    fn shown(message: &Message) -> String {
        let of = |row: &Option<Row>| row.as_ref().map(texts);
        match message {
            Message::Insert { relation, new } => format!("I {relation} {:?}", texts(new)),
            Message::Update { relation, old, new } => {
                format!("U {relation} {:?} {:?}", of(old), texts(new))
            }
            Message::Delete { relation, old } => format!("D {relation} {:?}", texts(old)),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_change_in_a_file_is_the_one_in_memory_and_its_large_values_are_not_held() {
        let large = vec![b'x'; LARGE];
        let cells = [Some(&large[..]), None, Some(b"small"), Some(&large[1..])];
        let (new, old) = (tuple(b'N', &cells), tuple(b'O', &cells));
        let key = tuple(b'K', &[Some(b"1")]);
        let changes = [
            frame(b'I', std::slice::from_ref(&new)),
            frame(b'U', std::slice::from_ref(&new)),
            frame(b'U', &[old.clone(), new.clone()]),
            frame(b'U', &[key.clone(), new]),
            frame(b'D', &[old]),
            frame(b'D', &[key]),
        ];
        for frame in changes {
            let held = decode(frame[6..].to_vec().into()).unwrap();
            let message = decode_spooled(spooled(&frame), 6).unwrap();
            assert_eq!(shown(&message), shown(&held));
            if let Message::Insert { new, .. } = message {
                let is_large = |cell| matches!(cell, Cell::Large(_));
                let large: Vec<_> = new.cells().map(is_large).collect();
                assert_eq!(large, [true, false, false, true]);
            }
        }
    }

    #[test]
    fn a_message_that_ends_early_or_late_is_an_error() {
        let large = vec![b'x'; LARGE];
        let whole = frame(b'I', &[tuple(b'N', &[Some(&large), Some(b"ab")])]);
        for length in 6..whole.len() {
            if length > 40 && length < LARGE {
                continue;
            }
            assert!(
                decode_spooled(spooled(&whole[..length]), 6).is_err(),
                "{length}"
            );
        }
        let longer = [&whole[..], b"z"].concat();
        assert!(decode_spooled(spooled(&longer), 6).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error_and_never_a_panic(kind in prop::sample::select(b"IUDM?".to_vec()), rest: Vec<u8>) {
            let _ = decode_spooled(spooled(&[&[kind], &rest[..]].concat()), 0);
        }
    }
}
