//! SIGTERM, Ctrl-C and, for the daemon, SIGHUP.
//!
//! - The first signal asks every task to stop; the second ends the process at once.
//! - SIGHUP reads the configuration again, unless it says that the daemon's terminal was closed: that stops it.

use std::io::{self, IsTerminal};

use tokio::signal::unix::{Signal, SignalKind, signal};
use walferry_core::Tasks;

use super::Exit;
use crate::config::Config;
use crate::reload::Reload;

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

/// Reads the configuration again at each SIGHUP, until the tasks stop.
pub(super) fn reload_at_hang_up(reload: Reload, tasks: &Tasks) -> io::Result<()> {
    let hang_up = signal(SignalKind::hangup())?;
    let (stop, process) = (tasks.stop_signal().clone(), tasks.clone());
    tasks.spawn(async move {
        stop.run_until_cancelled(reload_at_each(hang_up, reload, &process))
            .await;
    });
    Ok(())
}

async fn reload_at_each(mut hang_up: Signal, mut reload: Reload, tasks: &Tasks) {
    let had_terminal = io::stderr().is_terminal();
    while hang_up.recv().await.is_some() {
        if had_terminal && !io::stderr().is_terminal() {
            tasks.stop();
            return;
        }
        let file = reload.file().to_owned();
        let read = tokio::task::spawn_blocking(move || Config::load(&file)).await;
        // It ends early only when the whole process does.
        let Ok(read) = read else { return };
        reload.take(read);
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
