//! `walferry access`: roles that see some of what was delivered.

use clap::Subcommand;
use serde::Serialize;
use walferry_core::Tasks;
use walferry_mongodb::{ExtendedJson, Step};

use super::output::{Grid, Output};
use super::{CliError, Exit, help};
use crate::access;
use crate::config::Config;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub(super) enum Access {
    /// Shows what `apply` would do
    #[command(after_long_help = help::ACCESS_PLAN_EXAMPLES)]
    Plan,
    /// Makes the roles and their views as they are configured, and drops those that no longer are
    #[command(after_long_help = help::ACCESS_APPLY_EXAMPLES)]
    Apply,
    /// Drops all roles and views that `apply` made
    #[command(after_long_help = help::ACCESS_DROP_EXAMPLES)]
    Drop,
}

/// A step as it is shown.
#[derive(Serialize)]
struct Shown<'a> {
    step: &'static str,
    role: Option<&'a str>,
    view: Option<&'a str>,
    /// The views that a role gets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reads: Vec<&'a str>,
    /// What a role loses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    loses: Vec<String>,
    /// The collection that a view is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pipeline: Vec<ExtendedJson>,
}

/// All of them.
#[derive(Serialize)]
struct Answer<'a> {
    database: &'a str,
    is_done: bool,
    steps: Vec<Shown<'a>>,
    notes: &'a [String],
}

pub(super) async fn run(
    command: Access,
    config: &Config,
    tasks: &Tasks,
    output: &Output,
) -> Result<Exit, CliError> {
    let access = match command {
        Access::Plan => access::plan(config, tasks).await?,
        Access::Apply => access::apply(config, tasks).await?,
        Access::Drop => access::drop(config, tasks).await?,
    };
    let is_done = command != Access::Plan;
    let answer = Answer {
        database: &access.database,
        is_done,
        steps: access.steps.iter().map(Shown::of).collect(),
        notes: &access.notes,
    };
    if output.is_json() {
        output.json(&answer)?;
    } else {
        output.text(&text(&answer))?;
        for note in &access.notes {
            output.note(&format!("note: {note}"));
        }
    }
    Ok(if is_done || access.steps.is_empty() {
        Exit::Success
    } else {
        Exit::Different
    })
}

fn text(answer: &Answer<'_>) -> String {
    let database = answer.database;
    if answer.steps.is_empty() {
        return format!("{database}: nothing to do\n");
    }
    let mut grid = Grid::of_text(&["step", "role", "view", "what"]);
    for step in &answer.steps {
        grid.row(step.cells());
    }
    let told = match (answer.steps.len(), answer.is_done) {
        (1, true) => "1 step, done".to_owned(),
        (steps, true) => format!("{steps} steps, done"),
        (1, false) => "1 step to take: walferry access apply".to_owned(),
        (steps, false) => format!("{steps} steps to take: walferry access apply"),
    };
    format!("{grid}\n{database}: {told}\n")
}

// === impl Shown ===

impl<'a> Shown<'a> {
    fn of(step: &'a Step) -> Self {
        let mut shown = Self::named(step);
        match step {
            Step::Narrow {
                excess, inherits, ..
            } => {
                let lost = excess.iter().map(ToString::to_string);
                let inherited = inherits.iter().map(|it| format!("role {it}"));
                shown.loses = lost.chain(inherited).collect();
            }
            Step::MakeView { query, .. } | Step::ChangeView { query, .. } => {
                shown.of = Some(&query.collection);
                shown.pipeline = query.stages();
            }
            Step::MakeRole { views, .. } | Step::Widen { views, .. } => {
                shown.reads = views.iter().map(String::as_str).collect();
            }
            Step::DropRole { .. } | Step::DropView { .. } | Step::Forget { .. } => {}
        }
        shown
    }

    /// What it is and what it is about.
    fn named(step: &'a Step) -> Self {
        let (step, role, view) = match step {
            Step::DropRole { role } => ("drop_role", Some(role), None),
            Step::Narrow { role, .. } => ("narrow_role", Some(role), None),
            Step::DropView { view } => ("drop_view", None, Some(view)),
            Step::MakeView { view, .. } => ("make_view", None, Some(view)),
            Step::ChangeView { view, .. } => ("change_view", None, Some(view)),
            Step::MakeRole { role, .. } => ("make_role", Some(role), None),
            Step::Widen { role, .. } => ("widen_role", Some(role), None),
            Step::Forget { made } => ("forget", made.role(), made.view()),
        };
        Self {
            step,
            role: role.map(String::as_str),
            view: view.map(String::as_str),
            reads: Vec::new(),
            loses: Vec::new(),
            of: None,
            pipeline: Vec::new(),
        }
    }

    fn cells(&self) -> [String; 4] {
        let dash = |it: Option<&str>| it.unwrap_or("-").to_owned();
        let what = if let Some(of) = self.of {
            format!("of {of}")
        } else if !self.loses.is_empty() {
            format!("loses {}", self.loses.join(", "))
        } else if !self.reads.is_empty() {
            format!("reads {}", self.reads.join(", "))
        } else {
            String::new()
        };
        let step = self.step.replace('_', " ");
        [step, dash(self.role), dash(self.view), what]
    }
}
