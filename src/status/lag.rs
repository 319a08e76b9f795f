//! How far the parts of a pipeline are behind one another.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use walferry_schema::Lsn;

/// A pipeline that is behind for less is keeping up.
const NOTICEABLE: Duration = Duration::from_secs(2);

/// How far MongoDB is behind PostgreSQL.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lag {
    /// How long the oldest change that is not visible yet has waited at most; none when it cannot be known, as by a lone
    /// sink that hears of its reader.
    pub seconds: Option<f64>,
    /// WAL that is not applied yet, in bytes; none when it cannot be known.
    pub bytes: Option<u64>,
    /// WAL that was not read yet.
    pub reader_bytes: Option<u64>,
    /// WAL that was read, and that what comes next does not hold for certain yet: Kafka, or MongoDB without Kafka.
    pub log_bytes: Option<u64>,
    /// WAL that Kafka holds and MongoDB does not yet; none without Kafka.
    pub sink_bytes: Option<u64>,
    /// Which stage the others wait for; none while the pipeline keeps up.
    pub stage: Option<Stage>,
}

/// A part of the way that can hold the others up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Reading from PostgreSQL.
    Reader,
    /// Kafka's acknowledgements.
    Kafka,
    /// Writing to MongoDB.
    Sink,
}

/// How far each part has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks {
    /// How far the source's log was when it was measured last; none when that failed.
    pub(super) flush_lsn: Option<Lsn>,
    pub(super) reader: Option<Mark>,
    /// Where the last transaction that was read ended.
    pub(super) commit_end: Lsn,
    /// What the slot may be confirmed to.
    pub(super) confirmed_lsn: Lsn,
    pub(super) sink: Option<Mark>,
    /// Whether a full group waits for the one that is being written.
    pub(super) is_sink_full: bool,
    /// How long a lone sink has heard nothing of its reader, when that is too long.
    pub(super) silence: Option<Duration>,
    pub(super) has_kafka: bool,
}

/// How far one part has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    pub(super) lsn: Lsn,
    /// When the last transaction was committed, microseconds since 1970.
    pub(super) committed_at: Option<i64>,
}

// === impl Marks ===

impl Marks {
    /// Whether nothing waits; none when that cannot be known: by a sink alone, or while the source is not measured.
    /// Between reader and sink the commits decide: an idle position is passed on only now and then.
    pub(super) fn is_caught_up(&self) -> Option<bool> {
        let (reader, flush) = (self.reader?, self.flush_lsn?);
        let held = self.sink.map_or(self.confirmed_lsn, |sink| sink.lsn);
        Some(reader.lsn >= flush && held >= self.commit_end && !self.is_sink_full)
    }

    /// The lag at a time, of a pipeline that had last caught up at another, if it had.
    pub(super) fn lag(&self, now: SystemTime, caught_up: Option<SystemTime>) -> Lag {
        let (reader, sink) = (reached(self.reader), reached(self.sink));
        let since = |later: Lsn, earlier: Mark| later.bytes_since(earlier.lsn);
        let reader_bytes = self
            .flush_lsn
            .zip(reader)
            .map(|(flush, it)| since(flush, it));
        let log_bytes = reader.map(|it| it.lsn.bytes_since(self.confirmed_lsn));
        let through_kafka = reader.and(sink).filter(|_| self.has_kafka);
        let last = match self.sink {
            Some(_) => sink.map(|it| it.lsn),
            None => reader.map(|_| self.confirmed_lsn),
        };
        // What was read was there, though the source was measured before.
        let end = self
            .flush_lsn
            .map(|it| it.max(reader.unwrap_or_default().lsn));
        let bytes = end.zip(last);
        let waited = self.waited(now, caught_up);
        let mut lag = Lag {
            seconds: waited.map(|waited| waited.as_secs_f64()),
            bytes: bytes.map(|(end, last)| end.bytes_since(last)),
            reader_bytes,
            log_bytes,
            sink_bytes: through_kafka.map(|it| since(self.confirmed_lsn, it)),
            stage: None,
        };
        let is_noticeable = waited.is_some_and(|waited| waited >= NOTICEABLE);
        lag.stage = is_noticeable.then(|| self.guilty(&lag)).flatten();
        lag
    }

    /// How long the oldest change that is not visible has waited at most: it is younger than the last one that is, and
    /// than the moment when none was left. None when neither is known.
    fn waited(&self, now: SystemTime, caught_up: Option<SystemTime>) -> Option<Duration> {
        if self.is_caught_up() == Some(true) {
            return Some(Duration::ZERO);
        }
        if self.reader.is_none() {
            return self.silence;
        }
        let last = self.sink.or(self.reader).and_then(|it| it.committed_at);
        let last = last.and_then(|at| u64::try_from(at).ok());
        let last = last.map(|at| SystemTime::UNIX_EPOCH + Duration::from_micros(at));
        // The source's clock may be ahead of ours.
        let last = last.filter(|last| *last <= now);
        let since = last.max(caught_up)?;
        Some(now.duration_since(since).unwrap_or_default())
    }

    /// The stage with the most before it. Without Kafka a sink that is full keeps the reader from reading.
    fn guilty(&self, lag: &Lag) -> Option<Stage> {
        if self.silence.is_some() {
            return Some(Stage::Reader);
        }
        if self.is_sink_full && (!self.has_kafka || self.reader.is_none()) {
            return Some(Stage::Sink);
        }
        let log = if self.has_kafka {
            Stage::Kafka
        } else {
            Stage::Sink
        };
        let stages = [
            (lag.reader_bytes, Stage::Reader),
            (lag.log_bytes, log),
            (lag.sink_bytes, Stage::Sink),
        ];
        let most = stages
            .into_iter()
            .max_by_key(|(bytes, _)| bytes.unwrap_or_default());
        most.filter(|(bytes, _)| *bytes > Some(0))
            .map(|(_, stage)| stage)
    }
}

/// A mark that is one: before the first nothing is known.
fn reached(mark: Option<Mark>) -> Option<Mark> {
    mark.filter(|mark| mark.lsn > Lsn::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn mark(lsn: u64, second: i64) -> Mark {
        Mark {
            lsn: Lsn(lsn),
            committed_at: Some(second * 1_000_000),
        }
    }

    fn caught_up() -> Marks {
        Marks {
            flush_lsn: Some(Lsn(500)),
            reader: Some(mark(500, 10)),
            commit_end: Lsn(400),
            confirmed_lsn: Lsn(500),
            sink: Some(mark(500, 10)),
            is_sink_full: false,
            silence: None,
            has_kafka: true,
        }
    }

    #[test]
    fn a_pipeline_that_has_caught_up_has_no_lag_however_long_nothing_happened() {
        let lag = caught_up().lag(SystemTime::UNIX_EPOCH + NOW, Some(at(1_000)));
        assert_eq!(lag.seconds, Some(0.0));
        assert_eq!((lag.bytes, lag.stage), (Some(0), None));
    }

    #[test]
    fn the_first_change_after_a_quiet_hour_has_not_waited_for_an_hour() {
        let mut marks = caught_up();
        (marks.reader, marks.commit_end) = (Some(mark(600, 999)), Lsn(600));
        let lag = marks.lag(at(1_000), Some(at(998)));
        assert_eq!(lag.seconds, Some(2.0));
    }

    #[test]
    fn the_stage_with_the_most_before_it_is_named() {
        let mut marks = caught_up();
        marks.flush_lsn = Some(Lsn(9_000));
        let stage = |marks: &Marks| marks.lag(at(1_000), Some(at(20))).stage;
        assert_eq!(stage(&marks), Some(Stage::Reader));
        marks.reader = Some(mark(8_900, 15));
        assert_eq!(stage(&marks), Some(Stage::Kafka));
        marks.confirmed_lsn = Lsn(8_800);
        assert_eq!(stage(&marks), Some(Stage::Sink));
    }

    #[test]
    fn without_kafka_a_full_sink_is_to_blame_for_what_is_not_read() {
        let mut marks = caught_up();
        (marks.has_kafka, marks.is_sink_full) = (false, true);
        (marks.flush_lsn, marks.reader) = (Some(Lsn(9_000)), Some(mark(510, 15)));
        assert_eq!(marks.lag(at(1_000), Some(at(20))).stage, Some(Stage::Sink));
    }

    #[test]
    fn after_a_restart_the_lag_is_as_old_as_the_last_applied_commit() {
        let mut marks = caught_up();
        (marks.reader, marks.commit_end) = (Some(mark(600, 999)), Lsn(600));
        assert_eq!(marks.lag(at(1_000), None).seconds, Some(990.0));
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        let mut marks = caught_up();
        marks.flush_lsn = None;
        assert_eq!(marks.lag(at(1_000), None).bytes, None);
        let alone = Marks {
            sink: Some(mark(500, 10)),
            ..Marks::default()
        };
        assert_eq!(alone.lag(at(1_000), None), Lag::default());
        let starting = Marks {
            flush_lsn: Some(Lsn(9_000)),
            reader: Some(Mark::default()),
            sink: Some(Mark::default()),
            has_kafka: true,
            ..Marks::default()
        };
        assert_eq!(starting.lag(at(1_000), None), Lag::default());
    }

    #[test]
    fn a_lone_sink_that_hears_nothing_waits_for_its_reader_ever_longer() {
        let alone = |silence| Marks {
            sink: Some(mark(500, 10)),
            silence: Some(Duration::from_secs(silence)),
            has_kafka: true,
            ..Marks::default()
        };
        for seconds in [20, 3_600] {
            let lag = alone(seconds).lag(at(1_000), None);
            let expected = Duration::from_secs(seconds).as_secs_f64();
            assert_eq!(lag.seconds, Some(expected));
            assert_eq!(lag.stage, Some(Stage::Reader));
        }
    }

    #[test]
    fn what_was_read_since_the_source_was_measured_waits_too() {
        let mut marks = caught_up();
        (marks.reader, marks.commit_end) = (Some(mark(900, 15)), Lsn(900));
        let lag = marks.lag(at(1_000), Some(at(20)));
        assert_eq!((lag.bytes, lag.reader_bytes), (Some(400), Some(0)));
    }

    #[test]
    fn a_clock_that_is_ahead_hides_no_lag() {
        let mut marks = caught_up();
        (marks.sink, marks.commit_end) = (Some(mark(400, 5_000)), Lsn(450));
        assert_eq!(marks.lag(at(1_000), Some(at(900))).seconds, Some(100.0));
    }
}
