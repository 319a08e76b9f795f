//! How far a reader has come, for whoever waits for it or shows it.

use tokio::sync::watch;
use walferry_schema::Lsn;

use crate::merge::Announced;

/// How far a reader has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaptureStatus {
    /// Whether the slot is owned; set once and kept, so that a sink may claim its pipeline.
    pub is_owner: bool,
    /// The generation that this process began, if it did.
    pub began: Option<Announced>,
    /// What was read.
    pub read: ReadProgress,
}

/// What a reader is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReaderStage {
    /// It does not have the slot: it starts, waits to try again or has ended.
    #[default]
    Away,
    /// It copies the snapshot of a new generation.
    Copying,
    /// It reads the stream.
    Streaming,
}

/// What a reader has read; the counts are this process's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadProgress {
    /// What the reader is doing.
    pub stage: ReaderStage,
    /// The generation that is read.
    pub generation: u64,
    /// How far the source was read between transactions.
    pub read_lsn: Lsn,
    /// What the slot may be confirmed to: downstream holds everything before it.
    pub confirmed_lsn: Lsn,
    /// Where the last transaction of streamed tables ended.
    pub commit_end: Lsn,
    /// When the last transaction read was committed, microseconds since 1970.
    pub committed_at: Option<i64>,
    /// The same, when downstream last held everything that was read.
    pub held_at: Option<i64>,
    /// Transactions of streamed tables.
    pub transactions: u64,
    /// Changes: a truncate is one for all its tables.
    pub changes: u64,
}

// === impl ReadProgress ===

impl ReadProgress {
    /// Notes how far was read and how far downstream holds it.
    pub(crate) fn reach(&mut self, read: Lsn, confirmed: Lsn) {
        (self.read_lsn, self.confirmed_lsn) = (read, confirmed);
        if confirmed >= self.commit_end {
            self.held_at = self.committed_at;
        }
    }

    /// Shows it; nobody is woken, since whoever shows it looks when asked.
    pub(crate) fn publish(&self, to: &watch::Sender<CaptureStatus>) {
        to.send_if_modified(|status| {
            status.read = *self;
            false
        });
    }
}
