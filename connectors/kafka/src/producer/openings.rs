//! Which partitions a producer has opened: the first record of each goes alone.
//!
//! - A broker takes whatever comes first from a producer that it does not know. Were the first batch
//!   refused (the leader of a new topic is not ready at once) and the one behind it taken, librdkafka
//!   would conclude that the first is in the log too, and report both as delivered.
//! - Once a broker knows the producer, a batch behind a refused one is refused for its number.
//! - A broker forgets a producer that was silent for `producer.id.expiration.ms` (a day): terms are
//!   shorter, and each opens its partitions anew.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The partitions of one producer.
#[derive(Debug, Default)]
pub(crate) struct Openings {
    topics: Mutex<HashMap<Box<str>, Vec<State>>>,
    /// How many wait for their first record, so that acknowledgements need not look.
    under_way: AtomicUsize,
}

/// Whether a record may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It opens its partition.
    First,
    /// The partition is open.
    Open,
    /// The one that opens the partition is on its way.
    Wait,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Closed,
    UnderWay,
    Open,
}

// === impl Openings ===

impl Openings {
    /// Whether a record for this partition may be sent; if it is the first, it must be.
    pub(crate) fn turn(&self, topic: &str, partition: i32) -> Turn {
        let mut topics = self.topics();
        let states = topics.get(topic).map_or(&[][..], Vec::as_slice);
        match states.get(index(partition)) {
            Some(State::Open) => Turn::Open,
            Some(State::UnderWay) => Turn::Wait,
            Some(State::Closed) | None => {
                *state(&mut topics, topic, partition) = State::UnderWay;
                self.under_way.fetch_add(1, Ordering::Relaxed);
                Turn::First
            }
        }
    }

    /// The first record was not sent after all.
    pub(crate) fn close(&self, topic: &str, partition: i32) {
        *state(&mut self.topics(), topic, partition) = State::Closed;
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }

    /// A record was delivered; whether it opened its partition.
    pub(crate) fn opened(&self, topic: &str, partition: i32) -> bool {
        if self.under_way.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let mut topics = self.topics();
        let state = state(&mut topics, topic, partition);
        if !matches!(state, State::UnderWay) {
            return false;
        }
        *state = State::Open;
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        true
    }

    fn topics(&self) -> MutexGuard<'_, HashMap<Box<str>, Vec<State>>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn state<'a>(
    topics: &'a mut HashMap<Box<str>, Vec<State>>,
    topic: &str,
    partition: i32,
) -> &'a mut State {
    let (states, index) = (topics.entry(topic.into()).or_default(), index(partition));
    if states.len() <= index {
        states.resize(index + 1, State::Closed);
    }
    &mut states[index]
}

fn index(partition: i32) -> usize {
    usize::try_from(partition).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_record_of_each_partition_goes_alone() {
        let openings = Openings::default();
        assert_eq!(openings.turn("t", 3), Turn::First);
        assert_eq!(openings.turn("t", 3), Turn::Wait);
        assert_eq!(openings.turn("t", 1), Turn::First);
        assert_eq!(openings.turn("u", 3), Turn::First);
        assert!(openings.opened("t", 3));
        assert!(!openings.opened("t", 3));
        assert_eq!(openings.turn("t", 3), Turn::Open);
        assert_eq!(openings.turn("t", 1), Turn::Wait);
    }

    #[test]
    fn the_next_record_is_the_first_when_that_was_not_sent() {
        let openings = Openings::default();
        assert_eq!(openings.turn("t", 0), Turn::First);
        openings.close("t", 0);
        assert_eq!(openings.turn("t", 0), Turn::First);
    }
}
