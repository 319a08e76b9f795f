//! What a running pipeline is doing, as `walferry status`, the metrics and the page show it.
//!
//! - Everything is one [`Status`]: what two of them show can never disagree.
//! - A pipeline that has caught up has no lag, however long ago the last change was.

mod asked;
mod board;
mod lag;
mod servers;
mod to_do;

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use walferry_core::Class;
use walferry_postgres::SlotReport;
use walferry_schema::Lsn;

use self::asked::Asked;
pub use self::board::{Board, Parts};
pub use self::lag::{Lag, Stage};
pub use self::servers::{PositionStatus, ServersStatus};
pub use self::to_do::{Shown, ToDo};
use crate::analytics::Freshness;

/// A pipeline at one moment. Counts and rates are this process's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The pipeline's name.
    pub pipeline: String,
    /// This program's version.
    pub version: String,
    /// Which part of the pipeline the process is: `both`, `reader` or `sink`.
    pub role: String,
    /// The way of a change: `kafka` or `direct`.
    pub way: String,
    /// What the pipeline is doing.
    pub state: State,
    /// How long the process has run, in seconds.
    pub uptime_seconds: u64,
    /// How far MongoDB is behind PostgreSQL, as far as this process knows.
    pub lag: Lag,
    /// PostgreSQL and its slot; none for a lone sink, and before they were first measured.
    pub source: Option<SourceStatus>,
    /// The reader; none for a lone sink.
    pub reader: Option<ReaderStatus>,
    /// The sink; none for a lone reader.
    pub sink: Option<SinkStatus>,
    /// The last error that was tried again after, or that the pipeline was lost with; none since the start.
    pub last_error: Option<Trouble>,
    /// Who paused the pipeline; none while it is not.
    pub paused: Option<OrderStatus>,
    /// The transactions that will be passed over when they come.
    #[serde(default)]
    pub skips: Vec<SkipStatus>,
    /// The transactions that were passed over, of which a table was not verified since.
    #[serde(default)]
    pub skipped: Vec<SkippedStatus>,
    /// The tables of which documents lack what DDL changed without sending it.
    #[serde(default)]
    pub drifted: Vec<DriftedStatus>,
    /// The tables that have dead letters.
    #[serde(default)]
    pub dead_letters: Vec<ParkedStatus>,
    /// When the configuration was last read again, and what came of it; none since the start.
    pub reloaded: Option<Reloaded>,
    /// What the refreshes of the analytics have come to; none where this process makes none.
    #[serde(default)]
    pub analytics: Option<Freshness>,
}

/// What a pipeline is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It connects, takes the slot and claims its pipeline.
    Starting,
    /// A part failed and is tried again: see the last error.
    Retrying,
    /// The tables are being copied; readers of MongoDB see the ones before.
    Snapshot,
    /// The copies take the places of the tables.
    Swapping,
    /// An operator paused it: what is read waits.
    Paused,
    /// Changes are followed.
    Live,
    /// Changes are followed, but documents of a table lack what DDL changed without sending it: see the drifted tables.
    Drifted,
    /// Another process has taken the pipeline over: this one ends.
    Fenced,
}

/// PostgreSQL and the slot, as they were measured last.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourceStatus {
    /// The server's version; none before it answered.
    pub version: Option<String>,
    /// How far its log is durable; none before it answered.
    pub flush_lsn: Option<Lsn>,
    /// WAL that the server keeps for the slot, in bytes; none when there is no slot, or it is lost.
    pub retained_bytes: Option<u64>,
    /// How many bytes may still be written before the slot is in danger; none without a limit.
    pub spare_bytes: Option<u64>,
    /// PostgreSQL's word for the state of that WAL.
    pub wal_status: Option<String>,
    /// Whether a process streams from the slot.
    pub is_active: bool,
    /// Why it could not be measured last time: the rest is older then.
    pub error: Option<String>,
}

/// What was read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReaderStatus {
    /// The generation.
    pub generation: u64,
    /// How far the source was read between transactions.
    pub read_lsn: Lsn,
    /// What the slot may be confirmed to.
    pub confirmed_lsn: Lsn,
    /// Transactions of streamed tables.
    pub transactions: u64,
    /// Changes.
    pub changes: u64,
    /// Rows that were too large for their records; of an older daemon 0.
    #[serde(default)]
    pub oversize_rows: u64,
    /// Changes per second, over the last few seconds.
    pub changes_per_second: f64,
    /// Transactions in progress that are kept on disk until they commit; none without `source.streaming`.
    #[serde(default)]
    pub spooled_transactions: Option<u64>,
    /// What they take.
    #[serde(default)]
    pub spooled_bytes: Option<u64>,
}

/// What was applied.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SinkStatus {
    /// The generation.
    pub generation: u64,
    /// The last transaction applied, as `GENERATION/LSN`, or the last chunk of the snapshot.
    pub position: Option<String>,
    /// How far the source's log is applied.
    pub end_lsn: Lsn,
    /// Rows.
    pub rows: u64,
    /// Rows per second, over the last few seconds.
    pub rows_per_second: f64,
    /// Groups.
    pub groups: u64,
    /// Operations that were mended from a full image.
    pub repaired: u64,
    /// Changes that became dead letters.
    #[serde(default)]
    pub parked: u64,
    /// Changes of rows that were given up with their dead letters.
    #[serde(default)]
    pub dropped: u64,
    /// From commit to visible, the oldest transaction of each group.
    pub latency: Latency,
    /// Rows by table, the names in order.
    pub tables: Vec<TableStatus>,
}

/// What was applied to one table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TableStatus {
    /// The table.
    pub table: String,
    /// Rows.
    pub rows: u64,
}

/// How often it took how long from commit to visible.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Latency {
    /// Groups.
    pub count: u64,
    /// All of them together, in seconds.
    pub sum_seconds: f64,
    /// Groups up to each bound.
    pub buckets: Vec<Bucket>,
}

/// Groups that took at most so long.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Bucket {
    /// The bound, in seconds.
    pub seconds: f64,
    /// Groups, those of the lower bounds among them.
    pub count: u64,
}

/// Who asked for something.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OrderStatus {
    /// A person or a program.
    pub by: String,
    /// When, seconds since 1970.
    pub at: i64,
    /// In their words.
    pub reason: Option<String>,
}

/// A transaction that is to be passed over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SkipStatus {
    /// The transaction, as `GENERATION/LSN`.
    pub commit: String,
    /// Who asked for it.
    #[serde(flatten)]
    pub order: OrderStatus,
}

/// A transaction that was passed over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SkippedStatus {
    /// The transaction, as `GENERATION/LSN`.
    pub commit: String,
    /// How many changes it held.
    pub changes: u64,
    /// The tables that were not verified since.
    pub tables: Vec<String>,
    /// Who asked for it.
    #[serde(flatten)]
    pub order: OrderStatus,
}

/// A table of which documents that did not change since lack what DDL changed without sending it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DriftedStatus {
    /// The table.
    pub table: String,
    /// Since when at the latest, seconds since 1970.
    pub since: i64,
    /// What changed, in words.
    pub differences: Vec<String>,
}

/// A table that has dead letters.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ParkedStatus {
    /// The table.
    pub table: String,
    /// How many dead letters it has.
    pub letters: u64,
    /// Since when the oldest of them is there, seconds since 1970.
    pub since: i64,
}

/// An error that a part of the pipeline is tried again after, or was lost to another process with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trouble {
    /// Which part failed: `reader`, `sink` or `pipeline`.
    pub part: String,
    /// The error with its causes.
    pub error: String,
    /// What to do.
    pub remedy: String,
    /// How often in a row.
    pub attempts: u32,
    /// When, seconds since 1970.
    pub at: u64,
    /// Whether another process has taken the pipeline over.
    #[serde(default)]
    pub is_fenced: bool,
}

/// What came of reading the configuration again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// When, seconds since 1970.
    pub at: u64,
    /// The keys that changed and took effect then.
    pub taken: Vec<String>,
    /// The keys that differ from what runs: a restart makes them take effect.
    pub waiting: Vec<String>,
    /// Why it cannot be used, so that nothing changed.
    pub error: Option<String>,
}

// === impl State ===

impl State {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Starting,
        Self::Retrying,
        Self::Snapshot,
        Self::Swapping,
        Self::Paused,
        Self::Live,
        Self::Drifted,
        Self::Fenced,
    ];

    /// Whether changes are followed. A drifted pipeline follows them as any other.
    pub fn is_following(self) -> bool {
        matches!(self, Self::Live | Self::Drifted)
    }

    /// Whether the pipeline does what it is asked to.
    pub fn is_working(self) -> bool {
        !matches!(self, Self::Starting | Self::Retrying | Self::Fenced)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Retrying => "retrying",
            Self::Snapshot => "snapshot",
            Self::Swapping => "swapping",
            Self::Paused => "paused",
            Self::Live => "live",
            Self::Drifted => "drifted",
            Self::Fenced => "fenced",
        })
    }
}

// === impl SourceStatus ===

impl SourceStatus {
    /// As it was measured last, and why it could not be since.
    fn new(report: Option<SlotReport>, error: Option<String>) -> Self {
        let version = report.as_ref().map(|it| it.server_version.clone());
        let flush_lsn = report.as_ref().map(|it| it.flush_lsn);
        let slot = report.and_then(|it| it.slot);
        Self {
            version,
            flush_lsn,
            retained_bytes: slot.as_ref().and_then(|it| it.retained_bytes),
            spare_bytes: slot.as_ref().and_then(|it| it.spare_bytes),
            is_active: slot.as_ref().is_some_and(|it| it.is_active),
            wal_status: slot.map(|it| it.wal_status),
            error,
        }
    }
}

// === impl Latency ===

impl Latency {
    /// The bound that so many of a hundred groups stayed within; none before the first, or when it took longer than the
    /// last bound.
    pub fn within(&self, percent: u64) -> Option<Duration> {
        let wanted = (self.count * percent).div_ceil(100).max(1);
        let found = self.buckets.iter().find(|it| it.count >= wanted)?;
        Some(Duration::from_secs_f64(found.seconds))
    }
}

/// A time in seconds since 1970, as people read it.
pub(crate) fn time(seconds: u64) -> impl fmt::Display {
    humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// The time of day, seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

/// What to do about an error whose message does not say it already.
pub(crate) fn remedy(class: Class) -> Option<&'static str> {
    match class {
        Class::Fenced => Some("nothing here: the pipeline goes on in the other process"),
        Class::Transient => Some("see that the servers are up and reachable, then start again"),
        Class::File => Some("see that the files are complete and belong together"),
        Class::Poison | Class::Fatal => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_known_to_its_bound() {
        let bucket = |seconds, count| Bucket { seconds, count };
        let latency = Latency {
            count: 100,
            sum_seconds: 1.0,
            buckets: vec![bucket(0.01, 50), bucket(0.1, 98)],
        };
        assert_eq!(latency.within(50), Some(Duration::from_millis(10)));
        assert_eq!(latency.within(51), Some(Duration::from_millis(100)));
        assert_eq!(latency.within(99), None);
        assert_eq!(Latency::default().within(50), None);
    }
}
