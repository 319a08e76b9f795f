//! What systemd is told: that the daemon runs, what it is doing, that it stops.
//!
//! - A configuration that was read again is told when that is done: systemd's `reload` ends then.
//! - Ready means that nothing is wrong with what was asked for. Servers may come later: the state says so.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;
use walferry_core::Tasks;

use crate::status::{Board, State};

/// How often the state is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Tells the service manager, if there is one, how the process is until it stops.
pub(crate) fn announce(board: Arc<Board>, tasks: &Tasks) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let stop = tasks.stop_signal().clone();
    tasks.spawn(async move {
        tell(&[NotifyState::Ready]);
        let mut reloaded = board.reloaded();
        let mut told = String::new();
        loop {
            let state = shown(&board);
            if told != state {
                tell(&[NotifyState::Status(&state)]);
                told = state;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return tell_stopping(&board),
                Ok(()) = reloaded.changed() => tell_reloaded(),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    });
}

/// The state, and what a restart would change.
fn shown(board: &Board) -> String {
    let state = board.state();
    let waiting = board
        .reloaded()
        .borrow()
        .clone()
        .unwrap_or_default()
        .waiting;
    if waiting.is_empty() {
        return state.to_string();
    }
    format!("{state}; waits for a restart: {}", waiting.join(", "))
}

/// Who has lost the pipeline ends at once: the next look would come too late.
fn tell_stopping(board: &Board) {
    let state = board.state();
    if state == State::Fenced {
        tell(&[NotifyState::Status(&state.to_string())]);
    }
    tell(&[NotifyState::Stopping]);
}

/// Both at once: the time says that this reload is the one that was asked for.
fn tell_reloaded() {
    let mut reloading = vec![NotifyState::Reloading];
    reloading.extend(NotifyState::monotonic_usec_now().ok());
    tell(&reloading);
    tell(&[NotifyState::Ready]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!(%error, "the service manager cannot be told");
    }
}
