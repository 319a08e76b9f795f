//! Has the server look at every rule, without answering any.
//!
//! - A mistake that the server finds is told at the stage that it is in.
//! - A rule that reads a mistaken view is not looked at: the mistake is the view's.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use walferry_core::{Fault, Tasks};
use walferry_etl::analytics::{Kind, Mistake, Names, Place, Rule, RuleSet};
use walferry_mongodb::{Analyst, Aside, Query, Standing};

use super::desk::{is_standing, query};
use super::missing::Missing;
use super::{AnalyticsError, load};
use crate::config::Config;
use crate::pipeline::connect::mongodb_settings;

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// How many rules there are; none is known when files are mistaken.
    pub rules: Option<usize>,
    /// What is wrong with them.
    pub mistakes: Vec<Mistake>,
    /// What some of them want and do not find, which is no mistake of theirs: a history that nobody keeps.
    pub notes: Vec<Mistake>,
}

/// A look at all rules.
struct Look<'a> {
    analyst: &'a Analyst,
    rules: &'a RuleSet,
    standing: BTreeMap<String, Standing>,
    names: Names,
    /// Views that the server does not take.
    mistaken: BTreeSet<String>,
    mistakes: Vec<Mistake>,
    notes: Vec<Mistake>,
}

/// Looks at the files of the rules, and when these are sound has MongoDB look at what they ask.
///
/// # Errors
/// When there are no rules, or MongoDB cannot be asked.
pub async fn check(config: &Config, tasks: &Tasks) -> Result<Checked, AnalyticsError> {
    let rules = match load(config) {
        Ok(rules) => rules,
        Err(AnalyticsError::Mistaken(mistakes)) => {
            return Ok(Checked {
                rules: None,
                mistakes,
                notes: Vec::new(),
            });
        }
        Err(error) => return Err(error),
    };
    let analyst = Box::pin(Analyst::connect(mongodb_settings(config))).await?;
    let mut aside = Aside::default();
    let look = Box::pin(look(&analyst, &rules, &mut aside));
    let found = tasks.stop_signal().run_until_cancelled(look).await;
    aside.drop(&analyst).await;
    let (mut mistakes, mut notes) = found.ok_or(AnalyticsError::Stopped)??;
    mistakes.sort();
    notes.sort();
    Ok(Checked {
        rules: Some(rules.rules().len()),
        mistakes,
        notes,
    })
}

async fn look(
    analyst: &Analyst,
    rules: &RuleSet,
    aside: &mut Aside,
) -> Result<(Vec<Mistake>, Vec<Mistake>), Fault> {
    let mut look = Look {
        analyst,
        rules,
        standing: analyst.standing().await?,
        names: Names::new(),
        mistaken: BTreeSet::new(),
        mistakes: Vec::new(),
        notes: Vec::new(),
    };
    for rule in rules.in_order() {
        look.rule(rule, aside).await?;
    }
    Ok((look.mistakes, look.notes))
}

// === impl Look ===

impl Look<'_> {
    async fn rule(&mut self, rule: &Rule, aside: &mut Aside) -> Result<(), Fault> {
        self.sources(rule);
        let is_mistaken = rule.sources().any(|it| self.mistaken.contains(&it.name));
        let is_sound = !is_mistaken && self.pipeline(rule).await?;
        if rule.kind != Kind::View {
            return self.output(rule).await;
        }
        if !is_sound {
            self.mistaken.insert(rule.name.clone());
            return Ok(());
        }
        self.view(rule, aside).await
    }

    /// What nobody writes and is not there is a mistake: the answer would be empty, without a word. A history is there
    /// only where somebody wants it.
    fn sources(&mut self, rule: &Rule) {
        for (name, place) in self.rules.outside_sources(rule) {
            let Some(missing) = Missing::of(name, &self.standing) else {
                continue;
            };
            let found = rule.mistake(place, missing.told(self.analyst.database()));
            if missing.is_history() {
                self.notes.push(found);
            } else {
                self.mistakes.push(found);
            }
        }
    }

    /// Whether the server takes what the rule asks.
    async fn pipeline(&mut self, rule: &Rule) -> Result<bool, Fault> {
        let whole = query(rule, &rule.defaults(), &self.names);
        let Some(refused) = self.analyst.explain(&whole).await? else {
            return Ok(true);
        };
        let stages = whole.pipeline.len();
        for stage in 1..stages {
            let begun = Query {
                collection: whole.collection.clone(),
                pipeline: whole.pipeline[..stage].to_vec(),
            };
            if let Some(refused) = self.analyst.explain(&begun).await? {
                self.refused(rule, stage - 1, &refused.message);
                return Ok(false);
            }
        }
        self.refused(rule, stages.saturating_sub(1), &refused.message);
        Ok(false)
    }

    fn refused(&mut self, rule: &Rule, stage: usize, message: &str) {
        let mut message = format!("MongoDB says: {message}");
        // Its messages name what stands aside, which the file does not.
        for (name, aside) in &self.names {
            message = message.replace(aside, name);
        }
        let mistake = rule.mistake(rule.pipeline.place(stage), message);
        self.mistakes.push(mistake);
    }

    /// A collection with other documents, such as a table's, keeps no answers.
    async fn output(&mut self, rule: &Rule) -> Result<(), Fault> {
        let output = &rule.output;
        let message = match self.standing.get(output) {
            None => return Ok(()),
            Some(Standing::View(_)) => format!("{output} is a view, which keeps nothing"),
            Some(Standing::Collection(_)) if self.analyst.may_keep(output).await? => return Ok(()),
            Some(Standing::Collection(_)) => {
                format!(
                    "{output} was not made for the answers of rules: give the rule another output"
                )
            }
        };
        let mistake = rule.mistake(rule.output_place, message);
        self.mistakes.push(mistake);
        Ok(())
    }

    async fn view(&mut self, view: &Rule, aside: &mut Aside) -> Result<(), Fault> {
        let query = query(view, &view.defaults(), &self.names);
        let standing = self.standing.get(&view.name);
        if is_standing(standing, &query) {
            return Ok(());
        }
        if matches!(standing, Some(Standing::Collection(_))) {
            let message = "a collection has the view's name: rename the file, or the collection";
            self.mistakes.push(view.mistake(Place::START, message));
        }
        let name = aside.view(self.analyst, &view.name, &query).await?;
        self.names.insert(view.name.clone(), name);
        Ok(())
    }
}
