//! The messages of one stream become events as soon as the types of their tables are known.
//!
//! - Nothing is decoded while a relation waits for the catalog.
//! - PostgreSQL does not say that a composite type was altered. A row that does not fit its types shows it, and waits
//!   until the catalog was asked again.

use std::collections::HashMap;

use bytes::Bytes;
use walferry_core::{SourceEvent, Tasks};
use walferry_schema::{Lsn, Row};

use super::learning::Learning;
use crate::assembler::{self, Assembler};
use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::key::Keys;
use crate::large::{LargeRows, SpooledFrame};
use crate::pgoutput::{self, Message, RelationMessage, SpooledError};
use crate::sql::Sql;
use crate::stream::frame::DATA_HEADER_BYTES;

/// What decoding remembers of one stream.
#[derive(Default)]
pub(super) struct Decoding {
    assembler: Assembler,
    catalog: Catalog,
    /// A relation whose types the catalog must learn; nothing is decoded before.
    pending: Option<(Lsn, RelationMessage)>,
    /// The catalog is being asked.
    learning: Option<Learning>,
    /// The relations whose types may be altered without a word.
    alterable: HashMap<u32, RelationMessage>,
    /// A row that did not fit the types that were known.
    held: Option<(Lsn, Message)>,
}

// === impl Decoding ===

impl Decoding {
    /// Whether a relation waits for the catalog: see [`Self::learn`].
    pub(super) fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    /// Takes the relation that waits, if its types are known, and the row that waits for it: whether none waits any more.
    pub(super) fn describe(&mut self, keys: &Keys) -> Result<bool> {
        let Some((lsn, message)) = self.pending.take() else {
            return Ok(true);
        };
        let Some(relation) = assembler::relation(lsn, &message, keys, &self.catalog)? else {
            self.pending = Some((lsn, message));
            return Ok(false);
        };
        if relation
            .columns
            .iter()
            .any(|column| column.kind.has_composite())
        {
            self.alterable.insert(message.oid, message);
        } else {
            self.alterable.remove(&message.oid);
        }
        self.assembler.describe(relation);
        Ok(true)
    }

    /// The event of the row that waited, if one did.
    pub(super) fn resume(&mut self) -> Result<Option<SourceEvent>> {
        match self.held.take() {
            Some((lsn, message)) => self.assembler.accept(lsn, message),
            None => Ok(None),
        }
    }

    pub(super) fn accept(&mut self, lsn: Lsn, message: Bytes) -> Result<Option<SourceEvent>> {
        let message = pgoutput::decode(message).map_err(|source| Error::Decode { lsn, source })?;
        self.take(lsn, message)
    }

    /// The same of a message in a file, from [`DATA_HEADER_BYTES`] on.
    pub(super) fn accept_spooled(
        &mut self,
        lsn: Lsn,
        file: SpooledFrame,
        large_rows: &LargeRows,
    ) -> Result<Option<SourceEvent>> {
        let message = pgoutput::decode_spooled(file, DATA_HEADER_BYTES as u64);
        let message = message.map_err(|error| match error {
            SpooledError::Io(source) => Error::spool_row(large_rows)(source),
            SpooledError::Decode(source) => Error::Decode { lsn, source },
        })?;
        self.take(lsn, message)
    }

    fn take(&mut self, lsn: Lsn, message: Message) -> Result<Option<SourceEvent>> {
        match message {
            Message::Relation(relation) => {
                self.pending = Some((lsn, relation));
                Ok(None)
            }
            // One comes before each relation that uses the type.
            Message::Type { oid, .. } => {
                self.catalog.forget(oid);
                Ok(None)
            }
            message => {
                let Some(relation) = self.altered(&message) else {
                    return self.assembler.accept(lsn, message);
                };
                for (oid, _) in assembler::types(&relation) {
                    self.catalog.forget(oid);
                }
                self.pending = Some((lsn, relation));
                self.held = Some((lsn, message));
                Ok(None)
            }
        }
    }

    /// Asks the catalog for what the waiting relation needs, over a connection that is lent for it.
    ///
    /// # Cancel safety
    /// Cancel safe: the question goes on, and the next call waits for its answer.
    pub(super) async fn learn(&mut self, sql: &mut Sql, tasks: &Tasks) -> Result<()> {
        let Some((_, message)) = &self.pending else {
            return Ok(());
        };
        let catalog = &mut self.catalog;
        let question = self.learning.get_or_insert_with(|| {
            let unknown = catalog.unknown(&assembler::types(message));
            Learning::start(sql, unknown, tasks)
        });
        let learned = question.finished().await;
        self.learning = None;
        let (lent, types) = learned?;
        *sql = lent;
        catalog.add(types?);
        Ok(())
    }

    /// The relation of a row that does not fit its types as they are known.
    fn altered(&self, message: &Message) -> Option<RelationMessage> {
        let (relation, rows): (_, [Option<&Row>; 2]) = match message {
            Message::Insert { relation, new } => (relation, [Some(new), None]),
            Message::Update { relation, old, new } => (relation, [Some(new), old.as_ref()]),
            Message::Delete { relation, old } => (relation, [Some(old), None]),
            _ => return None,
        };
        let described = self.alterable.get(relation)?;
        let fits = |row: &Row| self.assembler.fits(*relation, row);
        let is_altered = !rows.into_iter().flatten().all(fits);
        is_altered.then(|| described.clone())
    }
}
