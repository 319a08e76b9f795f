//! A change's journey, as it is told.
//!
//! - Stages stand in the order of the way; each knows how long it took since the one before.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use walferry_schema::{Commit, Lsn};

/// A change's journey.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Journey {
    /// What was asked for.
    pub asked: String,
    /// How far it came.
    pub verdict: Verdict,
    /// The same in words, with the reason.
    pub says: String,
    /// The transaction; none when it is not found, or not told apart from others of its group.
    pub transaction: Option<Transaction>,
    /// The stages that are known, in the order of the way.
    pub stages: Vec<Stage>,
    /// From the first stage to the last; none with fewer than two.
    pub total_seconds: Option<f64>,
    /// The stage that took longest to reach; none with fewer than two.
    pub slowest: Option<Place>,
    /// Where it waits; none when it is applied or not found.
    pub stands_at: Option<Place>,
    /// Its records in Kafka.
    pub records: Vec<Records>,
    /// What is to be known about the rest: what the answer lacks, and copies that count for nothing.
    pub notes: Vec<String>,
}

/// How far a change came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Readers of MongoDB see it.
    Applied,
    /// It is on its way.
    Waiting,
    /// It was not found.
    Unknown,
}

/// A source transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Transaction {
    /// PostgreSQL's transaction id.
    pub xid: u32,
    /// LSN of its commit record.
    pub commit_lsn: Lsn,
    /// LSN after its commit record.
    pub end_lsn: Lsn,
    /// The generation.
    pub generation: u64,
    /// The number of the term that sent it.
    pub term: i64,
    /// The offset of its record in the commit log.
    pub log_offset: i64,
}

/// A stage of the way, when it was reached.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stage {
    /// The stage.
    pub stage: Place,
    /// When, RFC 3339.
    pub at: String,
    /// The same in microseconds since 1970.
    pub at_micros: i64,
    /// Since the stage before; none for the first. Below zero when clocks differ.
    pub seconds: Option<f64>,
}

/// A stage of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// Committed.
    Postgresql,
    /// Decoded.
    Reader,
    /// Stored, with its commit record.
    Kafka,
    /// Visible.
    Mongodb,
}

/// Records of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Records {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// How many.
    pub count: u64,
    /// The first one's offset; none when they are not there any more, or not all.
    pub first_offset: Option<i64>,
    /// The last one's offset.
    pub last_offset: Option<i64>,
}

// === impl Journey ===

impl Journey {
    /// A journey of which nothing is known yet.
    pub(super) fn new(asked: impl Into<String>) -> Self {
        Self {
            asked: asked.into(),
            verdict: Verdict::Unknown,
            says: String::new(),
            transaction: None,
            stages: Vec::new(),
            total_seconds: None,
            slowest: None,
            stands_at: None,
            records: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// It was not applied, for somebody had it passed over.
    pub(super) fn passed_over(&mut self, by: &str) {
        self.verdict = Verdict::Unknown;
        self.says = format!(
            "passed over, as {by} ordered: it is not in MongoDB, and kept in _walferry.skipped_changes"
        );
        self.stages.retain(|it| it.stage != Place::Mongodb);
        (self.total_seconds, self.slowest) = (None, None);
    }

    /// Adds a stage; the time is microseconds since 1970.
    pub(super) fn reached(&mut self, stage: Place, at: i64) {
        let before = self.stages.last().map(|it| it.at_micros);
        self.stages.push(Stage {
            stage,
            at: time(at),
            at_micros: at,
            seconds: before.map(|before| seconds(at - before)),
        });
        let [first, .., last] = &self.stages[..] else {
            return;
        };
        self.total_seconds = Some(seconds(last.at_micros - first.at_micros));
        let took = |it: &&Stage| it.seconds.unwrap_or(f64::MIN);
        let slowest = self
            .stages
            .iter()
            .max_by(|a, b| took(a).total_cmp(&took(b)));
        self.slowest = slowest.map(|it| it.stage);
    }

    pub(super) fn applied(mut self, says: impl Into<String>) -> Self {
        (self.verdict, self.says) = (Verdict::Applied, says.into());
        self
    }

    pub(super) fn waiting(mut self, says: impl Into<String>) -> Self {
        (self.verdict, self.says) = (Verdict::Waiting, says.into());
        self
    }

    pub(super) fn unknown(mut self, says: impl Into<String>) -> Self {
        (self.verdict, self.says) = (Verdict::Unknown, says.into());
        self
    }
}

// === impl Transaction ===

impl Transaction {
    pub(super) fn new(commit: &Commit, log_offset: i64) -> Self {
        Self {
            xid: commit.xid,
            commit_lsn: commit.commit_lsn,
            end_lsn: commit.end_lsn,
            generation: commit.term.generation,
            term: commit.term.number,
            log_offset,
        }
    }
}

/// A time in microseconds since 1970 for people, UTC.
pub(super) fn time(micros: i64) -> String {
    let since = Duration::from_micros(micros.max(0).unsigned_abs());
    let at = SystemTime::UNIX_EPOCH.checked_add(since);
    humantime::format_rfc3339_micros(at.unwrap_or(SystemTime::UNIX_EPOCH)).to_string()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a time between stages is shown to the microsecond, not counted with"
)]
fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journey_names_its_slowest_stage_and_the_time_of_all() {
        let mut journey = Journey::new("0/1");
        journey.reached(Place::Postgresql, 1_000_000);
        assert_eq!((journey.slowest, journey.total_seconds), (None, None));
        journey.reached(Place::Reader, 1_500_000);
        journey.reached(Place::Kafka, 1_400_000);
        journey.reached(Place::Mongodb, 3_000_000);
        assert_eq!(journey.slowest, Some(Place::Mongodb));
        assert_eq!(journey.total_seconds, Some(2.0));
        let took: Vec<_> = journey.stages.iter().map(|it| it.seconds).collect();
        assert_eq!(took, [None, Some(0.5), Some(-0.1), Some(1.6)]);
        assert_eq!(journey.stages[1].at, "1970-01-01T00:00:01.500000Z");
    }
}
