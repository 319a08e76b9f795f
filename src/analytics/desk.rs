//! Where rules are asked whose answers are only shown.
//!
//! - A rule is not asked when a collection that it reads, itself or through views, is not there: it would seem empty.
//! - A view is read as its file says: one that is not there, or says something else, stands aside meanwhile.

use std::collections::BTreeMap;

use serde::Serialize;
use walferry_core::Fault;
use walferry_etl::analytics::{self, Given, Kind, Names, Rule, RuleSet, Values};
use walferry_mongodb::{Analyst, Aside, Query, Row, Standing};

use super::error::{NotAsked, Unanswered};
use super::missing::missing;
use super::{AnalyticsError, load};
use crate::config::Config;
use crate::pipeline::connect::mongodb_settings;

/// Rules that are asked, as often as somebody likes.
#[derive(Debug)]
pub struct Desk {
    analyst: Analyst,
    asked: Vec<(Rule, Query)>,
    aside: Aside,
}

/// A rule's answer.
#[derive(Clone, Debug, Serialize)]
pub struct Answered {
    /// The rule.
    pub rule: String,
    /// What it is called.
    pub title: String,
    /// What becomes of its answer.
    #[serde(skip)]
    pub kind: Kind,
    /// The answer.
    pub rows: Vec<Row>,
}

// === impl Desk ===

impl Desk {
    /// Connects, and makes ready what these rules read.
    ///
    /// # Errors
    /// When a name means no rule, a parameter cannot be given, a collection is not there, or MongoDB fails.
    pub async fn open(
        config: &Config,
        names: &[String],
        given: &[Given],
    ) -> Result<Self, AnalyticsError> {
        let rules = load(config)?;
        let chosen: Result<Vec<_>, _> = names.iter().map(|name| rules.find(name)).collect();
        let chosen = chosen?;
        let values = analytics::values(&chosen, given)?;
        let analyst = Box::pin(Analyst::connect(mongodb_settings(config))).await?;
        let mut desk = Self {
            analyst,
            asked: Vec::new(),
            aside: Aside::default(),
        };
        let prepared = Box::pin(desk.prepare(&rules, &chosen, &values)).await;
        match prepared {
            Ok(()) => Ok(desk),
            Err(fault) => {
                desk.close().await;
                Err(fault.into())
            }
        }
    }

    /// Asks the rules, in the order in which they were named.
    ///
    /// # Errors
    /// When MongoDB fails or refuses one.
    pub async fn ask(&self) -> Result<Vec<Answered>, Fault> {
        let mut answers = Vec::with_capacity(self.asked.len());
        for (rule, query) in &self.asked {
            answers.push(Answered {
                rule: rule.name.clone(),
                title: rule.title.clone(),
                kind: rule.kind,
                rows: self.rows(rule, query).await?,
            });
        }
        Ok(answers)
    }

    /// Puts away what stood aside.
    pub async fn close(self) {
        self.aside.drop(&self.analyst).await;
    }

    async fn rows(&self, rule: &Rule, query: &Query) -> Result<Vec<Row>, Unanswered> {
        let rows = self.analyst.rows(query).await;
        rows.map_err(|source| Unanswered {
            rule: rule.name.clone(),
            source,
        })
    }

    /// That all is there which the rules read.
    fn check(
        &self,
        rules: &RuleSet,
        chosen: &[&Rule],
        standing: &BTreeMap<String, Standing>,
    ) -> Result<(), NotAsked> {
        let missing = missing(rules, standing);
        let lacking = chosen
            .iter()
            .find_map(|rule| Some((rule, missing.get(&*rule.name)?)));
        match lacking {
            None => Ok(()),
            Some((rule, missing)) => Err(NotAsked {
                rule: rule.name.clone(),
                why: missing.told(self.analyst.database()),
            }),
        }
    }

    async fn prepare(
        &mut self,
        rules: &RuleSet,
        chosen: &[&Rule],
        values: &[Values],
    ) -> Result<(), Fault> {
        let mut names = Names::new();
        let standing = self.analyst.standing().await?;
        self.check(rules, chosen, &standing)?;
        for view in rules.views_of(chosen) {
            let query = query(view, &view.defaults(), &names);
            if !is_standing(standing.get(&view.name), &query) {
                let name = self.aside.view(&self.analyst, &view.name, &query).await?;
                names.insert(view.name.clone(), name);
            }
        }
        for (rule, values) in chosen.iter().zip(values) {
            let query = query(rule, values, &names);
            self.asked.push(((*rule).clone(), query));
        }
        Ok(())
    }
}

/// What a rule asks with these values, where what it reads has these names.
pub(super) fn query(rule: &Rule, values: &Values, names: &Names) -> Query {
    let input = &rule.input.name;
    Query {
        collection: names.get(input).unwrap_or(input).clone(),
        pipeline: rule.pipeline.bound(values, names),
    }
}

/// Whether a view stands as it should.
pub(super) fn is_standing(standing: Option<&Standing>, query: &Query) -> bool {
    matches!(standing, Some(Standing::View(found)) if found == query)
}
