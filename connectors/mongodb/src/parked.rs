//! The rows that are not as the source has them, since a change of theirs could not be written.
//!
//! - A row is known by the identity of its `_id`: the one that a later change says may be another number's type.
//! - What a batch makes of them is kept apart until it is committed: they may be many, and a batch touches few.

use std::collections::HashMap;

use walferry_schema::TableName;

use crate::batch::Text;
use crate::dead_letters::Letter;
use crate::identity;

/// A table of a generation.
type TableId = (TableName, u64);

/// The rows that have dead letters, and those that were given up.
#[derive(Debug, Default)]
pub(crate) struct ParkedKeys {
    /// The rows by their identities.
    tables: HashMap<TableId, HashMap<Vec<u8>, Standing>>,
}

/// What becomes of them.
#[derive(Debug, Default)]
pub(crate) struct ParkedChanges {
    tables: HashMap<TableId, TableChanges>,
}

#[derive(Debug, Default)]
struct TableChanges {
    /// Whether nothing is left of what was before.
    is_emptied: bool,
    /// None where a row is as any other again.
    rows: HashMap<Vec<u8>, Option<Standing>>,
}

/// The rows as they are after a part of a batch.
#[derive(Debug)]
pub(crate) struct ParkedView<'a> {
    before: &'a ParkedKeys,
    pub(crate) changes: ParkedChanges,
}

/// What is known of a row that has not all of its changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has dead letters.
    Parked,
    /// Its dead letters were discarded.
    GivenUp,
}

/// What a dead letter says.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) at: String,
    /// The elements of its document.
    pub(crate) elements: Vec<u8>,
    /// What its row was too large with.
    pub(crate) texts: Vec<Text>,
    /// The letter, where it is the first of its row, and not too large for the log: there it stands already.
    pub(crate) refused: Option<Box<Letter>>,
}

// === impl ParkedKeys ===

impl ParkedKeys {
    pub(crate) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    pub(crate) fn insert(
        &mut self,
        table: &TableName,
        generation: u64,
        id: &[u8],
        standing: Standing,
    ) {
        let row = identity(id).into_owned();
        self.set((table.clone(), generation), row, Some(standing));
    }

    pub(crate) fn remove(&mut self, table: &TableName, generation: u64, id: &[u8]) {
        let row = identity(id).into_owned();
        self.set((table.clone(), generation), row, None);
    }

    /// Notes a row by its identity.
    fn set(&mut self, of: TableId, row: Vec<u8>, standing: Option<Standing>) {
        if let Some(standing) = standing {
            self.tables.entry(of).or_default().insert(row, standing);
        } else if let Some(rows) = self.tables.get_mut(&of) {
            rows.remove(&row);
            if rows.is_empty() {
                self.tables.remove(&of);
            }
        }
    }

    /// Whether a table has such rows.
    pub(crate) fn has(&self, table: &TableName, generation: u64) -> bool {
        self.tables.contains_key(&(table.clone(), generation))
    }

    /// Forgets the generations before one.
    pub(crate) fn forget(&mut self, generation: u64) {
        self.tables.retain(|table, _| table.1 >= generation);
    }

    /// Takes in what a batch that is committed made of them.
    pub(crate) fn take_in(&mut self, changes: ParkedChanges) {
        for (of, changes) in changes.tables {
            if changes.is_emptied {
                self.tables.remove(&of);
            }
            for (row, standing) in changes.rows {
                self.set(of.clone(), row, standing);
            }
        }
    }
}

// === impl ParkedView ===

impl<'a> ParkedView<'a> {
    pub(crate) fn over(before: &'a ParkedKeys) -> Self {
        let changes = ParkedChanges::default();
        Self { before, changes }
    }

    pub(crate) fn get(&self, table: &TableName, generation: u64, id: &[u8]) -> Option<Standing> {
        let of = (table.clone(), generation);
        let row = &*identity(id);
        if let Some(changes) = self.changes.tables.get(&of) {
            if let Some(changed) = changes.rows.get(row) {
                return *changed;
            }
            if changes.is_emptied {
                return None;
            }
        }
        self.before.tables.get(&of)?.get(row).copied()
    }

    /// Whether a table may have such rows.
    pub(crate) fn has(&self, table: &TableName, generation: u64) -> bool {
        let of = (table.clone(), generation);
        self.before.tables.contains_key(&of) || self.changes.tables.contains_key(&of)
    }

    pub(crate) fn insert(
        &mut self,
        table: &TableName,
        generation: u64,
        id: &[u8],
        standing: Standing,
    ) {
        let rows = &mut self.changed(table, generation).rows;
        rows.insert(identity(id).into_owned(), Some(standing));
    }

    pub(crate) fn remove(&mut self, table: &TableName, generation: u64, id: &[u8]) {
        let rows = &mut self.changed(table, generation).rows;
        rows.insert(identity(id).into_owned(), None);
    }

    /// Forgets those of a table: whether there may have been any.
    pub(crate) fn empty(&mut self, table: &TableName, generation: u64) -> bool {
        if !self.has(table, generation) {
            return false;
        }
        let rows = HashMap::new();
        let is_emptied = true;
        *self.changed(table, generation) = TableChanges { is_emptied, rows };
        true
    }

    fn changed(&mut self, table: &TableName, generation: u64) -> &mut TableChanges {
        let of = (table.clone(), generation);
        self.changes.tables.entry(of).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_batch_makes_of_them_is_seen_at_once_and_lasts_when_it_is_taken_in() {
        let (table, other) = (TableName::new("public", "t"), TableName::new("public", "u"));
        let mut keys = ParkedKeys::default();
        for id in [b"a", b"b"] {
            keys.insert(&table, 7, id, Standing::Parked);
        }
        keys.insert(&other, 7, b"a", Standing::Parked);
        let mut view = ParkedView::over(&keys);
        view.remove(&table, 7, b"a");
        view.insert(&table, 7, b"c", Standing::GivenUp);
        let of_table = |view: &ParkedView<'_>| [b"a", b"b", b"c"].map(|id| view.get(&table, 7, id));
        let expected = [None, Some(Standing::Parked), Some(Standing::GivenUp)];
        assert_eq!(of_table(&view), expected);
        let changes = view.changes;
        keys.take_in(changes);
        assert_eq!(of_table(&ParkedView::over(&keys)), expected);

        let mut view = ParkedView::over(&keys);
        assert!(view.empty(&table, 7));
        view.insert(&table, 7, b"b", Standing::Parked);
        let expected = [None, Some(Standing::Parked), None];
        assert_eq!(of_table(&view), expected);
        assert!(!view.empty(&table, 8));
        let changes = view.changes;
        keys.take_in(changes);
        let view = ParkedView::over(&keys);
        assert_eq!(of_table(&view), expected);
        assert_eq!(view.get(&other, 7, b"a"), Some(Standing::Parked));
    }
}
