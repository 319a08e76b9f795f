//! When the answer of a rule is worked out anew, and how much of it.

use walferry_etl::analytics::{Obstacle, Reach};

use crate::config::Config;

/// When the answer of a rule is worked out anew.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// In words.
    pub(super) refreshed: String,
    /// The collections of which a change is followed at once.
    pub(super) follows: Vec<String>,
    /// Those of which a change waits for the schedule.
    pub(super) on_schedule: Vec<String>,
    /// Why all of them wait.
    pub(super) because: Option<String>,
}

// === impl Plan ===

impl Plan {
    /// As the daemon does it with this configuration.
    pub(super) fn of(config: &Config, reach: Result<Reach, Obstacle>) -> Self {
        let analytics = config.analytics.as_ref();
        let is_scheduled = analytics.is_some_and(|it| it.refresh.is_some());
        let is_at_once = analytics.is_some_and(|it| it.is_incremental);
        match reach {
            Err(Obstacle::View) => Self::new("when read", None),
            _ if !is_scheduled => Self::new("by command", None),
            Err(obstacle) => Self::new("on schedule", Some(obstacle.to_string())),
            Ok(_) if !is_at_once => {
                let because = "analytics.incremental is false".to_owned();
                Self::new("on schedule", Some(because))
            }
            Ok(reach) => Self::at_once(reach),
        }
    }

    fn new(refreshed: &str, because: Option<String>) -> Self {
        Self {
            refreshed: refreshed.to_owned(),
            because,
            ..Self::default()
        }
    }

    fn at_once(reach: Reach) -> Self {
        let mut follows: Vec<_> = reach.ways.into_iter().map(|it| it.collection).collect();
        follows.sort();
        follows.dedup();
        Self {
            refreshed: format!("at once per {}", reach.per),
            follows,
            on_schedule: reach.unfollowed,
            because: None,
        }
    }
}
