//! The operations on one collection that are not written, and those that are tied to them.

use std::collections::{BTreeMap, HashMap};

use walferry_schema::{Field, Image, Position};

use super::{Rows, Step};
use crate::Result;
use crate::batch::Missing;
use crate::batch::entry::{Action, Entry, Fate, Operation};
use crate::document::{Span, field_name};

/// What is known of operations that cannot be written, and of those that are tied to them.
#[derive(Debug, Default)]
pub(super) struct Parking {
    /// Whether such operations are parked; otherwise they are refused.
    pub(super) is_on: bool,
    /// Whether a document is larger than MongoDB takes.
    pub(super) has_too_large: bool,
    /// The key changes whose new row is whole: from, to.
    pub(super) moves: Vec<(Vec<u8>, Vec<u8>)>,
    /// What rows lack because it is too large, by their ids.
    pub(super) oversize: HashMap<Vec<u8>, Missing>,
    /// Why an entry is parked, by its place.
    pub(super) reasons: BTreeMap<usize, String>,
}

/// An operation that is parked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parked<'a> {
    pub(crate) operation: Operation<'a>,
    /// The elements of its document, without `_id`.
    pub(crate) elements: &'a [u8],
    /// The key that the row had before.
    pub(crate) from: Option<&'a [u8]>,
    pub(crate) missing: Option<&'a Missing>,
    /// Why it cannot be written.
    pub(crate) reason: &'a str,
}

// === impl Rows ===

impl Rows {
    /// Parks what cannot be written instead of refusing it.
    pub(crate) fn parking(mut self) -> Self {
        self.parking.is_on = true;
        self
    }

    /// Adds what happened to a row of which a part stands elsewhere: it will be parked.
    pub(crate) fn push_oversize(
        &mut self,
        step: Step,
        image: &Image<'_>,
        position: Position,
        missing: Missing,
    ) -> Result<()> {
        let mut id = Vec::new();
        self.encoder.id(&mut id, image)?;
        let missing = match self.parking.oversize.remove(&id) {
            Some(before) if step == Step::Update => before.and(missing),
            _ => missing,
        };
        self.parking.oversize.insert(id.clone(), missing.clone());
        self.push(step, image, position)?;
        if let Some(at) = self.find(&id) {
            self.park_at(at, &missing.reason());
        }
        Ok(())
    }

    /// Ties the two keys of a row together.
    pub(super) fn note_move(&mut self, from: &Image<'_>, to: &Image<'_>) -> Result<()> {
        let (mut old, mut new) = (Vec::new(), Vec::new());
        self.encoder.id(&mut old, from)?;
        self.encoder.id(&mut new, to)?;
        self.parking.moves.push((old, new));
        Ok(())
    }

    /// Notes the columns that came of a row of which a part stood elsewhere: whether this still does.
    pub(super) fn learn_columns(&mut self, id: Span, image: &Image<'_>, has_body: bool) -> bool {
        if self.parking.oversize.is_empty() {
            return false;
        }
        let at = self.find(id.of(&self.arena));
        let id = id.of(&self.arena);
        let Some(missing) = self.parking.oversize.get_mut(id) else {
            return false;
        };
        let columns = image.columns.iter().zip(&image.fields);
        let came: Vec<_> = columns
            .filter(|(_, field)| **field != Field::Absent)
            .map(|(column, _)| field_name(&column.name))
            .collect();
        missing.bring(|field| !has_body || came.iter().any(|it| *it == *field));
        let is_missing = !missing.is_empty();
        if !is_missing {
            self.parking.oversize.remove(id);
            if let Some(at) = at {
                self.entries[at].fate = Fate::Write;
                self.parking.reasons.remove(&at);
            }
        }
        is_missing
    }

    /// The generation of the rows; none when there are none.
    pub(crate) fn generation(&self) -> Option<u64> {
        self.entries.first().map(|entry| entry.position.generation)
    }

    /// Whether there is something that cannot be written, as far as that is seen from here.
    pub(crate) fn has_suspects(&self) -> bool {
        self.parking.has_too_large || !self.parking.reasons.is_empty()
    }

    /// Has the operation on a key become a dead letter, if there is one.
    pub(crate) fn park(&mut self, id: &[u8], reason: &str) {
        if let Some(at) = self.find(id) {
            self.park_at(at, reason);
        }
    }

    fn park_at(&mut self, at: usize, reason: &str) {
        self.entries[at].fate = Fate::Park;
        let reasons = &mut self.parking.reasons;
        reasons.entry(at).or_insert_with(|| reason.to_owned());
    }

    /// Parks every document that is larger than MongoDB takes.
    pub(crate) fn park_too_large(&mut self) {
        if !self.parking.has_too_large {
            return;
        }
        for at in 0..self.entries.len() {
            let Entry {
                id,
                action,
                position,
                fate,
            } = self.entries[at];
            if fate != Fate::Write {
                continue;
            }
            if let Err(error) = self.check_size(id, action, position) {
                self.park_at(at, &error.to_string());
            }
        }
    }

    /// Parks the new rows of those whose old ones are parked.
    pub(crate) fn park_moved(&mut self, is_parked: impl Fn(&[u8]) -> bool, reason: &str) {
        for (from, to) in std::mem::take(&mut self.parking.moves) {
            let fate = |id: &[u8]| self.find(id).map(|at| self.entries[at].fate);
            if is_parked(&from) || fate(&from) == Some(Fate::Park) {
                self.park(&to, reason);
            }
            self.parking.moves.push((from, to));
        }
    }

    /// The operation on the key of a row that was given up: it is written if it needs nothing of
    /// what was there, whatever there is now. None when there is none, else whether it is written.
    pub(crate) fn admit(&mut self, id: &[u8]) -> Option<bool> {
        let at = self.find(id)?;
        let entry = &mut self.entries[at];
        match entry.action {
            Action::Delete | Action::Replace(_) => {}
            // It came and went, and what was there before is not it.
            Action::Nothing => {
                entry.action = Action::Delete;
                self.operations += 1;
            }
            Action::Update(body) if !body.is_complete => entry.fate = Fate::Drop,
            Action::Insert(body) | Action::Update(body) => entry.action = Action::Replace(body),
        }
        Some(entry.fate != Fate::Drop)
    }

    /// The operations that are parked, in the order of their keys.
    pub(crate) fn parked(&self) -> impl Iterator<Item = Parked<'_>> {
        let is_parked = |entry: &Entry| entry.fate == Fate::Park && entry.action != Action::Nothing;
        let all = self.entries.iter().enumerate();
        all.filter(move |(_, entry)| is_parked(entry))
            .map(|(at, entry)| self.parked_at(at, entry))
    }

    fn parked_at<'a>(&'a self, at: usize, entry: &'a Entry) -> Parked<'a> {
        let id = entry.id.of(&self.arena);
        let mut moves = self.parking.moves.iter().rev();
        let body = entry.action.body();
        Parked {
            operation: Operation { id, entry },
            elements: body.map_or(&[], |body| self.elements(body)),
            from: body.and_then(|_| moves.find(|(_, to)| to == id).map(|(from, _)| &**from)),
            missing: self.parking.oversize.get(id),
            reason: self.parking.reasons.get(&at).map_or("", |it| it),
        }
    }
}
