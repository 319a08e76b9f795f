//! Logs to stderr, for people or for machines.
//!
//! - `RUST_LOG` decides alone when it is set, else the level that the command line asks for.
//! - Colours only on a terminal, and not when `NO_COLOR` is set.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

/// How a log line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line of text.
    #[default]
    Human,
    /// A JSON object per line.
    Json,
}

/// Starts to log; once per process, later calls change nothing.
pub fn start(format: LogFormat, level: LevelFilter) {
    let default = || EnvFilter::new(format!("warn,walferry={level}"));
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| default());
    let logs = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_env_filter(filter);
    let started = match format {
        LogFormat::Human => logs.with_ansi(is_coloured(&io::stderr())).try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    // Only a test starts twice in a process.
    started.unwrap_or_default();
}

/// Whether a stream shows colours.
pub(crate) fn is_coloured(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
