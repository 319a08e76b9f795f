//! The sink against scripted fakes, by the protocol's rules; the log is written by a real reader.

mod groups;
mod kinds;
mod orders;
mod swapping;

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use walferry_core::fakes::{
    FakeChange, FakeDatabase, FakeKafka, FakeLog, FakeLogReader, FakeServer, FakeSink, FakeSource,
};
use walferry_core::{Order, Orders, Tasks};
use walferry_schema::CommitId;

use super::{Apply, ApplyError, ApplyStatus, GroupLimits};
use crate::capture::{Capture, CaptureError, CaptureOptions};
use crate::merge::{Announced, WholeLimits};

/// The servers of a pipeline; processes come and go.
struct Rig {
    server: FakeServer,
    kafka: FakeKafka,
    database: FakeDatabase,
    tasks: Tasks,
    stop: CancellationToken,
    status: watch::Sender<ApplyStatus>,
    limits: watch::Sender<GroupLimits>,
}

type Sinking = JoinHandle<Result<(), ApplyError>>;

impl Rig {
    fn new() -> Self {
        Self {
            server: FakeServer::new(&["a", "b"]),
            kafka: FakeKafka::new(),
            database: FakeDatabase::new(),
            tasks: Tasks::default(),
            stop: CancellationToken::new(),
            status: watch::Sender::default(),
            limits: watch::Sender::new(limits()),
        }
    }

    /// A reader that streams, and a sink that has swapped the snapshot in.
    async fn live() -> (Self, Sinking) {
        let rig = Self::new();
        rig.server
            .commit(&[insert(1), insert(2), FakeChange::insert("b", 1, "x")]);
        rig.read();
        let sink = rig.sink();
        settle().await;
        assert!(rig.status.borrow().is_live);
        assert_eq!(rig.database.documents(), rig.server.documents());
        (rig, sink)
    }

    fn read(&self) -> JoinHandle<Result<(), CaptureError>> {
        let (source, log) = (FakeSource::new(&self.server), FakeLog::new(&self.kafka));
        let mut capture = Capture::new(source, log, options(2), CancellationToken::new(), false);
        self.tasks.spawn(async move { capture.run_term().await })
    }

    /// A new process that applies.
    fn sink(&self) -> Sinking {
        self.sink_with(None)
    }

    /// A sink whose process has begun a generation.
    fn sink_with(&self, announced: Option<Announced>) -> Sinking {
        let (sink, reader) = (
            FakeSink::new(&self.database),
            FakeLogReader::new(&self.kafka),
        );
        let (limits, status, tasks) = (
            self.limits.subscribe(),
            self.status.clone(),
            self.tasks.clone(),
        );
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            Apply::over_log(sink, reader, announced, limits, status, tasks)
                .await?
                .run(&stop)
                .await
        })
    }

    fn assert_mirrored(&self) {
        assert_eq!(self.database.documents(), self.server.documents());
        assert!(
            self.database
                .groups()
                .iter()
                .all(|group| group.repaired == 0)
        );
    }
}

/// Room for everything that a test does not make larger on purpose.
pub(crate) fn limits() -> GroupLimits {
    GroupLimits {
        operations: 1_000,
        bytes: 1 << 20,
        whole: WholeLimits {
            rows: 1_000,
            bytes: 1 << 20,
        },
    }
}

fn options(partitions: i32) -> CaptureOptions {
    CaptureOptions {
        partitions,
        selects: Arc::new(|_| true),
        ..crate::capture::tests::options()
    }
}

/// What a person asks who says no more.
pub(crate) fn order() -> Order {
    Order {
        by: "ann@db1".into(),
        at: 1_700_000_000_000,
        reason: Some("a test".into()),
    }
}

/// A pipeline is to be paused.
pub(crate) fn paused() -> Orders {
    Orders {
        pause: Some(order()),
        ..Orders::default()
    }
}

/// A transaction is to be passed over.
pub(crate) fn skipping(commit: CommitId) -> Orders {
    Orders {
        skips: [(commit, order())].into(),
        ..Orders::default()
    }
}

async fn settle() {
    for _ in 0..300 {
        tokio::task::yield_now().await;
    }
}

fn insert(id: i32) -> FakeChange {
    FakeChange::insert("a", id, "x")
}

async fn failure(sink: Sinking) -> ApplyError {
    sink.await
        .expect("the task ends")
        .expect_err("the sink fails")
}
