//! Rule 19 against scripted fakes.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use walferry_core::fakes::{FakeChange, FakeDatabase, FakeServer, FakeSink, FakeSource, Script};
use walferry_core::{Class, Classify, Order, Orders, PipelineState, Tasks};
use walferry_schema::{CommitId, Lsn};

use super::Direct;
use crate::apply::tests::{limits, order, paused, skipping};
use crate::apply::{ApplyError, ApplyStatus, GroupLimits};
use crate::capture::CaptureError;
use crate::merge::WholeLimits;

struct Rig {
    server: FakeServer,
    database: FakeDatabase,
    tasks: Tasks,
    stop: CancellationToken,
    status: watch::Sender<ApplyStatus>,
    whole: WholeLimits,
}

type Running = JoinHandle<Result<(), ApplyError>>;

impl Rig {
    fn new() -> Self {
        Self {
            server: FakeServer::new(&["a", "b", "ignored"]),
            database: FakeDatabase::new(),
            tasks: Tasks::default(),
            stop: CancellationToken::new(),
            status: watch::Sender::default(),
            whole: limits().whole,
        }
    }

    /// A pipeline that has swapped its snapshot in.
    async fn live() -> (Self, Running) {
        let rig = Self::new();
        rig.server
            .commit(&[insert(1), insert(2), FakeChange::insert("b", 1, "x")]);
        let running = rig.start();
        settle().await;
        assert!(rig.status.borrow().is_live);
        rig.assert_mirrored();
        (rig, running)
    }

    fn start(&self) -> Running {
        self.start_with(false)
    }

    /// A new process.
    fn start_with(&self, is_new_snapshot_wanted: bool) -> Running {
        let limits = watch::Sender::new(GroupLimits {
            whole: self.whole,
            ..limits()
        });
        let (source, status) = (FakeSource::new(&self.server), self.status.clone());
        let options = crate::capture::tests::options();
        let mut direct = Direct::new(
            source,
            options,
            limits.subscribe(),
            status,
            self.tasks.clone(),
        );
        direct.want_new_snapshot(is_new_snapshot_wanted);
        let (sink, stop) = (FakeSink::new(&self.database), self.stop.clone());
        self.tasks
            .spawn(async move { direct.run(sink, &stop).await })
    }

    fn applied(&self) -> Lsn {
        self.database.checkpoint().expect("a checkpoint").end_lsn
    }

    fn confirmed(&self) -> Lsn {
        self.server.confirmed().expect("a slot")
    }

    fn assert_mirrored(&self) {
        let mut expected = self.server.documents();
        expected.remove("ignored");
        assert_eq!(self.database.documents(), expected);
        let groups = self.database.groups();
        assert!(groups.iter().all(|group| group.repaired == 0));
    }
}

async fn settle() {
    for _ in 0..300 {
        tokio::task::yield_now().await;
    }
}

async fn pass(seconds: u64) {
    for _ in 0..seconds {
        tokio::time::advance(Duration::from_secs(1)).await;
        settle().await;
    }
}

async fn crash(running: Running) {
    running.abort();
    drop(running.await);
}

async fn failure(running: Running) -> ApplyError {
    let patience = Duration::from_mins(1);
    tokio::time::timeout(patience, running)
        .await
        .expect("it ends")
        .expect("the task ends")
        .expect_err("the pipeline fails")
}

fn insert(id: i32) -> FakeChange {
    FakeChange::insert("a", id, "x")
}

#[tokio::test(start_paused = true)]
async fn rule_19_the_slot_is_confirmed_only_to_what_is_committed() {
    let (rig, _running) = Rig::live().await;
    rig.database.script(&[Script::Hold]);
    let before = rig.confirmed();
    rig.server.commit(&[insert(3)]);
    pass(10).await;
    assert_eq!(rig.confirmed(), before);
    rig.database.release();
    pass(2).await;
    assert_eq!(rig.confirmed(), rig.applied());
    assert_eq!(rig.confirmed(), rig.server.end_lsn());
    rig.assert_mirrored();
}

#[tokio::test(start_paused = true)]
async fn rule_19_an_idle_position_is_written_before_it_is_confirmed() {
    let (rig, _running) = Rig::live().await;
    rig.database.script(&[Script::Hold]);
    let (before, idle) = (rig.confirmed(), rig.server.keepalive(false));
    pass(10).await;
    assert!(rig.database.is_holding());
    assert_eq!(rig.confirmed(), before);
    rig.database.release();
    pass(2).await;
    assert_eq!((rig.applied(), rig.confirmed()), (idle, idle));
}

#[tokio::test(start_paused = true)]
async fn rule_19_a_slot_ahead_of_the_position_is_a_named_error() {
    let (rig, running) = Rig::live().await;
    crash(running).await;
    rig.server.commit(&[insert(3)]);
    rig.server.make_slot();
    let error = failure(rig.start()).await;
    assert!(
        matches!(error, ApplyError::Source(CaptureError::SlotAhead { .. })),
        "{error}"
    );
    let _new = rig.start_with(true);
    settle().await;
    rig.assert_mirrored();
}

#[tokio::test(start_paused = true)]
async fn rule_19_a_slot_without_a_position_is_a_named_error() {
    let rig = Rig::new();
    rig.server.make_slot();
    let error = failure(rig.start()).await;
    let is_named = matches!(
        error,
        ApplyError::Source(CaptureError::SlotWithoutPosition { .. })
    );
    assert!(is_named, "{error}");
}

#[tokio::test(start_paused = true)]
async fn rule_1_another_server_a_lost_slot_and_a_restored_server_are_named_errors() {
    type Damage = fn(&FakeServer);
    let damages: [(Damage, &str); 4] = [
        (|server| server.become_server("8", 1), "another server"),
        (FakeServer::lose_slot, "removed WAL"),
        (FakeServer::drop_slot, "is gone"),
        (|server| server.set_flush_lsn(Lsn(0x10)), "restored"),
    ];
    for (damage, named) in damages {
        let (rig, running) = Rig::live().await;
        crash(running).await;
        damage(&rig.server);
        let error = failure(rig.start()).await;
        assert_eq!(error.class(), Class::Fatal);
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_8_a_snapshot_that_was_interrupted_starts_over_as_a_new_generation() {
    let rig = Rig::new();
    for id in 0..9 {
        rig.server.commit(&[insert(id)]);
    }
    rig.database
        .script(&[Script::Pass, Script::Pass, Script::Hold]);
    let running = rig.start();
    settle().await;
    let interrupted = rig.database.checkpoint().expect("a checkpoint");
    assert_eq!(interrupted.state, PipelineState::Snapshot);
    crash(running).await;
    rig.database.script(&[]);
    rig.database.release();
    let _running = rig.start();
    settle().await;
    let checkpoint = rig.database.checkpoint().expect("a checkpoint");
    assert!(checkpoint.generation > interrupted.generation);
    assert!(rig.status.borrow().is_live);
    rig.assert_mirrored();
}

#[tokio::test(start_paused = true)]
async fn rule_17_a_giant_that_was_cut_short_goes_on_where_it_was() {
    let (mut rig, running) = Rig::live().await;
    crash(running).await;
    rig.whole.rows = 2;
    rig.database.script(&[Script::Pass, Script::Hold]);
    let running = rig.start();
    settle().await;
    let giant: Vec<_> = (3..13).map(insert).collect();
    rig.server.commit(&giant);
    settle().await;
    let cut = rig.database.checkpoint().expect("a checkpoint");
    assert!(cut.position.is_some_and(|position| !position.is_end()));
    crash(running).await;
    rig.database.script(&[]);
    rig.database.release();
    let _running = rig.start();
    rig.server.commit(&[FakeChange::Delete("a", 3)]);
    settle().await;
    rig.assert_mirrored();
}

#[tokio::test(start_paused = true)]
async fn stopping_confirms_what_is_applied_and_frees_the_slot() {
    let (rig, running) = Rig::live().await;
    rig.server.commit(&[insert(3)]);
    settle().await;
    rig.stop.cancel();
    running.await.expect("it ends").expect("in order");
    assert_eq!(rig.confirmed(), rig.server.end_lsn());
    rig.assert_mirrored();
}

#[tokio::test(start_paused = true)]
async fn a_transaction_is_passed_over_as_ordered_and_its_rows_are_kept_as_text() {
    let (rig, running) = Rig::live().await;
    let lsn = rig.server.commit(&[FakeChange::insert("a", 5, "poison")]);
    let error = running.await.expect("it ends").expect_err("it fails");
    assert_eq!(error.class(), Class::Poison);
    let generation = rig.status.borrow().generation;
    let commit = CommitId { generation, lsn };
    rig.database.order(skipping(commit));
    let _running = rig.start();
    rig.server.commit(&[insert(6)]);
    settle().await;
    let skipped = rig.database.skipped();
    assert_eq!(skipped.len(), 1);
    let change: serde_json::Value =
        serde_json::from_str(&skipped[0].changes[0].change).expect("JSON");
    assert_eq!(change["op"], "insert");
    assert_eq!(change["after"]["v"], "poison");
    let documents = rig.database.documents();
    assert!(documents["a"].contains_key("6") && !documents["a"].contains_key("5"));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_applied_while_it_is_paused_and_the_slot_stays() {
    let (rig, _running) = Rig::live().await;
    let before = rig.database.documents();
    rig.database.order(paused());
    tokio::time::sleep(Duration::from_secs(2)).await;
    settle().await;
    let lsn = rig.server.commit(&[insert(6)]);
    tokio::time::sleep(Duration::from_mins(1)).await;
    settle().await;
    assert_eq!(rig.database.documents(), before);
    assert!(rig.server.confirmed() <= Some(lsn));
    rig.database.order(Orders::default());
    tokio::time::sleep(Duration::from_secs(2)).await;
    settle().await;
    rig.assert_mirrored();
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_takes_long_to_be_made_is_made_once_whatever_is_ordered_meanwhile() {
    let rig = Rig::new();
    rig.server.slot_takes(Duration::from_secs(30));
    let _running = rig.start();
    for reason in ["first", "second", "third"] {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let pause = Order {
            reason: Some(reason.into()),
            ..order()
        };
        rig.database.order(Orders {
            pause: Some(pause),
            ..Orders::default()
        });
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    rig.database.order(Orders::default());
    tokio::time::sleep(Duration::from_mins(1)).await;
    settle().await;
    assert!(rig.status.borrow().is_live);
    assert_eq!(rig.server.slot_tries(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_that_is_paused_before_it_begins_begins_when_it_is_resumed() {
    let rig = Rig::new();
    rig.server.commit(&[insert(1)]);
    rig.database.order(paused());
    let _running = rig.start();
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(rig.database.documents().is_empty());
    rig.database.order(Orders::default());
    tokio::time::sleep(Duration::from_mins(1)).await;
    settle().await;
    assert!(rig.status.borrow().is_live);
    rig.assert_mirrored();
}
