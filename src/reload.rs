//! The configuration, read again while the daemon runs.
//!
//! - A configuration that cannot be used changes nothing, and says what is wrong with it.
//! - What can change at once does; each other key that differs from what runs is named, and waits for a restart.

use std::error::Error;
use std::path::Path;

use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::apply::GroupLimits;
use crate::config::{Changes, Config, ConfigError};
use crate::pipeline::connect::group_limits;
use crate::status::{Reloaded, unix_seconds};
use crate::telemetry::Logs;

/// Takes over what a newer configuration may change.
pub(crate) struct Reload {
    running: Config,
    logs: Logs,
    limits: watch::Sender<GroupLimits>,
    shown: watch::Sender<Option<Reloaded>>,
}

/// What changes while a pipeline runs.
#[derive(Clone, Debug)]
pub struct Live {
    /// How much is applied at a time.
    pub limits: watch::Receiver<GroupLimits>,
    /// What came of reading the configuration again.
    pub reloaded: watch::Receiver<Option<Reloaded>>,
}

// === impl Reload ===

impl Reload {
    /// What runs with a configuration, which the logs follow from here on.
    pub(crate) fn of(running: Config, logs: Logs) -> Self {
        logs.configure(running.telemetry.log.as_ref());
        Self {
            limits: watch::Sender::new(group_limits(&running)),
            shown: watch::Sender::default(),
            running,
            logs,
        }
    }

    pub(crate) fn live(&self) -> Live {
        Live {
            limits: self.limits.subscribe(),
            reloaded: self.shown.subscribe(),
        }
    }

    pub(crate) fn file(&self) -> &Path {
        self.running.file()
    }

    /// Takes over what was read, if it can be used.
    pub(crate) fn take(&mut self, read: Result<Config, ConfigError>) {
        let reloaded = match read {
            Ok(newer) => self.take_over(newer),
            Err(error) => self.refuse(&error),
        };
        self.shown.send_replace(Some(reloaded));
    }

    fn take_over(&mut self, newer: Config) -> Reloaded {
        let Changes {
            live,
            access,
            waiting,
        } = Changes::take(&mut self.running, newer);
        let is_counted = self.logs.configure(self.running.telemetry.log.as_ref());
        self.limits.send_replace(group_limits(&self.running));
        for key in &live {
            info!(key, "changed, and in effect");
        }
        if !is_counted && live.iter().any(|key| key == "telemetry.log") {
            warn!(
                key = "telemetry.log",
                "RUST_LOG or --verbose decides instead"
            );
        }
        for key in &access {
            warn!(key, "changed: `walferry access apply` makes it take effect");
        }
        for key in &waiting {
            warn!(key, "changed: a restart makes it take effect");
        }
        info!("configuration read again");
        Reloaded {
            at: unix_seconds(),
            taken: live,
            waiting,
            error: None,
        }
    }

    /// What waited before waits on.
    fn refuse(&self, refused: &ConfigError) -> Reloaded {
        let cause = refused.source().map(|cause| format!(": {cause}"));
        let text = format!("{refused}{}", cause.unwrap_or_default());
        error!(
            error = text,
            "the configuration cannot be used: nothing has changed"
        );
        let before = self.shown.borrow().clone().unwrap_or_default();
        Reloaded {
            at: unix_seconds(),
            taken: Vec::new(),
            waiting: before.waiting,
            error: Some(text),
        }
    }
}
