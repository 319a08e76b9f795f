//! The operations on one collection, each key folded to one.
//!
//! - Keys keep the order in which they first came.
//! - A body is complete when every column of its table is in it; a partial body over a complete one
//!   is complete.
//! - Folding never changes the outcome: applied to the documents that the events expect, the folded
//!   operation leaves what the events would have left one by one.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;
use walferry_schema::{Column, Field, Image, Position};

use super::Missing;
use super::entry::{Action, Body, Entry, Fate, Operation};
use crate::bson_value::element::Elements;
use crate::document::{DOCUMENT_OVERHEAD, Encoder, MAX_DOCUMENT_BYTES, Span, field_name, show_id};
use crate::{Error, Result};

/// About what an operation takes beside its bytes.
const ENTRY_BYTES: usize = 160;
/// So much of what folding replaced may stay in the arena, and as much as is still wanted.
const SPARED_BYTES: usize = 1 << 20;

/// The folded operations on one collection.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) collection: Arc<str>,
    pub(crate) encoder: Encoder,
    /// Ids and bodies, of the entries and of what folding replaced.
    arena: Vec<u8>,
    /// How much of the arena the entries have.
    live_bytes: usize,
    /// Where the key columns stand in their bodies.
    keys: Vec<Span>,
    entries: Vec<Entry>,
    /// Places in `entries`, by id.
    index: HashTable<usize>,
    hasher: RandomState,
    operations: usize,
    /// Where the columns of the last row stand, and how many they are.
    columns: (usize, usize),
    parking: Parking,
}

/// What is known of operations that cannot be written, and of those that are tied to them.
#[derive(Debug, Default)]
struct Parking {
    /// Whether such operations are parked; otherwise they are refused.
    is_on: bool,
    /// Whether a document is larger than MongoDB takes.
    has_too_large: bool,
    /// The key changes whose new row is whole: from, to.
    moves: Vec<(Vec<u8>, Vec<u8>)>,
    /// What rows lack because it is too large, by their ids.
    oversize: HashMap<Vec<u8>, Missing>,
    /// Why an entry is parked, by its place.
    reasons: BTreeMap<usize, String>,
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

/// What an event does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Insert,
    Update,
    Delete,
}

// === impl Rows ===

impl Rows {
    pub(crate) fn new(collection: Arc<str>, encoder: Encoder) -> Self {
        Self {
            collection,
            encoder,
            arena: Vec::new(),
            live_bytes: 0,
            keys: Vec::new(),
            entries: Vec::new(),
            index: HashTable::new(),
            hasher: RandomState::new(),
            operations: 0,
            columns: (0, 0),
            parking: Parking::default(),
        }
    }

    /// Parks what cannot be written instead of refusing it.
    pub(crate) fn parking(mut self) -> Self {
        self.parking.is_on = true;
        self
    }

    /// Whether a row has columns that were not met just before.
    pub(crate) fn meets(&mut self, columns: &[Column]) -> bool {
        let met = (columns.as_ptr().addr(), columns.len());
        std::mem::replace(&mut self.columns, met) != met
    }

    /// How many operations there are.
    pub(crate) fn operations(&self) -> usize {
        self.operations
    }

    /// About how many bytes they take; of what is yet to be read from files, which are held open, its size.
    pub(crate) fn bytes(&self) -> usize {
        let missing = self.parking.oversize.values().map(Missing::bytes);
        self.arena.len() + self.entries.len() * ENTRY_BYTES + missing.sum::<usize>()
    }

    /// The operations in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Operation<'_>> {
        let live = self
            .entries
            .iter()
            .filter(|entry| entry.action != Action::Nothing && entry.fate == Fate::Write);
        live.map(|entry| Operation {
            id: entry.id.of(&self.arena),
            entry,
        })
    }

    /// All elements of a body.
    pub(crate) fn elements(&self, body: Body) -> &[u8] {
        body.elements.of(&self.arena)
    }

    /// The elements of a body that are not of the key, in pieces.
    pub(crate) fn values(&self, body: Body) -> impl Iterator<Item = &[u8]> {
        let elements = self.elements(body);
        let keys = body.keys.of(&self.keys);
        let starts = std::iter::once(0).chain(keys.iter().map(|key| key.end));
        let ends = keys.iter().map(|key| key.start).chain([elements.len()]);
        let pieces = starts.zip(ends).map(|(start, end)| &elements[start..end]);
        pieces.filter(|piece| !piece.is_empty())
    }

    /// Adds what happened to a row.
    pub(crate) fn push(&mut self, step: Step, image: &Image<'_>, position: Position) -> Result<()> {
        let (arena_len, keys_len) = (self.arena.len(), self.keys.len());
        let pushed = self.encode_and_fold(step, image, position);
        if pushed.is_err() {
            self.arena.truncate(arena_len);
            self.keys.truncate(keys_len);
        }
        self.compact();
        pushed
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

    /// Adds a row whose key changed: false, and nothing done, when the columns that it carries over
    /// are not known here.
    pub(crate) fn push_move(
        &mut self,
        from: &Image<'_>,
        to: &Image<'_>,
        position: Position,
    ) -> Result<bool> {
        if to.is_complete() {
            self.push(Step::Delete, from, position)?;
            self.push(Step::Insert, to, position)?;
            self.note_move(from, to)?;
            return Ok(true);
        }
        let mut id = Vec::new();
        self.encoder.id(&mut id, from)?;
        // What is carried over would be the value before the one that stands elsewhere.
        if self.parking.oversize.contains_key(&id) {
            return Ok(false);
        }
        let carried = self
            .find(&id)
            .and_then(|at| self.entries[at].action.body())
            .filter(|body| body.is_complete);
        let Some(carried) = carried else {
            return Ok(false);
        };
        let id = self.encode_id(to)?;
        let body = self.encode_body(to)?;
        let body = self.merge(carried, body);
        self.encode_and_fold(Step::Delete, from, position)?;
        self.fold(id, Step::Insert, Some(body), position)?;
        self.note_move(from, to)?;
        self.compact();
        Ok(true)
    }

    /// Ties the two keys of a row together.
    fn note_move(&mut self, from: &Image<'_>, to: &Image<'_>) -> Result<()> {
        let (mut old, mut new) = (Vec::new(), Vec::new());
        self.encoder.id(&mut old, from)?;
        self.encoder.id(&mut new, to)?;
        self.parking.moves.push((old, new));
        Ok(())
    }

    fn encode_and_fold(&mut self, step: Step, image: &Image<'_>, position: Position) -> Result<()> {
        let id = self.encode_id(image)?;
        let body = match step {
            Step::Insert | Step::Update => Some(self.encode_body(image)?),
            Step::Delete => None,
        };
        let is_oversize = self.learn_columns(id, image, body.is_some());
        if step == Step::Insert && !is_oversize && body.is_some_and(|body| !body.is_complete) {
            return Err(self.encoder.absent(image));
        }
        self.fold(id, step, body, position)
    }

    /// Notes the columns that came of a row of which a part stood elsewhere: whether this still does.
    fn learn_columns(&mut self, id: Span, image: &Image<'_>, has_body: bool) -> bool {
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

    fn encode_id(&mut self, image: &Image<'_>) -> Result<Span> {
        let start = self.arena.len();
        self.encoder.id(&mut self.arena, image)?;
        let end = self.arena.len();
        Ok(Span { start, end })
    }

    fn encode_body(&mut self, image: &Image<'_>) -> Result<Body> {
        let (start, first_key) = (self.arena.len(), self.keys.len());
        let is_complete = self.encoder.body(&mut self.arena, &mut self.keys, image)?;
        let (end, end_key) = (self.arena.len(), self.keys.len());
        Ok(Body {
            elements: Span { start, end },
            keys: Span {
                start: first_key,
                end: end_key,
            },
            is_complete,
        })
    }

    fn fold(&mut self, id: Span, step: Step, body: Option<Body>, position: Position) -> Result<()> {
        let at = self.find(id.of(&self.arena));
        let before = at.map_or(Action::Nothing, |at| self.entries[at].action);
        let action = self.next_action(before, step, body).ok_or_else(|| {
            let (table, key) = (self.encoder.table.clone(), show_id(id.of(&self.arena)));
            Error::MissingDocument {
                table,
                key,
                position,
            }
        })?;
        if self.parking.is_on {
            self.parking.has_too_large |= self.check_size(id, action, position).is_err();
        } else {
            self.check_size(id, action, position)?;
        }
        if let Some(at) = at {
            let keys_mark = body.map_or(self.keys.len(), |body| body.keys.start);
            let action = self.overwrite(before, action, id.start, keys_mark);
            let entry = &mut self.entries[at];
            self.live_bytes -= entry.bytes();
            (entry.action, entry.position) = (action, position);
            self.live_bytes += entry.bytes();
        } else {
            self.add(Entry {
                id,
                action,
                position,
                fate: Fate::Write,
            });
        }
        self.operations += usize::from(action != Action::Nothing);
        self.operations -= usize::from(before != Action::Nothing);
        Ok(())
    }

    /// The place of the entry with an id.
    fn find(&self, id: &[u8]) -> Option<usize> {
        let is_it = |&at: &usize| self.entries[at].id.of(&self.arena) == id;
        self.index.find(self.hasher.hash_one(id), is_it).copied()
    }

    fn add(&mut self, entry: Entry) {
        let Self {
            arena,
            live_bytes,
            entries,
            index,
            hasher,
            ..
        } = self;
        let hash = hasher.hash_one(entry.id.of(arena));
        *live_bytes += entry.bytes();
        entries.push(entry);
        let hash_of = |&at: &usize| hasher.hash_one(entries[at].id.of(arena));
        index.insert_unique(hash, entries.len() - 1, hash_of);
    }

    /// Writes a body of the same shape over the one that it replaces, as of a row whose numbers change
    /// again and again. What was encoded for it, behind the marks, is not needed then.
    fn overwrite(
        &mut self,
        old: Action,
        mut new: Action,
        arena_mark: usize,
        keys_mark: usize,
    ) -> Action {
        let (Some(old), Some(body)) = (old.body(), new.body_mut()) else {
            return new;
        };
        let is_alike = old.elements.len() == body.elements.len()
            && old.keys.of(&self.keys) == body.keys.of(&self.keys);
        if is_alike {
            debug_assert!(old.elements.end <= arena_mark && old.keys.end <= keys_mark);
            let source = body.elements.start..body.elements.end;
            self.arena.copy_within(source, old.elements.start);
            (body.elements, body.keys) = (old.elements, old.keys);
            self.arena.truncate(arena_mark);
            self.keys.truncate(keys_mark);
        }
        new
    }

    /// Drops what folding replaced once it is most of the arena: a large document that is updated
    /// again and again must not be held as often.
    fn compact(&mut self) {
        if self.arena.len() <= 2 * self.live_bytes + SPARED_BYTES {
            return;
        }
        let mut arena = Vec::with_capacity(self.live_bytes);
        let mut keys = Vec::with_capacity(self.keys.len().min(self.entries.len()));
        for entry in &mut self.entries {
            entry.id = entry.id.moved(&self.arena, &mut arena);
            if let Some(body) = entry.action.body_mut() {
                body.elements = body.elements.moved(&self.arena, &mut arena);
                body.keys = body.keys.moved(&self.keys, &mut keys);
            }
        }
        self.live_bytes = arena.len();
        (self.arena, self.keys) = (arena, keys);
    }

    /// None when a partial update follows a delete.
    fn next_action(&mut self, before: Action, step: Step, body: Option<Body>) -> Option<Action> {
        let Some(body) = body else {
            return Some(match before {
                Action::Insert(_) => Action::Nothing,
                _ => Action::Delete,
            });
        };
        Some(match (before, step) {
            (Action::Nothing | Action::Insert(_), Step::Insert) => Action::Insert(body),
            (Action::Nothing, _) => Action::Update(body),
            (Action::Insert(old), _) => Action::Insert(self.merge(old, body)),
            (Action::Delete | Action::Replace(_) | Action::Update(_), Step::Insert) => {
                Action::Replace(body)
            }
            (Action::Replace(old), _) => Action::Replace(self.merge(old, body)),
            (Action::Update(old), _) => Action::Update(self.merge(old, body)),
            (Action::Delete, _) if body.is_complete => Action::Replace(body),
            (Action::Delete, _) => return None,
        })
    }

    fn check_size(&self, id: Span, action: Action, position: Position) -> Result<()> {
        let Some(body) = action.body() else {
            return Ok(());
        };
        let bytes = body.elements.len() + id.len() + DOCUMENT_OVERHEAD;
        if bytes <= MAX_DOCUMENT_BYTES {
            return Ok(());
        }
        Err(Error::DocumentTooLarge {
            table: self.encoder.table.clone(),
            key: show_id(id.of(&self.arena)),
            position: Some(position),
            bytes,
        })
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

    /// The keys that something is done with.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &[u8]> {
        self.entries.iter().map(|entry| entry.id.of(&self.arena))
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

    /// Has a document stand there as given, whatever there is now; none removes it.
    pub(crate) fn put(&mut self, id: &[u8], elements: Option<&[u8]>, position: Position) {
        let id = self.append(id);
        let no_keys = Span { start: 0, end: 0 };
        let action = elements.map_or(Action::Delete, |elements| {
            Action::Replace(Body {
                elements: self.append(elements),
                keys: no_keys,
                is_complete: true,
            })
        });
        self.operations += 1;
        self.add(Entry {
            id,
            action,
            position,
            fate: Fate::Write,
        });
    }

    fn append(&mut self, bytes: &[u8]) -> Span {
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        let end = self.arena.len();
        Span { start, end }
    }

    /// The newer body over the older: its elements in the places of the older ones of the same name,
    /// the others after them.
    fn merge(&mut self, old: Body, new: Body) -> Body {
        if new.is_complete {
            return new;
        }
        let merged = merged(self.elements(old), self.elements(new));
        let names = key_names(self.elements(old), old.keys.of(&self.keys))
            .chain(key_names(self.elements(new), new.keys.of(&self.keys)))
            .collect::<Vec<_>>();
        let keys = key_spans(&merged, &names);
        let (start, first_key) = (self.arena.len(), self.keys.len());
        self.arena.extend_from_slice(&merged);
        self.keys.extend(keys);
        let (end, end_key) = (self.arena.len(), self.keys.len());
        Body {
            elements: Span { start, end },
            keys: Span {
                start: first_key,
                end: end_key,
            },
            is_complete: old.is_complete,
        }
    }
}

/// The elements of `old` with those of `new` in their places, what is only in `new` after them.
pub(crate) fn merged(old: &[u8], new: &[u8]) -> Vec<u8> {
    let newer: Vec<_> = Elements::new(new).collect();
    let mut taken = vec![false; newer.len()];
    let mut out = Vec::with_capacity(old.len() + new.len());
    // Both stand in table order, so that the next name is nearly always the next element.
    let mut expected = 0;
    for element in Elements::new(old) {
        let candidates = (expected..newer.len()).chain(0..expected);
        let found = candidates
            .into_iter()
            .find(|&at| newer[at].name == element.name);
        let bytes = found.map_or(element.bytes, |at| {
            taken[at] = true;
            expected = at + 1;
            newer[at].bytes
        });
        out.extend_from_slice(bytes);
    }
    let rest = newer.iter().zip(taken).filter(|(_, is_taken)| !is_taken);
    rest.for_each(|(element, _)| out.extend_from_slice(element.bytes));
    out
}

fn key_names<'a>(elements: &'a [u8], keys: &'a [Span]) -> impl Iterator<Item = &'a [u8]> {
    let key = |span: &Span| Elements::new(span.of(elements)).next();
    keys.iter().filter_map(move |span| Some(key(span)?.name))
}

/// Where the elements of these names stand.
fn key_spans(elements: &[u8], names: &[&[u8]]) -> Vec<Span> {
    let mut at = 0;
    let mut spans = Vec::new();
    for element in Elements::new(elements) {
        let end = at + element.bytes.len();
        if names.contains(&element.name) {
            spans.push(Span { start: at, end });
        }
        at = end;
    }
    spans
}

#[cfg(test)]
mod tests;
