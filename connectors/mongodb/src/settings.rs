//! What the sink is told.

use std::fmt;
use std::time::Duration;

use crate::{Histories, Policies};

/// How to reach MongoDB and what to write there.
#[derive(Clone)]
pub struct Settings {
    /// The connection URL; secret, as it may hold a password.
    pub url: String,
    /// The database that holds the tables' collections.
    pub database: String,
    /// What this pipeline is called in `_walferry.positions`: slot and prefix.
    pub pipeline: String,
    /// What becomes of values without an exact form.
    pub policies: Policies,
    /// Whether a change that MongoDB cannot take becomes a dead letter; otherwise it ends the sink.
    pub parks: bool,
    /// Which tables keep every version of their rows.
    pub histories: Histories,
    /// At most this many operations in one command; MongoDB takes 100,000.
    pub max_command_operations: usize,
    /// At most this many bytes in one command, unless a single document is larger; MongoDB takes
    /// 48,000,000.
    pub max_command_bytes: usize,
    /// How long one command may take before its outcome is taken as unknown.
    pub command_timeout: Duration,
    /// How long a claim, and how long a commit, is repeated before the attempt fails.
    pub retry_timeout: Duration,
}

// === impl Settings ===

impl Settings {
    /// The defaults for everything that need not be said.
    pub fn new(
        url: impl Into<String>,
        database: impl Into<String>,
        pipeline: impl Into<String>,
    ) -> Self {
        Self {
            url: url.into(),
            database: database.into(),
            pipeline: pipeline.into(),
            policies: Policies::default(),
            parks: false,
            histories: Histories::default(),
            // Larger ones are no faster, and each is held twice: here and as the driver's message.
            max_command_operations: 4_000,
            max_command_bytes: 4 * 1024 * 1024,
            // MongoDB ends a transaction after 60 to 90 s: its own answer says so.
            command_timeout: Duration::from_secs(100),
            retry_timeout: Duration::from_mins(1),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("database", &self.database)
            .field("pipeline", &self.pipeline)
            .field("policies", &self.policies)
            .finish_non_exhaustive()
    }
}
