//! `walferry verify`: compares and says what differs.

use std::fmt::Write as _;

use walferry_core::Tasks;

use super::output::{Grid, Output, thousands};
use super::{CliError, Exit, progress};
use crate::config::Config;
use crate::verify::{self, Report};

pub(super) async fn run(
    config: &Config,
    tables: &[String],
    tasks: &Tasks,
    output: &Output,
) -> Result<Exit, CliError> {
    let progress = progress::shown(output);
    let report = verify::run(config, tables, tasks, progress.into()).await?;
    if output.is_json() {
        output.json(&report)?;
    } else {
        output.text(&shown(&report))?;
    }
    Ok(match (report.is_complete(), report.is_equal()) {
        (false, _) => Exit::Failed,
        (true, true) => Exit::Success,
        (true, false) => Exit::Different,
    })
}

fn shown(report: &Report) -> String {
    if report.tables.is_empty() {
        return "no table is selected: nothing to compare\n".to_owned();
    }
    let mut grid = Grid::new(&[
        "table",
        "rows",
        "documents",
        "different",
        "missing",
        "extra",
    ]);
    for table in &report.tables {
        let name = table.table.to_string();
        if table.error.is_some() {
            grid.row([name, "not compared".to_owned()]);
            continue;
        }
        let counts = [
            table.rows,
            table.documents,
            table.different,
            table.missing,
            table.extra,
        ];
        grid.row(std::iter::once(name).chain(counts.map(thousands)));
    }
    let mut text = grid.to_string();
    // Writing to a string never fails.
    for table in &report.tables {
        if let Some(error) = &table.error {
            let _ = writeln!(text, "\n{} was not compared: {error}", table.table);
        }
    }
    if !report.examples.is_empty() {
        text.push_str("\nexamples:\n");
    }
    for example in &report.examples {
        let _ = writeln!(text, "  {example}");
    }
    let parked: u64 = report.tables.iter().map(|table| table.parked).sum();
    if parked > 0 {
        let parked = thousands(parked);
        let _ = writeln!(
            text,
            "\nof what differs or is missing, rows with dead letters: {parked} (walferry dead-letter list)"
        );
    }
    if report.settled > 0 {
        let settled = report.settled;
        let _ = writeln!(
            text,
            "\npassed over or drifted before, and no longer missing: {settled}"
        );
    }
    text.push_str(if report.is_equal() && report.is_complete() {
        "\nequal\n"
    } else {
        "\nnot equal\n"
    });
    text
}
