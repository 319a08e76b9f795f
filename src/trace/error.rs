//! Why a change cannot be followed.

use walferry_core::Fault;
use walferry_etl::PlanError;
use walferry_schema::TableName;

/// Why a change cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// One word that is no LSN.
    #[error(
        "{0:?} is no LSN such as 0/1A2B3C4; to follow a row, name its table and its key: `walferry trace \
         public.inventory 42`"
    )]
    NotAnLsn(String),
    /// There is no such table, or several.
    #[error(transparent)]
    Table(#[from] PlanError),
    /// The table's changes are not followed.
    #[error(
        "{0} is not streamed, so its changes make no journey: `walferry backfill` loads it, if its [[table]] says so"
    )]
    NotStreamed(TableName),
    /// Another number of values than the key has columns.
    #[error("the key of {table} is ({}): {found} values do not fit it", columns.join(", "))]
    KeyLength {
        /// The table.
        table: TableName,
        /// The key's columns.
        columns: Vec<String>,
        /// How many values there are.
        found: usize,
    },
    /// JSON that does not name the key's columns.
    #[error("the key of {table} is ({}): the JSON does not say {missing}", columns.join(", "))]
    KeyColumn {
        /// The table.
        table: TableName,
        /// The key's columns.
        columns: Vec<String>,
        /// The first that is missing.
        missing: String,
    },
    /// A value that the column cannot have.
    #[error("{table}, column {column}: {value:?} is no {type_name}, as PostgreSQL writes it")]
    KeyValue {
        /// The table.
        table: TableName,
        /// The column.
        column: String,
        /// Its type.
        type_name: String,
        /// The value.
        value: String,
    },
    /// The table came after the snapshot.
    #[error(
        "{0} is not part of the pipeline's generation: it came after the snapshot. `walferry run --new-snapshot` takes \
         it in"
    )]
    NotInGeneration(TableName),
    /// A signal came.
    #[error("stopped before everything was asked")]
    Stopped,
    /// A server could not be asked.
    #[error("{0}")]
    Fault(Fault),
}

// === impl TraceError ===

impl TraceError {
    /// Whether the question itself is mistaken.
    pub fn is_mistaken(&self) -> bool {
        !matches!(self, Self::Stopped | Self::Fault(_))
    }
}

impl From<Fault> for TraceError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}
