//! A log that acknowledges everything at once and keeps only the commit log, which a reader starts from.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use walferry_core::{Accepted, Classify, Fault, Log, LogEntry, LogTail, Pace, Record, TopicSpec};
use walferry_schema::{LogFormatError, LogRecord};

/// A log without rows; its clones are the same log.
#[derive(Clone, Default)]
pub(crate) struct NullLog {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    records: Mutex<Vec<Vec<u8>>>,
    changed: Notify,
}

// === impl NullLog ===

impl NullLog {
    /// Records so far: in a stream, one for each source transaction.
    pub(crate) fn len(&self) -> usize {
        self.records().len()
    }

    /// Waits for so many records.
    pub(crate) async fn await_len(&self, count: usize) {
        loop {
            let changed = self.shared.changed.notified();
            if self.len() >= count {
                return;
            }
            changed.await;
        }
    }

    /// Waits until a term reads the stream.
    pub(crate) async fn await_open(&self) {
        loop {
            let changed = self.shared.changed.notified();
            let is_open =
                |bytes: &Vec<u8>| matches!(LogRecord::from_bytes(bytes), Ok(LogRecord::Open(_)));
            if self.records().iter().any(is_open) {
                return;
            }
            changed.await;
        }
    }

    fn records(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        let records = self.shared.records.lock();
        records.unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, bytes: Vec<u8>) -> i64 {
        let mut records = self.records();
        records.push(bytes);
        let offset = offset(records.len() - 1);
        drop(records);
        self.shared.changed.notify_waiters();
        offset
    }
}

impl Log for NullLog {
    async fn ensure_topics(&mut self, _: &[TopicSpec]) -> Result<(), Fault> {
        Ok(())
    }

    async fn begin(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    async fn append(&mut self, record: &LogRecord) -> Result<i64, Fault> {
        Ok(self.keep(record.to_bytes()))
    }

    fn send_row(&mut self, _: u64, _: &Record<'_>) -> Result<Accepted, Fault> {
        Ok(Accepted::Partition(0))
    }

    fn check_row(&self, _: &Record<'_>) -> Result<(), Fault> {
        Ok(())
    }

    fn largest_record_bytes(&self, _: &TopicSpec) -> usize {
        usize::MAX
    }

    fn send_log(&mut self, _: u64, record: &[u8]) -> Result<Accepted, Fault> {
        self.keep(record.to_vec());
        Ok(Accepted::Partition(0))
    }

    fn outstanding(&self) -> Option<u64> {
        None
    }

    async fn pace(&mut self, _: Pace) -> Result<(), Fault> {
        Ok(())
    }

    /// Nothing is ever outstanding, so nothing ever changes.
    async fn progress(&mut self) -> Result<(), Fault> {
        std::future::pending().await
    }

    async fn bounds(&mut self) -> Result<LogTail, Fault> {
        let end = offset(self.len());
        Ok(LogTail { first: 0, end })
    }

    async fn read(&mut self, from: i64, limit: usize) -> Result<Vec<LogEntry>, Fault> {
        let skipped = usize::try_from(from).unwrap_or_default();
        let records = self.records();
        let wanted = records.iter().enumerate().skip(skipped).take(limit);
        let entries = wanted.map(|(index, bytes)| LogEntry::from_bytes(offset(index), bytes));
        let entries: Result<Vec<_>, _> = entries.collect();
        Ok(entries.map_err(Unreadable)?)
    }
}

fn offset(index: usize) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

/// What was written cannot be read: a defect.
#[derive(Debug, thiserror::Error)]
#[error("reading back the null log")]
struct Unreadable(#[source] LogFormatError);

impl Classify for Unreadable {
    fn class(&self) -> walferry_core::Class {
        walferry_core::Class::Fatal
    }
}
