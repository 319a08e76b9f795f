//! `walferry backfill`: loads whole tables, beside the stream.
//!
//! - All tables are read from one snapshot.
//! - Readers never see half a load: a table's staging collection takes the place of its collection
//!   at once, when its count is the snapshot's.
//! - A load that fails leaves the collection as it was, and the other tables go on.
//! - Memory is bounded: a few blocks per connection, whatever the size of a table.

mod error;
mod range;
mod table;

use std::sync::Arc;
use std::time::Instant;

use futures_util::{StreamExt, stream};
use serde::Serialize;
use tracing::field::Empty;
use walferry_core::{Fault, Tasks};
use walferry_etl::{Mode, Plan};
use walferry_mongodb::{Loader, Naming};
use walferry_postgres::{ListedTable, SnapshotTable};
use walferry_schema::TableName;

use self::error::LoadError;
use self::table::Load;
use crate::config::Config;
use crate::pipeline::connect::mongodb_settings;
use crate::progress::Progress;
use crate::snapshot::{Preparation, Snapshot};
use crate::traces;

pub use self::error::BackfillError;

/// What became of a batch load.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The tables, biggest first.
    pub tables: Vec<TableLoad>,
    /// Rows of all tables that were loaded.
    pub rows: u64,
    /// How long all of it took.
    pub seconds: f64,
    /// Rows per second over all of it.
    pub rows_per_second: u64,
}

/// What became of one table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableLoad {
    /// The table.
    #[serde(serialize_with = "crate::progress::as_text")]
    pub table: TableName,
    /// How many rows were loaded; 0 when it failed.
    pub rows: u64,
    /// How long it took.
    pub seconds: f64,
    /// Why it was not loaded.
    pub error: Option<String>,
}

/// What a load begins with.
struct Prepared {
    snapshot: Snapshot,
    loader: Loader,
    tables: Vec<Described>,
}

/// A table whose turn will come.
struct Described {
    name: TableName,
    /// About how many rows it has.
    rows: u64,
    table: Result<SnapshotTable, Fault>,
}

/// Loads the named tables, or all batch tables.
///
/// # Errors
/// When a named table cannot be loaded, or a server cannot be used at all; what goes wrong with one
/// table is in the summary.
pub async fn run(
    config: &Config,
    names: &[String],
    tasks: &Tasks,
    progress: Arc<dyn Progress>,
) -> Result<Summary, BackfillError> {
    let since = Instant::now();
    let prepared = Box::pin(prepare(config, names, tasks));
    // A lock on a table may be waited for as long as somebody holds it.
    let stopped = || Fault::from(LoadError::StoppedEarly);
    let prepared = tasks.stop_signal().run_until_cancelled(prepared).await;
    let Prepared {
        snapshot,
        loader,
        tables,
    } = prepared.ok_or_else(stopped)??;
    let load = |Described { name, rows, table }: Described| {
        let load = Load {
            snapshot: snapshot.clone(),
            loader: loader.clone(),
            tasks: tasks.clone(),
            progress: Arc::clone(&progress),
        };
        async move {
            let since = Instant::now();
            load.progress.started(&name, rows);
            let span = traces::span!("backfill", table = %name, rows = Empty);
            let work = async {
                match table {
                    Ok(table) => Box::pin(load.run(table)).await,
                    Err(fault) => Err(fault),
                }
            };
            let result = traces::within(span.clone(), work).await;
            if let Ok(rows) = result {
                span.record("rows", rows);
            }
            let error = result.as_ref().err().map(ToString::to_string);
            load.progress.ended(&name, error.as_deref());
            let (rows, seconds) = (result.unwrap_or(0), since.elapsed().as_secs_f64());
            TableLoad {
                table: name,
                rows,
                seconds,
                error,
            }
        }
    };
    // As many tables at once as there are connections: their ranges share these in turn.
    let at_once = config.source.copy_connections;
    let tables = stream::iter(tables.into_iter().map(load))
        .buffered(at_once)
        .collect()
        .await;
    Ok(Summary::new(tables, since.elapsed().as_secs_f64()))
}

async fn prepare(
    config: &Config,
    names: &[String],
    tasks: &Tasks,
) -> Result<Prepared, BackfillError> {
    let mut preparation = Preparation::begin(config, tasks).await?;
    let plan = Plan::new(&config.tables, &preparation.candidates(), names)?;
    // Streamed tables are checked too: their collections are as much in the way.
    let is_ours = |table: &&ListedTable| {
        config.tables.mode(&table.name) != Mode::Ignore && !table.is_partition
    };
    let ours = preparation
        .listed()
        .iter()
        .filter(is_ours)
        .map(|table| &table.name);
    Naming.check(ours).map_err(Fault::from)?;
    let loader = Box::pin(Loader::connect(mongodb_settings(config)))
        .await
        .map_err(Fault::from)?;
    let mut tables = Vec::new();
    for name in plan.tables() {
        let table = preparation.describe(name, false).await;
        tables.push(Described {
            name: name.clone(),
            rows: preparation.rows(name),
            table,
        });
    }
    Ok(Prepared {
        snapshot: preparation.finish(),
        loader,
        tables,
    })
}

// === impl Summary ===

impl Summary {
    fn new(tables: Vec<TableLoad>, seconds: f64) -> Self {
        let rows = tables.iter().map(|load| load.rows).sum();
        Self {
            tables,
            rows,
            seconds,
            rows_per_second: rows_per_second(rows, seconds),
        }
    }

    /// Whether every table was loaded.
    pub fn is_complete(&self) -> bool {
        self.tables.iter().all(|load| load.error.is_none())
    }
}

/// A rate in whole rows; of an instant, the rows themselves.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a rate for people: what does not fit saturates, and no rate is negative"
)]
pub(crate) fn rows_per_second(rows: u64, seconds: f64) -> u64 {
    if seconds > 0.0 {
        (rows as f64 / seconds) as u64
    } else {
        rows
    }
}
