//! Rule 18: a generation comes in whole, wherever a crash cuts it.

use std::time::Duration;

use walferry_core::fakes::{FakeChange, Script};
use walferry_core::{Class, PipelineState};
use walferry_schema::{LogRecord, Phase, Position};

use crate::merge::Announced;

use super::{Rig, failure, insert, settle};

#[tokio::test(start_paused = true)]
async fn rule_18_readers_see_nothing_of_a_snapshot_before_it_is_complete() {
    let rig = Rig::new();
    for id in 0..9 {
        rig.server.commit(&[insert(id)]);
    }
    rig.read();
    let sink = rig.sink();
    settle().await;
    rig.assert_mirrored();
    for group in rig.database.groups() {
        let is_live = group.checkpoint.state == PipelineState::Live;
        assert_eq!(
            group.documents.is_empty(),
            !is_live,
            "{:?}",
            group.checkpoint
        );
    }
    let states: Vec<_> = rig
        .database
        .groups()
        .iter()
        .map(|it| it.checkpoint.state)
        .collect();
    let swapping = states
        .iter()
        .filter(|state| **state == PipelineState::Swapping)
        .count();
    assert_eq!(swapping, 1, "{states:?}");
    assert!(
        rig.database
            .collections()
            .iter()
            .all(|name| !name.contains('.'))
    );
    assert!(!sink.is_finished());
}

/// More steps than a generation takes: one that makes or renames again and again is to fail here.
const MOST_STEPS: usize = 50;

#[tokio::test(start_paused = true)]
async fn rule_18_a_crash_after_any_step_of_a_generation_ends_right() {
    for steps in 0.. {
        assert!(steps < MOST_STEPS, "a generation without an end");
        let (rig, sink) = Rig::live().await;
        let before = rig.server.documents();
        rig.server.drop_slot();
        rig.server.break_links();
        settle().await;
        // What was deleted while nobody listened goes with the old generation.
        rig.server.commit(&[FakeChange::Delete("a", 1), insert(7)]);
        let snapshot = rig.server.documents();
        rig.database.crash_after(steps);
        let mut reader = crate::capture::Capture::new(
            walferry_core::fakes::FakeSource::new(&rig.server),
            walferry_core::fakes::FakeLog::new(&rig.kafka),
            super::options(2),
            tokio_util::sync::CancellationToken::new(),
            true,
        );
        rig.tasks.spawn(async move { reader.run_term().await });
        settle().await;
        if !rig.database.has_crashed() {
            assert!(steps >= 7, "{steps}");
            break;
        }
        let crashed = tokio::time::timeout(Duration::from_mins(1), failure(sink));
        crashed.await.expect("the sink ends where it crashed");
        let state = rig.database.checkpoint().expect("a checkpoint").state;
        match state {
            PipelineState::Snapshot => assert_eq!(rig.database.documents(), before),
            PipelineState::Live => assert_eq!(rig.database.documents(), snapshot),
            PipelineState::Swapping => {}
        }
        let stages = rig.database.stages();
        let _sink = rig.sink();
        settle().await;
        rig.assert_mirrored();
        let again = rig.database.stages() - stages;
        assert_eq!(
            again == 0,
            state != PipelineState::Snapshot,
            "step {steps}: {state:?}"
        );
        assert!(
            rig.database
                .collections()
                .iter()
                .all(|name| !name.contains('.'))
        );
        rig.server.commit(&[insert(8)]);
        settle().await;
        rig.assert_mirrored();
    }
}

#[tokio::test(start_paused = true)]
async fn rule_18_a_swap_that_was_cut_short_is_finished_though_the_log_is_gone() {
    let (rig, sink) = Rig::live().await;
    sink.abort();
    settle().await;
    let mut checkpoint = rig.database.checkpoint().expect("a checkpoint");
    checkpoint.state = PipelineState::Swapping;
    checkpoint.log_offset = 1_000;
    rig.database.set_checkpoint(checkpoint);
    failure(rig.sink()).await;
    let state = rig.database.checkpoint().expect("a checkpoint").state;
    assert_eq!(state, PipelineState::Live);
}

#[tokio::test(start_paused = true)]
async fn rule_18_a_snapshot_that_lost_its_staging_collections_is_never_gone_on_with() {
    let (rig, sink) = Rig::live().await;
    sink.abort();
    settle().await;
    let mut checkpoint = rig.database.checkpoint().expect("a checkpoint");
    checkpoint.state = PipelineState::Snapshot;
    checkpoint.position = Some(Position {
        generation: checkpoint.generation,
        phase: Phase::Snapshot(0),
        ordinal: 0,
    });
    let stages = rig.database.stages();
    rig.database.set_checkpoint(checkpoint);
    let fault = failure(rig.sink()).await;
    assert!(fault.to_string().contains("is gone"), "{fault}");
    assert_eq!(rig.database.stages(), stages);
}

#[tokio::test(start_paused = true)]
async fn rule_18_a_swap_that_cannot_be_finished_gives_way_to_a_newer_generation() {
    let (rig, sink) = Rig::live().await;
    sink.abort();
    settle().await;
    let mut checkpoint = rig.database.checkpoint().expect("a checkpoint");
    checkpoint.state = PipelineState::Swapping;
    let mut newer = rig.kafka.log_records().into_iter();
    let newer = newer.find_map(|entry| match entry.record {
        LogRecord::Generation(generation) => Some(generation),
        _ => None,
    });
    let mut newer = newer.expect("a generation");
    newer.generation += 1;
    newer.follows = rig.kafka.newest_term();
    let newer = Announced {
        generation: newer.generation,
        offset: rig.kafka.append_log(&LogRecord::Generation(newer)),
    };
    rig.database.set_checkpoint(checkpoint);
    rig.database.script(&[Script::Reject(Class::Fatal)]);
    failure(rig.sink()).await;
    rig.database.script(&[Script::Reject(Class::Fatal)]);
    let sink = rig.sink_with(Some(newer));
    settle().await;
    assert!(!sink.is_finished());
    let checkpoint = rig.database.checkpoint().expect("a checkpoint");
    assert_eq!(checkpoint.state, PipelineState::Snapshot);
    assert_eq!(checkpoint.generation, newer.generation);
}
