//! The snapshot of a generation, chunk by chunk into the log (protocol rule 8).
//!
//! - A chunk's rows stand together in their partition, then comes its `chunk` record.
//! - `snapshot_end` is written after every chunk, with its rows, is acknowledged.

use tracing::info;
use walferry_core::{Accepted, Log, Pace, Record, SnapshotChunk, SnapshotStart, Source};
use walferry_schema::envelope::SnapshotMark;
use walferry_schema::{
    Chunk, LogRecord, PartitionCount, Phase, SnapshotEnd, TableName, TableSpec, Term,
};

use super::records::{Context, Drafts, Place};
use super::tables::Tables;
use super::{Capture, CaptureError, now_nanos};
use crate::traces;

/// A chunk on its way into the log.
struct Sending {
    term: Term,
    chunk: u64,
    tables: Tables,
    drafts: Drafts,
    start: SnapshotStart,
}

// === impl Capture ===

impl<S: Source, L: Log> Capture<S, L> {
    /// Copies the snapshot that the source has just exported.
    pub(super) async fn copy_snapshot(
        &mut self,
        term: Term,
        tables: &[TableSpec],
        start: SnapshotStart,
    ) -> Result<(), CaptureError> {
        let drafts = Drafts::new(self.options.tombstones);
        let mut sending = Sending {
            term,
            chunk: 0,
            tables: Tables::new(tables),
            drafts,
            start,
        };
        let mut rows = 0;
        self.log.pace(Pace::Bulk).await?;
        while let Some(chunk) = self.source.next_chunk().await? {
            rows += chunk.rows.len();
            let span = traces::span!(
                "snapshot chunk",
                chunk = sending.chunk,
                rows = chunk.rows.len(),
                table = %chunk.relation.name,
            );
            traces::within(span, self.send_chunk(&mut sending, &chunk)).await?;
            sending.chunk += 1;
        }
        while self.log.outstanding().is_some() {
            self.log.progress().await?;
        }
        self.log.pace(Pace::Prompt).await?;
        let names: Vec<TableName> = tables.iter().map(|table| table.name.clone()).collect();
        let end = SnapshotEnd {
            term,
            lsn: start.consistent_lsn,
            tables: names,
            chunks: Some(sending.chunk),
        };
        self.log.append(&LogRecord::SnapshotEnd(end)).await?;
        info!(rows, chunks = sending.chunk, "the snapshot is in Kafka");
        Ok(())
    }

    async fn send_chunk(
        &mut self,
        sending: &mut Sending,
        chunk: &SnapshotChunk,
    ) -> Result<(), CaptureError> {
        let name = &chunk.relation.name;
        let Some(table) = sending.tables.get(&chunk.relation) else {
            return Ok(());
        };
        let lsn = sending.start.consistent_lsn;
        let processed_at = now_nanos();
        let context = Context {
            committed_at: sending.start.taken_at,
            last_commit_lsn: None,
            lsn,
            xid: 0,
            snapshot: SnapshotMark::True,
            transaction: None,
            processed_at,
        };
        let mut counts = std::collections::BTreeMap::<i32, u64>::new();
        for (row, ordinal) in chunk.rows.iter().zip(0..) {
            let phase = Phase::Snapshot(sending.chunk);
            let place = Place {
                term: sending.term,
                phase,
                ordinal,
            };
            sending
                .drafts
                .write_read(&self.template, &table, place, &context, row)
                .map_err(|source| CaptureError::Row {
                    table: name.clone(),
                    lsn,
                    source,
                })?;
            for draft in sending.drafts.records() {
                let (headers, used) = draft.headers(&table);
                let record = Record {
                    topic: &table.topic,
                    key: draft.key.as_deref(),
                    value: draft.value.as_deref(),
                    timestamp: processed_at / 1_000_000,
                    headers: &headers[..used],
                };
                let partition = loop {
                    let sent = self.log.send_row(sending.chunk, &record);
                    match sent.map_err(|fault| record_error(name, lsn, fault))? {
                        Accepted::Partition(partition) => break partition,
                        Accepted::Full => self.log.progress().await?,
                    }
                };
                *counts.entry(partition).or_default() += 1;
            }
        }
        let records = counts
            .into_iter()
            .map(|(partition, count)| PartitionCount {
                topic: table.topic.name.clone(),
                partition,
                count,
            })
            .collect();
        let closing = Chunk {
            term: sending.term,
            chunk: sending.chunk,
            table: name.clone(),
            records,
        };
        let closing = LogRecord::Chunk(closing).to_bytes();
        while self.log.send_log(sending.chunk, &closing)? == Accepted::Full {
            self.log.progress().await?;
        }
        Ok(())
    }
}

pub(super) fn record_error(
    table: &TableName,
    lsn: walferry_schema::Lsn,
    fault: walferry_core::Fault,
) -> CaptureError {
    CaptureError::Record {
        table: table.clone(),
        lsn,
        fault,
    }
}
