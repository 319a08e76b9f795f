//! The last commit → visible times.

use std::collections::VecDeque;
use std::time::Duration;

const KEPT: usize = 1_000;

/// The last thousand times.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    last: VecDeque<Duration>,
}

impl Latencies {
    pub(crate) fn add(&mut self, latency: Duration) {
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(latency);
    }

    pub(crate) fn count(&self) -> usize {
        self.last.len()
    }

    /// The smallest time that `percent` of all do not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> Option<Duration> {
        let mut sorted: Vec<_> = self.last.iter().copied().collect();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100);
        sorted.get(rank.saturating_sub(1)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile(50), None);
        for ms in (1..=100).rev() {
            latencies.add(Duration::from_millis(ms));
        }
        assert_eq!(latencies.percentile(50), Some(Duration::from_millis(50)));
        assert_eq!(latencies.percentile(99), Some(Duration::from_millis(99)));
    }

    #[test]
    fn only_the_last_thousand_count() {
        let mut latencies = Latencies::default();
        for ms in 1..=2_000 {
            latencies.add(Duration::from_millis(ms));
        }
        assert_eq!(
            (latencies.count(), latencies.percentile(1)),
            (1_000, Some(Duration::from_millis(1_010)))
        );
    }
}
