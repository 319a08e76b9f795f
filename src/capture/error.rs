//! What can end a reader, and what to do about it.

use std::io;

use walferry_core::{Class, Classify, Fault};
use walferry_schema::{HeaderError, Lsn, Phase, TableName, envelope::EnvelopeError};

/// The remedy that all losses of continuity share.
const NEW_SNAPSHOT: &str = "run `walferry run --new-snapshot` to make the slot anew and copy the \
                            streamed tables again";

/// Why the reader stopped.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// A connector failed.
    #[error("{0}")]
    Connector(Fault),
    /// Nothing in the publication matches a `mode = "stream"` table of the configuration.
    #[error(
        "no table of publication {publication} is configured with mode = \"stream\": add a \
         [[table]] for one, or add tables to the publication"
    )]
    NoTables {
        /// The publication.
        publication: String,
    },
    /// A streamed table whose rows cannot be told apart.
    #[error(
        "table {table} has neither a primary key nor a replica identity index: add one \
         (ALTER TABLE {table} ADD PRIMARY KEY …) or configure the table as \"batch\" or \"ignore\""
    )]
    NoKey {
        /// The table.
        table: TableName,
    },
    /// A streamed table in whose transactions two rows may have the same key for a while.
    #[error(
        "the primary key {constraint:?} of table {table} is DEFERRABLE, so two of its rows may share \
         a key inside a transaction: make it NOT DEFERRABLE (ALTER TABLE {table} DROP CONSTRAINT \
         {constraint:?}, ADD PRIMARY KEY …) or configure the table as \"batch\" or \"ignore\""
    )]
    DeferrableKey {
        /// The table.
        table: TableName,
        /// The constraint's name.
        constraint: String,
    },
    /// A table that appeared after the generation's snapshot.
    #[error(
        "table {table} matches mode = \"stream\" but is not part of generation {generation} \
         (change at {lsn}): configure it as \"ignore\", or {NEW_SNAPSHOT}"
    )]
    TableNotInGeneration {
        /// The table.
        table: TableName,
        /// The generation.
        generation: u64,
        /// Where its first change stands.
        lsn: Lsn,
    },
    /// There is a slot, but no commit log that knows it.
    #[error(
        "replication slot {slot} exists, but the commit log {log} does not know it: it belongs to \
         something else, or Kafka was emptied. Choose another slot, or {NEW_SNAPSHOT}"
    )]
    SlotWithoutLog {
        /// The slot.
        slot: String,
        /// The topic of the commit log.
        log: String,
    },
    /// There is a slot, but no position of ours in MongoDB.
    #[error(
        "replication slot {slot} exists, but MongoDB holds no position of this pipeline: it belongs \
         to something else, or was read through Kafka before (then `walferry move` takes it over). \
         Choose another slot, or {NEW_SNAPSHOT}"
    )]
    SlotWithoutPosition {
        /// The slot.
        slot: String,
    },
    /// The slot was confirmed beyond what MongoDB holds.
    #[error(
        "replication slot {slot} is confirmed to {confirmed}, but MongoDB holds the changes only to \
         {covered}: something else moved the slot, or MongoDB was restored from an older state. \
         {NEW_SNAPSHOT}"
    )]
    SlotAhead {
        /// The slot.
        slot: String,
        /// Where the slot stands.
        confirmed: Lsn,
        /// How far the changes are applied.
        covered: Lsn,
    },
    /// A giant of which a part was applied, and that the source does not send again.
    #[error(
        "{cut_short:?} was applied in part, but {found:?} comes next: something else moved the slot. \
         {NEW_SNAPSHOT}"
    )]
    RestMissing {
        /// The transaction that was cut short.
        cut_short: Phase,
        /// What comes instead of its rest.
        found: Phase,
    },
    /// The slot of a complete generation is gone.
    #[error(
        "replication slot {slot} is gone, and with it the changes since {covered}: {NEW_SNAPSHOT}"
    )]
    SlotMissing {
        /// The slot.
        slot: String,
        /// How far the log holds the changes.
        covered: Lsn,
    },
    /// The server removed log that the slot needed.
    #[error(
        "PostgreSQL removed WAL that replication slot {slot} still needed \
         (max_slot_wal_keep_size): {NEW_SNAPSHOT}"
    )]
    SlotLost {
        /// The slot.
        slot: String,
    },
    /// The slot lives on another server or timeline than the generation.
    #[error(
        "the source is another server or timeline ({found}) than the one generation {generation} \
         was read from ({expected}), so positions mean nothing there: {NEW_SNAPSHOT}"
    )]
    OtherServer {
        /// The generation.
        generation: u64,
        /// System identifier and timeline of the generation.
        expected: String,
        /// Those of the server now.
        found: String,
    },
    /// The server's log ends before what the commit log already holds.
    #[error(
        "the source's WAL ends at {flushed}, before {covered}, which the commit log already holds: \
         the server was restored from an older state. {NEW_SNAPSHOT}"
    )]
    ServerBehind {
        /// Where the server's log ends.
        flushed: Lsn,
        /// How far the commit log goes.
        covered: Lsn,
    },
    /// The slot was confirmed beyond what the commit log holds.
    #[error(
        "replication slot {slot} is confirmed to {confirmed}, but the commit log ends at {covered}: \
         Kafka lost records that it had acknowledged (or something else moved the slot). \
         {NEW_SNAPSHOT}"
    )]
    LogForgot {
        /// The slot.
        slot: String,
        /// Where the slot stands.
        confirmed: Lsn,
        /// How far the log goes.
        covered: Lsn,
    },
    /// Another reader began a generation in the meantime.
    #[error(
        "another reader began generation {found} while this one went on with {expected}: only one \
         walferry may read a slot; stop the other or this one"
    )]
    OtherGeneration {
        /// This reader's generation.
        expected: u64,
        /// The newest in the log.
        found: u64,
    },
    /// Another reader's `open` came first.
    #[error("another reader began a term before this one's (commit log offset {number}) took over")]
    Overtaken {
        /// The offset of this reader's `open`.
        number: i64,
    },
    /// Another reader streams from the slot that a new snapshot would make anew.
    #[error(
        "replication slot {slot} is in use, so it cannot be made anew: stop the other reader first"
    )]
    SlotInUse {
        /// The slot.
        slot: String,
        /// Whether this process owned it before, so that it may be its own dead connection.
        was_ours: bool,
    },
    /// Two tables whose names are the same once they are made fit for Kafka.
    #[error(
        "tables {one} and {other} would share topic {topic} (Kafka takes points and underscores for the same): \
         rename one, or configure it as \"batch\" or \"ignore\""
    )]
    SameTopic {
        /// The topic.
        topic: String,
        /// One table.
        one: TableName,
        /// The other.
        other: TableName,
    },
    /// The publication no longer holds a table of the generation.
    #[error(
        "table {table} of generation {generation} was dropped, renamed or removed from publication \
         {publication}, or another table took its name, so changes of it may have been missed: \
         {NEW_SNAPSHOT}"
    )]
    TableGone {
        /// The table.
        table: TableName,
        /// The generation.
        generation: u64,
        /// The publication.
        publication: String,
    },
    /// A change that has no record form.
    #[error("table {table}, change at {lsn}")]
    Row {
        /// The table.
        table: TableName,
        /// LSN of the change.
        lsn: Lsn,
        /// What is wrong.
        source: EnvelopeError,
    },
    /// A change whose record Kafka does not take.
    #[error("table {table}, change at {lsn}: {fault}")]
    Record {
        /// The table.
        table: TableName,
        /// LSN of the change.
        lsn: Lsn,
        /// What the log said.
        fault: Fault,
    },
    /// A logical message whose record Kafka does not take.
    #[error("logical message for {prefix:?} at {lsn}: {fault}")]
    Message {
        /// Who it is for.
        prefix: String,
        /// LSN of the message.
        lsn: Lsn,
        /// What the log said.
        fault: Fault,
    },
    /// What was spooled of a large row cannot be read.
    #[error("table {table}, change at {lsn}: reading what was spooled of the row")]
    Spool {
        /// The table.
        table: TableName,
        /// LSN of the change.
        lsn: Lsn,
        /// The cause.
        source: std::io::Error,
    },
    /// A record of the commit log that is not understood.
    #[error("reading the commit log")]
    Header(#[from] HeaderError),
}

// === impl CaptureError ===

impl CaptureError {
    pub(super) fn record(table: &TableName, lsn: Lsn, fault: Fault) -> Self {
        let table = table.clone();
        Self::Record { table, lsn, fault }
    }

    /// That what was spooled of a row cannot be read.
    pub(super) fn spool(table: &TableName, lsn: Lsn, source: io::Error) -> Self {
        let table = table.clone();
        Self::Spool { table, lsn, source }
    }
}

impl Classify for CaptureError {
    fn class(&self) -> Class {
        match self {
            Self::Connector(fault) | Self::Record { fault, .. } | Self::Message { fault, .. } => {
                fault.class()
            }
            Self::Row { .. } => Class::Poison,
            Self::Overtaken { .. }
            | Self::SlotInUse { was_ours: true, .. }
            | Self::Spool { .. } => Class::Transient,
            _ => Class::Fatal,
        }
    }
}

impl From<Fault> for CaptureError {
    fn from(fault: Fault) -> Self {
        Self::Connector(fault)
    }
}
