//! Rule 8: a snapshot is complete or starts over.

use walferry_core::fakes::{FakeChange, Place};
use walferry_schema::{LogRecord, Phase};

use super::{Rig, insert, settle};

fn with_rows() -> Rig {
    let rig = Rig::new();
    for id in 0..5 {
        rig.server
            .commit(&[insert(id), FakeChange::insert("b", id, "x")]);
    }
    rig
}

fn kinds(rig: &Rig) -> String {
    let kind = |record: &LogRecord| match record {
        LogRecord::Generation(_) => 'g',
        LogRecord::Open(_) => 'o',
        LogRecord::Commit(_) => 'c',
        LogRecord::Chunk(_) => 'k',
        LogRecord::SnapshotEnd(_) => 'e',
        LogRecord::Heartbeat(_) => 'h',
    };
    rig.log().iter().map(kind).collect()
}

#[tokio::test(start_paused = true)]
async fn rule_8_the_snapshot_stands_in_the_log_chunk_by_chunk_and_the_stream_follows() {
    let rig = with_rows();
    let _term = rig.start();
    settle().await;
    rig.server.commit(&[insert(7)]);
    settle().await;
    assert_eq!(kinds(&rig), "gkkkkkkeoc");
    let log = rig.log();
    let LogRecord::SnapshotEnd(end) = &log[7] else {
        panic!("a snapshot's end")
    };
    assert_eq!(end.lsn, rig.last_open().start_lsn);
    let is_chunk = |phase: Phase| matches!(phase, Phase::Snapshot(_));
    let rows = rig.kafka.all_rows();
    assert_eq!(
        rows.iter().filter(|row| is_chunk(row.stamp.phase)).count(),
        10
    );
}

#[tokio::test(start_paused = true)]
async fn rule_8_snapshot_end_is_written_after_every_acknowledgement() {
    for seed in 0..40_usize {
        let rig = with_rows();
        let _term = rig.start();
        rig.kafka.hold();
        settle().await;
        rig.kafka.release(&Place::Log, 1);
        settle().await;
        // Ten rows and six chunks.
        let mut left = rig.kafka.held();
        assert_eq!(left.len(), 16, "seed {seed}");
        let mut choice = seed;
        while !left.is_empty() {
            assert!(!kinds(&rig).contains('e') && rig.kafka.held().len() == left.len());
            choice = choice
                .wrapping_mul(6_364_136_223)
                .wrapping_add(1_442_695_040_888);
            let place = left.swap_remove((choice >> 16) % left.len());
            rig.kafka.deliver(&place, 1);
            settle().await;
            assert_eq!(rig.kafka.held().len(), left.len() + 1, "seed {seed}");
            rig.kafka.acknowledge(&place, 1);
            settle().await;
            if left.is_empty() {
                break;
            }
        }
        assert_eq!(rig.kafka.held(), [Place::Log]);
        rig.kafka.flow();
        settle().await;
        assert_eq!(kinds(&rig), "gkkkkkkeo");
    }
}

#[tokio::test(start_paused = true)]
async fn rule_8_an_interrupted_snapshot_starts_over_as_a_new_generation() {
    for released in 0..16 {
        let rig = with_rows();
        rig.kafka.hold();
        let term = rig.start();
        settle().await;
        rig.kafka.release(&Place::Log, 1);
        settle().await;
        let first = rig.kafka.held();
        first
            .iter()
            .take(released)
            .for_each(|place| rig.kafka.release(place, 1));
        settle().await;
        term.abort();
        settle().await;
        rig.kafka.flow();
        let _term = rig.start();
        settle().await;
        let generations: Vec<u64> = rig
            .log()
            .iter()
            .filter_map(|record| match record {
                LogRecord::Generation(it) => Some(it.generation),
                _ => None,
            })
            .collect();
        assert_eq!(generations.len(), 2, "{released} released: {}", kinds(&rig));
        assert!(generations[0] < generations[1]);
        assert!(
            kinds(&rig).ends_with("gkkkkkkeo"),
            "{released} released: {}",
            kinds(&rig)
        );
        assert_eq!(rig.last_open().generation, generations[1]);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_8_a_snapshot_whose_delivery_fails_starts_over() {
    let rig = with_rows();
    rig.kafka.hold();
    let term = rig.start();
    settle().await;
    rig.kafka.release(&Place::Log, 1);
    settle().await;
    rig.kafka.fail_delivery();
    term.await
        .expect("the task ends")
        .expect_err("the term fails");
    let _term = rig.start();
    settle().await;
    rig.kafka.drop_zombies();
    rig.kafka.flow();
    settle().await;
    assert_eq!(kinds(&rig), "ggkkkkkkeo");
}

#[tokio::test(start_paused = true)]
async fn rule_8_a_snapshot_that_another_reader_overtook_ends_before_it_opens() {
    let rig = with_rows();
    rig.kafka.hold();
    let first = rig.start();
    settle().await;
    rig.kafka.release(&Place::Log, 1);
    settle().await;
    let LogRecord::Generation(mine) = rig.log().remove(0) else {
        panic!("a generation")
    };
    let generation = mine.generation + 1;
    let theirs = walferry_schema::Generation {
        generation,
        follows: rig.kafka.newest_term(),
        ..mine
    };
    rig.kafka.append_log(&LogRecord::Generation(theirs));
    rig.kafka.flow();
    let error = first
        .await
        .expect("the task ends")
        .expect_err("the term fails");
    assert!(
        matches!(error, super::super::CaptureError::OtherGeneration { .. }),
        "{error}"
    );
    assert!(!kinds(&rig).contains('o'), "{}", kinds(&rig));
}
