//! From a change to the JSON of its record, by hand into bytes: every row passes here.

use super::{Before, EnvelopeError, Meta, Template, json};
use crate::change::Cell;
use crate::{Column, Relation, Row, Value};

/// Bytes of a value beside its rows, about: room made before writing.
const FRAME_BYTES: usize = 640;

/// Appends the JSON of the record's key, `{"store_id":5,"product_id":101}`, to `out`; nothing for a
/// table without a key.
///
/// # Errors
/// When a cell's text does not fit its type, or the row leaves a key column out as unchanged.
pub fn write_key(out: &mut Vec<u8>, relation: &Relation, row: &Row) -> Result<(), EnvelopeError> {
    let key = relation.key_columns();
    if key.is_empty() {
        return Ok(());
    }
    let mut separator = b'{';
    for index in key {
        let column = &relation.columns[index];
        out.push(std::mem::replace(&mut separator, b','));
        if !write_member(out, column, row.cell(index))? {
            return Err(EnvelopeError::UnchangedKey(column.name.to_string()));
        }
    }
    out.push(b'}');
    Ok(())
}

/// Appends the JSON of the record's value to `out`; unchanged TOAST columns are left out of `after`.
///
/// # Errors
/// When a cell's text does not fit its type; `out` then ends in part of a record.
pub fn write_value(
    out: &mut Vec<u8>,
    template: &Template,
    relation: &Relation,
    meta: &Meta,
    before: Before<'_>,
    after: Option<&Row>,
) -> Result<(), EnvelopeError> {
    out.reserve(FRAME_BYTES + after.map_or(0, Row::text_bytes));
    out.extend_from_slice(b"{\"before\":");
    match before {
        Before::None => out.extend_from_slice(b"null"),
        Before::Key(row) => write_row(out, relation, row, |column| column.key > 0)?,
        Before::Full(row) => write_row(out, relation, row, |_| true)?,
    }
    out.extend_from_slice(b",\"after\":");
    match after {
        None => out.extend_from_slice(b"null"),
        Some(row) => write_row(out, relation, row, |_| true)?,
    }
    write_source(out, template, relation, meta);
    write_transaction(out, meta);
    out.extend_from_slice(b",\"op\":");
    json::string(out, meta.op.name());
    let processed_at = meta.processed_at;
    member(out, ",\"ts_ms\":", processed_at.div_euclid(1_000_000));
    member(out, ",\"ts_us\":", processed_at.div_euclid(1_000));
    member(out, ",\"ts_ns\":", processed_at);
    out.push(b'}');
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

fn write_row(
    out: &mut Vec<u8>,
    relation: &Relation,
    row: &Row,
    is_shown: impl Fn(&Column) -> bool,
) -> Result<(), EnvelopeError> {
    out.push(b'{');
    let start = out.len();
    for (index, column) in relation.columns.iter().enumerate() {
        if is_shown(column) && write_member(out, column, row.cell(index))? {
            out.push(b',');
        }
    }
    if out.len() > start {
        out.pop();
    }
    out.push(b'}');
    Ok(())
}

/// Appends `"name":value`; for an unchanged cell nothing, and says so.
fn write_member(out: &mut Vec<u8>, column: &Column, cell: Cell<'_>) -> Result<bool, EnvelopeError> {
    let value = match cell {
        Cell::Unchanged => return Ok(false),
        Cell::Null => Value::Null,
        Cell::Text(text) => Value::from_text(column.kind, text)
            .map_err(|source| EnvelopeError::value(column, source))?,
    };
    json::string(out, &column.name);
    out.push(b':');
    json::value(out, &value);
    Ok(true)
}

fn write_source(out: &mut Vec<u8>, template: &Template, relation: &Relation, meta: &Meta) {
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
    text(out, ",\"schema\":", &relation.name.schema);
    text(out, ",\"table\":", &relation.name.table);
    member(out, ",\"txId\":", meta.xid);
    member(out, ",\"lsn\":", meta.lsn.0);
    out.extend_from_slice(b",\"xmin\":null,\"origin\":null,\"origin_lsn\":null}");
}

/// The text of a JSON array: `"[\"26360184\",\"26360184\"]"`.
fn write_sequence(out: &mut Vec<u8>, meta: &Meta) {
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

fn write_transaction(out: &mut Vec<u8>, meta: &Meta) {
    let Some(transaction) = meta.transaction else {
        return out.extend_from_slice(b",\"transaction\":null");
    };
    member(out, ",\"transaction\":{\"id\":\"", meta.xid);
    member(out, ":", transaction.commit_lsn.0);
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
