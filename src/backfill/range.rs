//! A range of a table: from COPY's text to documents in the staging collection.
//!
//! - At most [`IN_FLIGHT`] blocks are under way, and one is being filled.
//! - However it ends, no insert of the range is under way any more.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use walferry_core::{Fault, Tasks};
use walferry_mongodb::{DocumentBlock, LoadTarget, Loader};
use walferry_postgres::{BlockRange, Copier, SnapshotTable};
use walferry_schema::envelope::row_image;
use walferry_schema::{Row, TableName};

use super::error::LoadError;
use crate::progress::Progress;
use crate::snapshot::Snapshot;

const READ_ROWS: usize = 2_000;
const READ_BYTES: usize = 1 << 20;
const IN_FLIGHT: usize = 2;

/// A range with all that it takes to load it.
pub(super) struct Range {
    pub(super) table: Arc<SnapshotTable>,
    pub(super) blocks: BlockRange,
    pub(super) target: Arc<LoadTarget>,
    pub(super) snapshot: Snapshot,
    pub(super) loader: Loader,
    pub(super) tasks: Tasks,
    pub(super) progress: Arc<dyn Progress>,
    pub(super) stop: CancellationToken,
}

/// How a range ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Complete,
    Stopped,
}

/// Blocks on their way, in order.
struct Inserts {
    table: TableName,
    in_flight: VecDeque<JoinHandle<Result<(), Fault>>>,
}

// === impl Range ===

impl Range {
    /// Loads the range: whether all of it, or it was told to stop.
    pub(super) async fn copy(self) -> Result<Ending, Fault> {
        let mut lease = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Ok(Ending::Stopped),
            lease = self.snapshot.lease() => lease?,
        };
        let mut inserts = Inserts {
            table: self.name().clone(),
            in_flight: VecDeque::with_capacity(IN_FLIGHT + 1),
        };
        let copied = self.pump(&mut lease.copier, &mut inserts).await;
        let inserted = inserts.drain().await;
        let ending = copied.and_then(|ending| inserted.map(|()| ending))?;
        if ending == Ending::Complete {
            lease.give_back();
        }
        Ok(ending)
    }

    async fn pump(&self, copier: &mut Copier, inserts: &mut Inserts) -> Result<Ending, Fault> {
        copier.start(&self.table, self.blocks).await?;
        let mut block = self.loader.block(self.name())?;
        loop {
            let rows = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(Ending::Stopped),
                rows = copier.next_rows(READ_ROWS, READ_BYTES) => rows?,
            };
            let Some(rows) = rows else { break };
            for row in &rows {
                self.encode(&mut block, row)?;
                if block.is_full() {
                    let full = std::mem::replace(&mut block, self.loader.block(self.name())?);
                    self.send(full, inserts).await?;
                }
            }
        }
        self.send(block, inserts).await?;
        Ok(Ending::Complete)
    }

    fn encode(&self, block: &mut DocumentBlock, row: &Row) -> Result<(), Fault> {
        let relation = self.table.relation();
        let image = row_image(&relation.columns, row).map_err(|source| LoadError::Row {
            table: relation.name.clone(),
            source,
        })?;
        Ok(block.push(&image)?)
    }

    /// Sends a block, once there is room for it.
    async fn send(&self, block: DocumentBlock, inserts: &mut Inserts) -> Result<(), Fault> {
        let (target, progress) = (Arc::clone(&self.target), Arc::clone(&self.progress));
        let (table, rows) = (self.name().clone(), block.len() as u64);
        inserts.in_flight.push_back(self.tasks.spawn(async move {
            target.insert(block).await?;
            progress.advanced(&table, rows);
            Ok(())
        }));
        while inserts.in_flight.len() > IN_FLIGHT {
            inserts.oldest().await?;
        }
        Ok(())
    }

    fn name(&self) -> &TableName {
        &self.table.relation().name
    }
}

// === impl Inserts ===

impl Inserts {
    async fn oldest(&mut self) -> Result<(), Fault> {
        let Some(insert) = self.in_flight.pop_front() else {
            return Ok(());
        };
        insert
            .await
            .unwrap_or_else(|_| Err(LoadError::lost(&self.table)))
    }

    /// Waits for every insert, whatever becomes of each.
    async fn drain(&mut self) -> Result<(), Fault> {
        let mut result = Ok(());
        while !self.in_flight.is_empty() {
            let inserted = self.oldest().await;
            result = result.and(inserted);
        }
        result
    }
}
