//! Keeps the answers fresh beside the daemon: all of them on schedule, and what was touched at once.
//!
//! - What is not asked because nobody keeps a history is told once, at the level of information.
//! - Whatever fails is told with the rule's name and counted: it never stops what is replicated.
//! - Nothing is asked before the first snapshot is in: views and indexes would take the places of tables.
//! - The rules are read anew for each refresh: a file that changed counts without a restart.

use tokio::sync::watch;
use walferry_core::Tasks;
use walferry_mongodb::Touched;

use super::Freshness;
use super::keeper::Keeper;
use crate::apply::ApplyStatus;
use crate::config::Config;

/// Refreshes the answers until the tasks stop, those for what was `touched` at once; none when the configuration does not
/// ask for it.
pub(crate) fn keep_fresh(
    config: &Config,
    sink: watch::Receiver<ApplyStatus>,
    touched: &Touched,
    tasks: &Tasks,
) -> Option<watch::Receiver<Freshness>> {
    let analytics = config.analytics.as_ref()?;
    let (every, touched) = (analytics.refresh?, touched.clone());
    let touched = analytics.is_incremental.then_some(touched);
    let (freshness, shown) = watch::channel(Freshness::default());
    let keeper = Keeper::new(
        config.clone(),
        every,
        sink,
        touched,
        freshness,
        tasks.clone(),
    );
    tasks.spawn(keeper.run());
    Some(shown)
}
