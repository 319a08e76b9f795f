//! Reading the log: one consumer whose partitions are read each from a queue of its own.
//!
//! - Every partition is read from an explicit offset, and each record once and in order.
//! - What is waited for in a select holds no record: dropping it loses none.
//! - The budget holds for partitions that are added: when they outgrow it, a new consumer reads on
//!   where the old one was, and the numbers given out stay.
//! - Brokers that are away are waited for; a record that is gone is an error.
//! - After an error the reader is to be assigned anew.
//! - Published offsets are the newest given, at most one request per `PUBLISH`.

pub(crate) mod queue;
pub(crate) mod reading;
pub(crate) mod record;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::Notify;
use tracing::debug;
use walferry_core::{Bounds, Fault, LogEntry, LogReader, Partition, PartitionOffset, RowRecord};

use crate::client::{Consumer, blocking, drop_beside};
use crate::log_scan::LogScan;
use crate::{Error, Settings};
use reading::{Arrivals, EVENTS, Reading, Row, add_offset};

const LEARN: Duration = Duration::from_secs(1);
const SEEK: Duration = Duration::from_secs(10);
/// Lag tools look every few seconds at most; a group ends every few milliseconds.
const PUBLISH: Duration = Duration::from_secs(1);
const SEEK_AGAIN: Duration = Duration::from_millis(5);

/// Kafka as the sink reads it.
pub struct KafkaLogReader {
    settings: Arc<Settings>,
    commit_log: Arc<str>,
    reading: Option<Reading>,
    arrivals: Arc<Arrivals>,
    pub(crate) scan: LogScan,
    /// Offsets that are yet to be published.
    unpublished: Option<TopicPartitionList>,
    published_at: Option<Instant>,
}

// === impl KafkaLogReader ===

impl KafkaLogReader {
    /// A reader in the cluster of these settings; connects to nothing yet.
    pub fn new(settings: Settings) -> Self {
        let settings = Arc::new(settings);
        let commit_log: Arc<str> = settings.commit_log().into();
        Self {
            scan: LogScan::new(settings.clone(), commit_log.clone()),
            settings,
            commit_log,
            reading: None,
            arrivals: Arc::default(),
            unpublished: None,
            published_at: None,
        }
    }

    /// Connects, so that the first question finds a connection; an answer is not needed yet.
    pub async fn reach(&self) {
        if let Err(error) = self.scan.log_bounds().await {
            debug!(%error, "the log is not there yet");
        }
    }

    async fn start(
        &mut self,
        log: i64,
        rows: &BTreeMap<PartitionOffset, i64>,
    ) -> Result<(), Error> {
        self.publish();
        if let Some(old) = self.reading.take() {
            drop_beside(old);
        }
        let rows: Vec<_> = rows
            .iter()
            .map(|(name, offset)| (name.clone(), *offset))
            .collect();
        self.reading = Some(self.connect(rows.len() + 1, log, rows).await?);
        Ok(())
    }

    async fn connect(
        &self,
        shares: usize,
        log: i64,
        rows: Vec<(PartitionOffset, i64)>,
    ) -> Result<Reading, Error> {
        let log_name = PartitionOffset {
            topic: self.commit_log.clone(),
            partition: 0,
        };
        let (settings, arrivals) = (self.settings.clone(), self.arrivals.clone());
        blocking(move || Reading::start((&settings, shares), (log_name, log), rows, &arrivals))
            .await
    }

    async fn number(&mut self, name: &PartitionOffset) -> Result<Partition, Error> {
        let reading = self.reading.as_ref().ok_or(Error::NotAssigned)?;
        if let Some(number) = reading.numbers.get(name) {
            return Ok(*number);
        }
        let Bounds { first, .. } = self.scan.bounds(&name.topic, name.partition).await?;
        if reading.is_full(&self.settings) {
            return self.outgrow(name, first).await;
        }
        let (consumer, topic) = (reading.consumer.clone(), name.topic.clone());
        blocking(move || {
            learn(&consumer, &topic);
            Ok(())
        })
        .await?;
        let reading = self.reading.as_mut().ok_or(Error::NotAssigned)?;
        reading.add(name.clone(), first, &self.arrivals)
    }

    /// Reads on with a new consumer that has room for one more partition, and for some after it.
    ///
    /// What the old one had fetched is fetched again, except the records that were looked at.
    async fn outgrow(&mut self, name: &PartitionOffset, first: i64) -> Result<Partition, Error> {
        let old = self.reading.as_ref().ok_or(Error::NotAssigned)?;
        let (number, log) = (Partition(old.rows.len()), old.log.next);
        let shares = (old.rows.len() + 2).next_power_of_two();
        let mut rows = old.next_offsets();
        rows.push((name.clone(), first));
        let mut new = self.connect(shares, log, rows).await?;
        if let Some(mut old) = self.reading.take() {
            new.take_over(&mut old);
            drop_beside(old);
        }
        self.reading = Some(new);
        debug!(shares, "shared out the fetch budget anew");
        Ok(number)
    }

    fn reading(&mut self) -> Result<&mut Reading, Error> {
        self.reading.as_mut().ok_or(Error::NotAssigned)
    }

    fn row(&mut self, partition: Partition) -> Result<&mut Row, Error> {
        self.reading()?
            .rows
            .get_mut(partition.0)
            .ok_or(Error::NotAssigned)
    }

    fn poll_log(&mut self) -> Result<Option<LogEntry>, Error> {
        self.reading()?.next_log()
    }

    /// Waits for a wake-up, or until the client's events are due.
    async fn wait(&mut self, what: impl FnOnce(&Arrivals) -> &Notify) -> Result<(), Error> {
        let due = self.see_events()?;
        tokio::select! {
            biased;
            () = what(&self.arrivals).notified() => {}
            () = tokio::time::sleep(due) => {}
        }
        Ok(())
    }

    /// Looks at the client's events, and publishes what is due; how long until that is due again.
    fn see_events(&mut self) -> Result<Duration, Error> {
        let due = self.reading()?.see_events()?;
        self.publish_when_due();
        Ok(due)
    }

    fn publish_when_due(&mut self) {
        if self.published_at.is_none_or(|at| at.elapsed() >= PUBLISH) {
            self.publish();
        }
    }

    fn publish(&mut self) {
        let (Some(reading), Some(offsets)) = (&self.reading, self.unpublished.take()) else {
            return;
        };
        self.published_at = Some(Instant::now());
        if let Err(error) = reading.consumer.commit(&offsets, CommitMode::Async) {
            debug!(%error, "publishing offsets failed");
        }
    }

    async fn seek(&mut self, offset: i64) -> Result<(), Error> {
        let deadline = Instant::now() + SEEK;
        loop {
            let topic = self.commit_log.clone();
            let consumer = self.reading()?.consumer.clone();
            match blocking(move || seek(&consumer, &topic, offset)).await {
                Ok(()) => break,
                // Not started yet, for it was assigned just now.
                Err(_) if Instant::now() < deadline => tokio::time::sleep(SEEK_AGAIN).await,
                Err(error) => return Err(error),
            }
        }
        self.reading()?.log.next = offset;
        Ok(())
    }
}

impl LogReader for KafkaLogReader {
    async fn assign(
        &mut self,
        log: i64,
        rows: &BTreeMap<PartitionOffset, i64>,
    ) -> Result<(), Fault> {
        Ok(self.start(log, rows).await?)
    }

    async fn partition(&mut self, name: &PartitionOffset) -> Result<Partition, Fault> {
        Ok(self.number(name).await?)
    }

    async fn next_log(&mut self) -> Result<LogEntry, Fault> {
        loop {
            if let Some(entry) = self.poll_log()? {
                return Ok(entry);
            }
            self.wait(|arrivals| &arrivals.log).await?;
        }
    }

    fn buffered_log(&mut self) -> Result<Option<LogEntry>, Fault> {
        Ok(self.poll_log()?)
    }

    async fn seek_log(&mut self, offset: i64) -> Result<(), Fault> {
        Ok(self.seek(offset).await?)
    }

    fn peek(&mut self, partition: Partition) -> Result<Option<&RowRecord>, Fault> {
        Ok(self.row(partition)?.peek()?)
    }

    fn take(&mut self, partition: Partition) -> Option<RowRecord> {
        self.row(partition).ok()?.ahead.take()
    }

    fn offset(&self, partition: Partition) -> i64 {
        let row = self
            .reading
            .as_ref()
            .and_then(|reading| reading.rows.get(partition.0));
        let row = row.expect("a partition's number comes from the assignment that is being read");
        row.ahead
            .as_ref()
            .map_or(row.queue.next, |record| record.offset)
    }

    async fn arrived(&mut self) -> Result<(), Fault> {
        let mut waited = self.reading()?.events_seen;
        loop {
            tokio::select! {
                biased;
                () = self.arrivals.rows.notified() => return Ok(()),
                () = tokio::time::sleep_until((waited + EVENTS).into()) => {}
            }
            self.see_events()?;
            waited = self.reading()?.events_seen;
        }
    }

    async fn bounds(&mut self, name: &PartitionOffset) -> Result<Bounds, Fault> {
        Ok(self.scan.bounds(&name.topic, name.partition).await?)
    }

    async fn log_bounds(&mut self) -> Result<Bounds, Fault> {
        Ok(self.scan.log_bounds().await?)
    }

    async fn look_ahead(&mut self, from: i64, limit: usize) -> Result<Vec<LogEntry>, Fault> {
        Ok(self.scan.read(from, limit).await?)
    }

    fn publish_offsets(&mut self, log: i64, rows: &BTreeMap<PartitionOffset, i64>) {
        let mut offsets = TopicPartitionList::with_capacity(rows.len() + 1);
        let log_name = PartitionOffset {
            topic: self.commit_log.clone(),
            partition: 0,
        };
        let added = add_offset(&mut offsets, &log_name, log).and_then(|()| {
            rows.iter()
                .try_for_each(|(name, at)| add_offset(&mut offsets, name, *at))
        });
        match added {
            Ok(()) => self.unpublished = Some(offsets),
            Err(error) => debug!(%error, "publishing offsets failed"),
        }
        self.publish_when_due();
    }
}

impl Drop for KafkaLogReader {
    fn drop(&mut self) {
        self.publish();
        if let Some(reading) = self.reading.take() {
            drop_beside(reading);
        }
    }
}

/// Tells the consumer of a topic; may block. Left alone, it asks within a second.
fn learn(consumer: &Consumer, topic: &str) {
    if let Err(error) = consumer.fetch_metadata(Some(topic), LEARN) {
        debug!(%error, topic, "the consumer will ask again for the topic");
    }
}

/// Moves the commit log's partition; may block. Records fetched before are void at once.
fn seek(consumer: &Consumer, topic: &str, offset: i64) -> Result<(), Error> {
    let sought = consumer.seek(topic, 0, Offset::Offset(offset), SEEK);
    let topic = topic.to_owned();
    sought.map_err(|source| Error::Read {
        topic,
        partition: 0,
        offset,
        source,
    })
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;

    use super::*;

    #[tokio::test]
    async fn the_budget_holds_for_partitions_that_are_added() {
        let kafka = MockCluster::new(1).expect("a cluster");
        let settings = Settings::new(kafka.bootstrap_servers(), "p");
        let make = |topic: &str, partitions| {
            let made = kafka.create_topic(topic, partitions, 1);
            made.expect("a topic");
        };
        make(&settings.commit_log(), 1);
        make("rows", 20);
        let mut reader = KafkaLogReader::new(settings.clone());
        reader.assign(0, &BTreeMap::new()).await.expect("assigned");
        for partition in 0..20 {
            let topic = "rows".into();
            let name = PartitionOffset { topic, partition };
            let number = reader.partition(&name).await.expect("a number");
            assert_eq!(usize::try_from(partition), Ok(number.0));
            let reading = reader.reading().expect("it is assigned");
            let share = settings.fetch_share_bytes(reading.shares);
            let ahead = share * (reading.rows.len() + 1);
            assert!(ahead <= settings.fetch_budget_bytes, "{ahead} bytes");
        }
    }
}
