//! What operators ask of a running pipeline, and what became of it.

use std::collections::BTreeMap;

use walferry_schema::{CommitId, TableName};

/// Everything that is asked of a pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Nothing more is to be applied until this is taken back.
    pub pause: Option<Order>,
    /// The source transactions to pass over; those that were are still among them.
    pub skips: BTreeMap<CommitId, Order>,
    /// What was passed over, of which a table was not verified since.
    pub unverified: Vec<Unverified>,
}

/// Who asks, when and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// A person or a program.
    pub by: String,
    /// Milliseconds since 1970.
    pub at: i64,
    /// In their words.
    pub reason: Option<String>,
}

/// A source transaction that was passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unverified {
    /// The transaction.
    pub commit: CommitId,
    /// Who asked for it.
    pub order: Order,
    /// How many changes it held.
    pub changes: u64,
    /// The tables that were not verified since, as `schema.table`.
    pub tables: Vec<String>,
}

/// A source transaction, or a piece of one, that is kept instead of being applied.
#[derive(Clone, Debug)]
pub struct Skipped {
    /// The transaction.
    pub commit: CommitId,
    /// When the source committed it, microseconds since 1970.
    pub committed_at: Option<i64>,
    /// Who asked for it.
    pub order: Order,
    /// What it would have changed, in order.
    pub changes: Vec<SkippedChange>,
}

/// A change that is kept instead of being applied.
#[derive(Clone, Debug)]
pub struct SkippedChange {
    /// The table.
    pub table: TableName,
    /// The change's place in its transaction.
    pub ordinal: u64,
    /// The change as JSON: through Kafka the record's envelope, without it the operation and the rows in
    /// PostgreSQL's text.
    pub change: String,
}
