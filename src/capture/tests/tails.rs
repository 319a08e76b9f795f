//! Rules 5 and 10: what the end of a long log is taken to say.

use walferry_core::fakes::{FakeKafka, FakeLog, SERVER_ID, table_spec};
use walferry_schema::{Heartbeat, LogRecord, Lsn, Open, ServerIdentity, Term};

use super::super::tail::Tail;

fn open(kafka: &FakeKafka) -> Term {
    let server = ServerIdentity {
        system_id: SERVER_ID.into(),
        timeline: 1,
    };
    let tables = vec![table_spec("p", "a", 1)];
    let open = Open {
        moved: false,
        generation: 7,
        follows: kafka.newest_term(),
        start_lsn: Lsn(100),
        server,
        tables,
    };
    Term {
        generation: 7,
        number: kafka.append_log(&LogRecord::Open(open)),
    }
}

fn beat(kafka: &FakeKafka, term: Term, lsn: u64) {
    kafka.append_log(&LogRecord::Heartbeat(Heartbeat {
        after: Lsn::ZERO,
        term,
        lsn: Lsn(lsn),
    }));
}

async fn tail(kafka: &FakeKafka) -> Tail {
    Tail::read(&mut FakeLog::new(kafka))
        .await
        .expect("the log is read")
        .0
}

#[tokio::test]
async fn what_a_dead_reader_flushed_before_the_window_was_voided_is_not_counted() {
    let kafka = FakeKafka::new();
    let dead = open(&kafka);
    beat(&kafka, dead, 100);
    let second = open(&kafka);
    beat(&kafka, second, 110);
    // The window of the last thousand records begins here, after the open that voids this one.
    beat(&kafka, dead, 9_000);
    let third = open(&kafka);
    (0..998).for_each(|_| beat(&kafka, third, 120));
    assert_eq!(tail(&kafka).await.covered(), Some(Lsn(120)));
}

#[tokio::test]
async fn a_term_that_began_before_the_window_is_found_further_back() {
    let kafka = FakeKafka::new();
    let first = open(&kafka);
    beat(&kafka, first, 500);
    let second = open(&kafka);
    (0..5_000).for_each(|_| beat(&kafka, second, 120));
    let tail = tail(&kafka).await;
    assert_eq!(tail.covered(), Some(Lsn(500)));
    assert!(tail.identity().is_some());
}

#[tokio::test]
async fn a_log_whose_beginning_is_gone_still_counts_its_records() {
    let kafka = FakeKafka::new();
    let term = open(&kafka);
    beat(&kafka, term, 500);
    kafka.trim(&walferry_core::fakes::Place::Log, 1);
    assert_eq!(tail(&kafka).await.covered(), Some(Lsn(500)));
}
