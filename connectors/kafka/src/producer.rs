//! Writing the log: idempotent producers of each term, one for each pace.
//!
//! - A term's second producer is made when its pace is first asked for. Only one of the two has
//!   records in flight at a time, so their order is that of one.
//! - A term's producer is dropped with all that it still holds before the next is made.
//! - What an old producer reports late reaches nobody: its acknowledgements are its own.
//! - Batches are no larger than the smallest topic takes: a term begins before that is known, and
//!   its producer is made anew when a smaller topic shows up while nothing is in flight.
//! - A record that is too large is refused before it is sent.
//! - The first record of a partition goes alone: behind it nothing can be taken in its place.
//! - Only a record whose offset the broker told is delivered.

mod deliveries;
mod flow;
mod openings;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer,
};
use rdkafka::{ClientContext, Message};
use tracing::{debug, info};
use walferry_core::{Accepted, Fault, Log, LogEntry, LogTail, Pace, Record, TopicSpec};
use walferry_schema::LogRecord;

use crate::client::{Context, blocking, drop_beside};
use crate::log_scan::LogScan;
use crate::settings::{BATCH_OVERHEAD_BYTES, batch_bytes, create};
use crate::topics::Limits;
use crate::{Error, Settings, partition_of, topics};
use deliveries::{Deliveries, Opaque};
pub use flow::Flow;
use openings::{Openings, Turn};

/// How long a new term waits for its first connection; it goes on without.
const CONNECT: Duration = Duration::from_millis(300);
/// How long a new producer waits before it asks about metadata, each time after the answer before.
const ASKED_AFTER_MILLIS: [u64; 3] = [0, 10, 20];
const SLOW_DROP: Duration = Duration::from_secs(1);

/// Kafka as the reader writes it.
pub struct KafkaLog {
    settings: Arc<Settings>,
    commit_log: Arc<str>,
    /// Of all topics since this was made: a term writes to them again.
    limits: Limits,
    term: Option<Term>,
    flow: Arc<Flow>,
    scan: LogScan,
}

type Producer = ThreadedProducer<DeliveryContext>;

/// The producers of a term.
struct Term {
    prompt: Producer,
    /// None until the reader first has much to send.
    bulk: Option<Producer>,
    pace: Pace,
    deliveries: Arc<Deliveries>,
    batch_bytes: usize,
}

struct DeliveryContext {
    client: Context,
    deliveries: Arc<Deliveries>,
    openings: Openings,
}

/// What is sent, before it is librdkafka's.
struct Outgoing<'a> {
    topic: &'a str,
    partition: i32,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    timestamp: Option<i64>,
    headers: Option<OwnedHeaders>,
}

// === impl KafkaLog ===

impl KafkaLog {
    /// A log in the cluster of these settings; connects to nothing yet.
    pub fn new(settings: Settings) -> Self {
        let settings = Arc::new(settings);
        let commit_log: Arc<str> = settings.commit_log().into();
        Self {
            scan: LogScan::new(settings.clone(), commit_log.clone()),
            settings,
            commit_log,
            limits: Limits::new(),
            term: None,
            flow: Arc::default(),
        }
    }

    /// Shows how records flow, over all terms.
    pub fn flow(&self) -> Arc<Flow> {
        self.flow.clone()
    }

    fn term(&self) -> Result<&Term, Error> {
        self.term.as_ref().ok_or(Error::NotBegun)
    }

    /// What the settings admit, or less where the topic takes only that.
    fn largest_bytes(&self, topic: &str) -> usize {
        let taken = self.limits.get(topic).copied().unwrap_or(usize::MAX);
        let taken = taken.saturating_sub(BATCH_OVERHEAD_BYTES);
        taken.min(self.settings.max_record_bytes)
    }

    fn check_size(&self, topic: &str, bytes: usize) -> Result<(), Error> {
        let limit = self.largest_bytes(topic);
        if bytes > limit {
            return Err(Error::TooLarge {
                topic: topic.to_owned(),
                bytes,
                limit,
            });
        }
        Ok(())
    }

    async fn new_term(&mut self) -> Result<(), Error> {
        if let Some(old) = self.term.take() {
            blocking(move || {
                old.end();
                Ok(())
            })
            .await?;
        }
        let limit = self.limits.values().min().copied();
        let (settings, topic) = (self.settings.clone(), self.commit_log.clone());
        let deliveries = Arc::new(Deliveries::default());
        self.flow.begin(&deliveries);
        let begin = move || Term::begin(&settings, limit, deliveries, &topic);
        self.term = Some(blocking(begin).await?);
        Ok(())
    }

    async fn set_pace(&mut self, pace: Pace) -> Result<(), Error> {
        let limit = self.limits.values().min().copied();
        let (settings, topic) = (self.settings.clone(), self.commit_log.clone());
        let term = self.term.as_mut().ok_or(Error::NotBegun)?;
        term.deliveries.check()?;
        if !term.deliveries.is_idle() {
            return Err(Error::InFlight);
        }
        if pace == Pace::Bulk && term.bulk.is_none() {
            let deliveries = term.deliveries.clone();
            let make = move || producer(&settings, pace, limit, &deliveries, &topic);
            term.bulk = Some(blocking(make).await?);
        }
        term.pace = pace;
        Ok(())
    }

    async fn append_bytes(&self, value: &[u8]) -> Result<i64, Error> {
        self.check_size(&self.commit_log, value.len())?;
        let term = self.term()?;
        let offset = loop {
            let (opaque, offset) = term.deliveries.add_awaited()?;
            match term.send(Outgoing::log(&self.commit_log, value), opaque)? {
                Accepted::Partition(_) => break offset,
                Accepted::Full => term.deliveries.progress().await?,
            }
        };
        let failed = || term.deliveries.check().err().unwrap_or(Error::NoOffset);
        offset.await.map_err(|_| failed())
    }

    fn send_row_record(&self, entry: u64, record: &Record<'_>) -> Result<Accepted, Error> {
        self.check_size(&record.topic.name, record.bytes())?;
        let term = self.term()?;
        let opaque = term.deliveries.add(entry)?;
        let outgoing = Outgoing {
            topic: &record.topic.name,
            partition: partition_of(record.key, record.topic.partitions),
            key: record.key,
            value: record.value,
            timestamp: Some(record.timestamp),
            headers: (!record.headers.is_empty()).then(|| owned_headers(record.headers)),
        };
        term.send(outgoing, opaque)
    }

    fn send_log_record(&self, entry: u64, value: &[u8]) -> Result<Accepted, Error> {
        self.check_size(&self.commit_log, value.len())?;
        let term = self.term()?;
        let opaque = term.deliveries.add(entry)?;
        term.send(Outgoing::log(&self.commit_log, value), opaque)
    }
}

impl Log for KafkaLog {
    async fn ensure_topics(&mut self, topics: &[TopicSpec]) -> Result<(), Fault> {
        let commit_log = TopicSpec {
            name: self.commit_log.clone(),
            partitions: 1,
        };
        let wanted: Vec<_> = topics.iter().cloned().chain([commit_log]).collect();
        self.limits
            .extend(topics::ensure(&self.settings, &wanted).await?);
        let batch = batch_bytes(self.limits.values().min().copied());
        let is_too_large = |term: &Term| term.batch_bytes > batch && term.deliveries.is_idle();
        if self.term.as_ref().is_some_and(is_too_large) {
            debug!(batch, "a topic takes only smaller batches");
            self.new_term().await?;
        }
        Ok(())
    }

    async fn begin(&mut self) -> Result<(), Fault> {
        Ok(self.new_term().await?)
    }

    async fn append(&mut self, record: &LogRecord) -> Result<i64, Fault> {
        Ok(self.append_bytes(&record.to_bytes()).await?)
    }

    fn send_row(&mut self, entry: u64, record: &Record<'_>) -> Result<Accepted, Fault> {
        Ok(self.send_row_record(entry, record)?)
    }

    fn check_row(&self, record: &Record<'_>) -> Result<(), Fault> {
        Ok(self.check_size(&record.topic.name, record.bytes())?)
    }

    fn largest_record_bytes(&self, topic: &TopicSpec) -> usize {
        self.largest_bytes(&topic.name)
    }

    fn send_log(&mut self, entry: u64, record: &[u8]) -> Result<Accepted, Fault> {
        Ok(self.send_log_record(entry, record)?)
    }

    fn outstanding(&self) -> Option<u64> {
        self.term
            .as_ref()
            .and_then(|term| term.deliveries.outstanding())
    }

    async fn pace(&mut self, pace: Pace) -> Result<(), Fault> {
        Ok(self.set_pace(pace).await?)
    }

    async fn progress(&mut self) -> Result<(), Fault> {
        Ok(self.term()?.deliveries.progress().await?)
    }

    async fn bounds(&mut self) -> Result<LogTail, Fault> {
        let bounds = self.scan.log_bounds().await?;
        Ok(LogTail {
            first: bounds.first,
            end: bounds.end,
        })
    }

    async fn read(&mut self, from: i64, limit: usize) -> Result<Vec<LogEntry>, Fault> {
        Ok(self.scan.read(from, limit).await?)
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        if let Some(term) = self.term.take() {
            drop_beside(term);
        }
    }
}

// === impl Term ===

impl Term {
    /// Makes the first producer; may block.
    fn begin(
        settings: &Settings,
        limit: Option<usize>,
        deliveries: Arc<Deliveries>,
        topic: &str,
    ) -> Result<Self, Error> {
        let pace = Pace::Prompt;
        Ok(Self {
            prompt: producer(settings, pace, limit, &deliveries, topic)?,
            bulk: None,
            pace,
            deliveries,
            batch_bytes: batch_bytes(limit),
        })
    }

    fn producers(&self) -> impl Iterator<Item = &Producer> {
        self.bulk.iter().chain([&self.prompt])
    }

    /// Gives up what is not delivered; blocks for the producer's threads.
    fn end(self) {
        let started = Instant::now();
        let given_up: i32 = self.producers().map(Producer::in_flight_count).sum();
        for producer in self.producers() {
            producer.purge(PurgeConfig::default().queue().inflight());
        }
        drop(self);
        let took = started.elapsed();
        if given_up > 0 || took > SLOW_DROP {
            info!(given_up, ?took, "dropped the producer of the term before");
        }
    }

    fn send(&self, outgoing: Outgoing<'_>, opaque: Opaque) -> Result<Accepted, Error> {
        let (topic, partition) = (outgoing.topic, outgoing.partition);
        let producer = match (self.pace, &self.bulk) {
            (Pace::Bulk, Some(bulk)) => bulk,
            _ => &self.prompt,
        };
        let openings = &producer.context().openings;
        let turn = openings.turn(topic, partition);
        if turn == Turn::Wait {
            self.deliveries.put_off(opaque);
            return Ok(Accepted::Full);
        }
        let record: BaseRecord<'_, [u8], [u8], usize> = BaseRecord {
            topic,
            partition: Some(partition),
            payload: outgoing.value,
            key: outgoing.key,
            timestamp: outgoing.timestamp,
            headers: outgoing.headers,
            delivery_opaque: opaque.0,
        };
        let Err((error, record)) = producer.send(record) else {
            return Ok(Accepted::Partition(partition));
        };
        if turn == Turn::First {
            openings.close(topic, partition);
        }
        if error.rdkafka_error_code() == Some(Code::QueueFull) {
            self.deliveries.refused(opaque);
            return Ok(Accepted::Full);
        }
        let bytes = record.key.map_or(0, <[u8]>::len) + record.payload.map_or(0, <[u8]>::len);
        // Ends the term; its first failure is the cause, a later one only a consequence.
        self.deliveries.failed(topic, bytes, &error);
        self.deliveries.check()?;
        Err(Error::delivery(topic, bytes, error))
    }
}

// === impl Outgoing ===

impl<'a> Outgoing<'a> {
    fn log(topic: &'a str, value: &'a [u8]) -> Self {
        let value = Some(value);
        Self {
            topic,
            partition: 0,
            key: None,
            value,
            timestamp: None,
            headers: None,
        }
    }
}

// === impl DeliveryContext ===

impl ClientContext for DeliveryContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.client.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.client.error(error, reason);
    }
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        match result {
            // What librdkafka concluded: no broker said that it is in the log.
            Ok(message) if message.offset() < 0 => {
                let bytes = message.key_len() + message.payload_len();
                let error = KafkaError::MessageProduction(Code::Inconsistent);
                self.deliveries.failed(message.topic(), bytes, &error);
            }
            Ok(message) => {
                self.client.works();
                let (topic, offset) = (message.topic(), message.offset());
                if self.openings.opened(topic, message.partition()) {
                    self.deliveries.announce();
                }
                self.deliveries.delivered(Opaque(opaque), offset);
            }
            Err((error, message)) => {
                let bytes = message.key_len() + message.payload_len();
                self.deliveries.failed(message.topic(), bytes, error);
            }
        }
    }
}

/// Makes a producer and connects it; blocks.
#[expect(
    clippy::disallowed_methods,
    reason = "it is called beside the runtime, and what it waits for is not told"
)]
fn producer(
    settings: &Settings,
    pace: Pace,
    limit: Option<usize>,
    deliveries: &Arc<Deliveries>,
    topic: &str,
) -> Result<Producer, Error> {
    let config = settings.producer(pace, limit)?;
    let client = Context::new(match pace {
        Pace::Prompt => "producer",
        Pace::Bulk => "bulk producer",
    });
    let context = DeliveryContext {
        client,
        deliveries: deliveries.clone(),
        openings: Openings::default(),
    };
    let producer: Producer = create(&config, context)?;
    // Left alone, librdkafka asks for its producer id half a second after it was made, and again after
    // another when it found no connection up at that moment, as it happens while the first answer about
    // the cluster is worked in. Any answer about metadata makes it ask at once.
    for pause in ASKED_AFTER_MILLIS {
        std::thread::sleep(Duration::from_millis(pause));
        if let Err(error) = producer.client().fetch_metadata(Some(topic), CONNECT) {
            debug!(%error, "the producer will connect later");
            break;
        }
    }
    Ok(producer)
}

/// A record's headers as librdkafka takes them.
pub(crate) fn owned_headers(headers: &[(&str, &[u8])]) -> OwnedHeaders {
    let owned = OwnedHeaders::new_with_capacity(headers.len());
    headers.iter().fold(owned, |owned, (key, value)| {
        owned.insert(Header {
            key,
            value: Some(*value),
        })
    })
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
    use walferry_core::Class;
    use walferry_schema::{Heartbeat, Lsn, Term as LogTerm};

    use super::*;

    fn heartbeat(lsn: u64) -> LogRecord {
        LogRecord::Heartbeat(Heartbeat {
            after: Lsn::ZERO,
            term: LogTerm {
                generation: 1,
                number: 0,
            },
            lsn: Lsn(lsn),
        })
    }

    async fn begun() -> (
        MockCluster<'static, rdkafka::producer::DefaultProducerContext>,
        KafkaLog,
    ) {
        let kafka = MockCluster::new(1).expect("a cluster");
        let settings = Settings::new(kafka.bootstrap_servers(), "p");
        let made = kafka.create_topic(&settings.commit_log(), 1, 1);
        made.expect("a topic");
        let mut log = KafkaLog::new(settings);
        log.begin().await.expect("a term");
        (kafka, log)
    }

    #[tokio::test]
    async fn a_record_that_is_only_said_to_be_there_already_ends_the_term() {
        let (kafka, mut log) = begun().await;
        let there = RDKafkaRespErr::RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER;
        kafka.request_errors(RDKafkaApiKey::Produce, &[there]);
        let sent = log.send_log(7, &heartbeat(1).to_bytes());
        assert_eq!(sent.expect("it is sent"), Accepted::Partition(0));
        let ended = log.progress().await.expect_err("nobody has its offset");
        assert_eq!(ended.class(), Class::Transient);
        assert_eq!(log.outstanding(), Some(7));
    }

    /// The leader of a new topic is not ready for the first batch, and is for the one behind it.
    #[tokio::test]
    async fn a_first_record_that_was_refused_is_not_lost_behind_one_that_was_taken() {
        let (kafka, mut log) = begun().await;
        let slow = kafka.broker_round_trip_time(1, Duration::from_millis(200));
        slow.expect("a slow broker");
        let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION;
        kafka.request_errors(RDKafkaApiKey::Produce, &[refusal]);
        let records = [heartbeat(1), heartbeat(2)];
        for (entry, record) in (0..).zip(&records) {
            while log.send_log(entry, &record.to_bytes()).expect("it is sent") == Accepted::Full {
                log.progress().await.expect("its turn comes");
            }
            // Each is a batch of its own, and both are on their way.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(log.flow().waiting(), Some(1));
        while log.outstanding().is_some() {
            log.progress().await.expect("they are delivered");
        }
        assert_eq!(log.flow().waiting(), None);
        let read = log.read(0, 3).await.expect("the log");
        let read: Vec<_> = read.into_iter().map(|entry| entry.record).collect();
        assert_eq!(read, records);
    }
}
