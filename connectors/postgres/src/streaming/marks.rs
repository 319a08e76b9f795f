//! Where the subtransactions of a transaction begin in its file.
//!
//! - From its first message to its rollback everything belongs to a subtransaction or to those inside it: a session
//!   goes on with the outer one only when the inner one has ended.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// The places of first messages.
#[derive(Debug, Default)]
pub(super) struct Marks {
    places: HashMap<u32, u64>,
    /// The same subtransactions in the order of their places.
    order: Vec<u32>,
}

// === impl Marks ===

impl Marks {
    /// Notes a message of a subtransaction.
    pub(super) fn note(&mut self, xid: u32, place: u64) {
        if let Entry::Vacant(first) = self.places.entry(xid) {
            first.insert(place);
            self.order.push(xid);
        }
    }

    /// Forgets a subtransaction and all that came after it: where it began, if anything of it is left.
    pub(super) fn roll_back(&mut self, xid: u32) -> Option<u64> {
        let place = self.places.get(&xid).copied()?;
        while let Some(last) = self.order.last() {
            if self.places.get(last).is_some_and(|it| *it < place) {
                break;
            }
            self.places.remove(last);
            self.order.pop();
        }
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollback_takes_all_that_came_after_the_first_message_with_it() {
        let mut marks = Marks::default();
        for (xid, place) in [(2, 10), (3, 20), (2, 30), (4, 40)] {
            marks.note(xid, place);
        }
        assert_eq!(marks.roll_back(3), Some(20));
        assert_eq!((marks.roll_back(4), marks.roll_back(3)), (None, None));
        marks.note(5, 20);
        assert_eq!(marks.roll_back(2), Some(10));
        assert_eq!((marks.roll_back(5), marks.order.len()), (None, 0));
    }
}
