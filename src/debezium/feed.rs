//! The partitions of Debezium's topics as a feed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::info;
use walferry_core::{
    Batch, Checkpoint, ForeignRecord, Order, PartitionOffset, PipelineState, RecordReader, Skipped,
    TopicSpec,
};
use walferry_schema::envelope::EnvelopeError;
use walferry_schema::envelope::foreign::{self, Parts, Whence};
use walferry_schema::{Columns, CommitId, Lsn, Relation, TableName, TableSpec};

use super::error::DebeziumError;
use super::events::{Change, push};
use super::{Foreign, table_of};
use crate::apply::{ApplyError, Fed, Feed, Tally};
use crate::snapshot::Preparation;

/// How often new topics and partitions are looked for.
const LOOK: Duration = Duration::from_secs(5);

/// The partitions of Debezium's topics as a feed.
pub(super) struct DebeziumFeed<'a, R> {
    from: &'a Foreign<'a>,
    reader: R,
    checkpoint: Checkpoint,
    is_assigned: bool,
    looked: Option<Instant>,
    /// A record that waits for its types.
    held: Option<ForeignRecord>,
    /// The columns of each topic's last record, with its schema or the names of its columns.
    known: HashMap<Arc<str>, (String, Arc<Columns>)>,
}

// === impl DebeziumFeed ===

impl<'a, R: RecordReader> DebeziumFeed<'a, R> {
    /// Goes on from a checkpoint; without one, from the beginning of each partition.
    pub(super) fn open(from: &'a Foreign<'a>, reader: R, stored: Option<Checkpoint>) -> Self {
        let checkpoint = Checkpoint {
            state: PipelineState::Live,
            ..stored.unwrap_or_else(Checkpoint::blank)
        };
        Self {
            from,
            reader,
            checkpoint,
            is_assigned: false,
            looked: None,
            held: None,
            known: HashMap::new(),
        }
    }

    /// Looks for topics and partitions that are not read yet.
    async fn look(&mut self) -> Result<(), ApplyError> {
        let topics = self.reader.topics().await.map_err(ApplyError::Connector)?;
        for topic in topics {
            let Some(table) = table_of(self.from.config, self.from.prefix, &topic.name) else {
                continue;
            };
            self.add(&topic, table).await?;
        }
        if !self.is_assigned && !self.checkpoint.partitions.is_empty() {
            let partitions = &self.checkpoint.partitions;
            let assigned = self.reader.assign(partitions).await;
            assigned.map_err(ApplyError::Connector)?;
            self.is_assigned = true;
        }
        Ok(())
    }

    async fn add(&mut self, topic: &TopicSpec, table: TableName) -> Result<(), ApplyError> {
        let tables = &self.checkpoint.tables;
        let is_it = |it: &TableSpec| it.topic == topic.name && it.partitions == 1;
        if topic.partitions > 1 && tables.iter().any(is_it) {
            let (topic, partitions) = (topic.name.to_string(), topic.partitions);
            return Err(DebeziumError::Grown { topic, partitions }.into());
        }
        for partition in 0..topic.partitions {
            let name = PartitionOffset {
                topic: topic.name.clone(),
                partition,
            };
            if self.checkpoint.partitions.contains_key(&name) {
                continue;
            }
            let bounds = self.reader.bounds(&name).await;
            let first = bounds.map_err(ApplyError::Connector)?.first;
            info!(topic = &*name.topic, partition, offset = first, "reading");
            self.checkpoint.partitions.insert(name, first);
            self.is_assigned = false;
        }
        let tables = &mut self.checkpoint.tables;
        match tables.iter_mut().find(|it| it.topic == topic.name) {
            Some(known) => known.partitions = topic.partitions,
            None => tables.push(TableSpec {
                name: table,
                oid: 0,
                key: Vec::new(),
                topic: topic.name.clone(),
                partitions: topic.partitions,
            }),
        }
        Ok(())
    }

    /// Takes the record that is held: the change that it is, if it is one.
    async fn take(&mut self) -> Result<Option<Change>, ApplyError> {
        let Some(record) = &self.held else {
            return Ok(None);
        };
        let tables = &self.checkpoint.tables;
        let index = tables
            .iter()
            .position(|it| it.topic == record.partition.topic);
        let change = match (index, record.value.clone()) {
            (Some(index), Some(value)) => Some(self.change(index, &value).await?),
            // A tombstone says nothing that its delete has not said.
            _ => None,
        };
        let Some(record) = self.held.take() else {
            return Ok(None);
        };
        let next = record.offset + 1;
        self.checkpoint
            .partitions
            .insert(record.partition.clone(), next);
        let Some((table, change)) = change else {
            return Ok(None);
        };
        let lsn = change.whence.lsn.map_or(Lsn::ZERO, Lsn);
        self.checkpoint.end_lsn = self.checkpoint.end_lsn.max(lsn);
        let committed_at = change.whence.committed_at;
        self.checkpoint.committed_at = self.checkpoint.committed_at.max(committed_at);
        Ok(Some(Change {
            table,
            is_alone: self.checkpoint.tables[table].partitions == 1,
            columns: change.columns,
            whence: change.whence,
            record,
        }))
    }

    /// What the envelope of the held record says, with its columns.
    async fn change(
        &mut self,
        table: usize,
        value: &[u8],
    ) -> Result<(usize, Described), ApplyError> {
        let topic = self.checkpoint.tables[table].topic.clone();
        let parts = Parts::of(value).map_err(|source| self.malformed(source))?;
        let whence = Whence::of(parts.payload).map_err(|source| self.malformed(source))?;
        // A topic's name may have other characters than the table's.
        self.checkpoint.tables[table].name = whence.table.clone();
        let columns = match parts.schema {
            Some(schema) => self.by_schema(&topic, schema),
            None => {
                self.by_catalog(&topic, &whence.table, parts.payload)
                    .await?
            }
        };
        let columns = columns.map_err(|source| self.malformed(source))?;
        Ok((table, Described { whence, columns }))
    }

    fn by_schema(&mut self, topic: &Arc<str>, schema: &str) -> Result<Arc<Columns>, EnvelopeError> {
        if let Some((known, columns)) = self.known.get(topic)
            && known == schema
        {
            return Ok(columns.clone());
        }
        let columns = Arc::new(foreign::columns(schema, self.from.modes)?);
        let known = (schema.to_owned(), columns.clone());
        self.known.insert(topic.clone(), known);
        Ok(columns)
    }

    /// The columns of the record as the source's catalog has them now.
    async fn by_catalog(
        &mut self,
        topic: &Arc<str>,
        table: &TableName,
        envelope: &str,
    ) -> Result<Result<Arc<Columns>, EnvelopeError>, ApplyError> {
        let names = match foreign::row_names(envelope) {
            Ok(names) => names,
            Err(error) => return Ok(Err(error)),
        };
        // A TRUNCATE has no row.
        if names.is_empty() {
            let columns = Columns {
                all: [].into(),
                modes: self.from.modes,
            };
            return Ok(Ok(columns.into()));
        }
        let shape = names.join("\0");
        if let Some((known, columns)) = self.known.get(topic)
            && *known == shape
        {
            return Ok(Ok(columns.clone()));
        }
        let relation = self.describe(table).await?;
        let missing = names
            .iter()
            .find(|name| !relation.columns.iter().any(|it| *it.name == ***name));
        if let Some(missing) = missing {
            return Ok(Err(EnvelopeError::UnknownColumn(missing.to_string())));
        }
        let columns = relation.columns.iter();
        let of_record = columns.filter(|it| names.iter().any(|name| **name == *it.name));
        let all = of_record.map(|it| walferry_schema::Column {
            key: 0,
            ..it.clone()
        });
        let columns = Arc::new(Columns {
            all: all.collect(),
            modes: self.from.modes,
        });
        self.known.insert(topic.clone(), (shape, columns.clone()));
        Ok(Ok(columns))
    }

    async fn describe(&mut self, table: &TableName) -> Result<Arc<Relation>, ApplyError> {
        let Foreign { config, tasks, .. } = self.from;
        let described = async {
            let mut preparation = Box::pin(Preparation::begin(config, tasks)).await?;
            Box::pin(preparation.describe_any(table, false)).await
        };
        let described = described.await.map_err(ApplyError::Connector)?;
        Ok(described.relation().clone())
    }

    fn malformed(&self, source: EnvelopeError) -> ApplyError {
        let (mut table, mut at) = (String::new(), String::new());
        if let Some(record) = &self.held {
            table = record.partition.topic.to_string();
            at = super::events::place(record);
        }
        DebeziumError::Record { table, at, source }.into()
    }
}

/// What is known of a record before it is taken.
struct Described {
    whence: Whence,
    columns: Arc<Columns>,
}

impl<R: RecordReader> Feed for DebeziumFeed<'_, R> {
    type Rows = Change;

    async fn next(&mut self) -> Result<Fed<Change>, ApplyError> {
        if self.held.is_some() {
            return Ok(match Box::pin(self.take()).await? {
                Some(change) => Fed::Rows(change),
                None => Fed::Heartbeat,
            });
        }
        let due = self.looked.map(|at| at + LOOK);
        if due.is_none_or(|due| due <= Instant::now()) {
            Box::pin(self.look()).await?;
            self.looked = Some(Instant::now());
            return Ok(Fed::Heartbeat);
        }
        tokio::select! {
            biased;
            record = next(&mut self.reader, self.is_assigned) => self.held = Some(record?),
            () = until(due) => {}
        }
        Ok(Fed::Step)
    }

    fn may_be_cut(&self) -> bool {
        true
    }

    fn push<B: Batch>(
        &mut self,
        batch: &mut B,
        change: Change,
        tally: &mut Tally,
    ) -> Result<(), ApplyError> {
        push(batch, &change)?;
        tally.row(change.table);
        if let Some(at) = change.whence.committed_at {
            tally.commit(at);
        }
        Ok(())
    }

    /// Never asked for: no position here names a transaction.
    fn skipped(&self, _rows: Change, commit: CommitId, order: Order) -> Skipped {
        Skipped {
            commit,
            committed_at: None,
            order,
            changes: Vec::new(),
        }
    }

    fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    fn checkpoint_mut(&mut self) -> &mut Checkpoint {
        &mut self.checkpoint
    }

    /// There is no barrier.
    fn pass(&mut self) {}

    fn applied(&mut self, checkpoint: &Checkpoint) {
        self.reader.publish_offsets(&checkpoint.partitions);
    }

    async fn tend(&mut self) -> ApplyError {
        std::future::pending().await
    }

    async fn finish(&mut self) -> Result<(), ApplyError> {
        Ok(())
    }
}

/// The next record; never while nothing is read.
///
/// # Cancel safety
/// Cancel safe.
async fn next<R: RecordReader>(
    reader: &mut R,
    is_assigned: bool,
) -> Result<ForeignRecord, ApplyError> {
    if !is_assigned {
        return std::future::pending().await;
    }
    reader.next().await.map_err(ApplyError::Connector)
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
