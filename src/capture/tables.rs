//! The tables of a generation, and the versions in which their relations come.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use walferry_core::TopicSpec;
use walferry_schema::envelope::{Before, RecordSchema, Template, Version};
use walferry_schema::{
    Cell, Columns, Declared, Large, Lsn, Modes, Relation, ReplicaIdentity, Row, RowBuilder,
    SchemaMode, TableName, TableSpec,
};

use super::{CaptureError, CaptureOptions};

/// What one table version's records have in common.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) relation: Arc<Relation>,
    pub(crate) topic: Arc<TopicSpec>,
    /// The name that the transaction topic has for the table.
    pub(super) collection: Arc<str>,
    /// The table's place among the generation's tables.
    pub(crate) index: usize,
    pub(super) columns: Vec<u8>,
    /// What the records carry beside their payload, if anything.
    schema: Option<RecordSchema>,
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
    modes: Modes,
}

// === impl Tables ===

impl Tables {
    /// The generation's tables, whose values are written in these modes.
    pub(crate) fn new(tables: &[TableSpec], modes: Modes) -> Self {
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
            modes,
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

    /// Whether a relation's records want a schema that is not made yet: see [`Self::declare`].
    pub(super) fn wants_schema(&self, relation: &Arc<Relation>) -> bool {
        self.modes.schemas != SchemaMode::None
            && !self.is_known(relation)
            && self.of_generation(relation).is_some()
    }

    /// Makes the schema of a relation's records.
    pub(super) fn declare(
        &mut self,
        template: &Template,
        relation: &Arc<Relation>,
        declared: &[Declared],
    ) {
        let schema = RecordSchema::new(template, relation, declared);
        self.see(relation, schema);
    }

    fn of_generation(&self, relation: &Relation) -> Option<&Streamed> {
        let known = self.streamed.get(&relation.name);
        known.filter(|known| known.oid == relation.oid)
    }

    /// The table of a relation; none when it is not one of the generation's.
    pub(crate) fn get(&mut self, relation: &Arc<Relation>) -> Option<Arc<Table>> {
        if let Some((known, table)) = self.seen.get(&relation.oid)
            && Arc::ptr_eq(known, relation)
        {
            return table.clone();
        }
        self.see(relation, None)
    }

    fn see(
        &mut self,
        relation: &Arc<Relation>,
        schema: Option<RecordSchema>,
    ) -> Option<Arc<Table>> {
        let table = self.of_generation(relation).map(|known| {
            let columns = Columns {
                all: relation.columns.clone(),
                modes: self.modes,
            };
            Arc::new(Table {
                topic: known.topic.clone(),
                collection: relation.name.to_string().into(),
                index: known.index,
                columns: columns.to_bytes(),
                schema,
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

    /// What a record is written by.
    pub(super) fn version(&self) -> Version<'_> {
        Version {
            relation: &self.relation,
            schema: self.schema.as_ref(),
        }
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
            Cell::Large(Large::Held(text)) => {
                row.held(data.len(), text.len());
                data.extend_from_slice(text);
            }
            Cell::Large(Large::Spooled { offset, bytes, .. }) => row.spooled(offset, bytes),
        }
    }
    Cow::Owned(row.build_spooled(data.into(), new.spool().cloned()))
}
