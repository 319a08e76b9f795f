//! `walferry analytics`: rules over what was delivered, listed, checked, asked and refreshed.

mod plan;
mod shown;
mod watch;

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use walferry_core::Tasks;
use walferry_etl::analytics::{Given, Rule, RuleSet};

use self::plan::Plan;
use self::shown::{csv, table, totals};
use super::output::{Grid, Output};
use super::{CliError, Exit, help, until_stopped};
use crate::analytics::{self, Answered, Checked, Desk, Refreshed};
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum Analytics {
    /// Shows the rules that there are
    List,
    /// Looks for mistakes in the rules, and has MongoDB look at what they ask
    #[command(after_long_help = help::ANALYTICS_CHECK_EXAMPLES)]
    Check,
    /// Asks rules and shows their answers, or refreshes what is kept of all
    #[command(after_long_help = help::ANALYTICS_RUN_EXAMPLES)]
    Run(Run),
    /// Asks rules again and again, until Ctrl-C
    #[command(after_long_help = help::ANALYTICS_WATCH_EXAMPLES)]
    Watch(Watch),
}

#[derive(Debug, Args)]
pub(super) struct Run {
    /// Rules, as `f01_velocity_burst` or `f01`
    #[arg(value_name = "RULE", required_unless_present = "all")]
    rules: Vec<String>,
    /// Make the views and indexes, ask all rules, and keep their answers in MongoDB
    #[arg(long, conflicts_with_all = ["rules", "given"])]
    all: bool,
    /// A parameter's value in place of its default; may be given several times
    #[arg(id = "given", long = "param", value_name = "NAME=VALUE")]
    given: Vec<Given>,
    /// The answer as comma-separated values, documents inside it as columns of their own
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

#[derive(Debug, Args)]
pub(super) struct Watch {
    /// Rules, as `f01_velocity_burst` or `f01`
    #[arg(value_name = "RULE", required = true)]
    rules: Vec<String>,
    /// How long to wait between two rounds
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = humantime::parse_duration)]
    every: Duration,
    /// A parameter's value in place of its default; may be given several times
    #[arg(long = "param", value_name = "NAME=VALUE")]
    given: Vec<Given>,
}

pub(super) async fn run(
    command: Analytics,
    config: &Config,
    tasks: &Tasks,
    output: &Output,
) -> Result<Exit, CliError> {
    match command {
        Analytics::List => list(config, output),
        Analytics::Check => check(config, tasks, output).await,
        Analytics::Run(run) if run.all => {
            until_stopped(tasks, refresh(config, run.csv, output)).await
        }
        Analytics::Run(run) => ask(config, &run, tasks, output).await,
        Analytics::Watch(watch) => watch::run(config, &watch, tasks, output).await,
    }
}

fn list(config: &Config, output: &Output) -> Result<Exit, CliError> {
    let rules = analytics::load(config)?;
    let plan = |rule| Plan::of(config, rules.reach(rule));
    if output.is_json() {
        let described = rules.rules().iter();
        let described: Vec<_> = described
            .map(|it| self::described(&rules, it, &plan(it)))
            .collect();
        output.json(&json!({ "rules": described }))?;
        return Ok(Exit::Success);
    }
    let mut grid = Grid::of_text(&["rule", "kind", "refreshed", "output", "title", "parameters"]);
    for rule in rules.rules() {
        let parameters = rule.parameters.iter();
        let parameters = parameters.map(|it| format!("{}={}", it.name, shown::default(it)));
        let parameters: Vec<_> = parameters.collect();
        grid.row([
            rule.name.clone(),
            rule.kind.name().to_owned(),
            plan(rule).refreshed,
            rule.output.clone(),
            rule.title.clone(),
            parameters.join(", "),
        ]);
    }
    output.text(&(grid.to_string() + &wanted(&rules)))?;
    Ok(Exit::Success)
}

/// What some rules want of the configuration.
fn wanted(rules: &RuleSet) -> String {
    let reading = rules.rules().iter().filter_map(|rule| {
        let histories = analytics::histories(rules, rule);
        let tables = (!histories.is_empty()).then(|| histories.join(" and "))?;
        let name = &rule.name;
        Some(format!(
            "{name} wants `history = true` in the [[table]] of {tables}\n"
        ))
    });
    reading.collect()
}

fn described(rules: &RuleSet, rule: &Rule, plan: &Plan) -> serde_json::Value {
    let parameters = rule.parameters.iter();
    let parameters: Vec<_> = parameters
        .map(|it| json!({ "name": it.name, "default": it.written, "meaning": it.meaning }))
        .collect();
    json!({
        "rule": rule.name,
        "title": rule.title,
        "question": rule.question,
        "kind": rule.kind.name(),
        "input": rule.input.name,
        "per": rule.per,
        "refreshed": plan.refreshed,
        "follows": plan.follows,
        "on_schedule": plan.on_schedule,
        "because": plan.because,
        "output": rule.output,
        "parameters": parameters,
        "histories": analytics::histories(rules, rule),
        "file": rule.file,
    })
}

async fn check(config: &Config, tasks: &Tasks, output: &Output) -> Result<Exit, CliError> {
    let checked = Box::pin(analytics::check(config, tasks)).await?;
    if output.is_json() {
        output.json(&checked)?;
    } else {
        output.text(&found(&checked))?;
    }
    Ok(match checked.mistakes[..] {
        [] => Exit::Success,
        _ => Exit::Failed,
    })
}

fn found(checked: &Checked) -> String {
    let mut lines: Vec<_> = checked.mistakes.iter().map(ToString::to_string).collect();
    lines.extend(checked.notes.iter().map(|it| format!("note: {it}")));
    lines.push(match (checked.rules, checked.mistakes.len()) {
        (Some(rules), 0) => format!("{rules} rules, no mistake\n"),
        (Some(rules), mistakes) => format!("{rules} rules, mistakes: {mistakes}\n"),
        (None, mistakes) => format!("mistakes: {mistakes}; MongoDB was not asked yet\n"),
    });
    lines.join("\n")
}

async fn ask(config: &Config, run: &Run, tasks: &Tasks, output: &Output) -> Result<Exit, CliError> {
    if run.csv && run.rules.len() > 1 {
        return Err(CliError::OneTable);
    }
    let desk = Box::pin(Desk::open(config, &run.rules, &run.given)).await?;
    let asked = async {
        let answers = desk.ask().await?;
        show(&answers, run.csv, output)?;
        Ok(Exit::Success)
    };
    let exit = until_stopped(tasks, asked).await;
    desk.close().await;
    exit
}

fn show(answers: &[Answered], is_csv: bool, output: &Output) -> Result<(), CliError> {
    if output.is_json() {
        return output.json(&json!({ "rules": answers }));
    }
    let shown: Result<Vec<_>, _> = if is_csv {
        answers.iter().map(csv).collect()
    } else {
        answers.iter().map(|it| Ok(table(it))).collect()
    };
    output.text(&shown?.join("\n"))
}

async fn refresh(config: &Config, is_csv: bool, output: &Output) -> Result<Exit, CliError> {
    let refreshed = Box::pin(analytics::refresh(config)).await?;
    if output.is_json() {
        output.json(&refreshed)?;
    } else if is_csv {
        output.text(&shown::outcomes(&refreshed)?)?;
    } else {
        output.text(&totals(&refreshed))?;
    }
    Ok(exit(&refreshed))
}

fn exit(refreshed: &Refreshed) -> Exit {
    if refreshed.is_complete() {
        Exit::Success
    } else {
        Exit::Failed
    }
}
