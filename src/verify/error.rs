//! What can go wrong with a comparison, beside what the connectors say.

use walferry_core::{Class, Classify, Fault};
use walferry_etl::PlanError;
use walferry_schema::TableName;
use walferry_schema::envelope::EnvelopeError;

/// Why nothing was compared.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Tables were named that cannot be compared.
    #[error(transparent)]
    Tables(#[from] PlanError),
    /// A server cannot be used.
    #[error("{0}")]
    Fault(Fault),
}

/// Why one table was not compared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompareError {
    /// A row's text does not fit its type.
    #[error("reading a row of {table}")]
    Row {
        /// The table.
        table: TableName,
        /// The column, and what is wrong.
        source: EnvelopeError,
    },
    /// We were told to stop.
    #[error("stopped before {table} was compared")]
    Stopped {
        /// The table.
        table: TableName,
    },
    /// We were told to stop before the first table.
    #[error("stopped before anything was compared")]
    StoppedEarly,
    /// A task died.
    #[error("comparing {table}: a task ended unexpectedly; this is a defect in walferry")]
    Lost {
        /// The table.
        table: TableName,
    },
}

// === impl VerifyError ===

impl From<Fault> for VerifyError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

// === impl CompareError ===

impl Classify for CompareError {
    fn class(&self) -> Class {
        match self {
            Self::Row { .. } => Class::Poison,
            Self::Stopped { .. } | Self::StoppedEarly => Class::Transient,
            Self::Lost { .. } => Class::Fatal,
        }
    }
}
