//! What the slot may be confirmed to (protocol rule 7).
//!
//! - An entry is confirmed when everything before it, its own records included, is acknowledged.
//! - What is confirmed never falls.

use std::collections::VecDeque;

use walferry_schema::Lsn;

/// One first-in, first-out queue of closed entries: source transactions and heartbeats.
#[derive(Debug)]
pub(super) struct ConfirmQueue {
    next_entry: u64,
    closed: VecDeque<(u64, Lsn)>,
    confirmed: Lsn,
}

// === impl ConfirmQueue ===

impl ConfirmQueue {
    /// A queue for a slot that stands at `confirmed`.
    pub(super) fn new(confirmed: Lsn) -> Self {
        Self {
            next_entry: 0,
            closed: VecDeque::new(),
            confirmed,
        }
    }

    /// The number of the entry that is open; records are sent under it until it is closed.
    pub(super) fn open_entry(&self) -> u64 {
        self.next_entry
    }

    /// Closes the open entry: once it is acknowledged the slot may move to `lsn`.
    pub(super) fn close(&mut self, lsn: Lsn) {
        self.closed.push_back((self.next_entry, lsn));
        self.next_entry += 1;
    }

    /// Moves past every closed entry before the oldest one still `outstanding`.
    pub(super) fn settle(&mut self, outstanding: Option<u64>) -> Lsn {
        let limit = outstanding.unwrap_or(u64::MAX);
        while let Some((_, lsn)) = self.closed.pop_front_if(|(entry, _)| *entry < limit) {
            self.confirmed = self.confirmed.max(lsn);
        }
        self.confirmed
    }

    /// Whether every closed entry is confirmed.
    pub(super) fn is_settled(&self) -> bool {
        self.closed.is_empty()
    }

    /// What may be confirmed now.
    pub(super) fn confirmed(&self) -> Lsn {
        self.confirmed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_waits_for_everything_before_it() {
        let mut queue = ConfirmQueue::new(Lsn(5));
        queue.close(Lsn(10));
        queue.close(Lsn(20));
        assert_eq!(queue.settle(Some(0)), Lsn(5));
        assert_eq!(queue.settle(Some(1)), Lsn(10));
        assert!(!queue.is_settled());
        assert_eq!(queue.settle(None), Lsn(20));
        assert!(queue.is_settled());
    }

    #[test]
    fn an_open_entry_is_never_confirmed() {
        let mut queue = ConfirmQueue::new(Lsn(5));
        assert_eq!(queue.open_entry(), 0);
        assert_eq!(queue.settle(None), Lsn(5));
    }

    #[test]
    fn what_is_confirmed_never_falls() {
        let mut queue = ConfirmQueue::new(Lsn(50));
        queue.close(Lsn(10));
        assert_eq!(queue.settle(None), Lsn(50));
    }
}
