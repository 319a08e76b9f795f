//! Collections that rules read and that are not there.
//!
//! - What a view lacks, whoever reads the view lacks.
//! - That nobody keeps a history is no failure: the rule is not asked, and it is said what would keep one.

use std::collections::BTreeMap;

use walferry_etl::analytics::{Rule, RuleSet};
use walferry_mongodb::{Standing, history_of};

/// A collection that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missing<'a> {
    collection: &'a str,
    /// The collection whose versions it would hold.
    history_of: Option<&'a str>,
}

// === impl Missing ===

impl<'a> Missing<'a> {
    /// None when it is there. A history is one only of what is there: without that, nothing was delivered yet.
    pub(super) fn of(collection: &'a str, standing: &BTreeMap<String, Standing>) -> Option<Self> {
        if standing.contains_key(collection) {
            return None;
        }
        let history_of = history_of(collection).filter(|it| standing.contains_key(*it));
        Some(Self {
            collection,
            history_of,
        })
    }

    /// Whether it is a history that nobody keeps.
    pub(super) fn is_history(self) -> bool {
        self.history_of.is_some()
    }

    /// What is not there, and what would make it be.
    pub(super) fn told(self, database: &str) -> String {
        let collection = self.collection;
        let told = format!("there is no collection {collection} in the database {database}");
        match self.history_of {
            Some(table) => format!(
                "{told}: with `history = true` in the [[table]] of {table} the next start of `walferry run` begins this history \
                 (docs/history.md)"
            ),
            None => told,
        }
    }
}

/// What each rule reads that is not there, itself or through a view; of several what fails, if any does.
pub(super) fn missing<'a>(
    rules: &'a RuleSet,
    standing: &BTreeMap<String, Standing>,
) -> BTreeMap<&'a str, Missing<'a>> {
    let mut missing: BTreeMap<&str, Missing<'_>> = BTreeMap::new();
    for rule in rules.in_order() {
        let outside = rules.outside_sources(rule);
        let own = outside.filter_map(|(name, _)| Missing::of(name, standing));
        let by_view = rule.sources().filter_map(|it| missing.get(&*it.name));
        let found = own.chain(by_view.copied());
        if let Some(first) = found.min_by_key(|it| it.is_history()) {
            missing.insert(&rule.name, first);
        }
    }
    missing
}

/// The collections whose histories a rule reads, itself or through views.
pub fn histories<'a>(rules: &'a RuleSet, rule: &'a Rule) -> Vec<&'a str> {
    let views = rules.views_of(&[rule]);
    let readers = [rule].into_iter().chain(views);
    let sources = readers.flat_map(|it| rules.outside_sources(it));
    let mut histories: Vec<_> = sources.filter_map(|(name, _)| history_of(name)).collect();
    histories.sort_unstable();
    histories.dedup();
    histories
}

#[cfg(test)]
mod tests {
    use walferry_etl::analytics::RuleFile;

    use super::*;

    fn rules(rules: &[(&str, &str, &str)]) -> RuleSet {
        let file = |(name, kind, input): &(&str, &str, &str)| {
            let output = match *kind {
                "view" => String::new(),
                _ => format!("\"output\": \"report_{name}\","),
            };
            let text = format!(
                "{{\"title\": \"t\", \"question\": \"q\", \"kind\": \"{kind}\", {output} \"input\": \"{input}\", \
                 \"pipeline\": [{{\"$unionWith\": \"sales\"}}]}}"
            );
            let path = format!("{name}.json");
            RuleFile { path, text }
        };
        let files: Vec<_> = rules.iter().map(file).collect();
        RuleSet::read(&files).unwrap()
    }

    fn standing(names: &[&str]) -> BTreeMap<String, Standing> {
        let names = names.iter();
        names
            .map(|it| ((*it).to_owned(), Standing::Collection(None)))
            .collect()
    }

    #[test]
    fn a_history_that_nobody_keeps_is_told_of_everyone_who_reads_it() {
        let rules = rules(&[
            ("r_plain", "report", "stock"),
            ("r_through", "report", "v_changes"),
            ("v_changes", "view", "stock_history"),
        ]);
        let found = missing(&rules, &standing(&["sales", "stock"]));
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            [&"r_through", &"v_changes"]
        );
        assert!(found["r_through"].is_history());
        let told = found["r_through"].told("shop");
        assert!(told.contains("no collection stock_history in the database shop"));
        assert!(told.contains("`history = true` in the [[table]] of stock "));
        let through = rules.find("r_through").unwrap();
        assert_eq!(histories(&rules, through), ["stock"]);
        assert!(histories(&rules, rules.find("r_plain").unwrap()).is_empty());
    }

    #[test]
    fn what_was_never_delivered_fails_whatever_else_is_missing() {
        let rules = rules(&[("r_history", "report", "stock_history")]);
        let found = missing(&rules, &standing(&["sales"]));
        assert!(!found["r_history"].is_history(), "there is no stock either");
        let found = missing(&rules, &standing(&["stock"]));
        assert!(!found["r_history"].is_history(), "there are no sales");
        assert!(missing(&rules, &standing(&["sales", "stock_history"])).is_empty());
    }
}
