//! The operations on one collection, each key folded to one.
//!
//! - Keys keep the order in which they first came.
//! - A body is complete when every column of its table is in it; a partial body over a complete one
//!   is complete.
//! - Folding never changes the outcome: applied to the documents that the events expect, the folded
//!   operation leaves what the events would have left one by one.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;
use walferry_schema::{Image, Position};

use super::entry::{Action, Body, Entry, Operation};
use crate::bson_value::element::Elements;
use crate::document::{DOCUMENT_OVERHEAD, Encoder, MAX_DOCUMENT_BYTES, Span, show_id};
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
        }
    }

    /// How many operations there are.
    pub(crate) fn operations(&self) -> usize {
        self.operations
    }

    /// About how many bytes they take.
    pub(crate) fn bytes(&self) -> usize {
        self.arena.len() + self.entries.len() * ENTRY_BYTES
    }

    /// The operations in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Operation<'_>> {
        let live = self
            .entries
            .iter()
            .filter(|entry| entry.action != Action::Nothing);
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
            return Ok(true);
        }
        let mut id = Vec::new();
        self.encoder.id(&mut id, from)?;
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
        self.compact();
        Ok(true)
    }

    fn encode_and_fold(&mut self, step: Step, image: &Image<'_>, position: Position) -> Result<()> {
        let id = self.encode_id(image)?;
        let body = match step {
            Step::Insert | Step::Update => Some(self.encode_body(image)?),
            Step::Delete => None,
        };
        if step == Step::Insert && body.is_some_and(|body| !body.is_complete) {
            return Err(self.encoder.absent(image));
        }
        self.fold(id, step, body, position)
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
        self.check_size(id, action, position)?;
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
fn merged(old: &[u8], new: &[u8]) -> Vec<u8> {
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
