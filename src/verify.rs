//! `walferry verify`: compares MongoDB with PostgreSQL, row by row and field by field.
//!
//! - The document that a row should be is made by the encoder of the load and the stream.
//! - A document without a row is found, and so is a row without a document.
//! - Memory is bounded: a block of rows and their documents per connection; the search for documents
//!   without a row remembers hashes of a part of the keys at a time.

mod error;
mod extra;
mod range;

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use walferry_core::{Fault, Tasks};
use walferry_etl::Mode;
use walferry_mongodb::{Loader, Naming, OrderBook};
use walferry_postgres::SnapshotTable;
use walferry_schema::TableName;

use self::error::CompareError;
use self::range::{Compared, Reading};
use crate::config::Config;
use crate::pipeline::connect::mongodb_settings;
use crate::progress::Progress;
use crate::snapshot::Preparation;

pub use self::error::VerifyError;

/// How many differences are shown.
const MAX_EXAMPLES: usize = 10;

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The tables, in name order.
    pub tables: Vec<TableReport>,
    /// Some of the differences, 10 at most.
    pub examples: Vec<Difference>,
    /// Transactions that were passed over, and of which nothing is missing any more in one of these tables.
    pub settled: usize,
}

/// What was found in one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableReport {
    /// The table.
    #[serde(serialize_with = "crate::progress::as_text")]
    pub table: TableName,
    /// Rows in PostgreSQL.
    pub rows: u64,
    /// Documents in MongoDB.
    pub documents: u64,
    /// Rows whose document differs.
    pub different: u64,
    /// Rows without a document.
    pub missing: u64,
    /// Documents without a row.
    pub extra: u64,
    /// How many of the rows that differ or have no document have dead letters.
    pub parked: u64,
    /// Why the table was not compared.
    pub error: Option<String>,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The table.
    #[serde(serialize_with = "crate::progress::as_text")]
    pub table: TableName,
    /// The document's `_id`.
    pub id: String,
    /// Whether the row has dead letters, which explain it.
    pub parked: bool,
    /// What differs.
    #[serde(flatten)]
    pub kind: DifferenceKind,
}

/// What differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum DifferenceKind {
    /// A column.
    Different {
        /// The column.
        column: String,
        /// What PostgreSQL's row makes of it; none when it has no such column.
        postgres: Option<String>,
        /// What MongoDB holds; none when it has no such field.
        mongodb: Option<String>,
    },
    /// The row has no document.
    Missing,
    /// The document has no row.
    Extra,
}

/// A table whose turn will come.
struct Described {
    name: TableName,
    /// About how many rows it has.
    rows: u64,
    table: Result<SnapshotTable, Fault>,
}

/// Compares the named tables, or all that are streamed or loaded.
///
/// # Errors
/// When a named table cannot be compared, or a server cannot be used at all; what goes wrong with
/// one table is in the report.
pub async fn run(
    config: &Config,
    names: &[String],
    tasks: &Tasks,
    progress: Arc<dyn Progress>,
) -> Result<Report, VerifyError> {
    let prepared = Box::pin(prepare(config, names, tasks, progress));
    // A lock on a table may be waited for as long as somebody holds it.
    let stopped = || Fault::from(CompareError::StoppedEarly);
    let prepared = tasks.stop_signal().run_until_cancelled(prepared).await;
    let (reading, described) = prepared.ok_or_else(stopped)??;
    let mut report = Report::default();
    for Described { name, rows, table } in described {
        reading.progress.started(&name, rows);
        let room = MAX_EXAMPLES - report.examples.len();
        let compared = match table {
            Ok(table) => Box::pin(compare(&reading, table, room)).await,
            Err(fault) => Err(fault),
        };
        let failure = compared.as_ref().err().map(ToString::to_string);
        reading.progress.ended(&name, failure.as_deref());
        let (table, examples) = compared.unwrap_or_else(|_| (TableReport::of(name), Vec::new()));
        let table = TableReport {
            error: failure,
            ..table
        };
        if table.error.is_none() && table.is_equal() {
            report.settled += reading.settle(&table.table).await;
        }
        report.tables.push(table);
        report.examples.extend(examples);
    }
    Ok(report)
}

async fn prepare(
    config: &Config,
    names: &[String],
    tasks: &Tasks,
    progress: Arc<dyn Progress>,
) -> Result<(Reading, Vec<Described>), VerifyError> {
    let book = OrderBook::connect(mongodb_settings(config)).await;
    let book = book.map_err(Fault::from)?;
    let since = book.now().await.map_err(Fault::from)?;
    let parked = Arc::new(book.parked_rows().await.map_err(Fault::from)?);
    let mut preparation = Preparation::begin(config, tasks).await?;
    let chosen = preparation.choose(config, names)?;
    let loader = Box::pin(Loader::connect(mongodb_settings(config)))
        .await
        .map_err(Fault::from)?;
    let mut tables = Vec::new();
    for (name, mode) in chosen {
        let table = preparation.describe(&name, mode == Mode::Stream).await;
        tables.push(Described {
            rows: preparation.rows(&name),
            name,
            table,
        });
    }
    let (snapshot, tasks) = (preparation.finish(), tasks.clone());
    Ok((
        Reading {
            snapshot,
            loader,
            book,
            parked,
            since,
            tasks,
            progress,
        },
        tables,
    ))
}

/// Compares one table, and shows up to `room` differences.
async fn compare(
    reading: &Reading,
    table: SnapshotTable,
    room: usize,
) -> Result<(TableReport, Vec<Difference>), Fault> {
    let table = Arc::new(table);
    let name = &table.relation().name;
    let collection = Naming.collection(name)?;
    let Compared {
        rows,
        different,
        missing,
        parked,
        mut examples,
    } = reading.compare(&table, room).await?;
    let documents = Box::pin(reading.loader.count(&collection)).await?;
    // Every row with a document has one of its own; what is left over has no row.
    let extra = documents.saturating_sub(rows - missing);
    let left = room.saturating_sub(examples.len());
    let wanted = left.min(usize::try_from(extra).unwrap_or(left));
    examples.extend(extra::find(reading, &table, rows, wanted).await?);
    let report = TableReport {
        rows,
        documents,
        different,
        missing,
        extra,
        parked,
        ..TableReport::of(name.clone())
    };
    Ok((report, examples))
}

// === impl Report ===

impl Report {
    /// Whether every table could be compared.
    pub fn is_complete(&self) -> bool {
        self.tables.iter().all(|table| table.error.is_none())
    }

    /// Whether nothing differs in what was compared.
    pub fn is_equal(&self) -> bool {
        self.tables.iter().all(TableReport::is_equal)
    }
}

// === impl TableReport ===

impl TableReport {
    /// Whether the table's documents are its rows.
    pub fn is_equal(&self) -> bool {
        (self.different, self.missing, self.extra) == (0, 0, 0)
    }

    fn of(table: TableName) -> Self {
        Self {
            table,
            rows: 0,
            documents: 0,
            different: 0,
            missing: 0,
            extra: 0,
            parked: 0,
            error: None,
        }
    }
}

// === impl Difference ===

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            table,
            id,
            parked,
            kind,
        } = self;
        write!(f, "{table}, _id {id}: ")?;
        if *parked {
            f.write_str("it has dead letters: ")?;
        }
        let shown = |side: &Option<String>| side.clone().unwrap_or_else(|| "nothing".to_owned());
        match kind {
            DifferenceKind::Missing => f.write_str("no document"),
            DifferenceKind::Extra => f.write_str("no row"),
            DifferenceKind::Different {
                column,
                postgres,
                mongodb,
            } => {
                let (postgres, mongodb) = (shown(postgres), shown(mongodb));
                write!(f, "{column} should be {postgres}, is {mongodb}")
            }
        }
    }
}
