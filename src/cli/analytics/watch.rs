//! `walferry analytics watch`: the answers as they change.
//!
//! - A terminal shows them anew each round, a pipe gets a line for each change, as JSON an object each round.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use walferry_core::{Class, Tasks};

use super::super::output::{Output, json};
use super::super::{CliError, Exit, until_stopped};
use super::Watch;
use super::shown::table;
use crate::analytics::{Answered, Desk};
use crate::config::Config;

/// Each round reads all that the rules ask about.
const LEAST_WAIT: Duration = Duration::from_millis(100);
/// Moves to the top of the terminal and clears what is below.
const HOME: &str = "\x1b[H\x1b[J";

/// The documents of all rules as JSON, by rule and `_id`.
type Round = BTreeMap<(String, String), String>;

pub(super) async fn run(
    config: &Config,
    watch: &Watch,
    tasks: &Tasks,
    output: &Output,
) -> Result<Exit, CliError> {
    let desk = Box::pin(Desk::open(config, &watch.rules, &watch.given)).await?;
    let exit = until_stopped(tasks, rounds(&desk, watch, output)).await;
    desk.close().await;
    exit
}

async fn rounds(desk: &Desk, watch: &Watch, output: &Output) -> Result<Exit, CliError> {
    let mut before = Round::new();
    loop {
        match desk.ask().await {
            Ok(answers) => before = show(&answers, before, output)?,
            // The server comes back.
            Err(fault) if fault.class() == Class::Transient => {
                output.note(&format!("asking again: {fault}"));
            }
            Err(fault) => return Err(fault.into()),
        }
        tokio::time::sleep(watch.every.max(LEAST_WAIT)).await;
    }
}

fn show(answers: &[Answered], before: Round, output: &Output) -> Result<Round, CliError> {
    if output.is_json() {
        output.json(&json!({ "rules": answers }))?;
        return Ok(before);
    }
    if output.is_terminal() {
        let tables: Vec<_> = answers.iter().map(table).collect();
        output.text(&format!("{HOME}{}", tables.join("\n")))?;
        return Ok(before);
    }
    let round = round(answers)?;
    let changes: String = changes(&before, &round).concat();
    output.text(&changes)?;
    Ok(round)
}

fn round(answers: &[Answered]) -> Result<Round, CliError> {
    let mut round = Round::new();
    for answered in answers {
        for row in &answered.rows {
            let cells = row.cells();
            let id = cells.into_iter().find(|(name, _)| name == "_id");
            let id = id.map(|(_, id)| id).unwrap_or_default();
            round.insert((answered.rule.clone(), id), json(row)?);
        }
    }
    Ok(round)
}

/// A line for each document that came, changed or went.
fn changes(before: &Round, now: &Round) -> Vec<String> {
    let line = |sign, rule: &str, row: &str| format!("{sign} {rule} {row}\n");
    let mut lines = Vec::new();
    for (key, row) in before {
        if !now.contains_key(key) {
            lines.push(line('-', &key.0, row));
        }
    }
    for (key, row) in now {
        match before.get(key) {
            None => lines.push(line('+', &key.0, row)),
            Some(old) if old != row => lines.push(line('~', &key.0, row)),
            Some(_) => {}
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_came_changed_or_went() {
        let round = |rows: &[(&str, &str)]| {
            let row =
                |(id, row): &(&str, &str)| (("f".to_owned(), (*id).to_owned()), (*row).to_owned());
            rows.iter().map(row).collect::<Round>()
        };
        let before = round(&[("1", "a"), ("2", "b"), ("3", "c")]);
        let now = round(&[("1", "a"), ("2", "x"), ("4", "d")]);
        assert_eq!(changes(&before, &now), ["- f c\n", "~ f x\n", "+ f d\n"]);
        assert!(changes(&now, &now).is_empty());
    }
}
