//! The seams between the engine and its connectors.
//!
//! The engine is written against these traits only: [`Source`] (PostgreSQL), [`Log`] and
//! [`LogReader`] (Kafka, writing and reading), [`Sink`] (MongoDB). Connectors never see one another.

mod archive;
mod checkpoint;
#[cfg(feature = "fakes")]
pub mod fakes;
mod fault;
mod finding;
mod log;
mod log_reader;
mod orders;
mod record_reader;
mod sink;
mod source;
mod tasks;

pub use archive::{Archive, Fetching, Publishing, RefusedChange, WholeRecord};
pub use checkpoint::{Checkpoint, Held, PartitionOffset, PipelineState};
pub use fault::{Class, Classify, Fault};
pub use finding::{Finding, Verdict};
pub use log::{Accepted, Log, LogEntry, LogTail, Pace, Record, TopicSpec};
pub use log_reader::{Bounds, LogReader, Partition, RowRecord};
pub use orders::{
    Drifted, LetterAction, LetterChoice, LetterOrder, Order, Orders, ParkedTable, Skipped,
    SkippedChange, Unverified,
};
pub use record_reader::{ForeignRecord, RecordReader};
pub use sink::{Applied, Batch, OrderReader, RowEvent, Sink, Target};
pub use source::{
    SlotState, SnapshotChunk, SnapshotStart, Source, SourceEvent, SourceState, SourceTable, Spooled,
};
pub use tasks::Tasks;
