//! The seam to the log, as the reader writes it.

use std::future::Future;
use std::sync::Arc;

use walferry_schema::LogRecord;

use crate::Fault;

/// Where rows and the commit log are written.
///
/// Records belong to *entries*, numbered by the caller in rising order: one per source transaction
/// or heartbeat. [`outstanding`](Self::outstanding) names the oldest entry that still waits for an
/// acknowledgement, which is all that the confirm rule needs (protocol rule 7).
pub trait Log: Send {
    /// Makes the commit log and the row topics where they are missing; the commit log always.
    ///
    /// # Errors
    /// Fatal when a topic exists with another number of partitions than asked for.
    fn ensure_topics(
        &mut self,
        topics: &[TopicSpec],
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Drops what the old producer still holds and makes a new one: a term begins (rule 5).
    fn begin(&mut self) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Appends a record to the commit log and waits for its acknowledgement: its offset.
    fn append(&mut self, record: &LogRecord) -> impl Future<Output = Result<i64, Fault>> + Send;

    /// Sends a row's record as part of an entry, without waiting.
    ///
    /// # Errors
    /// Poison when the record is larger than the log takes; transient when the term has failed.
    fn send_row(&mut self, entry: u64, record: &Record<'_>) -> Result<Accepted, Fault>;

    /// Whether the log takes a record of this size.
    ///
    /// # Errors
    /// Poison when the record is larger than the log takes.
    fn check_row(&self, record: &Record<'_>) -> Result<(), Fault>;

    /// The largest record that a topic takes, as far as that is known: [`Record::bytes`].
    fn largest_record_bytes(&self, topic: &TopicSpec) -> usize;

    /// Sends a commit log record as part of an entry, without waiting.
    ///
    /// # Errors
    /// Transient when the term has failed.
    fn send_log(&mut self, entry: u64, record: &[u8]) -> Result<Accepted, Fault>;

    /// The oldest entry with a record that is not yet acknowledged; `None` when all are.
    fn outstanding(&self) -> Option<u64>;

    /// Chooses between latency and throughput for what is sent from now on.
    ///
    /// Nothing may be outstanding: records of both paces could overtake each other.
    ///
    /// # Errors
    /// Transient when the term has failed or cannot be gone on with.
    fn pace(&mut self, pace: Pace) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Waits until [`outstanding`](Self::outstanding) or the room for records may have changed.
    ///
    /// # Errors
    /// Transient when a delivery failed: the term is over.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn progress(&mut self) -> impl Future<Output = Result<(), Fault>> + Send;

    /// The commit log's first offset and the one after its last.
    fn bounds(&mut self) -> impl Future<Output = Result<LogTail, Fault>> + Send;

    /// The commit log's records from offset `from` on (or the first that is left), at most `limit`;
    /// empty at the end.
    fn read(
        &mut self,
        from: i64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<LogEntry>, Fault>> + Send;
}

/// What matters more for the records that are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// That each arrives soon.
    #[default]
    Prompt,
    /// That many arrive cheaply: they wait for company.
    Bulk,
}

/// A topic to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// The name.
    pub name: Arc<str>,
    /// How many partitions.
    pub partitions: i32,
}

/// A row's record on its way out.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The table's topic.
    pub topic: &'a TopicSpec,
    /// The record's key, which also chooses the partition; none goes to partition 0.
    pub key: Option<&'a [u8]>,
    /// The envelope; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// Header names and values.
    pub headers: &'a [(&'a str, &'a [u8])],
}

/// How long a header's lengths are at most on the wire.
const HEADER_OVERHEAD_BYTES: usize = 10;

// === impl Record ===

impl Record<'_> {
    /// How large it is: key, value and headers.
    pub fn bytes(&self) -> usize {
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| name.len() + value.len() + HEADER_OVERHEAD_BYTES);
        let payload = self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len);
        payload + headers.sum::<usize>()
    }
}

/// What became of a record that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Queued for this partition.
    Partition(i32),
    /// No room, or its turn has not come: wait for progress and send it again.
    Full,
}

/// The extent of the commit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogTail {
    /// The first offset that is left.
    pub first: i64,
    /// The offset after the last record.
    pub end: i64,
}

/// A record of the commit log at its offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// The offset.
    pub offset: i64,
    /// The record.
    pub record: LogRecord,
    /// A hash of the record's bytes, for [`crate::Checkpoint::log_check`].
    pub hash: u64,
}

// === impl LogEntry ===

impl LogEntry {
    /// Reads the record at an offset.
    ///
    /// # Errors
    /// When the bytes are no log record of this format.
    pub fn from_bytes(offset: i64, bytes: &[u8]) -> Result<Self, walferry_schema::LogFormatError> {
        Ok(Self {
            offset,
            record: LogRecord::from_bytes(bytes)?,
            hash: fnv1a(bytes),
        })
    }
}

/// The 64-bit FNV-1a hash: stored, so it must never change with a library.
fn fnv1a(bytes: &[u8]) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.iter().fold(BASIS, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(PRIME)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_hash_is_fnv_1a() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
