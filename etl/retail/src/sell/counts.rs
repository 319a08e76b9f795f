//! What was sold so far, for whoever watches.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Counts that go on while a [`Seller`](super::Seller) sells.
#[derive(Debug, Default)]
pub struct Counts {
    pub(super) drawn: AtomicU64,
    pub(super) sold: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) restocked: AtomicU64,
}

/// The counts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Sales committed.
    pub sold: u64,
    /// Sales refused because a store held too little.
    pub refused: u64,
    /// Products that ran low in a store and were restocked.
    pub restocked: u64,
}

// === impl Counts ===

impl Counts {
    /// The counts now.
    pub fn totals(&self) -> Totals {
        Totals {
            sold: self.sold.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            restocked: self.restocked.load(Ordering::Relaxed),
        }
    }

    /// The number of the next sale, each given out once.
    pub(super) fn draw(&self) -> u64 {
        self.drawn.fetch_add(1, Ordering::Relaxed)
    }
}

// === impl Totals ===

impl Totals {
    #[allow(
        clippy::cast_precision_loss,
        reason = "a rate needs no more than 52 bits"
    )]
    pub(super) fn calls(self) -> f64 {
        (self.sold + self.refused) as f64
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sold,
            refused,
            restocked,
        } = self;
        write!(
            formatter,
            "{sold} sold, {refused} refused for lack of stock, {restocked} products restocked"
        )
    }
}
