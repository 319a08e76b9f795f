//! Each rule of `etl/analytics` over a million sales: asked, and kept by a refresh of all.
//!
//! - The rows are walferry's own: loaded into PostgreSQL, then by `walferry backfill`. Only the histories are made in MongoDB,
//!   as if each sale had been a transaction of its own.
//! - A rule that looks something up without an index, or for some values reads a collection whole, has no figures.

mod history;
mod shop;

use std::time::Instant;

use bson::{Bson, Document, doc};
use walferry::analytics::{self, AnalyticsError, Desk, Outcome, Refreshed};
use walferry::config::Config;
use walferry_etl::analytics::{Kind, Names, Rule, RuleSet};
use walferry_harness::Scans;

use crate::error::{Error, Result};
use crate::report::{Line, Unit};
use crate::rig::{Pipeline, Rig};
use crate::screen;

/// For so many values the rules that are decided for each are asked.
const VALUES: i64 = 7;

/// Every rule over so many sales.
pub(crate) async fn measure(rig: &Rig, sales: u64) -> Result<Vec<Line>> {
    let pipeline = Box::pin(shop::open(rig, sales)).await?;
    history::make(&pipeline.target).await?;
    let config = Config::load(&pipeline.config)?;
    let rules = analytics::load(&config)?;
    let begun = Instant::now();
    refreshed(&config).await?;
    let first = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let again = refreshed(&config).await?;
    let all = begun.elapsed().as_secs_f64();
    let mut lines = vec![
        Line::new("rules: all, indexes made", first, Unit::Seconds),
        Line::new("rules: all again", all, Unit::Seconds),
    ];
    for outcome in &again.rules {
        let rule = rules.find(&outcome.rule).map_err(AnalyticsError::from)?;
        lines.extend(of_rule(&config, rule, outcome).await?);
        if let Some(per) = &rule.per {
            let field = rules
                .reach(rule)
                .map_or_else(|_| per.clone(), |it| it.field);
            lines.push(narrowed(&pipeline, rule, (per, &field)).await?);
        }
    }
    check_whole(&pipeline, &rules).await?;
    Ok(lines)
}

/// What `walferry analytics run --all` does.
async fn refreshed(config: &Config) -> Result<Refreshed> {
    let refreshed = Box::pin(analytics::refresh(config)).await?;
    for it in &refreshed.rules {
        let rule = it.rule.clone();
        if let Some(why) = it.error.clone().or_else(|| it.not_asked.clone()) {
            return Err(Error::Rule { rule, why });
        }
        screen::say(format_args!(
            "{rule}: {} rows, {:.2} s",
            it.rows, it.seconds
        ));
    }
    Ok(refreshed)
}

async fn of_rule(config: &Config, rule: &Rule, outcome: &Outcome) -> Result<Vec<Line>> {
    let name = &rule.name;
    let (rows, seconds) = asked(config, rule).await?;
    if rows != outcome.rows {
        let after = format!("two answers of {name}");
        let difference = format!("{rows} documents, then {}", outcome.rows);
        return Err(Error::Different { after, difference });
    }
    Ok(vec![
        Line::new(format!("{name}: rows"), rows as f64, Unit::Count),
        Line::new(format!("{name}: asked"), seconds, Unit::Seconds),
        Line::new(format!("{name}: refreshed"), outcome.seconds, Unit::Seconds),
    ])
}

/// What `walferry analytics run NAME` waits for: how many rows, after how long.
async fn asked(config: &Config, rule: &Rule) -> Result<(u64, f64)> {
    let names = [rule.name.clone()];
    let desk = Box::pin(Desk::open(config, &names, &[])).await?;
    let begun = Instant::now();
    let answered = desk.ask().await;
    let seconds = begun.elapsed().as_secs_f64();
    desk.close().await;
    let answered = answered.map_err(AnalyticsError::from)?;
    let rows = answered.iter().map(|it| it.rows.len() as u64).sum();
    Ok((rows, seconds))
}

/// How long it takes for some values of the field that a rule is decided by, and that an index finds all of it.
async fn narrowed(
    pipeline: &Pipeline<'_>,
    rule: &Rule,
    (per, field): (&str, &str),
) -> Result<Line> {
    let values = values(pipeline, rule, field).await?;
    let mut stages = vec![doc! { "$match": { per: { "$in": values } } }];
    stages.extend(pipeline_of(rule));
    let scans = Scans::of(&pipeline.target, &rule.input.name, &stages).await?;
    if scans != Scans::default() {
        return Err(scanned(rule, &scans));
    }
    let begun = Instant::now();
    drain(pipeline, &rule.input.name, stages).await?;
    let milliseconds = begun.elapsed().as_secs_f64() * 1e3;
    let what = format!("{}: asked for {VALUES} values", rule.name);
    Ok(Line::new(what, milliseconds, Unit::Milliseconds))
}

/// Values that the answer has, apart from one another.
async fn values(pipeline: &Pipeline<'_>, rule: &Rule, field: &str) -> Result<Vec<Bson>> {
    let filter = match rule.kind {
        Kind::Alerts => doc! { "rule": &rule.name },
        Kind::View | Kind::Report => doc! {},
    };
    let group = doc! { "$group": { "_id": format!("${field}") } };
    let stages = [
        doc! { "$match": filter },
        group,
        doc! { "$sort": { "_id": 1 } },
        doc! { "$limit": VALUES },
    ];
    let output = pipeline.target.collection::<Document>(&rule.output);
    let mut found = output.aggregate(stages).await?;
    let mut values = Vec::new();
    while found.advance().await? {
        values.extend(found.deserialize_current()?.remove("_id"));
    }
    Ok(values)
}

/// Rules that are only asked as a whole may read all that they begin with, but look nothing up without an index.
async fn check_whole(pipeline: &Pipeline<'_>, rules: &RuleSet) -> Result<()> {
    for rule in rules.rules().iter().filter(|it| it.per.is_none()) {
        let scans = Scans::of(&pipeline.target, &rule.input.name, &pipeline_of(rule)).await?;
        if !scans.lookups.is_empty() {
            return Err(scanned(rule, &scans));
        }
    }
    Ok(())
}

fn pipeline_of(rule: &Rule) -> Vec<Document> {
    rule.pipeline.bound(&rule.defaults(), &Names::new())
}

fn scanned(rule: &Rule, scans: &Scans) -> Error {
    let rule = rule.name.clone();
    let why = format!("it reads whole what an index should find: {scans:?}");
    Error::Rule { rule, why }
}

async fn drain(pipeline: &Pipeline<'_>, input: &str, stages: Vec<Document>) -> Result<()> {
    let input = pipeline.target.collection::<Document>(input);
    let mut found = input.aggregate(stages).await?;
    while found.advance().await? {}
    Ok(())
}
