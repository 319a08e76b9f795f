//! The seam to the log, as the sink reads it.

use std::collections::BTreeMap;
use std::future::Future;

use bytes::Bytes;
use walferry_schema::Stamp;

use crate::{Fault, LogEntry, PartitionOffset};

/// Where rows and the commit log are read.
///
/// Partitions are named once and then spoken of by a small number. Nothing is read further ahead
/// than a fixed budget, which the partitions share.
pub trait LogReader: Send {
    /// Starts to read the commit log at `log` and each row partition at its offset.
    ///
    /// Partitions not named here are read from their beginning once [`partition`](Self::partition)
    /// asks for them.
    fn assign(
        &mut self,
        log: i64,
        rows: &BTreeMap<PartitionOffset, i64>,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// The number by which a partition is spoken of; a new one is read from its first record.
    fn partition(
        &mut self,
        name: &PartitionOffset,
    ) -> impl Future<Output = Result<Partition, Fault>> + Send;

    /// The next record of the commit log.
    ///
    /// # Cancel safety
    /// Cancel safe: no record is lost.
    fn next_log(&mut self) -> impl Future<Output = Result<LogEntry, Fault>> + Send;

    /// The next record of the commit log if it is already here.
    ///
    /// # Errors
    /// As [`next_log`](Self::next_log).
    fn buffered_log(&mut self) -> Result<Option<LogEntry>, Fault>;

    /// Reads the commit log on from this offset instead.
    fn seek_log(&mut self, offset: i64) -> impl Future<Output = Result<(), Fault>> + Send;

    /// The next record of a row partition, left where it is; `None` when none is here yet.
    ///
    /// # Errors
    /// Fatal when the record has no stamp, or the partition no longer holds what comes next.
    fn peek(&mut self, partition: Partition) -> Result<Option<&RowRecord>, Fault>;

    /// Takes the record that [`peek`](Self::peek) showed.
    fn take(&mut self, partition: Partition) -> Option<RowRecord>;

    /// The offset of the next record that [`peek`](Self::peek) will show.
    fn offset(&self, partition: Partition) -> i64;

    /// Waits until a record of a row partition has arrived since the last look.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn arrived(&mut self) -> impl Future<Output = Result<(), Fault>> + Send;

    /// What a row partition holds now, asked of the servers.
    fn bounds(
        &mut self,
        name: &PartitionOffset,
    ) -> impl Future<Output = Result<Bounds, Fault>> + Send;

    /// What the commit log holds now, asked of the servers.
    fn log_bounds(&mut self) -> impl Future<Output = Result<Bounds, Fault>> + Send;

    /// The commit log's records from `from` on, at most `limit`, beside the reading that goes on;
    /// empty at the end.
    fn look_ahead(
        &mut self,
        from: i64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<LogEntry>, Fault>> + Send;

    /// Publishes how far the sink has come, for ordinary lag tools; best effort, never awaited.
    fn publish_offsets(&mut self, log: i64, rows: &BTreeMap<PartitionOffset, i64>);
}

/// A row partition that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub usize);

/// The extent of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that is left.
    pub first: i64,
    /// The offset after the last record.
    pub end: i64,
}

/// A row's record as it was read.
#[derive(Clone, Debug)]
pub struct RowRecord {
    /// Its offset in the partition.
    pub offset: i64,
    /// Whose it is and where it belongs.
    pub stamp: Stamp,
    /// The record's key: JSON of the key's columns; none for a truncate.
    pub key: Option<Bytes>,
    /// The envelope; none for a tombstone.
    pub value: Option<Bytes>,
    /// The bytes of the header [`walferry_schema::header::COLUMNS`]; the same for all records of
    /// one relation version.
    pub columns: Bytes,
    /// The bytes of the header [`walferry_schema::header::UNCHANGED`].
    pub unchanged: Option<Bytes>,
    /// The bytes of the header [`walferry_schema::header::OVERSIZE`].
    pub oversize: Option<Bytes>,
    /// The bytes of the header [`walferry_schema::header::OLD_KEY`].
    pub old_key: Option<Bytes>,
    /// Whether the record has the header [`walferry_schema::header::NEW_KEY`].
    pub has_new_key: bool,
}

// === impl RowRecord ===

impl RowRecord {
    /// About how many bytes of its own the record holds.
    pub fn bytes(&self) -> usize {
        let parts = [&self.key, &self.value, &self.unchanged, &self.old_key];
        parts.into_iter().flatten().map(Bytes::len).sum()
    }
}
