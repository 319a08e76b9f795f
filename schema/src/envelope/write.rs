//! From a change to the JSON of its record, by hand into bytes: every row passes here.

use std::sync::Arc;

use super::{Before, EnvelopeError, Meta, Template, Version, json, schemas};
use crate::change::Cell;
use crate::{Column, Modes, Relation, Row, TransactionIdMode, Value};

/// Bytes of a value beside its rows, about: room made before writing.
const FRAME_BYTES: usize = 640;

/// Where the JSON of a large value belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) at: usize,
    pub(super) is_old: bool,
    pub(super) column: usize,
}

/// Where large values belong, when that is asked for; they are left out else.
#[derive(Debug, Default)]
pub(super) struct Places {
    noted: Option<Vec<Place>>,
    is_old: bool,
}

// === impl Places ===

impl Places {
    pub(super) fn noted() -> Self {
        Self {
            noted: Some(Vec::new()),
            is_old: true,
        }
    }

    pub(super) fn into_noted(self) -> Vec<Place> {
        self.noted.unwrap_or_default()
    }

    /// Appends `"name":` for a large value, where that is asked for, and says so.
    fn note(&mut self, out: &mut Vec<u8>, index: usize, column: &Column) -> bool {
        let Some(noted) = &mut self.noted else {
            return false;
        };
        json::string(out, &column.name);
        out.push(b':');
        noted.push(Place {
            at: out.len(),
            is_old: self.is_old,
            column: index,
        });
        true
    }
}

/// Appends the JSON of the record's key, `{"store_id":5,"product_id":101}`, to `out`; nothing for a
/// table without a key.
///
/// # Errors
/// When a cell's text does not fit its type, or the row leaves a key column out as unchanged.
pub fn write_key<'a>(
    out: &mut Vec<u8>,
    version: impl Into<Version<'a>>,
    modes: Modes,
    row: &Row,
) -> Result<(), EnvelopeError> {
    let Version { relation, schema } = version.into();
    let key = relation.key_columns();
    if key.is_empty() {
        return Ok(());
    }
    if let Some(schema) = schema {
        schema.begin_key(out);
    }
    let mut separator = b'{';
    for index in key {
        let column = &relation.columns[index];
        out.push(std::mem::replace(&mut separator, b','));
        if !write_member(out, column, modes, row.cell(index))? {
            return Err(EnvelopeError::UnchangedKey(column.name.to_string()));
        }
    }
    out.push(b'}');
    if schema.is_some() {
        schemas::end(out);
    }
    Ok(())
}

/// Appends the JSON of the record's value to `out`; unchanged TOAST columns are left out of `after`, of an old row what
/// PostgreSQL did not send, and values that are too large to go with their row. Where the record carries a schema, that
/// asks for every column: what Debezium has there takes their place.
///
/// # Errors
/// When a cell's text does not fit its type; `out` then ends in part of a record.
pub fn write_value<'a>(
    out: &mut Vec<u8>,
    template: &Template,
    version: impl Into<Version<'a>>,
    meta: &Meta<'_>,
    before: Before<'_>,
    after: Option<&Row>,
) -> Result<(), EnvelopeError> {
    let places = &mut Places::default();
    write_value_with(out, (template, version.into()), meta, before, after, places)
}

/// The same, saying where the large values belong.
pub(super) fn write_value_with(
    out: &mut Vec<u8>,
    (template, version): (&Template, Version<'_>),
    meta: &Meta<'_>,
    before: Before<'_>,
    after: Option<&Row>,
    places: &mut Places,
) -> Result<(), EnvelopeError> {
    out.reserve(FRAME_BYTES + after.map_or(0, Row::text_bytes));
    if let Some(schema) = version.schema {
        schema.begin_value(out);
    }
    let modes = template.modes;
    out.extend_from_slice(b"{\"before\":");
    match before {
        Before::None => out.extend_from_slice(b"null"),
        Before::Key(row) => write_row(out, version, modes, row, places, |it| it.key > 0)?,
        Before::Full(row) => write_row(out, version, modes, row, places, |_| true)?,
    }
    places.is_old = false;
    out.extend_from_slice(b",\"after\":");
    match after {
        None => out.extend_from_slice(b"null"),
        Some(row) => write_row(out, version, modes, row, places, |_| true)?,
    }
    let name = &version.relation.name;
    let name = (&*name.schema, &*name.table);
    write_source(out, template, name, meta, Some(meta.xid));
    write_transaction(out, template, meta);
    out.extend_from_slice(b",\"op\":");
    json::string(out, meta.op.name());
    let processed_at = meta.processed_at;
    member(out, ",\"ts_ms\":", processed_at.div_euclid(1_000_000));
    member(out, ",\"ts_us\":", processed_at.div_euclid(1_000));
    member(out, ",\"ts_ns\":", processed_at);
    out.push(b'}');
    if version.schema.is_some() {
        schemas::end(out);
    }
    Ok(())
}

/// The JSON array of the columns that `row` leaves out as unchanged, for the header
/// [`crate::header::UNCHANGED`]; none when it leaves out nothing.
pub fn unchanged_names(relation: &Relation, row: &Row) -> Option<Vec<u8>> {
    let mut names = Vec::new();
    for (column, cell) in relation.columns.iter().zip(row.cells()) {
        if cell == Cell::Unchanged {
            names.push(if names.is_empty() { b'[' } else { b',' });
            json::string(&mut names, &column.name);
        }
    }
    if names.is_empty() {
        return None;
    }
    names.push(b']');
    Some(names)
}

/// The columns of which `row` has values that are too large to go with it.
pub fn large_names(relation: &Relation, row: &Row) -> Vec<Arc<str>> {
    let cells = relation.columns.iter().zip(row.cells());
    let large = cells.filter(|(_, cell)| matches!(cell, Cell::Large(_)));
    large.map(|(column, _)| column.name.clone()).collect()
}

fn write_row(
    out: &mut Vec<u8>,
    version: Version<'_>,
    modes: Modes,
    row: &Row,
    places: &mut Places,
    is_sent: impl Fn(&Column) -> bool,
) -> Result<(), EnvelopeError> {
    let Version { relation, schema } = version;
    out.push(b'{');
    let start = out.len();
    for (index, column) in relation.columns.iter().enumerate() {
        let is_sent = is_sent(column);
        let is_written = is_sent && {
            let cell = row.cell(index);
            write_member(out, column, modes, cell)?
                || matches!(cell, Cell::Large(_)) && places.note(out, index, column)
        };
        if !is_written {
            let Some(schema) = schema else { continue };
            json::string(out, &column.name);
            out.push(b':');
            out.extend_from_slice(if is_sent {
                schema.unchanged(index)
            } else {
                schema.missing(index)
            });
        }
        out.push(b',');
    }
    if out.len() > start {
        out.pop();
    }
    out.push(b'}');
    Ok(())
}

/// Appends `"name":value`; for an unchanged or a large cell nothing, and says so.
fn write_member(
    out: &mut Vec<u8>,
    column: &Column,
    modes: Modes,
    cell: Cell<'_>,
) -> Result<bool, EnvelopeError> {
    let value = match cell {
        Cell::Unchanged | Cell::Large(_) => return Ok(false),
        Cell::Null => Value::Null,
        Cell::Text(text) => Value::from_text(&column.kind, text)
            .map_err(|source| EnvelopeError::value(column, source))?,
    };
    json::string(out, &column.name);
    out.push(b':');
    json::value(out, &value, &column.kind, modes.of(column));
    Ok(true)
}

pub(super) fn write_source(
    out: &mut Vec<u8>,
    template: &Template,
    (schema, table): (&str, &str),
    meta: &Meta<'_>,
    xid: Option<u32>,
) {
    let text = |out: &mut Vec<u8>, name: &str, text: &str| {
        out.extend_from_slice(name.as_bytes());
        json::string(out, text);
    };
    text(out, ",\"source\":{\"version\":", &template.version);
    text(
        out,
        ",\"connector\":\"postgresql\",\"name\":",
        &template.name,
    );
    member(out, ",\"ts_ms\":", meta.committed_at.div_euclid(1_000));
    text(out, ",\"snapshot\":", meta.snapshot.name());
    text(out, ",\"db\":", &template.database);
    write_sequence(out, meta);
    member(out, ",\"ts_us\":", meta.committed_at);
    member(out, ",\"ts_ns\":", i128::from(meta.committed_at) * 1_000);
    text(out, ",\"schema\":", schema);
    text(out, ",\"table\":", table);
    match xid {
        Some(xid) => member(out, ",\"txId\":", xid),
        None => out.extend_from_slice(b",\"txId\":null"),
    }
    member(out, ",\"lsn\":", meta.lsn.0);
    match meta.origin {
        None => out.extend_from_slice(b",\"xmin\":null,\"origin\":null,\"origin_lsn\":null}"),
        Some(origin) => {
            text(out, ",\"xmin\":null,\"origin\":", &origin.name);
            match origin.lsn {
                Some(lsn) => member(out, ",\"origin_lsn\":", lsn.0),
                None => out.extend_from_slice(b",\"origin_lsn\":null"),
            }
            out.push(b'}');
        }
    }
}

/// The text of a JSON array: `"[\"26360184\",\"26360184\"]"`.
fn write_sequence(out: &mut Vec<u8>, meta: &Meta<'_>) {
    match meta.last_commit_lsn {
        None => out.extend_from_slice(br#","sequence":"[null,\""#),
        Some(lsn) => {
            member(out, r#","sequence":"[\""#, lsn.0);
            out.extend_from_slice(br#"\",\""#);
        }
    }
    json::integer(out, meta.lsn.0);
    out.extend_from_slice(br#"\"]""#);
}

pub(super) fn write_transaction(out: &mut Vec<u8>, template: &Template, meta: &Meta<'_>) {
    let Some(transaction) = meta.transaction else {
        return out.extend_from_slice(b",\"transaction\":null");
    };
    member(out, ",\"transaction\":{\"id\":\"", meta.xid);
    let lsn = match template.modes.transaction_id {
        TransactionIdMode::Commit => transaction.commit_lsn,
        TransactionIdMode::Event => meta.lsn,
    };
    member(out, ":", lsn.0);
    member(out, "\",\"total_order\":", transaction.total_order);
    member(
        out,
        ",\"data_collection_order\":",
        transaction.data_collection_order,
    );
    out.push(b'}');
}

fn member(out: &mut Vec<u8>, name: &str, number: impl itoa::Integer) {
    out.extend_from_slice(name.as_bytes());
    json::integer(out, number);
}
