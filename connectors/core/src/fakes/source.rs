//! A replication connection to the fake server.

use std::collections::VecDeque;

use walferry_schema::{Lsn, Row, TableName};

use super::changes::Changed;
use super::{FakeError, FakeServer};
use crate::{
    Fault, SlotState, SnapshotChunk, SnapshotStart, Source, SourceEvent, SourceState, SourceTable,
};

/// One process's link; dropping it frees the slot.
#[derive(Debug)]
pub struct FakeSource {
    server: FakeServer,
    changes: Changed,
    link: u64,
    /// The index of the next item of the log; none while nothing is streamed.
    cursor: Option<usize>,
    events: VecDeque<SourceEvent>,
    chunks: VecDeque<SnapshotChunk>,
    /// The highest LSN that the server has told.
    told: Lsn,
    confirmed: Lsn,
    keys: Vec<(TableName, Vec<String>)>,
}

// === impl FakeSource ===

impl FakeSource {
    /// A new process's link.
    pub fn new(server: &FakeServer) -> Self {
        Self {
            server: server.clone(),
            changes: server.changes(),
            link: 0,
            cursor: None,
            events: VecDeque::new(),
            chunks: VecDeque::new(),
            told: Lsn::ZERO,
            confirmed: Lsn::ZERO,
            keys: Vec::new(),
        }
    }

    fn leave(&mut self) {
        let mut state = self.server.lock();
        if state.owner == Some(self.link) {
            state.disown();
        }
        (self.cursor, self.link) = (None, 0);
        self.events.clear();
        self.chunks.clear();
    }

    /// The server, if the link to it stands and owns the slot.
    fn cursor(&self) -> Result<usize, Fault> {
        let cursor = self
            .cursor
            .ok_or_else(|| FakeError::fatal("nothing is streamed"))?;
        if self.server.lock().owner == Some(self.link) {
            Ok(cursor)
        } else {
            Err(FakeError::transient("the link broke"))
        }
    }
}

impl Drop for FakeSource {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Source for FakeSource {
    async fn inspect(&mut self) -> Result<SourceState, Fault> {
        self.leave();
        let state = self.server.lock();
        let is_active = state.owner.is_some();
        Ok(SourceState {
            server: state.server.clone(),
            flush_lsn: state.flush_lsn.unwrap_or(state.insert_lsn),
            slot: state.slot.map(|slot| SlotState { is_active, ..slot }),
            database: "walmart".into(),
        })
    }

    async fn tables(&mut self) -> Result<Vec<SourceTable>, Fault> {
        Ok(self.server.lock().source_tables())
    }

    fn set_keys(&mut self, keys: &[(TableName, Vec<String>)]) {
        self.keys = keys.to_vec();
    }

    async fn create_slot(&mut self, tables: &[TableName]) -> Result<SnapshotStart, Fault> {
        self.leave();
        let takes = {
            let mut state = self.server.lock();
            state.slot_tries += 1;
            state.slot_takes
        };
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        let mut state = self.server.lock();
        if state.owner.is_some() {
            return Err(FakeError::fatal("the slot is active"));
        }
        let consistent_lsn = state.insert_lsn;
        let slot = SlotState {
            confirmed_lsn: consistent_lsn,
            is_active: false,
            is_lost: false,
        };
        state.slot = Some(slot);
        state.flush_lsn = None;
        let mut documents = state.documents_before(consistent_lsn);
        for name in tables {
            let rows = documents.remove(&*name.table).unwrap_or_default();
            let text = |row: &super::Document, column| {
                row.get(column).map(String::as_str).map(str::to_owned)
            };
            let row = |row: &super::Document| {
                Row::from_texts(&[text(row, "id").as_deref(), text(row, "v").as_deref()])
            };
            let rows: Vec<Row> = rows.values().map(row).collect();
            let relation = state.relation(&name.table);
            let chunk = |rows: &[Row]| SnapshotChunk {
                relation: relation.clone(),
                rows: rows.to_vec(),
            };
            self.chunks.extend(rows.chunks(state.chunk_rows).map(chunk));
        }
        Ok(SnapshotStart {
            consistent_lsn,
            taken_at: 2_000_000,
        })
    }

    async fn next_chunk(&mut self) -> Result<Option<SnapshotChunk>, Fault> {
        Ok(self.chunks.pop_front())
    }

    async fn start(&mut self) -> Result<Lsn, Fault> {
        if self.keys.is_empty() {
            return Err(FakeError::fatal("the keys were not told"));
        }
        let mut state = self.server.lock();
        if state.owner.is_some() {
            return Err(FakeError::fatal("the slot is active"));
        }
        let Some(slot) = state.slot.filter(|slot| !slot.is_lost) else {
            return Err(FakeError::fatal("the slot cannot be read"));
        };
        state.links += 1;
        self.link = state.links;
        state.owner = Some(self.link);
        let start = slot.confirmed_lsn;
        let is_before = |item: &super::server::Item| {
            if item.is_commit {
                item.lsn < start
            } else {
                item.lsn <= start
            }
        };
        self.cursor = Some(state.wal.iter().take_while(|item| is_before(item)).count());
        (self.told, self.confirmed) = (start, start);
        Ok(start)
    }

    async fn next(&mut self) -> Result<SourceEvent, Fault> {
        loop {
            if let Some(event) = self.buffered()? {
                return Ok(event);
            }
            self.changes.wait().await;
        }
    }

    fn buffered(&mut self) -> Result<Option<SourceEvent>, Fault> {
        let cursor = self.cursor()?;
        if self.events.is_empty() {
            let state = self.server.lock();
            let Some(item) = state.wal.get(cursor) else {
                return Ok(None);
            };
            self.events.extend(item.events.iter().cloned());
            self.cursor = Some(cursor + 1);
        }
        let event = self.events.pop_front();
        if let Some(SourceEvent::Commit { end_lsn: lsn, .. } | SourceEvent::Keepalive { lsn, .. }) =
            event
        {
            self.told = self.told.max(lsn);
        }
        Ok(event)
    }

    async fn confirm(&mut self, lsn: Lsn) -> Result<(), Fault> {
        self.cursor()?;
        if lsn < self.confirmed || lsn > self.told {
            let (confirmed, told) = (self.confirmed, self.told);
            return Err(FakeError::fatal(format!(
                "confirms {lsn}, not {confirmed} to {told}"
            )));
        }
        self.confirmed = lsn;
        let mut state = self.server.lock();
        state.confirmations.push(lsn);
        if let Some(slot) = &mut state.slot {
            slot.confirmed_lsn = slot.confirmed_lsn.max(lsn);
        }
        Ok(())
    }

    async fn stop(&mut self) -> Result<(), Fault> {
        self.leave();
        Ok(())
    }
}
