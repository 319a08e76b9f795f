//! A consumer of the fake Kafka.

use std::collections::BTreeMap;

use super::changes::Changed;
use super::{FakeError, FakeKafka};
use crate::{Bounds, Fault, LogEntry, LogReader, Partition, PartitionOffset, RowRecord};

/// One process's way to read.
#[derive(Debug)]
pub struct FakeLogReader {
    kafka: FakeKafka,
    changes: Changed,
    log: i64,
    starts: BTreeMap<PartitionOffset, i64>,
    partitions: Vec<Reading>,
}

#[derive(Debug)]
struct Reading {
    name: PartitionOffset,
    next: i64,
    peeked: Option<RowRecord>,
}

// === impl FakeLogReader ===

impl FakeLogReader {
    /// A new process's reader.
    pub fn new(kafka: &FakeKafka) -> Self {
        let (log, starts, partitions) = (0, BTreeMap::new(), Vec::new());
        Self {
            kafka: kafka.clone(),
            changes: kafka.changes(),
            log,
            starts,
            partitions,
        }
    }
}

impl LogReader for FakeLogReader {
    async fn assign(
        &mut self,
        log: i64,
        rows: &BTreeMap<PartitionOffset, i64>,
    ) -> Result<(), Fault> {
        self.log = log;
        self.starts.clone_from(rows);
        self.partitions.clear();
        Ok(())
    }

    async fn partition(&mut self, name: &PartitionOffset) -> Result<Partition, Fault> {
        if let Some(index) = self.partitions.iter().position(|it| it.name == *name) {
            return Ok(Partition(index));
        }
        let first = self.kafka.lock().rows(name).first;
        let next = self.starts.get(name).copied().unwrap_or(first);
        self.partitions.push(Reading {
            name: name.clone(),
            next,
            peeked: None,
        });
        Ok(Partition(self.partitions.len() - 1))
    }

    async fn next_log(&mut self) -> Result<LogEntry, Fault> {
        loop {
            if let Some(entry) = self.buffered_log()? {
                return Ok(entry);
            }
            self.changes.wait().await;
        }
    }

    fn buffered_log(&mut self) -> Result<Option<LogEntry>, Fault> {
        let state = self.kafka.lock();
        if self.log < state.log.first || self.log > state.log.end() {
            return Err(FakeError::fatal(format!(
                "the log has no offset {}",
                self.log
            )));
        }
        let Some(bytes) = state.log.visible(self.log) else {
            return Ok(None);
        };
        let entry = LogEntry::from_bytes(self.log, bytes);
        self.log += 1;
        entry
            .map(Some)
            .map_err(|error| FakeError::fatal(format!("{error}")))
    }

    async fn seek_log(&mut self, offset: i64) -> Result<(), Fault> {
        self.log = offset;
        Ok(())
    }

    fn peek(&mut self, partition: Partition) -> Result<Option<&RowRecord>, Fault> {
        let reading = &mut self.partitions[partition.0];
        if reading.peeked.is_none() {
            let mut state = self.kafka.lock();
            let rows = state.rows(&reading.name);
            if reading.next < rows.first || reading.next > rows.end() {
                return Err(FakeError::fatal(format!(
                    "there is no offset {}",
                    reading.next
                )));
            }
            reading.peeked = rows.visible(reading.next).cloned();
        }
        Ok(reading.peeked.as_ref())
    }

    fn take(&mut self, partition: Partition) -> Option<RowRecord> {
        let reading = &mut self.partitions[partition.0];
        let taken = reading.peeked.take();
        reading.next += i64::from(taken.is_some());
        taken
    }

    fn offset(&self, partition: Partition) -> i64 {
        self.partitions[partition.0].next
    }

    async fn arrived(&mut self) -> Result<(), Fault> {
        self.changes.wait().await;
        Ok(())
    }

    async fn bounds(&mut self, name: &PartitionOffset) -> Result<Bounds, Fault> {
        let mut state = self.kafka.lock();
        let rows = state.rows(name);
        Ok(Bounds {
            first: rows.first,
            end: rows.end(),
        })
    }

    async fn log_bounds(&mut self) -> Result<Bounds, Fault> {
        let answer = {
            let state = self.kafka.lock();
            Bounds {
                first: state.log.first,
                end: state.log.end(),
            }
        };
        // The answer is on its way while others write.
        tokio::task::yield_now().await;
        Ok(answer)
    }

    async fn look_ahead(&mut self, from: i64, limit: usize) -> Result<Vec<LogEntry>, Fault> {
        Ok(self.kafka.lock().log_entries(from, limit))
    }

    fn publish_offsets(&mut self, log: i64, rows: &BTreeMap<PartitionOffset, i64>) {
        self.kafka.lock().published.push((log, rows.clone()));
    }
}
