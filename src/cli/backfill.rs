//! `walferry backfill`: loads tables and says what became of each.

use std::fmt::Write as _;

use walferry_core::Tasks;

use super::output::{Grid, Output, thousands};
use super::{CliError, Exit, progress};
use crate::backfill::{self, Summary};
use crate::config::Config;

pub(super) async fn run(
    config: &Config,
    tables: &[String],
    tasks: &Tasks,
    output: &Output,
) -> Result<Exit, CliError> {
    let progress = progress::shown(output);
    let summary = backfill::run(config, tables, tasks, progress.into()).await?;
    if output.is_json() {
        output.json(&summary)?;
    } else {
        output.text(&shown(&summary))?;
    }
    Ok(if summary.is_complete() {
        Exit::Success
    } else {
        Exit::Failed
    })
}

fn shown(summary: &Summary) -> String {
    if summary.tables.is_empty() {
        return "no table has mode = \"batch\": nothing to load\n".to_owned();
    }
    let mut grid = Grid::new(&["table", "rows", "seconds", "rows/s"]);
    for load in &summary.tables {
        let name = load.table.to_string();
        match &load.error {
            None => grid.row([
                name,
                thousands(load.rows),
                format!("{:.1}", load.seconds),
                thousands(backfill::rows_per_second(load.rows, load.seconds)),
            ]),
            Some(_) => grid.row([name, "not loaded".to_owned()]),
        }
    }
    grid.row([
        "all".to_owned(),
        thousands(summary.rows),
        format!("{:.1}", summary.seconds),
        thousands(summary.rows_per_second),
    ]);
    let mut text = grid.to_string();
    for load in &summary.tables {
        if let Some(error) = &load.error {
            // Writing to a string never fails.
            let _ = writeln!(
                text,
                "\n{} was not loaded, its collection is as it was: {error}",
                load.table
            );
        }
    }
    text
}
