//! The rows that are not as the source has them, since a change of theirs could not be written.

use std::collections::HashMap;

use walferry_schema::TableName;

/// The rows that have dead letters, and those that were given up.
#[derive(Clone, Debug, Default)]
pub(crate) struct ParkedKeys {
    tables: HashMap<(TableName, u64), Keys>,
}

type Keys = HashMap<Vec<u8>, Standing>;

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
        let keys = self.tables.entry((table.clone(), generation)).or_default();
        keys.insert(id.to_vec(), standing);
    }

    pub(crate) fn remove(&mut self, table: &TableName, generation: u64, id: &[u8]) {
        let of = (table.clone(), generation);
        if let Some(keys) = self.tables.get_mut(&of) {
            keys.remove(id);
            if keys.is_empty() {
                self.tables.remove(&of);
            }
        }
    }

    /// Forgets the generations before one.
    pub(crate) fn forget(&mut self, generation: u64) {
        self.tables.retain(|table, _| table.1 >= generation);
    }

    pub(crate) fn get(&self, table: &TableName, generation: u64, id: &[u8]) -> Option<Standing> {
        if self.is_empty() {
            return None;
        }
        self.keys(table, generation)?.get(id).copied()
    }

    pub(crate) fn keys(&self, table: &TableName, generation: u64) -> Option<&Keys> {
        self.tables.get(&(table.clone(), generation))
    }

    /// Whether there were any.
    pub(crate) fn empty(&mut self, table: &TableName, generation: u64) -> bool {
        self.tables.remove(&(table.clone(), generation)).is_some()
    }
}
