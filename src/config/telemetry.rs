//! `[telemetry]`: what the daemon writes about itself.

use std::fmt;

use config::Value;
use http::uri::Authority;
use serde_json::Value as Json;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::Section;
use super::setting::Setting;

/// What the daemon writes about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Telemetry {
    /// `log`: which log lines `walferry run` writes; `info` by default. `--verbose` and `RUST_LOG` win over it.
    pub log: Option<LogFilter>,
    /// `otlp`: the OpenTelemetry collector that traces are sent to, as OTLP over HTTP; none by default.
    pub otlp: Option<Collector>,
}

/// A level, such as `debug`, for walferry's own lines, or a filter as `RUST_LOG` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

/// A collector's address, such as `http://collector:4318`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector(String);

// === impl Telemetry ===

impl Telemetry {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let log = section.optional("log");
        let otlp = section.optional("otlp");
        section.finish();
        Self { log, otlp }
    }
}

// === impl LogFilter ===

impl LogFilter {
    /// The filter of a level: what others than walferry say only from warnings on.
    pub fn of(level: LevelFilter) -> Self {
        Self(level.to_string())
    }

    /// The same for the subscriber.
    pub fn filter(&self) -> EnvFilter {
        match self.0.parse::<LevelFilter>() {
            Ok(level) => EnvFilter::new(format!("warn,walferry={level}")),
            Err(_) => EnvFilter::new(&self.0),
        }
    }
}

impl Setting for LogFilter {
    fn from_value(value: Value) -> Result<Self, String> {
        let wanted = || {
            "off, error, warn, info, debug or trace, or a filter like \"warn,walferry=debug\""
                .to_owned()
        };
        let text = String::from_value(value).map_err(|_| wanted())?;
        // A filter takes a word that is no level for the name of a module.
        let is_level = |part: &str| !part.is_empty() && part.parse::<LevelFilter>().is_ok();
        let is_understood = |part: &str| part.contains('=') || is_level(part);
        let is_filter = EnvFilter::try_new(&text).is_ok() && text.split(',').all(is_understood);
        if is_filter {
            Ok(Self(text))
        } else {
            Err(wanted())
        }
    }

    fn shown(&self) -> Json {
        self.0.as_str().into()
    }
}

// === impl Collector ===

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Setting for Collector {
    fn from_value(value: Value) -> Result<Self, String> {
        let wanted =
            || "an address like \"http://collector:4318\", without a user or a path".to_owned();
        let text = String::from_value(value).map_err(|_| wanted())?;
        let text = text.strip_suffix('/').unwrap_or(&text);
        let is_place = |place: &str| place.parse::<Authority>().is_ok() && !place.contains('@');
        let place = text.strip_prefix("http://").filter(|it| is_place(it));
        place.ok_or_else(wanted)?;
        Ok(Self(text.to_owned()))
    }

    fn shown(&self) -> Json {
        self.0.as_str().into()
    }
}
