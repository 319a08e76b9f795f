//! Reading topics that another engine writes.
//!
//! - Every partition is read from an explicit offset, and each record once and in order.
//! - No partition waits for another's end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::message::{BorrowedMessage, Headers as _};
use rdkafka::{Message, TopicPartitionList};
use tracing::debug;
use walferry_core::{Bounds, Fault, ForeignRecord, PartitionOffset, RecordReader, TopicSpec};
use walferry_schema::header::{NEW_KEY, OLD_KEY};

use crate::client::{Admin, Consumer, Context, blocking, drop_beside};
use crate::consumer::queue::Queue;
use crate::consumer::reading::{Arrivals, add_offset, see_events};
use crate::log_scan::LogScan;
use crate::settings::create;
use crate::{Error, Settings, topics};

const PUBLISH: Duration = Duration::from_secs(1);

/// Kafka with the topics of another engine.
pub struct KafkaRecordReader {
    settings: Arc<Settings>,
    scan: LogScan,
    admin: Option<Arc<Admin>>,
    assigned: Option<Assigned>,
    arrivals: Arc<Arrivals>,
    published_at: Option<Instant>,
}

/// A consumer with its assignment.
struct Assigned {
    queues: Vec<Queue>,
    /// The queue that is looked at first.
    turn: usize,
    events_seen: Instant,
    /// After the queues: they go first.
    consumer: Arc<Consumer>,
}

// === impl KafkaRecordReader ===

impl KafkaRecordReader {
    /// A reader in the cluster of these settings; connects to nothing yet.
    pub fn new(settings: Settings) -> Self {
        let settings = Arc::new(settings);
        Self {
            scan: LogScan::new(settings.clone(), settings.commit_log().into()),
            settings,
            admin: None,
            assigned: None,
            arrivals: Arc::default(),
            published_at: None,
        }
    }

    async fn list(&mut self) -> Result<Vec<TopicSpec>, Error> {
        let admin = match &self.admin {
            Some(admin) => admin.clone(),
            None => topics::admin(&self.settings).await?,
        };
        self.admin = Some(admin.clone());
        Ok(topics::list(&admin, &self.settings).await?.specs())
    }

    async fn start(&mut self, partitions: &BTreeMap<PartitionOffset, i64>) -> Result<(), Error> {
        if let Some(old) = self.assigned.take() {
            drop_beside(old);
        }
        let partitions: Vec<_> = partitions
            .iter()
            .map(|(name, at)| (name.clone(), *at))
            .collect();
        let (settings, arrivals) = (self.settings.clone(), self.arrivals.clone());
        let assigned = blocking(move || Assigned::start(&settings, partitions, &arrivals));
        self.assigned = Some(assigned.await?);
        Ok(())
    }

    async fn read(&mut self) -> Result<ForeignRecord, Error> {
        let assigned = self.assigned.as_mut().ok_or(Error::NotAssigned)?;
        loop {
            if let Some(record) = assigned.poll()? {
                return Ok(record);
            }
            let due = see_events(&assigned.consumer, &mut assigned.events_seen)?;
            tokio::select! {
                biased;
                () = self.arrivals.rows.notified() => {}
                () = tokio::time::sleep(due) => {}
            }
        }
    }
}

impl RecordReader for KafkaRecordReader {
    async fn topics(&mut self) -> Result<Vec<TopicSpec>, Fault> {
        Ok(self.list().await?)
    }

    async fn bounds(&mut self, name: &PartitionOffset) -> Result<Bounds, Fault> {
        Ok(self.scan.bounds(&name.topic, name.partition).await?)
    }

    async fn assign(&mut self, partitions: &BTreeMap<PartitionOffset, i64>) -> Result<(), Fault> {
        Ok(self.start(partitions).await?)
    }

    async fn next(&mut self) -> Result<ForeignRecord, Fault> {
        Ok(self.read().await?)
    }

    fn publish_offsets(&mut self, partitions: &BTreeMap<PartitionOffset, i64>) {
        let is_due = self.published_at.is_none_or(|at| at.elapsed() >= PUBLISH);
        let Some(assigned) = self.assigned.as_ref().filter(|_| is_due) else {
            return;
        };
        self.published_at = Some(Instant::now());
        let mut offsets = TopicPartitionList::with_capacity(partitions.len());
        let added = partitions
            .iter()
            .try_for_each(|(name, at)| add_offset(&mut offsets, name, *at));
        let published = added.and_then(|()| assigned.consumer.commit(&offsets, CommitMode::Async));
        if let Err(error) = published {
            debug!(%error, "publishing offsets failed");
        }
    }
}

impl Drop for KafkaRecordReader {
    fn drop(&mut self) {
        drop_beside((self.assigned.take(), self.admin.take()));
    }
}

// === impl Assigned ===

impl Assigned {
    /// Connects and begins to read; may block.
    fn start(
        settings: &Settings,
        partitions: Vec<(PartitionOffset, i64)>,
        arrivals: &Arc<Arrivals>,
    ) -> Result<Self, Error> {
        let config = settings.consumer(partitions.len())?;
        let consumer: Arc<Consumer> = Arc::new(create(&config, Context::new("consumer"))?);
        let mut assignment = TopicPartitionList::with_capacity(partitions.len());
        let mut queues = Vec::with_capacity(partitions.len());
        for (name, offset) in partitions {
            add_offset(&mut assignment, &name, offset).map_err(Error::Assign)?;
            // A queue that is split before its partition is assigned never sends a record elsewhere.
            let waking = Arrivals::waking_rows(arrivals);
            queues.push(Queue::split(&consumer, name, offset, waking)?);
        }
        consumer.assign(&assignment).map_err(Error::Assign)?;
        Ok(Self {
            queues,
            turn: 0,
            events_seen: Instant::now(),
            consumer,
        })
    }

    /// The next record, if one is here, of the partitions in turn.
    fn poll(&mut self) -> Result<Option<ForeignRecord>, Error> {
        let count = self.queues.len();
        for _ in 0..count {
            self.turn = (self.turn + 1) % count;
            let record = self.queues[self.turn].poll(|name, message| Ok(read(name, message)))?;
            if record.is_some() {
                return Ok(record);
            }
        }
        Ok(None)
    }
}

fn read(name: &PartitionOffset, message: &BorrowedMessage<'_>) -> ForeignRecord {
    let headers = || message.headers().into_iter().flat_map(|it| it.iter());
    let old_key = headers().find(|header| header.key == OLD_KEY);
    ForeignRecord {
        partition: name.clone(),
        offset: message.offset(),
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice),
        old_key: old_key.and_then(|it| it.value).map(Bytes::copy_from_slice),
        has_new_key: headers().any(|header| header.key == NEW_KEY),
    }
}
