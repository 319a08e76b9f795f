//! `[kafka]`: the log between.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use config::{Value, ValueKind};
use serde_json::Value as Json;

use super::setting::{Setting, Size};
use super::{Records, Section, secret};

/// A topic's name has at most 249 characters; the rest is for the schema and the table.
const MAX_PREFIX_BYTES: usize = 100;
const DEFAULT_RETENTION: Duration = Duration::from_hours(7 * 24);
const DEFAULT_MAX_RECORD_BYTES: usize = 1 << 20;
const MAX_RECORD_BYTES: std::ops::RangeInclusive<usize> = 1_024..=1_000_000_000;
/// What walferry's promises rest on: no property may change them.
const RESERVED: &[&str] = &[
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.idempotence",
    "group.id",
    "metadata.broker.list",
    "partitioner",
    "request.required.acks",
    "transactional.id",
];

/// Keys that name a file with the value of a property.
const SECRET_FILES: [(&str, &str); 2] = [
    ("sasl_password_file", "sasl.password"),
    ("ssl_key_password_file", "ssl.key.password"),
];

/// The Kafka that holds the rows and the commit log.
#[derive(Clone, Debug)]
pub struct Kafka {
    /// `brokers`: `host:port`, several with commas.
    pub brokers: String,
    /// `prefix`: the topics are `<prefix>.<schema>.<table>` and `<prefix>.commits`; letters,
    /// digits, `.`, `_` and `-`, at most 100.
    pub prefix: String,
    /// `partitions`: of a table's topic when it is made; 1 by default.
    pub partitions: i32,
    /// `replication`: how many brokers hold each topic; -1, the default, leaves it to them.
    pub replication: i32,
    /// `retention`: how long the topics keep their records at least; `7d` by default. A sink that
    /// stands still for longer needs a new snapshot.
    pub retention: Duration,
    /// `min_insync_replicas`: of the topics; the brokers' own by default.
    pub min_insync_replicas: Option<i32>,
    /// `compression`: of the records; `lz4` by default.
    pub compression: Compression,
    /// `tombstones`: whether a record without a value follows each delete, so that a compacted
    /// topic can forget the key; true by default.
    pub tombstones: bool,
    /// `transaction_topic`: whether Debezium's `<prefix>.transaction` is written too; false by
    /// default.
    pub transaction_topic: bool,
    /// `format`: whose records the topics hold: `"walferry"`, the default, or `"debezium"`, which only a lone sink reads.
    pub format: Format,
    /// How values stand in the records.
    pub records: Records,
    /// `message_topic`: whether what `pg_logical_emit_message` writes is written to Debezium's `<prefix>.message`; true by
    /// default. The sink has no use for it.
    pub message_topic: bool,
    /// `max_record_bytes`: the largest record that is written; the brokers must take it
    /// (`message.max.bytes`); `1MiB` by default, as theirs.
    pub max_record_bytes: usize,
    /// `properties`: more of librdkafka's properties, for TLS and SASL:
    /// `properties = { "security.protocol" = "SASL_SSL" }`. `sasl_password_file` and `ssl_key_password_file` are the
    /// paths of files that hold `sasl.password` and `ssl.key.password` (relative to the configuration's folder).
    pub properties: Properties,
}

/// Who writes the topics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A reader of walferry's.
    #[default]
    Walferry,
    /// Debezium's PostgreSQL connector, through Connect's `JsonConverter`.
    Debezium,
}

/// How records are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// LZ4
    #[default]
    Lz4,
    /// Zstandard
    Zstd,
}

/// librdkafka's properties by name; `Debug` shows the names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Properties(pub BTreeMap<String, String>);

// === impl Kafka ===

impl Kafka {
    pub(super) fn read(mut section: Section<'_>, folder: &Path) -> Option<Self> {
        let brokers = section.required::<String>("brokers");
        if brokers
            .as_deref()
            .is_some_and(|brokers| !brokers.split(',').all(is_broker))
        {
            section.problem("brokers", "must be host:port, several with commas");
        }
        let prefix = section.required::<String>("prefix");
        if prefix.as_deref().is_some_and(|prefix| !is_prefix(prefix)) {
            section.problem(
                "prefix",
                "must be 1 to 100 letters, digits, points, _ and -",
            );
        }
        let partitions = section.number("partitions", 1, 1..=10_000);
        let replication = section.number("replication", -1, -1..=i32::from(i16::MAX));
        if replication == 0 {
            section.problem(
                "replication",
                "must be 1 or more, or -1 for the brokers' own",
            );
        }
        let min_insync_replicas = section.optional_number("min_insync_replicas", 1..=1_000);
        let mut settings = Settings::read(&mut section);
        for (key, property) in SECRET_FILES {
            settings
                .properties
                .read_secret(&mut section, folder, key, property);
        }
        section.finish();
        Some(Self {
            brokers: brokers?,
            prefix: prefix?,
            partitions,
            replication,
            min_insync_replicas,
            retention: settings.retention,
            compression: settings.compression,
            tombstones: settings.tombstones,
            transaction_topic: settings.transaction_topic,
            format: settings.format,
            records: settings.records,
            message_topic: settings.message_topic,
            max_record_bytes: settings.max_record_bytes,
            properties: settings.properties,
        })
    }
}

/// The keys that are about records, not about where they go.
struct Settings {
    retention: Duration,
    compression: Compression,
    tombstones: bool,
    transaction_topic: bool,
    format: Format,
    records: Records,
    message_topic: bool,
    max_record_bytes: usize,
    properties: Properties,
}

impl Settings {
    fn read(section: &mut Section<'_>) -> Self {
        let retention = section.or("retention", DEFAULT_RETENTION);
        if retention < Duration::from_mins(1) {
            section.problem("retention", "must be a minute or more");
        }
        let compression = section.choice("compression", &Compression::ALL);
        let default = Size(DEFAULT_MAX_RECORD_BYTES);
        let Size(max_record_bytes) = section.or("max_record_bytes", default);
        if !MAX_RECORD_BYTES.contains(&max_record_bytes) {
            section.problem(
                "max_record_bytes",
                "must be a size from \"1KiB\" to \"1GB\"",
            );
        }
        let properties: Properties = section.or("properties", Properties::default());
        for name in properties
            .0
            .keys()
            .filter(|name| RESERVED.contains(&name.as_str()))
        {
            section.problem("properties", format!("must leave \"{name}\" to walferry"));
        }
        let format = section.choice("format", &Format::ALL);
        Self {
            retention,
            compression,
            tombstones: section.or("tombstones", true),
            transaction_topic: section.or("transaction_topic", false),
            format,
            records: Records::read(section, format),
            message_topic: section.or("message_topic", true),
            max_record_bytes,
            properties,
        }
    }
}

// === impl Format ===

impl Format {
    const ALL: [(&'static str, Self); 2] =
        [("walferry", Self::Walferry), ("debezium", Self::Debezium)];
}

// === impl Compression ===

impl Compression {
    const ALL: [(&'static str, Self); 3] = [
        ("none", Self::None),
        ("lz4", Self::Lz4),
        ("zstd", Self::Zstd),
    ];
}

// === impl Properties ===

impl Properties {
    /// Reads a property's value from the file that a key names, if it does.
    fn read_secret(
        &mut self,
        section: &mut Section<'_>,
        folder: &Path,
        key: &'static str,
        property: &str,
    ) {
        let Some(file) = section.optional::<String>(key) else {
            return;
        };
        if self.0.contains_key(property) {
            let both = format!("is given beside \"{property}\": one of them must go");
            return section.problem(key, both);
        }
        let content = match std::fs::read_to_string(folder.join(&file)) {
            Ok(content) => content,
            Err(error) => return section.problem(key, format!("reading {file}: {error}")),
        };
        // A password may end in spaces, but the file ends its line.
        let secret = content.trim_end_matches(['\r', '\n']);
        if secret.is_empty() || secret.contains('\n') {
            return section.problem(key, format!("{file} must hold one line, the value alone"));
        }
        section.property_is_in_file(property, secret, key, file);
        self.0.insert(property.to_owned(), secret.to_owned());
    }
}

impl Setting for Properties {
    fn from_value(value: Value) -> Result<Self, String> {
        let wanted = || "names and values, like { \"security.protocol\" = \"SSL\" }".to_owned();
        let ValueKind::Table(entries) = value.kind else {
            return Err(wanted());
        };
        let property = |(name, value): (String, Value)| match value.kind {
            ValueKind::Table(_) | ValueKind::Array(_) | ValueKind::Nil => Err(format!(
                "{}; quote names that have points, as \"{name}.…\"",
                wanted()
            )),
            _ => value
                .into_string()
                .map(|value| (name, value))
                .map_err(|_| wanted()),
        };
        entries
            .into_iter()
            .map(property)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn shown(&self) -> Json {
        let shown = |(name, value): (&String, &String)| {
            (name.clone(), secret::property(name, value).into())
        };
        Json::Object(self.0.iter().map(shown).collect())
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn is_broker(broker: &str) -> bool {
    let host_and_port = broker.trim().rsplit_once(':');
    host_and_port.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

fn is_prefix(prefix: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=MAX_PREFIX_BYTES).contains(&prefix.len()) && prefix.bytes().all(is_allowed)
}
