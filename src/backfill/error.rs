//! What can go wrong with a batch load, beside what the connectors say.

use walferry_core::{Class, Classify, Fault};
use walferry_etl::PlanError;
use walferry_schema::TableName;
use walferry_schema::envelope::EnvelopeError;

/// Why nothing was loaded.
#[derive(Debug, thiserror::Error)]
pub enum BackfillError {
    /// Tables were named that cannot be loaded.
    #[error(transparent)]
    Tables(#[from] PlanError),
    /// A server cannot be used.
    #[error("{0}")]
    Fault(Fault),
}

/// Why one table was not loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// A row's text does not fit its type.
    #[error("reading a row of {table}")]
    Row {
        /// The table.
        table: TableName,
        /// The column, and what is wrong.
        source: EnvelopeError,
    },
    /// The counts differ.
    #[error("{table} has {rows} rows, but {documents} documents were loaded: load it again")]
    Count {
        /// The table.
        table: TableName,
        /// Rows in the snapshot.
        rows: u64,
        /// Documents in the staging collection.
        documents: u64,
    },
    /// We were told to stop.
    #[error("stopped before {table} was done: load it again")]
    Stopped {
        /// The table.
        table: TableName,
    },
    /// We were told to stop before the first table.
    #[error("stopped before anything was loaded")]
    StoppedEarly,
    /// A task died.
    #[error("loading {table}: a task ended unexpectedly; this is a defect in walferry")]
    Lost {
        /// The table.
        table: TableName,
    },
}

// === impl BackfillError ===

impl From<Fault> for BackfillError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

// === impl LoadError ===

impl LoadError {
    /// A task of this table's load died.
    pub(super) fn lost(table: &TableName) -> Fault {
        let table = table.clone();
        Self::Lost { table }.into()
    }
}

impl Classify for LoadError {
    fn class(&self) -> Class {
        match self {
            Self::Row { .. } => Class::Poison,
            Self::Count { .. } | Self::Stopped { .. } | Self::StoppedEarly => Class::Transient,
            Self::Lost { .. } => Class::Fatal,
        }
    }
}
