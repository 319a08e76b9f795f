//! Rules 9 and 11: which rows are taken.

use walferry_core::PipelineState;
use walferry_core::fakes::Place;
use walferry_schema::{Lsn, Phase};

use super::{Barrier, GENERATION, Merged, Rig, barrier, name, next, nothing, rows, transaction};

#[tokio::test(start_paused = true)]
async fn rule_9_rows_are_taken_exactly_as_counted_and_in_source_order() {
    let (rig, term) = Rig::streaming();
    for (partition, ordinals) in [(0, [1, 7]), (1, [3, 9]), (2, [5, 11])] {
        for ordinal in ordinals {
            rig.row(partition, term, 200, ordinal);
        }
    }
    rig.row(0, term, 300, 1);
    rig.commit(term, 200, [2, 2, 2]);
    rig.commit(term, 300, [1, 0, 0]);
    let mut merge = rig.live().await;
    assert_eq!(
        transaction(&mut merge).await,
        (200, vec![1, 3, 5, 7, 9, 11])
    );
    let checkpoint = merge.checkpoint().clone();
    assert_eq!(checkpoint.partitions[&name(0)], 2);
    assert_eq!(checkpoint.end_lsn, Lsn(210));
    assert_eq!(transaction(&mut merge).await, (300, vec![1]));
    nothing(&mut merge).await;
}

#[tokio::test(start_paused = true)]
async fn rule_9_a_commit_that_overtook_its_rows_waits_for_them() {
    let (rig, term) = Rig::streaming();
    rig.commit(term, 200, [1, 1, 0]);
    rig.commit(term, 300, [0, 0, 1]);
    rig.row(2, term, 300, 1);
    rig.row(0, term, 200, 1);
    let mut merge = rig.live().await;
    nothing(&mut merge).await;
    rig.row(1, term, 200, 3);
    assert_eq!(transaction(&mut merge).await, (200, vec![1, 3]));
    assert_eq!(transaction(&mut merge).await, (300, vec![1]));
}

#[tokio::test(start_paused = true)]
async fn rule_9_rows_that_become_visible_late_are_waited_for() {
    let (rig, term) = Rig::streaming();
    rig.kafka.hide(&Place::Rows(name(0)), 1);
    rig.row(0, term, 200, 1);
    rig.row(0, term, 200, 3);
    rig.commit(term, 200, [2, 0, 0]);
    rig.open(START_LATER);
    let mut merge = rig.live().await;
    nothing(&mut merge).await;
    rig.kafka.show(&Place::Rows(name(0)));
    assert_eq!(transaction(&mut merge).await, (200, vec![1, 3]));
}

/// A second term that goes on where the first began.
const START_LATER: u64 = super::START;

#[tokio::test(start_paused = true)]
async fn rule_9_giving_up_waiting_loses_no_row() {
    let (rig, term) = Rig::streaming();
    rig.commit(term, 200, [3, 0, 0]);
    let mut merge = rig.live().await;
    for ordinal in [1, 3, 5] {
        nothing(&mut merge).await;
        rig.row(0, term, 200, ordinal);
    }
    assert_eq!(transaction(&mut merge).await, (200, vec![1, 3, 5]));
}

#[tokio::test(start_paused = true)]
async fn rule_11_a_tombstone_shares_the_ordinal_of_its_delete() {
    let (rig, term) = Rig::streaming();
    let phase = Phase::Stream(Lsn(200));
    rig.record(0, term, phase, 2, true);
    rig.record(0, term, phase, 2, false);
    rig.record(0, term, phase, 3, true);
    rig.commit(term, 200, [3, 0, 0]);
    let mut merge = rig.live().await;
    assert_eq!(transaction(&mut merge).await, (200, vec![2, 2, 3]));
}

#[tokio::test(start_paused = true)]
async fn rule_11_a_commit_at_or_below_the_applied_position_is_read_past_with_its_rows() {
    let (rig, first) = Rig::streaming();
    rig.row(0, first, 200, 1);
    rig.commit(first, 200, [1, 0, 0]);
    // The transaction's end is where the next one commits: that one is new.
    let second = rig.open(100);
    rig.row(0, second, 200, 1);
    rig.row(0, second, 210, 1);
    rig.commit(second, 200, [1, 0, 0]);
    rig.commit(second, 210, [1, 0, 0]);
    let mut merge = rig.live().await;
    assert_eq!(transaction(&mut merge).await, (200, vec![1]));
    assert_eq!(transaction(&mut merge).await, (210, vec![1]));
    assert_eq!(merge.checkpoint().partitions[&name(0)], 3);
    nothing(&mut merge).await;
}

#[tokio::test(start_paused = true)]
async fn rule_12_a_checkpoint_carries_the_newest_open_and_a_restart_goes_on_behind_it() {
    let (rig, first) = Rig::streaming();
    rig.row(0, first, 200, 1);
    rig.commit(first, 200, [1, 0, 0]);
    let second = rig.open(210);
    rig.beat(second, 250);
    let mut merge = rig.live().await;
    transaction(&mut merge).await;
    assert_eq!(merge.checkpoint().term, first);
    assert!(matches!(
        next(&mut merge).await,
        Ok(Some(Merged::Heartbeat))
    ));
    let checkpoint = merge.checkpoint().clone();
    assert_eq!((checkpoint.term, checkpoint.end_lsn), (second, Lsn(250)));

    let mut merge = rig.merge(Some(checkpoint)).await.expect("it goes on");
    // Flushed late by the dead reader: its open, were it remembered, would let this through.
    rig.row(0, first, 300, 1);
    rig.commit(first, 300, [1, 0, 0]);
    rig.row(0, second, 300, 1);
    rig.commit(second, 300, [1, 0, 0]);
    let taken = rows(&mut merge).await;
    assert_eq!(taken.records[0].1.stamp.term, second);
    nothing(&mut merge).await;
}

#[tokio::test(start_paused = true)]
async fn rule_18_chunks_come_between_the_generation_and_the_snapshots_end() {
    let rig = Rig::new();
    let term = rig.generation(GENERATION);
    rig.record(0, term, Phase::Snapshot(0), 0, true);
    rig.record(0, term, Phase::Snapshot(0), 1, true);
    rig.chunk(term, 0, [2, 0, 0]);
    let mut merge = rig.merge(None).await.expect("it opens");
    assert!(matches!(barrier(&mut merge).await, Barrier::Generation(_)));
    assert_eq!(merge.checkpoint().state, PipelineState::Snapshot);
    let chunk = rows(&mut merge).await;
    assert_eq!(
        (chunk.position.phase, chunk.records.len()),
        (Phase::Snapshot(0), 2)
    );
    let tables = Vec::new();
    let end = walferry_schema::SnapshotEnd {
        chunks: None,
        term,
        lsn: Lsn(100),
        tables,
    };
    rig.kafka
        .append_log(&walferry_schema::LogRecord::SnapshotEnd(end));
    assert!(matches!(barrier(&mut merge).await, Barrier::SnapshotEnd(_)));
    assert_eq!(merge.checkpoint().state, PipelineState::Swapping);
}

#[tokio::test(start_paused = true)]
async fn a_barrier_is_shown_until_it_is_passed() {
    let rig = Rig::new();
    rig.generation(GENERATION);
    let mut merge = rig.merge(None).await.expect("it opens");
    for _ in 0..2 {
        assert!(matches!(
            next(&mut merge).await,
            Ok(Some(Merged::Barrier(_)))
        ));
    }
    assert_eq!(merge.checkpoint().generation, 0);
}
