//! What was found about a precondition.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::{Class, Fault};

/// Clocks that differ by more than this make latencies and lags untrue.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);

/// What was found about one thing that a pipeline needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: `PostgreSQL: wal_level`.
    pub subject: String,
    /// Whether it will do.
    pub verdict: Verdict,
    /// What is there.
    pub found: String,
    /// What mends it, a statement where one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// Whether what was found will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// It will.
    Pass,
    /// It will for now.
    Warn,
    /// It could not be looked at: a server that is away may come back.
    Away,
    /// It will not.
    Fail,
}

// === impl Finding ===

impl Finding {
    /// What will do.
    pub fn pass(subject: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(subject, Verdict::Pass, found, None)
    }

    /// What will do for now.
    pub fn warn(
        subject: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(subject, Verdict::Warn, found, Some(remedy.into()))
    }

    /// What will not do.
    pub fn fail(
        subject: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(subject, Verdict::Fail, found, Some(remedy.into()))
    }

    /// Whether a server's clock, in seconds since 1970, shows our time.
    pub fn clock(server: &str, seconds: f64) -> Self {
        let subject = format!("{server}: clock");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let difference = seconds - now.unwrap_or_default().as_secs_f64();
        if difference.abs() <= CLOCK_TOLERANCE.as_secs_f64() {
            return Self::pass(subject, "shows our time");
        }
        let found = format!("{difference:+.1} s from ours");
        let remedy = "let both machines follow the same time server (NTP): latencies and lags are untrue until then";
        Self::warn(subject, found, remedy)
    }

    /// What an error says, which kept us from looking further; its message holds the remedy.
    pub fn failed(subject: impl Into<String>, fault: &Fault) -> Self {
        let verdict = match fault.class() {
            Class::Transient => Verdict::Away,
            Class::Poison | Class::File | Class::Fatal | Class::Fenced => Verdict::Fail,
        };
        Self::new(subject, verdict, fault.to_string(), None)
    }

    fn new(
        subject: impl Into<String>,
        verdict: Verdict,
        found: impl Into<String>,
        remedy: Option<String>,
    ) -> Self {
        Self {
            subject: subject.into(),
            verdict,
            found: found.into(),
            remedy,
        }
    }
}
