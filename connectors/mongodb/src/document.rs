//! Rows to documents: one encoding for the stream and the batch load.
//!
//! - A document is `_id`, then every column in table order.
//! - What MongoDB would not take as it stands in a field's name, a dot, a `$` before it, or the name `_id`, has its
//!   full-width form there: `a．b`, `＄a`, `＿id`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bson::{Bson, Document, RawDocumentBuf, doc};
use walferry_schema::{Column, Field, Image, TableName, Value};

use crate::bson_value::element::{self, kind};
use crate::bson_value::{self, Loss, Microseconds, NumberTooLarge, Policies};
use crate::{Error, Result};

/// The largest document that MongoDB takes.
pub(crate) const MAX_DOCUMENT_BYTES: usize = 16 * 1024 * 1024;
/// What a document has beside its elements and the type and value of `_id`: the length, the name
/// `_id` with its NUL, the end.
pub(crate) const DOCUMENT_OVERHEAD: usize = 9;

/// How many values of a column lost their microseconds.
pub type Truncated = BTreeMap<Arc<str>, u64>;

/// Encodes the rows of one table.
#[derive(Clone, Debug)]
pub(crate) struct Encoder {
    pub(crate) table: TableName,
    pub(crate) policies: Policies,
    pub(crate) truncated: Truncated,
}

/// A range of bytes, or of other things that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

// === impl Encoder ===

impl Encoder {
    pub(crate) fn new(table: TableName, policies: Policies) -> Self {
        Self {
            table,
            policies,
            truncated: Truncated::new(),
        }
    }

    /// Appends a row's `_id`: a type byte, then the payload.
    pub(crate) fn id(&self, out: &mut Vec<u8>, image: &Image<'_>) -> Result<()> {
        let start = out.len();
        out.push(kind::DOCUMENT);
        let keys = image.key_columns();
        if let [key] = keys[..] {
            let kind = bson_value::key_payload(out, self.key_value(image, key)?, self.policies)
                .map_err(|overflow| self.overflow(&image.columns[key], overflow))?;
            out[start] = kind;
            return Ok(());
        }
        if keys.is_empty() {
            return Err(Error::NoKey {
                table: self.table.clone(),
            });
        }
        let document = element::open(out);
        for key in keys {
            let column = &image.columns[key];
            let name = self.field_name(image.columns, column)?;
            bson_value::append_key(out, &name, self.key_value(image, key)?, self.policies)
                .map_err(|overflow| self.overflow(column, overflow))?;
        }
        element::close(out, document);
        Ok(())
    }

    /// Appends the elements of the columns that are present, and to `keys` where those of the key
    /// stand, counted from where the body begins: whether all columns are present.
    pub(crate) fn body(
        &mut self,
        out: &mut Vec<u8>,
        keys: &mut Vec<Span>,
        image: &Image<'_>,
    ) -> Result<bool> {
        let start = out.len();
        let mut is_complete = image.fields.len() == image.columns.len();
        for (column, field) in image.columns.iter().zip(&image.fields) {
            let Field::Present(value) = field else {
                is_complete = false;
                continue;
            };
            let at = out.len() - start;
            let name = self.field_name(image.columns, column)?;
            self.column(out, &name, column, value)?;
            if column.key > 0 {
                let end = out.len() - start;
                keys.push(Span { start: at, end });
            }
            self.microseconds(out, image.columns, &name, column, value)?;
        }
        Ok(is_complete)
    }

    /// The first column that an image lacks, as an error.
    pub(crate) fn absent(&self, image: &Image<'_>) -> Error {
        let mut columns = image.columns.iter().zip(&image.fields);
        let absent = columns.find(|(_, field)| **field == Field::Absent);
        Error::ColumnAbsent {
            table: self.table.clone(),
            column: absent.map_or_else(String::new, |(column, _)| column.name.to_string()),
        }
    }

    fn column(
        &mut self,
        out: &mut Vec<u8>,
        name: &str,
        column: &Column,
        value: &Value<'_>,
    ) -> Result<()> {
        let loss = bson_value::append(out, name, value, self.policies)
            .map_err(|overflow| self.overflow(column, overflow))?;
        // Within an array or a composite there is no place to keep them.
        let keeps = self.policies.microseconds == Microseconds::Keep
            && bson_value::has_microseconds(column);
        if loss == Loss::Microseconds && !keeps {
            if let Some(count) = self.truncated.get_mut(&column.name) {
                *count += 1;
            } else {
                self.truncated.insert(column.name.clone(), 1);
            }
        }
        Ok(())
    }

    fn microseconds(
        &self,
        out: &mut Vec<u8>,
        columns: &[Column],
        name: &str,
        column: &Column,
        value: &Value<'_>,
    ) -> Result<()> {
        if self.policies.microseconds == Microseconds::Truncate
            || !bson_value::has_microseconds(column)
        {
            return Ok(());
        }
        self.check_clash(columns, bson_value::microseconds_name(name))?;
        bson_value::append_microseconds(out, name, value);
        Ok(())
    }

    /// A field that walferry names itself must not be a column's.
    fn check_clash(&self, columns: &[Column], name: String) -> Result<()> {
        if columns.iter().any(|other| *other.name == *name) {
            return Err(Error::ColumnClash {
                table: self.table.clone(),
                column: name,
            });
        }
        Ok(())
    }

    fn key_value<'a>(&self, image: &'a Image<'_>, key: usize) -> Result<&'a Value<'a>> {
        match image.fields.get(key) {
            Some(Field::Present(value)) => Ok(value),
            _ => Err(Error::KeyAbsent {
                table: self.table.clone(),
                column: image.columns[key].name.to_string(),
            }),
        }
    }

    fn field_name<'c>(&self, columns: &[Column], column: &'c Column) -> Result<Cow<'c, str>> {
        let name = field_name(&column.name);
        if let Cow::Owned(name) = &name {
            self.check_clash(columns, name.clone())?;
        }
        Ok(name)
    }

    fn overflow(&self, column: &Column, _: NumberTooLarge) -> Error {
        Error::NumericOverflow {
            table: self.table.clone(),
            column: column.name.to_string(),
        }
    }
}

// === impl Span ===

impl Span {
    /// What of `items` the span covers.
    pub(crate) fn of<T>(self, items: &[T]) -> &[T] {
        &items[self.start..self.end]
    }

    pub(crate) fn len(self) -> usize {
        self.end - self.start
    }

    /// Copies what the span covers to the end of other items: the span there.
    pub(crate) fn moved<T: Copy>(self, from: &[T], to: &mut Vec<T>) -> Self {
        let start = to.len();
        to.extend_from_slice(self.of(from));
        let end = to.len();
        Self { start, end }
    }
}

/// The field that holds a column.
pub(crate) fn field_name(column: &str) -> Cow<'_, str> {
    // Every column of every row comes here: without branches, bytes are compared many at a time.
    let is_dot = |byte: u8| byte == b'.';
    let has_dot = column.bytes().fold(false, |hit, byte| hit | is_dot(byte));
    if !has_dot && column != "_id" && !column.starts_with('$') {
        return Cow::Borrowed(column);
    }
    if column == "_id" {
        return Cow::Owned("＿id".to_owned());
    }
    let name = column.replace('.', "．");
    Cow::Owned(match name.strip_prefix('$') {
        Some(rest) => format!("＄{rest}"),
        None => name,
    })
}

/// The names of the fields that a row becomes, without `_id`.
pub(crate) fn fields(image: &Image<'_>, policies: Policies) -> Vec<String> {
    let mut fields = Vec::with_capacity(image.columns.len());
    for column in image.columns {
        let name = field_name(&column.name).into_owned();
        fields.push(name.clone());
        if policies.microseconds == Microseconds::Keep && bson_value::has_microseconds(column) {
            fields.push(bson_value::microseconds_name(&name));
        }
    }
    fields
}

/// Appends `_id` (type byte and payload) as an element.
pub(crate) fn append_id(out: &mut Vec<u8>, id: &[u8]) {
    append_id_as(out, "_id", id);
}

/// Appends an `_id`'s value under another name.
pub(crate) fn append_id_as(out: &mut Vec<u8>, name: &str, id: &[u8]) {
    let (kind, payload) = id.split_first().unwrap_or((&kind::NULL, &[]));
    element::header(out, *kind, name);
    out.extend_from_slice(payload);
}

/// An `_id` (type byte and payload) for people, shortened.
pub fn show_id(id: &[u8]) -> String {
    const SHOWN_CHARACTERS: usize = 200;
    let mut bytes = Vec::new();
    let document = element::open(&mut bytes);
    append_id(&mut bytes, id);
    element::close(&mut bytes, document);
    let document = RawDocumentBuf::from_bytes(bytes).ok();
    let document = document.and_then(|raw| bson::Document::try_from(&*raw).ok());
    let text = document.and_then(|document| Some(document.get("_id")?.to_string()));
    text.unwrap_or_default()
        .chars()
        .take(SHOWN_CHARACTERS)
        .collect()
}

/// `{_id: …}` for the driver.
pub(crate) fn id_filter(id: &[u8]) -> Result<Document> {
    let value = id_value(id).ok_or(Error::Answer {
        doing: "encoding a key",
        field: "_id",
    })?;
    Ok(doc! { "_id": value })
}

/// An `_id` (type byte and payload) as a value.
pub(crate) fn id_value(id: &[u8]) -> Option<Bson> {
    let mut bytes = Vec::new();
    let document = element::open(&mut bytes);
    append_id_as(&mut bytes, "_id", id);
    element::close(&mut bytes, document);
    let raw = RawDocumentBuf::from_bytes(bytes).ok()?;
    Document::try_from(&*raw).ok()?.remove("_id")
}

/// The value of an `_id` as type byte and payload.
pub(crate) fn id_of(value: Bson) -> Vec<u8> {
    let document = RawDocumentBuf::try_from(&doc! { "_id": value });
    let bytes = document.map(RawDocumentBuf::into_bytes);
    let bytes = bytes.unwrap_or_default();
    let (kind, payload) = (bytes.get(4), bytes.get(9..bytes.len().saturating_sub(1)));
    let parts = kind.into_iter().chain(payload.into_iter().flatten());
    parts.copied().collect()
}
