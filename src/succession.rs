//! Which term counts: a compare-and-set that log order decides (protocol rules 3 and 10).
//!
//! - An `open` or `generation` names the term it follows; it takes over only while that one is the
//!   newest. A request of a dead reader that Kafka takes late changes nothing.
//! - Whoever wrote one that does not take over learns it by reading up to it, and never produces.

use walferry_core::LogEntry;
use walferry_schema::{LogRecord, Term};

/// The newest term, judged record by record in log order.
///
/// Judging may begin in the middle of the log. The first `open` seen there is taken on trust until
/// a record shows that it came late.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Succession {
    newest: Option<Term>,
    /// What the newest term says it follows, while that is taken on trust.
    on_trust: Option<i64>,
}

// === impl Succession ===

impl Succession {
    /// The newest term that counts; none before the first.
    pub(crate) fn newest(&self) -> Option<Term> {
        self.newest
    }

    /// What a new `open` or `generation` has to name.
    pub(crate) fn number(&self) -> i64 {
        self.newest.map_or(Term::NONE.number, |term| term.number)
    }

    /// Whether a record counts; the next one is judged by what it says.
    pub(crate) fn judge(&mut self, entry: &LogEntry) -> bool {
        let begun = |generation| Term {
            generation,
            number: entry.offset,
        };
        match &entry.record {
            LogRecord::Generation(new) => {
                let is_newer = self.newest.is_none_or(|it| new.generation > it.generation);
                is_newer && self.take_over_anew(begun(new.generation), new.follows)
            }
            LogRecord::Open(open) => self.take_over(begun(open.generation), open.follows),
            LogRecord::Commit(it) => self.admit(it.term),
            LogRecord::Chunk(it) => self.admit(it.term),
            LogRecord::SnapshotEnd(it) => self.admit(it.term),
            LogRecord::Heartbeat(it) => self.admit(it.term),
        }
    }

    /// Whether the `open` or `generation` that begins `term` takes over.
    fn take_over(&mut self, term: Term, follows: i64) -> bool {
        let is_first = self.newest.is_none();
        let takes_over = is_first || follows == self.number() || self.came_late(follows);
        if takes_over {
            self.newest = Some(term);
            self.on_trust = is_first.then_some(follows);
        }
        takes_over
    }

    /// Whether the `generation` that begins `term` takes over: also when it follows a term that the log has
    /// lost since. It mends whatever was lost, and the sink goes on with it: a reader that went on with
    /// the old generation would send what nobody applies.
    fn take_over_anew(&mut self, term: Term, follows: i64) -> bool {
        if follows <= self.number() {
            return self.take_over(term, follows);
        }
        (self.newest, self.on_trust) = (Some(term), None);
        true
    }

    /// Whether a record that was written in `term` counts. Only a reader that has taken over
    /// writes any, so it also shows that its term did.
    fn admit(&mut self, term: Term) -> bool {
        let counts = match self.newest {
            Some(newest) => term >= newest || self.came_late(term.number),
            None => true,
        };
        if counts {
            (self.newest, self.on_trust) = (Some(term), None);
        }
        counts
    }

    /// Whether a term with this number shows that the newest, taken on trust, followed an older one.
    fn came_late(&self, number: i64) -> bool {
        self.on_trust
            .is_some_and(|follows| follows < number && number < self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(number: i64) -> Term {
        Term {
            generation: 1,
            number,
        }
    }

    #[test]
    fn an_open_takes_over_from_the_newest_only() {
        let mut terms = Succession::default();
        assert!(terms.take_over(term(3), -1));
        assert!(terms.take_over(term(7), 3));
        assert!(!terms.take_over(term(9), 3), "its writer had not seen 7");
        assert_eq!(terms.newest(), Some(term(7)));
        assert!(terms.take_over(term(11), 7));
    }

    #[test]
    fn a_generation_takes_over_from_a_term_that_the_log_lost_an_open_does_not() {
        let mut terms = Succession::default();
        assert!(terms.take_over(term(3), -1));
        assert!(terms.admit(term(3)));
        assert!(!terms.take_over(term(4), 5));
        let mut later = term(4);
        later.generation = 2;
        assert!(!terms.take_over_anew(later, 2), "its writer had not seen 3");
        assert!(terms.take_over_anew(later, 5));
        assert_eq!(terms.newest(), Some(later));
    }

    #[test]
    fn a_record_of_an_older_term_is_void() {
        let mut terms = Succession::default();
        assert!(terms.take_over(term(3), -1));
        assert!(terms.admit(term(3)));
        assert!(terms.take_over(term(7), 3));
        assert!(!terms.admit(term(3)));
        assert!(terms.admit(term(7)));
    }

    #[test]
    fn in_the_middle_of_the_log_a_late_open_is_found_out() {
        let mut terms = Succession::default();
        assert!(terms.take_over(term(150), 50));
        assert!(terms.admit(term(100)), "100 took over from 50 before");
        assert_eq!(terms.newest(), Some(term(100)));
        assert!(terms.take_over(term(200), 100));

        let mut terms = Succession::default();
        assert!(terms.take_over(term(150), 50));
        assert!(terms.take_over(term(200), 100));
        assert_eq!(terms.newest(), Some(term(200)));
    }

    #[test]
    fn in_the_middle_of_the_log_a_timely_open_still_voids_what_it_follows() {
        let mut terms = Succession::default();
        assert!(terms.take_over(term(150), 100));
        assert!(!terms.admit(term(100)));
        assert_eq!(terms.newest(), Some(term(150)));
    }
}
