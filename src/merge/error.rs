//! What can break the history that the log tells.

use walferry_core::{Class, Classify, Fault};
use walferry_schema::{Lsn, Phase, Term};

const NEW_SNAPSHOT: &str = "run `walferry run --new-snapshot` to copy the streamed tables again";

/// Why the history cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// A connector failed.
    #[error("{0}")]
    Connector(Fault),
    /// A record of a generation that the log never announced.
    #[error(
        "commit log offset {offset} speaks of generation {generation}, which was never announced: \
         the log lost records. {NEW_SNAPSHOT}"
    )]
    UnknownGeneration {
        /// Where.
        offset: i64,
        /// The generation.
        generation: u64,
    },
    /// A record of a term whose `open` is missing.
    #[error(
        "commit log offset {offset} belongs to term {}, whose beginning is missing: the log lost \
         records. {NEW_SNAPSHOT}", term.number
    )]
    UnknownTerm {
        /// Where.
        offset: i64,
        /// The term.
        term: Term,
    },
    /// Rows of a later term, whose `open` is missing.
    #[error(
        "the rows of {phase:?} (term {}) are followed by those of a later term, whose beginning is \
         missing in the commit log: the log lost records. {NEW_SNAPSHOT}", term.number
    )]
    OpenMissing {
        /// The term that the log knows.
        term: Term,
        /// The transaction or chunk.
        phase: Phase,
    },
    /// The slot began later than what the log holds.
    #[error(
        "the reader went on at {start} (commit log offset {offset}), but the log covers the source \
         only up to {covered}: Kafka lost acknowledged records. {NEW_SNAPSHOT}"
    )]
    LogForgot {
        /// Where the `open` stands.
        offset: i64,
        /// Where the reader began.
        start: Lsn,
        /// How far the log goes.
        covered: Lsn,
    },
    /// Records are missing in the middle of a term.
    #[error(
        "commit log offset {offset} was written when the log covered the source up to {after}, but what \
         is left before it covers only {covered}: Kafka lost acknowledged records. {NEW_SNAPSHOT}"
    )]
    Hole {
        /// Where.
        offset: i64,
        /// How far the log once went.
        after: Lsn,
        /// How far it goes now.
        covered: Lsn,
    },
    /// A part of the snapshot is missing.
    #[error(
        "commit log offset {offset} counts {found} chunks of the snapshot before it, but chunk {expected} was never \
         read: the log lost records. {NEW_SNAPSHOT}"
    )]
    ChunkMissing {
        /// Where.
        offset: i64,
        /// The chunk that comes next.
        expected: u64,
        /// The chunk, or the number of chunks, that is there.
        found: u64,
    },
    /// A partition no longer, or never, held what comes next.
    #[error(
        "{partition} holds offsets {first} to {end}, but {offset} comes next: records were deleted \
         before they were applied, or Kafka lost them. {NEW_SNAPSHOT}"
    )]
    OutOfRange {
        /// The partition.
        partition: String,
        /// The offset that comes next.
        offset: i64,
        /// The first offset that is left.
        first: i64,
        /// The offset after the last record.
        end: i64,
    },
    /// The log is not the one that was read before.
    #[error(
        "the commit log's record at offset {offset} is not the one that was applied: the log was \
         lost and written anew. {NEW_SNAPSHOT}"
    )]
    OtherLog {
        /// Where.
        offset: i64,
    },
    /// A new sink, and a log that has already dropped the snapshot it would begin with.
    #[error(
        "the commit log (from offset {first} on) no longer holds the beginning of a generation, \
         which a new sink needs. {NEW_SNAPSHOT}"
    )]
    NoSnapshot {
        /// The first offset that is left.
        first: i64,
    },
    /// Rows of a table that the generation does not have.
    #[error(
        "{at:?} has rows on topic {topic}, which is not part of generation {generation}. \
         {NEW_SNAPSHOT}"
    )]
    UnknownTable {
        /// The topic.
        topic: String,
        /// The generation.
        generation: u64,
        /// The transaction or chunk.
        at: Phase,
    },
    /// A row where another one belongs.
    #[error(
        "{partition} offset {offset} holds {found} where a row of {wanted:?} belongs: Kafka lost or \
         repeated records. {NEW_SNAPSHOT}"
    )]
    WrongRow {
        /// The partition.
        partition: String,
        /// The offset.
        offset: i64,
        /// The row's stamp.
        found: String,
        /// The transaction or chunk wanted.
        wanted: Phase,
    },
    /// A giant of which a part was applied, and that did not come again.
    #[error(
        "{cut_short:?} was applied in part, but {found:?} comes next: Kafka lost acknowledged \
         records. {NEW_SNAPSHOT}"
    )]
    RestMissing {
        /// The transaction that was cut short.
        cut_short: Phase,
        /// What comes instead of its rest.
        found: Phase,
    },
    /// Rows that do not come.
    #[error(
        "{missing} rows of {phase:?} have not come for 30 seconds, though the log counts them: the \
         reader is away, or Kafka lost them. Start the reader; if this stays, {NEW_SNAPSHOT}"
    )]
    Incomplete {
        /// The transaction or chunk.
        phase: Phase,
        /// How many rows are missing.
        missing: u64,
    },
}

// === impl MergeError ===

impl Classify for MergeError {
    fn class(&self) -> Class {
        match self {
            Self::Connector(fault) => fault.class(),
            Self::Incomplete { .. } => Class::Transient,
            _ => Class::Fatal,
        }
    }
}

impl From<Fault> for MergeError {
    fn from(fault: Fault) -> Self {
        Self::Connector(fault)
    }
}
