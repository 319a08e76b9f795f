//! What a change is: positions, relations, rows, values, the commit log and the change envelope.
//!
//! Pure: no runtime, no I/O. Everything that crosses a process boundary (record headers, the
//! envelope, the commit log) is written and read here, so that both sides share one definition.

mod change;
mod commit_log;
pub mod envelope;
pub mod header;
mod lsn;
mod position;
mod relation;
mod value;

pub use change::{Cell, RowOp};
pub use change::{Change, Field, Image, Row, RowBuilder};
pub use commit_log::{
    Chunk, Commit, Generation, Heartbeat, LogFormatError, LogRecord, Open, PartitionCount,
    ServerIdentity, SnapshotEnd, TableSpec, Term,
};
pub use header::{Columns, HeaderError, Stamp};
pub use lsn::{Lsn, LsnError};
pub use position::{CommitId, CommitIdError, Phase, Position};
pub use relation::{Column, Relation, ReplicaIdentity, TableName, Type};
pub use value::calendar::civil;
pub use value::{Date, Instant, Value, ValueError};

/// Version of everything walferry writes for itself to read again: headers, commit log, positions.
pub const FORMAT: u32 = 1;
