//! Rules 1, 3 and 5: generations, terms, and how a term begins.

use walferry_core::fakes::{FakeServer, Place};
use walferry_core::{Class, Classify};
use walferry_schema::{Generation, Heartbeat, LogRecord, Lsn, Term};

use super::super::CaptureError;
use super::{Rig, insert, pass, settle};

#[tokio::test(start_paused = true)]
async fn rule_1_a_generation_is_announced_before_its_slot_is_made() {
    let rig = Rig::new();
    rig.kafka.hold();
    let _term = rig.start();
    settle().await;
    assert_eq!(rig.kafka.held(), [Place::Log]);
    assert_eq!(rig.server.confirmed(), None);
    rig.kafka.flow();
    settle().await;
    assert!(rig.server.confirmed().is_some());
    let log = rig.log();
    assert!(matches!(log[0], LogRecord::Generation(_)), "{log:?}");
    assert!(
        matches!(log[1..], [LogRecord::SnapshotEnd(_), LogRecord::Open(_)]),
        "{log:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn rule_1_a_generation_is_above_the_last_one_and_at_least_the_unix_time() {
    let rig = Rig::streaming().await;
    let LogRecord::Generation(first) = rig.log().remove(0) else {
        panic!("a generation")
    };
    assert!(first.generation > 1_700_000_000_000);

    let generation = 9_999_999_999_999;
    rig.kafka.append_log(&LogRecord::Generation(Generation {
        generation,
        follows: rig.kafka.newest_term(),
        ..first
    }));
    let _term = rig.start();
    settle().await;
    assert_eq!(rig.last_open().generation, generation + 1);
}

#[tokio::test(start_paused = true)]
async fn rule_1_a_slot_that_the_log_does_not_know_is_refused() {
    let rig = Rig::new();
    rig.server.make_slot();
    let error = rig.error().await;
    assert!(
        matches!(error, CaptureError::SlotWithoutLog { .. }),
        "{error}"
    );
    assert_eq!(error.class(), Class::Fatal);
    assert!(rig.log().is_empty());
}

#[tokio::test(start_paused = true)]
async fn rule_1_a_broken_lineage_is_a_named_error_and_a_new_snapshot_mends_it() {
    type Break = fn(&Rig);
    type Is = fn(&CaptureError) -> bool;
    let breaks: [(Break, Is); 7] = [
        (
            |rig| rig.server.drop_slot(),
            |it| matches!(it, CaptureError::SlotMissing { .. }),
        ),
        (
            |rig| rig.server.lose_slot(),
            |it| matches!(it, CaptureError::SlotLost { .. }),
        ),
        (
            |rig| rig.server.become_server("another", 1),
            |it| matches!(it, CaptureError::OtherServer { .. }),
        ),
        (
            |rig| rig.server.become_server(walferry_core::fakes::SERVER_ID, 2),
            |it| matches!(it, CaptureError::OtherServer { .. }),
        ),
        (
            |rig| rig.server.set_flush_lsn(Lsn(0x800)),
            |it| matches!(it, CaptureError::ServerBehind { .. }),
        ),
        (
            |rig| rig.server.replace_table("a"),
            |it| matches!(it, CaptureError::TableGone { .. }),
        ),
        (
            |rig| {
                rig.server.commit(&[insert(1)]);
                rig.server.make_slot();
            },
            |it| matches!(it, CaptureError::LogForgot { .. }),
        ),
    ];
    for (break_it, is_expected) in breaks {
        let rig = Rig::streaming().await;
        let before = rig.last_open().generation;
        break_it(&rig);
        let error = rig.error().await;
        assert!(is_expected(&error), "{error}");
        assert_eq!(error.class(), Class::Fatal);
        assert!(error.to_string().contains("--new-snapshot"), "{error}");
        assert!(rig.kafka.all_rows().is_empty());

        let mut capture = rig.capture_with(true);
        let _term = rig.tasks.spawn(async move { capture.run_term().await });
        settle().await;
        assert!(rig.last_open().generation > before);
        rig.server.commit(&[insert(2)]);
        settle().await;
        assert_eq!(rig.commits().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn rule_3_a_reconnect_is_a_new_term_numbered_by_its_open() {
    let rig = Rig::streaming().await;
    let mut capture = rig.capture();
    let term = rig.tasks.spawn(async move {
        capture.run_term().await.expect_err("the link breaks");
        capture.run_term().await
    });
    rig.server.commit(&[insert(1)]);
    settle().await;
    rig.server.break_links();
    settle().await;
    rig.server.commit(&[insert(2)]);
    settle().await;
    let opens = rig.opens();
    assert_eq!(opens.len(), 3);
    let generation = rig.last_open().generation;
    let term_of = |number| Term { generation, number };
    // The first was not confirmed, so it comes again.
    let terms: Vec<Term> = rig.commits().iter().map(|commit| commit.term).collect();
    assert_eq!(
        terms,
        [term_of(opens[1]), term_of(opens[2]), term_of(opens[2])]
    );
    let mut stamped: Vec<Term> = rig
        .kafka
        .all_rows()
        .iter()
        .map(|row| row.stamp.term)
        .collect();
    stamped.sort();
    assert_eq!(stamped, terms);
    term.abort();
}

#[tokio::test(start_paused = true)]
async fn rule_5_nothing_is_produced_before_open_is_acknowledged() {
    let rig = Rig::streaming().await;
    rig.server.commit(&[insert(1)]);
    rig.kafka.hold();
    let _term = rig.start();
    settle().await;
    assert_eq!(rig.kafka.held(), [Place::Log]);
    rig.kafka.deliver(&Place::Log, 1);
    settle().await;
    assert_eq!(
        rig.kafka.held(),
        [Place::Log],
        "delivered is not acknowledged"
    );
    rig.kafka.acknowledge(&Place::Log, 1);
    settle().await;
    assert_eq!(rig.kafka.held().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn rule_5_a_slot_that_another_process_owns_is_left_alone() {
    let rig = Rig::streaming().await;
    rig.server.take_slot();
    let records = rig.log().len();
    assert_eq!(rig.error().await.class(), Class::Fatal);
    assert_eq!(rig.log().len(), records);
}

#[tokio::test(start_paused = true)]
async fn rule_1_no_generation_is_announced_while_another_process_streams() {
    let rig = Rig::streaming().await;
    rig.server.take_slot();
    let records = rig.log().len();
    let error = rig.capture_with(true).run_term().await;
    let error = error.expect_err("the slot is in use");
    assert!(matches!(error, CaptureError::SlotInUse { .. }), "{error}");
    assert_eq!(rig.log().len(), records);
}

#[tokio::test(start_paused = true)]
async fn rule_3_an_open_that_another_one_came_before_takes_no_effect() {
    let rig = Rig::streaming().await;
    let (theirs, follows) = (rig.last_open(), rig.kafka.newest_term());
    rig.kafka.hold();
    let term = rig.start();
    settle().await;
    // Both saw the same newest term; the other reader's request comes first.
    let theirs = walferry_schema::Open { follows, ..theirs };
    rig.kafka.append_log(&LogRecord::Open(theirs));
    rig.kafka.flow();
    let error = term.await.expect("the task ends").expect_err("it ends");
    assert!(matches!(error, CaptureError::Overtaken { .. }), "{error}");
    assert_eq!(error.class(), Class::Transient);
}

#[tokio::test(start_paused = true)]
async fn two_tables_that_would_share_a_topic_are_refused_by_name() {
    let rig = Rig::new();
    rig.server.add_table("a b");
    rig.server.add_table("a_b");
    let error = rig.error().await;
    assert!(matches!(error, CaptureError::SameTopic { .. }), "{error}");
    assert!(rig.log().is_empty());
}

#[tokio::test(start_paused = true)]
async fn rule_5_the_stream_goes_on_from_the_slot_and_never_from_the_tail() {
    let rig = Rig::streaming().await;
    let term = rig.start();
    let first = rig.server.commit(&[insert(1)]);
    settle().await;
    pass(1).await;
    assert_eq!(rig.confirmed(), FakeServer::end_of(first));
    rig.server.commit(&[insert(2)]);
    settle().await;
    term.abort();
    settle().await;
    // In the log, but never confirmed.
    assert_eq!(rig.commits().len(), 2);
    let _term = rig.start();
    settle().await;
    assert_eq!(rig.last_open().start_lsn, FakeServer::end_of(first));
    assert_eq!(rig.commits().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn rule_5_a_log_that_forgot_its_tail_is_noticed_before_anything_is_produced() {
    let rig = Rig::streaming().await;
    let term = rig.start();
    rig.server.commit(&[insert(1)]);
    settle().await;
    pass(1).await;
    term.abort();
    settle().await;
    rig.kafka.lose_tail(&Place::Log, 1);
    rig.server.commit(&[insert(2)]);
    let error = rig.error().await;
    assert!(matches!(error, CaptureError::LogForgot { .. }), "{error}");
    assert!(rig.commits().is_empty());
}

#[tokio::test(start_paused = true)]
async fn rule_5_a_slot_at_the_end_of_the_last_commit_is_covered_by_it() {
    let rig = Rig::streaming().await;
    let term = rig.start();
    let last = rig.server.commit(&[insert(1)]);
    settle().await;
    pass(1).await;
    term.abort();
    settle().await;
    assert_eq!(rig.confirmed(), FakeServer::end_of(last));
    let _term = rig.start();
    rig.server.commit(&[insert(2)]);
    settle().await;
    assert_eq!(rig.last_open().start_lsn, FakeServer::end_of(last));
    assert_eq!(rig.commits().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn rule_5_a_record_of_an_older_term_after_an_open_does_not_count_as_held() {
    let rig = Rig::streaming().await;
    rig.start().abort();
    let term = rig.start();
    settle().await;
    term.abort();
    settle().await;
    let opens = rig.opens();
    let old = Term {
        generation: rig.last_open().generation,
        number: opens[0],
    };
    rig.server.commit(&[insert(1)]);
    rig.server.make_slot();
    let lsn = Lsn(0xFFFF);
    rig.kafka.append_log(&LogRecord::Heartbeat(Heartbeat {
        term: old,
        lsn,
        after: Lsn::ZERO,
    }));
    let error = rig.error().await;
    assert!(matches!(error, CaptureError::LogForgot { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn rule_5_a_log_that_dropped_everything_before_an_open_begins_no_snapshot_by_itself() {
    let rig = Rig::streaming().await;
    let open = rig.opens()[0];
    rig.kafka.trim(&Place::Log, open);
    let error = rig.error().await;
    assert!(matches!(error, CaptureError::LogForgot { .. }), "{error}");
    assert_eq!(rig.log().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn rule_5_another_readers_generation_is_noticed_once_open_is_in_the_log() {
    let rig = Rig::streaming().await;
    let LogRecord::Generation(first) = rig.log().remove(0) else {
        panic!("a generation")
    };
    rig.server.commit(&[insert(1)]);
    rig.kafka.hold();
    let term = rig.start();
    settle().await;
    let generation = first.generation + 1;
    rig.kafka.append_log(&LogRecord::Generation(Generation {
        generation,
        follows: rig.kafka.newest_term(),
        ..first
    }));
    rig.kafka.flow();
    let error = term
        .await
        .expect("the task ends")
        .expect_err("the term fails");
    assert!(
        matches!(error, CaptureError::OtherGeneration { .. }),
        "{error}"
    );
    assert!(rig.kafka.all_rows().is_empty());
}

#[tokio::test(start_paused = true)]
async fn rule_5_stopping_while_kafka_does_not_answer_ends_at_once() {
    let rig = Rig::streaming().await;
    rig.kafka.hold();
    let term = rig.start();
    settle().await;
    rig.stop.cancel();
    settle().await;
    assert!(term.is_finished());
}
