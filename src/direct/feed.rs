//! The source's stream as a feed, with the snapshot that a generation begins with.

use tokio::time::{Instant, sleep_until};
use tracing::{debug, info};
use walferry_core::{
    Batch, Checkpoint, Held, Order, PipelineState, Skipped, Source, SourceEvent, SourceState,
};
use walferry_schema::{
    Change, CommitId, Generation, Lsn, Modes, Phase, Position, SnapshotEnd, TableName, Term,
};

use super::Direct;
use super::rows::{SourceRow, SourceRows, Transaction};
use crate::apply::{ApplyError, Fed, Feed, Tally};
use crate::capture::lineage::{self, Lineage};
use crate::capture::{BURST, CaptureError, FEEDBACK, ReaderStage, Tables, URGENT};
use crate::merge::Barrier;
use crate::traces;

/// The source's stream as a feed.
pub(super) struct DirectFeed<'a, S> {
    direct: &'a mut Direct<S>,
    checkpoint: Checkpoint,
    stage: Stage,
    tables: Tables,
    transaction: Option<Transaction>,
    /// How far the source has been read between transactions.
    read: Lsn,
    /// How far it is applied, for good.
    applied: Lsn,
    last_heartbeat: Instant,
    last_feedback: Instant,
    is_reply_wanted: bool,
}

/// What the feed does next.
#[derive(Debug)]
enum Stage {
    /// A new generation waits to be passed.
    Announced(Generation),
    /// Its slot is made.
    Make,
    /// Its snapshot is copied: the number of the next chunk, and where the stream will begin.
    Copy { chunk: u64, end: SnapshotEnd },
    /// The snapshot's end waits to be passed.
    Copied(SnapshotEnd),
    /// The stream is begun.
    Begin,
    /// The stream is read.
    Stream,
}

// === impl DirectFeed: how it begins ===

impl<'a, S: Source> DirectFeed<'a, S> {
    /// Goes on from a checkpoint, or begins a generation where there is none to go on from.
    pub(super) async fn open(
        direct: &'a mut Direct<S>,
        state: &SourceState,
        stored: Option<Checkpoint>,
    ) -> Result<Self, CaptureError> {
        let last = stored.as_ref().map_or(0, |it| it.generation);
        match direct.complete(state, stored)? {
            Some(checkpoint) => Self::go_on(direct, state, checkpoint).await,
            None => Self::announce(direct, state, last).await,
        }
    }

    async fn announce(
        direct: &'a mut Direct<S>,
        state: &SourceState,
        last: u64,
    ) -> Result<Self, CaptureError> {
        let slot = direct.options.slot.clone();
        lineage::wait_until_free(&mut direct.source, state, &slot, false).await?;
        let tables = lineage::choose_tables(&mut direct.source, &direct.options).await?;
        let generation = Generation {
            generation: lineage::next_generation(last, (direct.options.clock)()),
            follows: Term::NONE.number,
            server: state.server.clone(),
            slot,
            tables,
        };
        let (checkpoint, stage) = (Checkpoint::blank(), Stage::Announced(generation));
        Ok(Self::new(direct, checkpoint, stage))
    }

    async fn go_on(
        direct: &'a mut Direct<S>,
        state: &SourceState,
        checkpoint: Checkpoint,
    ) -> Result<Self, CaptureError> {
        let lineage = Lineage::of(&checkpoint, state);
        lineage.check(state, checkpoint.end_lsn, &direct.options.slot)?;
        let publication = direct.options.publication.clone();
        lineage
            .check_tables(&mut direct.source, &publication)
            .await?;
        let mut feed = Self::new(direct, checkpoint, Stage::Begin);
        feed.begin().await?;
        Ok(feed)
    }

    fn new(direct: &'a mut Direct<S>, checkpoint: Checkpoint, stage: Stage) -> Self {
        let now = Instant::now();
        Self {
            direct,
            tables: Tables::new(&checkpoint.tables, Modes::default()),
            checkpoint,
            stage,
            transaction: None,
            read: Lsn::ZERO,
            applied: Lsn::ZERO,
            last_heartbeat: now,
            last_feedback: now,
            is_reply_wanted: false,
        }
    }

    /// Owns the slot, and sees that it is not ahead of what is applied.
    async fn begin(&mut self) -> Result<(), CaptureError> {
        let source = &mut self.direct.source;
        source.set_keys(&lineage::keys_of(&self.checkpoint.tables));
        let confirmed = source.start().await?;
        let covered = self.checkpoint.end_lsn;
        if confirmed > covered {
            return Err(CaptureError::SlotAhead {
                slot: self.direct.options.slot.clone(),
                confirmed,
                covered,
            });
        }
        (self.read, self.applied, self.stage) = (confirmed, confirmed, Stage::Stream);
        self.direct.progress.own(None);
        self.enter(ReaderStage::Streaming);
        info!(start_lsn = %confirmed, generation = self.checkpoint.generation, "reading the stream");
        Ok(())
    }

    fn enter(&mut self, stage: ReaderStage) {
        let progress = &mut self.direct.progress;
        progress.read_generation(self.checkpoint.generation);
        progress.enter(stage);
    }

    /// Makes the slot of the generation that has just been announced.
    async fn make_slot(&mut self) -> Result<(), CaptureError> {
        self.direct.is_new_snapshot_wanted = false;
        let tables = &self.checkpoint.tables;
        let names: Vec<TableName> = tables.iter().map(|table| table.name.clone()).collect();
        self.tables = Tables::new(tables, Modes::default());
        let source = &mut self.direct.source;
        source.set_keys(&lineage::keys_of(tables));
        let start = source.create_slot(&names).await?;
        let term = self.checkpoint.term;
        self.enter(ReaderStage::Copying);
        info!(generation = term.generation, lsn = %start.consistent_lsn, tables = names.len(), "copying the snapshot");
        let end = SnapshotEnd {
            term,
            lsn: start.consistent_lsn,
            tables: names,
            chunks: None,
        };
        self.stage = Stage::Copy { chunk: 0, end };
        Ok(())
    }

    /// The next chunk of the snapshot; none after the last.
    async fn copy(&mut self) -> Result<Option<SourceRows>, CaptureError> {
        let Stage::Copy { chunk, end } = &mut self.stage else {
            return Ok(None);
        };
        let span = traces::span!("snapshot chunk", chunk = *chunk);
        let copied = traces::within(span, self.direct.source.next_chunk()).await?;
        let Some(copied) = copied else {
            info!(chunks = *chunk, "the snapshot is copied");
            self.stage = Stage::Copied(end.clone());
            return Ok(None);
        };
        let (phase, lsn) = (Phase::Snapshot(*chunk), end.lsn);
        *chunk += 1;
        let Some(table) = self.tables.get(&copied.relation) else {
            return Ok(None);
        };
        let generation = self.checkpoint.generation;
        self.checkpoint.position = Some(Position::end_of(generation, phase));
        for _ in copied.rows.iter().filter(|row| row.has_large()) {
            self.direct.progress.oversize();
        }
        let rows = copied.rows.into_iter().zip(0..);
        Ok(Some(SourceRows {
            generation,
            phase,
            committed_at: None,
            xid: None,
            rows: rows
                .map(|(row, ordinal)| SourceRow::read(table.clone(), lsn, ordinal, row))
                .collect(),
        }))
    }
}

// === impl DirectFeed: the stream ===

impl<S: Source> DirectFeed<'_, S> {
    async fn stream(&mut self) -> Result<Fed<SourceRows>, CaptureError> {
        loop {
            if self.is_reply_wanted || self.last_feedback.elapsed() >= FEEDBACK {
                self.confirm().await?;
            }
            self.publish();
            if self.beat() {
                return Ok(Fed::Heartbeat);
            }
            for _ in 0..BURST {
                let Some(event) = self.direct.source.buffered()? else {
                    break;
                };
                if let Some(rows) = self.handle(event)? {
                    return Ok(Fed::Rows(rows));
                }
            }
            tokio::select! {
                biased;
                () = sleep_until(self.last_feedback + FEEDBACK) => {}
                event = self.direct.source.next() => {
                    if let Some(rows) = self.handle(event?)? {
                        return Ok(Fed::Rows(rows));
                    }
                }
            }
        }
    }

    fn publish(&mut self) {
        let spooled = self.direct.source.spooled();
        self.direct.progress.keep(spooled);
        self.direct.progress.reach(self.read, self.applied);
    }

    /// Handles an event: the rows that may now be applied.
    fn handle(&mut self, event: SourceEvent) -> Result<Option<SourceRows>, CaptureError> {
        match event {
            SourceEvent::Begin {
                commit_lsn,
                committed_at,
                xid,
                ..
            } => {
                self.transaction = Some(self.transaction_at(commit_lsn, committed_at, xid)?);
                Ok(None)
            }
            SourceEvent::Change {
                lsn,
                ordinal,
                change,
            } => self.change(lsn, ordinal, change),
            SourceEvent::Commit { end_lsn, .. } => {
                self.read = self.read.max(end_lsn);
                Ok(self.commit(end_lsn))
            }
            SourceEvent::Origin(_) => Ok(None),
            SourceEvent::Message { lsn, prefix, .. } => {
                debug!(%lsn, prefix, "logical messages are not forwarded");
                Ok(None)
            }
            SourceEvent::Keepalive { lsn, wants_reply } => {
                self.is_reply_wanted |= wants_reply;
                if self.transaction.is_none() {
                    self.read = self.read.max(lsn);
                }
                Ok(None)
            }
        }
    }

    fn transaction_at(
        &self,
        commit_lsn: Lsn,
        committed_at: i64,
        xid: u32,
    ) -> Result<Transaction, CaptureError> {
        let phase = Phase::Stream(commit_lsn);
        let held = self.checkpoint.held(self.checkpoint.generation, phase);
        if let Held::NothingAfterPart(cut_short) = held {
            let found = phase;
            return Err(CaptureError::RestMissing { cut_short, found });
        }
        let generation = self.checkpoint.generation;
        let of = (generation, phase);
        Ok(Transaction::new(of, committed_at, xid, held))
    }

    fn change(
        &mut self,
        lsn: Lsn,
        ordinal: u64,
        change: Change,
    ) -> Result<Option<SourceRows>, CaptureError> {
        let Some(transaction) = &mut self.transaction else {
            return Ok(None);
        };
        self.direct.progress.change();
        let (generation, options) = (self.checkpoint.generation, &self.direct.options);
        match change {
            Change::Row { relation, op } => {
                if let Some(table) = self.tables.streamed(&relation, lsn, generation, options)? {
                    self.direct.progress.row(&op);
                    transaction.push(SourceRow::changed(table, lsn, ordinal, op));
                }
            }
            Change::Truncate { relations } => {
                for (relation, ordinal) in relations.iter().zip((ordinal..).step_by(2)) {
                    let table = self.tables.streamed(relation, lsn, generation, options)?;
                    if let Some(table) = table {
                        transaction.push(SourceRow::truncated(table, lsn, ordinal));
                    }
                }
            }
        }
        let whole = self.direct.whole;
        Ok(transaction.piece(whole).inspect(|piece| {
            self.checkpoint.position = piece.position();
        }))
    }

    /// The rest of a transaction; none when there is nothing of it to apply.
    fn commit(&mut self, end_lsn: Lsn) -> Option<SourceRows> {
        let rows = self.transaction.take()?.finish()?;
        self.direct.progress.commit(end_lsn, rows.committed_at);
        self.checkpoint.position = Some(Position::end_of(rows.generation, rows.phase));
        self.checkpoint.end_lsn = self.checkpoint.end_lsn.max(end_lsn);
        self.checkpoint.committed_at = rows.committed_at.or(self.checkpoint.committed_at);
        Some(rows)
    }

    /// Moves the checkpoint to an idle position, where one is due.
    fn beat(&mut self) -> bool {
        let wait = if self.is_reply_wanted {
            URGENT
        } else {
            self.direct.options.heartbeat
        };
        let is_due = self.last_heartbeat.elapsed() >= wait;
        if self.transaction.is_some() || self.read <= self.checkpoint.end_lsn || !is_due {
            return false;
        }
        self.last_heartbeat = Instant::now();
        self.checkpoint.end_lsn = self.read;
        true
    }

    /// Tells the server what is applied.
    async fn confirm(&mut self) -> Result<(), CaptureError> {
        self.last_feedback = Instant::now();
        // What was applied in an earlier run the server may not have sent yet.
        let lsn = self.applied.min(self.read);
        self.direct.source.confirm(lsn).await?;
        self.is_reply_wanted = false;
        Ok(())
    }

    /// Whether the server is there to be told something.
    fn is_streaming(&self) -> bool {
        matches!(self.stage, Stage::Stream)
    }

    async fn repeat(&mut self) -> CaptureError {
        loop {
            sleep_until(self.last_feedback + FEEDBACK).await;
            if let Err(error) = self.confirm().await {
                return error;
            }
        }
    }
}

impl<S: Source> Feed for DirectFeed<'_, S> {
    type Rows = SourceRows;

    async fn next(&mut self) -> Result<Fed<SourceRows>, ApplyError> {
        loop {
            match &self.stage {
                Stage::Announced(new) => {
                    return Ok(Fed::Barrier(Barrier::Generation(new.clone())));
                }
                // Nothing is in flight here, so that only the end of the process cuts it short.
                Stage::Make => {
                    self.make_slot().await?;
                    return Ok(Fed::Step);
                }
                Stage::Copy { .. } => {
                    if let Some(rows) = self.copy().await? {
                        return Ok(Fed::Rows(rows));
                    }
                }
                Stage::Copied(end) => {
                    return Ok(Fed::Barrier(Barrier::SnapshotEnd(end.clone())));
                }
                Stage::Begin => {
                    self.begin().await?;
                    return Ok(Fed::Step);
                }
                Stage::Stream => return Ok(self.stream().await?),
            }
        }
    }

    fn may_be_cut(&self) -> bool {
        !matches!(self.stage, Stage::Make | Stage::Begin)
    }

    fn push<B: Batch>(
        &mut self,
        batch: &mut B,
        rows: SourceRows,
        tally: &mut Tally,
    ) -> Result<(), ApplyError> {
        let is_snapshot = self.checkpoint.state == PipelineState::Snapshot;
        let staging = is_snapshot.then_some(self.checkpoint.generation);
        let limit = self.direct.options.max_row_bytes;
        rows.push(batch, (staging, limit), tally)
    }

    fn skipped(&self, rows: SourceRows, commit: CommitId, order: Order) -> Skipped {
        Skipped {
            commit,
            committed_at: rows.committed_at,
            order,
            changes: rows.rows.iter().map(SourceRow::kept).collect(),
        }
    }

    fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    fn checkpoint_mut(&mut self) -> &mut Checkpoint {
        &mut self.checkpoint
    }

    fn pass(&mut self) {
        match std::mem::replace(&mut self.stage, Stage::Begin) {
            Stage::Announced(new) => {
                self.checkpoint.generation = new.generation;
                self.checkpoint.term = Term {
                    generation: new.generation,
                    number: 0,
                };
                self.checkpoint.server = Some(new.server);
                self.checkpoint.tables = new.tables;
                self.stage = Stage::Make;
            }
            Stage::Copied(end) => {
                self.checkpoint.end_lsn = end.lsn;
                self.checkpoint.state = PipelineState::Swapping;
            }
            stage => self.stage = stage,
        }
    }

    fn applied(&mut self, checkpoint: &Checkpoint) {
        self.applied = self.applied.max(checkpoint.end_lsn);
    }

    async fn tend(&mut self) -> ApplyError {
        if self.is_streaming() {
            return self.repeat().await.into();
        }
        std::future::pending().await
    }

    async fn finish(&mut self) -> Result<(), ApplyError> {
        if self.is_streaming() {
            self.confirm().await?;
            self.direct.source.stop().await?;
        }
        Ok(())
    }
}
