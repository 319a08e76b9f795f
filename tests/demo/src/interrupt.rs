//! Ctrl-C and SIGTERM: the first ends the demo in order, the second at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{Error, Result};

/// Listens from its creation on.
#[derive(Debug)]
pub(crate) struct Interrupt {
    ctrl_c: Signal,
    terminate: Signal,
}

impl Interrupt {
    pub(crate) fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(Error::io("listening for signals"));
        Ok(Self {
            ctrl_c: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for the next signal. Cancel safe.
    pub(crate) async fn received(&mut self) {
        tokio::select! {
            _ = self.ctrl_c.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
