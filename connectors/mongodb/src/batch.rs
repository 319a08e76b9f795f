//! Row events on their way into one transaction.
//!
//! - Within a segment every key has one operation; segments run one after another.
//! - A truncate, and a key change whose carried columns are only in MongoDB, begin a new segment.
//! - An event that is refused leaves the batch as it was.

mod entry;
mod rows;

use std::collections::HashMap;
use std::sync::Arc;

use walferry_core::{Batch, Fault, RowEvent, Skipped, Target};
use walferry_schema::{Image, Position, TableName};

use crate::bson_value::{self, Microseconds};
use crate::document::{Encoder, Span};
use crate::naming::Naming;
use crate::{Error, Policies, Result};

pub(crate) use entry::{Action, Operation};
pub(crate) use rows::{Rows, Step};

/// About what a segment takes beside its bytes.
const SEGMENT_BYTES: usize = 256;

/// Collects row events, each key folded to its last known state.
#[derive(Debug)]
pub struct MongoBatch {
    policies: Policies,
    /// The segments that nothing is folded into any more.
    sealed: Vec<Segment>,
    sealed_operations: usize,
    sealed_bytes: usize,
    /// The segment of rows that is open, by collection.
    open: Vec<Rows>,
    /// Where in `open` a target's operations are.
    index: HashMap<(TableName, Option<u64>), usize>,
    /// Which table a collection belongs to.
    owners: HashMap<Arc<str>, TableName>,
}

/// A part of a batch that runs after the one before it.
#[derive(Debug)]
pub(crate) enum Segment {
    /// Operations on rows, in any order of collections.
    Rows(Vec<Rows>),
    /// A row gets a new key.
    Move(Box<Move>),
    /// All documents of a collection go.
    Truncate { collection: Arc<str> },
    /// A transaction is kept instead of being applied.
    Skipped(Box<Skipped>),
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
}

// === impl MongoBatch ===

impl MongoBatch {
    /// An empty batch.
    pub fn new(policies: Policies) -> Self {
        Self {
            policies,
            sealed: Vec::new(),
            sealed_operations: 0,
            sealed_bytes: 0,
            open: Vec::new(),
            index: HashMap::new(),
            owners: HashMap::new(),
        }
    }

    /// The segments in the order in which they run.
    pub(crate) fn into_segments(mut self) -> Vec<Segment> {
        self.seal();
        self.sealed
    }

    fn add(&mut self, target: &Target<'_>, event: RowEvent<'_>) -> Result<()> {
        let position = target.position;
        match event {
            RowEvent::Insert(image) => self.rows(target)?.push(Step::Insert, &image, position),
            RowEvent::Update(image) => self.rows(target)?.push(Step::Update, &image, position),
            RowEvent::Delete(image) => self.rows(target)?.push(Step::Delete, &image, position),
            RowEvent::Move { from, to } => {
                if self.rows(target)?.push_move(&from, &to, position)? {
                    return Ok(());
                }
                self.add_move(target, &from, &to)
            }
            RowEvent::Truncate => {
                let collection = self.collection(target)?;
                self.seal_with(Segment::Truncate { collection });
                Ok(())
            }
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
        };
        let mut keys: Vec<Span> = Vec::new();
        moved.encoder.id(&mut moved.from, from)?;
        moved.encoder.id(&mut moved.to, to)?;
        moved.encoder.body(&mut moved.elements, &mut keys, to)?;
        self.seal_with(Segment::Move(Box::new(moved)));
        Ok(())
    }

    /// The operations of a target in the segment that is open.
    fn rows(&mut self, target: &Target<'_>) -> Result<&mut Rows> {
        let key = (target.table.clone(), target.staging);
        let at = if let Some(&at) = self.index.get(&key) {
            at
        } else {
            let encoder = Encoder::new(target.table.clone(), self.policies);
            let rows = Rows::new(self.collection(target)?, encoder);
            self.open.push(rows);
            self.index.insert(key, self.open.len() - 1);
            self.open.len() - 1
        };
        Ok(&mut self.open[at])
    }

    fn collection(&mut self, target: &Target<'_>) -> Result<Arc<str>> {
        let name = match target.staging {
            None => Naming.collection(target.table)?,
            Some(generation) => Naming.staging(target.table, generation)?,
        };
        let name: Arc<str> = name.into();
        let owner = self
            .owners
            .entry(name.clone())
            .or_insert_with(|| target.table.clone());
        if owner == target.table {
            return Ok(name);
        }
        Err(Error::CollectionClash {
            first: owner.clone(),
            second: target.table.clone(),
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

    fn operations(&self) -> usize {
        self.sealed_operations + self.open.iter().map(Rows::operations).sum::<usize>()
    }

    fn bytes(&self) -> usize {
        self.sealed_bytes + self.open.iter().map(Rows::bytes).sum::<usize>()
    }
}

// === impl Segment ===

impl Segment {
    /// What encoded the segment's rows.
    pub(crate) fn encoders(&self) -> Vec<&Encoder> {
        match self {
            Self::Rows(all) => all.iter().map(|rows| &rows.encoder).collect(),
            Self::Move(moved) => vec![&moved.encoder],
            Self::Truncate { .. } | Self::Skipped(_) => Vec::new(),
        }
    }

    /// What the segment writes to.
    pub(crate) fn collections(&self) -> Vec<&str> {
        match self {
            Self::Rows(all) => all.iter().map(|rows| &*rows.collection).collect(),
            Self::Move(moved) => vec![&moved.collection],
            Self::Truncate { collection } => vec![collection],
            Self::Skipped(_) => Vec::new(),
        }
    }

    pub(crate) fn operations(&self) -> usize {
        match self {
            Self::Rows(all) => all.iter().map(Rows::operations).sum(),
            Self::Move(_) | Self::Truncate { .. } => 1,
            Self::Skipped(skipped) => 1 + skipped.changes.len(),
        }
    }

    fn bytes(&self) -> usize {
        let bytes = match self {
            Self::Rows(all) => all.iter().map(Rows::bytes).sum(),
            Self::Move(moved) => moved.from.len() + moved.to.len() + moved.elements.len(),
            Self::Truncate { .. } => 0,
            Self::Skipped(skipped) => skipped.changes.iter().map(|it| it.change.len()).sum(),
        };
        bytes + SEGMENT_BYTES
    }
}

/// The names of the fields that a row becomes, without `_id`.
fn fields(image: &Image<'_>, policies: Policies) -> Vec<String> {
    let mut fields = Vec::with_capacity(image.columns.len());
    for column in image.columns {
        fields.push(column.name.to_string());
        if policies.microseconds == Microseconds::Keep && bson_value::has_microseconds(column) {
            fields.push(bson_value::microseconds_name(&column.name));
        }
    }
    fields
}
