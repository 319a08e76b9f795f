//! Refreshes the answers on schedule, beside the daemon.
//!
//! - What is not asked because nobody keeps a history is told once, at the level of information.
//! - Whatever fails is told with the rule's name and counted: it never stops what is replicated.
//! - The rules are read anew each time: a file that changed counts without a restart.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use walferry_core::Tasks;

use super::refresh;
use crate::config::Config;

/// What the refreshes of a process have come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freshness {
    /// How often a rule failed since the start; a refresh that failed as a whole counts once.
    pub failures: u64,
    /// When all answers were refreshed last, in seconds since 1970; none before that.
    pub refreshed_at: Option<u64>,
}

/// Refreshes the answers until the tasks stop; none when the configuration does not ask for it.
pub(crate) fn keep_fresh(config: &Config, tasks: &Tasks) -> Option<watch::Receiver<Freshness>> {
    let every = config.analytics.as_ref()?.refresh?;
    let (freshness, shown) = watch::channel(Freshness::default());
    let (config, stop) = (config.clone(), tasks.stop_signal().clone());
    tasks.spawn(async move { rounds(&config, every, &freshness, &stop).await });
    Some(shown)
}

async fn rounds(
    config: &Config,
    every: Duration,
    freshness: &watch::Sender<Freshness>,
    stop: &CancellationToken,
) {
    let mut told = BTreeSet::new();
    loop {
        let round = stop.run_until_cancelled(round(config, &mut told)).await;
        let Some(failures) = round else { return };
        freshness.send_modify(|it| it.note(failures));
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
    }
}

/// One refresh: how much of it failed. `told` has the rules of which it was said that they are not asked.
async fn round(config: &Config, told: &mut BTreeSet<String>) -> u64 {
    let refreshed = match Box::pin(refresh(config)).await {
        Ok(refreshed) => refreshed,
        Err(error) => {
            warn!(
                error = error.told(),
                "the answers of the rules were not refreshed"
            );
            return 1;
        }
    };
    let mut failures = 0;
    for outcome in &refreshed.rules {
        let rule = &outcome.rule;
        if let Some(error) = &outcome.error {
            failures += 1;
            warn!(rule, error, "a rule failed: its answer stays as it was");
        } else if let Some(why) = &outcome.not_asked {
            if told.insert(rule.clone()) {
                info!(rule, why, "a rule is not asked: its answer stays as it was");
            }
        } else {
            debug!(rule, rows = outcome.rows, "refreshed");
        }
    }
    failures
}

// === impl Freshness ===

impl Freshness {
    fn note(&mut self, failures: u64) {
        self.failures += failures;
        if failures == 0 {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            self.refreshed_at = now.ok().map(|it| it.as_secs());
        }
    }
}
