//! What can end a sink.

use walferry_core::{Class, Classify, Fault};
use walferry_schema::{CommitId, HeaderError, TableName, envelope::EnvelopeError};

use crate::capture::CaptureError;
use crate::debezium::error::DebeziumError;
use crate::merge::MergeError;

/// Why the sink stopped.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A connector failed.
    #[error("{0}")]
    Connector(Fault),
    /// The log cannot be followed.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// The source cannot be followed.
    #[error(transparent)]
    Source(#[from] CaptureError),
    /// A record of Debezium's cannot be applied.
    #[error(transparent)]
    Debezium(#[from] DebeziumError),
    /// A record's headers are not understood.
    #[error("table {table}, record at {at}")]
    Header {
        /// The table.
        table: TableName,
        /// The record's stamp.
        at: String,
        /// What is wrong.
        source: HeaderError,
    },
    /// A record's key or value is not understood.
    #[error("table {table}, record at {at}")]
    Record {
        /// The table.
        table: TableName,
        /// The record's stamp.
        at: String,
        /// What is wrong.
        source: EnvelopeError,
    },
    /// A record that lacks a part which its kind always has.
    #[error(
        "table {table}, record at {at}: {missing} is missing; was it written by something else than \
         walferry?"
    )]
    Malformed {
        /// The table.
        table: TableName,
        /// The record's stamp.
        at: String,
        /// What is missing.
        missing: &'static str,
    },
    /// A change that cannot be applied, as it is.
    #[error(
        "{error}; or pass over its whole transaction, which is kept aside: walferry skip --commit {}",
        commit.map_or("GENERATION/LSN, as named above".to_owned(), |commit| commit.to_string())
    )]
    Stuck {
        /// Its transaction, where the error does not name it.
        commit: Option<CommitId>,
        /// Why.
        error: Box<Self>,
    },
    /// The task that wrote a group ended without saying how.
    #[error("the task that wrote to MongoDB ended unexpectedly; this is a defect in walferry")]
    Lost,
}

// === impl ApplyError ===

impl ApplyError {
    /// Names the way past a transaction that cannot be applied.
    pub(super) fn with_way_past(self, commit: Option<CommitId>) -> Self {
        if self.class() != Class::Poison {
            return self;
        }
        Self::Stuck {
            commit,
            error: Box::new(self),
        }
    }
}

impl Classify for ApplyError {
    fn class(&self) -> Class {
        match self {
            Self::Connector(fault) => fault.class(),
            Self::Merge(error) => error.class(),
            Self::Source(error) => error.class(),
            Self::Debezium(error) => error.class(),
            Self::Stuck { error, .. } => error.class(),
            Self::Header { .. } | Self::Record { .. } | Self::Malformed { .. } => Class::Poison,
            Self::Lost => Class::Fatal,
        }
    }
}

impl From<Fault> for ApplyError {
    fn from(fault: Fault) -> Self {
        Self::Connector(fault)
    }
}
