//! PostgreSQL as a source: the replication link, `pgoutput`, slots, snapshots, COPY.
//!
//! - The stream's text and a snapshot's text of one value are the same bytes: both connections have the same settings.
//! - Keys, columns and types of the stream come from its Relation messages; the catalog is asked only for the names of
//!   types that are not built in.
//! - Whatever the server sends gives events or an error, never a panic.

mod assembler;
mod catalog;
pub mod copy_text;
mod endpoint;
mod error;
mod examine;
pub mod identifier;
mod key;
mod large;
mod link;
mod monitor;
pub mod pgoutput;
mod settings;
mod snapshot;
mod source;
mod sql;
mod stream;
mod streaming;
mod survey;
mod transport;

pub use error::{Error, Result, ServerError, TlsError};
pub use examine::{Examined, TableUse, examine};
pub use large::examine_spool;
pub use link::FrameError;
pub use monitor::{SlotMonitor, SlotReport, SlotUse};
pub use settings::Settings;
pub use snapshot::{BlockRange, Copier, LeftOutColumn, ListedTable, SnapshotReader, SnapshotTable};
pub use source::ReplicationSource;
pub use survey::{Survey, Surveyed, survey};
