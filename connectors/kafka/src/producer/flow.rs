//! How records flow through the producers of a log, for whoever shows it.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::deliveries::Deliveries;

/// How records flow through the producers of a log: those of its newest term.
#[derive(Debug, Default)]
pub struct Flow {
    newest: Mutex<Weak<Deliveries>>,
}

// === impl Flow ===

impl Flow {
    /// How many records of the term were acknowledged so far, while others wait for that; none while nothing waits.
    ///
    /// An outage shows as a number that stays: librdkafka tries again by itself and tells of no failure.
    pub fn waiting(&self) -> Option<u64> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.upgrade()?.waiting()
    }

    /// A term begins: what the one before had in flight is given up.
    pub(crate) fn begin(&self, deliveries: &Arc<Deliveries>) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        *newest = Arc::downgrade(deliveries);
    }
}
