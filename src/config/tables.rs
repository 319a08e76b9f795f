//! `[[table]]`: what becomes of each table.

use config::{Value, ValueKind};
use walferry_etl::{Mode, Rule, Selection};

use super::Problem;
use super::setting::{Setting, choice};

const MODES: [(&str, Mode); 3] = [
    ("stream", Mode::Stream),
    ("batch", Mode::Batch),
    ("ignore", Mode::Ignore),
];

/// The rules in their order.
pub(super) fn read(value: Option<Value>, problems: &mut Vec<Problem>) -> Option<Selection> {
    let Some(ValueKind::Array(entries)) = value.map(|value| value.kind) else {
        problems.push(Problem::new(
            "table",
            "is missing: give each set of tables a [[table]] with name and mode",
        ));
        return None;
    };
    let rules: Vec<_> = entries
        .into_iter()
        .enumerate()
        .map(|(index, entry)| rule(index, entry, problems))
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
    problems.extend(errors.into_iter().map(problem));
    None
}

fn rule(index: usize, entry: Value, problems: &mut Vec<Problem>) -> Option<Rule> {
    let ValueKind::Table(mut entry) = entry.kind else {
        problems.push(Problem::new(
            format!("table[{index}]"),
            "must be a section: [[table]]",
        ));
        return None;
    };
    let mut take = |name: &str| {
        let value = entry.remove(name);
        if value.is_none() {
            problems.push(Problem::new(key(index, name), "is missing"));
        }
        value
    };
    let name = take("name").map(String::from_value);
    let mode = take("mode").map(|value| choice(value, &MODES));
    for unknown in entry.into_keys() {
        let message = "no such key; [[table]] has name, mode";
        problems.push(Problem::new(key(index, &unknown), message));
    }
    let mut checked = |name, wanted: &String| {
        problems.push(Problem::new(key(index, name), format!("must be {wanted}")));
    };
    let name = name?.inspect_err(|wanted| checked("name", wanted)).ok();
    let mode = mode?.inspect_err(|wanted| checked("mode", wanted)).ok();
    Some(Rule {
        name: name?,
        mode: mode?,
    })
}

/// Counted from 0, as in the environment's `WALFERRY__TABLE__0__NAME`.
fn key(index: usize, name: &str) -> String {
    format!("table[{index}].{name}")
}
