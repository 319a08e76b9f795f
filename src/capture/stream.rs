//! A term's stream: events in, records out, confirmations back.
//!
//! - A keepalive inside a transaction confirms nothing, and an idle one only through a heartbeat.
//! - While the log has no room nothing is read, but the old LSN is repeated.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tracing::{debug, info, warn};
use walferry_core::{Accepted, Fault, Log, Pace, Record, Source, SourceEvent, TopicSpec};
use walferry_schema::envelope::{self, Origin, TransactionMark};
use walferry_schema::{
    Change, Commit, Heartbeat, LogRecord, Lsn, PartitionCount, Phase, Relation, RowOp, Term,
};

use super::confirm::ConfirmQueue;
use super::markers::{self, CollectionEvents, Marked};
use super::messages::{self, Emitted};
use super::oversize::{self, Parts};
use super::records::{Context, Drafts, Place};
use super::tables::{Table, Tables};
use super::{Capture, CaptureError, CaptureOptions, Opened, now_nanos};

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
    messages: Messages,
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

/// Where logical messages go.
struct Messages {
    /// None where they are not wanted.
    topic: Option<Arc<TopicSpec>>,
    collection: Arc<str>,
}

/// The open source transaction.
struct Transaction {
    xid: u32,
    commit_lsn: Lsn,
    committed_at: i64,
    origin: Option<Arc<Origin>>,
    events: u64,
    /// Events by table: few, so a list.
    collections: Vec<CollectionEvents>,
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
            tables: Tables::new(&lineage.tables, capture.options.modes),
            drafts: Drafts::new(capture.options.tombstones),
            markers: capture
                .options
                .extra_topics
                .transaction
                .then(|| Arc::new(markers::topic(&capture.options.prefix))),
            messages: Messages::new(&capture.options),
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
        let spooled = self.capture.source.spooled();
        self.capture.progress.keep(spooled);
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
            SourceEvent::Origin(origin) => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.origin = Some(origin.into());
                }
            }
            SourceEvent::Message {
                lsn,
                is_transactional,
                prefix,
                content,
            } => {
                let emitted = Emitted {
                    lsn,
                    is_transactional,
                    prefix,
                    content,
                };
                self.message(&emitted).await?;
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
        let Some(table) = self.streamed(relation, lsn).await? else {
            return Ok(());
        };
        let Some((place, context)) = self.place(&table, lsn, ordinal) else {
            return Ok(());
        };
        let template = &self.capture.template;
        let write = |drafts: &mut Drafts, op: &RowOp| {
            let written = drafts.write_row(template, &table, place, &context, op);
            written.map_err(|source| CaptureError::Row {
                table: relation.name.clone(),
                lsn,
                source,
            })
        };
        write(&mut self.drafts, op)?;
        let log = &self.capture.log;
        let fitted = oversize::fit(&mut self.drafts, log, (&table, lsn), op, write)?;
        let limit = self.capture.options.max_row_bytes;
        if let Some(error) = oversize::spooled_change(op, limit).or(fitted) {
            self.send_parts(&table, lsn, &context, &error).await?;
        }
        self.send_drafts(&table, lsn, &context).await
    }

    /// Sends what the drafts leave out, which makes markers of them.
    async fn send_parts(
        &mut self,
        table: &Table,
        lsn: Lsn,
        context: &Context,
        error: &str,
    ) -> Result<(), CaptureError> {
        self.capture.progress.oversize();
        warn!(table = %table.relation.name, %lsn, error, "a row is too large for its topic");
        let topic = self.capture.dead_letter().await?;
        let largest = self.capture.log.largest_record_bytes(&topic);
        let unread = |source| CaptureError::spool(&table.relation.name, lsn, source);
        for index in 0..self.drafts.records().len() {
            let draft = &mut self.drafts.records_mut()[index];
            let Some(mut parts) = Parts::of(draft, table, error, largest) else {
                continue;
            };
            while parts.measure().map_err(unread)? {
                self.tend().await?;
            }
            while let Some(value) = parts.next().map_err(unread)? {
                let (headers, at) = (parts.headers(), context.processed_at / 1_000_000);
                let record = parts.record(&topic, Some(&value), at, &headers);
                let sent = self.send_aside(&record).await;
                sent.map_err(|fault| CaptureError::record(&table.relation.name, lsn, fault))?;
                self.tend().await?;
            }
            self.drafts.records_mut()[index].oversize = Some(parts.oversize().to_bytes());
        }
        Ok(())
    }

    async fn truncate(
        &mut self,
        lsn: Lsn,
        ordinal: u64,
        relations: &[Arc<Relation>],
    ) -> Result<(), CaptureError> {
        for (relation, ordinal) in relations.iter().zip((ordinal..).step_by(2)) {
            let Some(table) = self.streamed(relation, lsn).await? else {
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

    async fn streamed(
        &mut self,
        relation: &Arc<Relation>,
        lsn: Lsn,
    ) -> Result<Option<Arc<Table>>, CaptureError> {
        let capture = &mut *self.capture;
        if self.tables.wants_schema(relation) {
            let declared = capture.source.declared(relation.oid).await?;
            self.tables.declare(&capture.template, relation, &declared);
        }
        let generation = self.term.generation;
        self.tables
            .streamed(relation, lsn, generation, &self.capture.options)
    }

    /// Where a change stands; none outside a transaction, which the source never sends.
    fn place(&mut self, table: &Table, lsn: Lsn, ordinal: u64) -> Option<(Place, Context)> {
        let transaction = self.transaction.as_mut()?;
        let place = Place {
            term: self.term,
            phase: Phase::Stream(transaction.commit_lsn),
            ordinal,
        };
        let context = Context {
            last_commit_lsn: self.last_commit,
            lsn,
            processed_at: self.now,
            ..transaction.next(&table.topic.name, &table.collection)
        };
        Some((place, context))
    }

    /// Sends a logical message to its topic, where one is wanted. It becomes part of the open entry: the slot is confirmed
    /// past it when Kafka has it.
    async fn message(&mut self, emitted: &Emitted) -> Result<(), CaptureError> {
        let Some(topic) = self.messages.topic.clone() else {
            debug!(lsn = %emitted.lsn, prefix = emitted.prefix, "logical messages are not forwarded");
            return Ok(());
        };
        let collection = self.messages.collection.clone();
        let transaction = self
            .transaction
            .as_mut()
            .filter(|_| emitted.is_transactional);
        let shared = transaction.map(|it| it.next(&topic.name, &collection));
        let context = Context {
            last_commit_lsn: self.last_commit,
            lsn: emitted.lsn,
            processed_at: self.now,
            ..shared.unwrap_or_else(|| Context::alone(self.now / 1_000))
        };
        if emitted.is_transactional {
            self.mark_begin().await?;
        }
        let (key, value) = emitted.record(&self.capture.template, &context);
        let record = Record {
            topic: &topic,
            key: Some(&key),
            value: Some(&value),
            timestamp: context.processed_at / 1_000_000,
            headers: &[],
        };
        self.send_aside(&record)
            .await
            .map_err(|fault| CaptureError::Message {
                prefix: emitted.prefix.clone(),
                lsn: emitted.lsn,
                fault,
            })?;
        if let Some(transaction) = self
            .transaction
            .as_mut()
            .filter(|_| emitted.is_transactional)
        {
            transaction.add(1, &topic.name, &collection);
        }
        Ok(())
    }

    /// Sends the transaction's BEGIN, where one is asked for, before its first event.
    async fn mark_begin(&mut self) -> Result<(), CaptureError> {
        match &self.transaction {
            Some(transaction) if transaction.events == 0 => {
                let marked = transaction.marked();
                self.mark(|| marked.begin()).await
            }
            _ => Ok(()),
        }
    }

    async fn send_drafts(
        &mut self,
        table: &Table,
        lsn: Lsn,
        context: &Context,
    ) -> Result<(), CaptureError> {
        self.mark_begin().await?;
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
                match sent
                    .map_err(|fault| CaptureError::record(&table.relation.name, lsn, fault))?
                {
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
            transaction.add(events, &table.topic.name, &table.collection);
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
        let (key, value) = envelope::marker(self.capture.options.modes, &key, &value);
        let record = Record {
            topic: &topic,
            key: Some(&key),
            value: Some(&value),
            timestamp: now_nanos() / 1_000_000,
            headers: &[],
        };
        Ok(self.send_aside(&record).await?)
    }

    /// Sends a record that no `commit` counts, as part of the open entry.
    async fn send_aside(&mut self, record: &Record<'_>) -> Result<(), Fault> {
        let entry = self.queue.open_entry();
        while self.capture.log.send_row(entry, record)? == Accepted::Full {
            self.wait_for_room().await?;
        }
        Ok(())
    }

    async fn commit(&mut self, commit_lsn: Lsn, end_lsn: Lsn) -> Result<(), CaptureError> {
        self.idle = self.idle.max(end_lsn);
        let Some(transaction) = self.transaction.take() else {
            return Ok(());
        };
        if transaction.events > 0 {
            let marked = transaction.marked();
            self.mark(|| marked.end(&transaction.collections)).await?;
        }
        // What is left of a transaction without rows is for a heartbeat to confirm.
        if transaction.records.is_empty() {
            return Ok(());
        }
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
        if self.transaction.is_some() || !self.is_beat_due() {
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

    fn is_beat_due(&self) -> bool {
        let heartbeat = self.capture.options.heartbeat;
        let waited = self.last_heartbeat.elapsed();
        if self.idle > self.covered {
            let is_urgent = self.is_reply_wanted;
            return waited >= if is_urgent { URGENT } else { heartbeat };
        }
        // No news but that there is a reader.
        let is_wanted = self.capture.options.is_alone && self.capture.log.outstanding().is_none();
        is_wanted && waited >= heartbeat
    }

    /// Gives other tasks their turn and tells the server that we are alive, in the middle of what takes long.
    async fn tend(&mut self) -> Result<(), CaptureError> {
        tokio::task::yield_now().await;
        tokio::select! {
            biased;
            _ = self.feedback.tick() => self.confirm().await,
            () = std::future::ready(()) => Ok(()),
        }
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

// === impl Messages ===

impl Messages {
    fn new(options: &CaptureOptions) -> Self {
        let topic = || Arc::new(messages::topic(&options.prefix));
        Self {
            topic: options.extra_topics.message.then(topic),
            collection: messages::COLLECTION.into(),
        }
    }
}

// === impl Transaction ===

impl Transaction {
    fn new(xid: u32, commit_lsn: Lsn, committed_at: i64) -> Self {
        Self {
            xid,
            commit_lsn,
            committed_at,
            origin: None,
            events: 0,
            collections: Vec::new(),
            records: Vec::new(),
        }
    }

    fn marked(&self) -> Marked {
        Marked {
            xid: self.xid,
            commit_lsn: self.commit_lsn,
            committed_at: self.committed_at,
        }
    }

    /// What the next event of a collection says of its transaction.
    fn next(&mut self, topic: &Arc<str>, collection: &Arc<str>) -> Context {
        let mark = TransactionMark {
            commit_lsn: self.commit_lsn,
            total_order: self.events + 1,
            data_collection_order: *self.events_of(topic, collection) + 1,
        };
        Context {
            xid: self.xid,
            transaction: Some(mark),
            origin: self.origin.clone(),
            ..Context::alone(self.committed_at)
        }
    }

    /// Counts events of a collection.
    fn add(&mut self, events: u64, topic: &Arc<str>, collection: &Arc<str>) {
        self.events += events;
        *self.events_of(topic, collection) += events;
    }

    fn events_of(&mut self, topic: &Arc<str>, collection: &Arc<str>) -> &mut u64 {
        let is_its = |it: &CollectionEvents| Arc::ptr_eq(&it.topic, topic);
        let known = self.collections.iter().position(is_its);
        let index = known.unwrap_or_else(|| {
            self.collections.push(CollectionEvents {
                topic: topic.clone(),
                collection: collection.clone(),
                events: 0,
            });
            self.collections.len() - 1
        });
        &mut self.collections[index].events
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
