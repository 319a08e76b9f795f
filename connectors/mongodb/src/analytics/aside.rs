//! What stands aside for a while: views to try a rule with, and answers before they are merged.
//!
//! - A name tells when it was given, so that what a killed process left is known and goes.

use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use tracing::debug;

use super::{Analyst, AnalyticsError, Query};
use crate::Result;

const PREFIX: &str = "_walferry_aside_";
/// Nothing is needed for so long.
const LEFT_BEHIND: Duration = Duration::from_hours(6);

/// Views that stand aside until they are dropped.
#[derive(Debug, Default)]
pub struct Aside {
    made: Vec<String>,
}

// === impl Aside ===

impl Aside {
    /// Makes a view that stands for another, under a name of its own, which is returned.
    ///
    /// # Errors
    /// As [`Analyst::make_view`].
    pub async fn view(&mut self, analyst: &Analyst, view: &str, query: &Query) -> Result<String> {
        let name = name();
        self.made.push(name.clone());
        let made = analyst.write_view("create", &name, query).await;
        made.map_err(|error| AnalyticsError::of_view(view, error))?;
        Ok(name)
    }

    /// Drops them, as far as the server does it: what stays is dropped after some hours.
    pub async fn drop(self, analyst: &Analyst) {
        for name in self.made {
            if let Err(error) = analyst.drop(&name).await {
                debug!(
                    name,
                    error = &error as &dyn std::error::Error,
                    "a view stays aside"
                );
            }
        }
    }
}

impl Analyst {
    /// Drops what killed processes left aside.
    ///
    /// # Errors
    /// When the server refuses or cannot be asked.
    pub async fn sweep(&self) -> Result<()> {
        let names = self.standing().await?.into_keys();
        for name in names.filter(|name| is_left_behind(name, now())) {
            self.drop(&name).await?;
        }
        Ok(())
    }
}

/// A name that nothing has.
pub(super) fn name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let (seconds, process) = (now().as_secs(), process::id());
    // Processes on several machines may have one number.
    let random = bson::oid::ObjectId::new().to_hex();
    format!("{PREFIX}{seconds}_{process}_{count}_{random}")
}

fn is_left_behind(name: &str, now: Duration) -> bool {
    let rest = name.strip_prefix(PREFIX);
    let seconds = rest.and_then(|it| it.split('_').next()?.parse().ok());
    seconds.is_some_and(|at| Duration::from_secs(at) + LEFT_BEHIND < now)
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stood_aside_for_hours_is_left_behind() {
        let name = name();
        assert!(!is_left_behind(&name, now()));
        assert!(is_left_behind(
            &name,
            now() + LEFT_BEHIND + Duration::from_secs(2)
        ));
        assert!(!is_left_behind("_walferry_aside_x", now()));
        assert!(!is_left_behind("fraud_alerts", now()));
    }
}
