//! Which records of a term still wait for their acknowledgement.
//!
//! - `outstanding` names the oldest entry of which a record is missing.
//! - The first failure ends the term: nothing after it is reported as delivered.
//! - Room is announced once a quarter of a full queue is free, not at every record.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::error::KafkaError;
use tokio::sync::{Notify, oneshot};
use tracing::debug;

use crate::Error;

/// Marks the opaque of an awaited record; the rest of the bits number it.
const AWAITED: usize = 1 << (usize::BITS - 1);

/// The acknowledgements of one producer.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    state: Mutex<State>,
    changed: Notify,
}

/// What a record carries through librdkafka and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opaque(pub(crate) usize);

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Entry>,
    in_flight: usize,
    acknowledged: u64,
    /// Set while the queue is full: announce room when no more than this is in flight.
    resume_at: Option<usize>,
    awaited: HashMap<usize, oneshot::Sender<i64>>,
    next_awaited: usize,
    failure: Option<Failure>,
}

#[derive(Debug)]
struct Entry {
    number: usize,
    records: usize,
}

/// A record that was not delivered.
#[derive(Clone, Debug)]
struct Failure {
    topic: String,
    bytes: usize,
    error: KafkaError,
}

// === impl Deliveries ===

impl Deliveries {
    /// How many records were acknowledged, while others wait for that.
    pub(crate) fn waiting(&self) -> Option<u64> {
        let state = self.state();
        (state.in_flight > 0).then_some(state.acknowledged)
    }

    /// Counts a record of an entry; call it before the record is given to librdkafka.
    pub(crate) fn add(&self, entry: u64) -> Result<Opaque, Error> {
        // An entry beyond 63 bits is out of reach of any counter.
        let number = usize::try_from(entry).unwrap_or(usize::MAX) & !AWAITED;
        let mut state = self.state();
        state.check()?;
        match state.entries.back_mut() {
            Some(last) if last.number == number => last.records += 1,
            _ => state.entries.push_back(Entry { number, records: 1 }),
        }
        state.in_flight += 1;
        Ok(Opaque(number))
    }

    /// Counts a record whose offset is awaited.
    pub(crate) fn add_awaited(&self) -> Result<(Opaque, oneshot::Receiver<i64>), Error> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        state.check()?;
        let opaque = state.next_awaited | AWAITED;
        state.next_awaited += 1;
        state.awaited.insert(opaque, sender);
        state.in_flight += 1;
        Ok((Opaque(opaque), receiver))
    }

    /// Takes back a record that librdkafka had no room for; room will be announced.
    pub(crate) fn refused(&self, opaque: Opaque) {
        let mut state = self.state();
        state.remove(opaque.0);
        let in_flight = state.in_flight;
        state.resume_at = Some(in_flight - in_flight / 4);
        // Nothing in flight, so no delivery will announce it: librdkafka is about to free it.
        if in_flight == 0 {
            self.changed.notify_one();
        }
    }

    /// Takes back a record whose turn comes when another is delivered, which `announce` tells.
    pub(crate) fn put_off(&self, opaque: Opaque) {
        self.state().remove(opaque.0);
    }

    /// Wakes whoever waits for progress.
    pub(crate) fn announce(&self) {
        self.changed.notify_one();
    }

    /// A record is acknowledged.
    pub(crate) fn delivered(&self, opaque: Opaque, offset: i64) {
        let mut state = self.state();
        let oldest = state.oldest();
        state.acknowledged += 1;
        if let Some(awaiting) = state.remove(opaque.0) {
            // Who awaited it may be gone.
            let _ = awaiting.send(offset);
        }
        let has_room = state.resume_at.is_some_and(|at| state.in_flight <= at);
        if has_room {
            state.resume_at = None;
        }
        if has_room || state.oldest() != oldest {
            self.changed.notify_one();
        }
    }

    /// A record was not delivered: the term is over.
    pub(crate) fn failed(&self, topic: &str, bytes: usize, error: &KafkaError) {
        let mut state = self.state();
        state.awaited.clear();
        if state.failure.is_none() {
            debug!(%error, topic, bytes, "a record was not delivered");
            state.failure = Some(Failure {
                topic: topic.to_owned(),
                bytes,
                error: error.clone(),
            });
        }
        self.changed.notify_one();
    }

    /// The oldest entry with a record that is not acknowledged.
    pub(crate) fn outstanding(&self) -> Option<u64> {
        self.state()
            .oldest()
            .and_then(|number| u64::try_from(number).ok())
    }

    /// Whether nothing waits for its acknowledgement, and nothing has failed.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state();
        state.in_flight == 0 && state.failure.is_none()
    }

    /// Whether the term has failed.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.state().check()
    }

    /// Waits until the oldest entry or the room may have changed, or the term failed.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn progress(&self) -> Result<(), Error> {
        self.check()?;
        self.changed.notified().await;
        self.check()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn check(&self) -> Result<(), Error> {
        match &self.failure {
            None => Ok(()),
            Some(Failure {
                topic,
                bytes,
                error,
            }) => Err(Error::delivery(topic, *bytes, error.clone())),
        }
    }

    fn oldest(&self) -> Option<usize> {
        self.entries.front().map(|entry| entry.number)
    }

    /// Takes a record off the count.
    fn remove(&mut self, opaque: usize) -> Option<oneshot::Sender<i64>> {
        self.in_flight = self.in_flight.saturating_sub(1);
        if opaque & AWAITED != 0 {
            return self.awaited.remove(&opaque);
        }
        let place = self
            .entries
            .binary_search_by_key(&opaque, |entry| entry.number)
            .ok()?;
        let entry = self.entries.get_mut(place)?;
        entry.records = entry.records.saturating_sub(1);
        while self.entries.front().is_some_and(|entry| entry.records == 0) {
            self.entries.pop_front();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rdkafka::error::RDKafkaErrorCode as Code;
    use walferry_core::{Class, Classify};

    fn add(deliveries: &Deliveries, entry: u64) -> Opaque {
        deliveries.add(entry).expect("the term has not failed")
    }

    #[test]
    fn outstanding_names_the_oldest_entry_of_which_a_record_is_missing() {
        let deliveries = Deliveries::default();
        let (first, again) = (add(&deliveries, 4), add(&deliveries, 4));
        let second = add(&deliveries, 9);
        deliveries.delivered(second, 0);
        assert_eq!(deliveries.outstanding(), Some(4));
        deliveries.delivered(first, 0);
        assert_eq!(deliveries.outstanding(), Some(4));
        deliveries.delivered(again, 0);
        assert_eq!(deliveries.outstanding(), None);
    }

    #[tokio::test]
    async fn the_first_failure_ends_the_term() {
        let deliveries = Deliveries::default();
        let (opaque, offset) = deliveries.add_awaited().expect("the term has not failed");
        deliveries.failed(
            "t",
            1,
            &KafkaError::MessageProduction(Code::MessageTimedOut),
        );
        deliveries.failed(
            "u",
            1,
            &KafkaError::MessageProduction(Code::MessageSizeTooLarge),
        );
        deliveries.delivered(opaque, 3);
        assert!(offset.await.is_err());
        let error = deliveries.progress().await.expect_err("it has failed");
        assert_eq!(error.class(), Class::Transient);
        assert_eq!(error.to_string(), "delivering a record to topic t");
        assert!(deliveries.add(1).is_err());
    }

    #[test]
    fn a_record_that_the_servers_refuse_for_its_size_is_poison() {
        let deliveries = Deliveries::default();
        deliveries.failed(
            "t",
            77,
            &KafkaError::MessageProduction(Code::MessageSizeTooLarge),
        );
        let error = deliveries.check().expect_err("it has failed");
        assert_eq!(error.class(), Class::Poison);
        assert!(
            error.to_string().contains("record of 77 bytes for topic t"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn room_is_announced_once_a_quarter_of_a_full_queue_is_free() {
        let deliveries = Deliveries::default();
        let sent: Vec<_> = (0..8).map(|_| add(&deliveries, 1)).collect();
        let refused = add(&deliveries, 1);
        deliveries.refused(refused);
        let waits = async |deliveries: &Deliveries| {
            tokio::select! { biased; () = deliveries.changed.notified() => false, () = async {} => true }
        };
        deliveries.delivered(sent[0], 0);
        assert!(waits(&deliveries).await);
        deliveries.delivered(sent[1], 0);
        assert!(!waits(&deliveries).await);
    }

    #[tokio::test]
    async fn room_is_announced_when_nothing_is_in_flight_any_more() {
        let deliveries = Deliveries::default();
        let refused = add(&deliveries, 1);
        deliveries.refused(refused);
        assert_eq!(deliveries.outstanding(), None);
        deliveries
            .progress()
            .await
            .expect("the term has not failed");
    }

    proptest! {
        #[test]
        fn whatever_the_order_of_acknowledgements_the_watermark_is_the_minimum(
            steps in proptest::collection::vec(0..3_u64, 1..60),
            order: Vec<prop::sample::Index>,
        ) {
            let deliveries = Deliveries::default();
            let mut entry = 0;
            let mut open: Vec<(u64, Opaque)> = Vec::new();
            for step in steps {
                entry += step;
                open.push((entry, add(&deliveries, entry)));
            }
            for index in order {
                if open.is_empty() { break; }
                let (_, opaque) = open.swap_remove(index.index(open.len()));
                deliveries.delivered(opaque, 0);
                prop_assert_eq!(deliveries.outstanding(), open.iter().map(|(e, _)| *e).min());
            }
        }
    }
}
