//! The sink: from the merged stream to the documents, whole source transactions at a time.
//!
//! - Whatever is complete when the previous group returns is the next group.
//! - One group is in flight, one is being filled behind it; beyond that nothing is read.
//! - While it is paused nothing more is taken; what was taken is still applied.
//! - A transaction that an operator gave up is kept aside instead of being applied.
//! - A generation's beginning and its snapshot's end wait until everything before them is applied.

mod error;
mod events;
mod feed;
mod orders;
#[cfg(test)]
mod simulation;
mod status;
mod tally;
#[cfg(test)]
pub(crate) mod tests;

use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Span, debug, info, warn};
use walferry_core::{
    Applied, Batch, Checkpoint, Class, Fault, LetterOrder, LogReader, Order, Orders, PipelineState,
    Sink, Tasks,
};
use walferry_schema::CommitId;

use crate::merge::{Announced, Barrier, Merge, WholeLimits};
use crate::traces;

pub use error::ApplyError;
pub use feed::{Fed, Feed, LogFeed};
pub use status::{ApplyStatus, Histogram};
pub use tally::Tally;

/// How much of a transaction's group is gathered at most.
#[derive(Clone, Copy, Debug)]
pub struct GroupLimits {
    /// Operations.
    pub operations: usize,
    /// Bytes of documents.
    pub bytes: usize,
    /// The largest source transaction that is never split over groups.
    pub whole: WholeLimits,
}

/// How many rows are taken before other tasks have their turn: the group in flight above all.
const BURST: u64 = 250;

/// How exactly is shown when something came last.
const HEARD: Duration = Duration::from_secs(1);

/// The sink of one pipeline.
pub struct Apply<F, S: Sink> {
    feed: F,
    /// None while a group is in flight: the sink went with it.
    sink: Option<S>,
    batch: S::Batch,
    limits: watch::Receiver<GroupLimits>,
    /// Those of the group that is being filled.
    group: GroupLimits,
    /// What the batch holds, before folding.
    tally: Tally,
    /// Rows taken since other tasks last had their turn.
    unyielded: u64,
    /// Whether the feed's checkpoint is ahead of what was handed to the sink.
    is_dirty: bool,
    barrier: Option<Barrier>,
    in_flight: Option<InFlight<S>>,
    /// As the status shows it.
    quiet_since: Option<Instant>,
    orders: watch::Receiver<Orders>,
    /// What is asked about dead letters and was handed on.
    given: Vec<LetterOrder>,
    status: watch::Sender<ApplyStatus>,
    tasks: Tasks,
}

/// A group that is being written.
struct InFlight<S> {
    task: JoinHandle<(S, Checkpoint, Result<Applied, Fault>)>,
    tally: Tally,
}

/// What a group left behind.
struct Finished<S> {
    sink: S,
    applied: Result<Applied, Fault>,
    checkpoint: Checkpoint,
    tally: Tally,
}

/// Claims the pipeline, and finishes the swap that a crash cut short: where the last writer stood.
///
/// # Errors
/// When the pipeline cannot be claimed, or the swap cannot be finished and no `newer` generation
/// replaces it.
pub(crate) async fn claim<S: Sink>(
    sink: &mut S,
    newer: Option<u64>,
) -> Result<Option<Checkpoint>, ApplyError> {
    let mut checkpoint = sink.claim().await?;
    if let Some(it) = checkpoint
        .as_mut()
        .filter(|it| it.state == PipelineState::Swapping)
    {
        let is_replaced = newer.is_some_and(|newer| newer > it.generation);
        match finish_swap(sink, it).await {
            // The remedy for a swap that cannot be finished.
            Err(fault) if is_replaced && fault.class() == Class::Fatal => {
                warn!(%fault, "a newer generation replaces the one that was being swapped in");
            }
            finished => finished?,
        }
    }
    Ok(checkpoint)
}

// === impl Apply ===

impl<R: LogReader, S: Sink> Apply<LogFeed<R>, S> {
    /// Claims the pipeline and finds its place in the log.
    ///
    /// # Errors
    /// When the pipeline cannot be claimed or the log does not go on from its checkpoint.
    pub async fn over_log(
        mut sink: S,
        reader: R,
        announced: Option<Announced>,
        limits: watch::Receiver<GroupLimits>,
        status: watch::Sender<ApplyStatus>,
        tasks: Tasks,
    ) -> Result<Self, ApplyError> {
        let newer = announced.map(|new| new.generation);
        let checkpoint = claim(&mut sink, newer).await?;
        let whole = limits.borrow().whole;
        let merge = Merge::open(reader, checkpoint, announced, whole).await?;
        Self::start(sink, LogFeed::new(merge), limits, status, tasks).await
    }
}

impl<F: Feed, S: Sink> Apply<F, S> {
    /// Applies what the feed brings, through a sink that has claimed its pipeline; each group takes the limits as
    /// they are when it begins.
    ///
    /// # Errors
    /// When the collections that the feed's checkpoint counts on cannot be made or are gone.
    pub async fn start(
        sink: S,
        feed: F,
        limits: watch::Receiver<GroupLimits>,
        status: watch::Sender<ApplyStatus>,
        tasks: Tasks,
    ) -> Result<Self, ApplyError> {
        let (batch, group) = (sink.batch(), *limits.borrow());
        let orders = orders::follow(sink.order_reader(), status.clone(), &tasks).await?;
        let mut apply = Self {
            feed,
            sink: Some(sink),
            batch,
            limits,
            group,
            tally: Tally::default(),
            unyielded: 0,
            is_dirty: false,
            barrier: None,
            in_flight: None,
            quiet_since: None,
            orders,
            given: Vec::new(),
            status,
            tasks,
        };
        apply.resume().await?;
        Ok(apply)
    }

    /// Applies until told to stop, or until something fails.
    ///
    /// # Errors
    /// Whatever ended it; after a transient one, start again from the claim.
    pub async fn run(mut self, stop: &CancellationToken) -> Result<(), ApplyError> {
        let status = self.status.clone();
        status.send_modify(|status| status.is_applying = true);
        let ended = self.apply(stop).await;
        status.send_modify(|status| status.is_applying = false);
        ended
    }

    async fn apply(&mut self, stop: &CancellationToken) -> Result<(), ApplyError> {
        loop {
            if self.launch() || self.unyielded >= BURST {
                self.unyielded = 0;
                tokio::task::yield_now().await;
            }
            let is_paused = self.orders.borrow_and_update().pause.is_some();
            if !is_paused {
                self.take_orders();
            }
            let has_room = self.barrier.is_none() && !self.is_full() && !is_paused;
            self.listen(has_room);
            if self.barrier.is_some() && self.in_flight.is_none() && !is_paused {
                self.pass_barrier().await?;
                continue;
            }
            let may_be_cut = !has_room || self.feed.may_be_cut();
            tokio::select! {
                biased;
                // 1. stop
                () = stop.cancelled() => return self.drain().await,
                // 2. completion
                done = completion(&mut self.in_flight), if self.in_flight.is_some() => {
                    self.complete(done)?;
                }
                // 3. intake
                fed = intake(&mut self.feed, has_room) => self.take(fed?)?,
                // 4. orders
                () = changed(&mut self.orders), if may_be_cut => {}
            }
        }
    }

    /// Hands on what is asked about dead letters: the group that is gathered has it done before it is written.
    fn take_orders(&mut self) {
        let is_live = self.feed.checkpoint().state == PipelineState::Live;
        let orders = self.orders.borrow();
        if orders.letters == self.given || !is_live {
            return;
        }
        for order in &orders.letters {
            if !self.given.contains(order) {
                self.batch.carry_out(order.clone());
                self.is_dirty = true;
            }
        }
        self.given.clone_from(&orders.letters);
    }

    /// Goes on where a crash left the snapshot.
    async fn resume(&mut self) -> Result<(), ApplyError> {
        let checkpoint = self.feed.checkpoint().clone();
        self.status.send_modify(|it| it.reached(&checkpoint));
        if checkpoint.generation == 0 {
            return Ok(());
        }
        if checkpoint.state == PipelineState::Snapshot && !checkpoint.has_chunks() {
            self.sink()?
                .stage(checkpoint.generation, &checkpoint.tables)
                .await?;
        } else {
            self.sink()?.check(&checkpoint).await?;
        }
        info!(state = ?checkpoint.state, position = ?checkpoint.position, "going on");
        Ok(())
    }

    /// Shows whether more is taken.
    fn listen(&mut self, has_room: bool) {
        if has_room != self.quiet_since.is_some() {
            self.is_quiet_since(has_room.then(Instant::now));
        }
    }

    /// Shows that something came.
    fn hear(&mut self) {
        let now = Instant::now();
        if self.quiet_since.is_none_or(|since| now - since >= HEARD) {
            self.is_quiet_since(Some(now));
        }
    }

    /// Nobody is woken: whoever shows it looks when asked.
    fn is_quiet_since(&mut self, since: Option<Instant>) {
        self.quiet_since = since;
        self.status.send_if_modified(|status| {
            status.quiet_since = since;
            false
        });
    }

    fn take(&mut self, fed: Fed<F::Rows>) -> Result<(), ApplyError> {
        self.hear();
        match fed {
            Fed::Rows(rows) => self.take_rows(rows)?,
            Fed::Barrier(barrier) => {
                self.barrier = Some(barrier);
                return Ok(());
            }
            Fed::Heartbeat => {}
            Fed::Step => return Ok(()),
        }
        self.is_dirty = true;
        Ok(())
    }

    fn take_rows(&mut self, rows: F::Rows) -> Result<(), ApplyError> {
        let commit = self.feed.checkpoint().position.and_then(|it| it.commit());
        if let Some((commit, order)) = commit.and_then(|commit| self.order_to_skip(commit)) {
            let skipped = self.feed.skipped(rows, commit, order);
            warn!(%commit, changes = skipped.changes.len(), by = skipped.order.by, "passed over as ordered");
            self.batch.skip(skipped);
            return Ok(());
        }
        let before = self.tally.rows();
        self.feed
            .push(&mut self.batch, rows, &mut self.tally)
            .map_err(|error| match commit {
                Some(_) => error.with_way_past(commit),
                None => error,
            })?;
        self.unyielded += self.tally.rows() - before;
        Ok(())
    }

    fn order_to_skip(&self, commit: CommitId) -> Option<(CommitId, Order)> {
        let order = self.orders.borrow().skips.get(&commit).cloned()?;
        Some((commit, order))
    }

    fn is_full(&self) -> bool {
        self.batch.operations() >= self.group.operations || self.batch.bytes() >= self.group.bytes
    }

    /// Hands the group to the sink, if there is one and the sink is free: whether it did.
    fn launch(&mut self) -> bool {
        if !self.is_dirty || self.in_flight.is_some() {
            return false;
        }
        let Some(mut sink) = self.sink.take() else {
            return false;
        };
        let batch = std::mem::replace(&mut self.batch, sink.batch());
        let checkpoint = self.feed.checkpoint().clone();
        let span = self.span(&batch, &checkpoint);
        let task = self.tasks.spawn(async move {
            let applied = traces::within(span, sink.apply(batch, &checkpoint)).await;
            (sink, checkpoint, applied)
        });
        self.in_flight = Some(InFlight {
            task,
            tally: std::mem::take(&mut self.tally),
        });
        self.group = *self.limits.borrow();
        self.is_dirty = false;
        true
    }

    /// The span of a group, as it is handed to the sink.
    fn span(&self, batch: &S::Batch, checkpoint: &Checkpoint) -> Span {
        traces::span!(
            "apply",
            rows = self.tally.rows(),
            operations = batch.operations(),
            bytes = batch.bytes(),
            generation = checkpoint.generation,
            from_lsn = %self.status.borrow().end_lsn,
            to_lsn = %checkpoint.end_lsn,
            committed_at = self.tally.last_commit().map(rfc3339),
        )
    }

    fn complete(&mut self, done: Result<Finished<S>, ApplyError>) -> Result<(), ApplyError> {
        let Finished {
            sink,
            applied,
            checkpoint,
            tally,
        } = done?;
        self.sink = Some(sink);
        // Where there is no generation no position names a transaction.
        let is_live = checkpoint.state == PipelineState::Live && checkpoint.generation > 0;
        let applied = applied.map_err(|fault| match ApplyError::from(fault) {
            error if is_live => error.with_way_past(None),
            error => error,
        });
        let Applied {
            repaired,
            parked,
            dropped,
        } = applied?;
        if parked > 0 {
            warn!(parked, position = ?checkpoint.position, "changes became dead letters: walferry dead-letter list");
        }
        if dropped > 0 {
            warn!(dropped, position = ?checkpoint.position, "changes of rows that were given up are dropped");
        }
        if repaired > 0 {
            warn!(repaired, position = ?checkpoint.position, "operations were mended");
        }
        debug!(rows = tally.rows(), position = ?checkpoint.position, "applied");
        self.feed.applied(&checkpoint);
        let (age, is_behind) = (tally.age(SystemTime::now()), self.is_full());
        self.status.send_modify(|status| {
            status.reached(&checkpoint);
            status.count(&tally, &checkpoint, age);
            status.repaired += repaired;
            status.parked += parked;
            status.dropped += dropped;
            status.is_behind = is_behind;
        });
        Ok(())
    }

    /// Passes a barrier: everything before it is applied (rule 18).
    async fn pass_barrier(&mut self) -> Result<(), ApplyError> {
        let Some(barrier) = self.barrier.take() else {
            return Ok(());
        };
        self.feed.pass();
        let checkpoint = self.feed.checkpoint().clone();
        // Fenced first: a writer that was overtaken must not touch a collection.
        let batch = self.sink()?.batch();
        self.sink()?.apply(batch, &checkpoint).await?;
        match barrier {
            Barrier::Generation(generation) => {
                self.status
                    .send_modify(|status| status.reached(&checkpoint));
                info!(
                    generation = generation.generation,
                    "loading the snapshot into staging"
                );
                self.sink()?
                    .stage(checkpoint.generation, &checkpoint.tables)
                    .await?;
                Ok(())
            }
            Barrier::SnapshotEnd(_) => self.swap().await,
        }
    }

    async fn swap(&mut self) -> Result<(), ApplyError> {
        let mut checkpoint = self.feed.checkpoint().clone();
        finish_swap(self.sink()?, &mut checkpoint).await?;
        self.feed.checkpoint_mut().state = checkpoint.state;
        self.status
            .send_modify(|status| status.reached(&checkpoint));
        Ok(())
    }

    fn sink(&mut self) -> Result<&mut S, ApplyError> {
        self.sink.as_mut().ok_or(ApplyError::Lost)
    }

    /// Ends in order: what is in flight and what was gathered is applied, nothing more is read.
    async fn drain(&mut self) -> Result<(), ApplyError> {
        while self.in_flight.is_some() {
            let done = completion(&mut self.in_flight).await;
            self.complete(done)?;
            self.launch();
        }
        self.feed.finish().await?;
        info!(position = ?self.feed.checkpoint().position, "stopped applying");
        Ok(())
    }
}

/// A time of the source's, microseconds since 1970.
fn rfc3339(micros: i64) -> String {
    let since = Duration::from_micros(u64::try_from(micros).unwrap_or_default());
    humantime::format_rfc3339_micros(SystemTime::UNIX_EPOCH + since).to_string()
}

/// Renames the staging collections, then says that the stream may be read. Needs nothing of the
/// log, so that a swap that a crash cut short is finished whatever became of that.
async fn finish_swap<S: Sink>(sink: &mut S, checkpoint: &mut Checkpoint) -> Result<(), Fault> {
    sink.swap(checkpoint.generation, &checkpoint.tables).await?;
    checkpoint.state = PipelineState::Live;
    let batch = sink.batch();
    sink.apply(batch, checkpoint).await?;
    info!(
        generation = checkpoint.generation,
        "the snapshot is in, applying the stream"
    );
    Ok(())
}

/// What the feed brings next; without room for it, only what the source expects meanwhile.
///
/// # Cancel safety
/// Cancel safe: nothing is lost.
async fn intake<F: Feed>(feed: &mut F, has_room: bool) -> Result<Fed<F::Rows>, ApplyError> {
    if has_room {
        feed.next().await
    } else {
        Err(feed.tend().await)
    }
}

/// Waits for other orders.
///
/// # Cancel safety
/// Cancel safe.
async fn changed(orders: &mut watch::Receiver<Orders>) {
    if orders.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits for the group in flight; never when there is none.
///
/// # Cancel safety
/// Cancel safe: the group goes on.
async fn completion<S>(in_flight: &mut Option<InFlight<S>>) -> Result<Finished<S>, ApplyError> {
    let Some(flight) = in_flight else {
        return std::future::pending().await;
    };
    let ended = (&mut flight.task).await;
    let (sink, checkpoint, applied) = ended.map_err(|_| ApplyError::Lost)?;
    let tally = std::mem::take(&mut flight.tally);
    *in_flight = None;
    Ok(Finished {
        sink,
        applied,
        checkpoint,
        tally,
    })
}
