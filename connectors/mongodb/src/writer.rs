//! Who writes a pipeline: a process, over all of its connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use bson::oid::ObjectId;

use crate::position::Stored;
use crate::{Error, Result};

/// A process among those that claim a pipeline; clones are the same process.
///
/// Kept over the process's connections, it tells one's own earlier claims from those of others: a
/// process that was overtaken does not take the pipeline back.
#[derive(Clone, Debug)]
pub struct Writer {
    id: ObjectId,
    /// The epoch of the last claim; 0 before the first.
    epoch: Arc<AtomicI64>,
    /// Whether it has made the indexes of the dead letters.
    has_indexes: Arc<AtomicBool>,
}

// === impl Writer ===

impl Writer {
    /// A process that has claimed nothing yet.
    pub fn new() -> Self {
        Self {
            id: ObjectId::new(),
            epoch: Arc::default(),
            has_indexes: Arc::default(),
        }
    }

    pub(crate) fn id(&self) -> ObjectId {
        self.id
    }

    /// Whether the dead letters have their indexes already.
    pub(crate) fn has_indexes(&self) -> bool {
        self.has_indexes.load(Ordering::Relaxed)
    }

    /// Remembers that they have.
    pub(crate) fn made_indexes(&self) {
        self.has_indexes.store(true, Ordering::Relaxed);
    }

    /// Remembers a claim.
    pub(crate) fn claimed(&self, epoch: i64) {
        self.epoch.store(epoch, Ordering::Release);
    }

    /// Sees whether this process may claim over what stands there.
    pub(crate) fn check(&self, pipeline: &str, stored: Option<&Stored>) -> Result<()> {
        let ours = self.epoch.load(Ordering::Acquire);
        if ours == 0 {
            return Ok(());
        }
        let pipeline = pipeline.to_owned();
        let Some(stored) = stored else {
            return Err(Error::PositionLost { pipeline });
        };
        let found = stored.epoch;
        // An own claim whose answer was lost is newer, too.
        let is_own = stored.writer == Some(self.id);
        if found < ours || (found == ours && !is_own) {
            return Err(Error::PositionWentBack { pipeline });
        }
        if is_own {
            return Ok(());
        }
        Err(Error::Fenced {
            pipeline,
            ours,
            found,
        })
    }
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}
