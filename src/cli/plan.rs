//! `walferry plan`: what a start would do.

use std::fmt::Write as _;

use walferry_core::Tasks;

use super::output::{Grid, Output, bytes, thousands};
use super::{CliError, Exit};
use crate::config::Config;
use crate::plan::{self, PlannedTable, RunPlan, Step};

pub(super) async fn run(config: &Config, tasks: &Tasks, output: &Output) -> Result<Exit, CliError> {
    let plan = Box::pin(plan::run(config, tasks)).await?;
    if output.is_json() {
        output.json(&plan)?;
    } else {
        output.text(&shown(&plan))?;
    }
    Ok(Exit::Success)
}

fn shown(plan: &RunPlan) -> String {
    let mut text = String::new();
    let slot = if plan.has_slot {
        "is there: the stream goes on, nothing is copied"
    } else {
        "is made, and the tables to follow are copied as they are then"
    };
    // Writing to a string never fails.
    let _ = writeln!(text, "slot          {} {slot}", plan.slot);
    let _ = writeln!(text, "publication   {}", plan.publication);
    let _ = match &plan.commit_log {
        Some(topic) => writeln!(text, "commit log    {topic}"),
        None => writeln!(text, "commit log    none: without Kafka"),
    };
    let _ = writeln!(text, "database      {}\n", plan.database);
    let mut grid = Grid::new(&["table", "step", "rows", "size", "topic", "collection"]);
    for table in &plan.tables {
        grid.row(cells(table));
    }
    let copied = plan
        .tables
        .iter()
        .filter(|table| table.step == Step::CopyThenFollow);
    let (rows, size) = copied.fold((0, 0), |(rows, size), it| (rows + it.rows, size + it.bytes));
    let _ = writeln!(
        text,
        "{grid}\nto copy before following: about {} rows, {}",
        thousands(rows),
        bytes(Some(size))
    );
    text
}

fn cells(table: &PlannedTable) -> [String; 6] {
    let step = match table.step {
        Step::CopyThenFollow => "copy, then follow",
        Step::Follow => "follow",
        Step::NotPublished => "NOT PUBLISHED",
        Step::Load => "walferry backfill",
        Step::Ignore => "ignore",
    };
    let dash = || "-".to_owned();
    let collection =
        table
            .collection
            .clone()
            .map(|name| match (table.is_replaced, table.indexes.len()) {
                (false, _) => name,
                (true, 0) => format!("{name} (replaced)"),
                (true, 1) => format!("{name} (replaced, its index too)"),
                (true, indexes) => format!("{name} (replaced, its {indexes} indexes too)"),
            });
    [
        table.table.to_string(),
        step.to_owned(),
        thousands(table.rows),
        bytes(Some(table.bytes)),
        table.topic.clone().unwrap_or_else(dash),
        collection.unwrap_or_else(dash),
    ]
}
