//! The seam to the dead letters that stand beside the log: whole records that were too large for it, and what the target
//! refused.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use walferry_schema::Position;

use crate::Fault;

/// A record that is being fetched; none when it is no longer there.
pub type Fetching<'a> =
    Pin<Box<dyn Future<Output = Result<Option<WholeRecord>, Fault>> + Send + 'a>>;

/// A refused change that is being published.
pub type Publishing<'a> = Pin<Box<dyn Future<Output = Result<(), Fault>> + Send + 'a>>;

/// Keeps whole records of changes, beside the log that has markers in their places.
pub trait Archive: fmt::Debug + Send + Sync + 'static {
    /// The record of the change at a position, held whole: whoever asks knows how large it is. When it was committed,
    /// milliseconds since 1970, says where to begin to look.
    fn record(&self, of: Position, committed_at: Option<i64>) -> Fetching<'_>;

    /// Publishes a change that the target refused, for whoever follows dead letters elsewhere. Done before the target
    /// records it: each is there at least once.
    fn publish(&self, refused: RefusedChange) -> Publishing<'_>;
}

/// A change that the target refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedChange {
    /// The dead letter's name, which tells the position: `<generation>/<commit lsn>/<ordinal>`.
    pub letter: String,
    /// The table, `schema.table`.
    pub table: String,
    /// Why the target refused it.
    pub error: String,
    /// The row's key in the target, as JSON.
    pub key: Vec<u8>,
    /// What the change says, as JSON.
    pub value: Vec<u8>,
}

/// A record as it would have stood in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeRecord {
    /// The bytes of the header [`walferry_schema::header::COLUMNS`].
    pub columns: Bytes,
    /// Its value.
    pub value: Bytes,
}
