//! Telling those who wait that something has changed.
//!
//! - They wake in the order in which they began to wait, so that under a paused clock a test is the same run
//!   each time; a `watch` channel of tokio wakes them in an order of chance.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Who tells.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    version: AtomicU64,
    notify: Notify,
}

/// Who waits.
#[derive(Debug)]
pub(super) struct Changed {
    shared: Arc<Shared>,
    seen: u64,
}

// === impl Changes ===

impl Changes {
    pub(super) fn tell(&self) {
        self.shared.version.fetch_add(1, Ordering::SeqCst);
        self.shared.notify.notify_waiters();
    }

    /// Waits for what changes from now on.
    pub(super) fn subscribe(&self) -> Changed {
        Changed {
            shared: self.shared.clone(),
            seen: self.shared.version.load(Ordering::SeqCst),
        }
    }
}

// === impl Changed ===

impl Changed {
    /// Waits for a change since the last call.
    ///
    /// # Cancel safety
    /// Cancel safe: a change that was not returned is still to come.
    pub(super) async fn wait(&mut self) {
        loop {
            // Made before the look: what is told after it is not missed.
            let told = self.shared.notify.notified();
            let version = self.shared.version.load(Ordering::SeqCst);
            if version != self.seen {
                self.seen = version;
                return;
            }
            told.await;
        }
    }
}
