//! Asking the running daemon how it is, once or again and again.
//!
//! - Whoever looks again and again outlives the daemon: one that is away is waited for.
//! - Another program at the daemon's address is an error, however often it is asked.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};
use walferry_core::{Class, Classify, Tasks};

use crate::config::Config;
use crate::status::Status;

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// A daemon that may be running.
#[derive(Clone, Copy, Debug)]
pub(super) struct Daemon {
    listen: SocketAddr,
}

/// What one of many looks at a daemon brought.
#[derive(Debug)]
pub(super) enum Look {
    /// It answered.
    Here(Box<Status>),
    /// It did not.
    Away(Away),
}

/// A daemon that does not answer.
#[derive(Clone, Debug)]
pub(super) struct Away {
    /// Where it was asked.
    pub(super) listen: SocketAddr,
    /// When it did not answer for the first time.
    pub(super) since: SystemTime,
}

/// Why a daemon did not say how it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error(
        "the configuration has no [admin] listen, so that a running daemon cannot be asked: add `listen = \
         \"127.0.0.1:9187\"` and start it again"
    )]
    NotListening,
    #[error(
        "asking the daemon at {listen}: see that `walferry run` is running with this configuration"
    )]
    NoAnswer {
        listen: SocketAddr,
        source: Box<ureq::Error>,
    },
    #[error("the answer of {listen} is no status of walferry: another program listens there")]
    Foreign {
        listen: SocketAddr,
        source: serde_json::Error,
    },
}

impl Classify for AskError {
    fn class(&self) -> Class {
        Class::Fatal
    }
}

// === impl Daemon ===

impl Daemon {
    /// The daemon of a configuration.
    ///
    /// # Errors
    /// When the configuration does not let it be asked.
    pub(super) fn of(config: &Config) -> Result<Self, AskError> {
        let listen = config.admin.listen.ok_or(AskError::NotListening)?;
        Ok(Self { listen })
    }

    /// Where it is asked.
    pub(super) fn address(self) -> SocketAddr {
        self.listen
    }

    /// How it is now.
    ///
    /// # Errors
    /// When nobody answers, or somebody else.
    pub(super) async fn ask(self) -> Result<Status, AskError> {
        let listen = self.listen;
        let (sender, answer) = oneshot::channel();
        // The runtime would wait at its end for a daemon that hangs; nobody waits for this thread.
        let asking = std::thread::Builder::new().spawn(move || sender.send(get(listen)));
        drop(asking);
        let text = answer
            .await
            .unwrap_or_else(|_| Err(ureq::Error::ConnectionFailed.into()))
            .map_err(|source| AskError::NoAnswer { listen, source })?;
        serde_json::from_str(&text).map_err(|source| AskError::Foreign { listen, source })
    }

    /// How it is each second, until the tasks stop or nobody listens any more. An error is the last look.
    pub(super) fn watch(self, tasks: &Tasks) -> mpsc::Receiver<Result<Look, AskError>> {
        let (sender, looks) = mpsc::channel(1);
        let stop = tasks.stop_signal().clone();
        tasks.spawn(async move { stop.run_until_cancelled(self.look(sender)).await });
        looks
    }

    async fn look(self, looks: mpsc::Sender<Result<Look, AskError>>) {
        let mut ticks = interval(PAUSE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut away = None;
        loop {
            ticks.tick().await;
            let look = match self.ask().await {
                Ok(status) => {
                    away = None;
                    Ok(Look::Here(Box::new(status)))
                }
                Err(AskError::NoAnswer { listen, .. }) => {
                    let since = SystemTime::now();
                    let away = away.get_or_insert(Away { listen, since });
                    Ok(Look::Away(away.clone()))
                }
                Err(error) => Err(error),
            };
            let is_last = look.is_err();
            if looks.send(look).await.is_err() || is_last {
                return;
            }
        }
    }
}

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = humantime::format_rfc3339_seconds(self.since);
        write!(f, "no daemon answers on {}, since {since}", self.listen)
    }
}

fn get(listen: SocketAddr) -> Result<String, Box<ureq::Error>> {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .proxy(None)
        // Whoever points elsewhere is no daemon of ours.
        .max_redirects(0)
        .build()
        .new_agent();
    let mut answer = agent.get(format!("http://{listen}/status")).call()?;
    Ok(answer.body_mut().read_to_string()?)
}
