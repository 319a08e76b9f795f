//! Rules 4 and 6: what is sent, and what a failure to send ends.

use walferry_core::fakes::FakeChange;
use walferry_core::{Class, Classify};
use walferry_schema::Phase;

use super::super::CaptureError;
use super::{Rig, insert, pass, settle};

#[tokio::test(start_paused = true)]
async fn rule_6_a_failed_delivery_ends_the_term_unconfirmed_and_the_next_one_sends_again() {
    let rig = Rig::streaming().await;
    let start = rig.confirmed();
    let term = rig.start();
    settle().await;
    rig.kafka.hold();
    rig.server.commit(&[insert(1)]);
    settle().await;
    rig.kafka.fail_delivery();
    let error = term
        .await
        .expect("the task ends")
        .expect_err("the term fails");
    assert_eq!(error.class(), Class::Transient);
    assert_eq!(rig.confirmed(), start);

    rig.kafka.drop_zombies();
    let _term = rig.start();
    settle().await;
    rig.kafka.flow();
    pass(1).await;
    assert_eq!(rig.commits().len(), 1);
    assert_eq!(rig.confirmed(), rig.server.end_lsn());
}

#[tokio::test(start_paused = true)]
async fn rule_6_a_failed_delivery_while_stopping_confirms_nothing() {
    let rig = Rig::streaming().await;
    let start = rig.confirmed();
    let term = rig.start();
    settle().await;
    rig.kafka.hold();
    rig.server.commit(&[insert(1)]);
    settle().await;
    rig.stop.cancel();
    settle().await;
    rig.kafka.fail_delivery();
    term.await
        .expect("the task ends")
        .expect_err("the term fails");
    assert_eq!(rig.confirmed(), start);
}

#[tokio::test(start_paused = true)]
async fn rule_4_rows_and_commits_are_known_by_the_commit_lsn() {
    let rig = Rig::streaming().await;
    let _term = rig.start();
    let first = rig.server.commit(&[insert(1)]);
    let second = rig.server.commit(&[insert(2)]);
    settle().await;
    let commits: Vec<_> = rig
        .commits()
        .iter()
        .map(|commit| commit.commit_lsn)
        .collect();
    assert_eq!(commits, [first, second]);
    let mut phases: Vec<Phase> = rig
        .kafka
        .all_rows()
        .iter()
        .map(|row| row.stamp.phase)
        .collect();
    phases.sort();
    assert_eq!(phases, [Phase::Stream(first), Phase::Stream(second)]);
}

#[tokio::test(start_paused = true)]
async fn a_commit_counts_its_records_by_partition_tombstones_too() {
    let rig = Rig::streaming().await;
    let _term = rig.start();
    rig.server
        .commit(&[insert(1), insert(2), FakeChange::Delete("a", 1)]);
    settle().await;
    let counted: u64 = rig.commits()[0].records.iter().map(|it| it.count).sum();
    assert_eq!(counted, 4);
    for count in &rig.commits()[0].records {
        let (topic, partition) = (count.topic.clone(), count.partition);
        let name = walferry_core::PartitionOffset { topic, partition };
        assert_eq!(rig.kafka.rows(&name).len() as u64, count.count);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_18_a_table_that_the_snapshot_did_not_have_is_a_named_error() {
    let rig = Rig::streaming().await;
    rig.server.add_table("late");
    rig.server.commit(&[FakeChange::insert("late", 1, "x")]);
    let error = rig.error().await;
    assert!(
        matches!(error, CaptureError::TableNotInGeneration { .. }),
        "{error}"
    );
    assert!(rig.commits().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_streamed_table_without_a_key_is_refused_before_anything_is_made() {
    let rig = Rig::new();
    rig.server.drop_key("b");
    let error = rig.error().await;
    assert!(matches!(error, CaptureError::NoKey { .. }), "{error}");
    assert!(rig.log().is_empty() && rig.server.confirmed().is_none());
}
