//! How fresh the answers are that a process keeps.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::status::time;

/// What the refreshes of a process have come to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Freshness {
    /// How often a rule failed since the start; a refresh that failed as a whole counts once.
    pub failures: u64,
    /// When all answers were refreshed last, in seconds since 1970; none before that.
    pub refreshed_at: Option<u64>,
    /// How long the last refresh took, whether rules failed or not, in seconds; none before the first.
    #[serde(default)]
    pub refresh_seconds: Option<f64>,
    /// What is refreshed at once; none where nothing is.
    #[serde(default)]
    pub incremental: Option<Incremental>,
}

/// What came of refreshing the answers for the values that were touched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Incremental {
    /// How many rules are refreshed so.
    pub rules: u64,
    /// How often a rule was asked about some values.
    pub runs: u64,
    /// About how many.
    pub values: u64,
    /// How long that took, in seconds.
    pub seconds: f64,
    /// How often it failed, or what was touched could not be looked at.
    pub failures: u64,
    /// Since when the oldest change waits that a rule was not asked about, in seconds since 1970; none when none waits.
    pub waiting_since: Option<f64>,
}

// === impl Freshness ===

/// In one line.
impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.refreshed_at {
            Some(at) => write!(f, "all answers refreshed {}", time(at))?,
            None => f.write_str("all answers not refreshed yet")?,
        }
        if let Some(seconds) = self.refresh_seconds {
            write!(f, ", in {seconds:.1} s")?;
        }
        if self.failures > 0 {
            write!(f, ", failures since the start: {}", self.failures)?;
        }
        match &self.incremental {
            Some(incremental) => write!(f, "; at once {incremental}"),
            None => Ok(()),
        }
    }
}

// === impl Incremental ===

impl Incremental {
    /// How long the oldest change has waited, in seconds; 0 when none waits.
    pub fn waiting_seconds(&self) -> f64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or(Duration::ZERO).as_secs_f64();
        self.waiting_since
            .map_or(0.0, |since| (now - since).max(0.0))
    }
}

impl fmt::Display for Incremental {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rules, values, .. } = self;
        write!(f, "{rules} rules, {values} values asked about")?;
        if self.failures > 0 {
            write!(f, ", failures: {}", self.failures)?;
        }
        if self.waiting_since.is_some() {
            write!(f, ", the oldest waits {:.1} s", self.waiting_seconds())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freshness_is_one_line_with_what_failed_and_what_waits() {
        let mut freshness = Freshness::default();
        assert_eq!(freshness.to_string(), "all answers not refreshed yet");
        freshness = Freshness {
            failures: 2,
            refreshed_at: Some(1_709_208_000),
            refresh_seconds: Some(2.46),
            incremental: Some(Incremental {
                rules: 3,
                values: 40,
                ..Incremental::default()
            }),
        };
        let expected = "all answers refreshed 2024-02-29T12:00:00Z, in 2.5 s, failures since the start: 2; \
                        at once 3 rules, 40 values asked about";
        assert_eq!(freshness.to_string(), expected);
        let incremental = freshness.incremental.as_mut().unwrap();
        (incremental.failures, incremental.waiting_since) = (1, Some(0.0));
        let line = freshness.to_string();
        assert!(
            line.starts_with(&format!("{expected}, failures: 1, the oldest waits ")),
            "{line}"
        );
    }
}
