//! SIGTERM and Ctrl-C.
//!
//! - The first signal asks every task to stop; the second ends the process at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use walferry_core::Tasks;

use super::Exit;

/// Watches for signals until it is stopped.
pub(super) struct Signals {
    watcher: Tasks,
}

// === impl Signals ===

impl Signals {
    /// Starts to watch; a signal stops `tasks`.
    pub(super) fn watch(tasks: &Tasks) -> io::Result<Self> {
        let interrupt = signal(SignalKind::interrupt())?;
        let terminate = signal(SignalKind::terminate())?;
        // Apart from `tasks`: these are waited for while signals must still be heard.
        let watcher = Tasks::default();
        let (tasks, stop) = (tasks.clone(), watcher.stop_signal().clone());
        watcher.spawn(async move {
            stop.run_until_cancelled(listen(interrupt, terminate, &tasks))
                .await;
        });
        Ok(Self { watcher })
    }

    pub(super) fn stop(self) {
        self.watcher.stop();
    }
}

async fn listen(mut interrupt: Signal, mut terminate: Signal, tasks: &Tasks) {
    let name = next(&mut interrupt, &mut terminate).await;
    tracing::info!(signal = name, "stopping; a second signal leaves at once");
    tasks.stop();
    next(&mut interrupt, &mut terminate).await;
    std::process::exit(Exit::Interrupted as i32);
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal) -> &'static str {
    tokio::select! {
        biased;
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    }
}
