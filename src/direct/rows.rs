//! The rows of a source transaction, held until it commits, as events of the sink.

use std::sync::Arc;

use walferry_core::{Batch, Held, RowEvent, SkippedChange, Target};
use walferry_schema::envelope::{EnvelopeError, large_names, row_image};
use walferry_schema::{Cell, Lsn, Oversize, Phase, Position, Row, RowOp};

use crate::apply::{ApplyError, Tally};
use crate::capture::{CaptureError, Table, oversize, with_key_of};
use crate::merge::WholeLimits;

/// About what a row takes beside its text.
const ROW_BYTES: usize = 128;

/// The source transaction that is being read.
#[derive(Debug)]
pub(super) struct Transaction {
    rows: SourceRows,
    held: Held,
    count: u64,
    bytes: usize,
    is_giant: bool,
}

/// The rows of a transaction, a piece of one or a chunk, in source order.
#[derive(Debug)]
pub(super) struct SourceRows {
    pub(super) generation: u64,
    pub(super) phase: Phase,
    /// When the source committed, microseconds since 1970; none for a chunk.
    pub(super) committed_at: Option<i64>,
    /// The transaction's number; none for a chunk.
    pub(super) xid: Option<u32>,
    pub(super) rows: Vec<SourceRow>,
}

/// What happened to a row.
#[derive(Debug)]
pub(super) struct SourceRow {
    table: Arc<Table>,
    lsn: Lsn,
    /// The last ordinal that the change owns.
    ordinal: u64,
    /// None for a truncate.
    op: Option<RowOp>,
}

// === impl Transaction ===

impl Transaction {
    /// A transaction that begins, and how much of it was applied before.
    pub(super) fn new(
        (generation, phase): (u64, Phase),
        committed_at: i64,
        xid: u32,
        held: Held,
    ) -> Self {
        let rows = SourceRows {
            generation,
            phase,
            committed_at: Some(committed_at),
            xid: Some(xid),
            rows: Vec::new(),
        };
        Self {
            rows,
            held,
            count: 0,
            bytes: 0,
            is_giant: false,
        }
    }

    /// Adds a row that was not applied before.
    pub(super) fn push(&mut self, row: SourceRow) {
        match self.held {
            Held::All => return,
            Held::UpTo(ordinal) if row.ordinal <= ordinal => return,
            _ => {}
        }
        self.count += 1;
        self.bytes += row.bytes();
        self.rows.rows.push(row);
    }

    /// The rows so far when they are a giant's, and enough for a piece (rule 17).
    pub(super) fn piece(&mut self, whole: WholeLimits) -> Option<SourceRows> {
        if !self.is_giant && (self.count > whole.rows || self.bytes > whole.bytes) {
            self.is_giant = true;
            tracing::warn!(
                phase = ?self.rows.phase,
                "a transaction above the limit is applied in pieces: readers see it half done"
            );
        }
        (self.is_giant && whole.is_piece(self.rows.rows.len(), self.bytes)).then(|| self.take())
    }

    /// What is left at the commit; none when there is nothing to apply.
    pub(super) fn finish(mut self) -> Option<SourceRows> {
        let is_open = self.is_giant || matches!(self.held, Held::UpTo(_));
        (is_open || !self.rows.rows.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> SourceRows {
        self.bytes = 0;
        let rows = std::mem::take(&mut self.rows.rows);
        SourceRows { rows, ..self.rows }
    }
}

// === impl SourceRows ===

impl SourceRows {
    /// The position of the last row.
    pub(super) fn position(&self) -> Option<Position> {
        let last = self.rows.last()?;
        Some(self.at(last.ordinal))
    }

    fn at(&self, ordinal: u64) -> Position {
        Position {
            generation: self.generation,
            phase: self.phase,
            ordinal,
        }
    }

    /// Adds the rows to a batch, or to the staging collections of a generation. The large values of rows above
    /// `max_row_bytes` stand in files, from where the sink reads them.
    pub(super) fn push<B: Batch>(
        &self,
        batch: &mut B,
        (staging, max_row_bytes): (Option<u64>, usize),
        tally: &mut Tally,
    ) -> Result<(), ApplyError> {
        for row in &self.rows {
            let oversize = row.oversize(max_row_bytes);
            let target = Target {
                table: &row.table.relation.name,
                staging,
                position: self.at(row.ordinal),
                committed_at: self.committed_at,
                xid: self.xid,
                oversize: oversize.as_ref(),
                whole: oversize.as_ref().and(row.new_row()),
            };
            row.push(batch, &target)?;
            tally.row(row.table.index);
        }
        if let Some(at) = self.committed_at {
            tally.commit(at);
        }
        Ok(())
    }
}

// === impl SourceRow ===

impl SourceRow {
    /// A row of the snapshot.
    pub(super) fn read(table: Arc<Table>, lsn: Lsn, ordinal: u64, new: Row) -> Self {
        Self {
            table,
            lsn,
            ordinal,
            op: Some(RowOp::Insert { new }),
        }
    }

    /// A change, by the first of its two ordinals.
    pub(super) fn changed(table: Arc<Table>, lsn: Lsn, ordinal: u64, op: RowOp) -> Self {
        Self {
            table,
            lsn,
            ordinal: ordinal + 1,
            op: Some(op),
        }
    }

    /// All rows of a table go.
    pub(super) fn truncated(table: Arc<Table>, lsn: Lsn, ordinal: u64) -> Self {
        Self {
            table,
            lsn,
            ordinal: ordinal + 1,
            op: None,
        }
    }

    /// The change as it is kept instead of being applied: its rows in PostgreSQL's text.
    pub(super) fn kept(&self) -> SkippedChange {
        let rows = |before: Option<&Row>, after: Option<&Row>| {
            let text = |row| self.text_of(row);
            (before.map(text), after.map(text))
        };
        let (op, (before, after)) = match &self.op {
            None => ("truncate", (None, None)),
            Some(RowOp::Insert { new }) => ("insert", rows(None, Some(new))),
            Some(RowOp::Update { old, new }) => ("update", rows(old.as_ref(), Some(new))),
            Some(RowOp::Delete { old }) => ("delete", rows(Some(old), None)),
        };
        let mut change = serde_json::json!({ "op": op, "before": before, "after": after });
        if let Some(oversize) = self.oversize(0) {
            change["oversize"] = serde_json::json!(oversize.columns);
        }
        SkippedChange {
            table: self.table.relation.name.clone(),
            ordinal: self.ordinal,
            change: change.to_string(),
        }
    }

    /// A row by the names of its columns, without those that the change does not carry.
    fn text_of(&self, row: &Row) -> serde_json::Map<String, serde_json::Value> {
        let columns = self.table.relation.columns.iter().zip(row.cells());
        let members = columns.filter_map(|(column, cell)| {
            let value = match cell {
                Cell::Unchanged | Cell::Large(_) => return None,
                Cell::Null => serde_json::Value::Null,
                Cell::Text(text) => String::from_utf8_lossy(text).into(),
            };
            Some((column.name.to_string(), value))
        });
        members.collect()
    }

    /// What counts for the limits of a piece: spooled values take no memory, but room and files.
    fn bytes(&self) -> usize {
        let row = match &self.op {
            None => return ROW_BYTES,
            Some(RowOp::Insert { new } | RowOp::Update { new, .. }) => new,
            Some(RowOp::Delete { old }) => old,
        };
        let large = usize::try_from(row.large_bytes()).unwrap_or(usize::MAX);
        ROW_BYTES + row.text_bytes() + large
    }

    fn new_row(&self) -> Option<&Row> {
        match &self.op {
            Some(RowOp::Insert { new } | RowOp::Update { new, .. }) => Some(new),
            _ => None,
        }
    }

    /// What the new row lacks for its size; of the old one only the key is needed.
    fn oversize(&self, max_row_bytes: usize) -> Option<Oversize> {
        let new = self.new_row()?;
        Some(Oversize {
            error: oversize::spooled(new, max_row_bytes)?,
            columns: large_names(&self.table.relation, new),
            bytes: new.large_bytes(),
            ..Oversize::default()
        })
    }

    fn push<B: Batch>(&self, batch: &mut B, target: &Target<'_>) -> Result<(), ApplyError> {
        let columns = &self.table.relation.columns;
        let of = |row| row_image(columns, row).map_err(|source| self.error(source));
        let event = match &self.op {
            None => RowEvent::Truncate,
            Some(RowOp::Insert { new }) => RowEvent::Insert(of(new)?),
            Some(RowOp::Delete { old }) => RowEvent::Delete(of(old)?),
            Some(RowOp::Update { old: None, new }) => RowEvent::Update(of(new)?),
            Some(RowOp::Update {
                old: Some(old),
                new,
            }) => {
                let full = with_key_of(old, new, self.table.key());
                let to = row_image(columns, &full).map_err(|source| self.error(source))?;
                let event = if self.table.changes_key(old, new) {
                    let from = of(old)?;
                    RowEvent::Move { from, to }
                } else {
                    RowEvent::Update(to)
                };
                return Ok(batch.push(target, event)?);
            }
        };
        Ok(batch.push(target, event)?)
    }

    fn error(&self, source: EnvelopeError) -> ApplyError {
        let (table, lsn) = (self.table.relation.name.clone(), self.lsn);
        CaptureError::Row { table, lsn, source }.into()
    }
}
