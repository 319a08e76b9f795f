//! The configuration as settings of the connectors.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use walferry_core::{Archive, Fault, Tasks};
use walferry_etl::Mode;
use walferry_kafka::{KafkaDeadLetters, KafkaLog, KafkaLogReader, KafkaRecordReader};
use walferry_mongodb::{Histories, MongoSink, OrderBook, Policies, Touched, Writer};
use walferry_postgres::{ReplicationSource, SlotMonitor};
use walferry_schema::Modes;

use super::{Connect, Role};
use crate::apply::GroupLimits;
use crate::capture::{CaptureOptions, ExtraTopics};
use crate::config::{self, Config, Kafka};
use crate::merge::WholeLimits;

/// How long an idle position waits for its heartbeat in the log.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long a term lasts at most: half of the time after which a broker forgets a silent producer
/// (`producer.id.expiration.ms`), or half of the log's retention when that is shorter.
const LONGEST_TERM: Duration = Duration::from_hours(12);

/// Makes readers of the log and sinks.
pub(super) struct Downstream {
    kafka: walferry_kafka::Settings,
    sinks: Sinks,
}

// === impl Downstream ===

impl Downstream {
    pub(super) fn new(config: &Config, kafka: &Kafka, touched: Touched) -> Result<Self, Fault> {
        let kafka = kafka_settings(config, kafka);
        kafka.check()?;
        let archive = KafkaDeadLetters::new(kafka.clone());
        let mut sinks = Sinks::new(config, touched);
        sinks.archive = Some(Arc::new(archive));
        Ok(Self { kafka, sinks })
    }
}

impl Connect for Downstream {
    type Reader = KafkaLogReader;
    type Sink = MongoSink;

    async fn connect(&self) -> Result<(KafkaLogReader, MongoSink), Fault> {
        let reader = KafkaLogReader::new(self.kafka.clone());
        let (sink, ()) = tokio::join!(self.sinks.connect(), reader.reach());
        Ok((reader, sink?))
    }
}

pub(crate) fn source(config: &Config, tasks: &Tasks) -> Result<ReplicationSource, Fault> {
    let mut settings = postgres_settings(config);
    settings.copy_connections = config.source.copy_connections;
    settings.failover = config.source.failover;
    let limit = config.source.spool_limit as u64;
    settings.streaming = config.source.streaming.then_some(limit);
    settings.max_row_bytes = config.source.max_row_bytes;
    settings.spool.clone_from(&config.source.spool);
    Ok(ReplicationSource::new(settings, tasks.clone())?)
}

pub(crate) fn slot_monitor(config: &Config, tasks: &Tasks) -> Result<SlotMonitor, Fault> {
    Ok(SlotMonitor::new(&postgres_settings(config), tasks.clone())?)
}

pub(crate) fn postgres_settings(config: &Config) -> walferry_postgres::Settings {
    let from = &config.source;
    walferry_postgres::Settings::new(from.url.expose(), &from.slot, &from.publication)
}

pub(crate) fn log(config: &Config, kafka: &Kafka) -> KafkaLog {
    KafkaLog::new(kafka_settings(config, kafka))
}

pub(crate) fn capture_options(config: &Config, kafka: &Kafka) -> CaptureOptions {
    CaptureOptions {
        prefix: kafka.prefix.clone(),
        partitions: kafka.partitions,
        tombstones: kafka.tombstones,
        extra_topics: ExtraTopics {
            transaction: kafka.transaction_topic,
            message: kafka.message_topic,
        },
        modes: kafka.records.modes,
        longest_term: LONGEST_TERM.min(kafka.retention / 2),
        ..direct_options(config)
    }
}

/// The same for the reader of a process with this role.
pub(super) fn reader_options(config: &Config, kafka: &Kafka, role: Role) -> CaptureOptions {
    CaptureOptions {
        is_alone: role == Role::Reader,
        ..capture_options(config, kafka)
    }
}

/// What a reader is told when there are no topics.
pub(crate) fn direct_options(config: &Config) -> CaptureOptions {
    let tables = config.tables.clone();
    CaptureOptions {
        slot: config.source.slot.clone(),
        publication: config.source.publication.clone(),
        prefix: config.source.slot.clone(),
        partitions: 1,
        tombstones: false,
        extra_topics: ExtraTopics::default(),
        modes: Modes::default(),
        max_row_bytes: config.source.max_row_bytes,
        heartbeat: HEARTBEAT,
        is_alone: false,
        longest_term: LONGEST_TERM,
        selects: Arc::new(move |table| tables.mode(table) == Mode::Stream),
        clock: Arc::new(SystemTime::now),
    }
}

/// How much of what is applied at a time.
pub(crate) fn group_limits(config: &Config) -> GroupLimits {
    GroupLimits {
        operations: config.sink.group_rows,
        bytes: config.sink.group_bytes,
        whole: WholeLimits {
            rows: config.sink.whole_rows,
            bytes: config.sink.whole_bytes,
        },
    }
}

/// Makes the sinks of a pipeline.
pub(super) struct Sinks {
    settings: walferry_mongodb::Settings,
    /// Knows this process's claims over all attempts.
    writer: Writer,
    /// Where whole records stand that were too large for the log.
    archive: Option<Arc<dyn Archive>>,
    /// Where it is told what is written.
    touched: Touched,
}

// === impl Sinks ===

impl Sinks {
    pub(super) fn new(config: &Config, touched: Touched) -> Self {
        Self {
            settings: mongodb_settings(config),
            writer: Writer::new(),
            archive: None,
            touched,
        }
    }

    pub(super) async fn connect(&self) -> Result<MongoSink, Fault> {
        let sink = MongoSink::connect(self.settings.clone()).await?;
        let sink = sink.with_writer(self.writer.clone());
        let sink = sink.with_touched(self.touched.clone());
        Ok(match &self.archive {
            Some(archive) => sink.with_archive(archive.clone()),
            None => sink,
        })
    }
}

/// Reads the log beside a sink.
pub(crate) fn log_reader(config: &Config, kafka: &Kafka) -> KafkaLogReader {
    KafkaLogReader::new(kafka_settings(config, kafka))
}

/// Whole records that were too large for the log.
pub(crate) fn dead_letters(config: &Config, kafka: &Kafka) -> KafkaDeadLetters {
    KafkaDeadLetters::new(kafka_settings(config, kafka))
}

/// Reads topics that Debezium writes.
pub(crate) fn record_reader(config: &Config, kafka: &Kafka) -> Result<KafkaRecordReader, Fault> {
    let settings = kafka_settings(config, kafka);
    settings.check()?;
    Ok(KafkaRecordReader::new(settings))
}

/// A sink that writes the position of another pipeline of the same databases.
pub(crate) async fn sink_of(config: &Config, pipeline: &str) -> Result<MongoSink, Fault> {
    let settings = walferry_mongodb::Settings {
        pipeline: pipeline.to_owned(),
        ..mongodb_settings(config)
    };
    Ok(MongoSink::connect(settings).await?)
}

/// What is kept beside the position of another pipeline of the same databases.
pub(crate) async fn orders_of(config: &Config, pipeline: &str) -> Result<OrderBook, Fault> {
    let settings = walferry_mongodb::Settings {
        pipeline: pipeline.to_owned(),
        ..mongodb_settings(config)
    };
    Ok(OrderBook::connect(settings).await?)
}

/// What the batch load and the sink write with alike.
pub(crate) fn mongodb_settings(config: &Config) -> walferry_mongodb::Settings {
    let to = &config.sink;
    let mut settings =
        walferry_mongodb::Settings::new(to.url.expose(), &to.database, config.pipeline());
    settings.policies = Policies {
        numeric_overflow: match to.numeric_overflow {
            config::NumericOverflow::String => walferry_mongodb::NumericOverflow::String,
            config::NumericOverflow::Error => walferry_mongodb::NumericOverflow::Error,
        },
        microseconds: match to.microseconds {
            config::Microseconds::Truncate => walferry_mongodb::Microseconds::Truncate,
            config::Microseconds::Keep => walferry_mongodb::Microseconds::Keep,
        },
    };
    settings.parks = to.on_poison == config::OnPoison::Park;
    if config.tables.keeps_history() {
        let tables = config.tables.clone();
        settings.histories = Histories::of(move |table| tables.has_history(table));
    }
    settings
}

pub(crate) fn kafka_settings(config: &Config, kafka: &Kafka) -> walferry_kafka::Settings {
    let mut settings = walferry_kafka::Settings::new(&kafka.brokers, &kafka.prefix);
    settings.group = format!("walferry-{}-{}", config.source.slot, kafka.prefix);
    settings.replication = (kafka.replication > 0).then_some(kafka.replication);
    settings.min_insync_replicas = kafka
        .min_insync_replicas
        .and_then(|n| u32::try_from(n).ok());
    settings.retention = kafka.retention;
    settings.compression = match kafka.compression {
        config::Compression::None => walferry_kafka::Compression::None,
        config::Compression::Zstd => walferry_kafka::Compression::Zstd,
        config::Compression::Lz4 => walferry_kafka::Compression::Lz4,
    };
    settings.max_record_bytes = kafka.max_record_bytes;
    settings.extra = properties(&kafka.properties);
    settings
}

fn properties(properties: &config::Properties) -> BTreeMap<String, String> {
    properties.0.clone()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn only_a_lone_reader_has_a_heartbeat_each_time() {
        let text = "[source]\nurl = \"postgres://h/d\"\nslot = \"s\"\npublication = \"p\"\n\
                    [kafka]\nbrokers = \"h:1\"\nprefix = \"p\"\n\
                    [sink]\nurl = \"mongodb://h\"\ndatabase = \"d\"\n\
                    [[table]]\nname = \"public.*\"\nmode = \"stream\"\n";
        let config = Config::parse(Path::new("walferry.toml"), text, []).unwrap();
        let kafka = config.kafka.as_ref().unwrap();
        let is_alone = |role| reader_options(&config, kafka, role).is_alone;
        assert!(is_alone(Role::Reader));
        assert!(!is_alone(Role::Both));
    }
}
