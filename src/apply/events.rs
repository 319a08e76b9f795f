//! Records to row events: the inverse of what the reader did.

use std::collections::HashMap;

use bytes::Bytes;
use walferry_core::{Batch, RowEvent, RowRecord, Target};
use walferry_schema::envelope::{Envelope, Op, read_image, read_key};
use walferry_schema::{Columns, TableName};

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
        let envelope = Envelope::from_bytes(value).map_err(of)?;
        let after = || envelope.after.ok_or_else(|| malformed("`after`"));
        let key = || record.key.as_ref().ok_or_else(|| malformed("the key"));
        let event = match envelope.op {
            Op::Read | Op::Create => {
                let to = read_image(&columns.0, after()?).map_err(of)?;
                match &record.old_key {
                    _ if to.is_complete() => RowEvent::Insert(to),
                    Some(old) => RowEvent::Move {
                        from: read_key(&columns.0, old).map_err(of)?,
                        to,
                    },
                    None => return Err(malformed("a column's value")),
                }
            }
            Op::Update => RowEvent::Update(read_image(&columns.0, after()?).map_err(of)?),
            // The other half of this key change moves the document, with the columns that stayed.
            Op::Delete if record.has_new_key && record.unchanged.is_some() => return Ok(()),
            Op::Delete => RowEvent::Delete(read_key(&columns.0, key()?).map_err(of)?),
            Op::Truncate => RowEvent::Truncate,
        };
        let target = Target {
            table,
            staging,
            position: record.stamp.position(),
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
