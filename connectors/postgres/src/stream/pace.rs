//! When to let the socket fill before the next read.
//!
//! - A stream of a few reads per millisecond is never delayed.
//! - A delay lasts to the end of the current millisecond, however many reads it saves.

use std::time::Duration;

use tokio::time::Instant;

/// How long the socket may fill.
const WINDOW: Duration = Duration::from_millis(1);
/// This many small reads within one window mean that we read as fast as the server writes; a commit of one row takes up
/// to three.
const MANY_READS: u32 = 6;
/// A larger read says that the socket fills by itself.
const SMALL_BYTES: usize = 16 * 1024;

/// The small reads of the current window.
#[derive(Debug, Default)]
pub(super) struct Pace {
    window: Option<Instant>,
    reads: u32,
}

// === impl Pace ===

impl Pace {
    /// A read brought `bytes`.
    pub(super) fn read(&mut self, now: Instant, bytes: usize) {
        if self
            .window
            .is_none_or(|began| now.duration_since(began) >= WINDOW)
        {
            self.window = Some(now);
            self.reads = 0;
        }
        self.reads += u32::from(bytes < SMALL_BYTES);
    }

    /// Until when the next read should wait, if it should.
    pub(super) fn rest(&self, now: Instant) -> Option<Instant> {
        let end = self.window? + WINDOW;
        (self.reads >= MANY_READS && end > now).then_some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_many_small_reads_at_once_are_delayed() {
        let began = Instant::now();
        let at = |micros| began + Duration::from_micros(micros);
        let mut pace = Pace::default();
        assert_eq!(pace.rest(at(0)), None);
        for micros in 0..6 {
            assert_eq!(pace.rest(at(micros)), None);
            pace.read(at(micros), 100);
        }
        assert_eq!(pace.rest(at(6)), Some(at(1000)));
        assert_eq!(pace.rest(at(1000)), None);
        pace.read(at(1000), 40_000);
        assert_eq!(pace.rest(at(1001)), None);
        for millis in 2..20 {
            pace.read(at(millis * 1000), 100);
            assert_eq!(pace.rest(at(millis * 1000)), None);
        }
    }
}
