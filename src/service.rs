//! What systemd is told: that the daemon runs, what it is doing, that it stops.
//!
//! - Ready means that nothing is wrong with what was asked for. Servers may come later: the state says so.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;
use walferry_core::Tasks;

use crate::status::Board;

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
        let mut told = None;
        loop {
            let state = board.state();
            if told != Some(state) {
                tell(&[NotifyState::Status(&state.to_string())]);
                told = Some(state);
            }
            if stop
                .run_until_cancelled(tokio::time::sleep(LOOK))
                .await
                .is_none()
            {
                return tell(&[NotifyState::Stopping]);
            }
        }
    });
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        debug!(%error, "the service manager cannot be told");
    }
}
