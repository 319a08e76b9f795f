//! How the demo ends, and what it says then.

use std::process::ExitCode;

use crate::compare::{Comparison, TOLD};
use crate::live::count;
use crate::screen;

/// How the demo ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Ctrl-C, before the two sides were compared.
    Interrupted,
    Equal,
    Different,
}

// === impl Ending ===

impl Ending {
    pub(crate) fn exit_code(self) -> ExitCode {
        if self == Self::Different {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }
}

/// Says what the comparison found.
pub(crate) fn report(comparison: &Comparison, tables: usize) -> Ending {
    let rows = count(comparison.rows);
    if comparison.is_equal() {
        screen::say(format_args!("equal: {rows} rows of {tables} tables"));
        return Ending::Equal;
    }
    comparison.told.iter().for_each(screen::line);
    let more = comparison.differing.saturating_sub(TOLD as u64);
    if more > 0 {
        screen::line(format_args!("and {} more", count(more)));
    }
    screen::say(format_args!(
        "DIFFERENT: {} of {rows} rows of {tables} tables",
        count(comparison.differing)
    ));
    Ending::Different
}
