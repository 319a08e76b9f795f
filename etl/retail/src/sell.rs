//! Live sales through `insert_transaction`, at a steady rate.
//!
//! - The nth sale is due at `n / rate` after the start, whatever the ones before it took: a slow moment is made up for.
//! - What the nth sale asks for depends on the seed and on n alone.
//! - A sale refused for lack of stock is counted, not an error; a product that runs low is restocked.

mod catalogue;
mod clerk;
mod counts;
mod sale;

use std::fmt;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_postgres::Config;
use tokio_util::sync::CancellationToken;

use crate::{Error, Session};

use catalogue::Catalogue;
use clerk::Clerk;

pub use counts::{Counts, Totals};

/// How to sell.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which database; with a store's own role only that store sells.
    pub database: Config,
    /// Sales per second, above 0.
    pub rate: f64,
    /// For how long; `None` until stopped.
    pub length: Option<Duration>,
    /// What the random numbers grow from.
    pub seed: u64,
    /// How many sales may be under way at once, at least 1.
    pub connections: u16,
}

/// Ready to sell: it has read what there is to sell, and nothing is sold yet.
#[derive(Debug)]
pub struct Seller {
    plan: Plan,
    catalogue: Arc<Catalogue>,
    counts: Arc<Counts>,
}

/// What was sold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sold {
    /// The counts at the end.
    #[serde(flatten)]
    pub totals: Totals,
    /// How long it took.
    pub seconds: f64,
    /// Sales per second that were asked for.
    pub asked_rate: f64,
    /// Sales per second that were called, the refused ones included.
    pub achieved_rate: f64,
}

/// When each sale is due.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    start: Instant,
    interval: Duration,
    end: Option<Instant>,
}

// === impl Seller ===

impl Seller {
    /// Connects once and reads what every visible store holds, and who buys.
    ///
    /// # Errors
    /// [`Error::Connect`], or [`Error::NothingToSell`] when no data is loaded.
    pub async fn prepare(plan: Plan) -> Result<Self, Error> {
        let session = Session::connect(&plan.database).await?;
        let catalogue = Arc::new(Catalogue::read(session.client()).await?);
        Ok(Self {
            plan,
            catalogue,
            counts: Arc::default(),
        })
    }

    /// The counts, which go on while it sells.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Sells until the plan's time is over or `stop` is cancelled; a sale under way is finished first.
    ///
    /// # Errors
    /// The first error that is not a lack of stock; the other connections then stop as well.
    pub async fn run(self, stop: &CancellationToken) -> Result<Sold, Error> {
        let stop = stop.child_token();
        let clerks = self.clerks().await?;
        let schedule = Schedule::new(&self.plan);
        let mut selling = JoinSet::new();
        for clerk in clerks {
            selling.spawn(clerk.sell(schedule, stop.clone()));
        }
        let mut outcome = Ok(());
        while let Some(clerk) = selling.join_next().await {
            let clerk = clerk.unwrap_or_else(|error| resume_unwind(error.into_panic()));
            if clerk.is_err() {
                stop.cancel();
                outcome = outcome.and(clerk);
            }
        }
        outcome.map(|()| self.sold(schedule.start.elapsed()))
    }

    async fn clerks(&self) -> Result<Vec<Clerk>, Error> {
        let mut clerks = Vec::with_capacity(usize::from(self.plan.connections));
        for _ in 0..self.plan.connections {
            let (catalogue, counts) = (Arc::clone(&self.catalogue), Arc::clone(&self.counts));
            clerks.push(Clerk::connect(&self.plan, catalogue, counts).await?);
        }
        Ok(clerks)
    }

    fn sold(&self, took: Duration) -> Sold {
        let totals = self.counts.totals();
        let seconds = took.as_secs_f64();
        Sold {
            totals,
            seconds,
            asked_rate: self.plan.rate,
            achieved_rate: totals.calls() / seconds.max(0.001),
        }
    }
}

// === impl Sold ===

impl fmt::Display for Sold {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{} in {:.1} s: {:.1} sales per second, {:.1} asked for",
            self.totals, self.seconds, self.achieved_rate, self.asked_rate
        )
    }
}

// === impl Schedule ===

impl Schedule {
    fn new(plan: &Plan) -> Self {
        let start = Instant::now();
        Self {
            start,
            interval: Duration::from_secs_f64(1.0 / plan.rate),
            end: plan.length.and_then(|length| start.checked_add(length)),
        }
    }

    /// When the nth sale is due; `None` when that is after the end, or the end is over already.
    fn due(&self, nth: u64) -> Option<Instant> {
        let interval = u64::try_from(self.interval.as_nanos()).unwrap_or(u64::MAX);
        let due = self.start + Duration::from_nanos(interval.saturating_mul(nth));
        let is_over = self
            .end
            .is_some_and(|end| due >= end || Instant::now() >= end);
        (!is_over).then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(rate: f64, length: Option<Duration>) -> Schedule {
        Schedule::new(&Plan {
            database: Config::new(),
            rate,
            length,
            seed: 1,
            connections: 1,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_sale_is_due_by_its_number_however_late_the_one_before_was() {
        let schedule = schedule(10.0, None);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(
            schedule.due(25).unwrap() - schedule.start,
            Duration::from_millis(2_500)
        );
        assert_eq!(
            schedule.due(35).unwrap() - schedule.start,
            Duration::from_millis(3_500)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_due_after_the_end() {
        let schedule = schedule(10.0, Some(Duration::from_secs(1)));
        assert!(schedule.due(9).is_some());
        assert!(schedule.due(10).is_none());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(
            schedule.due(9).is_none(),
            "a backlog is not sold after the end"
        );
    }
}
