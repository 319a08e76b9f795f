//! The in-memory Kafka that a log and its readers share.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use walferry_schema::LogRecord;

use super::changes::{Changed, Changes};
use super::locked;
use crate::{LogEntry, Pace, PartitionOffset, RowRecord};

/// A Kafka: the commit log, row partitions, and what producers have not delivered yet.
#[derive(Clone, Debug, Default)]
pub struct FakeKafka {
    state: Arc<Mutex<State>>,
    changes: Changes,
}

/// Where a record goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The commit log.
    Log,
    /// A row partition.
    Rows(PartitionOffset),
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) log: Records<Vec<u8>>,
    pub(super) rows: BTreeMap<PartitionOffset, Records<RowRecord>>,
    /// Queued, or delivered without an acknowledgement, in the order they were sent.
    pub(super) held: VecDeque<Held>,
    pub(super) appended: BTreeMap<u64, i64>,
    pub(super) producer: u64,
    pub(super) failed: BTreeSet<u64>,
    pub(super) next_token: u64,
    pub(super) is_holding: bool,
    pub(super) room: Option<usize>,
    pub(super) largest_bytes: Option<usize>,
    pub(super) topics: BTreeMap<Arc<str>, i32>,
    pub(super) published: Vec<(i64, BTreeMap<PartitionOffset, i64>)>,
    pub(super) pace: Pace,
}

/// The records of one partition.
#[derive(Debug)]
pub(super) struct Records<T> {
    pub(super) first: i64,
    pub(super) entries: VecDeque<T>,
    /// Readers see nothing from this offset on.
    pub(super) hidden_from: i64,
}

/// A record that its producer waits for.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) producer: u64,
    /// None for one that is awaited by itself.
    pub(super) entry: Option<u64>,
    pub(super) token: u64,
    pub(super) place: Place,
    pub(super) body: Body,
    /// Where it was delivered; none while it is queued.
    pub(super) offset: Option<i64>,
}

#[derive(Clone, Debug)]
pub(super) enum Body {
    Log(Vec<u8>),
    Row(Box<RowRecord>),
}

// === impl FakeKafka: what a test sets up ===

impl FakeKafka {
    /// An empty Kafka that acknowledges at once.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on nothing is delivered before a test says so.
    pub fn hold(&self) {
        self.lock().is_holding = true;
    }

    /// Delivers and acknowledges everything the newest producer holds, and what it sends from now on.
    pub fn flow(&self) {
        let mut state = self.lock();
        state.is_holding = false;
        let producer = state.producer;
        let mut kept = VecDeque::new();
        for mut held in std::mem::take(&mut state.held) {
            if held.producer == producer {
                state.settle(&mut held);
            } else {
                kept.push_back(held);
            }
        }
        state.held = kept;
        drop(state);
        self.changed();
    }

    /// Delivers and acknowledges the newest producer's next `count` records to a place.
    pub fn release(&self, place: &Place, count: usize) {
        self.deliver(place, count);
        self.acknowledge(place, count);
    }

    /// Delivers the newest producer's next `count` records to a place, without telling it.
    pub fn deliver(&self, place: &Place, count: usize) {
        let mut state = self.lock();
        let producer = state.producer;
        for _ in 0..count {
            state.deliver_next(place, |held| held.producer == producer);
        }
        drop(state);
        self.changed();
    }

    /// Acknowledges up to `count` of the newest producer's delivered records at a place.
    pub fn acknowledge(&self, place: &Place, count: usize) {
        let mut state = self.lock();
        for _ in 0..count {
            let producer = state.producer;
            let is_next = |held: &Held| {
                held.producer == producer && held.place == *place && held.offset.is_some()
            };
            let Some(index) = state.held.iter().position(is_next) else {
                break;
            };
            if let Some(mut held) = state.held.remove(index) {
                state.settle(&mut held);
            }
        }
        drop(state);
        self.changed();
    }

    /// Where the records go that the newest producer waits for, in the order they were sent.
    pub fn held(&self) -> Vec<Place> {
        let state = self.lock();
        let is_its = |held: &&Held| held.producer == state.producer;
        state
            .held
            .iter()
            .filter(is_its)
            .map(|held| held.place.clone())
            .collect()
    }

    /// Where the undelivered records of dead producers would go.
    pub fn zombies(&self) -> Vec<Place> {
        let state = self.lock();
        let is_dead = |held: &&Held| held.producer < state.producer && held.offset.is_none();
        state
            .held
            .iter()
            .filter(is_dead)
            .map(|held| held.place.clone())
            .collect()
    }

    /// Delivers a dead producer's next record to a place; whether it is one that its sender waited
    /// for by itself (`open` and its like).
    pub fn flush_zombie(&self, place: &Place) -> bool {
        let mut state = self.lock();
        let producer = state.producer;
        let was_awaited = state.deliver_next(place, |held| held.producer < producer);
        drop(state);
        self.changed();
        was_awaited
    }

    /// Forgets what dead producers have not delivered.
    pub fn drop_zombies(&self) {
        let mut state = self.lock();
        let producer = state.producer;
        state.held.retain(|held| held.producer == producer);
    }

    /// The newest producer fails: it delivers nothing more and says so.
    pub fn fail_delivery(&self) {
        let mut state = self.lock();
        let producer = state.producer;
        state.failed.insert(producer);
        drop(state);
        self.changed();
    }

    /// What the newest producer was last told about its pace.
    pub fn pace(&self) -> Pace {
        self.lock().pace
    }

    /// How many records a producer may wait for; any number when none.
    pub fn set_room(&self, room: Option<usize>) {
        self.lock().room = room;
        self.changed();
    }

    /// The largest that a row's record may be.
    pub fn set_largest_bytes(&self, bytes: usize) {
        self.lock().largest_bytes = Some(bytes);
    }

    /// Loses the last `count` records of a place, acknowledged as they were.
    pub fn lose_tail(&self, place: &Place, count: usize) {
        let mut state = self.lock();
        match place {
            Place::Log => state.log.lose_tail(count),
            Place::Rows(name) => state.rows(name).lose_tail(count),
        }
    }

    /// Deletes everything before `first`, as retention does.
    pub fn trim(&self, place: &Place, first: i64) {
        let mut state = self.lock();
        match place {
            Place::Log => state.log.trim(first),
            Place::Rows(name) => state.rows(name).trim(first),
        }
    }

    /// Hides a place's records from readers, from an offset on; [`Self::show`] ends it.
    pub fn hide(&self, place: &Place, from: i64) {
        let mut state = self.lock();
        match place {
            Place::Log => state.log.hidden_from = from,
            Place::Rows(name) => state.rows(name).hidden_from = from,
        }
    }

    /// Shows all records of a place.
    pub fn show(&self, place: &Place) {
        self.hide(place, i64::MAX);
        self.changed();
    }

    /// Appends to the commit log: the record's offset.
    pub fn append_log(&self, record: &LogRecord) -> i64 {
        let offset = self.lock().log.push(record.to_bytes());
        self.changed();
        offset
    }

    /// The offset of the newest `open` or `generation`: what the next one follows; -1 for none.
    pub fn newest_term(&self) -> i64 {
        let begins = |entry: &LogEntry| {
            matches!(entry.record, LogRecord::Open(_) | LogRecord::Generation(_))
        };
        let newest = self.log_records().into_iter().rfind(begins);
        newest.map_or(-1, |entry| entry.offset)
    }

    /// Appends a row to a partition.
    pub fn append_row(&self, name: &PartitionOffset, row: RowRecord) {
        self.lock()
            .push(&Place::Rows(name.clone()), &Body::Row(Box::new(row)));
        self.changed();
    }
}

// === impl FakeKafka: what a test asserts ===

impl FakeKafka {
    /// The commit log.
    pub fn log_records(&self) -> Vec<LogEntry> {
        self.lock().log_entries(0, usize::MAX)
    }

    /// The records of a partition.
    pub fn rows(&self, name: &PartitionOffset) -> Vec<RowRecord> {
        self.lock().rows(name).entries.iter().cloned().collect()
    }

    /// All rows of all partitions.
    pub fn all_rows(&self) -> Vec<RowRecord> {
        let state = self.lock();
        state
            .rows
            .values()
            .flat_map(|partition| partition.entries.iter().cloned())
            .collect()
    }

    /// The row partitions that exist.
    pub fn partitions(&self) -> Vec<PartitionOffset> {
        self.lock().rows.keys().cloned().collect()
    }

    /// What sinks published for lag tools, oldest first.
    pub fn published(&self) -> Vec<(i64, BTreeMap<PartitionOffset, i64>)> {
        self.lock().published.clone()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    pub(super) fn changes(&self) -> Changed {
        self.changes.subscribe()
    }

    pub(super) fn changed(&self) {
        self.changes.tell();
    }
}

// === impl State ===

impl State {
    pub(super) fn rows(&mut self, name: &PartitionOffset) -> &mut Records<RowRecord> {
        self.rows.entry(name.clone()).or_default()
    }

    pub(super) fn push(&mut self, place: &Place, body: &Body) -> i64 {
        match (place, body) {
            (Place::Log, Body::Log(bytes)) => self.log.push(bytes.clone()),
            (Place::Rows(name), Body::Row(row)) => {
                let records = self.rows(name);
                let offset = records.end();
                records.push(RowRecord {
                    offset,
                    ..(**row).clone()
                })
            }
            _ => -1,
        }
    }

    fn deliver_next(&mut self, place: &Place, is_its: impl Fn(&Held) -> bool) -> bool {
        let is_next = |held: &Held| is_its(held) && held.place == *place && held.offset.is_none();
        let Some(index) = self.held.iter().position(is_next) else {
            return false;
        };
        let body = self.held[index].body.clone();
        let offset = self.push(place, &body);
        self.held[index].offset = Some(offset);
        self.held[index].entry.is_none()
    }

    /// Delivers a record where that is due, and tells who waits for it.
    fn settle(&mut self, held: &mut Held) {
        let offset = match held.offset {
            Some(offset) => offset,
            None => self.push(&held.place, &held.body),
        };
        self.appended.insert(held.token, offset);
    }

    pub(super) fn log_entries(&self, from: i64, limit: usize) -> Vec<LogEntry> {
        let log = &self.log;
        let first = from.max(log.first);
        let entries = (first..log.end()).take(limit);
        entries
            .filter_map(|offset| LogEntry::from_bytes(offset, log.get(offset)?).ok())
            .collect()
    }
}

// === impl Records ===

impl<T> Default for Records<T> {
    fn default() -> Self {
        Self {
            first: 0,
            entries: VecDeque::new(),
            hidden_from: i64::MAX,
        }
    }
}

impl<T> Records<T> {
    pub(super) fn end(&self) -> i64 {
        self.first + i64::try_from(self.entries.len()).unwrap_or(i64::MAX)
    }

    pub(super) fn get(&self, offset: i64) -> Option<&T> {
        self.entries.get(usize::try_from(offset - self.first).ok()?)
    }

    /// The record at an offset, if readers may see it.
    pub(super) fn visible(&self, offset: i64) -> Option<&T> {
        self.get(offset).filter(|_| offset < self.hidden_from)
    }

    fn push(&mut self, record: T) -> i64 {
        self.entries.push_back(record);
        self.end() - 1
    }

    fn lose_tail(&mut self, count: usize) {
        self.entries
            .truncate(self.entries.len().saturating_sub(count));
    }

    fn trim(&mut self, first: i64) {
        while self.first < first && self.entries.pop_front().is_some() {
            self.first += 1;
        }
    }
}
