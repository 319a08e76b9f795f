//! A shared Kafka, and what every test says of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::OnceCell;
use walferry_core::{
    Accepted, Log, LogEntry, LogReader, Partition, PartitionOffset, Record, RowRecord, TopicSpec,
};
pub(crate) use walferry_harness::PATIENCE;
use walferry_harness::{Kafka, fresh_directory};
use walferry_kafka::{KafkaLog, KafkaLogReader, Settings};
use walferry_schema::header::{COLUMNS, POSITION, Stamp};
use walferry_schema::{Heartbeat, LogRecord, Lsn, Phase, Term};

pub(crate) type Tested = Result<(), Failed>;

/// Any error, a [`walferry_core::Fault`] too.
#[derive(Debug)]
pub(crate) struct Failed(#[expect(dead_code, reason = "shown by Debug when a test fails")] String);

impl<E: std::fmt::Display> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

static KAFKA: OnceCell<(Kafka, PathBuf)> = OnceCell::const_new();

/// Settings with a prefix of their own on the Kafka that all tests share.
pub(crate) async fn settings() -> Settings {
    let (kafka, _) = KAFKA
        .get_or_init(|| async {
            let root = fresh_directory("kafka-test").expect("a directory");
            let path = root.keep();
            (Kafka::start(&path).await.expect("Kafka starts"), path)
        })
        .await;
    fresh(kafka)
}

/// Settings with a prefix of their own.
pub(crate) fn fresh(kafka: &Kafka) -> Settings {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let prefix = format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed));
    Settings::new(kafka.brokers(), prefix)
}

pub(crate) fn topic(settings: &Settings, table: &str, partitions: i32) -> TopicSpec {
    TopicSpec {
        name: format!("{}.public.{table}", settings.prefix).into(),
        partitions,
    }
}

pub(crate) fn name(topic: &TopicSpec, partition: i32) -> PartitionOffset {
    PartitionOffset {
        topic: topic.name.clone(),
        partition,
    }
}

/// A log with its topics, in a term.
pub(crate) async fn begun(settings: &Settings, topics: &[TopicSpec]) -> KafkaLog {
    let mut log = KafkaLog::new(settings.clone());
    log.ensure_topics(topics).await.expect("topics are made");
    log.begin().await.expect("a term begins");
    log
}

pub(crate) fn heartbeat(lsn: u64) -> LogRecord {
    LogRecord::Heartbeat(Heartbeat {
        after: walferry_schema::Lsn::ZERO,
        term: Term {
            generation: 1,
            number: 0,
        },
        lsn: Lsn(lsn),
    })
}

pub(crate) fn lsn(entry: &LogEntry) -> u64 {
    match &entry.record {
        LogRecord::Heartbeat(heartbeat) => heartbeat.lsn.0,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn stamp(ordinal: u64) -> Stamp {
    let term = Term {
        generation: 1,
        number: 3,
    };
    Stamp {
        term,
        phase: Phase::Stream(Lsn(0x16_0000_0001)),
        ordinal,
    }
}

/// Sends a row, waiting for room.
pub(crate) async fn send(log: &mut KafkaLog, entry: u64, topic: &TopicSpec, ordinal: u64) -> i32 {
    let (position, key, value) = (
        stamp(ordinal).to_string(),
        ordinal.to_string(),
        format!("{{\"v\":{ordinal}}}"),
    );
    let headers: [(&str, &[u8]); 2] = [(POSITION, position.as_bytes()), (COLUMNS, b"columns")];
    let record = Record {
        topic,
        key: Some(key.as_bytes()),
        value: Some(value.as_bytes()),
        timestamp: 1_000,
        headers: &headers,
    };
    send_record(log, entry, &record).await
}

/// Sends a row as it is, waiting for room; its partition.
pub(crate) async fn send_record(log: &mut KafkaLog, entry: u64, record: &Record<'_>) -> i32 {
    loop {
        match log.send_row(entry, record).expect("the row is taken") {
            Accepted::Partition(partition) => return partition,
            Accepted::Full => log.progress().await.expect("room comes"),
        }
    }
}

/// Sends a record of the log, waiting for room.
pub(crate) async fn send_entry(log: &mut KafkaLog, entry: u64, record: &LogRecord) {
    let record = record.to_bytes();
    while log.send_log(entry, &record).expect("the record is taken") == Accepted::Full {
        log.progress().await.expect("room comes");
    }
}

/// Waits until everything is acknowledged.
pub(crate) async fn drained(log: &mut KafkaLog) {
    let wait = async {
        while log.outstanding().is_some() {
            log.progress().await.expect("all is delivered");
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .expect("all is delivered in time");
}

/// The next record of a partition.
pub(crate) async fn pull(reader: &mut KafkaLogReader, partition: Partition) -> RowRecord {
    let wait = async {
        loop {
            if reader.peek(partition).expect("it can be read").is_some() {
                return reader.take(partition).expect("it was just shown");
            }
            reader.arrived().await.expect("waiting works");
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .expect("a record comes in time")
}

pub(crate) async fn next_log(reader: &mut KafkaLogReader) -> LogEntry {
    let entry = tokio::time::timeout(PATIENCE, reader.next_log()).await;
    entry
        .expect("a record comes in time")
        .expect("it can be read")
}

pub(crate) fn admin(settings: &Settings) -> Arc<AdminClient<DefaultClientContext>> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &settings.brokers);
    Arc::new(config.create().expect("a client"))
}

/// Deletes the records of partition 0 before an offset.
pub(crate) async fn delete_before(settings: &Settings, topic: &str, offset: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(offset))
        .expect("an offset");
    let deleted = admin(settings)
        .delete_records(&list, &AdminOptions::new())
        .await;
    let deleted = deleted.expect("records are deleted");
    assert!(
        deleted
            .elements()
            .iter()
            .all(|element| element.error().is_ok())
    );
}
