//! A consumer with its assignment: what lives from one `assign` to the next.
//!
//! - Every partition has a queue of its own, split before its first record can come.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{Message, Offset, TopicPartitionList};
use tokio::sync::Notify;
use tracing::{debug, warn};
use walferry_core::{LogEntry, Partition, PartitionOffset, RowRecord};

use super::queue::Queue;
use super::record::{self, Columns};
use crate::client::{Consumer, Context};
use crate::error::is_denied;
use crate::log_scan::read_entry;
use crate::settings::create;
use crate::{Error, Settings};

/// How often the client's own events are looked at; they are no records.
pub(crate) const EVENTS: Duration = Duration::from_millis(100);
const EVENTS_AT_ONCE: usize = 16;

/// Wakes whoever waits when a queue is no longer empty.
#[derive(Default)]
pub(crate) struct Arrivals {
    pub(crate) log: Notify,
    pub(crate) rows: Notify,
}

/// A consumer with its assignment.
pub(crate) struct Reading {
    pub(crate) log: Queue,
    pub(crate) rows: Vec<Row>,
    pub(crate) numbers: HashMap<PartitionOffset, Partition>,
    pub(crate) events_seen: Instant,
    /// How many partitions the consumer's budget was shared out to.
    pub(crate) shares: usize,
    /// After the queues: they go first.
    pub(crate) consumer: Arc<Consumer>,
}

/// A row partition.
pub(crate) struct Row {
    pub(crate) queue: Queue,
    pub(crate) ahead: Option<RowRecord>,
    pub(crate) columns: Columns,
}

// === impl Reading ===

impl Reading {
    /// Connects and begins to read, the budget shared out to `shares` partitions; may block.
    pub(crate) fn start(
        (settings, shares): (&Settings, usize),
        (log, log_offset): (PartitionOffset, i64),
        rows: Vec<(PartitionOffset, i64)>,
        arrivals: &Arc<Arrivals>,
    ) -> Result<Self, Error> {
        let config = settings.consumer(shares)?;
        let consumer: Arc<Consumer> = Arc::new(create(&config, Context::new("consumer"))?);
        let mut assignment = TopicPartitionList::with_capacity(rows.len() + 1);
        let named = |(name, offset): &(PartitionOffset, i64)| (name.clone(), *offset);
        for (name, offset) in rows.iter().map(named).chain([(log.clone(), log_offset)]) {
            add_offset(&mut assignment, &name, offset).map_err(Error::Assign)?;
        }
        // A queue that is split before its partition is assigned never sends a record elsewhere.
        let log = Queue::split(&consumer, log, log_offset, Arrivals::waking_log(arrivals))?;
        let mut reading = Self {
            log,
            rows: Vec::with_capacity(rows.len()),
            numbers: HashMap::with_capacity(rows.len()),
            events_seen: Instant::now(),
            shares,
            consumer,
        };
        for (name, offset) in rows {
            reading.split(name, offset, arrivals)?;
        }
        reading
            .consumer
            .assign(&assignment)
            .map_err(Error::Assign)?;
        Ok(reading)
    }

    /// Begins to read one more partition.
    pub(crate) fn add(
        &mut self,
        name: PartitionOffset,
        offset: i64,
        arrivals: &Arc<Arrivals>,
    ) -> Result<Partition, Error> {
        let mut assignment = TopicPartitionList::with_capacity(1);
        add_offset(&mut assignment, &name, offset).map_err(Error::Assign)?;
        let number = self.split(name, offset, arrivals)?;
        self.consumer
            .incremental_assign(&assignment)
            .map_err(Error::Assign)?;
        Ok(number)
    }

    /// Whether one more partition would break the budget.
    pub(crate) fn is_full(&self, settings: &Settings) -> bool {
        let partitions = self.rows.len() + 2;
        settings.fetch_share_bytes(partitions) < settings.fetch_share_bytes(self.shares)
    }

    /// The row partitions in the order of their numbers, each with the offset its queue gives next.
    pub(crate) fn next_offsets(&self) -> Vec<(PartitionOffset, i64)> {
        let queues = self.rows.iter().map(|row| &row.queue);
        queues
            .map(|queue| (queue.name.clone(), queue.next))
            .collect()
    }

    /// Takes over the records that were looked at and not taken, from a reading that this one
    /// continues: its partitions come first here, in the same order.
    pub(crate) fn take_over(&mut self, old: &mut Self) {
        for (row, old) in self.rows.iter_mut().zip(&mut old.rows) {
            row.ahead = old.ahead.take();
            row.columns = std::mem::take(&mut old.columns);
        }
    }

    fn split(
        &mut self,
        name: PartitionOffset,
        offset: i64,
        arrivals: &Arc<Arrivals>,
    ) -> Result<Partition, Error> {
        let waking = Arrivals::waking_rows(arrivals);
        let queue = Queue::split(&self.consumer, name.clone(), offset, waking)?;
        let number = Partition(self.rows.len());
        self.rows.push(Row {
            queue,
            ahead: None,
            columns: Columns::default(),
        });
        self.numbers.insert(name, number);
        Ok(number)
    }

    pub(crate) fn next_log(&mut self) -> Result<Option<LogEntry>, Error> {
        self.log
            .poll(|name, message| read_entry(&name.topic, message))
    }

    /// Looks at the client's events when they are due; how long until they are again.
    ///
    /// No record comes this way: every partition has its own queue.
    pub(crate) fn see_events(&mut self) -> Result<Duration, Error> {
        see_events(&self.consumer, &mut self.events_seen)
    }
}

// === impl Row ===

impl Row {
    pub(crate) fn peek(&mut self) -> Result<Option<&RowRecord>, Error> {
        if self.ahead.is_none() {
            let Self { queue, columns, .. } = self;
            self.ahead = queue.poll(|name, message| record::read(name, message, columns))?;
        }
        Ok(self.ahead.as_ref())
    }
}

// === impl Arrivals ===

impl Arrivals {
    fn waking_log(this: &Arc<Self>) -> impl Fn() + Send + Sync + 'static {
        let this = this.clone();
        move || this.log.notify_one()
    }

    pub(crate) fn waking_rows(this: &Arc<Self>) -> impl Fn() + Send + Sync + 'static {
        let this = this.clone();
        move || this.rows.notify_one()
    }
}

/// Looks at a client's events when they are due; how long until they are again.
pub(crate) fn see_events(consumer: &Consumer, seen: &mut Instant) -> Result<Duration, Error> {
    let since = seen.elapsed();
    if since < EVENTS {
        return Ok(EVENTS.saturating_sub(since));
    }
    *seen = Instant::now();
    for _ in 0..EVENTS_AT_ONCE {
        match consumer.poll(Duration::ZERO) {
            None => {}
            Some(Ok(message)) => {
                let (topic, partition) = (message.topic().to_owned(), message.partition());
                warn!(topic, partition, "a record came past its queue");
                let source = KafkaError::NoMessageReceived;
                return Err(Error::Read {
                    topic,
                    partition,
                    offset: message.offset(),
                    source,
                });
            }
            Some(Err(error)) => event_error(error)?,
        }
    }
    Ok(EVENTS)
}

/// An error that belongs to no partition: about the cluster or the group.
fn event_error(error: KafkaError) -> Result<(), Error> {
    match (&error, error.rdkafka_error_code()) {
        (_, Some(code @ (Code::SaslAuthenticationFailed | Code::Authentication))) => {
            Err(Error::Denied {
                what: "the cluster".into(),
                source: code,
            })
        }
        (KafkaError::MessageConsumptionFatal(_), _) => Err(Error::Assign(error)),
        // The group only serves to publish offsets.
        (_, Some(code)) if is_denied(code) => {
            warn!(%error, "kafka refuses the consumer group: lag tools will not see this pipeline");
            Ok(())
        }
        _ => {
            debug!(%error, "kafka client event");
            Ok(())
        }
    }
}

pub(crate) fn add_offset(
    list: &mut TopicPartitionList,
    name: &PartitionOffset,
    offset: i64,
) -> Result<(), KafkaError> {
    list.add_partition_offset(&name.topic, name.partition, Offset::Offset(offset))
}
