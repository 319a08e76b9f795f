//! What becomes of a row when its dead letters are given up.
//!
//! - What they say is given up, not whether the row is there: the document of a row that went, or has another key by now,
//!   goes too.
//! - A row that is there lacks what they said.

use std::borrow::Cow;
use std::collections::BTreeMap;

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
    /// Whether the row whose document stands there went.
    has_gone: bool,
    /// Whether there is a row now.
    is_there: bool,
}

// === impl Discarded ===

impl<'l> Discarded<'l> {
    /// Of the letters of a row in order.
    pub(crate) fn of(letters: &'l [Letter]) -> Self {
        let mut discarded = Self::default();
        for (at, letter) in letters.iter().enumerate() {
            match (letter.operation, &letter.from) {
                (Operation::Delete, _) if is_respelled(letter, letters.get(at + 1)) => {}
                (Operation::Delete, _) => discarded.note(&letter.key, false),
                (Operation::Move, Some(from)) if identity(from) != identity(&letter.key) => {
                    discarded.note(from, false);
                    discarded.note(&letter.key, true);
                }
                _ => discarded.note(&letter.key, true),
            }
        }
        discarded
    }

    fn note(&mut self, id: &'l [u8], is_there: bool) {
        let key = self.keys.entry(identity(id)).or_insert(Key {
            id,
            has_gone: false,
            is_there,
        });
        (key.id, key.is_there) = (id, is_there);
        key.has_gone |= !is_there;
    }

    /// The documents that have to go.
    pub(crate) fn documents(&self) -> Documents {
        let gone = self.keys.values().filter(|it| it.has_gone);
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

/// Whether a delete is one half of a change that only spells the key otherwise: the same row comes at the same position.
fn is_respelled(gone: &Letter, next: Option<&Letter>) -> bool {
    next.is_some_and(|it| it.position == gone.position && identity(&it.key) == identity(&gone.key))
}
