//! The seam to the database whose log is read.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use walferry_schema::envelope::Origin;
use walferry_schema::{Change, Declared, Lsn, Relation, Row, ServerIdentity, TableName};

use crate::Fault;

/// A database with a logical replication slot.
///
/// The order of calls is the protocol's: [`inspect`](Self::inspect); for a new generation
/// [`create_slot`](Self::create_slot) and [`next_chunk`](Self::next_chunk) to the end; then
/// [`start`](Self::start) and [`next`](Self::next). After any error the source is started again
/// from [`inspect`](Self::inspect): that is a new term.
pub trait Source: Send {
    /// The server and the slot as they are now; drops whatever link was open.
    fn inspect(&mut self) -> impl Future<Output = Result<SourceState, Fault>> + Send;

    /// The tables of the publication as they are now, with their keys, in name order.
    ///
    /// # Errors
    /// Fatal when the publication does not exist or does not publish every operation.
    fn tables(&mut self) -> impl Future<Output = Result<Vec<SourceTable>, Fault>> + Send;

    /// Tells which columns identify a table's rows for the whole generation: the relations that
    /// follow carry them as their keys, and a relation that lacks one of them is an error.
    fn set_keys(&mut self, keys: &[(TableName, Vec<String>)]);

    /// How the columns of the table of this number are declared now; nothing where that is not known.
    ///
    /// # Errors
    /// When the server cannot be asked.
    fn declared(
        &mut self,
        _table: u32,
    ) -> impl Future<Output = Result<Vec<Declared>, Fault>> + Send {
        std::future::ready(Ok(Vec::new()))
    }

    /// Drops the slot if it is there, makes it anew and exports its snapshot, which stays readable
    /// through [`next_chunk`](Self::next_chunk) until [`start`](Self::start).
    fn create_slot(
        &mut self,
        tables: &[TableName],
    ) -> impl Future<Output = Result<SnapshotStart, Fault>> + Send;

    /// The next rows of the snapshot, table after table in the order given; `None` after the last.
    ///
    /// # Cancel safety
    /// Cancel safe: no chunk is lost.
    fn next_chunk(&mut self) -> impl Future<Output = Result<Option<SnapshotChunk>, Fault>> + Send;

    /// Owns the slot (`START_REPLICATION`) and only then reads and returns its confirmed LSN.
    ///
    /// # Errors
    /// Fatal when another process owns the slot; transient when that may be what is left of our own
    /// broken connection.
    fn start(&mut self) -> impl Future<Output = Result<Lsn, Fault>> + Send;

    /// The next event.
    ///
    /// # Cancel safety
    /// Cancel safe: no event is lost.
    fn next(&mut self) -> impl Future<Output = Result<SourceEvent, Fault>> + Send;

    /// The next event if it is already here; saves the hot path from suspending per row.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    fn buffered(&mut self) -> Result<Option<SourceEvent>, Fault>;

    /// What is kept here of transactions that have not committed yet; none when the server keeps them.
    fn spooled(&self) -> Option<Spooled> {
        None
    }

    /// Tells the server that everything before `lsn` is safe downstream. Never falls: an `lsn`
    /// below an earlier one repeats that. Also the keepalive that answers the server's.
    ///
    /// # Errors
    /// Transient when the connection broke, or what keeps other readers away is lost.
    fn confirm(&mut self, lsn: Lsn) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Ends the stream in order, so that the server frees the slot at once. Other readers are kept
    /// away until the source is dropped.
    fn stop(&mut self) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// The source server, and the slot if there is one.
#[derive(Clone, Debug)]
pub struct SourceState {
    /// Which server this is.
    pub server: ServerIdentity,
    /// How far the server's log is durable.
    pub flush_lsn: Lsn,
    /// The pipeline's slot, none when it does not exist.
    pub slot: Option<SlotState>,
    /// The database that the slot reads.
    pub database: String,
}

/// A replication slot.
#[derive(Clone, Copy, Debug)]
pub struct SlotState {
    /// Where `START_REPLICATION` would begin.
    pub confirmed_lsn: Lsn,
    /// Whether a process owns it now.
    pub is_active: bool,
    /// Whether the server has removed log that the slot still needed: it is of no more use.
    pub is_lost: bool,
}

/// A table of the publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceTable {
    /// The table.
    pub name: TableName,
    /// The server's number for the table: another one is another table, whatever its name.
    pub oid: u32,
    /// The columns that identify a row, in key order: the primary key's, or the replica identity
    /// index's where that is chosen; empty when there is neither, or when it is deferrable.
    pub key: Vec<String>,
    /// The name of a deferrable primary key: inside a transaction two rows may have the same key,
    /// so that the order of its changes does not say which document is which.
    pub deferrable_key: Option<String>,
}

/// A slot that was just made.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotStart {
    /// Where the stream will begin; the snapshot shows exactly what is before it.
    pub consistent_lsn: Lsn,
    /// When the snapshot was taken, microseconds since 1970.
    pub taken_at: i64,
}

/// Transactions in progress that a source keeps on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spooled {
    /// How many.
    pub transactions: u64,
    /// What they take.
    pub bytes: u64,
}

/// Some rows of one table of the snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotChunk {
    /// The table's version.
    pub relation: Arc<Relation>,
    /// The rows.
    pub rows: Vec<Row>,
}

/// What the stream says next.
#[derive(Clone, Debug)]
pub enum SourceEvent {
    /// A transaction begins; everything up to its commit belongs to it.
    Begin {
        /// PostgreSQL's transaction id.
        xid: u32,
        /// LSN of the commit record.
        commit_lsn: Lsn,
        /// Microseconds since 1970.
        committed_at: i64,
    },
    /// The open transaction came here by replication; before its first change.
    Origin(Origin),
    /// A change of the transaction.
    Change {
        /// LSN of the change's own WAL record.
        lsn: Lsn,
        /// The first of the ordinals that the change owns (protocol rule 2): `2k`; the change's
        /// other half has the next; relation *i* of a truncate has `2(k + i)`.
        ordinal: u64,
        /// The change.
        change: Change,
    },
    /// A logical message, inside a transaction or alone.
    Message {
        /// LSN of the message.
        lsn: Lsn,
        /// Whether it belongs to the open transaction.
        is_transactional: bool,
        /// Who it is for.
        prefix: String,
        /// What it says.
        content: Bytes,
    },
    /// The transaction ends.
    Commit {
        /// LSN of the commit record: identity.
        commit_lsn: Lsn,
        /// LSN after it: what the slot may be confirmed to.
        end_lsn: Lsn,
    },
    /// Nothing to send: the server has decoded up to here.
    Keepalive {
        /// Everything of interest before this has been sent.
        lsn: Lsn,
        /// Whether the server wants an answer now.
        wants_reply: bool,
    },
}
