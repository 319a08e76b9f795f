//! `walferry fidelity`: what each column becomes, and what of it may be lost.
//!
//! - Only the catalog is asked: no row is read, and MongoDB is not connected to.
//! - What a type may lose is known where its values are encoded.

mod records;

use serde::Serialize;
use walferry_core::{Fault, Tasks};
use walferry_etl::Mode;
use walferry_mongodb::{ColumnForm, Fidelity, Naming, Note, Policies};
use walferry_postgres::{LeftOutColumn, SnapshotTable};
use walferry_schema::{Column, Modes, TableName, Type};

use crate::config::Config;
use crate::pipeline::connect::mongodb_settings;
use crate::snapshot::{Preparation, Stopped};

pub use crate::snapshot::LookError;

/// What may be lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The tables, in name order.
    pub tables: Vec<TableReport>,
}

/// What may be lost of one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableReport {
    /// The table.
    #[serde(serialize_with = "crate::progress::as_text")]
    pub table: TableName,
    /// Whether it is streamed or loaded.
    #[serde(serialize_with = "crate::progress::as_text")]
    pub mode: Mode,
    /// Its columns in table order, those last that no document has.
    pub columns: Vec<ColumnReport>,
    /// What holds for all of its rows.
    pub notes: Vec<Note>,
    /// Why the table could not be looked at.
    pub error: Option<String>,
}

/// What becomes of one column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ColumnReport {
    /// The column.
    pub column: String,
    /// PostgreSQL's type.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The column's place in the key, from 1; 0 for a column outside it.
    pub key: u16,
    /// The BSON type; none when no document has the column.
    pub bson: Option<String>,
    /// The worst of the notes; exact without one.
    pub fidelity: Fidelity,
    /// What is to be known, the worst first.
    pub notes: Vec<Note>,
}

/// Looks at the named tables, or at all that are streamed or loaded.
///
/// # Errors
/// When a named table is not one of them, or PostgreSQL cannot be asked; what goes wrong with one table is in the
/// report.
pub async fn run(config: &Config, names: &[String], tasks: &Tasks) -> Result<Report, LookError> {
    // A lock on a table may be waited for as long as somebody holds it.
    let looked = tasks
        .stop_signal()
        .run_until_cancelled(Box::pin(look(config, names, tasks)));
    looked.await.ok_or_else(|| Fault::from(Stopped))?
}

async fn look(config: &Config, names: &[String], tasks: &Tasks) -> Result<Report, LookError> {
    let mut preparation = Preparation::begin(config, tasks).await?;
    let policies = mongodb_settings(config).policies;
    let records = config.kafka.as_ref().map(|kafka| kafka.records.modes);
    let mut tables = Vec::new();
    for (table, mode) in preparation.choose(config, names)? {
        let mut report = TableReport {
            table,
            mode,
            columns: Vec::new(),
            notes: Vec::new(),
            error: None,
        };
        let records = records.filter(|_| mode == Mode::Stream);
        let looked = report.look(&mut preparation, policies, records).await;
        report.error = looked.err().map(|fault| fault.to_string());
        tables.push(report);
    }
    Ok(Report { tables })
}

// === impl Report ===

impl Report {
    /// Whether every table could be looked at.
    pub fn is_complete(&self) -> bool {
        self.tables.iter().all(|table| table.error.is_none())
    }

    /// The worst of all tables; exact when there is none.
    pub fn worst(&self) -> Fidelity {
        let of_columns = self.columns().map(|column| column.fidelity);
        let notes = self.tables.iter().flat_map(|table| &table.notes);
        let of_tables = notes.map(|note| note.fidelity);
        of_columns.chain(of_tables).max().unwrap_or(Fidelity::Exact)
    }

    /// How many columns are so.
    pub fn count(&self, fidelity: Fidelity) -> usize {
        self.columns()
            .filter(|column| column.fidelity == fidelity)
            .count()
    }

    fn columns(&self) -> impl Iterator<Item = &ColumnReport> {
        self.tables.iter().flat_map(|table| &table.columns)
    }
}

// === impl TableReport ===

impl TableReport {
    async fn look(
        &mut self,
        preparation: &mut Preparation,
        policies: Policies,
        records: Option<Modes>,
    ) -> Result<(), Fault> {
        let is_streamed = self.mode == Mode::Stream;
        let table = preparation.describe_any(&self.table, is_streamed).await?;
        let left_out = preparation.left_out(&table).await?;
        let columns = &table.relation().columns;
        let reports = columns.iter().map(|column| {
            let ColumnForm { bson, mut notes } = ColumnForm::of(column, columns, policies);
            notes.extend(records.and_then(|modes| records::note(column, modes)));
            ColumnReport::new(column, Some(bson), notes)
        });
        self.columns.extend(reports);
        let missing = left_out
            .iter()
            .map(|it| ColumnReport::missing(it, self.mode));
        self.columns.extend(missing);
        self.notes = notes(&table);
        Ok(())
    }
}

// === impl ColumnReport ===

impl ColumnReport {
    fn new(column: &Column, bson: Option<String>, mut notes: Vec<Note>) -> Self {
        notes.sort_by_key(|note| std::cmp::Reverse(note.fidelity));
        let worst = notes.first().map(|note| note.fidelity);
        Self {
            column: column.name.to_string(),
            type_name: type_name(column),
            key: column.key,
            bson,
            fidelity: worst.unwrap_or(Fidelity::Exact),
            notes,
        }
    }

    fn missing(left_out: &LeftOutColumn, mode: Mode) -> Self {
        let (what, remedy) = match (left_out.is_generated, mode) {
            (false, _) => (
                "the publication leaves it out",
                "ALTER PUBLICATION ... SET TABLE with this column",
            ),
            (true, Mode::Stream) => (
                "generated, and the publication leaves it out",
                "publish_generated_columns = stored, from PostgreSQL 18 on, or an ordinary column",
            ),
            (true, _) => (
                "generated, which a load leaves out as the stream does",
                "an ordinary column",
            ),
        };
        let note = Note::new(Fidelity::Lossy, what).mended_by(remedy);
        Self::new(&left_out.column, None, vec![note])
    }
}

/// What holds for all rows of a table.
fn notes(table: &SnapshotTable) -> Vec<Note> {
    let relation = table.relation();
    let mut notes = Vec::new();
    if relation.key_columns().is_empty() {
        let what = "no primary key, so no row has an _id";
        let remedy = "add one, or give the table mode = \"ignore\"";
        notes.push(Note::new(Fidelity::Refused, what).mended_by(remedy));
    }
    if let Err(error) = Naming.collection(&relation.name) {
        notes.push(Note::new(Fidelity::Refused, error.to_string()));
    }
    if let Some(filter) = table.filter() {
        let what = format!("only the rows that the publication lets through: {filter}");
        notes.push(Note::new(Fidelity::Lossy, what));
    }
    notes
}

/// A column's type as people write it: `numeric(12,2)[]`.
fn type_name(column: &Column) -> String {
    let name = &column.type_name;
    match (&column.kind, name.strip_prefix('_')) {
        (Type::Array(..), Some(element)) => format!("{element}[]"),
        _ => name.to_string(),
    }
}
