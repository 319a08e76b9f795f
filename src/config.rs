//! The configuration: `walferry.toml`, with every key overridable from the environment.
//!
//! - A key that does not exist is a mistake, and so is a value that cannot be used.
//! - All mistakes are told at once, each with its key.
//! - The environment wins over the file: `WALFERRY__SOURCE__URL` is `url` of `[source]`.
//! - Secrets come from the environment, a file or a connection URL, and no `Debug` shows them.
//! - Every key is recorded with its value and its origin as it is read.

mod admin;
mod analytics;
mod changes;
mod effective;
mod environment;
mod error;
mod kafka;
mod records;
mod roles;
mod secret;
mod section;
mod setting;
mod sink;
mod source;
mod tables;
mod telemetry;
mod url;

use std::path::{Path, PathBuf};

use config::{File, FileFormat, Map, Value};
use walferry_etl::Selection;

pub use self::admin::Admin;
pub use self::analytics::Analytics;
pub use self::changes::Changes;
pub use self::effective::{Effective, Origin};
use self::environment::Environment;
pub use self::error::{ConfigError, Problem};
pub use self::kafka::{Compression, Format, Kafka, Properties};
pub use self::records::{Compatibility, Records};
pub use self::roles::{Filter, Masks, Read, Role, Through};
use self::section::{Findings, Section};
pub use self::sink::{Microseconds, NumericOverflow, OnPoison, Sink};
pub use self::source::Source;
pub use self::telemetry::{Collector, LogFilter, Telemetry};
pub use self::url::ConnectionUrl;

/// Everything that an operator can decide.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[source]`: the PostgreSQL that is read.
    pub source: Source,
    /// `[kafka]`: the log between; none in direct mode.
    pub kafka: Option<Kafka>,
    /// `[sink]`: the MongoDB that is written.
    pub sink: Sink,
    /// `[admin]`: the status page.
    pub admin: Admin,
    /// `[telemetry]`: what the daemon writes about itself.
    pub telemetry: Telemetry,
    /// `[analytics]`: the rules over what was delivered; none when there are none.
    pub analytics: Option<Analytics>,
    /// `[[table]]`: what becomes of each table.
    pub tables: Selection,
    /// `[[role]]`: who may read what of the documents; read by `walferry access` alone.
    pub roles: Vec<Role>,
    file: PathBuf,
    effective: Vec<Effective>,
}

// === impl Config ===

impl Config {
    /// Reads a file and what the process's environment overrides.
    ///
    /// # Errors
    /// When the file cannot be read, and all mistakes in it.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        // A variable that is not UTF-8 cannot be one of ours.
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let text = std::fs::read_to_string(file).map_err(|source| ConfigError::Read {
            file: file.to_owned(),
            source,
        })?;
        Self::parse(file, &text, variables)
    }

    /// What a file's text and the given variables say; `file` is for errors and for relative paths.
    ///
    /// # Errors
    /// All mistakes in them.
    pub fn parse(
        file: &Path,
        text: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut findings = Findings::default();
        let environment = Environment::new(variables);
        let root = merge(file, text, environment, &mut findings.problems)?;
        let folder = file.parent().unwrap_or(Path::new(""));
        let config = read(root, folder, &mut findings);
        let Findings {
            problems,
            effective,
        } = findings;
        match config {
            Some(config) if problems.is_empty() => Ok(Self {
                file: file.to_owned(),
                effective,
                ..config
            }),
            _ => Err(ConfigError::Invalid {
                file: file.to_owned(),
                problems,
            }),
        }
    }

    /// The file that was read.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Every key with its value and its origin, section by section; no secret is among them.
    pub fn effective(&self) -> &[Effective] {
        &self.effective
    }

    /// The name under which this pipeline keeps its state, so that several can share one Kafka and
    /// one MongoDB.
    pub fn pipeline(&self) -> String {
        match &self.kafka {
            Some(kafka) if kafka.format == Format::Debezium => {
                format!("{}/{}/debezium", self.source.slot, kafka.prefix)
            }
            Some(kafka) => format!("{}/{}", self.source.slot, kafka.prefix),
            None => self.source.slot.clone(),
        }
    }
}

fn merge(
    file: &Path,
    text: &str,
    environment: Environment,
    problems: &mut Vec<Problem>,
) -> Result<Map<String, Value>, ConfigError> {
    let syntax = |error| ConfigError::syntax(file, &error);
    // By itself first: a mistake in the file is not one in the environment.
    let toml = config::Config::builder().add_source(File::from_str(text, FileFormat::Toml));
    let toml = toml.build().map_err(syntax)?;
    let builder = environment.override_in(config::Config::builder().add_source(toml), problems);
    let mut root = builder
        .build()
        .and_then(|config| config.cache.into_table())
        .map_err(syntax)?;
    environment.add_properties(&mut root);
    Ok(root)
}

fn read(mut root: Map<String, Value>, folder: &Path, findings: &mut Findings) -> Option<Config> {
    let source = Source::read(Section::take("source", &mut root, findings), folder);
    let section = Section::take("kafka", &mut root, findings);
    let is_direct = !section.is_there();
    let kafka = (!is_direct).then(|| Kafka::read(section, folder));
    let has_messages = matches!(&kafka, Some(Some(kafka)) if kafka.message_topic);
    if has_messages && source.as_ref().is_some_and(|it| it.streaming) {
        let message = "must be false with source.streaming: of a transaction in progress PostgreSQL does not say which of \
                       its messages were rolled back";
        findings
            .problems
            .push(Problem::new("kafka.message_topic", message));
    }
    let sink = Sink::read(Section::take("sink", &mut root, findings), folder);
    let admin = Admin::read(Section::take("admin", &mut root, findings));
    let telemetry = Telemetry::read(Section::take("telemetry", &mut root, findings), folder);
    let section = Section::take("analytics", &mut root, findings);
    let has_analytics = section.is_there();
    let analytics = has_analytics.then(|| Analytics::read(section, folder));
    let tables = tables::read(root.remove("table"), findings);
    let roles = roles::read(root.remove("role"), findings);
    let is_foreign = matches!(&kafka, Some(Some(kafka)) if kafka.format == Format::Debezium);
    if is_foreign && tables.iter().any(Selection::keeps_history) {
        let message = "asks for a history: of records of kafka.format = \"debezium\" none is kept";
        findings.problems.push(Problem::new("table", message));
    }
    findings.problems.extend(root.into_keys().map(|key| {
        Problem::new(
            key,
            "no such section; there are source, kafka, sink, admin, telemetry, analytics, table and role",
        )
    }));
    Some(Config {
        source: source?,
        kafka: match kafka {
            None => None,
            Some(kafka) => Some(kafka?),
        },
        sink: sink?,
        admin,
        telemetry,
        analytics: match analytics {
            None => None,
            Some(analytics) => Some(analytics?),
        },
        tables: tables?,
        roles: roles?,
        file: PathBuf::new(),
        effective: Vec::new(),
    })
}

#[cfg(test)]
mod tests;
