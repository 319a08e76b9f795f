//! One table: its ranges side by side into a staging collection, which then takes its place.
//!
//! - No insert is under way when the staging collection is dropped: it would make it anew.
//! - The first range that fails stops the others.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use walferry_core::{Fault, Tasks};
use walferry_mongodb::{LoadTarget, Loader};
use walferry_postgres::SnapshotTable;

use super::error::LoadError;
use super::range::{Ending, Range};
use crate::progress::Progress;
use crate::snapshot::Snapshot;

/// One COPY reads about this much of a table's file.
const RANGE_BYTES: u64 = 32 << 20;

/// What the load of a table needs.
pub(super) struct Load {
    pub(super) snapshot: Snapshot,
    pub(super) loader: Loader,
    pub(super) tasks: Tasks,
    pub(super) progress: Arc<dyn Progress>,
}

// === impl Load ===

impl Load {
    /// Loads the table: how many rows.
    pub(super) async fn run(&self, table: SnapshotTable) -> Result<u64, Fault> {
        let name = table.relation().name.clone();
        if self.tasks.stop_signal().is_cancelled() {
            return Err(LoadError::Stopped { table: name }.into());
        }
        let table = Arc::new(table);
        let target = Arc::new(Box::pin(self.loader.begin(&name)).await?);
        let filled = self.fill(&table, &target).await;
        let target = Arc::into_inner(target).ok_or_else(|| LoadError::lost(&name))?;
        if let Err(fault) = filled {
            if let Err(error) = Box::pin(target.abandon()).await {
                tracing::warn!(table = %name, %error, "a failed load left its staging collection");
            }
            return Err(fault);
        }
        Ok(Box::pin(target.finish()).await?)
    }

    /// Copies every range and counts.
    async fn fill(
        &self,
        table: &Arc<SnapshotTable>,
        target: &Arc<LoadTarget>,
    ) -> Result<(), Fault> {
        let name = &table.relation().name;
        let stop = self.tasks.stop_signal().child_token();
        let ranges = table.ranges(RANGE_BYTES).into_iter().map(|blocks| Range {
            table: Arc::clone(table),
            blocks,
            target: Arc::clone(target),
            snapshot: self.snapshot.clone(),
            loader: self.loader.clone(),
            tasks: self.tasks.clone(),
            progress: Arc::clone(&self.progress),
            stop: stop.clone(),
        });
        let ranges: Vec<_> = ranges.map(|range| self.tasks.spawn(copy(range))).collect();
        let lost = |_| Err(LoadError::lost(name));
        let (mut failure, mut is_stopped) = (None, false);
        for range in ranges {
            match range.await.unwrap_or_else(lost) {
                Ok(ending) => is_stopped |= ending == Ending::Stopped,
                Err(fault) => failure = failure.or(Some(fault)),
            }
        }
        // A failure stops the other ranges: it is told, not what follows from it.
        match failure {
            Some(fault) => return Err(fault),
            None if is_stopped => {
                return Err(LoadError::Stopped {
                    table: name.clone(),
                }
                .into());
            }
            None => {}
        }
        // At once: while PostgreSQL counts, a server that is killed could lose what it acknowledged.
        target.settle().await?;
        let (rows, documents) = (self.snapshot.count(table).await?, target.inserted());
        if rows != documents {
            return Err(LoadError::Count {
                table: name.clone(),
                rows,
                documents,
            }
            .into());
        }
        Ok(())
    }
}

async fn copy(range: Range) -> Result<Ending, Fault> {
    let stop: CancellationToken = range.stop.clone();
    let copied = Box::pin(range.copy()).await;
    if copied.is_err() {
        stop.cancel();
    }
    copied
}
