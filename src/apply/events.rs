//! Records to row events: the inverse of what the reader did.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use walferry_core::{Batch, RowEvent, RowRecord, Target};
use walferry_schema::envelope::{Envelope, EnvelopeError, Op, payload, read_changed, read_key};
use walferry_schema::{Columns, HeaderError, Image, Oversize, SchemaMode, TableName};

use super::ApplyError;

/// Reads records; keeps the columns of the relation versions it has seen.
///
/// Records of one relation version share their header's bytes, so that an address tells it: hashing
/// the bytes of every record would cost as much as reading a row.
#[derive(Debug, Default)]
pub(super) struct Events {
    columns: HashMap<usize, Known>,
}

/// The columns of a relation version; its bytes are kept, so that their address is not used again.
#[derive(Debug)]
struct Known {
    bytes: Bytes,
    columns: Columns,
}

/// How many relation versions are kept before the lot is forgotten.
const VERSIONS: usize = 10_000;

// === impl Events ===

impl Events {
    /// Adds what a record says to a batch.
    pub(super) fn push<B: Batch>(
        &mut self,
        batch: &mut B,
        table: &TableName,
        staging: Option<u64>,
        (committed_at, xid): (Option<i64>, Option<u32>),
        record: &RowRecord,
    ) -> Result<(), ApplyError> {
        // A tombstone says nothing that its delete has not said.
        let Some(value) = &record.value else {
            return Ok(());
        };
        let at = || record.stamp.to_string();
        let of = |source| ApplyError::Record {
            table: table.clone(),
            at: at(),
            source,
        };
        let malformed = |missing| ApplyError::Malformed {
            table: table.clone(),
            at: at(),
            missing,
        };

        let columns = self.columns(table, record)?;
        let envelope = payload(value, columns.modes).and_then(Envelope::from_bytes);
        let envelope = envelope.map_err(of)?;
        let after = || envelope.after.ok_or_else(|| malformed("`after`"));
        let key = || {
            let key = record.key.as_ref().ok_or_else(|| malformed("the key"))?;
            payload(key, columns.modes).map_err(of)
        };
        let oversize = oversize(record).map_err(|source| ApplyError::Header {
            table: table.clone(),
            at: at(),
            source,
        })?;
        let event = match envelope.op {
            Op::Read | Op::Create => {
                let to = image(columns, record, oversize.as_ref(), after()?).map_err(of)?;
                match &record.old_key {
                    None if to.is_complete() => RowEvent::Insert(to),
                    Some(old) => RowEvent::Move {
                        from: read_key(&columns.all, columns.modes, old).map_err(of)?,
                        to,
                    },
                    None if oversize.is_some() => RowEvent::Insert(to),
                    None => return Err(malformed("a column's value")),
                }
            }
            Op::Update => {
                RowEvent::Update(image(columns, record, oversize.as_ref(), after()?).map_err(of)?)
            }
            // The other half of this key change moves the row, with the columns that stayed and its dead letters.
            Op::Delete if record.has_new_key => return Ok(()),
            Op::Delete => {
                RowEvent::Delete(read_key(&columns.all, columns.modes, key()?).map_err(of)?)
            }
            Op::Truncate => RowEvent::Truncate,
            Op::Message => return Ok(()),
        };
        let target = Target {
            table,
            staging,
            position: record.stamp.position(),
            committed_at,
            xid,
            oversize: oversize.as_ref(),
            whole: None,
        };
        Ok(batch.push(&target, event)?)
    }

    fn columns(&mut self, table: &TableName, record: &RowRecord) -> Result<&Columns, ApplyError> {
        let address = record.columns.as_ptr().addr();
        let is_known = |known: &Known| known.bytes.len() == record.columns.len();
        if !self.columns.get(&address).is_some_and(is_known) {
            let columns = Columns::from_bytes(&record.columns).map_err(|source| {
                let at = record.stamp.to_string();
                ApplyError::Header {
                    table: table.clone(),
                    at,
                    source,
                }
            })?;
            if self.columns.len() >= VERSIONS {
                self.columns.clear();
            }
            let bytes = record.columns.clone();
            self.columns.insert(address, Known { bytes, columns });
        }
        Ok(&self.columns[&address].columns)
    }
}

/// What the new row of a record lacks for its size; only of the old row nothing is needed.
fn oversize(record: &RowRecord) -> Result<Option<Oversize>, HeaderError> {
    let Some(header) = &record.oversize else {
        return Ok(None);
    };
    let oversize = Oversize::from_bytes(header)?;
    Ok((!oversize.columns.is_empty()).then_some(oversize))
}

/// A row's image. Beside a schema something stands in the place of a value that was left as it was, or left out.
fn image<'a>(
    columns: &'a Columns,
    record: &RowRecord,
    oversize: Option<&Oversize>,
    row: &'a str,
) -> Result<Image<'a>, EnvelopeError> {
    let mut placeholders: Vec<Cow<'_, str>> = Vec::new();
    if columns.modes.schemas != SchemaMode::None {
        if let Some(names) = &record.unchanged {
            placeholders = serde_json::from_slice(names)?;
        }
        let large = oversize.into_iter().flat_map(|it| &it.columns);
        placeholders.extend(large.map(|name| Cow::Borrowed(&**name)));
    }
    read_changed(&columns.all, columns.modes, row, &placeholders)
}
