//! What operators ask of a pipeline, and what is left to mend in its documents, as it is shown.

use walferry_core::{Order, Orders};
use walferry_schema::{CommitId, Position};

use super::{DriftedStatus, OrderStatus, ParkedStatus, SkipStatus, SkippedStatus};

/// What operators ask, and what is left to mend.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    pub(super) paused: Option<OrderStatus>,
    pub(super) skips: Vec<SkipStatus>,
    pub(super) skipped: Vec<SkippedStatus>,
    pub(super) drifted: Vec<DriftedStatus>,
    pub(super) dead_letters: Vec<ParkedStatus>,
}

// === impl Asked ===

impl Asked {
    /// What stands of these orders where so much is applied: of the transactions to pass over those that are to come.
    pub(super) fn of(orders: &Orders, applied: Option<Position>) -> Self {
        let applied = applied.and_then(|it| it.commit());
        let to_come = |commit: &CommitId| applied.is_none_or(|applied| *commit > applied);
        let skips = orders.skips.iter().filter(|(commit, _)| to_come(commit));
        let skips = skips.map(|(commit, asked)| SkipStatus {
            commit: commit.to_string(),
            order: order(asked),
        });
        let skipped = orders.unverified.iter().map(|it| SkippedStatus {
            commit: it.commit.to_string(),
            changes: it.changes,
            tables: it.tables.clone(),
            order: order(&it.order),
        });
        let drifted = orders.drifted.iter().map(|it| DriftedStatus {
            table: it.table.to_string(),
            since: it.since.div_euclid(1_000),
            differences: it.differences.clone(),
        });
        let parked = orders.parked.iter().map(|it| ParkedStatus {
            table: it.table.clone(),
            letters: it.letters,
            since: it.since.div_euclid(1_000),
        });
        Self {
            paused: orders.pause.as_ref().map(order),
            skips: skips.collect(),
            skipped: skipped.collect(),
            drifted: drifted.collect(),
            dead_letters: parked.collect(),
        }
    }
}

fn order(order: &Order) -> OrderStatus {
    OrderStatus {
        by: order.by.clone(),
        at: order.at.div_euclid(1_000),
        reason: order.reason.clone(),
    }
}
