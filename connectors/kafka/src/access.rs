//! What a pipeline's user may do in Kafka, tried out.
//!
//! - Nothing is changed: topics are only validated, and no record is sent.
//! - Reading can be tried on topics that are there; writing on none, but only who may write to some gets a producer's id.
//! - What does not answer in time is not told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::Consumer as _;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};
use walferry_core::{Finding, Pace, TopicSpec};

use crate::client::{ANSWER, Admin, Consumer, Context, blocking};
use crate::error::{is_denied, is_passing};
use crate::settings::create;
use crate::{Error, Settings};

/// How long what is tried may take to answer.
const PATIENCE: Duration = Duration::from_secs(4);
const POLL: Duration = Duration::from_millis(10);
const SUBJECT: &str = "Kafka: access";

/// Tries what a pipeline over these topics does, of which some are there.
pub(crate) async fn examine(
    admin: &Admin,
    settings: &Settings,
    wanted: &[TopicSpec],
    there: &[&TopicSpec],
) -> Result<Vec<Finding>, Error> {
    let names: Vec<Arc<str>> = there.iter().map(|topic| topic.name.clone()).collect();
    let (own, others) = (settings.clone(), settings.clone());
    let (made, read, wrote) = tokio::join!(
        make(admin, settings, wanted, there),
        blocking(move || read(&own, &names)),
        blocking(move || write(&others)),
    );
    let mut findings = made?;
    findings.extend(read?);
    findings.extend(wrote?);
    if findings.is_empty() {
        let found = "nothing that was tried is refused";
        findings.push(Finding::pass(SUBJECT, found));
    }
    Ok(findings)
}

/// The statement that allows an operation on the topics of a pipeline.
pub(crate) fn allow(settings: &Settings, operation: &str) -> String {
    let topics = format!(
        "--resource-pattern-type prefixed --topic {}.",
        settings.prefix
    );
    statement(settings, &topics, operation)
}

fn statement(settings: &Settings, on: &str, operation: &str) -> String {
    let user = settings.extra.get("sasl.username");
    let user = user.map_or("WALFERRY'S", String::as_str);
    format!(
        "kafka-acls.sh --bootstrap-server {} --add --allow-principal User:{user} {on} --operation {operation}",
        settings.brokers
    )
}

/// Whether topics can be made, and whether one that is there is hidden from us.
async fn make(
    admin: &Admin,
    settings: &Settings,
    wanted: &[TopicSpec],
    there: &[&TopicSpec],
) -> Result<Vec<Finding>, Error> {
    let replicas = settings.replication.unwrap_or(-1);
    let new = wanted.iter().map(|topic| {
        let replication = TopicReplication::Fixed(replicas);
        NewTopic::new(&topic.name, topic.partitions, replication)
    });
    let new: Vec<_> = new.collect();
    let options = AdminOptions::new()
        .request_timeout(Some(ANSWER))
        .validate_only(true);
    let answers = admin.create_topics(&new, &options).await;
    let answers = answers.map_err(|error| Error::ask("new topics", error))?;
    let seen: BTreeSet<&str> = there.iter().map(|topic| &*topic.name).collect();
    let mut findings = Vec::new();
    for (topic, code) in answers.into_iter().filter_map(Result::err) {
        let is_seen = seen.contains(&*topic);
        if is_denied(code) && is_seen {
            let found = "may make no topic for another table";
            let remedy = allow(settings, "Create");
            return Ok(vec![Finding::warn(SUBJECT, found, remedy)]);
        }
        if is_denied(code) {
            let found = format!("may not make topic {topic}");
            findings.push(Finding::fail(SUBJECT, found, allow(settings, "Create")));
        }
        if code == Code::TopicAlreadyExists && !is_seen {
            let found = format!("may not see topic {topic}, which is there");
            findings.push(Finding::fail(SUBJECT, found, allow(settings, "Describe")));
        }
    }
    // One statement mends them all.
    findings.truncate(1);
    Ok(findings)
}

/// Whether topics can be read, and the group be used; blocks.
fn read(settings: &Settings, topics: &[Arc<str>]) -> Result<Vec<Finding>, Error> {
    let mut config = settings.consumer(topics.len())?;
    config.set("enable.partition.eof", "true");
    let consumer: Arc<Consumer> = Arc::new(create(&config, Context::new("check"))?);
    let mut findings = Vec::new();
    if is_group_refused(&consumer, settings) {
        let group = &settings.group;
        let found = format!("may not use group {group}: tools that show lag will not see it");
        let remedy = statement(settings, &format!("--group {group}"), "Read");
        findings.push(Finding::warn(SUBJECT, found, remedy));
    }
    if let Some(topic) = unreadable(&consumer, topics)? {
        let found = format!("may not read topic {topic}");
        findings.push(Finding::fail(SUBJECT, found, allow(settings, "Read")));
    }
    Ok(findings)
}

/// The first topic that Kafka does not let us read.
fn unreadable(consumer: &Arc<Consumer>, topics: &[Arc<str>]) -> Result<Option<Arc<str>>, Error> {
    let mut ends = TopicPartitionList::with_capacity(topics.len());
    let mut waiting = Vec::with_capacity(topics.len());
    for topic in topics {
        let added = ends.add_partition_offset(topic, 0, Offset::End);
        added.map_err(Error::Assign)?;
        let queue = consumer.split_partition_queue(topic, 0);
        waiting.push((topic, queue.ok_or(Error::NotAssigned)?));
    }
    consumer.assign(&ends).map_err(Error::Assign)?;
    let (started, mut denied) = (Instant::now(), None);
    while !waiting.is_empty() && denied.is_none() && started.elapsed() < PATIENCE {
        let _ = consumer.poll(POLL);
        waiting.retain(|(topic, queue)| {
            let is_denied = answer(queue);
            if is_denied == Some(true) {
                denied.get_or_insert_with(|| Arc::clone(topic));
            }
            is_denied.is_none()
        });
    }
    Ok(denied)
}

/// Whether Kafka does not allow reading a partition; none before it answers.
fn answer(queue: &PartitionQueue<Context>) -> Option<bool> {
    let error = match queue.poll(Duration::ZERO)? {
        // Its end is an error too.
        Err(error) => error.rdkafka_error_code(),
        Ok(_) => None,
    };
    match error {
        Some(code) if is_denied(code) => Some(true),
        Some(code) if is_passing(code) => None,
        _ => Some(false),
    }
}

/// Whether the group is refused. That is an event, which ends no question: the one about offsets waits in vain.
fn is_group_refused(consumer: &Consumer, settings: &Settings) -> bool {
    let mut log = TopicPartitionList::with_capacity(1);
    log.add_partition(&settings.commit_log(), 0);
    if consumer.committed_offsets(log, PATIENCE).is_ok() {
        return false;
    }
    let mut events = std::iter::from_fn(|| consumer.poll(Duration::ZERO));
    events.any(|event| {
        let code = event.err().and_then(|error| error.rdkafka_error_code());
        code == Some(Code::GroupAuthorizationFailed)
    })
}

/// Whether any topic can be written to; blocks.
fn write(settings: &Settings) -> Result<Option<Finding>, Error> {
    let mut config = settings.producer(Pace::Prompt, None)?;
    config.set("statistics.interval.ms", "50");
    let producer: BaseProducer<Asking> = create(&config, Asking::default())?;
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        producer.poll(POLL);
        if producer.context().has_id.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if let Some((code, _)) = producer.client().fatal_error() {
            let found = "may write to no topic";
            let denied = Finding::fail(SUBJECT, found, allow(settings, "Write"));
            return Ok(is_denied(code).then_some(denied));
        }
    }
    Ok(None)
}

/// A producer that waits for its id.
#[derive(Default)]
struct Asking {
    has_id: AtomicBool,
}

// === impl Asking ===

impl ClientContext for Asking {
    fn log(&self, _level: RDKafkaLogLevel, _facility: &str, _message: &str) {}

    fn error(&self, _error: KafkaError, _reason: &str) {}

    fn stats(&self, statistics: Statistics) {
        let id = statistics.eos.map(|it| it.producer_id);
        if id.is_some_and(|id| id >= 0) {
            self.has_id.store(true, Ordering::Relaxed);
        }
    }
}

impl ProducerContext for Asking {
    type DeliveryOpaque = ();

    fn delivery(&self, _result: &DeliveryResult<'_>, _opaque: ()) {}
}
