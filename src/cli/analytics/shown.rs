//! Answers as tables, and as comma-separated values.

use std::fmt::Write as _;
use std::io;

use walferry_etl::analytics::{Kind, Parameter};
use walferry_mongodb::Row;

use super::super::CliError;
use super::super::output::{Grid, thousands};
use crate::analytics::{Answered, Outcome, Refreshed};

/// How much of a value a table shows; `--json` and `--csv` have all of it.
const SHOWN_CHARACTERS: usize = 72;
/// What a table of alerts leaves out: all rows have the same, or another column has it.
const LEFT_OUT: [&str; 2] = ["_id", "rule"];
/// What the columns of [`outcomes`] are.
const OUTCOME_HEADING: [&str; 8] = [
    "rule",
    "rows",
    "added",
    "changed",
    "removed",
    "output",
    "error",
    "not_asked",
];

type Cells = Vec<(String, String)>;

/// An answer under its title.
pub(super) fn table(answered: &Answered) -> String {
    let Answered {
        rule, title, rows, ..
    } = answered;
    let mut text = format!("{rule}: {title} ({})\n", thousands(rows.len() as u64));
    if rows.is_empty() {
        return text;
    }
    let cells: Vec<_> = rows.iter().map(Row::cells).collect();
    let is_shown = |name: &&str| answered.kind != Kind::Alerts || !LEFT_OUT.contains(name);
    let columns: Vec<_> = columns(&cells).into_iter().filter(is_shown).collect();
    let mut grid = Grid::of_text(&columns);
    for row in &cells {
        grid.row(columns.iter().map(|it| shortened(value(row, it))));
    }
    text.push_str(&grid.to_string());
    text
}

/// An answer, all of it, with the fields of documents inside it as columns of their own.
pub(super) fn csv(answered: &Answered) -> Result<String, CliError> {
    let cells: Vec<_> = answered.rows.iter().map(Row::flat_cells).collect();
    let columns = columns(&cells);
    let rows = cells.iter();
    let rows = rows.map(|row| columns.iter().map(|it| value(row, it).to_owned()).collect());
    records(&columns, rows)
}

/// What a refresh came to, as comma-separated values.
pub(super) fn outcomes(refreshed: &Refreshed) -> Result<String, CliError> {
    let rows = refreshed.rules.iter().map(|it| {
        let numbers = [it.rows, it.added, it.changed, it.removed].map(|it| it.to_string());
        let error = it.error.clone().unwrap_or_default();
        let not_asked = it.not_asked.clone().unwrap_or_default();
        let mut row = vec![it.rule.clone()];
        row.extend(numbers);
        row.extend([it.output.clone(), error, not_asked]);
        row
    });
    records(&OUTCOME_HEADING, rows)
}

/// What a refresh came to.
pub(super) fn totals(refreshed: &Refreshed) -> String {
    let mut grid = Grid::new(&["rule", "rows", "added", "changed", "removed", "output"]);
    let is_kept = |it: &&Outcome| it.error.is_none() && it.not_asked.is_none();
    for it in refreshed.rules.iter().filter(is_kept) {
        let [rows, added, changed, removed] =
            [it.rows, it.added, it.changed, it.removed].map(thousands);
        grid.row([
            it.rule.clone(),
            rows,
            added,
            changed,
            removed,
            it.output.clone(),
        ]);
    }
    let mut text = grid.to_string();
    // Writing to a string never fails.
    if !refreshed.views.is_empty() {
        let _ = writeln!(text, "views made: {}", refreshed.views.join(", "));
    }
    if refreshed.indexes > 0 {
        let _ = writeln!(text, "indexes made: {}", refreshed.indexes);
    }
    for it in &refreshed.rules {
        if let Some(error) = &it.error {
            let _ = writeln!(text, "{} failed: {error}", it.rule);
        }
        if let Some(why) = &it.not_asked {
            let _ = writeln!(text, "{} is not asked: {why}", it.rule);
        }
    }
    text
}

/// A parameter's default for people: a number of extended JSON without what wraps it.
pub(super) fn default(parameter: &Parameter) -> String {
    let wrapped = parameter.written.as_object();
    let only = wrapped.filter(|it| it.len() == 1);
    let inner = only.and_then(|it| it.values().next());
    let shown = inner.unwrap_or(&parameter.written);
    match shown.as_str() {
        Some(text) => text.to_owned(),
        None => shown.to_string(),
    }
}

/// The names of all columns, in the order in which rows have them.
fn columns(rows: &[Cells]) -> Vec<&str> {
    let mut columns: Vec<&str> = Vec::new();
    for row in rows {
        let mut after = 0;
        for (name, _) in row {
            let known = columns.iter().position(|it| it == name);
            let at = known.unwrap_or(after);
            if known.is_none() {
                columns.insert(at, name);
            }
            after = at + 1;
        }
    }
    columns
}

fn value<'a>(row: &'a Cells, column: &str) -> &'a str {
    let cell = row.iter().find(|(name, _)| name == column);
    cell.map_or("", |(_, value)| value)
}

fn shortened(text: &str) -> String {
    let text = text.replace(char::is_control, " ");
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn records(heading: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Result<String, CliError> {
    let unwritten = |error: csv::Error| CliError::Output(error.into());
    let mut writer = csv::Writer::from_writer(Vec::new());
    // An answer without rows has no columns either, and a record has one field at least.
    if !heading.is_empty() {
        writer.write_record(heading).map_err(unwritten)?;
    }
    for row in rows {
        writer.write_record(row).map_err(unwritten)?;
    }
    let bytes = writer.into_inner();
    let bytes = bytes.map_err(|error| CliError::Output(error.into_error()))?;
    String::from_utf8(bytes).map_err(|error| CliError::Output(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(names: &[&str]) -> Cells {
        let cell = |name: &&str| ((*name).to_owned(), String::new());
        names.iter().map(cell).collect()
    }

    #[test]
    fn columns_keep_the_order_of_the_rows() {
        let rows = [
            cells(&["a", "c"]),
            cells(&["a", "b", "c"]),
            cells(&["d", "a"]),
        ];
        assert_eq!(columns(&rows), ["d", "a", "b", "c"]);
    }

    #[test]
    fn a_value_that_would_end_its_line_or_hide_others_is_cut() {
        assert_eq!(shortened("a\nb\u{1b}"), "a b ");
        let long = "é".repeat(SHOWN_CHARACTERS + 1);
        assert_eq!(shortened(&long).chars().count(), SHOWN_CHARACTERS + 1);
    }

    #[test]
    fn comma_separated_values_are_quoted_where_they_must() {
        let rows = [vec!["a,\"b\"".to_owned(), String::new()]];
        let text = records(&["x", "y"], rows.into_iter()).unwrap();
        assert_eq!(text, "x,y\n\"a,\"\"b\"\"\",\n");
        assert_eq!(records(&[], std::iter::empty()).unwrap(), "");
    }
}
