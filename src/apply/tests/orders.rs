//! What operators ask: pausing, and passing over a transaction.

use std::time::Duration;

use walferry_core::fakes::FakeChange;
use walferry_core::{Class, Classify, Orders};
use walferry_schema::{CommitId, Lsn};

use super::{Rig, failure, insert, order, paused, settle, skipping};

/// Until a sink that waits has looked again.
async fn looked() {
    tokio::time::sleep(Duration::from_secs(2)).await;
    settle().await;
}

impl Rig {
    fn commit_id(&self, lsn: Lsn) -> CommitId {
        let generation = self.status.borrow().generation;
        CommitId { generation, lsn }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_applied_while_the_pipeline_is_paused() {
    let (rig, _sink) = Rig::live().await;
    let before = rig.database.documents();
    rig.database.order(paused());
    looked().await;
    assert_eq!(rig.status.borrow().orders.pause, Some(order()));
    rig.server.commit(&[insert(3)]);
    looked().await;
    assert_eq!(rig.database.documents(), before);
    rig.database.order(Orders::default());
    looked().await;
    rig.assert_mirrored();
}

#[tokio::test(start_paused = true)]
async fn the_status_says_since_when_nothing_came_but_not_while_nothing_is_taken() {
    let (rig, _sink) = Rig::live().await;
    let quiet = || rig.status.borrow().quiet_since.map(|it| it.elapsed());
    tokio::time::advance(Duration::from_mins(1)).await;
    settle().await;
    assert!(quiet() >= Some(Duration::from_mins(1)), "{:?}", quiet());
    rig.server.commit(&[insert(3)]);
    settle().await;
    rig.assert_mirrored();
    assert!(quiet() < Some(Duration::from_secs(2)), "{:?}", quiet());
    rig.database.order(paused());
    looked().await;
    assert_eq!(quiet(), None);
    rig.database.order(Orders::default());
    looked().await;
    assert!(quiet() < Some(Duration::from_secs(5)), "{:?}", quiet());
}

#[tokio::test(start_paused = true)]
async fn a_pause_holds_for_the_next_process() {
    let (rig, sink) = Rig::live().await;
    rig.stop.cancel();
    sink.await.expect("the task ends").expect("it stops");
    rig.database.order(paused());
    let before = rig.database.documents();
    rig.server.commit(&[insert(3)]);
    let rig = Rig {
        stop: tokio_util::sync::CancellationToken::new(),
        ..rig
    };
    let _sink = rig.sink();
    looked().await;
    assert_eq!(rig.database.documents(), before);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_cannot_be_applied_is_passed_over_as_ordered_and_kept() {
    let (rig, sink) = Rig::live().await;
    rig.server.commit(&[insert(3)]);
    let poison = [insert(4), FakeChange::insert("a", 5, "poison")];
    let commit = rig.commit_id(rig.server.commit(&poison));
    rig.server.commit(&[insert(6)]);
    let error = failure(sink).await;
    assert_eq!(error.class(), Class::Poison);
    let way_past = format!("walferry skip --commit {commit}");
    assert!(error.to_string().contains(&way_past), "{error}");

    rig.database.order(skipping(commit));
    let _sink = rig.sink();
    settle().await;
    let skipped = rig.database.skipped();
    assert_eq!(skipped.len(), 1);
    assert_eq!((skipped[0].commit, &skipped[0].order), (commit, &order()));
    let kept: Vec<_> = skipped[0].changes.iter().map(|it| &*it.change).collect();
    assert!(kept[1].contains("poison"), "{kept:?}");
    assert_eq!(kept.len(), 2);
    let documents = rig.database.documents();
    assert_eq!(
        documents["a"].keys().collect::<Vec<_>>(),
        ["1", "2", "3", "6"]
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_passed_over_is_kept_once_though_the_reply_is_lost() {
    let (rig, sink) = Rig::live().await;
    let commit = rig.commit_id(rig.server.commit(&[FakeChange::insert("a", 5, "poison")]));
    failure(sink).await;
    rig.database.order(skipping(commit));
    rig.database
        .script(&[walferry_core::fakes::Script::FailAfterWrite]);
    assert_eq!(failure(rig.sink()).await.class(), Class::Transient);
    let _sink = rig.sink();
    rig.server.commit(&[insert(6)]);
    settle().await;
    assert_eq!(rig.database.skipped().len(), 1);
    assert!(rig.database.documents()["a"].contains_key("6"));
}

#[tokio::test(start_paused = true)]
async fn an_order_for_another_generation_passes_nothing_over() {
    let (rig, _sink) = Rig::live().await;
    let next = rig.server.commit(&[insert(3)]);
    let ours = rig.commit_id(next);
    rig.database.order(skipping(CommitId {
        generation: ours.generation + 1,
        ..ours
    }));
    looked().await;
    rig.assert_mirrored();
    assert!(rig.database.skipped().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_is_taken_back_while_the_sink_is_away_is_not_shown_for_ever() {
    let (rig, sink) = Rig::live().await;
    rig.database.order(paused());
    looked().await;
    rig.stop.cancel();
    sink.await.expect("the task ends").expect("it stops");
    rig.database.order(Orders::default());
    let rig = Rig {
        stop: tokio_util::sync::CancellationToken::new(),
        ..rig
    };
    let _sink = rig.sink();
    settle().await;
    assert_eq!(rig.status.borrow().orders.pause, None);
}
