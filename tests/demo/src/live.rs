//! The live view: samples and latencies, drawn in a terminal, a line a second in a pipe.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::latency::Latencies;
use crate::sample::{Rows, Sample, Sampler};
use crate::screen::{self, Block};

/// What rates are measured over: PostgreSQL counts changes only about once a second.
const WINDOW: Duration = Duration::from_secs(4);

/// The live view.
#[derive(Debug)]
pub(crate) struct View {
    began: Instant,
    seconds: Option<u64>,
    samples: VecDeque<Sample>,
    block: Option<Block>,
}

impl View {
    /// A view of a demo of that many seconds.
    pub(crate) fn new(seconds: Option<u64>) -> Self {
        let block = Block::is_possible().then(Block::default);
        Self {
            began: Instant::now(),
            seconds,
            samples: VecDeque::new(),
            block,
        }
    }

    /// How often to call [`View::show`].
    pub(crate) fn interval(&self) -> Duration {
        if self.block.is_some() {
            Duration::from_millis(250)
        } else {
            Duration::from_secs(1)
        }
    }

    /// Takes a sample and shows it.
    pub(crate) async fn show(&mut self, sampler: &Sampler, latencies: &Latencies) -> Result<()> {
        let sample = sampler.take().await?;
        while self
            .samples
            .front()
            .is_some_and(|oldest| sample.at - oldest.at > WINDOW)
        {
            self.samples.pop_front();
        }
        self.samples.push_back(sample.clone());
        match self.block.take() {
            Some(mut block) => {
                block.draw(&self.lines(&sample, latencies));
                self.block = Some(block);
            }
            None => screen::line(self.line(&sample, latencies)),
        }
        Ok(())
    }

    /// No higher than a small terminal, which could not be drawn over otherwise.
    fn lines(&self, sample: &Sample, latencies: &Latencies) -> Vec<String> {
        let (streamed, batch): (Vec<_>, Vec<_>) = sample.tables.iter().partition(|t| t.is_streamed);
        let mut lines = vec![
            String::new(),
            format!(
                "  PostgreSQL -> Kafka -> MongoDB {:>35}",
                self.clock(sample)
            ),
            String::new(),
            format!(
                "  {:<30}{:>12}{:>12}{:>12}",
                "streamed", "PostgreSQL", "MongoDB", "rows/s"
            ),
        ];
        lines.extend(streamed.into_iter().map(|rows| self.streamed(rows)));
        lines.push(String::new());
        lines.push("  loaded in batches, PostgreSQL/MongoDB".to_owned());
        lines.extend(
            batch
                .chunks(2)
                .map(|two| two.iter().map(|rows| loaded(rows)).collect()),
        );
        lines.push(String::new());
        let (changes, documents) = (self.rate(|s| s.changes), self.rate(|s| s.documents));
        lines.push(format!(
            "  changes   {:>10} rows/s in PostgreSQL",
            count(changes)
        ));
        lines.push(format!(
            "  applied   {:>10} documents/s in MongoDB",
            count(documents)
        ));
        lines.push(format!("  lag       {}", lag(sample)));
        lines.push(format!(
            "  latency   {}, {} probes",
            visible(latencies),
            latencies.count()
        ));
        lines.push("  Ctrl-C stops everything".to_owned());
        lines
    }

    fn streamed(&self, rows: &Rows) -> String {
        let in_mongo = |s: &Sample| {
            s.tables
                .iter()
                .find(|r| r.table == rows.table)
                .map_or(0, |r| r.mongo)
        };
        let (postgres, mongo) = (count(rows.postgres), count(rows.mongo));
        let rate = count(self.rate(in_mongo));
        format!("  {:<30}{postgres:>12}{mongo:>12}{rate:>12}", rows.table)
    }

    fn line(&self, sample: &Sample, latencies: &Latencies) -> String {
        let streamed = sample.tables.iter().filter(|t| t.is_streamed);
        let tables: Vec<_> = streamed
            .map(|t| format!("{} {}/{}", t.table, t.postgres, t.mongo))
            .collect();
        let (changes, documents) = (self.rate(|s| s.changes), self.rate(|s| s.documents));
        let (clock, tables) = (self.clock(sample), tables.join(", "));
        format!(
            "{clock}: {tables}; {changes} rows/s, {documents} documents/s; lag {}; {}",
            lag(sample),
            visible(latencies)
        )
    }

    fn clock(&self, sample: &Sample) -> String {
        let passed = (sample.at - self.began).as_secs();
        self.seconds.map_or_else(
            || format!("{passed} s"),
            |all| format!("{passed} s of {all} s"),
        )
    }

    /// How much a counter grows in a second.
    fn rate(&self, counter: impl Fn(&Sample) -> u64) -> u64 {
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else {
            return 0;
        };
        let milliseconds = u64::try_from((last.at - first.at).as_millis()).unwrap_or(u64::MAX);
        let grown = counter(last).saturating_sub(counter(first));
        (grown * 1_000)
            .checked_div(milliseconds)
            .unwrap_or_default()
    }
}

fn loaded(rows: &Rows) -> String {
    let both = format!("{}/{}", count(rows.postgres), count(rows.mongo));
    format!("  {:<22}{both:<13}", rows.table)
}

fn lag(sample: &Sample) -> String {
    let bytes = sample.unconfirmed_bytes.map_or_else(
        || "no slot".to_owned(),
        |b| format!("{} kB of WAL unconfirmed", count(b / 1024)),
    );
    format!("{} rows behind, {bytes}", count(sample.rows_behind()))
}

fn visible(latencies: &Latencies) -> String {
    let show = |p| {
        latencies.percentile(p).map_or_else(
            || "-".to_owned(),
            |l| format!("{:.1} ms", l.as_secs_f64() * 1e3),
        )
    };
    format!("commit -> visible p50 {}, p99 {}", show(50), show(99))
}

/// A number with commas.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(String::from_utf8_lossy)
        .collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas() {
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(count),
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
