//! From a Kafka message to a row's record.

use bytes::Bytes;
use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Headers as _};
use walferry_core::{PartitionOffset, RowRecord};
use walferry_schema::header::{
    COLUMNS, HeaderError, NEW_KEY, OLD_KEY, OVERSIZE, POSITION, UNCHANGED,
};

use crate::Error;

/// The columns' bytes of the record before: records of one relation version share them.
#[derive(Debug, Default)]
pub(crate) struct Columns(Bytes);

/// The headers that mean something to us.
#[derive(Default)]
struct Found<'a> {
    position: Option<&'a [u8]>,
    columns: Option<&'a [u8]>,
    unchanged: Option<&'a [u8]>,
    oversize: Option<&'a [u8]>,
    old_key: Option<&'a [u8]>,
    has_new_key: bool,
}

/// The row's record in a message.
pub(crate) fn read(
    name: &PartitionOffset,
    message: &BorrowedMessage<'_>,
    columns: &mut Columns,
) -> Result<RowRecord, Error> {
    let offset = message.offset();
    let (topic, partition) = (|| name.topic.to_string(), name.partition);
    let found = find(message);
    let Some(position) = found.position else {
        return Err(Error::ForeignRecord {
            topic: topic(),
            partition,
            offset,
        });
    };
    let stamp = std::str::from_utf8(position)
        .map_err(|_| HeaderError::Stamp(String::from_utf8_lossy(position).into_owned()))
        .and_then(str::parse)
        .map_err(|source| Error::Header {
            topic: topic(),
            partition,
            offset,
            source,
        })?;
    Ok(RowRecord {
        offset,
        stamp,
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice),
        columns: columns.intern(found.columns.unwrap_or_default()),
        unchanged: found.unchanged.map(Bytes::copy_from_slice),
        oversize: found.oversize.map(Bytes::copy_from_slice),
        old_key: found.old_key.map(Bytes::copy_from_slice),
        has_new_key: found.has_new_key,
    })
}

fn find<'a>(message: &'a BorrowedMessage<'_>) -> Found<'a> {
    let mut found = Found::default();
    for header in message
        .headers()
        .into_iter()
        .flat_map(|headers| headers.iter())
    {
        match header.key {
            POSITION => found.position = header.value,
            COLUMNS => found.columns = header.value,
            UNCHANGED => found.unchanged = header.value,
            OVERSIZE => found.oversize = header.value,
            OLD_KEY => found.old_key = header.value,
            NEW_KEY => found.has_new_key = true,
            _ => {}
        }
    }
    found
}

// === impl Columns ===

impl Columns {
    fn intern(&mut self, columns: &[u8]) -> Bytes {
        if self.0 != columns {
            self.0 = Bytes::copy_from_slice(columns);
        }
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_records_of_one_relation_version_share_their_columns() {
        let mut columns = Columns::default();
        let (one, two) = (columns.intern(b"abc"), columns.intern(b"abc"));
        assert_eq!(one.as_ptr(), two.as_ptr());
        assert_eq!(columns.intern(b"abd"), "abd");
    }
}
