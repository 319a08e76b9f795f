//! Logs to stderr, for people or for machines.
//!
//! - `RUST_LOG` decides alone when it is set, then the command line, then the configuration.
//! - Colours only on a terminal, and not when `NO_COLOR` is set.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use opentelemetry_otlp::ExporterBuildError;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::config::{Collector, LogFilter};
use crate::traces;

/// How a log line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line of text.
    #[default]
    Human,
    /// A JSON object per line.
    Json,
}

/// Which log lines are written, while the process runs.
#[derive(Clone, Debug)]
pub struct Logs {
    filter: reload::Handle<EnvFilter, Registry>,
    level: LevelFilter,
    /// Whether whoever started the process said what to write.
    is_decided: bool,
    is_traced: bool,
}

/// What the command line says of log lines.
#[derive(Clone, Copy, Debug)]
pub struct LogLevel {
    /// The lines of walferry's that are written.
    pub level: LevelFilter,
    /// Whether it was asked for, so that the configuration does not count.
    pub is_asked: bool,
}

// === impl Logs ===

impl Logs {
    /// Starts to log, and to send traces to a collector; once per process, later calls change nothing.
    ///
    /// # Errors
    /// When the environment's `OTEL_` variables cannot be used.
    pub fn start(
        format: LogFormat,
        asked: LogLevel,
        collector: Option<&Collector>,
    ) -> Result<Self, ExporterBuildError> {
        let stated = EnvFilter::try_from_default_env().ok();
        let is_decided = stated.is_some() || asked.is_asked;
        let filter = stated.unwrap_or_else(|| LogFilter::of(asked.level).filter());
        // One filter for all: what each layer would filter for itself can lose lines that follow those of `log`'s.
        let filter = traces::with_spans(filter, collector.is_some());
        let (filter, handle) = reload::Layer::new(filter);
        // Who closes the terminal must not make the process fail over its own log.
        let logs = fmt::layer()
            .with_writer(io::stderr)
            .log_internal_errors(false);
        let logs = match format {
            LogFormat::Human => logs.with_ansi(is_coloured(&io::stderr())).boxed(),
            LogFormat::Json => logs.json().flatten_event(true).boxed(),
        };
        let traces = collector.map(traces::layer).transpose()?;
        let started = tracing_subscriber::registry()
            .with(filter)
            .with(logs)
            .with(traces)
            .try_init();
        // Only a test starts twice in a process.
        started.unwrap_or_default();
        Ok(Self {
            filter: handle,
            level: asked.level,
            is_decided,
            is_traced: collector.is_some(),
        })
    }

    /// Writes what the configuration says from now on: whether it counts.
    pub fn configure(&self, filter: Option<&LogFilter>) -> bool {
        if self.is_decided {
            return false;
        }
        let default = || LogFilter::of(self.level);
        let filter = filter.cloned().unwrap_or_else(default).filter();
        let filter = traces::with_spans(filter, self.is_traced);
        // Only a test has no subscriber.
        self.filter.reload(filter).unwrap_or_default();
        true
    }
}

/// Whether a stream shows colours.
pub(crate) fn is_coloured(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
