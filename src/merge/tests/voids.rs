//! Rule 10: what dead readers leave takes no effect, and is not mistaken.

use walferry_core::fakes::Place;

use super::{GENERATION, MergeError, Merged, Rig, barrier, name, next, nothing, transaction};

#[tokio::test(start_paused = true)]
async fn rule_10_a_commit_of_an_older_term_after_an_open_is_void_though_its_rows_are_there() {
    let (rig, first) = Rig::streaming();
    rig.row(0, first, 200, 1);
    let second = rig.open(100);
    rig.commit(first, 200, [1, 0, 0]);
    rig.row(0, second, 200, 1);
    rig.commit(second, 200, [1, 0, 0]);
    let mut merge = rig.live().await;
    let taken = super::rows(&mut merge).await;
    assert_eq!(taken.records.len(), 1);
    assert_eq!(taken.records[0].1.stamp.term, second);
    nothing(&mut merge).await;
}

#[tokio::test(start_paused = true)]
async fn rule_10_a_commit_is_void_when_a_partition_shows_a_later_term_first() {
    let (rig, first) = Rig::streaming();
    rig.row(0, first, 200, 1);
    rig.commit(first, 200, [1, 1, 0]);
    let second = rig.open(100);
    rig.row(1, second, 200, 3);
    // What the dead reader flushes now is one row of the wrong term in each partition.
    rig.row(1, first, 200, 3);
    rig.row(0, second, 200, 1);
    rig.commit(second, 200, [1, 1, 0]);
    let mut merge = rig.live().await;
    let taken = super::rows(&mut merge).await;
    assert!(
        taken
            .records
            .iter()
            .all(|(_, record)| record.stamp.term == second)
    );
    assert_eq!(taken.records.len(), 2);
    nothing(&mut merge).await;
}

#[tokio::test(start_paused = true)]
async fn rule_10_a_commit_is_void_when_the_next_open_comes_and_its_partition_has_ended() {
    let (rig, first) = Rig::streaming();
    rig.row(0, first, 200, 1);
    rig.commit(first, 200, [2, 0, 0]);
    let second = rig.open(100);
    rig.beat(second, 150);
    let mut merge = rig.live().await;
    assert!(matches!(
        next(&mut merge).await,
        Ok(Some(Merged::Heartbeat))
    ));
    rig.row(0, second, 200, 1);
    rig.row(0, second, 200, 3);
    rig.commit(second, 200, [2, 0, 0]);
    assert_eq!(transaction(&mut merge).await, (200, vec![1, 3]));
}

#[tokio::test(start_paused = true)]
async fn rule_10_later_commits_of_a_void_term_are_void_though_their_rows_are_complete() {
    let (rig, first) = Rig::streaming();
    rig.commit(first, 200, [1, 0, 0]);
    rig.row(1, first, 300, 1);
    rig.commit(first, 300, [0, 1, 0]);
    rig.beat(first, 400);
    let second = rig.open(100);
    for lsn in [200, 300] {
        let partition = i32::from(lsn == 300);
        rig.row(partition, second, lsn, 1);
        rig.commit(
            second,
            lsn,
            [u64::from(lsn == 200), u64::from(lsn == 300), 0],
        );
    }
    let mut merge = rig.live().await;
    assert_eq!(transaction(&mut merge).await, (200, vec![1]));
    assert_eq!(transaction(&mut merge).await, (300, vec![1]));
    nothing(&mut merge).await;
}

#[tokio::test(start_paused = true)]
async fn rule_10_a_void_term_stays_void_after_a_restart() {
    let (rig, first) = Rig::streaming();
    rig.row(0, first, 150, 1);
    rig.commit(first, 150, [1, 0, 0]);
    rig.commit(first, 200, [1, 0, 0]);
    let complete = [(1, 300, [0, 1, 0]), (2, 400, [0, 0, 1])];
    let mut last = 0;
    for (partition, lsn, counts) in complete {
        rig.row(partition, first, lsn, 1);
        last = rig.commit(first, lsn, counts);
    }
    let second = rig.open(100);
    let mut merge = rig.live().await;
    assert_eq!(transaction(&mut merge).await, (150, vec![1]));
    // As far as the merge comes while the group before is being written: past the first of them.
    rig.kafka.hide(&Place::Log, last);
    nothing(&mut merge).await;
    let checkpoint = merge.checkpoint().clone();
    rig.kafka.show(&Place::Log);

    let mut merge = rig.merge(Some(checkpoint)).await.expect("it goes on");
    nothing(&mut merge).await;
    for (partition, lsn, counts) in [(0, 150, [1, 0, 0]), (0, 200, [1, 0, 0])]
        .iter()
        .chain(&complete)
    {
        rig.row(*partition, second, *lsn, 1);
        rig.commit(second, *lsn, *counts);
    }
    for lsn in [200, 300, 400] {
        assert_eq!(transaction(&mut merge).await, (lsn, vec![1]));
    }
    assert_eq!(merge.checkpoint().partitions[&name(1)], 2);
}

#[tokio::test(start_paused = true)]
async fn rule_10_rows_that_a_void_commit_had_taken_come_again_with_the_next_term() {
    let (rig, first) = Rig::streaming();
    rig.row(0, first, 200, 1);
    rig.row(0, first, 200, 3);
    rig.commit(first, 200, [2, 1, 0]);
    let second = rig.open(100);
    rig.row(0, second, 200, 1);
    rig.row(0, second, 200, 3);
    rig.row(1, second, 200, 5);
    rig.commit(second, 200, [2, 1, 0]);
    let mut merge = rig.live().await;
    assert_eq!(transaction(&mut merge).await, (200, vec![1, 3, 5]));
}

#[tokio::test(start_paused = true)]
async fn rule_10_a_new_generation_ends_the_terms_of_the_old_one() {
    let (rig, first) = Rig::streaming();
    rig.commit(first, 200, [1, 0, 0]);
    let mut merge = rig.live().await;
    rig.snapshot(GENERATION + 1);
    barrier(&mut merge).await;
    barrier(&mut merge).await;
    assert_eq!(merge.checkpoint().generation, GENERATION + 1);
    rig.row(0, first, 200, 1);
    rig.commit(first, 250, [1, 0, 0]);
    rig.open_after(first.number, GENERATION, 100);
    let third = rig.open_after(merge.checkpoint().term.number, GENERATION + 1, 100);
    rig.row(0, third, 90, 1);
    rig.commit(third, 90, [1, 0, 0]);
    // An LSN below the old generation's is new all the same.
    assert_eq!(transaction(&mut merge).await, (90, vec![1]));
    nothing(&mut merge).await;
}

#[tokio::test(start_paused = true)]
async fn rule_10_an_open_of_a_dead_reader_that_comes_late_voids_nothing() {
    let (rig, first) = Rig::streaming();
    let second = rig.open_after(first.number, GENERATION, 100);
    rig.open_after(first.number, GENERATION, 100);
    rig.row(0, second, 200, 1);
    rig.commit(second, 200, [1, 0, 0]);
    let mut merge = rig.live().await;
    assert_eq!(transaction(&mut merge).await, (200, vec![1]));
    assert_eq!(merge.checkpoint().term, second);
}

#[tokio::test(start_paused = true)]
async fn rule_12_an_open_that_follows_a_term_the_log_lost_is_a_named_error() {
    let (rig, first) = Rig::streaming();
    rig.open_after(first.number + 5, GENERATION, 100);
    let mut merge = rig.live().await;
    let found = next(&mut merge).await.expect_err("the log lost records");
    assert!(matches!(found, MergeError::UnknownTerm { .. }), "{found}");
}
