//! Changes that are too large for their table's topic: in their place stands a marker, the record without its largest values,
//! and on the dead-letter topic `<prefix>.dead-letter` the value of the whole record, in parts.
//!
//! - The parts come before the marker and belong to the same entry: nothing is confirmed without them.
//! - The whole value is never held.
//! - A record that is too large even without its largest values is an error.

use std::io::{self, Read};

use walferry_core::{Log, Record, TopicSpec};
use walferry_schema::{Cell, Lsn, Oversize, Row, RowOp, header};

use super::CaptureError;
use super::left_out::LeftOut;
use super::records::{Draft, Drafts};
use super::tables::Table;

/// A part is at most so large, also where the topic takes larger records.
const PART_BYTES: usize = 1 << 20;
/// What of a topic's largest record the values may fill that stay: their JSON is larger than their texts.
const SHARE: usize = 4;
/// Digits of the header that numbers a part.
const NUMBER_BYTES: usize = 40;

/// The parts of a whole value on their way out.
pub(super) struct Parts<'a> {
    left_out: Box<LeftOut>,
    stamp: String,
    key: Option<Vec<u8>>,
    table: String,
    columns: &'a [u8],
    error: &'a str,
    /// How large the whole value is, and a part of it.
    bytes: u64,
    part_bytes: u64,
    number: u64,
    label: String,
}

/// Of which rows of a change values are left out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Old,
    Both,
}

/// The dead-letter topic of a prefix.
pub(super) fn topic(prefix: &str) -> TopicSpec {
    TopicSpec {
        name: format!("{prefix}.dead-letter").into(),
        partitions: 1,
    }
}

/// Why a row does not have all of its values with it, if it does not.
pub(crate) fn spooled(row: &Row, limit: usize) -> Option<String> {
    row.has_large().then(|| {
        let bytes = row.large_bytes() + row.text_bytes() as u64;
        format!(
            "a row of {bytes} bytes is larger than the limit of {limit}: raise source.max_row_bytes"
        )
    })
}

/// The same of a change.
pub(super) fn spooled_change(op: &RowOp, limit: usize) -> Option<String> {
    rows(op).find_map(|(_, row)| spooled(row, limit))
}

/// Sees that a change's records, which were just written, are small enough for their topic; else writes them anew as markers:
/// why, when that was needed.
///
/// # Errors
/// When a marker is too large as well.
pub(super) fn fit<L: Log>(
    drafts: &mut Drafts,
    log: &L,
    (table, lsn): (&Table, Lsn),
    op: &RowOp,
    write: impl Fn(&mut Drafts, &RowOp) -> Result<(), CaptureError>,
) -> Result<Option<String>, CaptureError> {
    let Some(why) = drafts.too_large(log, table) else {
        return Ok(None);
    };
    let most = log.largest_record_bytes(&table.topic) / SHARE;
    // The sink needs nothing of the old row but its key: where that is enough the row is whole.
    for (most, of) in [(most, Of::Old), (most, Of::Both), (0, Of::Both)] {
        write(drafts, &without_largest(op, table.key(), most, of))?;
        if drafts.too_large(log, table).is_none() {
            return Ok(Some(why.to_string()));
        }
    }
    Err(CaptureError::record(&table.relation.name, lsn, why))
}

/// The change with the largest values of its rows marked, until the texts of the others, without the key's, have no more
/// than so many bytes.
fn without_largest(op: &RowOp, key: &[usize], most_bytes: usize, of: Of) -> RowOp {
    let mut sizes: Vec<_> = rows(op)
        .filter(|(is_new, _)| of == Of::Both || !is_new)
        .flat_map(|(is_new, row)| sizes(row, key).map(move |(index, bytes)| (bytes, is_new, index)))
        .collect();
    sizes.sort_unstable();
    let mut left: usize = sizes.iter().map(|(bytes, ..)| bytes).sum();
    let mut marked = [Vec::new(), Vec::new()];
    while let Some((bytes, is_new, index)) = sizes.pop().filter(|_| left > most_bytes) {
        left -= bytes;
        marked[usize::from(is_new)].push(index);
    }
    let [old_marked, new_marked] = marked;
    let old_row = |row: &Row| row.with_large(|index| old_marked.contains(&index));
    let new_row = |row: &Row| row.with_large(|index| new_marked.contains(&index));
    match op {
        RowOp::Insert { new } => RowOp::Insert { new: new_row(new) },
        RowOp::Update { old, new } => RowOp::Update {
            old: old.as_ref().map(old_row),
            new: new_row(new),
        },
        RowOp::Delete { old } => RowOp::Delete { old: old_row(old) },
    }
}

/// The rows of a change, each with whether it is the new one.
fn rows(op: &RowOp) -> impl Iterator<Item = (bool, &Row)> {
    let (old, new) = match op {
        RowOp::Insert { new } => (None, Some(new)),
        RowOp::Update { old, new } => (old.as_ref(), Some(new)),
        RowOp::Delete { old } => (Some(old), None),
    };
    let rows = [old.map(|row| (false, row)), new.map(|row| (true, row))];
    rows.into_iter().flatten()
}

/// How large the texts of a row are, by their cells, without the key's.
fn sizes<'a>(row: &'a Row, key: &'a [usize]) -> impl Iterator<Item = (usize, usize)> + 'a {
    let others = row.cells().enumerate().filter(|(at, _)| !key.contains(at));
    others.filter_map(|(index, cell)| match cell {
        Cell::Text(text) => Some((index, text.len())),
        _ => None,
    })
}

// === impl Parts ===

impl<'a> Parts<'a> {
    /// The parts for a topic of a draft's whole value, if it leaves something out; to be measured first.
    pub(super) fn of(
        draft: &mut Draft,
        table: &'a Table,
        error: &'a str,
        largest_bytes: usize,
    ) -> Option<Self> {
        let left_out = draft.left_out.take()?;
        let mut parts = Self {
            left_out,
            stamp: draft.stamp.clone(),
            key: draft.key.clone(),
            table: table.relation.name.to_string(),
            columns: &table.columns,
            error,
            bytes: 0,
            part_bytes: 0,
            number: 0,
            label: " ".repeat(NUMBER_BYTES),
        };
        let around = parts
            .record(&table.topic, None, 0, &parts.headers())
            .bytes();
        let room = largest_bytes.min(PART_BYTES).saturating_sub(around);
        parts.part_bytes = room.max(1) as u64;
        Some(parts)
    }

    /// Reads a piece to know how large the whole is: whether there is more. The caller gives other tasks their turn.
    pub(super) fn measure(&mut self) -> io::Result<bool> {
        let read = self.piece(PART_BYTES as u64)?.len();
        self.bytes += read as u64;
        if read == 0 {
            self.left_out.whole.rewind();
        }
        Ok(read > 0)
    }

    /// The value of the next part; none after the last.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let value = self.piece(self.part_bytes)?;
        if value.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        self.label = format!("{}/{}", self.number, self.count());
        Ok(Some(value))
    }

    /// The headers of the part that came last.
    pub(super) fn headers(&self) -> [(&str, &[u8]); 5] {
        [
            (header::POSITION, self.stamp.as_bytes()),
            (header::COLUMNS, self.columns),
            (header::TABLE, self.table.as_bytes()),
            (header::PART, self.label.as_bytes()),
            (header::ERROR, self.error.as_bytes()),
        ]
    }

    /// A part's record; `timestamp` in milliseconds since 1970.
    pub(super) fn record<'b>(
        &'b self,
        topic: &'b TopicSpec,
        value: Option<&'b [u8]>,
        timestamp: i64,
        headers: &'b [(&'b str, &'b [u8])],
    ) -> Record<'b> {
        Record {
            topic,
            key: self.key.as_deref(),
            value,
            timestamp,
            headers,
        }
    }

    /// What the marker says of it.
    pub(super) fn oversize(self) -> Oversize {
        let parts = self.count();
        Oversize {
            columns: self.left_out.columns,
            before: self.left_out.before,
            bytes: self.bytes,
            parts,
            error: self.error.to_owned(),
        }
    }

    fn count(&self) -> u64 {
        self.bytes.div_ceil(self.part_bytes)
    }

    fn piece(&mut self, bytes: u64) -> io::Result<Vec<u8>> {
        let mut piece = Vec::new();
        let whole = &mut self.left_out.whole;
        whole.take(bytes).read_to_end(&mut piece)?;
        Ok(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn large(op: &RowOp) -> Vec<(bool, Vec<usize>)> {
        let is_large = |(_, cell): &(usize, Cell<'_>)| matches!(cell, Cell::Large(_));
        let indexes = |row: &Row| {
            let cells = row.cells().enumerate().filter(is_large);
            cells.map(|(index, _)| index).collect()
        };
        rows(op)
            .map(|(is_new, row)| (is_new, indexes(row)))
            .collect()
    }

    #[test]
    fn the_largest_values_are_left_out_and_never_the_key() {
        let new = Row::from_texts(&[Some("a long key"), Some("abcdef"), Some("ab"), Some("abcd")]);
        let old = Some(Row::from_texts(&[Some("k"), Some("abcde"), None, None]));
        let op = RowOp::Update { old, new };
        let left_out = |most| large(&without_largest(&op, &[0], most, Of::Both));
        assert_eq!(left_out(17), [(false, vec![]), (true, vec![])]);
        assert_eq!(left_out(16), [(false, vec![]), (true, vec![1])]);
        assert_eq!(left_out(6), [(false, vec![1]), (true, vec![1])]);
        assert_eq!(left_out(0), [(false, vec![1]), (true, vec![1, 2, 3])]);
        let of_old = large(&without_largest(&op, &[0], 0, Of::Old));
        assert_eq!(of_old, [(false, vec![1]), (true, vec![])]);
    }
}
