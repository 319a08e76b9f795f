//! Rules 11 and 12: a broken history has a name.

use walferry_core::fakes::{FakeLogReader, Place};
use walferry_core::{Class, Classify};
use walferry_schema::{Heartbeat, LogRecord, Lsn, Phase, Term};

use super::{
    Announced, GENERATION, Merge, MergeError, Rig, WHOLE, barrier, error, name, next, nothing,
    transaction,
};

#[tokio::test(start_paused = true)]
async fn rule_11_a_row_of_another_transaction_is_a_named_error() {
    let (rig, term) = Rig::streaming();
    rig.row(0, term, 300, 1);
    rig.commit(term, 200, [1, 0, 0]);
    let mut merge = rig.live().await;
    let error = error(&mut merge).await;
    assert!(
        matches!(error, MergeError::WrongRow { offset: 0, .. }),
        "{error}"
    );
    assert_eq!(error.class(), Class::Fatal);
}

#[tokio::test(start_paused = true)]
async fn rule_11_ordinals_that_do_not_rise_are_a_named_error() {
    for (first, second) in [(3, 1), (3, 3)] {
        let (rig, term) = Rig::streaming();
        rig.row(0, term, 200, first);
        rig.row(0, term, 200, second);
        rig.commit(term, 200, [2, 0, 0]);
        let mut merge = rig.live().await;
        let error = error(&mut merge).await;
        assert!(
            matches!(error, MergeError::WrongRow { offset: 1, .. }),
            "{error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn rule_11_rows_that_are_read_past_are_checked_too() {
    let (rig, first) = Rig::streaming();
    rig.row(0, first, 200, 1);
    rig.commit(first, 200, [1, 0, 0]);
    let second = rig.open(100);
    rig.row(0, second, 300, 1);
    rig.commit(second, 200, [1, 0, 0]);
    let mut merge = rig.live().await;
    transaction(&mut merge).await;
    let error = error(&mut merge).await;
    assert!(matches!(error, MergeError::WrongRow { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn rule_12_an_open_that_starts_behind_the_log_is_a_named_error() {
    let (rig, first) = Rig::streaming();
    rig.row(0, first, 200, 1);
    rig.commit(first, 200, [1, 0, 0]);
    rig.open(210);
    rig.open(211);
    let mut merge = rig.live().await;
    transaction(&mut merge).await;
    let error = error(&mut merge).await;
    assert!(matches!(error, MergeError::LogForgot { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn rule_12_a_void_commit_does_not_count_in_the_check_of_an_open() {
    let (rig, first) = Rig::streaming();
    // Its row was acknowledged and lost again.
    rig.commit(first, 200, [1, 0, 0]);
    rig.open(210);
    let mut merge = rig.live().await;
    let error = error(&mut merge).await;
    assert!(matches!(error, MergeError::LogForgot { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn rule_12_a_late_commit_or_heartbeat_of_a_dead_reader_does_not_count_in_the_check_of_an_open()
 {
    let (rig, first) = Rig::streaming();
    rig.open(100);
    rig.row(0, first, 200, 1);
    rig.commit(first, 200, [1, 0, 0]);
    rig.beat(first, 300);
    rig.open(210);
    let mut merge = rig.live().await;
    let error = error(&mut merge).await;
    assert!(matches!(error, MergeError::LogForgot { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn rule_12_what_the_log_never_announced_is_a_named_error() {
    let (rig, term) = Rig::streaming();
    rig.commit(
        Term {
            number: term.number + 1,
            ..term
        },
        200,
        [1, 0, 0],
    );
    let mut merge = rig.live().await;
    let found = error(&mut merge).await;
    assert!(matches!(found, MergeError::UnknownTerm { .. }), "{found}");

    let (rig, _) = Rig::streaming();
    rig.open_of(GENERATION + 1, 100);
    let mut merge = rig.live().await;
    let found = error(&mut merge).await;
    assert!(
        matches!(found, MergeError::UnknownGeneration { .. }),
        "{found}"
    );

    let (rig, term) = Rig::streaming();
    rig.beat(
        Term {
            generation: GENERATION + 1,
            ..term
        },
        100,
    );
    let mut merge = rig.live().await;
    let found = error(&mut merge).await;
    assert!(
        matches!(found, MergeError::UnknownGeneration { .. }),
        "{found}"
    );
}

#[tokio::test(start_paused = true)]
async fn rule_12_rows_of_a_table_outside_the_generation_are_a_named_error() {
    let (rig, term) = Rig::streaming();
    let commit = walferry_schema::Commit {
        after: Lsn::ZERO,
        term,
        xid: 1,
        commit_lsn: walferry_schema::Lsn(200),
        end_lsn: walferry_schema::Lsn(210),
        committed_at: 0,
        records: vec![walferry_schema::PartitionCount {
            topic: "p.public.unknown".into(),
            partition: 0,
            count: 1,
        }],
    };
    rig.kafka
        .append_log(&walferry_schema::LogRecord::Commit(commit));
    let mut merge = rig.live().await;
    let error = error(&mut merge).await;
    assert!(matches!(error, MergeError::UnknownTable { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn rule_11_the_same_ordinal_in_two_partitions_is_a_named_error() {
    let (rig, term) = Rig::streaming();
    rig.row(0, term, 200, 1);
    rig.row(1, term, 200, 1);
    rig.commit(term, 200, [1, 1, 0]);
    let mut merge = rig.live().await;
    let error = error(&mut merge).await;
    assert!(matches!(error, MergeError::WrongRow { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn rule_12_a_record_behind_a_hole_in_the_log_is_a_named_error() {
    let (rig, term) = Rig::streaming();
    rig.row(0, term, 200, 1);
    rig.commit(term, 200, [1, 0, 0]);
    // What stood between the two is gone, and this one came late.
    rig.kafka.append_log(&LogRecord::Heartbeat(Heartbeat {
        term,
        lsn: Lsn(400),
        after: Lsn(310),
    }));
    let mut merge = rig.live().await;
    assert_eq!(transaction(&mut merge).await, (200, vec![1]));
    let error = error(&mut merge).await;
    assert!(
        matches!(
            error,
            MergeError::Hole {
                covered: Lsn(210),
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn rule_12_a_snapshot_that_lacks_a_chunk_is_a_named_error() {
    let rig = Rig::new();
    let term = rig.generation(GENERATION);
    for ordinal in 0..2 {
        rig.record(0, term, Phase::Snapshot(ordinal), 0, true);
    }
    rig.chunk(term, 0, [1, 0, 0]);
    rig.chunk(term, 2, [1, 0, 0]);
    let mut merge = rig.merge(None).await.expect("it opens");
    barrier(&mut merge).await;
    assert!(next(&mut merge).await.is_ok());
    let error = error(&mut merge).await;
    assert!(
        matches!(error, MergeError::ChunkMissing { expected: 1, .. }),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn rule_12_a_transaction_incomplete_for_thirty_seconds_is_a_named_error() {
    let (rig, term) = Rig::streaming();
    rig.row(0, term, 200, 1);
    rig.commit(term, 200, [2, 1, 0]);
    let mut merge = rig.live().await;
    let begun = tokio::time::Instant::now();
    let error = error(&mut merge).await;
    assert!(
        matches!(error, MergeError::Incomplete { missing: 2, .. }),
        "{error}"
    );
    assert_eq!(error.class(), Class::Transient);
    assert!((29..33).contains(&begun.elapsed().as_secs()));
}

#[tokio::test(start_paused = true)]
async fn rule_12_rows_that_trickle_in_are_not_missed() {
    let (rig, term) = Rig::streaming();
    rig.commit(term, 200, [20, 0, 0]);
    let mut merge = rig.live().await;
    for ordinal in 0..20 {
        nothing(&mut merge).await;
        nothing(&mut merge).await;
        rig.row(0, term, 200, ordinal);
    }
    assert_eq!(transaction(&mut merge).await.1.len(), 20);
}

#[tokio::test(start_paused = true)]
async fn rule_12_a_partition_that_lost_its_beginning_or_its_end_is_a_named_error() {
    for (place, is_trimmed) in [
        (Place::Log, true),
        (Place::Log, false),
        (Place::Rows(name(0)), true),
        (Place::Rows(name(0)), false),
    ] {
        let (rig, term) = Rig::streaming();
        rig.row(0, term, 200, 1);
        rig.commit(term, 200, [1, 0, 0]);
        let mut merge = rig.live().await;
        transaction(&mut merge).await;
        let checkpoint = merge.checkpoint().clone();
        rig.row(0, term, 300, 1);
        rig.row(0, term, 300, 3);
        rig.commit(term, 300, [2, 0, 0]);
        if is_trimmed {
            rig.kafka.trim(&place, checkpoint.log_offset + 1);
        } else {
            rig.kafka.lose_tail(&place, 3);
        }
        let found = rig
            .merge(Some(checkpoint))
            .await
            .err()
            .expect("it is refused");
        assert!(
            matches!(found, MergeError::OutOfRange { .. }),
            "{place:?}: {found}"
        );
        assert_eq!(found.class(), Class::Fatal);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_12_a_log_that_was_written_anew_with_the_same_offsets_is_noticed() {
    let (rig, term) = Rig::streaming();
    rig.row(0, term, 200, 1);
    rig.commit(term, 200, [1, 0, 0]);
    let mut merge = rig.live().await;
    transaction(&mut merge).await;
    let checkpoint = merge.checkpoint().clone();
    rig.merge(Some(checkpoint.clone()))
        .await
        .expect("the same log is gone on with");
    rig.kafka.lose_tail(&Place::Log, 1);
    rig.commit(term, 201, [1, 0, 0]);
    let found = rig
        .merge(Some(checkpoint))
        .await
        .err()
        .expect("it is refused");
    assert!(matches!(found, MergeError::OtherLog { .. }), "{found}");
}

#[tokio::test(start_paused = true)]
async fn rule_12_a_new_sink_needs_the_beginning_of_a_generation() {
    let (rig, term) = Rig::streaming();
    rig.kafka.trim(&Place::Log, term.number);
    let found = rig.merge(None).await.err().expect("it is refused");
    assert!(matches!(found, MergeError::NoSnapshot { .. }), "{found}");
    let empty = Rig::new();
    let mut merge = empty.merge(None).await.expect("nothing was written yet");
    nothing(&mut merge).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_sink_may_come_while_the_first_generation_is_being_written() {
    let rig = Rig::new();
    let (opened, _) = tokio::join!(rig.merge(None), async { rig.generation(GENERATION) });
    let mut merge = opened.expect("it opens");
    barrier(&mut merge).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_sink_begins_with_the_newest_generation() {
    let (rig, _) = Rig::streaming();
    rig.snapshot(GENERATION + 1);
    let mut merge = rig.merge(None).await.expect("it opens");
    barrier(&mut merge).await;
    assert_eq!(merge.checkpoint().generation, GENERATION + 1);
}

#[tokio::test(start_paused = true)]
async fn a_generation_that_this_process_began_is_the_remedy_of_every_broken_history() {
    for is_range_lost in [false, true] {
        let (rig, term) = Rig::streaming();
        let mut merge = rig.live().await;
        nothing(&mut merge).await;
        let checkpoint = merge.checkpoint().clone();
        rig.commit(
            Term {
                number: term.number + 7,
                ..term
            },
            200,
            [1, 0, 0],
        );
        let new = rig.snapshot(GENERATION + 1);
        if is_range_lost {
            rig.kafka.trim(&Place::Log, new.number);
        }
        let announced = Announced {
            generation: new.generation,
            offset: new.number,
        };
        let reader = FakeLogReader::new(&rig.kafka);
        let mut merge = Merge::open(reader, Some(checkpoint), Some(announced), WHOLE)
            .await
            .expect("opens");
        barrier(&mut merge).await;
        assert_eq!(merge.checkpoint().generation, new.generation);

        // Its own checkpoint is gone on from, announced or not.
        let checkpoint = merge.checkpoint().clone();
        let reader = FakeLogReader::new(&rig.kafka);
        let mut merge = Merge::open(reader, Some(checkpoint), Some(announced), WHOLE)
            .await
            .expect("opens");
        assert!(matches!(
            next(&mut merge).await,
            Ok(Some(super::Merged::Barrier(_)))
        ));
        assert_eq!(merge.checkpoint().generation, new.generation);
    }
}
