//! All rules of a directory, and what holds among them.

use std::collections::BTreeSet;

use super::mistake::Mistake;
use super::order::Writers;
use super::parameter::{Given, ParameterError, Values};
use super::rule::{Kind, Rule};
use super::{Obstacle, Place, Reach, reach, read};

/// What a rule's file ends with.
const ENDING: &str = ".json";

/// A file as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFile {
    /// Its path, as mistakes are to name it.
    pub path: String,
    /// What it says.
    pub text: String,
}

/// Rules without mistakes, which can be refreshed in an order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleSet {
    /// In the order of their names.
    rules: Vec<Rule>,
    /// Their places, each after those that write what it reads.
    order: Vec<usize>,
}

/// A name that no rule has, or several.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// None has it.
    #[error("there is no rule {0}: `walferry analytics list` shows those that there are")]
    Rule(String),
    /// Several begin with it.
    #[error("{name} may be any of {}: write the whole name", candidates.join(", "))]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// What it may mean.
        candidates: Vec<String>,
    },
}

// === impl RuleSet ===

impl RuleSet {
    /// Reads the rules of these files.
    ///
    /// # Errors
    /// All mistakes of all files, in their order.
    pub fn read(files: &[RuleFile]) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let mut rules = Vec::new();
        for file in files {
            let mut flaws = Vec::new();
            let rule = read::rule(stem(&file.path), &file.path, &file.text, &mut flaws);
            rules.extend(rule);
            mistakes.extend(flaws.into_iter().map(|it| it.of(&file.path)));
        }
        rules.sort_by(|one: &Rule, other| one.name.cmp(&other.name));
        let writers = Writers::of(&rules);
        check_outputs(&rules, &writers, &mut mistakes);
        check_indexes(&rules, &writers, &mut mistakes);
        let order = writers.order();
        mistakes.extend(order.as_ref().err().cloned());
        match order {
            Ok(order) if mistakes.is_empty() => Ok(Self { rules, order }),
            _ => {
                mistakes.sort();
                Err(mistakes)
            }
        }
    }

    /// The rules in the order of their names.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The rules, each after those that write what it reads.
    pub fn in_order(&self) -> impl Iterator<Item = &Rule> {
        self.order.iter().filter_map(|at| self.rules.get(*at))
    }

    /// The rule of a name, or of the part of it before the first underscore; case does not matter.
    ///
    /// # Errors
    /// When none or several have it.
    pub fn find(&self, name: &str) -> Result<&Rule, Unknown> {
        let wanted = name.to_ascii_lowercase();
        if let Some(rule) = self.rules.iter().find(|it| it.name == wanted) {
            return Ok(rule);
        }
        let is_short = |it: &&Rule| it.name.split('_').next() == Some(&wanted);
        let candidates: Vec<_> = self.rules.iter().filter(is_short).collect();
        match candidates[..] {
            [rule] => Ok(rule),
            [] => Err(Unknown::Rule(name.to_owned())),
            _ => Err(Unknown::Ambiguous {
                name: name.to_owned(),
                candidates: candidates.iter().map(|it| it.name.clone()).collect(),
            }),
        }
    }

    /// The views that these rules read, also by way of other views, each after those that it reads.
    pub fn views_of(&self, rules: &[&Rule]) -> Vec<&Rule> {
        let mut wanted: BTreeSet<&str> = BTreeSet::new();
        let mut waiting = rules.to_vec();
        while let Some(rule) = waiting.pop() {
            for source in rule.sources() {
                let view = self.rules.iter().find(|it| is_view(it, &source.name));
                if let Some(view) = view.filter(|it| wanted.insert(&it.name)) {
                    waiting.push(view);
                }
            }
        }
        let views = self.in_order();
        views.filter(|it| wanted.contains(&*it.name)).collect()
    }

    /// The collections behind a name: itself, or what the view of this name reads, also by way of other views.
    pub fn collections_of<'a>(&'a self, name: &'a str) -> BTreeSet<&'a str> {
        let view = |name: &str| self.rules.iter().find(|it| is_view(it, name));
        let Some(view_of_it) = view(name) else {
            return BTreeSet::from([name]);
        };
        let inner = self.views_of(&[view_of_it]).into_iter();
        let sources = inner.chain([view_of_it]).flat_map(Rule::sources);
        let names = sources.map(|it| &*it.name);
        names.filter(|it| view(it).is_none()).collect()
    }

    /// What the answer of a rule for some values of its `per` depends on.
    ///
    /// # Errors
    /// When changes lead to no values, so that the answer is worked out as a whole.
    pub fn reach(&self, rule: &Rule) -> Result<Reach, Obstacle> {
        reach::reach(&self.rules, rule)
    }

    /// The collections that are read and that no rule of these writes, with where they are named first.
    pub fn outside_sources<'a>(&'a self, rule: &'a Rule) -> impl Iterator<Item = (&'a str, Place)> {
        let is_ours = |name: &str| self.rules.iter().any(|it| it.output == name);
        let sources = rule.sources().filter(move |it| !is_ours(&it.name));
        sources.map(|it| (&*it.name, it.place))
    }
}

fn is_view(rule: &Rule, name: &str) -> bool {
    rule.kind == Kind::View && rule.output == name
}

// === impl Values ===

/// The parameters of chosen rules, where these values are given: in their order.
///
/// # Errors
/// When none of them has a parameter of the name, or the value is not of its type.
pub fn values(chosen: &[&Rule], given: &[Given]) -> Result<Vec<Values>, ParameterError> {
    for Given { name, .. } in given {
        let has = |it: &&Rule| it.parameters.iter().any(|it| it.name == *name);
        if !chosen.iter().any(has) {
            return Err(unknown(chosen, name));
        }
    }
    chosen.iter().map(|rule| values_of(rule, given)).collect()
}

fn values_of(rule: &Rule, given: &[Given]) -> Result<Values, ParameterError> {
    let mut values = rule.defaults();
    for Given { name, text } in given {
        let Some(parameter) = rule.parameters.iter().find(|it| it.name == *name) else {
            continue;
        };
        let value = parameter.read(text);
        let value = value.map_err(|wanted| ParameterError::Type {
            name: name.clone(),
            rule: rule.name.clone(),
            wanted,
            text: text.clone(),
        })?;
        values.insert(name.clone(), value);
    }
    Ok(values)
}

fn unknown(chosen: &[&Rule], name: &str) -> ParameterError {
    let rules: Vec<_> = chosen.iter().map(|it| &*it.name).collect();
    let others = chosen.iter().flat_map(|it| &it.parameters);
    let others: BTreeSet<_> = others.map(|it| it.name.clone()).collect();
    ParameterError::Unknown {
        name: name.to_owned(),
        of: rules.join(", "),
        others: others.into_iter().collect(),
    }
}

/// Of what a report writes nothing else writes a part: it is all that the collection holds.
fn check_outputs(rules: &[Rule], writers: &Writers<'_>, mistakes: &mut Vec<Mistake>) {
    for (output, places) in writers.outputs() {
        let are_alerts = places.iter().all(|at| rules[*at].kind == Kind::Alerts);
        let [first, others @ ..] = places else {
            continue;
        };
        if are_alerts {
            continue;
        }
        let first = &rules[*first];
        for other in others.iter().map(|at| &rules[*at]) {
            let message = format!(
                "{output} is what {} writes: only rules of kind \"alerts\" share an output",
                first.name
            );
            mistakes.push(other.mistake(other.output_place, message));
        }
    }
}

fn check_indexes(rules: &[Rule], writers: &Writers<'_>, mistakes: &mut Vec<Mistake>) {
    for rule in rules {
        for index in &rule.indexes {
            let written = writers.of_output(&index.collection);
            if written.iter().any(|at| rules[*at].kind == Kind::View) {
                let message = format!("{} is a view, which has no indexes", index.collection);
                mistakes.push(rule.mistake(index.place, message));
            }
        }
    }
}

/// The name of a file without its folder and its ending.
fn stem(path: &str) -> &str {
    let name = path.rsplit(['/', '\\']).next().unwrap_or(path);
    name.strip_suffix(ENDING).unwrap_or(name)
}

#[cfg(test)]
mod tests;
