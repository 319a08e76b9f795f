//! The figures of a run as a table, as JSON, and beside the recorded run.
//!
//! - Runs are compared by their shares of limits measured in the same run, not by figures of another machine.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::rig;
use crate::screen;

/// Two runs on one machine differ by so much without a reason.
const NOISE: f64 = 0.15;

/// What a figure is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    PerSecond,
    Seconds,
    Milliseconds,
    Megabytes,
    Cores,
    Percent,
    Count,
}

/// What a figure should reach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bar {
    /// This share of the limit beside it.
    OfLimit(f64),
    /// No more than this.
    AtMost(f64),
}

/// One figure.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) what: String,
    pub(crate) value: f64,
    unit: Unit,
    limit: Option<Limit>,
    bar: Option<Bar>,
    /// 1 is the bar, more is better.
    share_of_bar: Option<f64>,
}

/// What the servers alone do, measured in the same run.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Limit {
    of: String,
    value: f64,
    /// The figure's share of it.
    ratio: f64,
}

/// All figures of a run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) rows: u64,
    pub(crate) cores: usize,
    pub(crate) lines: Vec<Line>,
}

// === impl Unit ===

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::PerSecond => format!("{}/s", thousands(value)),
            Self::Seconds => format!("{value:.2} s"),
            Self::Milliseconds => format!("{value:.1} ms"),
            Self::Megabytes => format!("{value:.0} MB"),
            Self::Cores => format!("{value:.2}"),
            Self::Percent => format!("{value:.1} %"),
            Self::Count => thousands(value),
        }
    }
}

// === impl Line ===

impl Line {
    pub(crate) fn new(what: impl Into<String>, value: f64, unit: Unit) -> Self {
        Self {
            what: what.into(),
            value,
            unit,
            limit: None,
            bar: None,
            share_of_bar: None,
        }
    }

    /// Sets the limit that the figure is held against.
    pub(crate) fn beside(mut self, of: &str, value: f64) -> Self {
        let ratio = self.value / value;
        let of = of.to_owned();
        self.limit = Some(Limit { of, value, ratio });
        self
    }

    /// Sets the bar; for a share of a limit, after the limit.
    pub(crate) fn bar(mut self, bar: Bar) -> Self {
        self.share_of_bar = match bar {
            Bar::OfLimit(share) => self.limit.as_ref().map(|limit| limit.ratio / share),
            Bar::AtMost(most) => Some(most / self.value),
        };
        self.bar = Some(bar);
        self
    }

    fn show(&self) -> String {
        let limit = self.limit.as_ref().map(|limit| {
            let (value, percent) = (self.unit.show(limit.value), limit.ratio * 100.0);
            format!("{percent:.0} % of {value}, {}", limit.of)
        });
        let bar = self.bar.map(|bar| match bar {
            Bar::OfLimit(share) => format!(">= {:.0} %", share * 100.0),
            Bar::AtMost(most) => format!("<= {}", self.unit.show(most)),
        });
        let share = self.share_of_bar.map(|share| format!("{share:.2}"));
        format!(
            "{:<44} {:>12}  {:>11}  {:>5}  {}",
            self.what,
            self.unit.show(self.value),
            bar.unwrap_or_default(),
            share.unwrap_or_default(),
            limit.unwrap_or_default(),
        )
        .trim_end()
        .to_owned()
    }
}

// === impl Report ===

impl Report {
    /// Shows the run; a person reads the table, a program the JSON.
    pub(crate) fn show(&self, is_json: bool) -> Result<()> {
        if is_json {
            screen::line(serde_json::to_string(self)?);
            return Ok(());
        }
        screen::line(format_args!(
            "{:<44} {:>12}  {:>11}  {:>5}  {}",
            "", "measured", "bar", "share", "limit in the same run"
        ));
        self.lines.iter().map(Line::show).for_each(screen::line);
        Ok(())
    }

    /// Names what reached less of its bar than in the recorded run, by more than two runs differ anyway.
    pub(crate) fn slower_than(&self, recorded: &Self) -> Vec<String> {
        let worse = |line: &Line| {
            let before = recorded.lines.iter().find(|it| it.what == line.what)?;
            let (was, is) = (before.share_of_bar?, line.share_of_bar?);
            (is < was * (1.0 - NOISE)).then(|| {
                format!(
                    "{}: {was:.2} of its bar in the recorded run, {is:.2} now",
                    line.what
                )
            })
        };
        self.lines.iter().filter_map(worse).collect()
    }

    /// Says what became slower since the recorded run.
    pub(crate) fn compare(&self, path: &Path) -> Result<()> {
        let Ok(text) = std::fs::read(path) else {
            screen::say(format_args!("no recorded run at {}", path.display()));
            return Ok(());
        };
        let recorded: Self = serde_json::from_slice(&text)?;
        if (recorded.rows, recorded.cores) != (self.rows, self.cores) {
            screen::say(format_args!(
                "the recorded run had {} rows on {} cores: read the comparison with care",
                recorded.rows, recorded.cores
            ));
        }
        let slower = self.slower_than(&recorded);
        if slower.is_empty() {
            screen::say("nothing is slower than in the recorded run");
        }
        for line in slower {
            screen::say(format_args!("SLOWER: {line}"));
        }
        Ok(())
    }

    /// Becomes the recorded run.
    pub(crate) fn record(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        rig::write(path, &(text + "\n"))
    }

    pub(crate) fn new(rows: u64) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_err(Error::io("counting cores"))?;
        Ok(Self {
            rows,
            cores: cores.get(),
            lines: Vec::new(),
        })
    }
}

/// A whole number with commas.
pub(crate) fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().collect();
    let groups: Vec<_> = groups.into_iter().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rate: f64, limit: f64) -> Report {
        let line = Line::new("drain", rate, Unit::PerSecond)
            .beside("mongod", limit)
            .bar(Bar::OfLimit(0.8));
        Report {
            rows: 1,
            cores: 2,
            lines: vec![line],
        }
    }

    #[test]
    fn a_slower_machine_is_no_slower_engine() {
        assert!(
            report(40.0, 50.0)
                .slower_than(&report(80.0, 100.0))
                .is_empty()
        );
        assert_eq!(
            report(60.0, 100.0).slower_than(&report(80.0, 100.0)).len(),
            1
        );
    }

    #[test]
    fn a_share_of_one_is_the_bar() {
        let at_most = Line::new("cpu", 14.0, Unit::Seconds).bar(Bar::AtMost(7.0));
        assert_eq!(at_most.share_of_bar, Some(0.5));
        assert_eq!(report(80.0, 100.0).lines[0].share_of_bar, Some(1.0));
    }
}
