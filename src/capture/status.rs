//! How far a reader has come, for whoever waits for it or shows it.

use tokio::sync::watch;
use walferry_core::Spooled;
use walferry_schema::{Lsn, RowOp};

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
    /// What is kept of transactions in progress; none when PostgreSQL keeps them.
    pub spooled: Option<Spooled>,
    /// Rows that were too large for their records: changes, and rows of the snapshot.
    pub oversize_rows: u64,
}

/// How far a reader has come, by the reader itself.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    read: ReadProgress,
    shown: watch::Sender<CaptureStatus>,
}

// === impl Progress ===

impl Progress {
    /// Follows it.
    pub(crate) fn status(&self) -> watch::Receiver<CaptureStatus> {
        self.shown.subscribe()
    }

    /// Notes what the reader begins to do.
    pub(crate) fn enter(&mut self, stage: ReaderStage) {
        self.read.stage = stage;
        self.show();
    }

    /// Notes the generation that is read.
    pub(crate) fn read_generation(&mut self, generation: u64) {
        self.read.generation = generation;
    }

    /// Notes that the slot is owned, perhaps since it was made for a new generation: whoever waits for that is woken.
    pub(crate) fn own(&self, began: Option<Announced>) {
        self.shown.send_modify(|status| {
            status.is_owner = true;
            status.began = began.or(status.began);
        });
    }

    /// Whether the slot was owned before.
    pub(crate) fn was_owner(&self) -> bool {
        self.shown.borrow().is_owner
    }

    /// Counts a change.
    pub(crate) fn change(&mut self) {
        self.read.changes += 1;
    }

    /// Counts the rows of a change that were too large.
    pub(crate) fn row(&mut self, op: &RowOp) {
        if let RowOp::Insert { new } | RowOp::Update { new, .. } = op
            && new.has_large()
        {
            self.oversize();
        }
    }

    /// Counts a row that was too large.
    pub(crate) fn oversize(&mut self) {
        self.read.oversize_rows += 1;
    }

    /// Counts a transaction of streamed tables.
    pub(crate) fn commit(&mut self, end_lsn: Lsn, committed_at: Option<i64>) {
        self.read.transactions += 1;
        self.read.commit_end = end_lsn;
        self.read.committed_at = committed_at;
    }

    /// Notes what is kept of transactions in progress.
    pub(crate) fn keep(&mut self, spooled: Option<Spooled>) {
        self.read.spooled = spooled;
    }

    /// Notes how far was read and how far downstream holds it.
    pub(crate) fn reach(&mut self, read: Lsn, confirmed: Lsn) {
        (self.read.read_lsn, self.read.confirmed_lsn) = (read, confirmed);
        if confirmed >= self.read.commit_end {
            self.read.held_at = self.read.committed_at;
        }
        self.show();
    }

    /// Nobody is woken: whoever shows it looks when asked.
    fn show(&self) {
        self.shown.send_if_modified(|status| {
            status.read = self.read;
            false
        });
    }
}
