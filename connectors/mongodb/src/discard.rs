//! What becomes of a row when its dead letters are given up.
//!
//! - What they say is given up, not whether the row is there: the document of a row that went, or has another key by now,
//!   goes too.
//! - A row that is there lacks what they said.

use std::borrow::Cow;
use std::collections::BTreeMap;

use walferry_schema::Position;

use crate::dead_letters::{Letter, Operation};
use crate::identity;
use crate::replay::Documents;

/// What giving up the letters of a row comes to, by the identities of the keys that it had.
#[derive(Debug, Default)]
pub(crate) struct Discarded<'l> {
    keys: BTreeMap<Cow<'l, [u8]>, Key<'l>>,
}

#[derive(Debug)]
struct Key<'l> {
    id: &'l [u8],
    /// Whether a row whose document stood there went before the last of its letters.
    has_gone: bool,
    /// Where the last one went, until it is known whether another came at the same moment: that would be the same row,
    /// whose key is spelled otherwise.
    went_at: Option<Position>,
    /// Whether there is a row now.
    is_there: bool,
}

// === impl Discarded ===

impl<'l> Discarded<'l> {
    /// Of the letters of a row in order.
    pub(crate) fn of(letters: &'l [Letter]) -> Self {
        let mut discarded = Self::default();
        for letter in letters {
            if letter.operation == Operation::Move
                && let Some(from) = &letter.from
            {
                discarded.note(from, letter.position, false);
            }
            let is_there = letter.operation != Operation::Delete;
            discarded.note(&letter.key, letter.position, is_there);
        }
        discarded
    }

    fn note(&mut self, id: &'l [u8], position: Position, is_there: bool) {
        let key = self.keys.entry(identity(id)).or_insert(Key {
            id,
            has_gone: false,
            went_at: None,
            is_there,
        });
        let went_at = key.went_at.take();
        key.has_gone |= went_at.is_some_and(|it| !is_there || it != position);
        key.went_at = (!is_there).then_some(position);
        (key.id, key.is_there) = (id, is_there);
    }

    /// The documents that have to go.
    pub(crate) fn documents(&self) -> Documents {
        let gone = self
            .keys
            .values()
            .filter(|it| it.has_gone || it.went_at.is_some());
        gone.map(|it| (it.id.to_vec(), None)).collect()
    }

    /// The keys of rows that lack what was said.
    pub(crate) fn lacking(&self) -> impl Iterator<Item = &'l [u8]> {
        self.keys.values().filter(|it| it.is_there).map(|it| it.id)
    }

    /// Whether there is a row under the key of a letter.
    pub(crate) fn is_there(&self, letter: &Letter) -> bool {
        let key = self.keys.get(&*identity(&letter.key));
        key.is_some_and(|it| it.is_there)
    }
}
