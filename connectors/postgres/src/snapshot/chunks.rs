//! The chunks of a new slot's snapshot: several copiers at work, their rows in table order.
//!
//! - At most a few chunks per copier are in memory: a copier that is ahead waits.
//! - A chunk is never lost in silence: each range is counted when its copier has finished it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::AbortHandle;
use walferry_core::{SnapshotChunk, Tasks};
use walferry_schema::TableName;

use super::{BlockRange, Copier, SnapshotReader, SnapshotTable};
use crate::error::{Error, Result};

/// One COPY reads about this much of a table's file.
const RANGE_BYTES: u64 = 32 * 1024 * 1024;
/// Chunks of one table that wait to be taken.
const WAITING_CHUNKS: usize = 2;

/// How large a chunk may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkLimits {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

/// The snapshot's chunks; stops its copiers when dropped.
pub(crate) struct SnapshotChunks {
    tables: VecDeque<TableChunks>,
    copiers: Vec<AbortHandle>,
    /// Holds the locks.
    _reader: SnapshotReader,
}

struct TableChunks {
    table: TableName,
    parts: Receiver<Result<Part>>,
    ranges_left: usize,
}

enum Part {
    Chunk(SnapshotChunk),
    RangeEnd,
}

struct Range {
    table: Arc<SnapshotTable>,
    blocks: BlockRange,
    parts: Sender<Result<Part>>,
}

/// The ranges that no copier has begun.
type Queue = Arc<Mutex<VecDeque<Range>>>;

// === impl SnapshotChunks ===

impl SnapshotChunks {
    /// Starts to read the tables, one after another, with as many tasks as there are copiers.
    pub(crate) fn start(
        reader: SnapshotReader,
        tables: Vec<SnapshotTable>,
        copiers: Vec<Copier>,
        limits: ChunkLimits,
        tasks: &Tasks,
    ) -> Self {
        let mut ranges = VecDeque::new();
        let tables = tables
            .into_iter()
            .map(|table| queue(table, &mut ranges))
            .collect();
        let ranges = Arc::new(Mutex::new(ranges));
        let copier = |copier| {
            tasks
                .spawn(copy_ranges(copier, Arc::clone(&ranges), limits))
                .abort_handle()
        };
        Self {
            tables,
            copiers: copiers.into_iter().map(copier).collect(),
            _reader: reader,
        }
    }

    /// The next chunk; `None` after the last.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Option<SnapshotChunk>> {
        while let Some(table) = self.tables.front_mut() {
            if table.ranges_left == 0 {
                self.tables.pop_front();
                continue;
            }
            let lost = || Error::ReaderLost {
                table: table.table.clone(),
            };
            match table.parts.recv().await.ok_or_else(lost)?? {
                Part::Chunk(chunk) => return Ok(Some(chunk)),
                Part::RangeEnd => table.ranges_left -= 1,
            }
        }
        Ok(None)
    }
}

impl Drop for SnapshotChunks {
    fn drop(&mut self) {
        for copier in &self.copiers {
            copier.abort();
        }
    }
}

fn queue(table: SnapshotTable, ranges: &mut VecDeque<Range>) -> TableChunks {
    let (sender, parts) = mpsc::channel(WAITING_CHUNKS);
    let table = Arc::new(table);
    let before = ranges.len();
    let range = |blocks| Range {
        table: Arc::clone(&table),
        blocks,
        parts: sender.clone(),
    };
    ranges.extend(table.ranges(RANGE_BYTES).into_iter().map(range));
    TableChunks {
        table: table.relation().name.clone(),
        parts,
        ranges_left: ranges.len() - before,
    }
}

async fn copy_ranges(mut copier: Copier, ranges: Queue, limits: ChunkLimits) {
    loop {
        let next = ranges
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        let Some(range) = next else { return };
        let part = copy_range(&mut copier, &range, limits)
            .await
            .map(|()| Part::RangeEnd);
        let is_over = part.is_err();
        // Nobody waits any more when this fails.
        if range.parts.send(part).await.is_err() || is_over {
            return;
        }
    }
}

async fn copy_range(copier: &mut Copier, range: &Range, limits: ChunkLimits) -> Result<()> {
    copier.start(&range.table, range.blocks).await?;
    while let Some(rows) = copier.next_rows(limits.rows, limits.bytes).await? {
        let relation = Arc::clone(range.table.relation());
        let chunk = Part::Chunk(SnapshotChunk { relation, rows });
        if range.parts.send(Ok(chunk)).await.is_err() {
            return Err(Error::Misuse(
                "copying a table: nobody takes its rows any more",
            ));
        }
    }
    Ok(())
}
