//! Debezium's records to row events.

use std::sync::Arc;

use walferry_core::{Batch, ForeignRecord, RowEvent, Target};
use walferry_schema::envelope::foreign::{self, Parts, Whence};
use walferry_schema::envelope::{Envelope, EnvelopeError, Op};
use walferry_schema::{Column, Columns, Image, Lsn, Phase, Position};

use super::error::DebeziumError;
use crate::apply::ApplyError;

/// A record with its columns.
#[derive(Debug)]
pub(super) struct Change {
    /// The table's place in the checkpoint.
    pub(super) table: usize,
    /// Whether the topic has one partition, so that all its records are in order.
    pub(super) is_alone: bool,
    pub(super) columns: Arc<Columns>,
    pub(super) whence: Whence,
    pub(super) record: ForeignRecord,
}

/// Adds what a record says to a batch.
pub(super) fn push<B: Batch>(batch: &mut B, change: &Change) -> Result<(), ApplyError> {
    let record = &change.record;
    let parts = Parts::of(record.value.as_deref().unwrap_or_default());
    let envelope = parts.and_then(|it| Envelope::from_bytes(it.payload.as_bytes()));
    let envelope = envelope.map_err(|source| change.malformed(source))?;
    let after = || envelope.after.ok_or_else(|| change.missing("`after`"));
    match envelope.op {
        // A message is about no row.
        Op::Message => Ok(()),
        Op::Truncate if change.is_alone => change.add(batch, RowEvent::Truncate),
        Op::Truncate => Err(change.unordered("a TRUNCATE")),
        Op::Update => change.row(after()?, true, |to| change.add(batch, RowEvent::Update(to))),
        Op::Read | Op::Create => match &record.old_key {
            None => change.row(after()?, false, |to| {
                change.add(batch, RowEvent::Insert(to))
            }),
            Some(old) => change.row(after()?, true, |to| change.moved(batch, old, to)),
        },
        // The insert that follows it takes the document along, with what the change does not carry.
        Op::Delete if record.has_new_key && change.is_alone => Ok(()),
        Op::Delete => {
            let key = record
                .key
                .as_deref()
                .ok_or_else(|| change.missing("the key"))?;
            change.key(key, |key| change.add(batch, RowEvent::Delete(key)))
        }
    }
}

/// Where a record stands.
pub(super) fn place(record: &ForeignRecord) -> String {
    let partition = &record.partition;
    format!(
        "{}/{}@{}",
        partition.topic, partition.partition, record.offset
    )
}

// === impl Change ===

impl Change {
    /// The second half of a key change: with all columns it replaces the old row, else it carries over what is missing.
    fn moved<B: Batch>(&self, batch: &mut B, old: &[u8], to: Image<'_>) -> Result<(), ApplyError> {
        let is_complete = to.is_complete();
        if !self.is_alone {
            // The old row goes in its own partition.
            return if is_complete {
                self.add(batch, RowEvent::Insert(to))
            } else {
                Err(self.unordered("a key change that leaves a value as it was"))
            };
        }
        self.key(old, |from| {
            if is_complete {
                self.add(batch, RowEvent::Delete(from))?;
                self.add(batch, RowEvent::Insert(to))
            } else {
                self.add(batch, RowEvent::Move { from, to })
            }
        })
    }

    /// The table and the partition, whose offsets order its records.
    fn place(&self) -> Lsn {
        let partition = u64::from(self.record.partition.partition.cast_unsigned());
        Lsn((self.table as u64) << 32 | partition)
    }

    fn add<B: Batch>(&self, batch: &mut B, event: RowEvent<'_>) -> Result<(), ApplyError> {
        let target = Target {
            table: &self.whence.table,
            staging: None,
            // A snapshot has one LSN for all its records, and a source that was restored has lower ones.
            position: Position {
                generation: 0,
                phase: Phase::Stream(self.place()),
                ordinal: u64::try_from(self.record.offset).unwrap_or_default(),
            },
            committed_at: self.whence.committed_at,
            xid: None,
            oversize: None,
            whole: None,
        };
        Ok(batch.push(&target, event)?)
    }

    /// Reads a row, with the columns numbered that its key has.
    fn row(
        &self,
        row: &str,
        is_update: bool,
        then: impl FnOnce(Image<'_>) -> Result<(), ApplyError>,
    ) -> Result<(), ApplyError> {
        let key = self.record.key.as_deref();
        let keyed = self.keyed(key.ok_or_else(|| self.missing("the key"))?)?;
        let image = foreign::read(&self.columns, row, is_update);
        let image = image.map_err(|source| self.malformed(source))?;
        then(Image {
            columns: &keyed,
            fields: image.fields,
        })
    }

    /// Reads a key, beside its schema or not.
    fn key(
        &self,
        key: &[u8],
        then: impl FnOnce(Image<'_>) -> Result<(), ApplyError>,
    ) -> Result<(), ApplyError> {
        let keyed = self.keyed(key)?;
        let parts = Parts::of(key).map_err(|source| self.malformed(source))?;
        let image = foreign::read(&self.columns, parts.payload, false);
        let image = image.map_err(|source| self.malformed(source))?;
        then(Image {
            columns: &keyed,
            fields: image.fields,
        })
    }

    fn keyed(&self, key: &[u8]) -> Result<Vec<Column>, ApplyError> {
        let names = Parts::of(key).and_then(|parts| foreign::names(parts.payload));
        let names = names.map_err(|source| self.malformed(source))?;
        let number = |column: &Column| {
            let place = names.iter().position(|name| *name == *column.name);
            place.and_then(|place| u16::try_from(place + 1).ok())
        };
        let columns = self.columns.all.iter().map(|column| Column {
            key: number(column).unwrap_or(0),
            ..column.clone()
        });
        Ok(columns.collect())
    }

    fn malformed(&self, source: EnvelopeError) -> ApplyError {
        let (table, at) = (self.whence.table.to_string(), place(&self.record));
        DebeziumError::Record { table, at, source }.into()
    }

    fn missing(&self, missing: &'static str) -> ApplyError {
        let (table, at) = (self.whence.table.clone(), place(&self.record));
        DebeziumError::Missing { table, at, missing }.into()
    }

    fn unordered(&self, what: &'static str) -> ApplyError {
        let (table, at) = (self.whence.table.clone(), place(&self.record));
        DebeziumError::Unordered { table, at, what }.into()
    }
}
