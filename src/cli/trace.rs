//! `walferry trace`: a change's journey.

use std::fmt::Write as _;

use walferry_core::Tasks;

use super::output::{Grid, Output};
use super::{CliError, Exit};
use crate::config::Config;
use crate::trace::{self, Journey, Place, Question, Records, Stage, Verdict};

pub(super) async fn run(
    config: &Config,
    what: &str,
    key: &[String],
    tasks: &Tasks,
    output: &Output,
) -> Result<Exit, CliError> {
    let question = Question::new(what, key)?;
    let journey = trace::run(config, &question, tasks).await?;
    if output.is_json() {
        output.json(&journey)?;
    } else {
        output.text(&shown(&journey))?;
    }
    Ok(match journey.verdict {
        Verdict::Applied => Exit::Success,
        Verdict::Waiting => Exit::Waiting,
        Verdict::Unknown => Exit::Unknown,
    })
}

fn shown(journey: &Journey) -> String {
    let mut text = format!("{}: {}\n", journey.asked, journey.says);
    // Writing to a string never fails.
    if let Some(it) = &journey.transaction {
        let _ = writeln!(
            text,
            "transaction {} committed at {}, up to {}; sent by term {} of generation {}, offset {} of the commit log",
            it.xid, it.commit_lsn, it.end_lsn, it.term, it.generation, it.log_offset
        );
    }
    if !journey.stages.is_empty() {
        let _ = write!(text, "\n{}", stages(journey));
    }
    if !journey.records.is_empty() {
        let _ = write!(text, "\n{}", records(&journey.records));
    }
    if !journey.notes.is_empty() {
        text.push('\n');
    }
    for note in &journey.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

fn stages(journey: &Journey) -> Grid {
    let mut grid = Grid::new(&["stage", "at", "took"]);
    for Stage {
        stage, at, seconds, ..
    } in &journey.stages
    {
        let is_slowest = journey.slowest == Some(*stage);
        let mark = if is_slowest { " (slowest)" } else { "" };
        let took = seconds.map_or_else(String::new, |it| format!("{}{mark}", span(it)));
        grid.row([name(*stage).to_owned(), at.clone(), took]);
    }
    if let Some(total) = journey.total_seconds {
        grid.row(["all".to_owned(), String::new(), span(total)]);
    }
    grid
}

fn records(records: &[Records]) -> Grid {
    let mut grid = Grid::new(&["topic", "partition", "records", "offsets"]);
    for it in records {
        let offsets = match (it.first_offset, it.last_offset) {
            (Some(first), Some(last)) if first == last => first.to_string(),
            (Some(first), Some(last)) => format!("{first} to {last}"),
            _ => "not there".to_owned(),
        };
        let (partition, count) = (it.partition.to_string(), it.count.to_string());
        grid.row([it.topic.clone(), partition, count, offsets]);
    }
    grid
}

fn name(stage: Place) -> &'static str {
    match stage {
        Place::Postgresql => "committed in PostgreSQL",
        Place::Reader => "decoded by the reader",
        Place::Kafka => "stored in Kafka",
        Place::Mongodb => "visible in MongoDB",
    }
}

fn span(seconds: f64) -> String {
    if seconds.abs() < 1.0 {
        return format!("{:.1} ms", seconds * 1e3);
    }
    format!("{seconds:.3} s")
}
