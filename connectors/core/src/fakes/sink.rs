//! A connection to the fake database.

use walferry_schema::TableSpec;

use super::batch::collection;
use super::database::State;
use super::{FakeBatch, FakeDatabase, FakeError, Group, Script};
use crate::{Applied, Checkpoint, Class, Fault, OrderReader, Orders, PipelineState, Sink};

/// One process's writer.
#[derive(Debug)]
pub struct FakeSink {
    database: FakeDatabase,
    /// None before the first claim.
    epoch: Option<u64>,
}

/// Reads the orders that a test gave.
#[derive(Debug)]
pub struct FakeOrders {
    database: FakeDatabase,
}

impl OrderReader for FakeOrders {
    async fn read(&mut self) -> Result<Orders, Fault> {
        Ok(self.database.lock().orders.clone())
    }
}

// === impl FakeSink ===

impl FakeSink {
    /// A new process's writer.
    pub fn new(database: &FakeDatabase) -> Self {
        Self {
            database: database.clone(),
            epoch: None,
        }
    }

    fn check_epoch(&self, state: &State) -> Result<(), Fault> {
        if self.epoch == Some(state.epoch) {
            Ok(())
        } else {
            Err(FakeError::fault(
                Class::Fenced,
                "another writer has taken over",
            ))
        }
    }

    async fn held(&self) {
        let mut changes = self.database.changes();
        self.database.lock().holding += 1;
        while !self.database.lock().is_released {
            changes.wait().await;
        }
        self.database.lock().holding -= 1;
    }
}

impl Sink for FakeSink {
    type Batch = FakeBatch;
    type Orders = FakeOrders;

    async fn claim(&mut self) -> Result<Option<Checkpoint>, Fault> {
        let mut state = self.database.lock();
        state.epoch += 1;
        self.epoch = Some(state.epoch);
        Ok(state.checkpoint.clone())
    }

    fn batch(&self) -> FakeBatch {
        FakeBatch::default()
    }

    async fn apply(&mut self, batch: FakeBatch, checkpoint: &Checkpoint) -> Result<Applied, Fault> {
        let script = self
            .database
            .lock()
            .script
            .pop_front()
            .unwrap_or(Script::Pass);
        match script {
            Script::Reject(class) => return Err(FakeError::fault(class, "rejected")),
            Script::Hold => self.held().await,
            Script::Fence => self.database.lock().epoch += 1,
            Script::Pass | Script::FailAfterWrite => {}
        }
        let mut state = self.database.lock();
        self.check_epoch(&state)?;
        let events = batch.events.len();
        let mut collections = state.collections.clone();
        let skipped = batch.skipped.clone();
        let repaired = batch.apply(&mut collections)?;
        state.skipped.extend(skipped);
        state.collections = collections;
        state.checkpoint = Some(checkpoint.clone());
        let (checkpoint, documents) = (checkpoint.clone(), state.documents());
        state.groups.push(Group {
            checkpoint,
            documents,
            events,
            repaired,
        });
        if events == 0 {
            state.step()?;
        }
        match script {
            Script::FailAfterWrite => Err(FakeError::transient("the reply was lost")),
            _ => Ok(Applied {
                repaired,
                ..Applied::default()
            }),
        }
    }

    fn order_reader(&self) -> FakeOrders {
        FakeOrders {
            database: self.database.clone(),
        }
    }

    async fn stage(&mut self, generation: u64, tables: &[TableSpec]) -> Result<(), Fault> {
        let mut state = self.database.lock();
        self.check_epoch(&state)?;
        state.stages += 1;
        state.expect(PipelineState::Snapshot)?;
        for table in tables {
            let staging = collection(&table.name, Some(generation));
            let prefix = format!("{}.", table.name.table);
            let is_old = |name: &String| name.starts_with(&prefix) && *name != staging;
            let old: Vec<String> = state
                .collections
                .keys()
                .filter(|name| is_old(name))
                .cloned()
                .collect();
            for name in old {
                state.collections.remove(&name);
                state.step()?;
            }
            if let std::collections::btree_map::Entry::Vacant(e) = state.collections.entry(staging)
            {
                e.insert(std::collections::BTreeMap::new());
                state.step()?;
            }
        }
        Ok(())
    }

    async fn check(&mut self, checkpoint: &Checkpoint) -> Result<(), Fault> {
        let state = self.database.lock();
        self.check_epoch(&state)?;
        if checkpoint.state != PipelineState::Snapshot {
            return Ok(());
        }
        for table in &checkpoint.tables {
            let staging = collection(&table.name, Some(checkpoint.generation));
            if !state.collections.contains_key(&staging) {
                return Err(FakeError::fatal(format!("{staging} is gone")));
            }
        }
        Ok(())
    }

    async fn swap(&mut self, generation: u64, tables: &[TableSpec]) -> Result<(), Fault> {
        let mut state = self.database.lock();
        self.check_epoch(&state)?;
        state.expect(PipelineState::Swapping)?;
        for table in tables {
            let staging = collection(&table.name, Some(generation));
            if let Some(rows) = state.collections.remove(&staging) {
                state
                    .collections
                    .insert(collection(&table.name, None), rows);
                state.step()?;
            }
        }
        Ok(())
    }
}

// === impl State ===

impl State {
    fn expect(&self, expected: PipelineState) -> Result<(), Fault> {
        let found = self.checkpoint.as_ref().map(|checkpoint| checkpoint.state);
        if found == Some(expected) {
            Ok(())
        } else {
            Err(FakeError::fatal(format!(
                "the pipeline is {found:?}, not {expected:?}"
            )))
        }
    }

    /// A step was done; perhaps the last one.
    fn step(&mut self) -> Result<(), Fault> {
        match self.steps_left.as_mut() {
            None => Ok(()),
            Some(0) => {
                self.steps_left = None;
                Err(FakeError::transient("crashed after a step"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}
