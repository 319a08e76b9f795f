//! Each key folded to one operation.
//!
//! - Folding never changes the outcome: applied to the documents that the events expect, the folded
//!   operation leaves what the events would have left one by one.

use walferry_schema::Position;

use super::{Rows, SPARED_BYTES, Step};
use crate::batch::entry::{Action, Body, Entry, Fate};
use crate::bson_value::element::Elements;
use crate::document::{DOCUMENT_OVERHEAD, MAX_DOCUMENT_BYTES, Span, show_id};
use crate::{Error, Result};

// === impl Rows ===

impl Rows {
    pub(super) fn fold(
        &mut self,
        id: Span,
        step: Step,
        body: Option<Body>,
        position: Position,
    ) -> Result<()> {
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
    pub(super) fn compact(&mut self) {
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

    pub(super) fn check_size(&self, id: Span, action: Action, position: Position) -> Result<()> {
        let Some(body) = action.body() else {
            return Ok(());
        };
        let bytes = body.elements.len() + id.len() + DOCUMENT_OVERHEAD + self.spared_bytes;
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
    pub(super) fn merge(&mut self, old: Body, new: Body) -> Body {
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
