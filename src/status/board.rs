//! Where the parts of a process show how far they have come.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use walferry_core::PipelineState;
use walferry_kafka::Flow;
use walferry_postgres::SlotReport;
use walferry_schema::Lsn;

use super::lag::{Mark, Marks};
use super::{
    Asked, Bucket, Latency, ReaderStatus, Reloaded, SinkStatus, SourceStatus, State, Status,
    TableStatus, Trouble, unix_seconds,
};
use crate::analytics::Freshness;
use crate::apply::{ApplyStatus, Histogram};
use crate::capture::{CaptureStatus, ReaderStage};
use crate::pipeline::connect::HEARTBEAT;

/// Samples that a rate is taken from; one each second.
const SAMPLES: usize = 6;
/// How long Kafka may acknowledge nothing before it is shown as an outage.
const SILENCE: Duration = Duration::from_secs(10);

/// After so many heartbeats that did not come a lone sink takes its reader to be gone.
const READER_GONE: Duration = HEARTBEAT.saturating_mul(4);

/// The parts of a process, and what each shows.
pub struct Parts {
    /// The pipeline's name.
    pub pipeline: String,
    /// Which part of the pipeline the process is.
    pub role: &'static str,
    /// Whether changes go through Kafka.
    pub has_kafka: bool,
    /// The reader; none for a lone sink.
    pub reader: Option<watch::Receiver<CaptureStatus>>,
    /// The sink; none for a lone reader.
    pub sink: Option<watch::Receiver<ApplyStatus>>,
    /// How records flow into Kafka; none without a reader or without Kafka.
    pub log: Option<Arc<Flow>>,
    /// The last error that a part is tried again after, or lost the pipeline with.
    pub trouble: watch::Receiver<Option<Trouble>>,
    /// What came of reading the configuration again.
    pub reloaded: watch::Receiver<Option<Reloaded>>,
    /// What the refreshes of the analytics have come to; none where this process makes none.
    pub analytics: Option<watch::Receiver<Freshness>>,
}

/// Where the parts of a process show how far they have come.
pub struct Board {
    parts: Parts,
    started: Instant,
    source: watch::Sender<Measured>,
    past: Mutex<Past>,
}

/// The source as it was measured last.
#[derive(Clone, Debug, Default)]
struct Measured {
    report: Option<SlotReport>,
    error: Option<String>,
}

/// What is remembered of the last seconds.
struct Past {
    /// When nothing was left to apply; none since the start.
    caught_up: Option<SystemTime>,
    samples: VecDeque<Sample>,
    /// What Kafka had acknowledged, and since when it is no more although records wait for that.
    silent: Option<(u64, Instant)>,
}

/// Counts at a time.
#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    changes: u64,
    rows: u64,
}

// === impl Board ===

impl Board {
    /// A board for these parts.
    pub fn new(parts: Parts) -> Self {
        let past = Past {
            caught_up: None,
            samples: VecDeque::new(),
            silent: None,
        };
        Self {
            parts,
            started: Instant::now(),
            source: watch::Sender::default(),
            past: Mutex::new(past),
        }
    }

    /// Notes how the source was measured, or why it could not be.
    pub fn measured(&self, measured: Result<SlotReport, String>) {
        self.source.send_modify(|source| match measured {
            Ok(report) => (source.report, source.error) = (Some(report), None),
            Err(error) => source.error = Some(error),
        });
    }

    /// Remembers the counts of this moment, and whether all was applied; to be called each second.
    pub fn sample(&self) {
        let sample = Sample {
            at: Instant::now(),
            changes: self.read().map_or(0, |it| it.read.changes),
            rows: self.applied().map_or(0, |it| it.rows),
        };
        let is_caught_up = self.marks().is_caught_up() == Some(true) && self.state().is_following();
        let mut past = self.past();
        past.samples.push_back(sample);
        if past.samples.len() > SAMPLES {
            past.samples.pop_front();
        }
        if is_caught_up {
            past.caught_up = Some(SystemTime::now());
        }
        let waiting = self.parts.log.as_ref().and_then(|log| log.waiting());
        let goes_on = |acknowledged| past.silent.filter(|(before, _)| *before == acknowledged);
        past.silent = waiting.map(|it| goes_on(it).unwrap_or((it, sample.at)));
    }

    /// Everything, as it is now.
    pub fn status(&self) -> Status {
        let (changes_per_second, rows_per_second) = self.rates();
        let caught_up = self.past().caught_up;
        let applied = self.applied();
        let asked = applied
            .as_ref()
            .map(|it| Asked::of(&it.orders, it.position));
        let asked = asked.unwrap_or_default();
        let way = if self.parts.has_kafka {
            "kafka"
        } else {
            "direct"
        };
        Status {
            pipeline: self.parts.pipeline.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            role: self.parts.role.to_owned(),
            way: way.to_owned(),
            state: self.state(),
            uptime_seconds: self.started.elapsed().as_secs(),
            lag: self.marks().lag(SystemTime::now(), caught_up),
            source: self.source_status(),
            reader: self
                .read()
                .map(|status| reader_status(&status, changes_per_second)),
            sink: applied.map(|status| sink_status(&status, rows_per_second)),
            last_error: self
                .outage()
                .or_else(|| self.parts.trouble.borrow().clone()),
            paused: asked.paused,
            skips: asked.skips,
            skipped: asked.skipped,
            drifted: asked.drifted,
            dead_letters: asked.dead_letters,
            reloaded: self.parts.reloaded.borrow().clone(),
            analytics: self.parts.analytics.as_ref().map(|it| it.borrow().clone()),
        }
    }

    /// What comes of reading the configuration again.
    pub fn reloaded(&self) -> watch::Receiver<Option<Reloaded>> {
        self.parts.reloaded.clone()
    }

    /// What the pipeline is doing. What keeps it from following changes is said first: drift stands in its list too.
    pub fn state(&self) -> State {
        let reader = self.read().map(|status| status.read.stage);
        let sink = self.applied();
        let is_away = reader == Some(ReaderStage::Away);
        let is_applying = sink.as_ref().is_none_or(|sink| sink.is_applying);
        let is_paused = sink.as_ref().is_some_and(|it| it.orders.pause.is_some());
        let is_drifted = sink
            .as_ref()
            .is_some_and(|it| !it.orders.drifted.is_empty());
        let pipeline = sink.and_then(|sink| sink.state);
        if self.is_fenced() {
            return State::Fenced;
        }
        if self.is_failing() || self.outage().is_some() {
            return State::Retrying;
        }
        if is_away || !is_applying {
            return State::Starting;
        }
        if is_paused {
            return State::Paused;
        }
        match (pipeline, reader) {
            (_, Some(ReaderStage::Copying)) | (Some(PipelineState::Snapshot), _) => State::Snapshot,
            (Some(PipelineState::Swapping), _) => State::Swapping,
            _ if is_drifted => State::Drifted,
            _ => State::Live,
        }
    }

    /// A Kafka that acknowledges nothing: its client goes on trying and tells of no failure.
    fn outage(&self) -> Option<Trouble> {
        let (_, since) = self.past().silent?;
        let silent = since.elapsed();
        (silent >= SILENCE).then(|| Trouble {
            part: "reader".to_owned(),
            error: format!(
                "Kafka has acknowledged nothing for more than {} s",
                SILENCE.as_secs()
            ),
            remedy: "see that its brokers are up and reachable; the reader goes on by itself"
                .to_owned(),
            attempts: 1,
            at: unix_seconds(),
            is_fenced: false,
        })
    }

    /// Whether another process has the pipeline.
    fn is_fenced(&self) -> bool {
        let trouble = self.parts.trouble.borrow();
        trouble.as_ref().is_some_and(|it| it.is_fenced)
    }

    /// Whether a part has failed so lately that nothing says it works again.
    fn is_failing(&self) -> bool {
        let now = unix_seconds();
        let trouble = self.parts.trouble.borrow();
        trouble
            .as_ref()
            .is_some_and(|it| now.saturating_sub(it.at) <= self.forgets_after())
    }

    /// How many seconds a failure counts. A part that does not work may be long in failing again: a server that does
    /// not answer is waited for.
    fn forgets_after(&self) -> u64 {
        let is_away = self
            .read()
            .is_some_and(|it| it.read.stage == ReaderStage::Away);
        let is_idle = self.applied().is_some_and(|it| !it.is_applying);
        if is_away || is_idle { 120 } else { 10 }
    }

    fn read(&self) -> Option<CaptureStatus> {
        self.parts.reader.as_ref().map(|it| it.borrow().clone())
    }

    fn applied(&self) -> Option<ApplyStatus> {
        self.parts.sink.as_ref().map(|it| it.borrow().clone())
    }

    fn past(&self) -> std::sync::MutexGuard<'_, Past> {
        self.past.lock().expect("nothing panics while it is locked")
    }

    fn marks(&self) -> Marks {
        let (read, applied) = (self.read(), self.applied());
        let progress = read.as_ref().map(|it| it.read).unwrap_or_default();
        Marks {
            flush_lsn: self.flush_lsn(),
            confirmed_lsn: progress.confirmed_lsn,
            commit_end: progress.commit_end,
            is_sink_full: applied.as_ref().is_some_and(|it| it.is_behind),
            reader: read.map(|_| Mark {
                lsn: progress.read_lsn,
                committed_at: progress.held_at,
            }),
            sink: applied.map(|it| Mark {
                lsn: it.end_lsn,
                committed_at: it.committed_at,
            }),
            silence: self.silence(),
            has_kafka: self.parts.has_kafka,
        }
    }

    /// How long nothing has come to a lone sink, when that is longer than its reader would be silent.
    fn silence(&self) -> Option<Duration> {
        if self.parts.reader.is_some() || !self.state().is_following() {
            return None;
        }
        let silence = self.applied()?.quiet_since?.elapsed();
        (silence >= READER_GONE).then_some(silence)
    }

    /// How far the source's log was; none when it could not be measured last time.
    fn flush_lsn(&self) -> Option<Lsn> {
        let source = self.source.borrow();
        let report = source.report.as_ref().filter(|_| source.error.is_none());
        report.map(|it| it.flush_lsn)
    }

    /// Changes read and rows applied per second.
    fn rates(&self) -> (f64, f64) {
        let past = self.past();
        let (Some(first), Some(last)) = (past.samples.front(), past.samples.back()) else {
            return (0.0, 0.0);
        };
        let took = last
            .at
            .duration_since(first.at)
            .max(Duration::from_millis(1));
        (
            rate(last.changes - first.changes, took),
            rate(last.rows - first.rows, took),
        )
    }

    fn source_status(&self) -> Option<SourceStatus> {
        let Measured { report, error } = self.source.borrow().clone();
        if report.is_none() && error.is_none() {
            return None;
        }
        Some(SourceStatus::new(report, error))
    }
}

fn reader_status(status: &CaptureStatus, changes_per_second: f64) -> ReaderStatus {
    let read = &status.read;
    ReaderStatus {
        generation: read.generation,
        read_lsn: read.read_lsn,
        confirmed_lsn: read.confirmed_lsn,
        transactions: read.transactions,
        changes: read.changes,
        oversize_rows: read.oversize_rows,
        changes_per_second,
        spooled_transactions: read.spooled.map(|it| it.transactions),
        spooled_bytes: read.spooled.map(|it| it.bytes),
    }
}

fn sink_status(status: &ApplyStatus, rows_per_second: f64) -> SinkStatus {
    let tables = status.tables.iter().map(|(table, rows)| TableStatus {
        table: table.to_string(),
        rows: *rows,
    });
    SinkStatus {
        generation: status.generation,
        position: status.position.map(|it| it.to_string()),
        end_lsn: status.end_lsn,
        rows: status.rows,
        rows_per_second,
        groups: status.groups,
        repaired: status.repaired,
        parked: status.parked,
        dropped: status.dropped,
        latency: latency(&status.latency),
        tables: tables.collect(),
    }
}

fn latency(histogram: &Histogram) -> Latency {
    let buckets = histogram.cumulative().map(|(millis, count)| Bucket {
        seconds: Duration::from_millis(millis).as_secs_f64(),
        count,
    });
    Latency {
        count: histogram.count(),
        sum_seconds: histogram.sum().as_secs_f64(),
        buckets: buckets.collect(),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a rate needs no more than 15 digits"
)]
fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}
