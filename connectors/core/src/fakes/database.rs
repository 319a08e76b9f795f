//! The MongoDB that sinks write: documents, the checkpoint, and what is scripted to go wrong.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use super::changes::{Changed, Changes};
use super::{Documents, locked};
use crate::{Checkpoint, Class, Orders, Skipped};

/// A database with one pipeline.
#[derive(Clone, Debug, Default)]
pub struct FakeDatabase {
    state: Arc<Mutex<State>>,
    changes: Changes,
}

/// What becomes of a call of [`crate::Sink::apply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// It works.
    Pass,
    /// Nothing is written, and that is said with this class.
    Reject(Class),
    /// Everything is written, but the reply is lost.
    FailAfterWrite,
    /// It waits for [`FakeDatabase::release`], then works.
    Hold,
    /// Another writer claims the pipeline just before.
    Fence,
}

/// What one call of [`crate::Sink::apply`] left behind.
#[derive(Clone, Debug)]
pub struct Group {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// All collections but the staging ones; empty ones are left out.
    pub documents: Documents,
    /// How many events it wrote.
    pub events: usize,
    /// How many of them did not find what they expected.
    pub repaired: u64,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) collections: Documents,
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) epoch: u64,
    pub(super) script: VecDeque<Script>,
    pub(super) is_released: bool,
    pub(super) holding: usize,
    pub(super) groups: Vec<Group>,
    /// How many more steps work before one ends in a crash, its effect kept.
    pub(super) steps_left: Option<usize>,
    pub(super) stages: usize,
    pub(super) orders: Orders,
    pub(super) skipped: Vec<Skipped>,
}

// === impl FakeDatabase ===

impl FakeDatabase {
    /// An empty database.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the next calls of `apply` come to; later ones work.
    pub fn script(&self, script: &[Script]) {
        let mut state = self.lock();
        state.is_released = false;
        state.script = script.iter().copied().collect();
    }

    /// Lets calls that wait go on.
    pub fn release(&self) {
        self.lock().is_released = true;
        self.changes.tell();
    }

    /// Whether a call waits for [`Self::release`].
    pub fn is_holding(&self) -> bool {
        self.lock().holding > 0
    }

    /// Crashes after so many more steps (a checkpoint alone, a collection made, removed or renamed).
    pub fn crash_after(&self, steps: usize) {
        self.lock().steps_left = Some(steps);
    }

    /// Whether the crash has happened or none was asked for.
    pub fn has_crashed(&self) -> bool {
        self.lock().steps_left.is_none()
    }

    /// Sets what operators ask.
    pub fn order(&self, orders: Orders) {
        self.lock().orders = orders;
    }

    /// What was kept instead of being applied.
    pub fn skipped(&self) -> Vec<Skipped> {
        self.lock().skipped.clone()
    }

    /// Sets what a sink finds.
    pub fn set_checkpoint(&self, checkpoint: Checkpoint) {
        self.lock().checkpoint = Some(checkpoint);
    }

    /// What was stored last.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        self.lock().checkpoint.clone()
    }

    /// All collections but the staging ones; empty ones are left out.
    pub fn documents(&self) -> Documents {
        self.lock().documents()
    }

    /// The names of all collections.
    pub fn collections(&self) -> Vec<String> {
        self.lock().collections.keys().cloned().collect()
    }

    /// What every call of `apply` left behind, oldest first.
    pub fn groups(&self) -> Vec<Group> {
        self.lock().groups.clone()
    }

    /// How often staging collections were asked for.
    pub fn stages(&self) -> usize {
        self.lock().stages
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    pub(super) fn changes(&self) -> Changed {
        self.changes.subscribe()
    }
}

// === impl State ===

impl State {
    pub(super) fn documents(&self) -> Documents {
        let is_shown = |(name, rows): &(&String, &_)| !name.contains('.') && !is_empty(rows);
        let shown = self.collections.iter().filter(is_shown);
        shown
            .map(|(name, rows)| (name.clone(), rows.clone()))
            .collect()
    }
}

fn is_empty<K, V>(rows: &std::collections::BTreeMap<K, V>) -> bool {
    rows.is_empty()
}
