//! Rules 13 to 16: groups, their checkpoint, and what a doubtful reply leads to.

use walferry_core::fakes::{FakeChange, Script};
use walferry_core::{Class, Classify, PipelineState};
use walferry_schema::Phase;

use super::{Rig, failure, insert, settle};

impl Rig {
    /// Inserts rows while the first group is held back: how many events each group has.
    async fn sizes_behind_one_that_waits(&self, ids: std::ops::Range<i32>) -> Vec<usize> {
        let before = self.database.groups().len();
        self.database.script(&[Script::Hold]);
        for id in ids {
            self.server.commit(&[insert(id)]);
            settle().await;
        }
        self.database.release();
        settle().await;
        let groups = self.database.groups().split_off(before);
        groups.iter().map(|group| group.events).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn rule_13_every_group_is_whole_transactions_with_their_checkpoint() {
    let (rig, _sink) = Rig::live().await;
    let before = rig.database.groups().len();
    rig.database.script(&[Script::Hold]);
    let mut commits = Vec::new();
    for id in 3..13 {
        commits.push(
            rig.server
                .commit(&[insert(id), FakeChange::insert("b", id, "y")]),
        );
        settle().await;
    }
    rig.database.release();
    settle().await;
    let groups = rig.database.groups().split_off(before);
    // The first alone; all that was complete when it returned are the next.
    assert_eq!(
        groups.iter().map(|group| group.events).collect::<Vec<_>>(),
        [2, 18]
    );
    for (group, commit) in groups.iter().zip([commits[0], commits[9]]) {
        let position = group.checkpoint.position.expect("a position");
        assert_eq!(position.phase, Phase::Stream(commit));
        assert_eq!(group.documents, rig.server.documents_at(commit));
    }
    rig.assert_mirrored();
}

#[tokio::test(start_paused = true)]
async fn a_group_ends_at_its_limits_and_no_more_is_read_than_one_group_behind() {
    let rig = Rig::new();
    rig.limits.send_modify(|it| it.operations = 4);
    rig.read();
    let _sink = rig.sink();
    settle().await;
    let sizes = rig.sizes_behind_one_that_waits(0..20).await;
    assert_eq!(sizes[..2], [1, 4]);
    assert!(sizes.iter().all(|size| *size <= 4), "{sizes:?}");
    rig.assert_mirrored();
}

#[tokio::test(start_paused = true)]
async fn limits_that_are_changed_hold_for_the_next_group() {
    let (rig, _sink) = Rig::live().await;
    rig.limits.send_modify(|it| it.operations = 3);
    // The group that was begun before.
    rig.server.commit(&[insert(100)]);
    settle().await;
    let sizes = rig.sizes_behind_one_that_waits(101..120).await;
    assert_eq!(sizes[..2], [1, 3]);
    assert!(sizes.iter().all(|size| *size <= 3), "{sizes:?}");
    rig.assert_mirrored();
}

#[tokio::test(start_paused = true)]
async fn rule_13_heartbeats_advance_the_checkpoint() {
    let (rig, _sink) = Rig::live().await;
    let idle = rig.server.keepalive(false);
    for _ in 0..10 {
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        settle().await;
    }
    let checkpoint = rig.database.checkpoint().expect("a checkpoint");
    assert_eq!(checkpoint.end_lsn, idle);
    assert_eq!(
        usize::try_from(checkpoint.log_offset).ok(),
        Some(rig.kafka.log_records().len())
    );
}

#[tokio::test(start_paused = true)]
async fn rule_15_a_lost_reply_is_claimed_again_and_nothing_is_applied_twice() {
    for script in [Script::FailAfterWrite, Script::Reject(Class::Transient)] {
        let (rig, sink) = Rig::live().await;
        rig.database.script(&[script]);
        rig.server.commit(&[insert(3), FakeChange::Delete("a", 1)]);
        let error = failure(sink).await;
        assert_eq!(error.class(), Class::Transient);
        rig.server.commit(&[FakeChange::Rekey("a", 3, 4, None)]);
        let _sink = rig.sink();
        settle().await;
        rig.assert_mirrored();
    }
}

#[tokio::test(start_paused = true)]
async fn rule_14_being_fenced_ends_the_sink_and_changes_nothing() {
    let (rig, sink) = Rig::live().await;
    let before = rig.database.documents();
    rig.database.script(&[Script::Fence]);
    rig.server.commit(&[insert(3)]);
    assert_eq!(failure(sink).await.class(), Class::Fenced);
    assert_eq!(rig.database.documents(), before);
}

#[tokio::test(start_paused = true)]
async fn rule_14_the_newcomer_wins_and_the_group_in_flight_of_the_old_one_is_refused() {
    let (rig, old) = Rig::live().await;
    rig.database.script(&[Script::Hold]);
    rig.server.commit(&[insert(3)]);
    settle().await;
    assert!(rig.database.is_holding());
    let _new = rig.sink();
    settle().await;
    rig.database.release();
    assert_eq!(failure(old).await.class(), Class::Fenced);
    rig.assert_mirrored();
}

#[tokio::test(start_paused = true)]
async fn rule_12_the_checkpoint_carries_the_newest_open() {
    let (rig, _sink) = Rig::live().await;
    rig.server.break_links();
    settle().await;
    rig.read();
    settle().await;
    rig.server.commit(&[insert(3)]);
    settle().await;
    let newest = rig
        .kafka
        .log_records()
        .iter()
        .rev()
        .find_map(|entry| match entry.record {
            walferry_schema::LogRecord::Open(_) => Some(entry.offset),
            _ => None,
        });
    let checkpoint = rig.database.checkpoint().expect("a checkpoint");
    assert_eq!(Some(checkpoint.term.number), newest);
    assert_eq!(checkpoint.state, PipelineState::Live);
}

#[tokio::test(start_paused = true)]
async fn stopping_applies_what_is_in_flight_and_what_was_gathered_and_reads_nothing_more() {
    let (rig, sink) = Rig::live().await;
    rig.database.script(&[Script::Hold]);
    rig.server.commit(&[insert(3)]);
    settle().await;
    let last = rig.server.commit(&[insert(4)]);
    settle().await;
    rig.stop.cancel();
    settle().await;
    rig.server.commit(&[insert(5)]);
    settle().await;
    assert!(!sink.is_finished());
    rig.database.release();
    sink.await
        .expect("the task ends")
        .expect("it ends in order");
    assert_eq!(rig.database.documents(), rig.server.documents_at(last));
}

#[tokio::test(start_paused = true)]
async fn offsets_are_published_once_they_are_applied() {
    let (rig, _sink) = Rig::live().await;
    rig.database.script(&[Script::Hold]);
    rig.server.commit(&[insert(3)]);
    settle().await;
    let published = rig.kafka.published().len();
    rig.database.release();
    settle().await;
    assert_eq!(rig.kafka.published().len(), published + 1);
    let (log, rows) = rig.kafka.published().pop().expect("offsets");
    let checkpoint = rig.database.checkpoint().expect("a checkpoint");
    assert_eq!((log, rows), (checkpoint.log_offset, checkpoint.partitions));
}

#[tokio::test(start_paused = true)]
async fn a_poisoned_row_ends_the_sink_before_its_transaction_is_applied() {
    let (rig, sink) = Rig::live().await;
    let before = rig.database.documents();
    rig.server
        .commit(&[insert(3), FakeChange::insert("a", 4, "poison")]);
    assert_eq!(failure(sink).await.class(), Class::Poison);
    assert_eq!(rig.database.documents(), before);
}
