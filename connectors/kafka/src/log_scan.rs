//! Reading a piece of the commit log beside everything else, and asking for offsets.
//!
//! - A client is made at the first question and kept.
//! - Reading on where the last piece ended goes on with what was already fetched.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaResult;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, TopicPartitionList};
use walferry_core::{Bounds, LogEntry};

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
    /// The offset that the assigned partition gives next; none when nothing is assigned.
    position: Option<i64>,
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

    /// The commit log's records from `from` on, or the first that is left; empty at the end.
    pub(crate) async fn read(&self, from: i64, limit: usize) -> Result<Vec<LogEntry>, Error> {
        let shared = self.shared.clone();
        blocking(move || shared.read(from, limit)).await
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

    fn read(&self, from: i64, limit: usize) -> Result<Vec<LogEntry>, Error> {
        let bounds = self.log_bounds()?;
        let from = from.max(bounds.first);
        if from >= bounds.end || limit == 0 {
            return Ok(Vec::new());
        }
        let mut client = self.client();
        let client = self.connected(&mut client)?;
        if client.position != Some(from) {
            client.assign(&self.topic, from)?;
        }
        let read = self.collect(client, bounds.end, limit);
        // The next piece may follow at once; at the end, or in doubt, nothing is read ahead.
        if !read.as_ref().is_ok_and(|entries| entries.len() == limit) {
            client.position = None;
            client.consumer.unassign().map_err(Error::Assign)?;
        }
        read
    }

    fn collect(&self, client: &mut Client, end: i64, limit: usize) -> Result<Vec<LogEntry>, Error> {
        let mut entries = Vec::new();
        let mut heard = Instant::now();
        let Client {
            consumer,
            position: Some(position),
        } = client
        else {
            return Ok(entries);
        };
        while entries.len() < limit && *position < end {
            match consumer.poll(POLL) {
                None if heard.elapsed() > SILENCE => return Err(self.silent(*position)),
                None => {}
                Some(Ok(message)) if message.offset() < *position => {}
                Some(message) => match self.entry(message, *position)? {
                    Next::Entry(entry) => {
                        heard = Instant::now();
                        *position = entry.offset + 1;
                        entries.push(entry);
                    }
                    Next::Wait => {}
                },
            }
        }
        Ok(entries)
    }

    fn entry(&self, polled: KafkaResult<BorrowedMessage<'_>>, at: i64) -> Result<Next, Error> {
        match polled {
            Ok(message) => read_entry(&self.topic, &message).map(Next::Entry),
            Err(error) if error.rdkafka_error_code().is_some_and(is_passing) => Ok(Next::Wait),
            Err(source) => {
                let topic = self.topic.to_string();
                Err(Error::Read {
                    topic,
                    partition: 0,
                    offset: at,
                    source,
                })
            }
        }
    }

    fn silent(&self, offset: i64) -> Error {
        Error::ScanTimeout {
            topic: self.topic.to_string(),
            offset,
        }
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

enum Next {
    Entry(LogEntry),
    Wait,
}

// === impl Client ===

impl Client {
    fn assign(&mut self, topic: &str, from: i64) -> Result<(), Error> {
        let mut partitions = TopicPartitionList::new();
        let added = partitions.add_partition_offset(topic, 0, Offset::Offset(from));
        self.position = None;
        added
            .and_then(|()| self.consumer.assign(&partitions))
            .map_err(Error::Assign)?;
        self.position = Some(from);
        Ok(())
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
