//! When the reader rests, and whether it hurries.

use walferry_core::Pace;

use super::{Rig, Term, insert, rested, settle};
use crate::capture::BEHIND;

#[tokio::test(start_paused = true)]
async fn a_reader_that_has_caught_up_reads_on_when_the_log_has_answered() {
    let (rig, _term, sent) = one_in_flight_and_one_to_read().await;
    settle().await;
    assert_eq!(rig.kafka.held().len(), sent, "it waits for the answer");
    release_all(&rig);
    settle().await;
    assert_eq!(rig.kafka.held().len(), sent, "the second transaction");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_does_not_answer_holds_the_reader_up_for_a_moment_only() {
    let (rig, _term, sent) = one_in_flight_and_one_to_read().await;
    rested().await;
    assert_eq!(rig.kafka.held().len(), 2 * sent);
}

#[tokio::test(start_paused = true)]
async fn a_backlog_goes_out_in_bulk_and_what_comes_later_promptly() {
    let rig = Rig::streaming().await;
    let _term = rig.start();
    settle().await;
    rig.kafka.hold();
    for id in (0..).take(BEHIND) {
        rig.server.commit(&[insert(id)]);
    }
    settle().await;
    release_all(&rig);
    settle().await;
    assert_eq!(rig.kafka.pace(), Pace::Bulk);
    rig.kafka.flow();
    settle().await;
    assert_eq!(rig.commits().len(), BEHIND);
    rig.server.commit(&[insert(0)]);
    rested().await;
    rested().await;
    assert_eq!(rig.kafka.pace(), Pace::Prompt);
    assert_eq!(rig.commits().len(), BEHIND + 1);
}

/// A log that holds the records of one transaction, so many, and another transaction at the source.
async fn one_in_flight_and_one_to_read() -> (Rig, Term, usize) {
    let rig = Rig::streaming().await;
    let term = rig.start();
    settle().await;
    rig.kafka.hold();
    rig.server.commit(&[insert(1)]);
    settle().await;
    let sent = rig.kafka.held().len();
    rig.server.commit(&[insert(2)]);
    (rig, term, sent)
}

fn release_all(rig: &Rig) {
    for place in rig.kafka.held() {
        rig.kafka.release(&place, 1);
    }
}
