//! What the sink remembers of its own progress.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use walferry_schema::{Lsn, Phase, Position, ServerIdentity, TableSpec, Term};

/// The content of the position document (protocol rule 13), less what only the sink needs to
/// fence with (epoch, sequence, session).
///
/// Written in the same transaction as the documents, so the two can never disagree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which part of its life the pipeline is in.
    pub state: PipelineState,
    /// The generation that the rest refers to.
    pub generation: u64,
    /// The newest `open` (or `generation`) record read: older terms are void from here on.
    pub term: Term,
    /// The last change applied; none before the first.
    pub position: Option<Position>,
    /// How far the source's log is covered: the last commit's end LSN, heartbeat or snapshot end.
    pub end_lsn: Lsn,
    /// When the last transaction applied was committed, microseconds since 1970; none before the
    /// first. Only told to people.
    pub committed_at: Option<i64>,
    /// The next log offset to read.
    pub log_offset: i64,
    /// A hash of the log record before `log_offset`; 0 when there is none. Read again on start,
    /// so that a log that was lost and written anew is noticed.
    pub log_check: u64,
    /// The next offset to read of each row partition.
    pub partitions: BTreeMap<PartitionOffset, i64>,
    /// The server that the generation was read from; none where no generation was begun yet.
    pub server: Option<ServerIdentity>,
    /// The tables of the generation.
    pub tables: Vec<TableSpec>,
}

/// How much of a transaction or chunk a checkpoint holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing.
    Nothing,
    /// The changes up to this ordinal, of a giant that was cut short (rule 17).
    UpTo(u64),
    /// All of it.
    All,
    /// Nothing, though an earlier giant was cut short: its rest is missing.
    NothingAfterPart(Phase),
}

/// A partition by name, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionOffset {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition within the topic.
    pub partition: i32,
}

/// Which part of its life a pipeline is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PipelineState {
    /// Chunks go into staging collections; readers see the tables of the generation before.
    Snapshot,
    /// Every chunk is in staging and the collections are being renamed, one after another.
    Swapping,
    /// Source transactions are applied; readers see a prefix of the source's history.
    Live,
}

// === impl Checkpoint ===

impl Checkpoint {
    /// The checkpoint of a pipeline that has read nothing.
    pub fn blank() -> Self {
        Self {
            state: PipelineState::Snapshot,
            generation: 0,
            term: Term::NONE,
            position: None,
            end_lsn: Lsn::ZERO,
            committed_at: None,
            log_offset: 0,
            log_check: 0,
            partitions: BTreeMap::new(),
            server: None,
            tables: Vec::new(),
        }
    }

    /// How much of a transaction or chunk was applied before.
    pub fn held(&self, generation: u64, phase: Phase) -> Held {
        let Some(applied) = self.position else {
            return Held::Nothing;
        };
        match (applied.generation, applied.phase).cmp(&(generation, phase)) {
            Ordering::Greater => Held::All,
            Ordering::Equal if applied.is_end() => Held::All,
            Ordering::Equal => Held::UpTo(applied.ordinal),
            Ordering::Less if applied.is_end() || applied.generation < generation => Held::Nothing,
            Ordering::Less => Held::NothingAfterPart(applied.phase),
        }
    }

    /// Whether a part of this generation's snapshot was applied.
    pub fn has_chunks(&self) -> bool {
        self.position.is_some_and(|position| {
            position.generation == self.generation && matches!(position.phase, Phase::Snapshot(_))
        })
    }
}
