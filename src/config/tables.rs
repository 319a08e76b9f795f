//! `[[table]]`: what becomes of each table.

use config::{Value, ValueKind};
use walferry_etl::{Mode, Rule, Selection};

use super::Problem;
use super::section::{Findings, Section};

const MODES: [(&str, Mode); 3] = [
    ("stream", Mode::Stream),
    ("batch", Mode::Batch),
    ("ignore", Mode::Ignore),
];

/// The rules in their order.
pub(super) fn read(value: Option<Value>, findings: &mut Findings) -> Option<Selection> {
    let Some(ValueKind::Array(entries)) = value.map(|value| value.kind) else {
        findings.problems.push(Problem::new(
            "table",
            "is missing: give each set of tables a [[table]] with name and mode",
        ));
        return None;
    };
    let rules: Vec<_> = entries
        .into_iter()
        .enumerate()
        .map(|(index, entry)| rule(index, entry, findings))
        .collect();
    let rules = rules.into_iter().collect::<Option<Vec<_>>>()?;
    let errors = match Selection::new(rules) {
        Ok(selection) => return Some(selection),
        Err(errors) => errors,
    };
    let problem = |error| {
        let walferry_etl::RuleError { index, .. } = &error;
        Problem::new(key(*index, "name"), error.to_string())
    };
    findings.problems.extend(errors.into_iter().map(problem));
    None
}

fn rule(index: usize, entry: Value, findings: &mut Findings) -> Option<Rule> {
    let mut section = Section::new(&format!("table[{index}]"), Some(entry), findings);
    let name = section.required("name");
    let mode = section.required_choice("mode", &MODES);
    let history = section.or("history", false);
    section.finish();
    Some(Rule {
        name: name?,
        mode: mode?,
        history,
    })
}

/// Counted from 0, as in the environment's `WALFERRY__TABLE__0__NAME`.
fn key(index: usize, name: &str) -> String {
    format!("table[{index}].{name}")
}
