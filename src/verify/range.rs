//! The rows of a table as documents, range by range, and what MongoDB holds under their keys.

use std::collections::BTreeSet;
use std::sync::Arc;

use walferry_core::{Fault, Tasks};
use walferry_mongodb::{DocumentBlock, Loader, OrderBook, differences, identity, show_id};
use walferry_postgres::{BlockRange, SnapshotTable};
use walferry_schema::TableName;
use walferry_schema::envelope::row_image;

use super::error::CompareError;
use super::{Difference, DifferenceKind};
use crate::progress::Progress;
use crate::snapshot::{Lease, Snapshot};

/// One COPY reads about this much of a table's file.
const RANGE_BYTES: u64 = 32 << 20;
const READ_ROWS: usize = 2_000;
const READ_BYTES: usize = 1 << 20;

/// What it takes to read both sides.
#[derive(Clone)]
pub(super) struct Reading {
    pub(super) snapshot: Snapshot,
    pub(super) loader: Loader,
    pub(super) book: OrderBook,
    /// The rows that have dead letters: tables, as `schema.table`, and the identities of `_id`s.
    pub(super) parked: Arc<BTreeSet<(String, Vec<u8>)>>,
    /// When the comparison began, by MongoDB's clock in milliseconds since 1970.
    pub(super) since: i64,
    pub(super) tasks: Tasks,
    pub(super) progress: Arc<dyn Progress>,
}

/// What was found in the rows of a table or a range.
#[derive(Debug, Default)]
pub(super) struct Compared {
    pub(super) rows: u64,
    pub(super) different: u64,
    pub(super) missing: u64,
    /// Of these two, those that have dead letters.
    pub(super) parked: u64,
    pub(super) examples: Vec<Difference>,
}

/// The rows of a range as documents, block by block.
pub(super) struct Documents {
    lease: Lease,
    loader: Loader,
    tasks: Tasks,
    table: Arc<SnapshotTable>,
}

// === impl Reading ===

impl Reading {
    /// Notes that a table equals its source: of how many transactions that were passed over nothing is
    /// missing in it any more.
    pub(super) async fn settle(&self, table: &TableName) -> usize {
        match self.book.verified(table, self.since).await {
            Ok(settled) => settled,
            Err(error) => {
                tracing::warn!(%table, %error, "what was passed over is not noted as verified");
                0
            }
        }
    }

    /// Whether a row has dead letters.
    pub(super) fn is_parked(&self, table: &TableName, id: &[u8]) -> bool {
        !self.parked.is_empty()
            && self
                .parked
                .contains(&(table.to_string(), identity(id).into_owned()))
    }

    /// Compares every row of a table; shows up to `room` differences.
    pub(super) async fn compare(
        &self,
        table: &Arc<SnapshotTable>,
        room: usize,
    ) -> Result<Compared, Fault> {
        let ranges = table.ranges(RANGE_BYTES).into_iter().map(|range| {
            let (reading, table) = (self.clone(), Arc::clone(table));
            self.tasks
                .spawn(async move { Box::pin(reading.compare_range(table, range, room)).await })
        });
        let ranges: Vec<_> = ranges.collect();
        let mut all = Ok(Compared::default());
        for range in ranges {
            let lost = |_| {
                Err(CompareError::Lost {
                    table: name(table).clone(),
                }
                .into())
            };
            let compared = range.await.unwrap_or_else(lost);
            all = all.and_then(|all| Ok(all.and(compared?, room)));
        }
        all
    }

    /// The documents of a range, to be taken block by block.
    pub(super) async fn documents(
        &self,
        table: &Arc<SnapshotTable>,
        range: BlockRange,
    ) -> Result<Documents, Fault> {
        let mut lease = self.snapshot.lease().await?;
        lease.copier.start(table, range).await?;
        let (loader, tasks) = (self.loader.clone(), self.tasks.clone());
        Ok(Documents {
            lease,
            loader,
            tasks,
            table: Arc::clone(table),
        })
    }

    async fn compare_range(
        self,
        table: Arc<SnapshotTable>,
        range: BlockRange,
        room: usize,
    ) -> Result<Compared, Fault> {
        let mut compared = Compared::default();
        let mut documents = self.documents(&table, range).await?;
        while let Some(block) = documents.next().await? {
            let found = self.compare_block(&table, &block, room).await?;
            self.progress.advanced(name(&table), found.rows);
            compared = compared.and(found, room);
        }
        documents.give_back();
        Ok(compared)
    }

    async fn compare_block(
        &self,
        table: &SnapshotTable,
        block: &DocumentBlock,
        room: usize,
    ) -> Result<Compared, Fault> {
        let expected = block.documents();
        let ids: Vec<_> = expected.iter().map(|(id, _)| id.clone()).collect();
        let found = Box::pin(self.loader.fetch(name(table), &ids)).await?;
        let mut compared = Compared {
            rows: expected.len() as u64,
            ..Compared::default()
        };
        for (id, document) in &expected {
            let kinds = match found.get(&*identity(id)) {
                None => {
                    compared.missing += 1;
                    vec![DifferenceKind::Missing]
                }
                Some(found) => {
                    let kinds = different(document, found.as_bytes());
                    compared.different += u64::from(!kinds.is_empty());
                    kinds
                }
            };
            let is_parked = !kinds.is_empty() && self.is_parked(name(table), id);
            compared.parked += u64::from(is_parked);
            for kind in kinds {
                if compared.examples.len() < room {
                    compared.examples.push(Difference {
                        table: name(table).clone(),
                        id: show_id(id),
                        parked: is_parked,
                        kind,
                    });
                }
            }
        }
        Ok(compared)
    }
}

// === impl Compared ===

impl Compared {
    fn and(mut self, other: Self, room: usize) -> Self {
        self.rows += other.rows;
        self.different += other.different;
        self.missing += other.missing;
        self.parked += other.parked;
        self.examples.extend(other.examples);
        self.examples.truncate(room);
        self
    }
}

// === impl Documents ===

impl Documents {
    /// The next rows as documents; none after the last.
    pub(super) async fn next(&mut self) -> Result<Option<DocumentBlock>, Fault> {
        let relation = self.table.relation();
        let stop = self.tasks.stop_signal().clone();
        let rows = tokio::select! {
            biased;
            () = stop.cancelled() => {
                return Err(CompareError::Stopped { table: relation.name.clone() }.into());
            }
            rows = self.lease.copier.next_rows(READ_ROWS, READ_BYTES) => rows?,
        };
        let Some(rows) = rows else { return Ok(None) };
        let mut block = self.loader.block(&relation.name)?;
        for row in &rows {
            let image = row_image(&relation.columns, row).map_err(|source| CompareError::Row {
                table: relation.name.clone(),
                source,
            })?;
            block.push(&image)?;
        }
        Ok(Some(block))
    }

    /// Gives the connection back, after the last row.
    pub(super) fn give_back(self) {
        self.lease.give_back();
    }
}

fn different(expected: &[u8], found: &[u8]) -> Vec<DifferenceKind> {
    let fields = differences(expected, found).into_iter();
    let kind = |field: walferry_mongodb::FieldDifference| DifferenceKind::Different {
        column: field.name,
        postgres: field.expected,
        mongodb: field.found,
    };
    fields.map(kind).collect()
}

fn name(table: &SnapshotTable) -> &TableName {
    &table.relation().name
}
