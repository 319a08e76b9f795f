//! How far a sink has come, for whoever shows it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use walferry_core::{Checkpoint, Orders, PipelineState};
use walferry_schema::{Lsn, Position, TableName};

use super::Tally;

/// How far a sink has come; the counts are this process's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApplyStatus {
    /// Whether a sink has claimed the pipeline and applies what comes.
    pub is_applying: bool,
    /// Whether the snapshot is in and the stream is being applied.
    pub is_live: bool,
    /// Which part of its life the pipeline is in; none before it was claimed.
    pub state: Option<PipelineState>,
    /// The generation that is applied.
    pub generation: u64,
    /// The last change applied.
    pub position: Option<Position>,
    /// How far the source's log is applied.
    pub end_lsn: Lsn,
    /// When the last transaction applied was committed, microseconds since 1970.
    pub committed_at: Option<i64>,
    /// Rows.
    pub rows: u64,
    /// Rows by table.
    pub tables: BTreeMap<TableName, u64>,
    /// Groups.
    pub groups: u64,
    /// Operations that were mended from a full image.
    pub repaired: u64,
    /// Changes that became dead letters.
    pub parked: u64,
    /// Changes of rows that were given up with their dead letters.
    pub dropped: u64,
    /// Whether a full group waits behind the one that is being written: the sink is what others wait for.
    pub is_behind: bool,
    /// Since when nothing has come, to the second; none while nothing more is taken.
    pub quiet_since: Option<Instant>,
    /// From commit to visible, the oldest transaction of each group.
    pub latency: Histogram,
    /// What operators ask.
    pub orders: Orders,
}

/// How often something took how long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Observations of at most [`Histogram::BOUNDS`] and above the bound before; the last has none.
    counts: [u64; Self::BOUNDS.len() + 1],
    sum: Duration,
}

// === impl ApplyStatus ===

impl ApplyStatus {
    /// Notes a checkpoint that is applied.
    pub(super) fn reached(&mut self, checkpoint: &Checkpoint) {
        self.is_live = checkpoint.state == PipelineState::Live;
        self.state = Some(checkpoint.state);
        self.generation = checkpoint.generation;
        self.position = checkpoint.position;
        self.end_lsn = checkpoint.end_lsn;
    }

    /// Counts a group that is applied up to a checkpoint.
    pub(super) fn count(&mut self, group: &Tally, checkpoint: &Checkpoint, age: Option<Duration>) {
        self.rows += group.rows();
        self.groups += 1;
        for (table, rows) in group.tables() {
            if let Some(table) = checkpoint.tables.get(table) {
                *self.tables.entry(table.name.clone()).or_default() += rows;
            }
        }
        self.committed_at = group.last_commit().or(self.committed_at);
        if let Some(age) = age {
            self.latency.observe(age);
        }
    }
}

// === impl Histogram ===

impl Histogram {
    /// Upper bounds, in milliseconds.
    pub const BOUNDS: [u64; 15] = [
        1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 60_000, 300_000,
    ];

    fn observe(&mut self, took: Duration) {
        let bucket = Self::BOUNDS
            .iter()
            .position(|bound| took <= Duration::from_millis(*bound));
        self.counts[bucket.unwrap_or(Self::BOUNDS.len())] += 1;
        self.sum += took;
    }

    /// Each bound with the observations up to it; the bounds are milliseconds.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut below = 0;
        Self::BOUNDS
            .iter()
            .zip(&self.counts)
            .map(move |(bound, count)| {
                below += count;
                (*bound, below)
            })
    }

    /// All observations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How long all of them took together.
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_counts_in_every_bucket_that_holds_it() {
        let mut histogram = Histogram::default();
        for millis in [1, 4, 400_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let cumulative: Vec<_> = histogram.cumulative().collect();
        assert_eq!(cumulative[..3], [(1, 1), (2, 1), (5, 2)]);
        assert_eq!(cumulative.last(), Some(&(300_000, 2)));
        assert_eq!(histogram.count(), 3);
        assert_eq!(histogram.sum(), Duration::from_millis(400_005));
    }
}
