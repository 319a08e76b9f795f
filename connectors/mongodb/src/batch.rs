//! Row events on their way into one transaction.
//!
//! - Within a segment every key has one operation; segments run one after another.
//! - A truncate, a key change whose carried columns are only in MongoDB, and a key of another type begin a new segment.
//! - An event that is refused leaves the batch as it was.

mod entry;
mod missing;
mod rows;

use std::collections::HashMap;
use std::sync::Arc;

use bson::{Bson, Document};
use walferry_core::{Batch, Fault, LetterOrder, RowEvent, Skipped, Target};
use walferry_schema::{Column, Image, Oversize, Phase, Position, TableName};

use crate::document::{Encoder, Span, fields, show_id};
use crate::history::{Histories, History, VERSION_BYTES};
use crate::naming::Naming;
use crate::versions::{Met, Redefined};
use crate::{Error, Policies, Result};

pub(crate) use entry::{Action, Fate, Operation};
pub(crate) use missing::{Elsewhere, Missing, Text};
pub(crate) use rows::{Parked, Rows, Step, merged};

/// About what a segment takes beside its bytes.
const SEGMENT_BYTES: usize = 256;

/// Collects row events, each key folded to its last known state.
#[derive(Debug)]
pub struct MongoBatch {
    policies: Policies,
    kept: Histories,
    /// What comes to histories, by table; none of tables that keep none.
    histories: HashMap<TableName, Option<History>>,
    /// The segments that nothing is folded into any more.
    sealed: Vec<Segment>,
    sealed_operations: usize,
    sealed_bytes: usize,
    /// The segment of rows that is open, by collection.
    open: Vec<Rows>,
    /// Where in `open` a target's operations are.
    index: hashbrown::HashMap<(TableName, Option<u64>), usize>,
    /// Which table a collection belongs to.
    owners: HashMap<Arc<str>, TableName>,
    met: Met,
    /// Whether what cannot be written is parked; otherwise it is refused.
    is_parking: bool,
    /// When the transactions were committed, microseconds since 1970, in the order in which they came.
    commits: Vec<(Phase, i64)>,
    orders: Vec<LetterOrder>,
}

/// What becomes of a batch.
#[derive(Debug)]
pub(crate) struct Parts {
    /// In the order in which they run.
    pub(crate) segments: Vec<Segment>,
    /// The versions of tables that the rows have.
    pub(crate) met: Met,
    pub(crate) commits: Commits,
    pub(crate) orders: Vec<LetterOrder>,
}

/// When the transactions of a batch were committed, microseconds since 1970.
#[derive(Clone, Debug, Default)]
pub(crate) struct Commits(Vec<(Phase, i64)>);

/// A part of a batch that runs after the one before it.
#[derive(Debug)]
pub(crate) enum Segment {
    /// Operations on rows, in any order of collections.
    Rows(Vec<Rows>),
    /// A row gets a new key.
    Move(Box<Move>),
    /// All documents of a collection go.
    Truncate(Truncate),
    /// A transaction is kept instead of being applied.
    Skipped(Box<Skipped>),
    /// Tables have other columns than before.
    Redefined(Vec<Redefined>),
    /// Fields of some documents go, by `_id`.
    Unset(Box<Unset>),
    /// Updates of what is recorded of dead letters.
    Letters(Vec<Document>),
    /// Versions of rows.
    History(Vec<History>),
    /// Updates of which histories have begun.
    Histories(Vec<Document>),
}

/// All documents of a collection go.
#[derive(Debug)]
pub(crate) struct Truncate {
    pub(crate) collection: Arc<str>,
    pub(crate) table: TableName,
    pub(crate) generation: u64,
}

/// Fields of dropped columns, and some of the documents that have them.
#[derive(Debug)]
pub(crate) struct Unset {
    pub(crate) collection: String,
    pub(crate) ids: Vec<Bson>,
    pub(crate) fields: Vec<String>,
}

/// A key change that needs the old document.
#[derive(Debug)]
pub(crate) struct Move {
    pub(crate) collection: Arc<str>,
    pub(crate) table: TableName,
    pub(crate) position: Position,
    pub(crate) from: Vec<u8>,
    pub(crate) to: Vec<u8>,
    /// The elements of the new row that are known.
    pub(crate) elements: Vec<u8>,
    /// The names of all fields of the new document, in order.
    pub(crate) fields: Vec<String>,
    pub(crate) encoder: Encoder,
    pub(crate) fate: Fate,
    /// Why it is parked.
    pub(crate) reason: String,
    /// What of the new row stands elsewhere.
    pub(crate) missing: Option<Missing>,
}

// === impl MongoBatch ===

impl MongoBatch {
    /// An empty batch.
    pub fn new(policies: Policies) -> Self {
        Self {
            policies,
            kept: Histories::default(),
            histories: HashMap::new(),
            sealed: Vec::new(),
            sealed_operations: 0,
            sealed_bytes: 0,
            open: Vec::new(),
            index: hashbrown::HashMap::new(),
            owners: HashMap::new(),
            met: Met::default(),
            is_parking: false,
            commits: Vec::new(),
            orders: Vec::new(),
        }
    }

    /// Keeps the versions of some tables' rows.
    #[must_use]
    pub(crate) fn keeping(mut self, histories: Histories) -> Self {
        self.kept = histories;
        self
    }

    /// Parks what cannot be written, where `is_on`, instead of refusing it.
    #[must_use]
    pub(crate) fn parking(mut self, is_on: bool) -> Self {
        self.is_parking = is_on;
        self
    }

    pub(crate) fn into_parts(mut self) -> Parts {
        self.seal();
        let histories: Vec<_> = self.histories.into_values().flatten().collect();
        if !histories.is_empty() {
            self.sealed.push(Segment::History(histories));
        }
        Parts {
            segments: self.sealed,
            met: self.met,
            commits: Commits(self.commits),
            orders: self.orders,
        }
    }

    fn add(&mut self, target: &Target<'_>, event: RowEvent<'_>) -> Result<()> {
        if !self.note_version(target, &event)? {
            return self.add_event(target, event);
        }
        let added = self.add_event(target, event);
        if added.is_err() {
            let history = self.histories.get_mut(target.table);
            history.and_then(Option::as_mut).map(History::undo);
        }
        added
    }

    /// Adds an event to the history of its table: whether there is one.
    fn note_version(&mut self, target: &Target<'_>, event: &RowEvent<'_>) -> Result<bool> {
        if self.kept.is_empty() || target.staging.is_some() {
            return Ok(false);
        }
        if !self.histories.contains_key(target.table) {
            let history = self.history(target)?;
            self.histories.insert(target.table.clone(), history);
        }
        match self.histories.get_mut(target.table) {
            Some(Some(history)) => history.push(target, event).map(|()| true),
            _ => Ok(false),
        }
    }

    fn history(&mut self, target: &Target<'_>) -> Result<Option<History>> {
        if !self.kept.has(target.table) {
            return Ok(None);
        }
        let of = Naming.collection(target.table)?;
        let history = History::new(target.table.clone(), &of, self.policies);
        self.own(history.collection.clone(), target.table)?;
        Ok(Some(history))
    }

    fn add_event(&mut self, target: &Target<'_>, event: RowEvent<'_>) -> Result<()> {
        if let Some(oversize) = target.oversize
            && (!self.is_parking || self.kept.has(target.table))
        {
            return Err(self.too_large(target, &event, oversize));
        }
        let position = target.position;
        self.note_commit(target);
        match event {
            RowEvent::Insert(image) => self.add_row(target, Step::Insert, &image),
            RowEvent::Update(image) => self.add_row(target, Step::Update, &image),
            RowEvent::Delete(image) => self.add_row(target, Step::Delete, &image),
            RowEvent::Move { from, to } => {
                let rows = self.rows(target, to.columns)?;
                let is_new = rows.meets(to.columns);
                if target.oversize.is_some() || !rows.push_move(&from, &to, position)? {
                    self.add_move(target, &from, &to)?;
                }
                self.note(is_new, target, &to);
                Ok(())
            }
            RowEvent::Truncate => {
                let truncate = Truncate {
                    collection: self.collection(target)?,
                    table: target.table.clone(),
                    generation: position.generation,
                };
                self.seal_with(Segment::Truncate(truncate));
                Ok(())
            }
        }
    }

    fn note_commit(&mut self, target: &Target<'_>) {
        let phase = target.position.phase;
        if let Some(at) = target.committed_at
            && self.commits.last().is_none_or(|(last, _)| *last != phase)
        {
            self.commits.push((phase, at));
        }
    }

    /// That a row is not here in whole, so that nothing right can be written.
    fn too_large(&self, target: &Target<'_>, event: &RowEvent<'_>, oversize: &Oversize) -> Error {
        let mut id = Vec::new();
        let encoder = Encoder::new(target.table.clone(), self.policies);
        let encoded = match event {
            RowEvent::Insert(image) | RowEvent::Update(image) | RowEvent::Delete(image) => {
                encoder.id(&mut id, image)
            }
            RowEvent::Move { to, .. } => encoder.id(&mut id, to),
            RowEvent::Truncate => Ok(()),
        };
        if let Err(error) = encoded {
            return error;
        }
        Error::Oversize {
            table: target.table.clone(),
            key: show_id(&id),
            position: target.position,
            oversize: Box::new(oversize.clone()),
        }
    }

    /// What of a row stands elsewhere.
    fn missing(&self, target: &Target<'_>, image: &Image<'_>) -> Option<Missing> {
        let oversize = target.oversize?;
        Some(Missing::of(target, oversize, image, self.policies))
    }

    fn add_row(&mut self, target: &Target<'_>, step: Step, image: &Image<'_>) -> Result<()> {
        let missing = self.missing(target, image);
        let rows = self.rows(target, image.columns)?;
        match missing {
            None => rows.push(step, image, target.position)?,
            Some(missing) => rows.push_oversize(step, image, target.position, missing)?,
        }
        let is_new = rows.meets(image.columns);
        self.note(is_new, target, image);
        Ok(())
    }

    fn note(&mut self, is_new: bool, target: &Target<'_>, image: &Image<'_>) {
        if is_new {
            let generation = target.position.generation;
            self.met.note(generation, target.table, image.columns);
        }
    }

    fn add_move(&mut self, target: &Target<'_>, from: &Image<'_>, to: &Image<'_>) -> Result<()> {
        let mut moved = Move {
            collection: self.collection(target)?,
            table: target.table.clone(),
            position: target.position,
            from: Vec::new(),
            to: Vec::new(),
            elements: Vec::new(),
            fields: fields(to, self.policies),
            encoder: Encoder::new(target.table.clone(), self.policies),
            fate: Fate::Write,
            reason: String::new(),
            missing: self.missing(target, to),
        };
        let mut keys: Vec<Span> = Vec::new();
        moved.encoder.id(&mut moved.from, from)?;
        moved.encoder.id(&mut moved.to, to)?;
        moved.encoder.body(&mut moved.elements, &mut keys, to)?;
        self.seal_with(Segment::Move(Box::new(moved)));
        Ok(())
    }

    /// The operations of a target in the segment that is open.
    fn rows(&mut self, target: &Target<'_>, columns: &[Column]) -> Result<&mut Rows> {
        let mut at = self.place(target)?;
        if self.open[at].is_retyped(columns) {
            // Its rows come under other `_id`s that are the same to MongoDB: it tells which follow one another.
            self.seal();
            at = self.place(target)?;
        }
        let rows = &mut self.open[at];
        rows.begin(columns);
        Ok(rows)
    }

    /// Where they stand.
    fn place(&mut self, target: &Target<'_>) -> Result<usize> {
        let key = (target.table.clone(), target.staging);
        let at = if let Some(&at) = self.index.get(&key) {
            at
        } else {
            let encoder = Encoder::new(target.table.clone(), self.policies);
            let mut rows = Rows::new(self.collection(target)?, encoder);
            if self.kept.has(target.table) {
                rows = rows.sparing(VERSION_BYTES);
            } else if self.is_parking {
                rows = rows.parking();
            }
            self.open.push(rows);
            self.index.insert(key, self.open.len() - 1);
            self.open.len() - 1
        };
        Ok(at)
    }

    fn collection(&mut self, target: &Target<'_>) -> Result<Arc<str>> {
        let name = match target.staging {
            None => Naming.collection(target.table)?,
            Some(generation) => Naming.staging(target.table, generation)?,
        };
        self.own(name.into(), target.table)
    }

    /// Has a collection be a table's alone.
    fn own(&mut self, name: Arc<str>, table: &TableName) -> Result<Arc<str>> {
        let owner = self
            .owners
            .entry(name.clone())
            .or_insert_with(|| table.clone());
        if owner == table {
            return Ok(name);
        }
        Err(Error::CollectionClash {
            first: owner.clone(),
            second: table.clone(),
            collection: name.to_string(),
        })
    }

    /// Ends the open segment, so that nothing more is folded into it.
    fn seal(&mut self) {
        self.index.clear();
        let rows = std::mem::take(&mut self.open);
        if !rows.is_empty() {
            self.add_sealed(Segment::Rows(rows));
        }
    }

    /// Ends the open segment and adds another that runs after it.
    fn seal_with(&mut self, segment: Segment) {
        self.seal();
        self.add_sealed(segment);
    }

    fn add_sealed(&mut self, segment: Segment) {
        self.sealed_operations += segment.operations();
        self.sealed_bytes += segment.bytes();
        self.sealed.push(segment);
    }
}

impl Batch for MongoBatch {
    fn push(&mut self, target: &Target<'_>, event: RowEvent<'_>) -> Result<(), Fault> {
        Ok(self.add(target, event)?)
    }

    fn skip(&mut self, skipped: Skipped) {
        self.seal_with(Segment::Skipped(Box::new(skipped)));
    }

    fn carry_out(&mut self, order: LetterOrder) {
        self.orders.push(order);
    }

    fn operations(&self) -> usize {
        let histories = self.histories.values().flatten();
        self.sealed_operations
            + self.open.iter().map(Rows::operations).sum::<usize>()
            + histories.map(History::operations).sum::<usize>()
    }

    fn bytes(&self) -> usize {
        let histories = self.histories.values().flatten();
        self.sealed_bytes
            + self.open.iter().map(Rows::bytes).sum::<usize>()
            + histories.map(History::bytes).sum::<usize>()
    }
}

// === impl Segment ===

impl Segment {
    /// What encoded the segment's rows.
    pub(crate) fn encoders(&self) -> Vec<&Encoder> {
        match self {
            Self::Rows(all) => all.iter().map(|rows| &rows.encoder).collect(),
            Self::Move(moved) => vec![&moved.encoder],
            Self::Truncate(_)
            | Self::Skipped(_)
            | Self::Redefined(_)
            | Self::Unset(_)
            | Self::Letters(_)
            | Self::History(_)
            | Self::Histories(_) => Vec::new(),
        }
    }

    /// What the segment writes to.
    pub(crate) fn collections(&self) -> Vec<&str> {
        match self {
            Self::Rows(all) => all.iter().map(|rows| &*rows.collection).collect(),
            Self::Move(moved) => vec![&moved.collection],
            Self::Truncate(truncate) => vec![&truncate.collection],
            Self::Unset(unset) => vec![&unset.collection],
            Self::History(all) => all.iter().map(|it| &*it.collection).collect(),
            Self::Skipped(_) | Self::Redefined(_) | Self::Letters(_) | Self::Histories(_) => {
                Vec::new()
            }
        }
    }

    pub(crate) fn operations(&self) -> usize {
        match self {
            Self::Rows(all) => all.iter().map(Rows::operations).sum(),
            Self::Move(_) | Self::Truncate(_) => 1,
            Self::Letters(commands) | Self::Histories(commands) => commands.len(),
            Self::History(all) => all.iter().map(History::operations).sum(),
            Self::Skipped(skipped) => 1 + skipped.changes.len(),
            Self::Redefined(tables) => tables.len(),
            Self::Unset(unset) => unset.ids.len(),
        }
    }

    fn bytes(&self) -> usize {
        let bytes = match self {
            Self::Rows(all) => all.iter().map(Rows::bytes).sum(),
            Self::Move(moved) => {
                let missing = moved.missing.as_ref().map_or(0, Missing::bytes);
                moved.from.len() + moved.to.len() + moved.elements.len() + missing
            }
            Self::History(all) => all.iter().map(History::bytes).sum(),
            Self::Truncate(_)
            | Self::Redefined(_)
            | Self::Unset(_)
            | Self::Letters(_)
            | Self::Histories(_) => 0,
            Self::Skipped(skipped) => skipped.changes.iter().map(|it| it.change.len()).sum(),
        };
        bytes + SEGMENT_BYTES
    }
}

// === impl Commits ===

impl Commits {
    /// When the first transaction was committed.
    pub(crate) fn first(&self) -> Option<i64> {
        self.0.first().map(|(_, at)| *at)
    }

    /// When the change at a position was committed.
    pub(crate) fn at(&self, position: Position) -> Option<i64> {
        let found = self.0.iter().find(|(phase, _)| *phase == position.phase);
        found.map(|(_, at)| *at)
    }
}
