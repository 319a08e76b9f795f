//! The one place that spawns.

use std::future::Future;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Every task of the process, so that stopping can wait for all of them.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

// === impl Tasks ===

impl Tasks {
    /// Runs a future as a task of its own.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(task)
    }

    /// Cancelled when the process should stop.
    pub fn stop_signal(&self) -> &CancellationToken {
        &self.stop
    }

    /// Asks every task to stop.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits for every task to end; new ones may still start until then.
    pub async fn finished(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}
