//! What the commit log's tail says about the pipeline (protocol rules 5, 10 and 12).
//!
//! - Log order decides: an `open` voids the records of older terms after it.
//! - A void record does not count as held by the log.

use walferry_core::{Fault, Log, LogEntry};
use walferry_schema::{LogRecord, Lsn, ServerIdentity, TableSpec, Term};

use crate::succession::Succession;

/// How many records are read back before what they say is taken as it stands.
///
/// A term whose `open` lies further back is long enough: records of an older term can only follow
/// an `open` while a dead producer's queue drains, and that is bounded to fewer than this.
const FAR_BACK: i64 = 250_000;

/// The state of the pipeline as the log tells it, read record by record in log order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    /// The newest term.
    terms: Succession,
    /// Records of terms that began before this offset are not judged: what voids them may stand
    /// before the window too.
    judged_from: i64,
    /// The newest generation's server and tables, as far as they were seen.
    identity: Option<(ServerIdentity, Vec<TableSpec>)>,
    /// Whether the stream was begun, which only a complete snapshot allows.
    is_opened: bool,
    /// How far the source's log is covered; none while a snapshot is incomplete.
    covered: Option<Lsn>,
    last_commit: Option<Lsn>,
}

// === impl Tail ===

impl Tail {
    /// Reads the log's tail, as much of it as the judgement needs.
    pub(super) async fn read<L: Log>(log: &mut L) -> Result<(Self, i64), Fault> {
        let bounds = log.bounds().await?;
        let mut reach = 1_000;
        loop {
            let from = bounds.first.max(bounds.end - reach);
            let is_last = from == bounds.first || reach >= FAR_BACK;
            let judged_from = if is_last { 0 } else { from };
            let mut tail = Self {
                judged_from,
                ..Self::default()
            };
            tail.read_on(log, from, bounds.end).await?;
            if is_last || tail.covered.is_some() {
                tail.recall_identity(log, from).await?;
                tail.judged_from = 0;
                return Ok((tail, bounds.end));
            }
            reach *= 8;
        }
    }

    /// Reads the records from `from` to `end`.
    pub(super) async fn read_on<L: Log>(
        &mut self,
        log: &mut L,
        from: i64,
        end: i64,
    ) -> Result<(), Fault> {
        let mut next = from;
        while next < end {
            let entries = log.read(next, 10_000).await?;
            let Some(last) = entries.last() else { break };
            next = last.offset + 1;
            entries
                .iter()
                .filter(|entry| entry.offset < end)
                .for_each(|entry| self.add(entry));
        }
        Ok(())
    }

    /// The newest term.
    pub(super) fn term(&self) -> Option<Term> {
        self.terms.newest()
    }

    /// What the next `open` or `generation` follows.
    pub(super) fn follows(&self) -> i64 {
        self.terms.number()
    }

    /// The newest generation, 0 when there is none.
    pub(super) fn generation(&self) -> u64 {
        self.term().map_or(0, |term| term.generation)
    }

    /// The server and tables of the newest generation.
    pub(super) fn identity(&self) -> Option<&(ServerIdentity, Vec<TableSpec>)> {
        self.identity.as_ref()
    }

    /// How far the source's log is covered; none before the snapshot is complete.
    pub(super) fn covered(&self) -> Option<Lsn> {
        self.covered
    }

    /// Whether the newest generation was streamed, so that its snapshot was complete once.
    pub(super) fn is_opened(&self) -> bool {
        self.is_opened
    }

    /// The commit LSN of the last transaction that counts.
    pub(super) fn last_commit(&self) -> Option<Lsn> {
        self.last_commit
    }

    /// Reads the one record that began the term when the window did not reach it.
    async fn recall_identity<L: Log>(&mut self, log: &mut L, from: i64) -> Result<(), Fault> {
        let Some(term) = self
            .term()
            .filter(|term| self.identity.is_none() && term.number < from)
        else {
            return Ok(());
        };
        let first = log.read(term.number, 1).await?;
        if let Some(entry) = first.first().filter(|entry| entry.offset == term.number) {
            self.identity = identity_of(&entry.record);
        }
        Ok(())
    }

    fn add(&mut self, entry: &LogEntry) {
        let before = self.term();
        if !self.terms.judge(entry) {
            return;
        }
        if before > self.term() {
            // What was taken from an `open` that turns out to have come late.
            self.identity = None;
        }
        match &entry.record {
            LogRecord::Generation(_) => {
                *self = Self {
                    terms: self.terms.clone(),
                    judged_from: self.judged_from,
                    identity: identity_of(&entry.record),
                    ..Self::default()
                };
            }
            LogRecord::Open(open) => {
                self.identity = identity_of(&entry.record);
                self.is_opened = true;
                if open.moved {
                    self.covered = Some(open.start_lsn);
                }
            }
            // Behind a hole nothing is covered: what the log forgot is to be sent again, or missed.
            LogRecord::Commit(it) if self.misses(it.after) => {}
            LogRecord::Heartbeat(it) if self.misses(it.after) => {}
            LogRecord::Commit(commit) => {
                self.cover(commit.term, commit.end_lsn);
                self.last_commit = Some(commit.commit_lsn);
            }
            LogRecord::SnapshotEnd(end) => self.cover(end.term, end.lsn),
            LogRecord::Heartbeat(beat) => self.cover(beat.term, beat.lsn),
            LogRecord::Chunk(_) => {}
        }
    }

    /// Whether records are missing before one that says how far the log covered the source then.
    fn misses(&self, after: Lsn) -> bool {
        self.covered.is_some_and(|covered| after > covered)
    }

    fn cover(&mut self, term: Term, lsn: Lsn) {
        if term.number >= self.judged_from {
            self.covered = Some(self.covered.map_or(lsn, |covered| covered.max(lsn)));
        }
    }
}

fn identity_of(record: &LogRecord) -> Option<(ServerIdentity, Vec<TableSpec>)> {
    match record {
        LogRecord::Generation(it) => Some((it.server.clone(), it.tables.clone())),
        LogRecord::Open(it) => Some((it.server.clone(), it.tables.clone())),
        _ => None,
    }
}
