//! `walferry status`: what the running daemon says of itself.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use walferry_core::{Class, Classify, Fault};

use super::output::{Grid, Output, bytes, thousands};
use super::{CliError, Exit};
use crate::config::Config;
use crate::status::{Latency, OrderStatus, Stage, Status};

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks of `--watch`.
const PAUSE: Duration = Duration::from_secs(1);
/// Moves to the top of the terminal and clears what is below.
const HOME: &str = "\x1b[H\x1b[J";

/// Why a daemon did not say how it is.
#[derive(Debug, thiserror::Error)]
enum StatusError {
    #[error(
        "the configuration has no [admin] listen, so that a running daemon cannot be asked: add `listen = \
         \"127.0.0.1:9187\"` and start it again"
    )]
    NotListening,
    #[error(
        "asking the daemon at {listen}: see that `walferry run` is running with this configuration"
    )]
    NoAnswer {
        listen: SocketAddr,
        source: Box<ureq::Error>,
    },
    #[error("the answer of {listen} is no status of walferry: another program listens there")]
    Foreign {
        listen: SocketAddr,
        source: serde_json::Error,
    },
}

impl Classify for StatusError {
    fn class(&self) -> Class {
        Class::Fatal
    }
}

pub(super) async fn run(config: &Config, watch: bool, output: &Output) -> Result<Exit, CliError> {
    let listen = config.admin.listen;
    let listen = listen.ok_or_else(|| Fault::from(StatusError::NotListening))?;
    loop {
        let status = ask(listen).await?;
        if output.is_json() {
            output.json(&status)?;
        } else {
            let text = shown(&status);
            let home = if watch && output.is_terminal() {
                HOME
            } else {
                ""
            };
            output.text(&format!("{home}{text}"))?;
        }
        if !watch {
            return Ok(if status.state.is_working() {
                Exit::Success
            } else {
                Exit::Failed
            });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn ask(listen: SocketAddr) -> Result<Status, Fault> {
    let asked = tokio::task::spawn_blocking(move || get(listen)).await;
    let no_answer = |source| StatusError::NoAnswer { listen, source };
    let text = asked
        .unwrap_or_else(|_| Err(ureq::Error::ConnectionFailed.into()))
        .map_err(no_answer)?;
    let status = serde_json::from_str(&text);
    Ok(status.map_err(|source| StatusError::Foreign { listen, source })?)
}

fn get(listen: SocketAddr) -> Result<String, Box<ureq::Error>> {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .proxy(None)
        .build()
        .new_agent();
    let mut answer = agent.get(format!("http://{listen}/status")).call()?;
    Ok(answer.body_mut().read_to_string()?)
}

fn shown(status: &Status) -> String {
    let mut text = format!(
        "{}: {}, up {} (walferry {}, {})\n",
        status.pipeline,
        status.state,
        humantime::format_duration(Duration::from_secs(status.uptime_seconds)),
        status.version,
        match &*status.role {
            "both" => "reader and sink",
            role => role,
        },
    );
    // Writing to a string never fails.
    let _ = writeln!(text, "{}\n{}", behind(status), stages(status));
    if let Some(latency) = status.sink.as_ref().and_then(|it| latency(&it.latency)) {
        let _ = writeln!(text, "{latency}\n");
    }
    if let Some(sink) = status.sink.as_ref().filter(|it| !it.tables.is_empty()) {
        let mut grid = Grid::new(&["table", "rows"]);
        for table in &sink.tables {
            grid.row([table.table.clone(), thousands(table.rows)]);
        }
        let _ = writeln!(text, "{grid}");
    }
    text.push_str(&orders(status));
    if let Some(error) = &status.last_error {
        let at = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(error.at);
        let at = humantime::format_rfc3339_seconds(at);
        let _ = writeln!(text, "last error, {at}, {}: {}", error.part, error.error);
        let _ = writeln!(text, "  to do: {}", error.remedy);
    }
    text
}

/// What operators asked, and what is left to do about it.
fn orders(status: &Status) -> String {
    let mut text = String::new();
    // Writing to a string never fails.
    if let Some(order) = &status.paused {
        let _ = writeln!(text, "paused {}\n  to do: walferry resume", asked(order));
    }
    for skip in &status.skips {
        let _ = writeln!(
            text,
            "to be passed over: {}, {}",
            skip.commit,
            asked(&skip.order)
        );
    }
    for skipped in &status.skipped {
        let (commit, changes) = (&skipped.commit, thousands(skipped.changes));
        let _ = writeln!(
            text,
            "passed over: {commit} with {changes} changes, {}",
            asked(&skipped.order)
        );
        let _ = writeln!(
            text,
            "  to do: mend them (_walferry.skipped_changes), then walferry verify {}",
            skipped.tables.join(" ")
        );
    }
    text
}

/// Who asked for something, when and why.
fn asked(order: &OrderStatus) -> String {
    let at = Duration::from_secs(u64::try_from(order.at).unwrap_or_default());
    let at = humantime::format_rfc3339_seconds(std::time::SystemTime::UNIX_EPOCH + at);
    let reason = order
        .reason
        .as_deref()
        .map_or(String::new(), |reason| format!(": {reason}"));
    format!("by {}, {at}{reason}", order.by)
}

fn behind(status: &Status) -> String {
    let lag = &status.lag;
    let seconds = lag.seconds.map_or("an unknown time".to_owned(), |seconds| {
        format!("{seconds:.1} s")
    });
    let stage = match lag.stage {
        None => "",
        Some(Stage::Reader) => "; the reader is what is waited for",
        Some(Stage::Kafka) => "; Kafka is what is waited for",
        Some(Stage::Sink) => "; the sink is what is waited for",
    };
    format!("MongoDB is {seconds} behind{stage}")
}

/// How soon groups were visible; none before the first.
fn latency(latency: &Latency) -> Option<String> {
    let within = |percent| latency.within(percent).map(humantime::format_duration);
    let half = within(50)?;
    let most = within(99).map_or("longer than is counted".to_owned(), |it| {
        format!("within {it}")
    });
    Some(format!(
        "from commit to visible: half of the groups within {half}, 99 in 100 {most}"
    ))
}

fn stages(status: &Status) -> Grid {
    let mut grid = Grid::new(&["stage", "at", "waiting", "per second", "since the start"]);
    let lag = &status.lag;
    if let Some(source) = &status.source {
        let kept = source.retained_bytes.map_or("no slot".to_owned(), |kept| {
            format!("{} of WAL kept", bytes(Some(kept)))
        });
        let at = source
            .flush_lsn
            .map_or("-".to_owned(), |lsn| lsn.to_string());
        grid.row(["PostgreSQL".to_owned(), at, kept]);
    }
    if let Some(reader) = &status.reader {
        grid.row([
            "reader".to_owned(),
            reader.read_lsn.to_string(),
            bytes(lag.reader_bytes),
            format!("{:.0}", reader.changes_per_second),
            format!("{} changes", thousands(reader.changes)),
        ]);
        if lag.sink_bytes.is_some() || status.sink.is_none() {
            let at = reader.confirmed_lsn.to_string();
            grid.row(["Kafka".to_owned(), at, bytes(lag.log_bytes)]);
        }
    }
    if let Some(sink) = &status.sink {
        grid.row([
            "sink".to_owned(),
            sink.end_lsn.to_string(),
            bytes(lag.sink_bytes.or(lag.log_bytes)),
            format!("{:.0}", sink.rows_per_second),
            format!("{} rows", thousands(sink.rows)),
        ]);
    }
    grid
}
