//! How records flow through the producers of a log, for whoever shows it.

use std::sync::atomic::{AtomicU64, Ordering};

/// How records flow through the producers of a log, over all of its terms.
#[derive(Debug, Default)]
pub struct Flow {
    in_flight: AtomicU64,
    acknowledged: AtomicU64,
}

// === impl Flow ===

impl Flow {
    /// How many records were acknowledged so far, while others wait for that; none while nothing waits.
    ///
    /// An outage shows as a number that stays: librdkafka tries again by itself and tells of no failure.
    pub fn waiting(&self) -> Option<u64> {
        let is_waiting = self.in_flight.load(Ordering::Relaxed) > 0;
        is_waiting.then(|| self.acknowledged.load(Ordering::Relaxed))
    }

    /// A term begins: what the one before had in flight is given up.
    pub(crate) fn begin(&self) {
        self.in_flight.store(0, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// A record was acknowledged, or was not sent after all.
    pub(crate) fn ended(&self, is_acknowledged: bool) {
        // The records of an older term end after it was given up.
        let less = |in_flight: u64| in_flight.checked_sub(1);
        let _ = self
            .in_flight
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        if is_acknowledged {
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }
}
