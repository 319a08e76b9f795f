//! The tables of a generation, and the versions in which their relations come.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use walferry_core::TopicSpec;
use walferry_schema::envelope::Before;
use walferry_schema::{
    Cell, Columns, Lsn, Relation, ReplicaIdentity, Row, RowBuilder, TableName, TableSpec,
};

use super::{CaptureError, CaptureOptions};

/// What one table version's records have in common.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) relation: Arc<Relation>,
    pub(crate) topic: Arc<TopicSpec>,
    /// The table's place among the generation's tables.
    pub(crate) index: usize,
    pub(super) columns: Vec<u8>,
    pub(super) key: Vec<usize>,
}

/// What a generation says of a table.
#[derive(Debug)]
struct Streamed {
    oid: u32,
    topic: Arc<TopicSpec>,
    index: usize,
}

/// The tables that are streamed, by name and, once seen, by relation.
#[derive(Debug)]
pub(crate) struct Tables {
    streamed: HashMap<TableName, Streamed>,
    seen: HashMap<u32, (Arc<Relation>, Option<Arc<Table>>)>,
}

// === impl Tables ===

impl Tables {
    /// The generation's tables.
    pub(crate) fn new(tables: &[TableSpec]) -> Self {
        let topic = |table: &TableSpec| {
            Arc::new(TopicSpec {
                name: table.topic.clone(),
                partitions: table.partitions,
            })
        };
        let streamed = tables.iter().enumerate().map(|(index, table)| {
            let (oid, topic) = (table.oid, topic(table));
            (table.name.clone(), Streamed { oid, topic, index })
        });
        let streamed = streamed.collect();
        Self {
            streamed,
            seen: HashMap::new(),
        }
    }

    /// The table that a relation's changes go to; none for a table that is not streamed.
    ///
    /// # Errors
    /// When the relation is one that the generation should have or no longer has.
    pub(crate) fn streamed(
        &mut self,
        relation: &Arc<Relation>,
        lsn: Lsn,
        generation: u64,
        options: &CaptureOptions,
    ) -> Result<Option<Arc<Table>>, CaptureError> {
        if self.is_known(relation) {
            return Ok(self.get(relation));
        }
        if let Some(table) = self.mistaken(relation) {
            let publication = options.publication.clone();
            return Err(CaptureError::TableGone {
                table,
                generation,
                publication,
            });
        }
        let table = self.get(relation);
        if table.is_none() && (options.selects)(&relation.name) {
            let table = relation.name.clone();
            return Err(CaptureError::TableNotInGeneration {
                table,
                generation,
                lsn,
            });
        }
        Ok(table)
    }

    /// Whether this version of a relation was asked for before.
    fn is_known(&self, relation: &Arc<Relation>) -> bool {
        let seen = self.seen.get(&relation.oid);
        seen.is_some_and(|(known, _)| Arc::ptr_eq(known, relation))
    }

    /// The table of a relation; none when it is not one of the generation's.
    pub(crate) fn get(&mut self, relation: &Arc<Relation>) -> Option<Arc<Table>> {
        if let Some((known, table)) = self.seen.get(&relation.oid)
            && Arc::ptr_eq(known, relation)
        {
            return table.clone();
        }
        let known = self.streamed.get(&relation.name);
        let known = known.filter(|known| known.oid == relation.oid);
        let table = known.map(|known| {
            Arc::new(Table {
                topic: known.topic.clone(),
                index: known.index,
                columns: Columns(relation.columns.clone()).to_bytes(),
                key: relation.key_columns(),
                relation: relation.clone(),
            })
        });
        self.seen
            .insert(relation.oid, (relation.clone(), table.clone()));
        table
    }

    /// The table of the generation that a relation is mistaken for: another one took its name, or
    /// it was given another name.
    fn mistaken(&self, relation: &Relation) -> Option<TableName> {
        let is_mistaken = |(name, streamed): &(&TableName, &Streamed)| {
            (streamed.oid == relation.oid) != (**name == relation.name)
        };
        self.streamed
            .iter()
            .find(is_mistaken)
            .map(|(name, _)| name.clone())
    }
}

// === impl Table ===

impl Table {
    /// The indexes of the columns that identify a row.
    pub(crate) fn key(&self) -> &[usize] {
        &self.key
    }

    /// Whether an update gave the row another key.
    pub(crate) fn changes_key(&self, old: &Row, new: &Row) -> bool {
        self.key.iter().any(|&i| {
            let new = new.cell(i);
            new != Cell::Unchanged && new != old.cell(i)
        })
    }

    pub(super) fn before<'a>(&self, old: &'a Row) -> Before<'a> {
        match self.relation.identity {
            ReplicaIdentity::Full => Before::Full(old),
            _ => Before::Key(old),
        }
    }
}

/// The new row with the key cells that an update left unchanged taken from the old one: a key may
/// be a TOAST value too, and PostgreSQL then sends it in the old tuple.
pub(crate) fn with_key_of<'a>(old: &Row, new: &'a Row, key: &[usize]) -> Cow<'a, Row> {
    if key.iter().all(|&i| new.cell(i) != Cell::Unchanged) {
        return Cow::Borrowed(new);
    }
    let mut data = Vec::with_capacity(new.text_bytes() + old.text_bytes());
    let mut row = RowBuilder::with_capacity(new.len());
    for i in 0..new.len() {
        let cell = match new.cell(i) {
            Cell::Unchanged if key.contains(&i) => old.cell(i),
            cell => cell,
        };
        match cell {
            Cell::Null => row.null(),
            Cell::Unchanged => row.unchanged(),
            Cell::Text(text) => {
                row.text(data.len(), text.len());
                data.extend_from_slice(text);
            }
        }
    }
    Cow::Owned(row.build(data.into()))
}
