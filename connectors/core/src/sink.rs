//! The seam to the database that is written.

use std::future::Future;

use walferry_schema::{Image, Oversize, Position, Row, TableName, TableSpec};

use crate::{Checkpoint, Fault, LetterOrder, Orders, Skipped};

/// A database that takes batches of row events together with a checkpoint, as one transaction.
///
/// - Every write is fenced: once another writer has claimed the pipeline, nothing is changed and
///   the call fails with [`crate::Class::Fenced`].
/// - A batch either takes effect once, with its checkpoint, or not at all.
pub trait Sink: Send + 'static {
    /// What this sink collects row events in.
    type Batch: Batch;
    /// What reads operators' orders.
    type Orders: OrderReader;

    /// Takes the pipeline over from whoever wrote it last (protocol rule 14): the checkpoint that
    /// the last writer left, none for a new pipeline. Claims again after any doubt.
    fn claim(&mut self) -> impl Future<Output = Result<Option<Checkpoint>, Fault>> + Send;

    /// An empty batch.
    fn batch(&self) -> Self::Batch;

    /// Writes a batch and the checkpoint in one fenced transaction (rules 13, 15 and 16). An empty
    /// batch writes the checkpoint alone.
    fn apply(
        &mut self,
        batch: Self::Batch,
        checkpoint: &Checkpoint,
    ) -> impl Future<Output = Result<Applied, Fault>> + Send;

    /// Makes the staging collections of a generation where they are missing, with the indexes of
    /// their targets, and removes those of older generations of these tables. Only while the
    /// checkpoint says [`crate::PipelineState::Snapshot`] (rule 18).
    fn stage(
        &mut self,
        generation: u64,
        tables: &[TableSpec],
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Sees that the collections are there that a checkpoint counts on: the staging collections while
    /// it says [`crate::PipelineState::Snapshot`], the tables' own once it is live. Fails for good when
    /// one is gone: made again, it would be empty.
    fn check(&mut self, checkpoint: &Checkpoint) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Renames every staging collection over its target; a missing one was renamed already. Only
    /// while the checkpoint says [`crate::PipelineState::Swapping`].
    fn swap(
        &mut self,
        generation: u64,
        tables: &[TableSpec],
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Reads what operators ask of the pipeline, beside this sink.
    fn order_reader(&self) -> Self::Orders;
}

/// Reads what operators ask of a pipeline.
pub trait OrderReader: Send + 'static {
    /// What is asked now.
    fn read(&mut self) -> impl Future<Output = Result<Orders, Fault>> + Send;
}

/// Row events on their way into one transaction, each key folded to its last known state.
pub trait Batch: Send + 'static {
    /// Adds an event. Events of one row must come in source order.
    ///
    /// # Errors
    /// Poison, naming the column, when a value has no form in the sink.
    fn push(&mut self, target: &Target<'_>, event: RowEvent<'_>) -> Result<(), Fault>;

    /// Adds a transaction that is passed over: it is kept where operators find it, and nothing else
    /// comes of it.
    fn skip(&mut self, skipped: Skipped);

    /// Has the sink do something about its dead letters before it writes the batch.
    fn carry_out(&mut self, order: LetterOrder);

    /// How many operations the batch will run, after folding.
    fn operations(&self) -> usize;

    /// About how many bytes the batch holds.
    fn bytes(&self) -> usize;

    /// Whether nothing was added.
    fn is_empty(&self) -> bool {
        self.operations() == 0
    }
}

/// Where an event goes, and what to say of it when it cannot.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The table.
    pub table: &'a TableName,
    /// The generation whose staging collection is meant; none for the table's own collection.
    pub staging: Option<u64>,
    /// The event's position, for errors.
    pub position: Position,
    /// When the source committed the event, microseconds since 1970; none in a snapshot.
    pub committed_at: Option<i64>,
    /// The source's number of the transaction; none in a snapshot, or where the source does not say.
    pub xid: Option<u32>,
    /// What the new row of the event lacks because it is too large for the way here; its columns are absent.
    pub oversize: Option<&'a Oversize>,
    /// The new row as the source sent it, where what it lacks can still be read from it; none where that stands in the log.
    pub whole: Option<&'a Row>,
}

/// What happens to a row of the sink.
#[derive(Debug)]
pub enum RowEvent<'a> {
    /// A row that is not there yet; all columns.
    Insert(Image<'a>),
    /// A row that is there gets these values; absent columns keep theirs. The key is unchanged.
    Update(Image<'a>),
    /// The row with this key goes; only the key's columns matter.
    Delete(Image<'a>),
    /// The row gets a new key, and its absent columns carry their values over.
    Move {
        /// The old row; only the key's columns matter.
        from: Image<'a>,
        /// The new row.
        to: Image<'a>,
    },
    /// All rows of the table go.
    Truncate,
}

/// What applying a batch did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Operations that did not find what they expected and were mended from a full image (rule 16).
    pub repaired: u64,
    /// Changes that became dead letters.
    pub parked: u64,
    /// Changes of rows whose dead letters were discarded, which need what those said.
    pub dropped: u64,
}
