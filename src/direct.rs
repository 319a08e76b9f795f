//! Without Kafka: from the source's stream straight into the sink (protocol rule 19).
//!
//! - The slot is the buffer and the position document the checkpoint; there is no other state.
//! - The slot's name is locked before the pipeline is claimed, so that a second daemon changes nothing.
//! - The slot is confirmed only to what a committed group holds; an idle position is written first.
//! - A generation is announced in the position document before its slot is made.

mod feed;
mod rows;
#[cfg(test)]
mod tests;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use walferry_core::{Checkpoint, PipelineState, Sink, Source, SourceState, Tasks};

use crate::apply::{self, Apply, ApplyError, ApplyStatus, GroupLimits};
use crate::capture::{CaptureError, CaptureOptions, CaptureStatus, Progress, ReaderStage};
use crate::merge::WholeLimits;
use crate::traces;
use feed::DirectFeed;

/// A pipeline without Kafka.
pub(crate) struct Direct<S> {
    source: S,
    options: CaptureOptions,
    limits: watch::Receiver<GroupLimits>,
    whole: WholeLimits,
    status: watch::Sender<ApplyStatus>,
    progress: Progress,
    tasks: Tasks,
    is_new_snapshot_wanted: bool,
}

// === impl Direct ===

impl<S: Source> Direct<S> {
    /// A pipeline from `source`.
    pub(crate) fn new(
        source: S,
        options: CaptureOptions,
        limits: watch::Receiver<GroupLimits>,
        status: watch::Sender<ApplyStatus>,
        tasks: Tasks,
    ) -> Self {
        let whole = limits.borrow().whole;
        Self {
            source,
            options,
            limits,
            whole,
            status,
            progress: Progress::default(),
            tasks,
            is_new_snapshot_wanted: false,
        }
    }

    /// Follows what was read.
    pub(crate) fn reading(&self) -> watch::Receiver<CaptureStatus> {
        self.progress.status()
    }

    /// Begins with a new generation, whatever the position says.
    pub(crate) fn want_new_snapshot(&mut self, is_wanted: bool) {
        self.is_new_snapshot_wanted = is_wanted;
    }

    /// Streams into a sink until told to stop, or until something fails.
    ///
    /// # Errors
    /// Whatever ended it; after a passing one, run it again with a new sink.
    pub(crate) async fn run<K: Sink>(
        &mut self,
        sink: K,
        stop: &CancellationToken,
    ) -> Result<(), ApplyError> {
        let ended = self.attempt(sink, stop).await;
        self.progress.enter(ReaderStage::Away);
        ended
    }

    async fn attempt<K: Sink>(
        &mut self,
        sink: K,
        stop: &CancellationToken,
    ) -> Result<(), ApplyError> {
        let apply = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            apply = self.start(sink) => apply?,
        };
        apply.run(stop).await
    }

    async fn start<K: Sink>(
        &mut self,
        mut sink: K,
    ) -> Result<Apply<DirectFeed<'_, S>, K>, ApplyError> {
        let connecting = traces::connecting("PostgreSQL");
        let state = traces::within(connecting, self.source.inspect()).await?;
        let newer = self.is_new_snapshot_wanted.then_some(u64::MAX);
        let stored = apply::claim(&mut sink, newer).await?;
        let (limits, tasks, status) =
            (self.limits.clone(), self.tasks.clone(), self.status.clone());
        let feed = DirectFeed::open(self, &state, stored).await?;
        Apply::start(sink, feed, limits, status, tasks).await
    }
}

// === impl Direct: what it goes on from ===

impl<S> Direct<S> {
    /// The stored checkpoint when its snapshot is complete and no new one is wanted.
    fn complete(
        &self,
        state: &SourceState,
        stored: Option<Checkpoint>,
    ) -> Result<Option<Checkpoint>, CaptureError> {
        if self.is_new_snapshot_wanted {
            return Ok(None);
        }
        match stored.filter(|it| it.generation > 0) {
            None if state.slot.is_some() => Err(CaptureError::SlotWithoutPosition {
                slot: self.options.slot.clone(),
            }),
            None => Ok(None),
            Some(it) if it.state == PipelineState::Snapshot => {
                warn!(
                    generation = it.generation,
                    "the snapshot was interrupted: starting over"
                );
                Ok(None)
            }
            Some(it) => Ok(Some(it)),
        }
    }
}
