//! Which tables are streamed, which are loaded in batches, which are left alone.
//!
//! - The first match wins.
//! - A table that no pattern matches is ignored.
//! - A pattern that can never decide anything, because it stood there before, is a mistake.

use std::collections::HashMap;
use std::fmt;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::Deserialize;
use walferry_schema::TableName;

/// How a table gets from the source to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Row by row, as it changes.
    Stream,
    /// As a whole, when asked for.
    Batch,
    /// Not at all.
    Ignore,
}

/// One `[[table]]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// A pattern of qualified names: `public.orders`, `public.{orders,lines}`, `sales.*`. `*` stands
    /// for any characters, `?` for one, `[ab]` for one of these; `\` takes a character as it is.
    pub name: String,
    /// What becomes of the tables that match.
    pub mode: Mode,
    /// Whether every version of their rows is kept beside the current one; of streamed tables only.
    pub history: bool,
}

/// The rules of all tables, ready to be asked.
#[derive(Clone, Debug)]
pub struct Selection {
    rules: Vec<Rule>,
    patterns: GlobSet,
}

/// A rule that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pattern:?} {kind}")]
pub struct RuleError {
    /// The rule's place, from 0.
    pub index: usize,
    /// Its pattern.
    pub pattern: String,
    /// What is wrong.
    pub kind: RuleErrorKind,
}

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleErrorKind {
    /// The pattern has no schema.
    #[error("names no schema: write \"public.orders\" or \"*.orders\"")]
    NoSchema,
    /// The pattern cannot be read.
    #[error("is not a pattern: {0}")]
    Syntax(String),
    /// The same pattern stands further up.
    #[error("stands there before, as rule {0}: the first match wins, so this one never does")]
    Duplicate(usize),
    /// Only what is streamed has versions.
    #[error(
        "is of mode {0}: only streamed tables have a history, batch loads have one state after another"
    )]
    NoHistory(Mode),
}

// === impl Mode ===

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stream => "stream",
            Self::Batch => "batch",
            Self::Ignore => "ignore",
        })
    }
}

// === impl Selection ===

impl Selection {
    /// Reads the rules, in the order in which they are asked.
    ///
    /// # Errors
    /// All rules that cannot be used.
    pub fn new(rules: Vec<Rule>) -> Result<Self, Vec<RuleError>> {
        let mut patterns = GlobSetBuilder::new();
        let mut seen = HashMap::new();
        let mut errors = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            let mut refuse = |kind| {
                let pattern = rule.name.clone();
                errors.push(RuleError {
                    index,
                    pattern,
                    kind,
                });
            };
            if !rule.name.contains('.') {
                refuse(RuleErrorKind::NoSchema);
            } else if rule.history && rule.mode != Mode::Stream {
                refuse(RuleErrorKind::NoHistory(rule.mode));
            } else if let Some(first) = seen.insert(rule.name.as_str(), index) {
                seen.insert(&rule.name, first);
                refuse(RuleErrorKind::Duplicate(first + 1));
            } else {
                match GlobBuilder::new(&rule.name).backslash_escape(true).build() {
                    Ok(glob) => drop(patterns.add(glob)),
                    Err(error) => refuse(RuleErrorKind::Syntax(error.kind().to_string())),
                }
            }
        }
        match patterns.build() {
            Ok(patterns) if errors.is_empty() => Ok(Self { rules, patterns }),
            Ok(_) => Err(errors),
            Err(error) => {
                let pattern = error.glob().unwrap_or_default().to_owned();
                let kind = RuleErrorKind::Syntax(error.kind().to_string());
                errors.push(RuleError {
                    index: 0,
                    pattern,
                    kind,
                });
                Err(errors)
            }
        }
    }

    /// What becomes of a table.
    pub fn mode(&self, table: &TableName) -> Mode {
        self.rule_of(table)
            .map_or(Mode::Ignore, |index| self.rules[index].mode)
    }

    /// Whether every version of a table's rows is kept.
    pub fn has_history(&self, table: &TableName) -> bool {
        self.rule_of(table)
            .is_some_and(|index| self.rules[index].history)
    }

    /// Whether every version is kept of any table's rows.
    pub fn keeps_history(&self) -> bool {
        self.rules.iter().any(|rule| rule.history)
    }

    /// The rules in their order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The rules that decide about none of `tables`: they match none, or others match first.
    pub fn unused<'a>(&self, tables: impl IntoIterator<Item = &'a TableName>) -> Vec<&Rule> {
        let mut is_used = vec![false; self.rules.len()];
        for index in tables.into_iter().filter_map(|table| self.rule_of(table)) {
            is_used[index] = true;
        }
        let unused = |(rule, is_used): (_, bool)| (!is_used).then_some(rule);
        self.rules.iter().zip(is_used).filter_map(unused).collect()
    }

    /// Whether both stream the same, whatever tables there are. Where only the tables that there are could tell, as
    /// when a rule is put before one that streams, this says no.
    pub fn streams_as(&self, other: &Self) -> bool {
        self.streaming() == other.streaming()
    }

    /// The rules up to the last that streams, each with whether it does and keeps a history: those behind it can hide
    /// none.
    fn streaming(&self) -> Vec<(&str, bool, bool)> {
        let is_streamed = |rule: &Rule| rule.mode == Mode::Stream;
        let end = self
            .rules
            .iter()
            .rposition(is_streamed)
            .map_or(0, |at| at + 1);
        let rules = self.rules[..end].iter();
        rules
            .map(|rule| (&*rule.name, is_streamed(rule), rule.history))
            .collect()
    }

    fn rule_of(&self, table: &TableName) -> Option<usize> {
        self.patterns.matches(table.to_string()).into_iter().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, mode: Mode) -> Rule {
        Rule {
            name: name.into(),
            mode,
            history: false,
        }
    }

    fn retail() -> Selection {
        Selection::new(vec![
            rule(
                "public.{transactions,transactiondetails,inventory}",
                Mode::Stream,
            ),
            rule("public.audit_*", Mode::Ignore),
            rule("public.*", Mode::Batch),
        ])
        .unwrap()
    }

    fn table(schema: &str, table: &str) -> TableName {
        TableName::new(schema, table)
    }

    #[test]
    fn the_first_match_wins() {
        let selection = retail();
        assert_eq!(selection.mode(&table("public", "inventory")), Mode::Stream);
        assert_eq!(selection.mode(&table("public", "audit_log")), Mode::Ignore);
        assert_eq!(selection.mode(&table("public", "customers")), Mode::Batch);
        assert_eq!(
            selection.mode(&table("public", "transactions_old")),
            Mode::Batch
        );
    }

    #[test]
    fn a_table_that_no_pattern_matches_is_ignored() {
        assert_eq!(retail().mode(&table("sales", "inventory")), Mode::Ignore);
        assert_eq!(
            Selection::new(vec![]).unwrap().mode(&table("public", "a")),
            Mode::Ignore
        );
    }

    #[test]
    fn rules_that_cannot_hide_a_streamed_table_change_nothing_of_what_is_streamed() {
        let selection = |rules: &[(&str, Mode)]| {
            Selection::new(rules.iter().map(|(name, mode)| rule(name, *mode)).collect()).unwrap()
        };
        let before = selection(&[("a.x", Mode::Ignore), ("a.*", Mode::Stream)]);
        for same in [
            selection(&[("a.x", Mode::Batch), ("a.*", Mode::Stream)]),
            selection(&[
                ("a.x", Mode::Ignore),
                ("a.*", Mode::Stream),
                ("b.*", Mode::Batch),
            ]),
        ] {
            assert!(before.streams_as(&same) && same.streams_as(&before));
        }
        for other in [
            selection(&[
                ("a.y", Mode::Batch),
                ("a.x", Mode::Ignore),
                ("a.*", Mode::Stream),
            ]),
            selection(&[("a.*", Mode::Stream)]),
            selection(&[("a.x", Mode::Stream), ("a.*", Mode::Stream)]),
            selection(&[
                ("a.x", Mode::Ignore),
                ("a.*", Mode::Stream),
                ("b.*", Mode::Stream),
            ]),
        ] {
            assert!(!before.streams_as(&other) && !other.streams_as(&before));
        }
    }

    #[test]
    fn only_a_streamed_table_has_a_history_and_one_more_is_another_stream() {
        let of = |mode| Rule {
            history: true,
            ..rule("public.stock", mode)
        };
        let errors = Selection::new(vec![of(Mode::Batch)]).unwrap_err();
        assert_eq!(errors[0].kind, RuleErrorKind::NoHistory(Mode::Batch));
        let selection = Selection::new(vec![of(Mode::Stream)]).unwrap();
        assert!(selection.has_history(&table("public", "stock")));
        assert!(!selection.has_history(&table("public", "sales")));
        let without = Selection::new(vec![rule("public.stock", Mode::Stream)]).unwrap();
        assert!(!selection.streams_as(&without));
    }

    #[test]
    fn names_are_told_apart_by_case_and_odd_characters_match() {
        let selection = Selection::new(vec![
            rule("public.Orders", Mode::Stream),
            rule(r"public.a\*b", Mode::Batch),
            rule("*.über/ ?", Mode::Batch),
        ])
        .unwrap();
        assert_eq!(selection.mode(&table("public", "orders")), Mode::Ignore);
        assert_eq!(selection.mode(&table("public", "Orders")), Mode::Stream);
        assert_eq!(selection.mode(&table("public", "a*b")), Mode::Batch);
        assert_eq!(selection.mode(&table("public", "axb")), Mode::Ignore);
        assert_eq!(selection.mode(&table("x", "über/ 1")), Mode::Batch);
    }

    #[test]
    fn every_rule_that_cannot_be_used_is_named() {
        let rules = vec![
            rule("public.*", Mode::Batch),
            rule("orders", Mode::Batch),
            rule("public.{a", Mode::Stream),
            rule("public.*", Mode::Ignore),
        ];
        let errors = Selection::new(rules).unwrap_err();
        let kinds: Vec<_> = errors
            .iter()
            .map(|error| (error.index, &error.kind))
            .collect();
        assert!(matches!(
            kinds[..],
            [
                (1, RuleErrorKind::NoSchema),
                (2, RuleErrorKind::Syntax(_)),
                (3, RuleErrorKind::Duplicate(1))
            ]
        ));
        assert!(errors[0].to_string().contains("names no schema"));
    }

    #[test]
    fn a_rule_behind_one_that_matches_the_same_is_unused() {
        let selection = Selection::new(vec![
            rule("public.*", Mode::Batch),
            rule("public.orders", Mode::Stream),
            rule("sales.*", Mode::Stream),
        ])
        .unwrap();
        let tables = [table("public", "orders"), table("public", "lines")];
        let unused: Vec<_> = selection
            .unused(&tables)
            .iter()
            .map(|rule| &*rule.name)
            .collect();
        assert_eq!(unused, ["public.orders", "sales.*"]);
    }
}
