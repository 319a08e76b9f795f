//! The seam to where whole records stand that were too large for the log.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use walferry_schema::Position;

use crate::Fault;

/// A record that is being fetched; none when it is no longer there.
pub type Fetching<'a> =
    Pin<Box<dyn Future<Output = Result<Option<WholeRecord>, Fault>> + Send + 'a>>;

/// Keeps whole records of changes, beside the log that has markers in their places.
pub trait Archive: fmt::Debug + Send + Sync + 'static {
    /// The record of the change at a position, held whole: whoever asks knows how large it is. When it was committed,
    /// milliseconds since 1970, says where to begin to look.
    fn record(&self, of: Position, committed_at: Option<i64>) -> Fetching<'_>;
}

/// A record as it would have stood in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeRecord {
    /// The bytes of the header [`walferry_schema::header::COLUMNS`].
    pub columns: Bytes,
    /// Its value.
    pub value: Bytes,
}
