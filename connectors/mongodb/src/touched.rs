//! Which documents were written, for whoever asks about them again.
//!
//! - What may change is told before it is committed, and stays open until that is certain: whoever takes it, reads a moment
//!   and looks again misses nothing that was there before and changed up to that moment.
//! - A new document is told of when it is certain: it had no values before, and to ask about it as of a moment that does not
//!   have it yet is dear. MongoDB goes past each key that came since, for every key that it looks for.
//! - Telling is cheap and bounded: beyond a bound it is only said that a collection changed.
//! - Only collections that somebody watches are noted.

mod changes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::batch::Segment;
pub use changes::{Changes, Documents};

/// What was written and nobody looked at yet; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Touched(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Debug, Default)]
struct State {
    watched: Arc<BTreeSet<String>>,
    /// What is being written.
    open: BTreeMap<u64, Open>,
    closed: Changes,
    serial: u64,
}

#[derive(Debug)]
struct Open {
    changes: Changes,
    /// Whether it ended without its outcome being known.
    is_doubtful: bool,
}

/// Documents that are being written. Dropped without [`Opened::close`], they may be written still, until the next claim.
#[derive(Debug)]
pub struct Opened {
    touched: Touched,
    serial: u64,
}

// === impl Touched ===

impl Touched {
    /// Has these collections be watched. What was written to a new one before counts as changed.
    pub fn watch(&self, collections: BTreeSet<String>) {
        let mut state = self.state();
        let new = collections.difference(&state.watched);
        let new: Changes = new.map(|it| Changes::whole(it)).collect();
        state.closed.add(&new);
        for open in state.open.values_mut() {
            open.changes.add(&new);
        }
        state.watched = Arc::new(collections);
    }

    /// Whether something was written that nobody took yet.
    pub fn has_news(&self) -> bool {
        !self.state().closed.is_empty()
    }

    /// Waits until something was written.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn news(&self) {
        while !self.has_news() {
            self.0.news.notified().await;
        }
    }

    /// What was written since it was taken last, and what is being written of documents that were there, which will be taken
    /// again.
    pub fn take(&self) -> Changes {
        let mut state = self.state();
        let mut taken = std::mem::take(&mut state.closed);
        state.add_open(&mut taken);
        taken
    }

    /// What was written of documents that were there, or is being written. All of it will be taken.
    pub fn peek(&self) -> Changes {
        let state = self.state();
        let mut seen = Changes::default();
        seen.add_old(&state.closed);
        state.add_open(&mut seen);
        seen
    }

    /// Gives back what was taken and could not be looked at.
    pub fn put_back(&self, changes: &Changes) {
        self.state().closed.add(changes);
        self.0.news.notify_one();
    }

    /// Tells that these are being written.
    pub fn open(&self, changes: Changes) -> Opened {
        let watched = self.state().watched.clone();
        self.open_seen(changes, &watched)
    }

    /// The same of what was chosen by what was watched then: of what is watched since, anything may be written.
    fn open_seen(&self, mut changes: Changes, watched: &BTreeSet<String>) -> Opened {
        let mut state = self.state();
        let new = state.watched.difference(watched);
        changes.add(&new.map(|it| Changes::whole(it)).collect());
        state.serial += 1;
        let serial = state.serial;
        let open = Open {
            changes,
            is_doubtful: false,
        };
        state.open.insert(serial, open);
        drop(state);
        Opened {
            touched: self.clone(),
            serial,
        }
    }

    /// Tells that what these segments say is being written.
    pub(crate) fn open_segments(&self, segments: &[Segment]) -> Opened {
        let watched = self.state().watched.clone();
        let mut changes = Changes::default();
        for segment in segments {
            changes.take_in(segment, &watched);
        }
        self.open_seen(changes, &watched)
    }

    /// Tells that these collections are being replaced.
    pub(crate) fn open_collections<'a>(&self, names: impl Iterator<Item = &'a str>) -> Opened {
        let watched = self.state().watched.clone();
        let names = names.filter(|it| watched.contains(*it));
        self.open_seen(names.map(Changes::whole).collect(), &watched)
    }

    /// Tells that nothing of before can be written any more.
    pub(crate) fn settle(&self) {
        let mut state = self.state();
        let (doubtful, open) = std::mem::take(&mut state.open)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(_, it)| it.is_doubtful);
        state.open = open;
        for it in doubtful.into_values() {
            state.closed.add(&it.changes);
        }
        drop(state);
        self.0.news.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds it panics.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn add_open(&self, changes: &mut Changes) {
        for open in self.open.values() {
            changes.add_old(&open.changes);
        }
    }
}

// === impl Opened ===

impl Opened {
    /// Tells that it is certain what was written.
    pub fn close(self) {
        let mut state = self.touched.state();
        // At once: whoever looks in between would see it neither here nor there.
        if let Some(open) = state.open.remove(&self.serial) {
            state.closed.add(&open.changes);
        }
        drop(state);
        self.touched.0.news.notify_one();
    }

    /// Tells that nothing was written.
    pub fn withdraw(self) {
        self.touched.state().open.remove(&self.serial);
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(open) = self.touched.state().open.get_mut(&self.serial) {
            open.is_doubtful = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touched() -> Touched {
        let touched = Touched::default();
        touched.watch(BTreeSet::from(["sales".to_owned()]));
        touched.take();
        touched
    }

    fn change(id: u8) -> Changes {
        let mut changes = Changes::default();
        changes.note("sales", &[id]);
        changes
    }

    fn ids(changes: &Changes) -> Vec<u8> {
        let sales = changes.collections().find(|(name, _)| *name == "sales");
        match sales {
            Some((_, Documents::Some(ids))) => ids.keys().map(|it| it[0]).collect(),
            Some((_, Documents::All)) => vec![u8::MAX],
            None => Vec::new(),
        }
    }

    #[test]
    fn what_is_being_written_is_taken_until_it_is_certain_and_once_more() {
        let touched = touched();
        let opened = touched.open(change(1));
        assert!(!touched.has_news());
        assert_eq!(ids(&touched.take()), [1]);
        assert_eq!(ids(&touched.take()), [1]);
        opened.close();
        assert!(touched.has_news());
        assert_eq!(ids(&touched.peek()), [1]);
        assert_eq!(ids(&touched.take()), [1]);
        assert!(ids(&touched.take()).is_empty());
    }

    #[test]
    fn a_new_document_is_taken_once_it_is_certain() {
        let touched = touched();
        let mut changes = Changes::default();
        changes.note_new("sales", &[2]);
        let opened = touched.open(changes);
        let nothing = touched.take();
        assert!(nothing.is_empty() && nothing.since().is_none());
        changes = change(1);
        changes.note_new("sales", &[3]);
        let other = touched.open(changes);
        assert_eq!(ids(&touched.take()), [1]);
        opened.close();
        other.close();
        assert_eq!(ids(&touched.peek()), [1]);
        assert_eq!(ids(&touched.take()), [1, 2, 3]);
    }

    #[test]
    fn what_may_still_be_written_is_taken_until_the_next_claim() {
        let touched = touched();
        drop(touched.open(change(1)));
        assert_eq!(ids(&touched.take()), [1]);
        assert_eq!(ids(&touched.take()), [1]);
        touched.settle();
        assert_eq!(ids(&touched.take()), [1]);
        assert!(ids(&touched.take()).is_empty());
        touched.open(change(2)).withdraw();
        touched.settle();
        assert!(ids(&touched.take()).is_empty());
    }

    #[test]
    fn what_was_written_before_somebody_watched_counts_as_changed() {
        let touched = Touched::default();
        let opened = touched.open(Changes::default());
        touched.watch(BTreeSet::from(["sales".to_owned()]));
        assert_eq!(ids(&touched.take()), [u8::MAX]);
        opened.close();
        assert_eq!(ids(&touched.take()), [u8::MAX]);
        touched.watch(BTreeSet::from(["sales".to_owned()]));
        assert!(ids(&touched.take()).is_empty());
    }

    #[test]
    fn what_was_chosen_before_somebody_watched_counts_as_changed_too() {
        let touched = touched();
        let opened = touched.open_seen(Changes::default(), &BTreeSet::new());
        opened.close();
        assert_eq!(ids(&touched.take()), [u8::MAX]);
    }
}
