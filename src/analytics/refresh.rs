//! Asks every rule and keeps the answers.
//!
//! - Views and indexes come first, then each rule after those whose answers it reads.
//! - A rule that fails leaves its answer as it was, and the others go on.
//! - A rule is not asked while a collection that it reads, itself or through views, is not there: it would seem empty.
//!   That is a failure, except for a history, which is kept only where the configuration asks for it.
//! - Alerts of rules that are gone go too, from collections that other alert rules still write to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde::Serialize;
use walferry_core::{Class, Fault};
use walferry_etl::analytics::{Index, Kind, Names, Rule, RuleSet};
use walferry_mongodb::{Analyst, Answer, Kept, Standing};

use super::desk::query;
use super::missing::{Missing, missing};
use super::{AnalyticsError, load};
use crate::config::Config;
use crate::pipeline::connect::mongodb_settings;

/// What came of a refresh.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Refreshed {
    /// Views that were made, or had another definition.
    pub views: Vec<String>,
    /// How many indexes were made.
    pub indexes: usize,
    /// Each rule whose answer is kept, in the order of their turns; then those that are gone.
    pub rules: Vec<Outcome>,
}

/// What came of one rule.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// The rule.
    pub rule: String,
    /// What it is called; empty of one that is gone.
    pub title: String,
    /// The collection that keeps its answer.
    pub output: String,
    /// How many documents the answer has.
    pub rows: u64,
    /// How many of them were not there before.
    pub added: u64,
    /// How many of them were different.
    pub changed: u64,
    /// How many others were there and no longer hold.
    pub removed: u64,
    /// How long it took to ask and to keep.
    pub seconds: f64,
    /// Why it failed.
    pub error: Option<String>,
    /// Why it was not asked, without a failure: nobody keeps a history that it reads.
    pub not_asked: Option<String>,
}

/// What comes before the rules are asked.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The views and indexes that were made.
    refreshed: Refreshed,
    /// What comes of the rules that read what is not there, by their names.
    pub(super) without: BTreeMap<String, Outcome>,
    /// What stood in the database before.
    pub(super) standing: BTreeMap<String, Standing>,
}

// === impl Refreshed ===

impl Refreshed {
    /// Whether every rule's answer is kept that was asked.
    pub fn is_complete(&self) -> bool {
        self.rules.iter().all(|it| it.error.is_none())
    }
}

// === impl Outcome ===

impl Outcome {
    pub(super) fn failed(rule: &Rule, error: String) -> Self {
        Self {
            error: Some(error),
            ..Self::of(rule, Ok(Kept::default()))
        }
    }

    /// What comes of a rule that reads what is not there: its answer stays as it was.
    fn without(rule: &Rule, missing: Missing<'_>, database: &str) -> Self {
        let why = missing.told(database);
        if !missing.is_history() {
            return Self::failed(rule, format!("{why}: the answer stays as it was"));
        }
        let not_asked = Some(why);
        Self {
            not_asked,
            ..Self::of(rule, Ok(Kept::default()))
        }
    }

    pub(super) fn of(rule: &Rule, kept: Result<Kept, Fault>) -> Self {
        let (kept, error) = match kept {
            Ok(kept) => (kept, None),
            Err(fault) => (Kept::default(), Some(fault.to_string())),
        };
        Self {
            rule: rule.name.clone(),
            title: rule.title.clone(),
            output: rule.output.clone(),
            rows: kept.rows,
            added: kept.added,
            changed: kept.changed,
            removed: kept.removed,
            seconds: 0.0,
            error,
            not_asked: None,
        }
    }
}

/// Asks every rule and keeps the answers.
///
/// # Errors
/// When the rules are mistaken, a view or an index cannot be made, or MongoDB is away; what goes wrong with one rule is in
/// its outcome.
pub async fn refresh(config: &Config) -> Result<Refreshed, AnalyticsError> {
    let rules = load(config)?;
    let analyst = Box::pin(Analyst::connect(mongodb_settings(config))).await?;
    // What a daemon keeps meanwhile may be undone: it works out all again.
    analyst.note_by_hand(false).await.map_err(Fault::from)?;
    let refreshed = Box::pin(refresh_by(&analyst, &rules)).await;
    let noted = analyst.note_by_hand(true).await;
    let refreshed = refreshed?;
    noted.map_err(Fault::from)?;
    Ok(refreshed)
}

/// Makes what comes before the rules are asked.
pub(super) async fn prepare(analyst: &Analyst, rules: &RuleSet) -> Result<Prepared, Fault> {
    analyst.sweep().await?;
    let standing = analyst.standing().await?;
    let refreshed = Refreshed {
        views: make_views(analyst, rules, &standing).await?,
        indexes: make_indexes(analyst, rules, &standing).await?,
        rules: Vec::new(),
    };
    let missing = missing(rules, &standing);
    let without = rules.rules().iter().filter_map(|rule| {
        let missing = missing.get(&*rule.name)?;
        let outcome = Outcome::without(rule, *missing, analyst.database());
        Some((rule.name.clone(), outcome))
    });
    let without = without.collect();
    Ok(Prepared {
        refreshed,
        without,
        standing,
    })
}

async fn refresh_by(analyst: &Analyst, rules: &RuleSet) -> Result<Refreshed, Fault> {
    let Prepared {
        mut refreshed,
        mut without,
        ..
    } = prepare(analyst, rules).await?;
    let mut is_away = false;
    for rule in rules.in_order().filter(|it| it.kind != Kind::View) {
        if let Some(outcome) = without.remove(&rule.name) {
            refreshed.rules.push(outcome);
            continue;
        }
        let begun = Instant::now();
        let kept = keep(analyst, rule).await;
        let is_transient = matches!(&kept, Err(fault) if fault.class() == Class::Transient);
        match kept {
            // One may be too slow; after a second the others would wait in vain too.
            Err(fault) if is_away && is_transient => return Err(fault),
            kept => refreshed.rules.push(Outcome {
                seconds: begun.elapsed().as_secs_f64(),
                ..Outcome::of(rule, kept)
            }),
        }
        is_away = is_transient;
    }
    let forgotten = forget(analyst, rules, &refreshed.rules).await?;
    refreshed.rules.extend(forgotten);
    Ok(refreshed)
}

async fn make_views(
    analyst: &Analyst,
    rules: &RuleSet,
    standing: &BTreeMap<String, Standing>,
) -> Result<Vec<String>, Fault> {
    let mut made = Vec::new();
    for view in rules.in_order().filter(|it| it.kind == Kind::View) {
        let query = query(view, &view.defaults(), &Names::new());
        let standing = standing.get(&view.name);
        if analyst.make_view(&view.name, &query, standing).await? {
            made.push(view.name.clone());
        }
    }
    Ok(made)
}

/// An index of a collection that is not there would make it, and nothing else says that there is one.
async fn make_indexes(
    analyst: &Analyst,
    rules: &RuleSet,
    standing: &BTreeMap<String, Standing>,
) -> Result<usize, Fault> {
    let is_output = |name: &str| rules.rules().iter().any(|it| it.output == name);
    let is_there = |it: &&Index| standing.contains_key(&it.collection) || is_output(&it.collection);
    let wanted = rules.rules().iter().flat_map(|it| &it.indexes);
    let wanted: BTreeMap<_, _> = wanted.filter(is_there).map(|it| (it.name(), it)).collect();
    let mut made = 0;
    for index in wanted.values() {
        if !standing.contains_key(&index.collection) {
            // The index would make it, and nobody would know whose it is.
            analyst.own(&index.collection).await?;
        }
        let is_new = analyst.make_index(&index.collection, &index.keys).await?;
        made += usize::from(is_new);
    }
    Ok(made)
}

async fn keep(analyst: &Analyst, rule: &Rule) -> Result<Kept, Fault> {
    let query = query(rule, &rule.defaults(), &Names::new());
    let answer = Answer {
        query: &query,
        output: &rule.output,
        alerts_of: (rule.kind == Kind::Alerts).then_some(&*rule.name),
        as_of: None,
    };
    Ok(analyst.keep(answer).await?)
}

/// Removes the alerts of rules that are gone, from collections whose rules were all kept: another may not be one of answers.
pub(super) async fn forget(
    analyst: &Analyst,
    rules: &RuleSet,
    outcomes: &[Outcome],
) -> Result<Vec<Outcome>, Fault> {
    let alerts = rules.rules().iter().filter(|it| it.kind == Kind::Alerts);
    let alerts: Vec<_> = alerts.collect();
    let failed = outcomes.iter().filter(|it| it.error.is_some());
    let failed: BTreeSet<_> = failed.map(|it| &*it.output).collect();
    let outputs: BTreeSet<_> = alerts.iter().map(|it| &*it.output).collect();
    let outputs = outputs.difference(&failed).copied();
    let mut forgotten = Vec::new();
    for output in outputs {
        let writers = alerts.iter().filter(|it| it.output == output);
        let writers: Vec<_> = writers.map(|it| &*it.name).collect();
        for (rule, removed) in analyst.forget_others(output, &writers).await? {
            forgotten.push(Outcome {
                rule,
                output: output.to_owned(),
                removed,
                ..Outcome::default()
            });
        }
    }
    Ok(forgotten)
}
