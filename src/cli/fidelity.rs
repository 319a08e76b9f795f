//! `walferry fidelity`: what each column becomes, and what may be lost.

use std::fmt::Write as _;
use std::io;

use walferry_core::Tasks;
use walferry_mongodb::{Fidelity, Note};

use super::output::{Grid, Output};
use super::{CliError, Exit};
use crate::config::Config;
use crate::fidelity::{self, ColumnReport, Report, TableReport};
use crate::telemetry::is_coloured;

/// How much of a BSON type is shown: that of a row type may be long, and `--json` has all of it.
const SHOWN_CHARACTERS: usize = 48;

pub(super) async fn run(
    config: &Config,
    tables: &[String],
    tasks: &Tasks,
    output: &Output,
) -> Result<Exit, CliError> {
    let report = Box::pin(fidelity::run(config, tables, tasks)).await?;
    if output.is_json() {
        output.json(&report)?;
    } else {
        output.text(&shown(&report, is_coloured(&io::stdout())))?;
    }
    Ok(match (report.is_complete(), report.worst()) {
        (false, _) => Exit::Failed,
        (true, Fidelity::Exact | Fidelity::OtherForm) => Exit::Success,
        (true, Fidelity::Lossy | Fidelity::Refused) => Exit::Different,
    })
}

fn shown(report: &Report, is_coloured: bool) -> String {
    if report.tables.is_empty() {
        return "no table is selected: nothing to look at\n".to_owned();
    }
    let mut text = String::new();
    for table in &report.tables {
        show_table(&mut text, table, is_coloured);
    }
    let kinds = [
        Fidelity::Exact,
        Fidelity::OtherForm,
        Fidelity::Lossy,
        Fidelity::Refused,
    ];
    let counts = kinds.map(|it| format!("{} {}", report.count(it), name(it)));
    // Writing to a string never fails.
    let _ = writeln!(text, "columns: {}", counts.join(", "));
    text
}

fn show_table(text: &mut String, table: &TableReport, is_coloured: bool) {
    // Writing to a string never fails.
    let _ = writeln!(text, "{} ({})", table.table, table.mode);
    if let Some(error) = &table.error {
        let _ = writeln!(text, "was not looked at: {error}\n");
        return;
    }
    for note in &table.notes {
        let _ = writeln!(text, "{}", verdict(note.fidelity, Some(note), is_coloured));
    }
    let mut grid = Grid::of_text(&["column", "type", "BSON", "fidelity"]);
    for column in &table.columns {
        for row in rows(column, is_coloured) {
            grid.row(row);
        }
    }
    let _ = writeln!(text, "{grid}");
}

/// A line of a column's for each note, one at least; only the first has the column.
fn rows(column: &ColumnReport, is_coloured: bool) -> Vec<[String; 4]> {
    let bson = column.bson.as_deref().map_or("-".to_owned(), shortened);
    let first = [column.column.clone(), column.type_name.clone(), bson];
    let verdicts = match &column.notes[..] {
        [] => vec![verdict(Fidelity::Exact, None, is_coloured)],
        notes => notes
            .iter()
            .map(|note| verdict(note.fidelity, Some(note), is_coloured))
            .collect(),
    };
    let cells = |(index, verdict)| {
        let [column, kind, bson] = if index == 0 {
            first.clone()
        } else {
            [const { String::new() }; 3]
        };
        [column, kind, bson, verdict]
    };
    verdicts.into_iter().enumerate().map(cells).collect()
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= SHOWN_CHARACTERS {
        return text.to_owned();
    }
    let shown: String = text.chars().take(SHOWN_CHARACTERS).collect();
    format!("{shown}...")
}

fn verdict(fidelity: Fidelity, note: Option<&Note>, is_coloured: bool) -> String {
    let (colour, plain) = match fidelity {
        _ if !is_coloured => ("", ""),
        Fidelity::Exact => ("\x1b[32m", "\x1b[0m"),
        Fidelity::OtherForm => ("\x1b[33m", "\x1b[0m"),
        Fidelity::Lossy => ("\x1b[31m", "\x1b[0m"),
        Fidelity::Refused => ("\x1b[1;31m", "\x1b[0m"),
    };
    let mut text = format!("{colour}{}{plain}", name(fidelity));
    // Writing to a string never fails.
    if let Some(note) = note {
        let _ = write!(text, ": {}", note.what);
        if let Some(remedy) = &note.remedy {
            let _ = write!(text, " (to avoid: {remedy})");
        }
    }
    text
}

fn name(fidelity: Fidelity) -> &'static str {
    match fidelity {
        Fidelity::Exact => "exact",
        Fidelity::OtherForm => "other form",
        Fidelity::Lossy => "LOSSY",
        Fidelity::Refused => "REFUSED",
    }
}

#[cfg(test)]
mod tests {
    use walferry_etl::Mode;
    use walferry_schema::TableName;

    use super::*;

    #[test]
    fn a_column_stands_once_before_all_of_its_notes() {
        let note = |fidelity, what: &str| Note::new(fidelity, what);
        let lost = note(Fidelity::Lossy, "cut off").mended_by("keep");
        let column = |name: &str, bson: Option<&str>, notes: Vec<Note>| ColumnReport {
            column: name.to_owned(),
            type_name: "int4".to_owned(),
            key: 0,
            bson: bson.map(str::to_owned),
            fidelity: notes.first().map_or(Fidelity::Exact, |it| it.fidelity),
            notes,
        };
        let table = TableReport {
            table: TableName::new("public", "t"),
            mode: Mode::Stream,
            columns: vec![
                column("id", Some("Int32"), vec![]),
                column("a", None, vec![lost, note(Fidelity::OtherForm, "b")]),
            ],
            notes: vec![note(Fidelity::Refused, "no key")],
            error: None,
        };
        let expected = "public.t (stream)\nREFUSED: no key\n\
                        column  type  BSON   fidelity\n\
                        id      int4  Int32  exact\n\
                        a       int4  -      LOSSY: cut off (to avoid: keep)\n\
                        \x20                    other form: b\n\n\
                        columns: 1 exact, 0 other form, 1 LOSSY, 0 REFUSED\n";
        let report = Report {
            tables: vec![table],
        };
        assert_eq!(shown(&report, false), expected);
        assert_eq!(report.worst(), Fidelity::Refused);
    }

    #[test]
    fn a_long_type_does_not_push_the_others_away() {
        assert_eq!(shortened("Array of Int32"), "Array of Int32");
        let long = format!("Document {{{}}}", "a: Int32, ".repeat(20));
        let shown = shortened(&long);
        assert_eq!(shown.chars().count(), SHOWN_CHARACTERS + 3);
        assert!(shown.starts_with("Document {a: Int32") && shown.ends_with("..."));
    }
}
