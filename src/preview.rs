//! `walferry preview`: the documents that a table's first rows become.
//!
//! - Rows are read and encoded as a load does it; nothing is written, and MongoDB is not connected to.
//! - Memory is bounded: some rows at a time, whatever their number.

use std::collections::VecDeque;

use serde::Serialize;
use walferry_core::{Class, Classify, Fault, Tasks};
use walferry_etl::Mode;
use walferry_mongodb::{DocumentBlock, ExtendedJson, Policies, Truncated};
use walferry_postgres::SnapshotTable;
use walferry_schema::envelope::{EnvelopeError, row_image};
use walferry_schema::{Row, TableName};

use crate::config::Config;
use crate::pipeline::connect::mongodb_settings;
use crate::snapshot::{Lease, Preparation, Stopped};

pub use crate::snapshot::LookError;

/// The most rows that are shown.
pub const MAX_ROWS: u32 = 1_000;
const READ_ROWS: usize = 100;
const READ_BYTES: usize = 1 << 20;

/// The first rows of a table, one after another.
pub struct Preview {
    lease: Lease,
    table: SnapshotTable,
    policies: Policies,
    tasks: Tasks,
    /// Read, and not given out yet.
    rows: VecDeque<Row>,
    given: u32,
    truncated: Truncated,
}

/// What one row becomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum PreviewedRow {
    /// It has a document.
    Document {
        /// The row's place, from 1.
        row: u32,
        /// What a load would store.
        document: ExtendedJson,
    },
    /// It cannot be carried.
    Refused {
        /// The row's place, from 1.
        row: u32,
        /// Why.
        error: String,
    },
}

/// A row whose text does not fit its type.
#[derive(Debug, thiserror::Error)]
#[error("reading a row of {table}")]
struct RowError {
    table: TableName,
    source: EnvelopeError,
}

impl Classify for RowError {
    fn class(&self) -> Class {
        Class::Poison
    }
}

// === impl Preview ===

impl Preview {
    /// Begins to read the first rows of a table, [`MAX_ROWS`] at most.
    ///
    /// # Errors
    /// When the table is neither streamed nor loaded or has no key, or PostgreSQL cannot be asked.
    pub async fn begin(
        config: &Config,
        name: &str,
        rows: u32,
        tasks: &Tasks,
    ) -> Result<Self, LookError> {
        // A lock on a table may be waited for as long as somebody holds it.
        let begun = tasks
            .stop_signal()
            .run_until_cancelled(Box::pin(begin(config, name, rows, tasks)));
        begun.await.ok_or_else(|| Fault::from(Stopped))?
    }

    /// The table.
    pub fn table(&self) -> &TableName {
        &self.table.relation().name
    }

    /// The next row; none after the last.
    ///
    /// # Errors
    /// When the connection fails, or we are told to stop.
    pub async fn next(&mut self) -> Result<Option<PreviewedRow>, Fault> {
        if self.rows.is_empty() {
            let read = self.lease.copier.next_rows(READ_ROWS, READ_BYTES);
            let stop = self.tasks.stop_signal();
            let read = stop.run_until_cancelled(read).await;
            let rows = read.ok_or_else(|| Fault::from(Stopped))??;
            self.rows = rows.unwrap_or_default().into();
        }
        let Some(row) = self.rows.pop_front() else {
            return Ok(None);
        };
        self.given += 1;
        let encoded = self.encode(&row);
        let row = self.given;
        Ok(Some(match encoded {
            Ok(document) => PreviewedRow::Document { row, document },
            Err(fault) => PreviewedRow::Refused {
                row,
                error: fault.to_string(),
            },
        }))
    }

    /// How many of the values so far lost their microseconds, by column.
    pub fn truncated(&self) -> &Truncated {
        &self.truncated
    }

    fn encode(&mut self, row: &Row) -> Result<ExtendedJson, Fault> {
        let relation = self.table.relation();
        let image = row_image(&relation.columns, row).map_err(|source| RowError {
            table: relation.name.clone(),
            source,
        })?;
        let mut block = DocumentBlock::new(&relation.name, self.policies)?;
        block.push(&image)?;
        for (column, count) in block.truncated() {
            *self.truncated.entry(column.clone()).or_default() += count;
        }
        let documents = block.documents().into_iter();
        let document = documents.map(|(_, document)| document).next();
        Ok(ExtendedJson::new(
            document.expect("a block has the document that was pushed"),
        ))
    }
}

async fn begin(
    config: &Config,
    name: &str,
    rows: u32,
    tasks: &Tasks,
) -> Result<Preview, LookError> {
    let mut preparation = Preparation::begin(config, tasks).await?;
    let chosen = preparation.choose(config, &[name.to_owned()])?;
    let (name, mode) = chosen.into_iter().next().expect("a name is one table's");
    let table = preparation.describe(&name, mode == Mode::Stream).await?;
    let mut lease = preparation.finish().lease().await?;
    let started = lease.copier.start_first(&table, rows.min(MAX_ROWS)).await;
    started.map_err(Fault::from)?;
    Ok(Preview {
        lease,
        table,
        policies: mongodb_settings(config).policies,
        tasks: tasks.clone(),
        rows: VecDeque::new(),
        given: 0,
        truncated: Truncated::new(),
    })
}
