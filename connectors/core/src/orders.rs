//! What operators ask of a running pipeline, and what became of it.

use std::collections::BTreeMap;

use serde::Serialize;
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
    /// The tables of which documents lack what DDL changed without sending it.
    pub drifted: Vec<Drifted>,
    /// What is to be done about dead letters, in the order in which it was asked.
    pub letters: Vec<LetterOrder>,
    /// The tables that have dead letters.
    pub parked: Vec<ParkedTable>,
}

/// Something that is to be done about dead letters: once, after which the order is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterOrder {
    /// Tells it from others.
    pub id: String,
    /// What is to be done.
    pub action: LetterAction,
    /// To which of them.
    pub choice: LetterChoice,
    /// Who asks for it.
    pub order: Order,
}

/// What may be done about a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetterAction {
    /// Everything parked of its row is applied, as what it comes to in the end.
    Retry,
    /// Everything parked of its row is given up.
    Discard,
}

/// Which dead letters are meant; those of a row always go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LetterChoice {
    /// All of the pipeline.
    All,
    /// Those of a table, as `schema.table`.
    Table(String),
    /// Those of the row that this one is of.
    Letter(String),
}

/// A table that has dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedTable {
    /// The table, as `schema.table`.
    pub table: String,
    /// How many dead letters it has.
    pub letters: u64,
    /// Since when the oldest of them is there, milliseconds since 1970.
    pub since: i64,
}

/// A table of which documents that did not change since lack what DDL changed without sending it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drifted {
    /// The table.
    pub table: TableName,
    /// Since when at the latest, milliseconds since 1970.
    pub since: i64,
    /// What changed, in words.
    pub differences: Vec<String>,
}

/// Who asks, when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
