//! Where the sink's rows come from.

use std::future::Future;

use walferry_core::{Batch, Checkpoint, LogReader, Order, PipelineState, Skipped, SkippedChange};
use walferry_schema::CommitId;

use super::events::Events;
use super::{ApplyError, Tally};
use crate::merge::{Barrier, Merge, Merged, Rows};

/// The source's history in commit order, with the checkpoint that each of its items leads to.
pub trait Feed: Send {
    /// Rows as they come: a whole transaction, a piece of a giant, or a chunk of the snapshot.
    type Rows: Send;

    /// The next item.
    ///
    /// # Errors
    /// Whatever breaks the history.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is lost.
    fn next(&mut self) -> impl Future<Output = Result<Fed<Self::Rows>, ApplyError>> + Send;

    /// Whether [`next`](Self::next) may be given up for something that is not the end of everything:
    /// a step that takes long and would begin anew may not.
    fn may_be_cut(&self) -> bool;

    /// Adds rows to a batch, and counts them.
    ///
    /// # Errors
    /// When a row cannot be read or has no form in the sink.
    fn push<B: Batch>(
        &mut self,
        batch: &mut B,
        rows: Self::Rows,
        tally: &mut Tally,
    ) -> Result<(), ApplyError>;

    /// The rows of a transaction that is passed over, as they are kept.
    fn skipped(&self, rows: Self::Rows, commit: CommitId, order: Order) -> Skipped;

    /// Where the feed stands after what [`next`](Self::next) returned last.
    fn checkpoint(&self) -> &Checkpoint;

    /// Changes what the feed cannot know: the pipeline's state.
    fn checkpoint_mut(&mut self) -> &mut Checkpoint;

    /// Passes the barrier that [`next`](Self::next) showed, once everything before it is applied.
    fn pass(&mut self);

    /// Hears that everything up to a checkpoint is applied, for good.
    fn applied(&mut self, checkpoint: &Checkpoint);

    /// Does what the source expects of a reader that has no room for more; ends only when that
    /// fails, with the reason.
    ///
    /// # Cancel safety
    /// Cancel safe.
    fn tend(&mut self) -> impl Future<Output = ApplyError> + Send;

    /// Ends in order, after everything that was given out is applied.
    ///
    /// # Errors
    /// When the source cannot be told.
    fn finish(&mut self) -> impl Future<Output = Result<(), ApplyError>> + Send;
}

/// What a feed brings.
#[derive(Debug)]
pub enum Fed<T> {
    /// Rows to apply.
    Rows(T),
    /// Something that everything before must be applied for: see [`Feed::pass`].
    Barrier(Barrier),
    /// Nothing of interest happened for a while; only the checkpoint moved.
    Heartbeat,
    /// A step of the feed's own is done: see [`Feed::may_be_cut`].
    Step,
}

/// Rows that come through the commit log.
pub struct LogFeed<R> {
    merge: Merge<R>,
    events: Events,
}

// === impl LogFeed ===

impl<R: LogReader> LogFeed<R> {
    /// Brings what a merge brings.
    pub fn new(merge: Merge<R>) -> Self {
        let events = Events::default();
        Self { merge, events }
    }
}

impl<R: LogReader> Feed for LogFeed<R> {
    type Rows = Rows;

    async fn next(&mut self) -> Result<Fed<Rows>, ApplyError> {
        Ok(match self.merge.next().await? {
            Merged::Rows(rows) => Fed::Rows(rows),
            Merged::Barrier(barrier) => Fed::Barrier(barrier),
            Merged::Heartbeat => Fed::Heartbeat,
        })
    }

    fn may_be_cut(&self) -> bool {
        true
    }

    fn push<B: Batch>(
        &mut self,
        batch: &mut B,
        rows: Rows,
        tally: &mut Tally,
    ) -> Result<(), ApplyError> {
        let checkpoint = self.merge.checkpoint();
        let staging =
            (checkpoint.state == PipelineState::Snapshot).then_some(checkpoint.generation);
        for (index, record) in &rows.records {
            let Some(table) = checkpoint.tables.get(*index) else {
                continue;
            };
            self.events.push(
                batch,
                &table.name,
                staging,
                (rows.committed_at, rows.xid),
                record,
            )?;
            tally.row(*index);
        }
        if let Some(at) = rows.committed_at {
            tally.commit(at);
        }
        Ok(())
    }

    fn skipped(&self, rows: Rows, commit: CommitId, order: Order) -> Skipped {
        let tables = &self.merge.checkpoint().tables;
        let changes = rows.records.iter().filter_map(|(index, record)| {
            // A tombstone says nothing that its delete has not said.
            let value = record.value.as_ref()?;
            Some(SkippedChange {
                table: tables.get(*index)?.name.clone(),
                ordinal: record.stamp.ordinal,
                change: String::from_utf8_lossy(value).into_owned(),
            })
        });
        Skipped {
            commit,
            committed_at: rows.committed_at,
            order,
            changes: changes.collect(),
        }
    }

    fn checkpoint(&self) -> &Checkpoint {
        self.merge.checkpoint()
    }

    fn checkpoint_mut(&mut self) -> &mut Checkpoint {
        self.merge.checkpoint_mut()
    }

    fn pass(&mut self) {
        self.merge.pass();
    }

    fn applied(&mut self, checkpoint: &Checkpoint) {
        self.merge.publish_offsets(checkpoint);
    }

    async fn tend(&mut self) -> ApplyError {
        std::future::pending().await
    }

    async fn finish(&mut self) -> Result<(), ApplyError> {
        Ok(())
    }
}
