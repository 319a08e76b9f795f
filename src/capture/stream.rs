//! A term's stream: events in, records out, confirmations back.
//!
//! - A keepalive inside a transaction confirms nothing, and an idle one only through a heartbeat.
//! - While the log has no room nothing is read, but the old LSN is repeated.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tracing::{debug, info};
use walferry_core::{Accepted, Log, Pace, Record, Source, SourceEvent, TopicSpec};
use walferry_schema::envelope::{SnapshotMark, TransactionMark};
use walferry_schema::{
    Change, Commit, Heartbeat, LogRecord, Lsn, PartitionCount, Phase, Relation, RowOp, Term,
};

use super::confirm::ConfirmQueue;
use super::markers::{self, Marked, TableEvents};
use super::records::{Context, Drafts, Place};
use super::snapshot::record_error;
use super::tables::{Table, Tables};
use super::{Capture, CaptureError, Opened, now_nanos};

/// How often the server hears what is confirmed, even when that is nothing new.
pub(crate) const FEEDBACK: Duration = Duration::from_secs(1);
/// How long an orderly stop waits for the log's acknowledgements.
const DRAIN: Duration = Duration::from_secs(20);
/// How many events are handled before acknowledgements and the clock are looked at again, and
/// before other tasks have their turn.
pub(crate) const BURST: usize = 250;
/// A reader that takes more events than this while the log answers once is behind.
pub(crate) const BEHIND: usize = 1_000;
/// How soon a heartbeat may follow the last one when the server waits for our answer, as it does
/// when it shuts down.
pub(crate) const URGENT: Duration = Duration::from_millis(500);

/// How long reading rests at most until what was sent is acknowledged: longer than a Kafka that works takes.
/// A reader that reads on before never finds the log idle, and stays at the pace of one that keeps up.
pub(super) const SETTLE: Duration = Duration::from_millis(500);

/// The stream of one term.
pub(super) struct Stream<'a, S, L> {
    capture: &'a mut Capture<S, L>,
    term: Term,
    tables: Tables,
    drafts: Drafts,
    queue: ConfirmQueue,
    /// The transaction topic, where one is asked for.
    markers: Option<Arc<TopicSpec>>,
    transaction: Option<Transaction>,
    last_commit: Option<Lsn>,
    /// How far the source has been read between transactions.
    idle: Lsn,
    /// How far the log's records, once acknowledged, cover the source.
    covered: Lsn,
    last_heartbeat: Instant,
    opened_at: Instant,
    feedback: Interval,
    is_reply_wanted: bool,
    /// When the events that are being handled came, nanoseconds since 1970.
    now: i64,
    pace: Pace,
    /// Events since the log last had nothing in flight.
    unsettled: usize,
    /// Until when nothing is read, for the log to acknowledge what it has.
    settling: Option<Instant>,
}

/// The open source transaction.
struct Transaction {
    xid: u32,
    commit_lsn: Lsn,
    committed_at: i64,
    events: u64,
    /// Events by table: few, so a list.
    tables: Vec<TableEvents>,
    records: Vec<PartitionCount>,
}

// === impl Stream ===

impl<'a, S: Source, L: Log> Stream<'a, S, L> {
    pub(super) fn new(capture: &'a mut Capture<S, L>, opened: Opened) -> Self {
        let mut feedback = interval(FEEDBACK);
        feedback.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let now = Instant::now();
        let Opened {
            term,
            lineage,
            start_lsn,
            last_commit,
        } = opened;
        Self {
            tables: Tables::new(&lineage.tables),
            drafts: Drafts::new(capture.options.tombstones),
            markers: capture
                .options
                .transaction_topic
                .then(|| Arc::new(markers::topic(&capture.options.prefix))),
            capture,
            term,
            queue: ConfirmQueue::new(start_lsn),
            transaction: None,
            last_commit,
            idle: start_lsn,
            covered: start_lsn,
            last_heartbeat: now,
            opened_at: now,
            feedback,
            is_reply_wanted: false,
            now: now_nanos(),
            pace: Pace::Prompt,
            unsettled: 0,
            settling: None,
        }
    }

    /// Reads until told to stop, or until something fails.
    ///
    /// A reader that has caught up does not read on before the log has acknowledged what it has
    /// sent: what comes meanwhile makes one batch for each partition (Nagle's algorithm). Sent at
    /// once, it would only wait in the client for the request before it.
    pub(super) async fn run(mut self) -> Result<(), CaptureError> {
        let stop = self.capture.stop.clone();
        loop {
            let is_waiting = self.capture.log.outstanding().is_some();
            if !is_waiting && self.unsettled > 0 {
                self.settled().await?;
            }
            let rests = self.settling.is_some();
            tokio::select! {
                biased;
                // 1. stop
                () = stop.cancelled() => return self.drain().await,
                // 2. acknowledgements
                progress = self.capture.log.progress(), if is_waiting => progress?,
                // 3. feedback and heartbeats
                _ = self.feedback.tick() => {
                    self.beat().await?;
                    self.confirm().await?;
                    if self.is_term_over() {
                        info!("beginning a new term");
                        return self.drain().await;
                    }
                }
                // 4. intake
                event = self.capture.source.next(), if !rests => {
                    let event = event?;
                    tokio::select! {
                        biased;
                        // What is given up here was not closed, so it is not confirmed.
                        () = stop.cancelled() => return self.drain().await,
                        taken = self.take(event) => taken?,
                    }
                    if self.pace == Pace::Prompt && self.unsettled > BEHIND {
                        self.rest();
                    }
                }
                // 5. nothing to read
                () = std::future::ready(()), if is_waiting && !rests => self.rest(),
                // 6. patience
                () = until(self.settling), if rests => (self.settling, self.unsettled) = (None, 0),
            }
            self.queue.settle(self.capture.log.outstanding());
            self.publish();
        }
    }

    fn publish(&mut self) {
        let confirmed = self.queue.confirmed();
        self.capture.progress.reach(self.idle, confirmed);
    }

    /// Stops reading until the log has nothing in flight.
    fn rest(&mut self) {
        self.settling = Some(Instant::now() + SETTLE);
    }

    /// Everything sent is acknowledged: what has come since the last time says how far behind we are.
    async fn settled(&mut self) -> Result<(), CaptureError> {
        self.pace = if self.unsettled > BEHIND {
            Pace::Bulk
        } else {
            Pace::Prompt
        };
        (self.settling, self.unsettled) = (None, 0);
        Ok(self.capture.log.pace(self.pace).await?)
    }

    /// Handles an event and those that came with it.
    async fn take(&mut self, event: SourceEvent) -> Result<(), CaptureError> {
        self.now = now_nanos();
        self.handle(event).await?;
        for _ in 0..BURST {
            if self.is_reply_wanted {
                break;
            }
            let Some(event) = self.capture.source.buffered()? else {
                break;
            };
            self.handle(event).await?;
        }
        // While behind there is always more to read: the other tasks are to run too.
        tokio::task::yield_now().await;
        if self.is_reply_wanted {
            self.beat().await?;
            self.confirm().await?;
        }
        Ok(())
    }

    async fn handle(&mut self, event: SourceEvent) -> Result<(), CaptureError> {
        self.unsettled += 1;
        match event {
            SourceEvent::Begin {
                xid,
                commit_lsn,
                committed_at,
            } => {
                self.transaction = Some(Transaction::new(xid, commit_lsn, committed_at));
            }
            SourceEvent::Change {
                lsn,
                ordinal,
                change,
            } => {
                self.capture.progress.change();
                match change {
                    Change::Row { relation, op } => self.row(lsn, ordinal, &relation, &op).await?,
                    Change::Truncate { relations } => {
                        self.truncate(lsn, ordinal, &relations).await?;
                    }
                }
            }
            SourceEvent::Message { prefix, lsn, .. } => {
                debug!(%lsn, prefix, "logical messages are not forwarded");
            }
            SourceEvent::Commit {
                commit_lsn,
                end_lsn,
            } => self.commit(commit_lsn, end_lsn).await?,
            SourceEvent::Keepalive { lsn, wants_reply } => {
                self.is_reply_wanted |= wants_reply;
                if self.transaction.is_none() {
                    self.idle = self.idle.max(lsn);
                }
            }
        }
        Ok(())
    }

    async fn row(
        &mut self,
        lsn: Lsn,
        ordinal: u64,
        relation: &Arc<Relation>,
        op: &RowOp,
    ) -> Result<(), CaptureError> {
        let Some(table) = self.streamed(relation, lsn)? else {
            return Ok(());
        };
        let Some((place, context)) = self.place(&table, lsn, ordinal) else {
            return Ok(());
        };
        self.drafts
            .write_row(&self.capture.template, &table, place, &context, op)
            .map_err(|source| CaptureError::Row {
                table: relation.name.clone(),
                lsn,
                source,
            })?;
        self.send_drafts(&table, lsn, &context).await
    }

    async fn truncate(
        &mut self,
        lsn: Lsn,
        ordinal: u64,
        relations: &[Arc<Relation>],
    ) -> Result<(), CaptureError> {
        for (relation, ordinal) in relations.iter().zip((ordinal..).step_by(2)) {
            let Some(table) = self.streamed(relation, lsn)? else {
                continue;
            };
            let Some((place, context)) = self.place(&table, lsn, ordinal) else {
                continue;
            };
            self.drafts
                .write_truncate(&self.capture.template, &table, place, &context)
                .map_err(|source| CaptureError::Row {
                    table: relation.name.clone(),
                    lsn,
                    source,
                })?;
            self.send_drafts(&table, lsn, &context).await?;
        }
        Ok(())
    }

    fn streamed(
        &mut self,
        relation: &Arc<Relation>,
        lsn: Lsn,
    ) -> Result<Option<Arc<Table>>, CaptureError> {
        let generation = self.term.generation;
        self.tables
            .streamed(relation, lsn, generation, &self.capture.options)
    }

    /// Where a change stands; none outside a transaction, which the source never sends.
    fn place(&mut self, table: &Table, lsn: Lsn, ordinal: u64) -> Option<(Place, Context)> {
        let transaction = self.transaction.as_mut()?;
        let phase = Phase::Stream(transaction.commit_lsn);
        let mark = TransactionMark {
            commit_lsn: transaction.commit_lsn,
            total_order: transaction.events + 1,
            data_collection_order: *transaction.events_of(table) + 1,
        };
        let context = Context {
            committed_at: transaction.committed_at,
            last_commit_lsn: self.last_commit,
            lsn,
            xid: transaction.xid,
            snapshot: SnapshotMark::False,
            transaction: Some(mark),
            processed_at: self.now,
        };
        Some((
            Place {
                term: self.term,
                phase,
                ordinal,
            },
            context,
        ))
    }

    async fn send_drafts(
        &mut self,
        table: &Table,
        lsn: Lsn,
        context: &Context,
    ) -> Result<(), CaptureError> {
        if let Some(transaction) = &self.transaction
            && transaction.events == 0
        {
            let marked = transaction.marked();
            self.mark(|| marked.begin()).await?;
        }
        let mut events = 0;
        let entry = self.queue.open_entry();
        for index in 0..self.drafts.records().len() {
            let partition = loop {
                let draft = &self.drafts.records()[index];
                let (headers, used) = draft.headers(table);
                let record = Record {
                    topic: &table.topic,
                    key: draft.key.as_deref(),
                    value: draft.value.as_deref(),
                    timestamp: context.processed_at / 1_000_000,
                    headers: &headers[..used],
                };
                let sent = self.capture.log.send_row(entry, &record);
                match sent.map_err(|fault| record_error(&table.relation.name, lsn, fault))? {
                    Accepted::Partition(partition) => break partition,
                    Accepted::Full => self.wait_for_room().await?,
                }
            };
            events += u64::from(self.drafts.records()[index].value.is_some());
            if let Some(transaction) = &mut self.transaction {
                transaction.count(&table.topic.name, partition);
            }
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.events += events;
            *transaction.events_of(table) += events;
        }
        Ok(())
    }

    /// Sends a record to the transaction topic, where one is asked for.
    async fn mark(
        &mut self,
        marker: impl FnOnce() -> (Vec<u8>, Vec<u8>),
    ) -> Result<(), CaptureError> {
        let Some(topic) = self.markers.clone() else {
            return Ok(());
        };
        let (key, value) = marker();
        let record = Record {
            topic: &topic,
            key: Some(&key),
            value: Some(&value),
            timestamp: now_nanos() / 1_000_000,
            headers: &[],
        };
        let entry = self.queue.open_entry();
        while self.capture.log.send_row(entry, &record)? == Accepted::Full {
            self.wait_for_room().await?;
        }
        Ok(())
    }

    async fn commit(&mut self, commit_lsn: Lsn, end_lsn: Lsn) -> Result<(), CaptureError> {
        self.idle = self.idle.max(end_lsn);
        let Some(transaction) = self.transaction.take() else {
            return Ok(());
        };
        if transaction.records.is_empty() {
            return Ok(());
        }
        let marked = transaction.marked();
        self.mark(|| marked.end(&transaction.tables)).await?;
        let record = LogRecord::Commit(Commit {
            term: self.term,
            xid: transaction.xid,
            commit_lsn,
            end_lsn,
            committed_at: transaction.committed_at,
            records: transaction.records,
            after: self.covered,
        });
        self.send_closing(&record, end_lsn).await?;
        self.last_commit = Some(commit_lsn);
        let committed_at = Some(transaction.committed_at);
        self.capture.progress.commit(end_lsn, committed_at);
        Ok(())
    }

    /// Sends the log record that closes the open entry.
    async fn send_closing(&mut self, record: &LogRecord, lsn: Lsn) -> Result<(), CaptureError> {
        let bytes = record.to_bytes();
        while self.capture.log.send_log(self.queue.open_entry(), &bytes)? == Accepted::Full {
            self.wait_for_room().await?;
        }
        self.queue.close(lsn);
        self.covered = self.covered.max(lsn);
        Ok(())
    }

    /// Puts an idle position into the log, so that the slot may move past what is of no interest.
    async fn beat(&mut self) -> Result<(), CaptureError> {
        let wait = if self.is_reply_wanted {
            URGENT
        } else {
            self.capture.options.heartbeat
        };
        let is_due = self.last_heartbeat.elapsed() >= wait;
        if self.transaction.is_some() || self.idle <= self.covered || !is_due {
            return Ok(());
        }
        self.last_heartbeat = Instant::now();
        let lsn = self.idle;
        let record = LogRecord::Heartbeat(Heartbeat {
            term: self.term,
            lsn,
            after: self.covered,
        });
        self.send_closing(&record, lsn).await
    }

    /// Waits for room in the log; nothing is read meanwhile, but the server still hears of us.
    async fn wait_for_room(&mut self) -> Result<(), CaptureError> {
        let is_due = tokio::select! {
            biased;
            progress = self.capture.log.progress() => {
                progress?;
                false
            }
            _ = self.feedback.tick() => true,
        };
        self.queue.settle(self.capture.log.outstanding());
        if is_due {
            self.confirm().await?;
        }
        Ok(())
    }

    /// Tells the server what is confirmed.
    async fn confirm(&mut self) -> Result<(), CaptureError> {
        self.is_reply_wanted = false;
        let confirmed = self.queue.settle(self.capture.log.outstanding());
        Ok(self.capture.source.confirm(confirmed).await?)
    }

    fn is_term_over(&self) -> bool {
        self.transaction.is_none() && self.opened_at.elapsed() >= self.capture.options.longest_term
    }

    /// Ends the term in order: waits for the acknowledgements, confirms, leaves.
    async fn drain(&mut self) -> Result<(), CaptureError> {
        let deadline = Instant::now() + DRAIN;
        while !self.queue.is_settled() {
            match tokio::time::timeout_at(deadline, self.capture.log.progress()).await {
                Ok(progress) => progress?,
                Err(_) => break,
            }
            self.queue.settle(self.capture.log.outstanding());
        }
        self.confirm().await?;
        self.publish();
        self.capture.source.stop().await?;
        info!(confirmed = %self.queue.confirmed(), "stopped reading");
        Ok(())
    }
}

/// Waits for an instant; for ever when there is none.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

// === impl Transaction ===

impl Transaction {
    fn new(xid: u32, commit_lsn: Lsn, committed_at: i64) -> Self {
        let (tables, records) = (Vec::new(), Vec::new());
        Self {
            xid,
            commit_lsn,
            committed_at,
            events: 0,
            tables,
            records,
        }
    }

    fn marked(&self) -> Marked {
        Marked {
            xid: self.xid,
            commit_lsn: self.commit_lsn,
            committed_at: self.committed_at,
        }
    }

    fn events_of(&mut self, table: &Table) -> &mut u64 {
        let topic = &table.topic.name;
        let is_its = |it: &TableEvents| Arc::ptr_eq(&it.topic, topic);
        let index = self.tables.iter().position(is_its).unwrap_or_else(|| {
            self.tables.push(TableEvents {
                topic: topic.clone(),
                table: table.relation.name.clone(),
                events: 0,
            });
            self.tables.len() - 1
        });
        &mut self.tables[index].events
    }

    fn count(&mut self, topic: &Arc<str>, partition: i32) {
        let is_same =
            |it: &&mut PartitionCount| it.partition == partition && Arc::ptr_eq(&it.topic, topic);
        match self.records.iter_mut().find(is_same) {
            Some(known) => known.count += 1,
            None => {
                self.records.push(PartitionCount {
                    topic: topic.clone(),
                    partition,
                    count: 1,
                });
            }
        }
    }
}
