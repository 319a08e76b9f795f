//! The reader against scripted fakes, by the protocol's rules.

mod confirming;
mod messages;
mod ordinals;
mod oversize;
mod pacing;
mod producing;
mod snapshots;
mod starting;
mod tails;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use walferry_core::fakes::{FakeChange, FakeKafka, FakeLog, FakeServer, FakeSource, Place};
use walferry_core::{LogEntry, PartitionOffset, Tasks};
use walferry_schema::{Commit, LogRecord, Lsn, Modes};

use super::{Capture, CaptureError, CaptureOptions, ExtraTopics};

/// A source and a Kafka that outlive readers.
struct Rig {
    server: FakeServer,
    kafka: FakeKafka,
    tasks: Tasks,
    stop: CancellationToken,
}

type Term = JoinHandle<Result<(), CaptureError>>;

impl Rig {
    /// Tables `a` and `b` are streamed, `ignored` is not.
    fn new() -> Self {
        let server = FakeServer::new(&["a", "b", "ignored"]);
        let stop = CancellationToken::new();
        Self {
            server,
            kafka: FakeKafka::new(),
            tasks: Tasks::default(),
            stop,
        }
    }

    /// A pipeline whose snapshot is in Kafka and whose reader has left.
    async fn streaming() -> Self {
        let rig = Self::new();
        let term = rig.start();
        settle().await;
        term.abort();
        settle().await;
        rig
    }

    fn capture(&self) -> Capture<FakeSource, FakeLog> {
        self.capture_with(false)
    }

    fn capture_with(&self, is_new_snapshot_wanted: bool) -> Capture<FakeSource, FakeLog> {
        self.capture_as(options(), is_new_snapshot_wanted)
    }

    fn capture_as(
        &self,
        options: CaptureOptions,
        is_new_snapshot_wanted: bool,
    ) -> Capture<FakeSource, FakeLog> {
        let (source, log) = (FakeSource::new(&self.server), FakeLog::new(&self.kafka));
        Capture::new(
            source,
            log,
            options,
            self.stop.clone(),
            is_new_snapshot_wanted,
        )
    }

    /// A new process that reads one term.
    fn start(&self) -> Term {
        let mut capture = self.capture();
        self.tasks.spawn(async move { capture.run_term().await })
    }

    /// A new process that fails.
    async fn error(&self) -> CaptureError {
        self.capture().run_term().await.expect_err("the term fails")
    }

    fn log(&self) -> Vec<LogRecord> {
        self.kafka
            .log_records()
            .into_iter()
            .map(|entry: LogEntry| entry.record)
            .collect()
    }

    fn commits(&self) -> Vec<Commit> {
        let commit = |record| match record {
            LogRecord::Commit(commit) => Some(commit),
            _ => None,
        };
        self.log().into_iter().filter_map(commit).collect()
    }

    fn heartbeats(&self) -> Vec<Lsn> {
        let beat = |record| match record {
            LogRecord::Heartbeat(beat) => Some(beat.lsn),
            _ => None,
        };
        self.log().into_iter().filter_map(beat).collect()
    }

    /// The numbers of all terms that were opened.
    fn opens(&self) -> Vec<i64> {
        let is_open = |entry: &LogEntry| matches!(entry.record, LogRecord::Open(_));
        self.kafka
            .log_records()
            .iter()
            .filter(|it| is_open(it))
            .map(|it| it.offset)
            .collect()
    }

    fn confirmed(&self) -> Lsn {
        self.server.confirmed().expect("there is a slot")
    }

    fn last_open(&self) -> walferry_schema::Open {
        let open = |record| match record {
            LogRecord::Open(open) => Some(open),
            _ => None,
        };
        self.log()
            .into_iter()
            .rev()
            .find_map(open)
            .expect("a term was opened")
    }
}

/// What the reader of the fakes is told; tests of the whole engine change what they need.
pub(crate) fn options() -> CaptureOptions {
    CaptureOptions {
        slot: "slot".into(),
        publication: "publication".into(),
        prefix: "p".into(),
        partitions: 2,
        tombstones: true,
        modes: Modes::default(),
        max_row_bytes: 32 << 20,
        extra_topics: ExtraTopics::default(),
        heartbeat: Duration::from_secs(5),
        is_alone: false,
        longest_term: Duration::from_hours(24),
        selects: Arc::new(|table| &*table.table != "ignored"),
        clock: Arc::new(SystemTime::now),
    }
}

/// Lets every task run until it waits; the clock stands.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// Lets the reader read on although records are in flight.
async fn rested() {
    tokio::time::advance(super::stream::SETTLE).await;
    settle().await;
}

/// Moves the clock, a second at a time.
async fn pass(seconds: u64) {
    for _ in 0..seconds {
        tokio::time::advance(Duration::from_secs(1)).await;
        settle().await;
    }
}

fn rows_of(table: &str, partition: i32) -> Place {
    Place::Rows(PartitionOffset {
        topic: format!("p.public.{table}").into(),
        partition,
    })
}

fn insert(id: i32) -> FakeChange {
    FakeChange::insert("a", id, "x")
}
