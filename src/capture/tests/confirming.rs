//! Rule 7: what is confirmed, and when.

use std::collections::VecDeque;

use walferry_core::fakes::{FakeChange, FakeServer, Place};

use super::{Rig, insert, options, pass, rested, rows_of, settle};
use crate::capture::CaptureOptions;

#[tokio::test(start_paused = true)]
async fn rule_7_confirmed_is_never_beyond_acknowledged_in_any_order() {
    for seed in 0..60_usize {
        let rig = Rig::streaming().await;
        let _term = rig.start();
        settle().await;
        let start = rig.confirmed();
        rig.kafka.hold();
        let mut ends = Vec::new();
        let mut waiting: VecDeque<(usize, Place)> = VecDeque::new();
        for id in 0..3 {
            let changes = [insert(id), FakeChange::insert("b", id, "x")];
            ends.push(FakeServer::end_of(rig.server.commit(&changes)));
            pass(1).await;
            let held = rig.kafka.held();
            let new = held[waiting.len()..].iter().cloned();
            waiting.extend(new.map(|place| (ends.len() - 1, place)));
        }
        assert_eq!(waiting.len(), 9);
        let mut choice = seed;
        while !waiting.is_empty() {
            choice = choice
                .wrapping_mul(6_364_136_223)
                .wrapping_add(1_442_695_040_888);
            let place = waiting[(choice >> 16) % waiting.len()].1.clone();
            rig.kafka.deliver(&place, 1);
            pass(1).await;
            let acknowledged = |waiting: &VecDeque<(usize, Place)>| {
                let oldest = waiting
                    .iter()
                    .map(|(index, _)| *index)
                    .min()
                    .unwrap_or(ends.len());
                oldest.checked_sub(1).map_or(start, |index| ends[index])
            };
            assert_eq!(
                rig.confirmed(),
                acknowledged(&waiting),
                "seed {seed}: only delivered"
            );
            rig.kafka.acknowledge(&place, 1);
            let index = waiting
                .iter()
                .position(|(_, it)| *it == place)
                .expect("it waits");
            waiting.remove(index);
            pass(1).await;
            assert_eq!(rig.confirmed(), acknowledged(&waiting), "seed {seed}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rule_7_a_keepalive_inside_a_transaction_confirms_nothing() {
    let rig = Rig::streaming().await;
    let start = rig.confirmed();
    let _term = rig.start();
    settle().await;
    pass(10).await;
    // The transaction has no end yet as far as the reader can see: its rows find no room.
    rig.kafka.hold();
    rig.kafka.set_room(Some(1));
    rig.server
        .commit(&[insert(1), FakeChange::Keepalive(true), insert(2)]);
    settle().await;
    rig.kafka.release(&rows_of("a", 0), 1);
    rig.kafka.release(&rows_of("a", 1), 1);
    pass(10).await;
    assert_eq!(rig.confirmed(), start);
    assert!(rig.heartbeats().is_empty());
    assert!(rig.commits().is_empty());
}

#[tokio::test(start_paused = true)]
async fn rule_7_an_idle_keepalive_is_a_heartbeat_before_it_is_confirmed() {
    let rig = Rig::streaming().await;
    let start = rig.confirmed();
    let _term = rig.start();
    settle().await;
    rig.kafka.hold();
    let idle = rig.server.keepalive(false);
    pass(3).await;
    assert!(
        rig.kafka.held().is_empty(),
        "a heartbeat waits for its time"
    );
    pass(20).await;
    assert_eq!(rig.kafka.held(), [Place::Log]);
    assert_eq!(rig.confirmed(), start);
    rig.kafka.deliver(&Place::Log, 1);
    pass(10).await;
    assert_eq!(rig.confirmed(), start);
    rig.kafka.acknowledge(&Place::Log, 1);
    pass(1).await;
    assert_eq!(rig.confirmed(), idle);
    assert_eq!(rig.heartbeats(), [idle]);
}

#[tokio::test(start_paused = true)]
async fn rule_7_heartbeats_are_at_most_one_every_few_seconds() {
    let rig = Rig::streaming().await;
    let _term = rig.start();
    for _ in 0..60 {
        rig.server.keepalive(false);
        pass(1).await;
    }
    let beats = rig.heartbeats().len();
    assert!((9..=12).contains(&beats), "{beats}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_on_its_own_is_heard_of_while_nothing_happens_unless_kafka_stands_still() {
    let rig = Rig::streaming().await;
    let alone = CaptureOptions {
        is_alone: true,
        ..options()
    };
    let mut capture = rig.capture_as(alone, false);
    let _term = rig.tasks.spawn(async move { capture.run_term().await });
    settle().await;
    let (start, before) = (rig.confirmed(), rig.heartbeats().len());
    pass(60).await;
    let beats = rig.heartbeats().len() - before;
    assert!((9..=12).contains(&beats), "{beats}");
    assert_eq!(rig.confirmed(), start);
    rig.kafka.hold();
    pass(60).await;
    assert_eq!(rig.kafka.held(), [Place::Log]);
}

#[tokio::test(start_paused = true)]
async fn rule_7_a_filtered_transaction_is_confirmed_through_a_heartbeat() {
    let rig = Rig::streaming().await;
    let start = rig.confirmed();
    let _term = rig.start();
    settle().await;
    rig.kafka.hold();
    let commit = rig.server.commit(&[FakeChange::insert("ignored", 1, "x")]);
    pass(20).await;
    assert_eq!(rig.kafka.held(), [Place::Log]);
    assert_eq!(rig.confirmed(), start);
    rig.kafka.flow();
    pass(1).await;
    assert_eq!(rig.heartbeats(), [FakeServer::end_of(commit)]);
    assert_eq!(rig.confirmed(), FakeServer::end_of(commit));
    assert!(rig.commits().is_empty());
}

#[tokio::test(start_paused = true)]
async fn rule_7_a_keepalive_that_wants_an_answer_gets_the_old_lsn_while_records_are_in_flight() {
    let rig = Rig::streaming().await;
    let start = rig.confirmed();
    let _term = rig.start();
    settle().await;
    rig.kafka.hold();
    rig.server.commit(&[insert(1)]);
    settle().await;
    let before = rig.server.confirmations().len();
    rig.server.keepalive(true);
    rested().await;
    assert_eq!(rig.server.confirmations()[before..], [start]);
    pass(20).await;
    assert_eq!(rig.confirmed(), start);
}

#[tokio::test(start_paused = true)]
async fn rule_7_the_old_lsn_is_repeated_while_there_is_no_room_and_nothing_is_read() {
    let rig = Rig::streaming().await;
    let start = rig.confirmed();
    let _term = rig.start();
    settle().await;
    rig.kafka.hold();
    rig.kafka.set_room(Some(1));
    for id in 1..10 {
        rig.server.commit(&[insert(id)]);
    }
    settle().await;
    let before = rig.server.confirmations().len();
    pass(10).await;
    let repeated = rig.server.confirmations()[before..].to_vec();
    assert!(repeated.len() >= 9, "{repeated:?}");
    assert!(repeated.iter().all(|lsn| *lsn == start), "{repeated:?}");
    assert_eq!(rig.kafka.held().len(), 1);
    rig.kafka.set_room(None);
    rig.kafka.flow();
    pass(2).await;
    assert_eq!(rig.commits().len(), 9);
    assert_eq!(rig.confirmed(), rig.server.end_lsn());
}

#[tokio::test(start_paused = true)]
async fn stopping_waits_for_the_acknowledgements_and_confirms_them() {
    let rig = Rig::streaming().await;
    let start = rig.confirmed();
    let term = rig.start();
    settle().await;
    rig.kafka.hold();
    rig.server.commit(&[insert(1)]);
    settle().await;
    rig.stop.cancel();
    pass(5).await;
    assert!(!term.is_finished());
    assert_eq!(rig.confirmed(), start);
    rig.kafka.flow();
    term.await
        .expect("the task ends")
        .expect("it ends in order");
    assert_eq!(rig.confirmed(), rig.server.end_lsn());
}

#[tokio::test(start_paused = true)]
async fn stopping_gives_up_on_a_kafka_that_does_not_answer_and_confirms_nothing() {
    for room in [None, Some(1)] {
        let rig = Rig::streaming().await;
        let start = rig.confirmed();
        let term = rig.start();
        settle().await;
        rig.kafka.hold();
        rig.kafka.set_room(room);
        rig.server.commit(&[insert(1), insert(2)]);
        settle().await;
        rig.stop.cancel();
        pass(21).await;
        assert!(term.is_finished(), "room {room:?}");
        assert_eq!(rig.confirmed(), start);
    }
}
