//! `walferry status`: what the running daemon says of itself.

use std::fmt::{self, Write as _};
use std::time::Duration;

use walferry_core::{Fault, Tasks};

use super::daemon::{AskError, Daemon, Look};
use super::output::{Grid, Output, bytes, thousands};
use super::{CliError, Exit};
use crate::config::Config;
use crate::status::{
    Latency, PositionStatus, ReaderStatus, Reloaded, ServersStatus, SourceStatus, Stage, Status,
    ToDo, Trouble, time,
};

/// Moves to the top of the terminal and clears what is below.
const HOME: &str = "\x1b[H\x1b[J";

/// What the cells of a [`StageRow`] are.
pub(super) const STAGE_HEADING: [&str; 5] =
    ["stage", "at", "waiting", "per second", "since the start"];

/// One place on the way of a change.
pub(super) struct StageRow {
    /// Under [`STAGE_HEADING`].
    pub(super) cells: [String; 5],
    /// Whether the others wait for this one.
    pub(super) is_guilty: bool,
}

pub(super) async fn run(config: &Config, tasks: &Tasks, output: &Output) -> Result<Exit, CliError> {
    let status = match Daemon::of(config) {
        Ok(daemon) => daemon.ask().await,
        Err(error) => Err(error),
    };
    match status {
        Ok(status) => {
            show(&status, "", output)?;
            Ok(if status.state.is_working() {
                Exit::Success
            } else {
                Exit::Failed
            })
        }
        // Somebody else's answer is a mistake to be mended, no daemon that is away.
        Err(error @ AskError::Foreign { .. }) => Err(Fault::from(error).into()),
        Err(error) => without_daemon(config, error, tasks, output).await,
    }
}

/// Shows what the servers know; it stays a failure.
async fn without_daemon(
    config: &Config,
    error: AskError,
    tasks: &Tasks,
    output: &Output,
) -> Result<Exit, CliError> {
    let daemon = match error {
        AskError::NotListening => "the daemon cannot be asked",
        _ => "the daemon does not answer",
    };
    let fault = Fault::from(error);
    let asked = ServersStatus::ask(config, fault.to_string(), tasks);
    // It holds both servers' connecting: too much for the stack of everybody who waits.
    let servers = Box::pin(asked).await;
    if output.is_json() {
        output.json(&servers)?;
    } else {
        let (pipeline, known) = (&servers.pipeline, from_servers(&servers));
        output.text(&format!("{pipeline}: {daemon}; from the servers:\n{known}"))?;
    }
    Err(fault.into())
}

fn from_servers(servers: &ServersStatus) -> String {
    let source = &servers.source;
    let slot = match (&source.error, servers.confirmed_lsn) {
        (Some(error), _) => format!("PostgreSQL: {error}"),
        (None, None) => slot(source),
        (None, Some(confirmed)) => format!("{}, confirmed to {confirmed}", slot(source)),
    };
    let position = match (&servers.position_error, &servers.position) {
        (Some(error), _) => format!("MongoDB: {error}"),
        (None, None) => "position: none yet".to_owned(),
        (None, Some(position)) => standing(position),
    };
    let lag = servers.lag_bytes.map_or(String::new(), |lag| {
        format!("MongoDB is at most {} of WAL behind\n", bytes(Some(lag)))
    });
    format!("{slot}\n{position}\n{lag}{}", listed(&servers.to_do))
}

/// Where the sink left off.
fn standing(position: &PositionStatus) -> String {
    let written = position.updated_at.map_or(String::new(), |seconds| {
        format!(", written {}", time(seconds))
    });
    let Some((state, end)) = position.state.zip(position.end_lsn) else {
        return format!("position: claimed, nothing applied{written}");
    };
    let last = position.position.as_deref().unwrap_or("nothing");
    format!("position: {state}, applied up to {end}, last {last}{written}")
}

/// Looks again each second. A daemon that is away is waited for: it may be on its way up.
pub(super) async fn watch(
    config: &Config,
    tasks: &Tasks,
    output: &Output,
) -> Result<Exit, CliError> {
    let daemon = Daemon::of(config).map_err(Fault::from)?;
    let home = if output.is_terminal() { HOME } else { "" };
    let mut looks = daemon.watch(tasks);
    let mut is_away = false;
    while let Some(look) = looks.recv().await {
        match look.map_err(Fault::from)? {
            Look::Here(status) => {
                is_away = false;
                show(&status, home, output)?;
            }
            Look::Away(away) if !is_away => {
                is_away = true;
                output.note(&format!("{away}: waiting for it"));
            }
            Look::Away(_) => {}
        }
    }
    Ok(Exit::Success)
}

fn show(status: &Status, home: &str, output: &Output) -> Result<(), CliError> {
    if output.is_json() {
        output.json(&status.shown())
    } else {
        output.text(&format!("{home}{}", shown(status)))
    }
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
    let _ = writeln!(text, "{}\n{}", behind(status), grid(status));
    if let Some(spooled) = status.reader.as_ref().and_then(spooled) {
        let _ = writeln!(text, "{spooled}\n");
    }
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
    if let Some(freshness) = &status.analytics {
        let _ = writeln!(text, "analytics: {freshness}\n");
    }
    text.push_str(&to_do(status));
    if let Some(error) = &status.last_error {
        let (at, part) = (at(error), &error.part);
        let _ = writeln!(text, "last error, {at}, {part}: {}", error.error);
        let _ = writeln!(text, "  to do: {}", error.remedy);
    }
    if let Some(reloaded) = &status.reloaded {
        let _ = write!(text, "{}", reload(reloaded));
    }
    text
}

/// What came of the last SIGHUP.
fn reload(reloaded: &Reloaded) -> String {
    let mut text = format!("configuration read again, {}", time(reloaded.at));
    // Writing to a string never fails.
    let _ = match &reloaded.error {
        Some(error) => writeln!(text, ", and not taken: {error}"),
        None if reloaded.taken.is_empty() => writeln!(text),
        None => writeln!(text, ": {}", reloaded.taken.join(", ")),
    };
    if !reloaded.waiting.is_empty() {
        let _ = writeln!(
            text,
            "  waits for a restart: {}",
            reloaded.waiting.join(", ")
        );
    }
    text
}

/// What waits for the operator.
pub(super) fn to_do(status: &Status) -> String {
    listed(&status.to_do())
}

/// A line for each, and one for what to do about it.
fn listed(to_do: &[ToDo]) -> String {
    let mut text = String::new();
    for ToDo { what, remedy } in to_do {
        // Writing to a string never fails.
        let _ = writeln!(text, "{what}");
        if let Some(remedy) = remedy {
            let _ = writeln!(text, "  to do: {remedy}");
        }
    }
    text
}

/// How far MongoDB is behind, and which stage is to blame.
pub(super) fn behind(status: &Status) -> String {
    let lag = &status.lag;
    let seconds = lag.seconds.map_or("an unknown time".to_owned(), |seconds| {
        format!("{seconds:.1} s")
    });
    let size = lag
        .bytes
        .map_or(String::new(), |size| format!(" ({})", bytes(Some(size))));
    let stage = match lag.stage {
        None => "",
        Some(Stage::Reader) => "; the reader is what is waited for",
        Some(Stage::Kafka) => "; Kafka is what is waited for",
        Some(Stage::Sink) => "; the sink is what is waited for",
    };
    format!("MongoDB is {seconds}{size} behind{stage}")
}

/// What the reader keeps of transactions in progress; none when that is nothing.
fn spooled(reader: &ReaderStatus) -> Option<String> {
    let size = reader.spooled_bytes.filter(|size| *size > 0)?;
    let transactions = reader.spooled_transactions?;
    Some(format!(
        "on disk until they commit: {} of {transactions} transactions in progress",
        bytes(Some(size))
    ))
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

fn grid(status: &Status) -> Grid {
    let mut grid = Grid::new(&STAGE_HEADING);
    for row in stages(status) {
        grid.row(row.cells);
    }
    grid
}

/// The way of a change, a row for each place.
pub(super) fn stages(status: &Status) -> Vec<StageRow> {
    let lag = &status.lag;
    let is_guilty = |stage| lag.stage == Some(stage);
    let source = status.source.iter().map(|source| StageRow {
        cells: source_cells(source),
        is_guilty: false,
    });
    let reader = status.reader.iter().map(|reader| StageRow {
        cells: [
            "reader".to_owned(),
            reader.read_lsn.to_string(),
            bytes(lag.reader_bytes),
            format!("{:.0}", reader.changes_per_second),
            format!("{} changes", thousands(reader.changes)),
        ],
        is_guilty: is_guilty(Stage::Reader),
    });
    // A lone sink has only this to say of it.
    let missing = is_guilty(Stage::Reader) && status.reader.is_none();
    let missing = missing.then(|| StageRow {
        cells: ["reader", "-", "nothing comes", "", ""].map(str::to_owned),
        is_guilty: true,
    });
    let has_kafka = lag.sink_bytes.is_some() || status.sink.is_none();
    let kafka = status.reader.iter().filter(|_| has_kafka);
    let kafka = kafka.map(|reader| StageRow {
        cells: [
            "Kafka".to_owned(),
            reader.confirmed_lsn.to_string(),
            bytes(lag.log_bytes),
            String::new(),
            String::new(),
        ],
        is_guilty: is_guilty(Stage::Kafka),
    });
    let sink = status.sink.iter().map(|sink| StageRow {
        cells: [
            "sink".to_owned(),
            sink.end_lsn.to_string(),
            bytes(lag.sink_bytes.or(lag.log_bytes)),
            format!("{:.0}", sink.rows_per_second),
            format!("{} rows", thousands(sink.rows)),
        ],
        is_guilty: is_guilty(Stage::Sink),
    });
    let upstream = source.chain(reader).chain(missing);
    upstream.chain(kafka).chain(sink).collect()
}

fn source_cells(source: &SourceStatus) -> [String; 5] {
    let kept = source.retained_bytes.map_or("no slot".to_owned(), |kept| {
        format!("{} of WAL kept", bytes(Some(kept)))
    });
    let at = source
        .flush_lsn
        .map_or("-".to_owned(), |lsn| lsn.to_string());
    let name = "PostgreSQL".to_owned();
    [name, at, kept, String::new(), String::new()]
}

/// The slot and what it keeps on its server.
pub(super) fn slot(source: &SourceStatus) -> String {
    let Some(wal) = source.wal_status.as_ref() else {
        return "slot: none".to_owned();
    };
    let used = if source.is_active {
        "in use"
    } else {
        "not in use"
    };
    let kept = bytes(source.retained_bytes);
    let spare = source.spare_bytes.map_or(String::new(), |spare| {
        format!(", {} to spare", bytes(Some(spare)))
    });
    format!("slot: {used}, {kept} of WAL kept ({wal}){spare}")
}

/// When an error was, as it is shown.
pub(super) fn at(error: &Trouble) -> impl fmt::Display {
    time(error.at)
}

#[cfg(test)]
mod tests {
    use walferry_schema::Lsn;

    use super::*;

    #[test]
    fn what_is_kept_of_transactions_in_progress_is_told_while_there_is_any() {
        let told = |kept: Option<(u64, u64)>| {
            spooled(&ReaderStatus {
                generation: 1,
                read_lsn: Lsn(1),
                confirmed_lsn: Lsn(1),
                transactions: 1,
                changes: 1,
                changes_per_second: 0.0,
                oversize_rows: 0,
                spooled_transactions: kept.map(|it| it.0),
                spooled_bytes: kept.map(|it| it.1),
            })
        };
        assert_eq!((told(None), told(Some((0, 0)))), (None, None));
        let kept = "on disk until they commit: 1.5 GiB of 3 transactions in progress";
        assert_eq!(told(Some((3, 3 << 29))).as_deref(), Some(kept));
    }
}
