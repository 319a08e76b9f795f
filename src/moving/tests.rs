//! Rule 20 against scripted fakes: there and back again.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use walferry_core::fakes::{
    FakeChange, FakeDatabase, FakeKafka, FakeLog, FakeLogReader, FakeServer, FakeSink, FakeSource,
};
use walferry_core::{Class, Classify, Sink, Tasks};

use super::{MoveError, Moved, Moving};
use crate::apply::tests::limits;
use crate::apply::{Apply, ApplyError};
use crate::capture::{Capture, CaptureError};
use crate::direct::Direct;

/// One set of documents; each way has its own position, which a fake database has only one of.
struct Rig {
    server: FakeServer,
    kafka: FakeKafka,
    database: FakeDatabase,
    tasks: Tasks,
}

type Running<E> = JoinHandle<Result<(), E>>;

impl Rig {
    fn new() -> Self {
        let rig = Self {
            server: FakeServer::new(&["a", "b", "ignored"]),
            kafka: FakeKafka::new(),
            database: FakeDatabase::new(),
            tasks: Tasks::default(),
        };
        rig.server.commit(&[insert(1), insert(2)]);
        rig
    }

    fn direct(&self) -> (Running<ApplyError>, CancellationToken) {
        let (source, sink) = (FakeSource::new(&self.server), FakeSink::new(&self.database));
        let options = crate::capture::tests::options();
        let status = watch::Sender::default();
        let mut direct = Direct::new(
            source,
            options,
            watch::Sender::new(limits()).subscribe(),
            status,
            self.tasks.clone(),
        );
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let running = self
            .tasks
            .spawn(async move { direct.run(sink, &stopped).await });
        (running, stop)
    }

    fn reader(&self) -> (Running<CaptureError>, CancellationToken) {
        let stop = CancellationToken::new();
        let (source, log) = (FakeSource::new(&self.server), FakeLog::new(&self.kafka));
        let options = crate::capture::tests::options();
        let mut capture = Capture::new(source, log, options, stop.clone(), false);
        let running = self.tasks.spawn(async move { capture.run_term().await });
        (running, stop)
    }

    fn sink(&self) -> (Running<ApplyError>, CancellationToken) {
        let (sink, reader) = (
            FakeSink::new(&self.database),
            FakeLogReader::new(&self.kafka),
        );
        let tasks = self.tasks.clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let running = self.tasks.spawn(async move {
            Apply::over_log(
                sink,
                reader,
                None,
                watch::Sender::new(limits()).subscribe(),
                watch::Sender::default(),
                tasks,
            )
            .await?
            .run(&stopped)
            .await
        });
        (running, stop)
    }

    fn moving(&self) -> Moving<FakeSource, FakeSink> {
        Moving {
            source: FakeSource::new(&self.server),
            from: FakeSink::new(&self.database),
            into: FakeSink::new(&self.database),
            name: "pipeline".into(),
            options: crate::capture::tests::options(),
        }
    }

    async fn move_to_kafka(&self) -> Result<Moved, MoveError> {
        let (log, reader) = (FakeLog::new(&self.kafka), FakeLogReader::new(&self.kafka));
        self.moving().move_to_kafka(log, reader).await
    }

    /// Streams one change directly, then stops.
    async fn run_direct(&self, change: FakeChange) {
        let (running, stop) = self.direct();
        settle().await;
        self.server.commit(&[change]);
        settle().await;
        end(running, stop).await;
        self.assert_mirrored();
    }

    /// Streams one change through Kafka, then stops.
    async fn run_through_kafka(&self, change: FakeChange) {
        let (reading, stop_reading) = self.reader();
        let (writing, stop_writing) = self.sink();
        settle().await;
        self.server.commit(&[change]);
        settle().await;
        end(reading, stop_reading).await;
        settle().await;
        end(writing, stop_writing).await;
        self.assert_mirrored();
    }

    fn assert_mirrored(&self) {
        let mut expected = self.server.documents();
        expected.remove("ignored");
        assert_eq!(self.database.documents(), expected);
        let groups = self.database.groups();
        assert!(groups.iter().all(|group| group.repaired == 0));
    }
}

async fn end<E: std::fmt::Debug>(running: Running<E>, stop: CancellationToken) {
    stop.cancel();
    let ended = tokio::time::timeout(Duration::from_mins(1), running).await;
    ended
        .expect("it ends")
        .expect("no panic")
        .expect("in order");
}

async fn settle() {
    for _ in 0..400 {
        tokio::task::yield_now().await;
    }
    tokio::time::advance(Duration::from_secs(2)).await;
    for _ in 0..400 {
        tokio::task::yield_now().await;
    }
}

fn insert(id: i32) -> FakeChange {
    FakeChange::insert("a", id, "x")
}

#[tokio::test(start_paused = true)]
async fn rule_20_there_and_back_again_loses_and_repeats_nothing() {
    let rig = Rig::new();
    rig.run_direct(insert(3)).await;
    // What nobody ran for is still in the slot.
    rig.server.commit(&[insert(4)]);
    let moved = rig.move_to_kafka().await.expect("it moves");
    rig.run_through_kafka(FakeChange::Delete("a", 1)).await;
    rig.server.commit(&[insert(5)]);
    let back = rig.moving().move_to_direct().await.expect("it moves back");
    assert_eq!(back.generation, moved.generation);
    rig.run_direct(FakeChange::Rekey("a", 2, 9, None)).await;
    // And once more: the log still holds the first time.
    rig.move_to_kafka().await.expect("it moves again");
    rig.run_through_kafka(insert(6)).await;
}

#[tokio::test(start_paused = true)]
async fn rule_20_changes_that_are_only_in_kafka_are_not_left_behind() {
    let rig = Rig::new();
    rig.run_through_kafka(insert(3)).await;
    let (reading, stop) = rig.reader();
    settle().await;
    rig.server.commit(&[insert(4)]);
    settle().await;
    end(reading, stop).await;
    let error = rig
        .moving()
        .move_to_direct()
        .await
        .expect_err("it is refused");
    assert!(matches!(error, MoveError::Behind { .. }), "{error}");
    assert_eq!(error.class(), Class::Fatal);
    rig.run_through_kafka(insert(5)).await;
    rig.moving().move_to_direct().await.expect("now it moves");
    rig.run_direct(insert(6)).await;
}

#[tokio::test(start_paused = true)]
async fn rule_20_a_pipeline_that_never_ran_or_is_half_done_is_not_moved() {
    let rig = Rig::new();
    let error = rig.move_to_kafka().await.expect_err("it is refused");
    assert!(matches!(error, MoveError::NoPosition { .. }), "{error}");

    rig.run_direct(insert(3)).await;
    let mut checkpoint = rig.database.checkpoint().expect("a checkpoint");
    let position = checkpoint.position.as_mut().expect("a position");
    position.ordinal = 7;
    let mut sink = FakeSink::new(&rig.database);
    sink.claim().await.expect("it claims");
    let empty = sink.batch();
    sink.apply(empty, &checkpoint).await.expect("it writes");
    let error = rig.move_to_kafka().await.expect_err("it is refused");
    assert!(error.to_string().contains("giant"), "{error}");
}
