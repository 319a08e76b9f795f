//! The snapshot of a generation, chunk by chunk into the log (protocol rule 8).
//!
//! - A chunk's rows stand together in their partition, then comes its `chunk` record.
//! - `snapshot_end` is written after every chunk, with its rows, is acknowledged.

use tracing::{info, warn};
use walferry_core::{Accepted, Fault, Log, Pace, Record, SnapshotChunk, SnapshotStart, Source};
use walferry_schema::envelope::SnapshotMark;
use walferry_schema::{
    Chunk, LogRecord, PartitionCount, Phase, Row, RowOp, SnapshotEnd, TableName, TableSpec, Term,
};

use super::oversize::{self, Parts};
use super::records::{Context, Drafts, Place};
use super::tables::{Table, Tables};
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
            tables: Tables::new(tables, self.options.modes),
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
        if sending.tables.wants_schema(&chunk.relation) {
            let declared = self.source.declared(chunk.relation.oid).await?;
            sending
                .tables
                .declare(&self.template, &chunk.relation, &declared);
        }
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
            origin: None,
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
            let oversize = self.write_read(sending, &table, place, &context, row)?;
            if let Some(error) = oversize {
                self.send_parts(sending, &table, &context, &error).await?;
            }
            for draft in sending.drafts.records() {
                let (headers, used) = draft.headers(&table);
                let record = Record {
                    topic: &table.topic,
                    key: draft.key.as_deref(),
                    value: draft.value.as_deref(),
                    timestamp: processed_at / 1_000_000,
                    headers: &headers[..used],
                };
                let sent = self.send_read(sending.chunk, &record).await;
                let partition = sent.map_err(|fault| CaptureError::record(name, lsn, fault))?;
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

    /// Writes the record of a row: why it is a marker, if it is.
    fn write_read(
        &self,
        sending: &mut Sending,
        table: &Table,
        place: Place,
        context: &Context,
        row: &Row,
    ) -> Result<Option<String>, CaptureError> {
        let write = |drafts: &mut Drafts, row: &Row| {
            let written = drafts.write_read(&self.template, table, place, context, row);
            written.map_err(|source| CaptureError::Row {
                table: table.relation.name.clone(),
                lsn: context.lsn,
                source,
            })
        };
        write(&mut sending.drafts, row)?;
        let spooled = oversize::spooled(row, self.options.max_row_bytes);
        if sending.drafts.too_large(&self.log, table).is_none() {
            return Ok(spooled);
        }
        let op = RowOp::Insert { new: row.clone() };
        let write = |drafts: &mut Drafts, op: &RowOp| match op {
            RowOp::Insert { new } => write(drafts, new),
            RowOp::Update { .. } | RowOp::Delete { .. } => Ok(()),
        };
        let (drafts, of) = (&mut sending.drafts, (table, context.lsn));
        let fitted = oversize::fit(drafts, &self.log, of, &op, write)?;
        Ok(spooled.or(fitted))
    }

    /// Sends what the draft leaves out, which makes a marker of it.
    async fn send_parts(
        &mut self,
        sending: &mut Sending,
        table: &Table,
        context: &Context,
        error: &str,
    ) -> Result<(), CaptureError> {
        self.progress.oversize();
        let (name, lsn) = (&table.relation.name, context.lsn);
        warn!(table = %name, error, "a row of the snapshot is too large for its topic");
        let topic = self.dead_letter().await?;
        let largest = self.log.largest_record_bytes(&topic);
        for draft in sending.drafts.records_mut() {
            let Some(mut parts) = Parts::of(draft, table, error, largest) else {
                continue;
            };
            while parts
                .measure()
                .map_err(|error| CaptureError::spool(name, lsn, error))?
            {
                tokio::task::yield_now().await;
            }
            while let Some(value) = parts
                .next()
                .map_err(|error| CaptureError::spool(name, lsn, error))?
            {
                let (headers, at) = (parts.headers(), context.processed_at / 1_000_000);
                let record = parts.record(&topic, Some(&value), at, &headers);
                let sent = self.send_read(sending.chunk, &record).await;
                sent.map_err(|fault| CaptureError::record(name, lsn, fault))?;
            }
            draft.oversize = Some(parts.oversize().to_bytes());
        }
        Ok(())
    }

    async fn send_read(&mut self, chunk: u64, record: &Record<'_>) -> Result<i32, Fault> {
        loop {
            match self.log.send_row(chunk, record)? {
                Accepted::Partition(partition) => return Ok(partition),
                Accepted::Full => self.log.progress().await?,
            }
        }
    }
}
