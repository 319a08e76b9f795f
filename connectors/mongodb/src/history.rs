//! Every version of a row beside the current one, in `<collection>_history`.
//!
//! - A version is the whole row: what a change left as it was comes from the version before.
//! - Versions of a row follow one another: one ends when the next begins, and at most one is current.
//! - They are written by the transaction that writes the row and moves the position; none is folded away.
//! - Of such a table nothing is parked: a version that waited would be missing between others.

mod begin;
mod plan;
mod run;

use std::fmt;
use std::sync::Arc;

use walferry_core::{Checkpoint, RowEvent, Target};
use walferry_schema::envelope::Op;
use walferry_schema::{Column, Image, Phase, Position, TableName};

use crate::document::{Encoder, Span, fields};
use crate::{Error, Policies, Result};

pub(crate) use begin::{Begun, Found, HISTORIES, Seen, beginning};
pub(crate) use run::{make_indexes, write};

/// What a history's collection has behind the name of its table's.
const SUFFIX: &str = "_history";
/// What a version has beside its row, at most: so much less may a row have.
pub(crate) const VERSION_BYTES: usize = 1_024;

/// The fields of a version that are not its row's.
mod name {
    pub(super) const VALID_FROM: &str = "valid_from";
    pub(super) const VALID_TO: &str = "valid_to";
    pub(super) const IS_CURRENT: &str = "is_current";
    pub(super) const OP: &str = "op";
    pub(super) const LSN: &str = "lsn";
    pub(super) const XID: &str = "xid";
    pub(super) const CLOSED_BY: &str = "closed_by";
    pub(super) const ALL: [&str; 7] = [VALID_FROM, VALID_TO, IS_CURRENT, OP, LSN, XID, CLOSED_BY];
}

/// Which tables keep every version of their rows.
#[derive(Clone, Default)]
pub struct Histories(Option<Arc<IsKept>>);

type IsKept = dyn Fn(&TableName) -> bool + Send + Sync;

/// What happened to the rows of one table, in order.
#[derive(Debug)]
pub(crate) struct History {
    table: TableName,
    pub(crate) collection: Arc<str>,
    encoder: Encoder,
    /// Keys and rows.
    arena: Vec<u8>,
    changes: Vec<Change>,
    /// Where the columns of the last row stand, and how many they are.
    columns: (usize, usize),
}

/// What happened.
#[derive(Debug)]
struct Change {
    moment: Moment,
    /// `r` where a row was found so when the history began, or went on.
    op: Op,
    what: What,
}

#[derive(Debug)]
enum What {
    /// A row is so.
    Put(Put),
    /// A row went.
    Gone(Span),
    /// All rows went.
    Emptied,
}

#[derive(Debug)]
struct Put {
    key: Span,
    /// The key that it had before.
    from: Option<Span>,
    elements: Span,
    /// The fields of the whole row in order, where some are as they were before.
    fields: Option<Vec<String>>,
    /// Whether there is a version that it ends.
    ends_another: bool,
}

/// When something happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Moment {
    pub(crate) position: Position,
    /// When it was committed, milliseconds since 1970.
    pub(crate) at: i64,
    pub(crate) xid: Option<u32>,
    /// Which claim began a history with it: two may at one position.
    pub(crate) epoch: Option<i64>,
}

// === impl Histories ===

impl Histories {
    /// The tables of which `is_kept` says so.
    pub fn of(is_kept: impl Fn(&TableName) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(is_kept)))
    }

    /// Whether no table keeps any.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn has(&self, table: &TableName) -> bool {
        self.0.as_ref().is_some_and(|is_kept| is_kept(table))
    }
}

impl fmt::Debug for Histories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Histories").finish_non_exhaustive()
    }
}

// === impl History ===

impl History {
    pub(crate) fn new(table: TableName, of: &str, policies: Policies) -> Self {
        Self {
            collection: collection(of).into(),
            encoder: Encoder::new(table.clone(), policies),
            table,
            arena: Vec::new(),
            changes: Vec::new(),
            columns: (0, 0),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many writes it comes to, about.
    pub(crate) fn operations(&self) -> usize {
        self.changes.len()
    }

    /// About how many bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.arena.len() + self.changes.len() * size_of::<Change>()
    }

    /// Adds what happened to a row, or nothing when that cannot be encoded.
    pub(crate) fn push(&mut self, target: &Target<'_>, event: &RowEvent<'_>) -> Result<()> {
        let mark = self.arena.len();
        let pushed = self.encode(event);
        match pushed {
            Ok((op, what)) => {
                let moment = Moment::of(target);
                self.changes.push(Change { moment, op, what });
                Ok(())
            }
            Err(error) => {
                self.arena.truncate(mark);
                Err(error)
            }
        }
    }

    /// Takes the last change back.
    pub(crate) fn undo(&mut self) {
        self.changes.pop();
    }

    /// Adds a row that went.
    fn gone(&mut self, key: &[u8], op: Op, moment: Moment) {
        let what = What::Gone(self.append(key));
        self.changes.push(Change { moment, op, what });
    }

    fn put_over(
        &mut self,
        key: &[u8],
        elements: &[u8],
        (op, moment): (Op, Moment),
        ends_another: bool,
    ) {
        let put = Put {
            key: self.append(key),
            from: None,
            elements: self.append(elements),
            fields: None,
            ends_another,
        };
        let what = What::Put(put);
        self.changes.push(Change { moment, op, what });
    }

    fn encode(&mut self, event: &RowEvent<'_>) -> Result<(Op, What)> {
        Ok(match event {
            RowEvent::Insert(row) => (Op::Create, self.row(row, None, false)?),
            RowEvent::Update(row) => (Op::Update, self.row(row, None, true)?),
            RowEvent::Move { from, to } => (Op::Update, self.row(to, Some(from), true)?),
            RowEvent::Delete(row) => (Op::Delete, What::Gone(self.key(row)?)),
            RowEvent::Truncate => (Op::Truncate, What::Emptied),
        })
    }

    fn row(
        &mut self,
        row: &Image<'_>,
        from: Option<&Image<'_>>,
        ends_another: bool,
    ) -> Result<What> {
        self.check_names(row.columns)?;
        let key = self.key(row)?;
        let from = from.map(|from| self.key(from)).transpose()?;
        let (start, mut keys) = (self.arena.len(), Vec::new());
        let is_complete = self.encoder.body(&mut self.arena, &mut keys, row)?;
        let end = self.arena.len();
        Ok(What::Put(Put {
            key,
            from,
            elements: Span { start, end },
            fields: (!is_complete).then(|| fields(row, self.encoder.policies)),
            ends_another,
        }))
    }

    /// That no column has the name of what a version says of itself.
    fn check_names(&mut self, columns: &[Column]) -> Result<()> {
        let met = (columns.as_ptr().addr(), columns.len());
        if self.columns == met {
            return Ok(());
        }
        let clash = columns.iter().find(|it| name::ALL.contains(&&*it.name));
        if let Some(clash) = clash {
            return Err(Error::HistoryClash {
                table: self.table.clone(),
                column: clash.name.to_string(),
            });
        }
        self.columns = met;
        Ok(())
    }

    fn key(&mut self, row: &Image<'_>) -> Result<Span> {
        let start = self.arena.len();
        self.encoder.id(&mut self.arena, row)?;
        let end = self.arena.len();
        Ok(Span { start, end })
    }

    fn append(&mut self, bytes: &[u8]) -> Span {
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        let end = self.arena.len();
        Span { start, end }
    }
}

// === impl Moment ===

impl Moment {
    fn of(target: &Target<'_>) -> Self {
        let at = target.committed_at.map(|at| at.div_euclid(1_000));
        Self {
            position: target.position,
            at: at.unwrap_or_else(now),
            xid: target.xid,
            epoch: None,
        }
    }

    /// What a checkpoint stands for.
    pub(crate) fn at(checkpoint: &Checkpoint) -> Self {
        let generation = checkpoint.generation;
        let before_all = || Position::end_of(generation, Phase::Snapshot(0));
        let position = checkpoint.position.filter(|it| it.generation == generation);
        let position = position.unwrap_or_else(before_all);
        // A snapshot has no commit, only one of the generation before: its own is named after the time of its beginning.
        let committed_at = match position.phase {
            Phase::Stream(_) => checkpoint.committed_at.map(|at| at.div_euclid(1_000)),
            Phase::Snapshot(_) => None,
        };
        Self {
            position,
            at: committed_at.unwrap_or(generation.cast_signed()),
            xid: None,
            epoch: None,
        }
    }

    /// The same as a history's beginning, not after another time.
    pub(crate) fn beginning(self, epoch: i64, not_after: Option<i64>) -> Self {
        let at = not_after.map_or(self.at, |at| self.at.min(at.div_euclid(1_000)));
        let epoch = Some(epoch);
        Self { at, epoch, ..self }
    }

    /// The transaction's commit record; 0 in a snapshot.
    fn lsn(&self) -> i64 {
        match self.position.phase {
            Phase::Stream(lsn) => lsn.0.cast_signed(),
            Phase::Snapshot(_) => 0,
        }
    }
}

/// The collection of the versions of what another holds.
pub(crate) fn collection(of: &str) -> String {
    format!("{of}{SUFFIX}")
}

/// The collection whose versions another one holds, by its name alone; none when it has not the name of a history.
pub fn history_of(collection: &str) -> Option<&str> {
    collection.strip_suffix(SUFFIX)
}

/// Milliseconds since 1970.
fn now() -> i64 {
    bson::DateTime::now().timestamp_millis()
}
