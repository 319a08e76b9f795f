//! What a change is: positions, relations, rows, values, the commit log and the change envelope.
//!
//! Pure: no runtime, no I/O. Everything that crosses a process boundary (record headers, the
//! envelope, the commit log) is written and read here, so that both sides share one definition.

mod change;
mod commit_log;
mod declared;
pub mod envelope;
pub mod header;
mod large;
mod lsn;
mod modes;
mod position;
mod relation;
mod types;
mod value;

pub use change::{Cell, RowOp};
pub use change::{Change, Field, Image, Row, RowBuilder};
pub use commit_log::{
    Chunk, Commit, Generation, Heartbeat, LogFormatError, LogRecord, Open, PartitionCount,
    ServerIdentity, SnapshotEnd, TableSpec, Term,
};
pub use declared::Declared;
pub use header::{Columns, HeaderError, Oversize, Stamp};
pub use large::{Large, LargeReader, ReadAt, Spool};
pub use lsn::{Lsn, LsnError};
pub use modes::{
    BinaryMode, DecimalMode, HstoreMode, IntervalMode, Modes, SchemaMode, TimePrecision,
    TimeZoneMode, TransactionIdMode,
};
pub use position::{CommitId, CommitIdError, Phase, Position};
pub use relation::{Column, Relation, ReplicaIdentity, TableName};
pub use types::{Attribute, Type};
pub use value::calendar::civil;
pub use value::{
    Array, Bounds, Date, Instant, Interval, Literal, Parts, TimeTz, Value, ValueError, time_text,
};

/// Version of everything walferry writes for itself to read again: headers, commit log, positions.
pub const FORMAT: u32 = 1;
