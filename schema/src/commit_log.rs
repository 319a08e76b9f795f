//! The records of the commit log, the reader's only durable state and the sink's order.
//!
//! - Every record carries a format version; a reader refuses versions it does not know.
//! - Terms compare as (generation, number).

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{FORMAT, Lsn, TableName};

/// One `START_REPLICATION` (protocol rule 3): its generation, then the log offset of its `open`.
///
/// The snapshot of a generation is a term too, numbered by the offset of the `generation` record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Term {
    /// The generation that the term belongs to.
    pub generation: u64,
    /// The log offset of the record that began the term.
    pub number: i64,
}

impl Term {
    /// What the first term of a log follows.
    pub const NONE: Self = Self {
        generation: 0,
        number: -1,
    };
}

/// A record of the commit log, without its offset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LogRecord {
    /// A new generation begins; written before its slot is made, and begins the snapshot's term.
    Generation(Generation),
    /// A reader owns the slot; voids every record of older terms that follows it.
    Open(Open),
    /// A source transaction, written after its rows.
    Commit(Commit),
    /// A snapshot chunk, written after its rows.
    Chunk(Chunk),
    /// Every chunk of the snapshot is in the log.
    SnapshotEnd(SnapshotEnd),
    /// Nothing of interest happened up to an LSN.
    Heartbeat(Heartbeat),
}

/// See [`LogRecord::Generation`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// The new generation: above every earlier one, and at least the Unix time in milliseconds.
    pub generation: u64,
    /// The number of the newest term that the writer saw: see [`Open::follows`].
    pub follows: i64,
    /// The server whose log its LSNs refer to.
    pub server: ServerIdentity,
    /// The slot that is about to be made.
    pub slot: String,
    /// The tables that the snapshot will hold; no other table is streamed in this generation.
    pub tables: Vec<TableSpec>,
}

/// See [`LogRecord::Open`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The generation that goes on.
    pub generation: u64,
    /// The number of the newest term that the writer saw. The record takes effect only while that
    /// one is the newest: a request of a dead reader that arrives late does not.
    pub follows: i64,
    /// The slot's confirmed LSN when it was owned.
    pub start_lsn: Lsn,
    /// The server that the slot lives on.
    pub server: ServerIdentity,
    /// The generation's tables again, so that the log's tail is enough to go on.
    pub tables: Vec<TableSpec>,
    /// Whether the pipeline came from direct mode: everything before `start_lsn` is applied, though
    /// the log does not hold it (rule 20).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moved: bool,
}

/// See [`LogRecord::Commit`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The term of the writer.
    pub term: Term,
    /// PostgreSQL's transaction id.
    pub xid: u32,
    /// LSN of the commit record: the transaction's identity.
    pub commit_lsn: Lsn,
    /// LSN after the commit record: what the slot is confirmed to. Feedback only.
    pub end_lsn: Lsn,
    /// Microseconds since 1970, UTC.
    pub committed_at: i64,
    /// How many records stand in which partition, tombstones counted.
    pub records: Vec<PartitionCount>,
    /// How far the log covered the source before this record: a reader that has not come so far
    /// misses records. Zero when not told.
    #[serde(default)]
    pub after: Lsn,
}

/// See [`LogRecord::Chunk`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The snapshot's term.
    pub term: Term,
    /// The chunk's number, from 0 over all tables.
    pub chunk: u64,
    /// The table that the rows belong to.
    pub table: TableName,
    /// How many records stand in which partition.
    pub records: Vec<PartitionCount>,
}

/// See [`LogRecord::SnapshotEnd`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotEnd {
    /// The snapshot's term.
    pub term: Term,
    /// The slot's consistent point: where the stream goes on.
    pub lsn: Lsn,
    /// The tables whose snapshot is complete.
    pub tables: Vec<TableName>,
    /// How many chunks it has; none when not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunks: Option<u64>,
}

/// See [`LogRecord::Heartbeat`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The term of the writer.
    pub term: Term,
    /// Everything of interest before this LSN is in the log.
    pub lsn: Lsn,
    /// See [`Commit::after`].
    #[serde(default)]
    pub after: Lsn,
}

/// A number of records of one partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PartitionCount {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition within the topic.
    pub partition: i32,
    /// The number of records.
    pub count: u64,
}

/// Which server an LSN refers to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerIdentity {
    /// `IDENTIFY_SYSTEM`'s system identifier.
    pub system_id: String,
    /// The timeline that the server writes.
    pub timeline: u32,
}

/// A streamed table of a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSpec {
    /// The table.
    #[serde(flatten)]
    pub name: TableName,
    /// PostgreSQL's object id of the table: another one under the same name is another table.
    pub oid: u32,
    /// The columns of `_id`, in key order; chosen once, for the whole generation.
    pub key: Vec<String>,
    /// The topic that carries the table's rows.
    pub topic: Arc<str>,
    /// How many partitions the topic has.
    pub partitions: i32,
}

/// A record of the commit log that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogFormatError {
    /// Not the JSON of a log record.
    #[error("reading a commit log record")]
    Json(#[from] serde_json::Error),
    /// Written by a walferry whose format this one does not know.
    #[error("commit log record of format {found}, this walferry reads format {FORMAT}: upgrade it")]
    Format {
        /// The record's format.
        found: u32,
    },
    /// Of a kind that this format does not have.
    #[error("commit log record of the kind {found:?}, which format {FORMAT} does not have")]
    Kind {
        /// The record's kind.
        found: String,
    },
}

#[derive(Serialize)]
struct Versioned<'a> {
    format: u32,
    #[serde(flatten)]
    record: &'a LogRecord,
}

/// What tells how to read the rest.
#[derive(Deserialize)]
struct Head<'a> {
    format: u32,
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
}

// === impl LogRecord ===

impl LogRecord {
    /// The record as it stands on Kafka.
    ///
    /// # Panics
    /// Never: these types always serialize.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&Versioned {
            format: FORMAT,
            record: self,
        })
        .expect("a log record has string keys only")
    }

    /// The record that `bytes` hold.
    ///
    /// # Errors
    /// When the bytes are no log record, or one of another format version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, LogFormatError> {
        let Head { format, kind } = serde_json::from_slice(bytes)?;
        if format != FORMAT {
            return Err(LogFormatError::Format { found: format });
        }
        // One after the other: an enum that is tagged within would copy each record before it is read,
        // and there is one for each transaction.
        Ok(match &*kind {
            "generation" => Self::Generation(serde_json::from_slice(bytes)?),
            "open" => Self::Open(serde_json::from_slice(bytes)?),
            "commit" => Self::Commit(serde_json::from_slice(bytes)?),
            "chunk" => Self::Chunk(serde_json::from_slice(bytes)?),
            "snapshot_end" => Self::SnapshotEnd(serde_json::from_slice(bytes)?),
            "heartbeat" => Self::Heartbeat(serde_json::from_slice(bytes)?),
            found => {
                return Err(LogFormatError::Kind {
                    found: found.to_owned(),
                });
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples() -> Vec<LogRecord> {
        let term = Term {
            generation: 1_795_199_030,
            number: 12,
        };
        let server = ServerIdentity {
            system_id: "7312".into(),
            timeline: 1,
        };
        let table = TableSpec {
            name: TableName::new("public", "t"),
            oid: 16_384,
            key: vec!["id".into()],
            topic: "p.public.t".into(),
            partitions: 1,
        };
        let records = vec![PartitionCount {
            topic: table.topic.clone(),
            partition: 0,
            count: 3,
        }];
        let (commit_lsn, end_lsn) = (Lsn(0x16_0000_0001), Lsn(0x16_0000_0031));
        vec![
            LogRecord::Generation(Generation {
                generation: 1_795_199_030,
                follows: -1,
                server: server.clone(),
                slot: "s".into(),
                tables: vec![table.clone()],
            }),
            LogRecord::Open(Open {
                generation: 1_795_199_030,
                follows: 12,
                start_lsn: end_lsn,
                server,
                tables: vec![table.clone()],
                moved: false,
            }),
            LogRecord::Commit(Commit {
                after: end_lsn,
                term,
                xid: u32::MAX,
                commit_lsn,
                end_lsn,
                committed_at: -1,
                records: records.clone(),
            }),
            LogRecord::Chunk(Chunk {
                term,
                chunk: 0,
                table: table.name.clone(),
                records,
            }),
            LogRecord::SnapshotEnd(SnapshotEnd {
                chunks: Some(2),
                term,
                lsn: end_lsn,
                tables: vec![table.name],
            }),
            LogRecord::Heartbeat(Heartbeat {
                term,
                lsn: end_lsn,
                after: end_lsn,
            }),
        ]
    }

    #[test]
    fn every_kind_round_trips() {
        for record in examples() {
            assert_eq!(LogRecord::from_bytes(&record.to_bytes()).ok(), Some(record));
        }
    }

    #[test]
    fn another_format_is_refused_by_name() {
        let bytes = br#"{"format":2,"kind":"hologram"}"#;
        let error = LogRecord::from_bytes(bytes).expect_err("a format of the future");
        assert!(matches!(error, LogFormatError::Format { found: 2 }));
    }

    #[test]
    fn an_unknown_kind_is_refused_by_name() {
        let bytes = br#"{"format":1,"kind":"hologram"}"#;
        let error = LogRecord::from_bytes(bytes).expect_err("no such kind");
        assert!(error.to_string().contains("hologram"), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_an_error_and_never_a_panic(bytes: Vec<u8>) {
            proptest::prop_assert!(LogRecord::from_bytes(&bytes).is_err());
        }
    }
}
