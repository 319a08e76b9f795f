//! The settings of the Kafka clients.
//!
//! - No property that the promises rest on can be changed from outside.
//! - No value of a secret property is ever shown.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use walferry_core::Pace;

use crate::Error;

/// Bytes beyond key, value and headers that a record may take on the wire.
pub(crate) const RECORD_OVERHEAD_BYTES: usize = 512;
/// Bytes beyond the largest record that a batch of it alone may take.
pub(crate) const BATCH_OVERHEAD_BYTES: usize = 1024;
/// librdkafka's own default of `batch.size`.
const BATCH_BYTES: usize = 1_000_000;
/// librdkafka's own default of `receive.message.max.bytes`.
const RESPONSE_BYTES: usize = 100_000_000;
/// The least that librdkafka takes for `fetch.max.bytes`.
const SMALLEST_RESPONSE_BYTES: usize = 1_000_000;
const LARGEST_FETCH_BYTES: usize = 256 << 10;
const LARGEST_QUEUE_BYTES: usize = 4 << 20;
/// The least of hundreds of partitions: a fetch counts compressed bytes, and each may become ten times as large.
const SMALLEST_FETCH_BYTES: usize = 8 << 10;
const SMALLEST_QUEUE_BYTES: usize = 16 << 10;

/// What the promises rest on.
const RESERVED: [&str; 16] = [
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "isolation.level",
    "log.queue",
    "message.timeout.ms",
    "metadata.broker.list",
    "partitioner",
    "request.required.acks",
    "transactional.id",
];

/// How to reach Kafka and what to make there.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// `bootstrap.servers`: hosts with ports, separated by commas.
    pub brokers: String,
    /// What every topic's name begins with; the commit log is `<prefix>.commits`.
    pub prefix: String,
    /// The name that brokers log.
    pub client_id: String,
    /// The consumer group whose committed offsets lag tools read: the pipeline's name.
    pub group: String,
    /// Replicas of a new topic; none leaves it to the brokers' `default.replication.factor`.
    pub replication: Option<i32>,
    /// `min.insync.replicas` of a new topic; none leaves it to the brokers.
    pub min_insync_replicas: Option<u32>,
    /// How long a new topic keeps records, counted from their arrival at the broker.
    pub retention: Duration,
    /// How batches are compressed.
    pub compression: Compression,
    /// How long a batch waits for more records while the reader keeps up.
    pub linger: Duration,
    /// How long it waits while the reader is behind. Longer than an answer takes: librdkafka spins
    /// while records have lingered that wait for the request before them.
    pub bulk_linger: Duration,
    /// The largest record that is admitted: key, value and headers.
    pub max_record_bytes: usize,
    /// What the producer holds at most; at least two of the largest records.
    pub produce_budget_bytes: usize,
    /// What the consumer reads ahead at most, over all partitions.
    pub fetch_budget_bytes: usize,
    /// More properties of librdkafka, such as `security.protocol`.
    pub extra: BTreeMap<String, String>,
}

/// How batches are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all: 30 % slower than LZ4 in our measurements.
    None,
    /// The fastest.
    #[default]
    Lz4,
    /// The smallest, 15 % slower.
    Zstd,
}

// === impl Settings ===

impl Settings {
    /// The defaults for a cluster and a prefix.
    pub fn new(brokers: impl Into<String>, prefix: impl Into<String>) -> Self {
        let prefix = prefix.into();
        Self {
            brokers: brokers.into(),
            client_id: "walferry".into(),
            group: format!("walferry-{prefix}"),
            prefix,
            replication: None,
            min_insync_replicas: None,
            retention: Duration::from_hours(7 * 24),
            compression: Compression::default(),
            linger: Duration::from_micros(500),
            bulk_linger: Duration::from_millis(20),
            max_record_bytes: 1 << 20,
            produce_budget_bytes: 32 << 20,
            fetch_budget_bytes: 8 << 20,
            extra: BTreeMap::new(),
        }
    }

    /// The commit log's topic.
    pub fn commit_log(&self) -> String {
        format!("{}.commits", self.prefix)
    }

    /// The topic of what is too large for the tables' topics: it is kept for good.
    pub fn dead_letter(&self) -> String {
        format!("{}.dead-letter", self.prefix)
    }

    /// Whether librdkafka takes these settings; connects to nothing.
    ///
    /// # Errors
    /// Fatal, naming the property.
    pub fn check(&self) -> Result<(), Error> {
        for config in [self.producer(Pace::Prompt, None)?, self.consumer(1)?] {
            config.create_native_config().map_err(property_error)?;
        }
        Ok(())
    }

    pub(crate) fn admin(&self) -> Result<ClientConfig, Error> {
        self.client()
    }

    /// `topic_limit_bytes` is the smallest `max.message.bytes` of the topics written to.
    pub(crate) fn producer(
        &self,
        pace: Pace,
        topic_limit_bytes: Option<usize>,
    ) -> Result<ClientConfig, Error> {
        let mut config = self.client()?;
        let largest = self.max_record_bytes + RECORD_OVERHEAD_BYTES;
        let queue = self.produce_budget_bytes.max(2 * largest) >> 10;
        let linger = match pace {
            Pace::Prompt => self.linger,
            Pace::Bulk => self.bulk_linger,
        };
        let linger = linger.as_secs_f64() * 1000.0;
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("enable.gapless.guarantee", "true")
            .set("message.timeout.ms", "0")
            .set("compression.type", self.compression.name());
        set_default(&mut config, &self.extra, "linger.ms", linger);
        let batch = batch_bytes(topic_limit_bytes);
        set_default(&mut config, &self.extra, "batch.size", batch);
        set_default(
            &mut config,
            &self.extra,
            "message.max.bytes",
            largest.max(1000),
        );
        set_default(
            &mut config,
            &self.extra,
            "queue.buffering.max.messages",
            8_000,
        );
        set_default(
            &mut config,
            &self.extra,
            "queue.buffering.max.kbytes",
            queue.max(1),
        );
        Ok(config)
    }

    /// The budget is shared by `partitions`: librdkafka applies it to each split queue.
    pub(crate) fn consumer(&self, partitions: usize) -> Result<ClientConfig, Error> {
        let mut config = self.client()?;
        let queue = self.fetch_share_bytes(partitions);
        let fetch = (queue / 4).clamp(SMALLEST_FETCH_BYTES, LARGEST_FETCH_BYTES);
        let all = (self.fetch_budget_bytes / 2).max(SMALLEST_RESPONSE_BYTES);
        let response = (all + self.max_record_bytes + BATCH_OVERHEAD_BYTES).max(RESPONSE_BYTES);
        config
            .set("group.id", &self.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_uncommitted");
        set_default(&mut config, &self.extra, "check.crcs", true);
        set_default(&mut config, &self.extra, "fetch.min.bytes", 1);
        // A partition that had no room when a broker was asked, or was added since, is asked for
        // again only when that fetch has ended: an idle one must not hold it up.
        set_default(&mut config, &self.extra, "fetch.wait.max.ms", 20);
        set_default(&mut config, &self.extra, "fetch.error.backoff.ms", 50);
        set_default(&mut config, &self.extra, "fetch.queue.backoff.ms", 2);
        set_default(&mut config, &self.extra, "fetch.max.bytes", all);
        set_default(&mut config, &self.extra, "max.partition.fetch.bytes", fetch);
        set_default(
            &mut config,
            &self.extra,
            "receive.message.max.bytes",
            response,
        );
        set_default(
            &mut config,
            &self.extra,
            "queued.max.messages.kbytes",
            queue >> 10,
        );
        Ok(config)
    }

    /// What one of so many partitions may read ahead.
    pub(crate) fn fetch_share_bytes(&self, partitions: usize) -> usize {
        (self.fetch_budget_bytes / partitions.max(1))
            .clamp(SMALLEST_QUEUE_BYTES, LARGEST_QUEUE_BYTES)
    }

    fn client(&self) -> Result<ClientConfig, Error> {
        let reserved = |name: &&String| RESERVED.contains(&name.as_str());
        if let Some(name) = self.extra.keys().find(reserved) {
            return Err(Error::Reserved(name.clone()));
        }
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Info);
        config
            .set("client.id", &self.client_id)
            .set("allow.auto.create.topics", "false")
            .set("enable.metrics.push", "false")
            .set("log.connection.close", "false")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000");
        for (name, value) in &self.extra {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        Ok(config)
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extra: BTreeMap<&str, &str> = self
            .extra
            .iter()
            .map(|(name, value)| (name.as_str(), if is_secret(name) { "***" } else { value }))
            .collect();
        f.debug_struct("Settings")
            .field("brokers", &self.brokers)
            .field("prefix", &self.prefix)
            .field("client_id", &self.client_id)
            .field("group", &self.group)
            .field("replication", &self.replication)
            .field("min_insync_replicas", &self.min_insync_replicas)
            .field("retention", &self.retention)
            .field("compression", &self.compression)
            .field("linger", &self.linger)
            .field("bulk_linger", &self.bulk_linger)
            .field("max_record_bytes", &self.max_record_bytes)
            .field("produce_budget_bytes", &self.produce_budget_bytes)
            .field("fetch_budget_bytes", &self.fetch_budget_bytes)
            .field("extra", &extra)
            .finish()
    }
}

// === impl Compression ===

impl Compression {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// Makes a client; an error names the property and hides its value.
pub(crate) fn create<C, T>(config: &ClientConfig, context: C) -> Result<T, Error>
where
    T: FromClientConfigAndContext<C>,
    C: rdkafka::ClientContext,
{
    config.create_with_context(context).map_err(property_error)
}

fn property_error(error: KafkaError) -> Error {
    match error {
        KafkaError::ClientConfig(_, _, property, _) => Error::Property { property },
        other => Error::Client(other),
    }
}

/// The largest batch that a topic of this `max.message.bytes` takes.
pub(crate) fn batch_bytes(topic_limit_bytes: Option<usize>) -> usize {
    let limit = topic_limit_bytes.unwrap_or(usize::MAX);
    limit
        .saturating_sub(BATCH_OVERHEAD_BYTES)
        .clamp(1, BATCH_BYTES)
}

/// Sets what the user has not set.
fn set_default(
    config: &mut ClientConfig,
    extra: &BTreeMap<String, String>,
    name: &str,
    value: impl fmt::Display,
) {
    if !extra.contains_key(name) {
        config.set(name, format!("{value}"));
    }
}

fn is_secret(name: &str) -> bool {
    let shown = ["location", "mechanism", "provider", "username"];
    let secret = ["password", "secret", "key", "pem", "token", "sasl", "oauth"];
    secret.iter().any(|word| name.contains(word)) && !shown.iter().any(|word| name.ends_with(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str) -> Settings {
        let mut settings = Settings::new("localhost:9092", "p");
        settings.extra.insert(name.into(), value.into());
        settings
    }

    #[test]
    fn no_value_of_a_secret_property_is_ever_shown() {
        let secrets = [
            "sasl.password",
            "ssl.key.password",
            "ssl.key.pem",
            "oauthbearer.client.secret",
        ];
        for name in secrets {
            let shown = format!("{:?}", with(name, "hunter2"));
            assert!(
                shown.contains(name) && !shown.contains("hunter2"),
                "{shown}"
            );
        }
        assert!(format!("{:?}", with("sasl.mechanism", "PLAIN")).contains("PLAIN"));
    }

    #[test]
    fn no_property_that_the_promises_rest_on_can_be_changed_from_outside() {
        for name in RESERVED {
            assert!(matches!(with(name, "1").check(), Err(Error::Reserved(n)) if n == name));
        }
    }

    #[test]
    fn an_unknown_property_is_named_and_its_value_hidden() {
        let error = with("sasl.pasword", "hunter2")
            .check()
            .expect_err("a typing error");
        let shown = format!("{error} {error:?}");
        assert!(
            shown.contains("sasl.pasword") && !shown.contains("hunter2"),
            "{shown}"
        );
    }

    #[test]
    fn a_property_of_librdkafka_is_passed_on_and_wins_over_a_default() {
        let settings = with("linger.ms", "7");
        settings.check().expect("a known property");
        let config = settings
            .producer(Pace::Bulk, None)
            .expect("a known property");
        assert_eq!(config.get("linger.ms"), Some("7"));
    }

    #[test]
    fn the_fetch_budget_is_shared_by_the_partitions() {
        let settings = Settings::new("localhost:9092", "p");
        let kbytes = |partitions| {
            let config = settings
                .consumer(partitions)
                .expect("defaults are in order");
            config.get("queued.max.messages.kbytes").map(str::to_owned)
        };
        assert_eq!(kbytes(1).as_deref(), Some("4096"));
        assert_eq!(kbytes(16).as_deref(), Some("512"));
        assert_eq!(kbytes(300).as_deref(), Some("27"));
    }
}
