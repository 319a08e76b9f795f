//! The change envelope: the JSON of a record's key and value.
//!
//! - A record's bytes are Debezium's, but for the differences that the event format documents.
//! - An unchanged TOAST column is left out, never replaced by a placeholder.
//! - What is written is read back as the same values.

mod decimal;
pub mod foreign;
mod json;
mod members;
mod message;
mod read;
mod schemas;
mod whole;
mod write;

use std::sync::Arc;

use serde::Deserialize;

pub use self::message::{write_message, write_message_key};
pub use self::read::{decoded_at, payload, read_changed, read_image, read_key, row_image};
pub use self::schemas::{RecordSchema, Version, marker};
pub use self::whole::WholeValue;
pub use self::write::{large_names, unchanged_names, write_key, write_value};
use crate::{Column, Lsn, Modes, Row, ValueError};

/// What Debezium writes in the place of a value that an update left as it was.
pub const UNAVAILABLE: &str = "__debezium_unavailable_value";
/// The same for a `uuid`: the one that Java makes of those bytes.
pub const UNAVAILABLE_UUID: &str = "b68a35a7-17ad-35b3-af2a-ae46edb4545a";

/// What is the same in every record of one pipeline.
#[derive(Clone, Debug)]
pub struct Template {
    /// walferry's version.
    pub version: String,
    /// The topic prefix.
    pub name: String,
    /// The source database.
    pub database: String,
    /// How values are written.
    pub modes: Modes,
}

/// What a record says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Op {
    /// `r`: a row of the snapshot.
    #[serde(rename = "r")]
    Read,
    /// `c`
    #[serde(rename = "c")]
    Create,
    /// `u`
    #[serde(rename = "u")]
    Update,
    /// `d`
    #[serde(rename = "d")]
    Delete,
    /// `t`
    #[serde(rename = "t")]
    Truncate,
    /// `m`: a logical message, which is about no row.
    #[serde(rename = "m")]
    Message,
}

/// A row's place in the snapshot, as Debezium marks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotMark {
    /// A row of the stream: `"false"`.
    False,
    /// A row of the snapshot: `"true"`.
    True,
    /// The first row of all: `"first"`.
    First,
    /// The first row of a table: `"first_in_data_collection"`.
    FirstInDataCollection,
    /// The last row of a table: `"last_in_data_collection"`.
    LastInDataCollection,
    /// The last row of all: `"last"`.
    Last,
}

/// The transaction block of a record.
#[derive(Clone, Copy, Debug)]
pub struct TransactionMark {
    /// Together with the xid the transaction's id.
    pub commit_lsn: Lsn,
    /// The event's number in the transaction, from 1.
    pub total_order: u64,
    /// The event's number among those of its table in the transaction, from 1.
    pub data_collection_order: u64,
}

/// Where a transaction was committed first, when it came to the source by replication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The replication origin's name.
    pub name: Arc<str>,
    /// LSN of the commit there, as far as it is known.
    pub lsn: Option<Lsn>,
}

/// What `pg_logical_emit_message` wrote.
#[derive(Clone, Copy, Debug)]
pub struct LogicalMessage<'a> {
    /// Who it is for.
    pub prefix: &'a str,
    /// What it says.
    pub content: &'a [u8],
}

/// What differs from record to record, beside the row itself.
#[derive(Clone, Copy, Debug)]
pub struct Meta<'a> {
    /// What happened.
    pub op: Op,
    /// The place in the snapshot.
    pub snapshot: SnapshotMark,
    /// Commit time (snapshot time for a read) in microseconds since 1970.
    pub committed_at: i64,
    /// The commit LSN before this transaction's; none in a snapshot.
    pub last_commit_lsn: Option<Lsn>,
    /// LSN of the row's own WAL record.
    pub lsn: Lsn,
    /// The transaction id.
    pub xid: u32,
    /// None in a snapshot.
    pub transaction: Option<TransactionMark>,
    /// None for what was committed here.
    pub origin: Option<&'a Origin>,
    /// When the reader processed the row, nanoseconds since 1970.
    pub processed_at: i64,
}

/// Which cells of an old row the record's `before` shows.
#[derive(Clone, Copy, Debug)]
pub enum Before<'a> {
    /// `null`
    None,
    /// Only the key's columns.
    Key(&'a Row),
    /// All columns (identity FULL).
    Full(&'a Row),
}

/// A record's value, borrowed from its bytes. A row is the text that begins with it; what comes after
/// its closing brace may follow.
#[derive(Debug)]
pub struct Envelope<'a> {
    /// What happened.
    pub op: Op,
    /// The old row.
    pub before: Option<&'a str>,
    /// The new row.
    pub after: Option<&'a str>,
}

/// A record's key or value that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// A column's value does not fit its type.
    #[error("column {column}")]
    Value {
        /// The column.
        column: String,
        /// What is wrong.
        source: ValueError,
    },
    /// Not the JSON of an envelope.
    #[error("reading a change envelope")]
    Json(#[from] serde_json::Error),
    /// The record holds a column that its header does not name.
    #[error("column {0} is not among the record's columns")]
    UnknownColumn(String),
    /// An update left a key column's TOAST value out of the new row; the key is in the old one.
    #[error("the new row has no value for the key column {0}: write the key from the old row")]
    UnchangedKey(String),
}

// === impl Op ===

impl Op {
    const ALL: [Self; 6] = [
        Self::Read,
        Self::Create,
        Self::Update,
        Self::Delete,
        Self::Truncate,
        Self::Message,
    ];

    /// The letter that a record has for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "r",
            Self::Create => "c",
            Self::Update => "u",
            Self::Delete => "d",
            Self::Truncate => "t",
            Self::Message => "m",
        }
    }
}

// === impl SnapshotMark ===

impl SnapshotMark {
    const fn name(self) -> &'static str {
        match self {
            Self::False => "false",
            Self::True => "true",
            Self::First => "first",
            Self::FirstInDataCollection => "first_in_data_collection",
            Self::LastInDataCollection => "last_in_data_collection",
            Self::Last => "last",
        }
    }
}

// === impl EnvelopeError ===

impl EnvelopeError {
    fn value(column: &Column, source: ValueError) -> Self {
        Self::Value {
            column: column.name.to_string(),
            source,
        }
    }
}

#[cfg(test)]
mod tests;
