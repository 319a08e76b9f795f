//! The plan of a batch load: which tables, in which order.
//!
//! - A plan never holds a table that is streamed or ignored.
//! - The biggest table comes first, so that the last one to end is a small one.
//! - All names that cannot be loaded are told at once.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::fmt;

use walferry_schema::TableName;

use crate::{Mode, Selection};

/// A table that is there, with its size as the catalog knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The table.
    pub name: TableName,
    /// About how many bytes it takes on disk.
    pub bytes: u64,
}

/// The tables of a batch load, in the order in which they are loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    tables: Vec<TableName>,
}

/// Names that were asked for and cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", joined(.0))]
pub struct PlanError(pub Vec<Refusal>);

/// Why a table cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No table has this name.
    #[error("{0}: the source has no such table")]
    Unknown(String),
    /// Tables of several schemas have this name.
    #[error("{0}: tables of several schemas have this name; write the schema too")]
    Ambiguous(String),
    /// A load would overwrite what the stream keeps.
    #[error(
        "{0}: is streamed, and a batch load would undo its changes; `walferry run --new-snapshot` copies it anew"
    )]
    Streamed(TableName),
    /// No rule selects it, or one says to ignore it.
    #[error("{0}: is not selected; give it a [[table]] with mode = \"stream\" or \"batch\"")]
    Ignored(TableName),
}

// === impl Plan ===

impl Plan {
    /// The tables to load: those named, or all that the selection says to load in batches. A name
    /// may leave out its schema where only one table has it.
    ///
    /// # Errors
    /// All names that cannot be loaded.
    pub fn new(
        selection: &Selection,
        candidates: &[Candidate],
        names: &[String],
    ) -> Result<Self, PlanError> {
        let mut chosen = Vec::new();
        let mut refused = Vec::new();
        for name in names {
            match find(candidates, name).and_then(|table| loadable(selection, table)) {
                Ok(table) => chosen.push(table),
                Err(refusal) => refused.push(refusal),
            }
        }
        if !refused.is_empty() {
            return Err(PlanError(refused));
        }
        if names.is_empty() {
            let is_batch = |table: &&Candidate| selection.mode(&table.name) == Mode::Batch;
            chosen = candidates.iter().filter(is_batch).collect();
        }
        let mut seen = HashSet::new();
        chosen.retain(|table| seen.insert(&table.name));
        chosen.sort_by_key(|table| (Reverse(table.bytes), &table.name));
        Ok(Self {
            tables: chosen.into_iter().map(|table| table.name.clone()).collect(),
        })
    }

    /// The tables, biggest first.
    pub fn tables(&self) -> &[TableName] {
        &self.tables
    }
}

// === impl Candidate ===

impl Candidate {
    /// The table that a name means, with or without its schema.
    ///
    /// # Errors
    /// When none or several have the name.
    pub fn find<'a>(candidates: &'a [Self], name: &str) -> Result<&'a Self, Refusal> {
        find(candidates, name)
    }
}

fn find<'a>(candidates: &'a [Candidate], name: &str) -> Result<&'a Candidate, Refusal> {
    if let Some(table) = candidates
        .iter()
        .find(|table| table.name.to_string() == name)
    {
        return Ok(table);
    }
    let mut matching = candidates.iter().filter(|table| *table.name.table == *name);
    match (matching.next(), matching.next()) {
        (Some(table), None) => Ok(table),
        (Some(_), Some(_)) => Err(Refusal::Ambiguous(name.to_owned())),
        (None, _) => Err(Refusal::Unknown(name.to_owned())),
    }
}

fn loadable<'a>(selection: &Selection, table: &'a Candidate) -> Result<&'a Candidate, Refusal> {
    match selection.mode(&table.name) {
        Mode::Batch => Ok(table),
        Mode::Stream => Err(Refusal::Streamed(table.name.clone())),
        Mode::Ignore => Err(Refusal::Ignored(table.name.clone())),
    }
}

fn joined(refusals: &[Refusal]) -> impl fmt::Display {
    let lines: Vec<_> = refusals.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rule;

    fn selection() -> Selection {
        let rule = |name: &str, mode| Rule {
            name: name.into(),
            mode,
            history: false,
        };
        Selection::new(vec![
            rule("public.sales", Mode::Stream),
            rule("public.*", Mode::Batch),
            rule("hr.people", Mode::Batch),
        ])
        .unwrap()
    }

    fn candidates() -> Vec<Candidate> {
        let table = |schema, table, bytes| Candidate {
            name: TableName::new(schema, table),
            bytes,
        };
        vec![
            table("hr", "people", 50),
            table("hr", "secrets", 70),
            table("public", "people", 10),
            table("public", "products", 900),
            table("public", "sales", 5_000),
            table("public", "zones", 10),
        ]
    }

    fn planned(names: &[&str]) -> Result<Vec<String>, PlanError> {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let plan = Plan::new(&selection(), &candidates(), &names)?;
        Ok(plan.tables().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn without_names_all_batch_tables_are_loaded_the_biggest_first() {
        let expected = [
            "public.products",
            "hr.people",
            "public.people",
            "public.zones",
        ];
        assert_eq!(planned(&[]).unwrap(), expected);
    }

    #[test]
    fn a_name_may_leave_out_its_schema_and_counts_once() {
        let expected = ["public.products", "hr.people"];
        assert_eq!(
            planned(&["hr.people", "products", "public.products"]).unwrap(),
            expected
        );
    }

    #[test]
    fn all_names_that_cannot_be_loaded_are_told_at_once() {
        let PlanError(refusals) =
            planned(&["sales", "people", "nobody", "hr.secrets", "zones"]).unwrap_err();
        let expected = [
            Refusal::Streamed(TableName::new("public", "sales")),
            Refusal::Ambiguous("people".into()),
            Refusal::Unknown("nobody".into()),
            Refusal::Ignored(TableName::new("hr", "secrets")),
        ];
        assert_eq!(refusals, expected);
    }
}
