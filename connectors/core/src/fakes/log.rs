//! A producer of the fake Kafka.

use bytes::Bytes;
use walferry_schema::{LogRecord, Phase, Stamp, Term, header};

use super::changes::Changed;
use super::kafka::{Body, Held, State};
use super::{FakeError, FakeKafka, Place};
use crate::{
    Accepted, Fault, Log, LogEntry, LogTail, Pace, PartitionOffset, Record, RowRecord, TopicSpec,
};

/// One process's way to write; dropping it leaves what it held to [`FakeKafka::flush_zombie`].
#[derive(Debug)]
pub struct FakeLog {
    kafka: FakeKafka,
    changes: Changed,
    /// None before the first [`Log::begin`].
    producer: Option<u64>,
    last_entry: u64,
}

// === impl FakeLog ===

impl FakeLog {
    /// A new process's log.
    pub fn new(kafka: &FakeKafka) -> Self {
        Self {
            kafka: kafka.clone(),
            changes: kafka.changes(),
            producer: None,
            last_entry: 0,
        }
    }

    fn producer(&self, state: &State) -> Result<u64, Fault> {
        let producer = self
            .producer
            .ok_or_else(|| FakeError::fatal("there is no producer"))?;
        if state.failed.contains(&producer) {
            return Err(FakeError::transient("a delivery failed"));
        }
        Ok(producer)
    }

    fn send(&mut self, entry: u64, place: Place, body: Body) -> Result<bool, Fault> {
        let mut state = self.kafka.lock();
        let producer = self.producer(&state)?;
        if entry < self.last_entry {
            return Err(FakeError::fatal(format!(
                "entry {entry} after {}",
                self.last_entry
            )));
        }
        self.last_entry = entry;
        let waiting = state
            .held
            .iter()
            .filter(|held| held.producer == producer)
            .count();
        if state.room.is_some_and(|room| waiting >= room) {
            return Ok(false);
        }
        if state.is_holding {
            state.queue(producer, Some(entry), place, body);
        } else {
            state.push(&place, &body);
        }
        drop(state);
        self.kafka.changed();
        Ok(true)
    }
}

impl Log for FakeLog {
    async fn ensure_topics(&mut self, topics: &[TopicSpec]) -> Result<(), Fault> {
        let mut state = self.kafka.lock();
        for topic in topics {
            let partitions = *state
                .topics
                .entry(topic.name.clone())
                .or_insert(topic.partitions);
            if partitions != topic.partitions {
                return Err(FakeError::fatal(format!(
                    "{} has {partitions} partitions",
                    topic.name
                )));
            }
            for partition in 0..partitions {
                state.rows(&PartitionOffset {
                    topic: topic.name.clone(),
                    partition,
                });
            }
        }
        Ok(())
    }

    async fn begin(&mut self) -> Result<(), Fault> {
        let mut state = self.kafka.lock();
        state.producer += 1;
        (self.producer, self.last_entry) = (Some(state.producer), 0);
        Ok(())
    }

    async fn append(&mut self, record: &LogRecord) -> Result<i64, Fault> {
        let token = {
            let mut state = self.kafka.lock();
            let producer = self.producer(&state)?;
            let body = Body::Log(record.to_bytes());
            if !state.is_holding {
                let offset = state.push(&Place::Log, &body);
                drop(state);
                self.kafka.changed();
                return Ok(offset);
            }
            state.queue(producer, None, Place::Log, body)
        };
        loop {
            {
                let mut state = self.kafka.lock();
                if let Some(offset) = state.appended.remove(&token) {
                    return Ok(offset);
                }
                self.producer(&state)?;
            }
            self.changes.wait().await;
        }
    }

    fn send_row(&mut self, entry: u64, record: &Record<'_>) -> Result<Accepted, Fault> {
        self.check_row(record)?;
        let partition = partition_of(record);
        let name = PartitionOffset {
            topic: record.topic.name.clone(),
            partition,
        };
        if !self.kafka.lock().topics.contains_key(&name.topic) {
            return Err(FakeError::fatal(format!(
                "topic {} does not exist",
                name.topic
            )));
        }
        let body = Body::Row(Box::new(stored(record)?));
        Ok(if self.send(entry, Place::Rows(name), body)? {
            Accepted::Partition(partition)
        } else {
            Accepted::Full
        })
    }

    fn check_row(&self, record: &Record<'_>) -> Result<(), Fault> {
        if record.bytes() <= self.largest_record_bytes(record.topic) {
            return Ok(());
        }
        Err(FakeError::fault(
            crate::Class::Poison,
            "the record is too large",
        ))
    }

    fn largest_record_bytes(&self, _: &TopicSpec) -> usize {
        self.kafka.lock().largest_bytes.unwrap_or(usize::MAX)
    }

    fn send_log(&mut self, entry: u64, record: &[u8]) -> Result<Accepted, Fault> {
        Ok(
            if self.send(entry, Place::Log, Body::Log(record.to_vec()))? {
                Accepted::Partition(0)
            } else {
                Accepted::Full
            },
        )
    }

    fn outstanding(&self) -> Option<u64> {
        let state = self.kafka.lock();
        let is_its = |held: &&Held| Some(held.producer) == self.producer;
        state
            .held
            .iter()
            .filter(is_its)
            .filter_map(|held| held.entry)
            .min()
    }

    async fn pace(&mut self, pace: Pace) -> Result<(), Fault> {
        let mut state = self.kafka.lock();
        let producer = self.producer(&state)?;
        if state.held.iter().any(|held| held.producer == producer) {
            return Err(FakeError::fatal("another pace while records are in flight"));
        }
        state.pace = pace;
        Ok(())
    }

    async fn progress(&mut self) -> Result<(), Fault> {
        self.producer(&self.kafka.lock())?;
        self.changes.wait().await;
        self.producer(&self.kafka.lock()).map(drop)
    }

    async fn bounds(&mut self) -> Result<LogTail, Fault> {
        let state = self.kafka.lock();
        Ok(LogTail {
            first: state.log.first,
            end: state.log.end(),
        })
    }

    async fn read(&mut self, from: i64, limit: usize) -> Result<Vec<LogEntry>, Fault> {
        Ok(self.kafka.lock().log_entries(from, limit))
    }
}

// === impl State ===

impl State {
    fn queue(&mut self, producer: u64, entry: Option<u64>, place: Place, body: Body) -> u64 {
        self.next_token += 1;
        let token = self.next_token;
        self.held.push_back(Held {
            producer,
            entry,
            token,
            place,
            body,
            offset: None,
        });
        token
    }
}

fn partition_of(record: &Record<'_>) -> i32 {
    let Some(key) = record.key else { return 0 };
    let sum = key
        .iter()
        .fold(0_i32, |sum, byte| (sum * 31 + i32::from(*byte)) % 9_973);
    sum % record.topic.partitions
}

/// The place of a row; the beginning of all for a record that is none.
fn stamp(header: Option<Bytes>) -> Result<Stamp, Fault> {
    let Some(header) = header else {
        return Ok(Stamp {
            term: Term::NONE,
            phase: Phase::Snapshot(0),
            ordinal: 0,
        });
    };
    let stamp = String::from_utf8_lossy(&header).parse();
    stamp.map_err(|error| FakeError::fatal(format!("{error}")))
}

/// What a reader will see of a record.
fn stored(record: &Record<'_>) -> Result<RowRecord, Fault> {
    let bytes = |name: &str| {
        let found = record.headers.iter().find(|(header, _)| *header == name);
        found.map(|(_, value)| Bytes::copy_from_slice(value))
    };
    Ok(RowRecord {
        offset: 0,
        stamp: stamp(bytes(header::POSITION))?,
        key: record.key.map(Bytes::copy_from_slice),
        value: record.value.map(Bytes::copy_from_slice),
        columns: bytes(header::COLUMNS).unwrap_or_default(),
        unchanged: bytes(header::UNCHANGED),
        oversize: bytes(header::OVERSIZE),
        old_key: bytes(header::OLD_KEY),
        has_new_key: bytes(header::NEW_KEY).is_some(),
    })
}
