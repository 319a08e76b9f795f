//! What a change left in Kafka, asked for beside everything else: no position moves.

use bytes::Bytes;
use rdkafka::Message;
use rdkafka::message::BorrowedMessage;
use walferry_core::{Fault, PartitionOffset};
use walferry_schema::{Stamp, envelope};

use crate::consumer::record::{self, Columns};
use crate::{Error, KafkaLogReader};

/// A row's record, less what it says of the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowMark {
    /// Its offset in the partition.
    pub offset: i64,
    /// Whose it is and where it belongs.
    pub stamp: Stamp,
    /// The record's key without its schema: JSON of the key's columns; none for a truncate.
    pub key: Option<Bytes>,
    /// When the reader decoded the change, microseconds since 1970; none for a tombstone.
    pub decoded_at: Option<i64>,
}

// === impl KafkaLogReader ===

impl KafkaLogReader {
    /// Whether there is a commit log: the first reader makes it.
    ///
    /// # Errors
    /// When Kafka cannot be asked.
    pub async fn has_log(&self) -> Result<bool, Fault> {
        match self.scan.log_bounds().await {
            Ok(_) => Ok(true),
            Err(Error::NoCommitLog { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// A row partition's records from `from` on, or the first that is left, at most `limit`; empty
    /// at the end.
    ///
    /// # Errors
    /// When Kafka cannot be asked, or a record is none of walferry's.
    pub async fn marks(
        &self,
        name: &PartitionOffset,
        from: i64,
        limit: usize,
    ) -> Result<Vec<RowMark>, Fault> {
        let of = name.clone();
        let read = move |message: &BorrowedMessage<'_>| mark(&of, message);
        let marks = self.scan.read_with(name.clone(), (from, limit), read);
        Ok(marks.await?)
    }

    /// When the commit log's record at an offset was stored, milliseconds since 1970: by the broker's
    /// clock where the topic is as walferry makes it. None when there is no such record.
    ///
    /// # Errors
    /// When Kafka cannot be asked.
    pub async fn logged_at(&self, offset: i64) -> Result<Option<i64>, Fault> {
        let at = |message: &BorrowedMessage<'_>| Ok((message.offset(), message.timestamp()));
        let log = self.scan.commit_log();
        let found = self.scan.read_with(log, (offset, 1), at).await?;
        let found = found.into_iter().find(|(found, _)| *found == offset);
        Ok(found.and_then(|(_, timestamp)| timestamp.to_millis()))
    }
}

fn mark(name: &PartitionOffset, message: &BorrowedMessage<'_>) -> Result<RowMark, Error> {
    let record = record::read(name, message, &mut Columns::default())?;
    let value = record.value.as_deref().map(str::from_utf8);
    let decoded_at = value.and_then(Result::ok).and_then(envelope::decoded_at);
    let key = record.key.map(|key| without_schema(key, &record.columns));
    Ok(RowMark {
        offset: record.offset,
        stamp: record.stamp,
        key,
        decoded_at,
    })
}

/// A key as it is without a schema. Whether it has one its columns say: a row may look like one.
fn without_schema(key: Bytes, columns: &[u8]) -> Bytes {
    if !key.starts_with(b"{\"schema\":") {
        return key;
    }
    let modes = walferry_schema::Columns::from_bytes(columns).map(|columns| columns.modes);
    match envelope::payload(&key, modes.unwrap_or_default()) {
        Ok(payload) => key.slice_ref(payload),
        Err(_) => key.clone(),
    }
}
