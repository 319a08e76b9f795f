//! What waits for its operator, each with what to do about it.
//!
//! - It is told once and in one way, to `walferry status`, to `top`, to the page and in JSON.
//! - A pipeline that has nothing of it has nothing to do.

use serde::Serialize;

use super::{
    Asked, DriftedStatus, OrderStatus, ParkedStatus, SkipStatus, SkippedStatus, Status, time,
};

/// Something that waits for the pipeline's operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ToDo {
    /// What there is.
    pub what: String,
    /// What to do about it; none where it goes by itself.
    pub remedy: Option<String>,
}

/// A status as JSON shows it: with what is left to do.
#[derive(Debug, Serialize)]
pub struct Shown<'a> {
    #[serde(flatten)]
    status: &'a Status,
    to_do: Vec<ToDo>,
}

// === impl Status ===

impl Status {
    /// The same with what is left to do.
    pub fn shown(&self) -> Shown<'_> {
        Shown {
            status: self,
            to_do: self.to_do(),
        }
    }

    /// What operators asked, and what is left to mend.
    pub fn to_do(&self) -> Vec<ToDo> {
        all(
            self.paused.as_ref(),
            &self.skips,
            &self.skipped,
            &self.drifted,
            &self.dead_letters,
        )
    }
}

// === impl Asked ===

impl Asked {
    /// The same where only the servers know of it.
    pub(super) fn to_do(&self) -> Vec<ToDo> {
        all(
            self.paused.as_ref(),
            &self.skips,
            &self.skipped,
            &self.drifted,
            &self.dead_letters,
        )
    }
}

fn all(
    pause: Option<&OrderStatus>,
    skips: &[SkipStatus],
    passed_over: &[SkippedStatus],
    drifts: &[DriftedStatus],
    letters: &[ParkedStatus],
) -> Vec<ToDo> {
    let orders = pause.map(paused).into_iter().chain(skips.iter().map(skip));
    let tables = drifts.iter().map(drifted).chain(letters.iter().map(parked));
    let passed_over = passed_over.iter().map(skipped);
    orders.chain(passed_over).chain(tables).collect()
}

fn paused(order: &OrderStatus) -> ToDo {
    ToDo {
        what: format!("paused {}", asked(order)),
        remedy: Some("walferry resume".to_owned()),
    }
}

fn skip(skip: &SkipStatus) -> ToDo {
    ToDo {
        what: format!("to be passed over: {}, {}", skip.commit, asked(&skip.order)),
        remedy: None,
    }
}

fn skipped(skipped: &SkippedStatus) -> ToDo {
    let (commit, changes) = (&skipped.commit, skipped.changes);
    let tables = skipped.tables.join(" ");
    ToDo {
        what: format!(
            "passed over: {commit} with {changes} changes, {}",
            asked(&skipped.order)
        ),
        remedy: Some(format!(
            "mend them (_walferry.skipped_changes), then walferry verify {tables}"
        )),
    }
}

fn drifted(drifted: &DriftedStatus) -> ToDo {
    let (table, since) = (&drifted.table, since(drifted.since));
    let differences = drifted.differences.join(", ");
    ToDo {
        what: format!("drifted: {table} since {since}: {differences}"),
        remedy: Some(format!(
            "touch its rows (UPDATE), then walferry verify {table}; or walferry run --new-snapshot"
        )),
    }
}

fn parked(parked: &ParkedStatus) -> ToDo {
    let (table, letters) = (&parked.table, parked.letters);
    ToDo {
        what: format!(
            "dead letters: {letters} of {table} since {}",
            since(parked.since)
        ),
        remedy: Some(format!(
            "walferry dead-letter list --table {table}; mend the rows, then walferry dead-letter retry --table {table}"
        )),
    }
}

/// Who asked for something, when and why.
fn asked(order: &OrderStatus) -> String {
    let reason = order.reason.as_deref();
    let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
    format!("by {}, {}{reason}", order.by, since(order.at))
}

fn since(seconds: i64) -> impl std::fmt::Display {
    time(u64::try_from(seconds).unwrap_or_default())
}
