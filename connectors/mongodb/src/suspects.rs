//! Which of many operations the server refused as a whole, found by halves.
//!
//! - An error ends the transaction, so that each look takes a new one; what was refused is at most half as much each time.

use crate::writes::Group;

/// Operations of a group of which one cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Suspects {
    /// The place of their segment.
    pub(crate) segment: usize,
    /// The place of their collection in it.
    pub(crate) collection: usize,
    pub(crate) group: Group,
    /// The place of the first of them in the group.
    pub(crate) start: usize,
    /// The place behind the last.
    pub(crate) end: usize,
}

// === impl Suspects ===

impl Suspects {
    /// How many operations from a place on go into one command at most.
    pub(crate) fn most(&self, at: usize) -> usize {
        if at < self.start {
            self.start - at
        } else if at < self.end {
            (self.end - at).div_ceil(2)
        } else {
            usize::MAX
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many commands, of at most so many operations, it takes until the one that cannot be written is alone in its own.
    fn commands(operations: usize, most: usize, poison: usize) -> usize {
        let (mut suspects, mut sent): (Option<Suspects>, usize) = (None, 0);
        loop {
            let mut at = 0;
            let refused = loop {
                let most = suspects.map_or(most, |it| it.most(at).min(most));
                let end = operations.min(at + most);
                sent += 1;
                if (at..end).contains(&poison) {
                    break at..end;
                }
                at = end;
            };
            if refused.len() == 1 {
                return sent;
            }
            suspects = Some(Suspects {
                segment: 0,
                collection: 0,
                group: Group::Update,
                start: refused.start,
                end: refused.end,
            });
        }
    }

    #[test]
    fn one_among_thousands_is_found_in_few_commands() {
        for poison in 0..4_000 {
            let needed = commands(4_000, 4_000, poison);
            assert!(needed <= 100, "{needed} for {poison}");
        }
        for poison in [0, 4_000, 7_999, 11_999] {
            let needed = commands(12_000, 4_000, poison);
            assert!(needed <= 150, "{needed} for {poison}");
        }
        assert_eq!(commands(1, 4_000, 0), 1);
    }
}
