//! Reading a piece of the commit log, or of a row partition, beside everything else, and asking for offsets.
//!
//! - A client is made at the first question and kept.
//! - Reading on where the last piece ended goes on with what was already fetched.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, TopicPartitionList};
use walferry_core::{Bounds, LogEntry, PartitionOffset};

use crate::client::{Consumer, Context, blocking, drop_beside};
use crate::diagnosis::unanswered;
use crate::error::{is_passing, is_unknown_topic};
use crate::settings::create;
use crate::{Error, Settings};

/// How long a question may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How long the records of one piece may fail to come.
const SILENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);

/// A reader of pieces of the commit log.
pub(crate) struct LogScan {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Arc<Settings>,
    topic: Arc<str>,
    /// A call that was cancelled goes on behind this lock; the next one waits for it.
    client: Mutex<Option<Client>>,
}

struct Client {
    consumer: Consumer,
    /// The assigned partition and the offset that it gives next; none when nothing is assigned.
    position: Option<(PartitionOffset, i64)>,
}

// === impl LogScan ===

impl LogScan {
    pub(crate) fn new(settings: Arc<Settings>, topic: Arc<str>) -> Self {
        Self {
            shared: Arc::new(Shared {
                settings,
                topic,
                client: Mutex::new(None),
            }),
        }
    }

    /// What the commit log holds now.
    pub(crate) async fn log_bounds(&self) -> Result<Bounds, Error> {
        let shared = self.shared.clone();
        blocking(move || shared.log_bounds()).await
    }

    /// What a partition holds now.
    pub(crate) async fn bounds(&self, topic: &str, partition: i32) -> Result<Bounds, Error> {
        let (shared, topic) = (self.shared.clone(), topic.to_owned());
        blocking(move || shared.bounds(&topic, partition)).await
    }

    /// Where the records of a partition begin that are not older than a time, milliseconds since 1970; none when all are.
    pub(crate) async fn offset_at(
        &self,
        name: &PartitionOffset,
        time: i64,
    ) -> Result<Option<i64>, Error> {
        let (shared, name) = (self.shared.clone(), name.clone());
        blocking(move || shared.offset_at(&name, time)).await
    }

    /// The commit log's records from `from` on, or the first that is left; empty at the end.
    pub(crate) async fn read(&self, from: i64, limit: usize) -> Result<Vec<LogEntry>, Error> {
        let shared = self.shared.clone();
        blocking(move || {
            let bounds = shared.log_bounds()?;
            let log = shared.commit_log();
            let read = |message: &BorrowedMessage<'_>| read_entry(&log.topic, message);
            shared.read(&log, (from, limit), bounds, read)
        })
        .await
    }

    /// What `read` makes of a partition's records from `from` on, or the first that is left; empty
    /// at the end.
    pub(crate) async fn read_with<T: Send + 'static>(
        &self,
        name: PartitionOffset,
        (from, limit): (i64, usize),
        read: impl Fn(&BorrowedMessage<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<Vec<T>, Error> {
        let shared = self.shared.clone();
        blocking(move || {
            let bounds = shared.bounds(&name.topic, name.partition)?;
            shared.read(&name, (from, limit), bounds, read)
        })
        .await
    }

    /// The commit log's one partition.
    pub(crate) fn commit_log(&self) -> PartitionOffset {
        self.shared.commit_log()
    }
}

impl Drop for LogScan {
    fn drop(&mut self) {
        // A call that still runs holds the lock, and drops the client when it ends.
        let client = self
            .shared
            .client
            .try_lock()
            .ok()
            .and_then(|mut client| client.take());
        if let Some(client) = client {
            drop_beside(client);
        }
    }
}

// === impl Shared ===

impl Shared {
    fn log_bounds(&self) -> Result<Bounds, Error> {
        self.bounds(&self.topic, 0).map_err(|error| match error {
            Error::UnknownTopic { topic, .. } => Error::NoCommitLog { topic },
            other => other,
        })
    }

    fn bounds(&self, topic: &str, partition: i32) -> Result<Bounds, Error> {
        let mut client = self.client();
        let consumer = &self.connected(&mut client)?.consumer;
        match consumer.fetch_watermarks(topic, partition, ANSWER) {
            Ok((first, end)) => Ok(Bounds { first, end }),
            Err(error) if error.rdkafka_error_code().is_some_and(is_unknown_topic) => {
                Err(Error::UnknownTopic {
                    topic: topic.to_owned(),
                    partition,
                })
            }
            Err(error) => {
                let what = format!("the offsets of {topic}, partition {partition}");
                Err(unanswered(&self.settings, what, error))
            }
        }
    }

    fn offset_at(&self, name: &PartitionOffset, time: i64) -> Result<Option<i64>, Error> {
        let mut client = self.client();
        let consumer = &self.connected(&mut client)?.consumer;
        let mut times = TopicPartitionList::new();
        let asked = times
            .add_partition_offset(&name.topic, name.partition, Offset::Offset(time))
            .and_then(|()| consumer.offsets_for_times(times, ANSWER));
        let found = asked.map_err(|error| {
            let (topic, partition) = (&name.topic, name.partition);
            let what = format!("the offset of a time in {topic}, partition {partition}");
            unanswered(&self.settings, what, error)
        })?;
        let found = found.find_partition(&name.topic, name.partition);
        // What the partition itself could not tell is no offset.
        let found = found.filter(|it| it.error().is_ok());
        Ok(found.and_then(|it| match it.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }))
    }

    fn commit_log(&self) -> PartitionOffset {
        PartitionOffset {
            topic: self.topic.clone(),
            partition: 0,
        }
    }

    fn read<T>(
        &self,
        name: &PartitionOffset,
        (from, limit): (i64, usize),
        bounds: Bounds,
        read: impl Fn(&BorrowedMessage<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let from = from.max(bounds.first);
        if from >= bounds.end || limit == 0 {
            return Ok(Vec::new());
        }
        let mut client = self.client();
        let client = self.connected(&mut client)?;
        let place = (name.clone(), from);
        if client.position.as_ref() != Some(&place) {
            client.assign(place)?;
        }
        let read = client.collect(bounds.end, limit, read);
        // The next piece may follow at once; at the end, or in doubt, nothing is read ahead.
        if !read.as_ref().is_ok_and(|entries| entries.len() == limit) {
            client.position = None;
            client.consumer.unassign().map_err(Error::Assign)?;
        }
        read
    }

    fn client(&self) -> MutexGuard<'_, Option<Client>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connected<'a>(&self, client: &'a mut Option<Client>) -> Result<&'a mut Client, Error> {
        let made = match client.take() {
            Some(made) => made,
            None => Client {
                consumer: self.connect()?,
                position: None,
            },
        };
        Ok(client.insert(made))
    }

    fn connect(&self) -> Result<Consumer, Error> {
        let mut config = self.settings.consumer(1)?;
        config.set("queued.max.messages.kbytes", "1024");
        create(&config, Context::new("log scan"))
    }
}

// === impl Client ===

impl Client {
    fn assign(&mut self, (name, from): (PartitionOffset, i64)) -> Result<(), Error> {
        let mut partitions = TopicPartitionList::new();
        let offset = Offset::Offset(from);
        let added = partitions.add_partition_offset(&name.topic, name.partition, offset);
        self.position = None;
        added
            .and_then(|()| self.consumer.assign(&partitions))
            .map_err(Error::Assign)?;
        self.position = Some((name, from));
        Ok(())
    }

    fn collect<T>(
        &mut self,
        end: i64,
        limit: usize,
        read: impl Fn(&BorrowedMessage<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut entries = Vec::new();
        let mut heard = Instant::now();
        let Some((name, position)) = &mut self.position else {
            return Ok(entries);
        };
        while entries.len() < limit && *position < end {
            match self.consumer.poll(POLL) {
                None if heard.elapsed() > SILENCE => return Err(silent(name, *position)),
                None => {}
                Some(Ok(message)) if !is_of(&message, name) || message.offset() < *position => {}
                Some(Ok(message)) => {
                    entries.push(read(&message)?);
                    heard = Instant::now();
                    *position = message.offset() + 1;
                }
                Some(Err(error)) => check_passing(name, *position, error)?,
            }
        }
        Ok(entries)
    }
}

fn is_of(message: &BorrowedMessage<'_>, name: &PartitionOffset) -> bool {
    message.topic() == &*name.topic && message.partition() == name.partition
}

/// Whether an error passes, so that the record is waited for.
fn check_passing(name: &PartitionOffset, offset: i64, source: KafkaError) -> Result<(), Error> {
    let code = source.rdkafka_error_code();
    // Of the group nothing is wanted here.
    if code == Some(Code::GroupAuthorizationFailed) || code.is_some_and(is_passing) {
        return Ok(());
    }
    Err(Error::Read {
        topic: name.topic.to_string(),
        partition: name.partition,
        offset,
        source,
    })
}

fn silent(name: &PartitionOffset, offset: i64) -> Error {
    Error::ScanTimeout {
        topic: name.topic.to_string(),
        offset,
    }
}

/// The commit log's record in a message.
pub(crate) fn read_entry(topic: &str, message: &BorrowedMessage<'_>) -> Result<LogEntry, Error> {
    let offset = message.offset();
    LogEntry::from_bytes(offset, message.payload().unwrap_or_default()).map_err(|source| {
        Error::LogRecord {
            topic: topic.to_owned(),
            offset,
            source,
        }
    })
}
