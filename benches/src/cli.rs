//! What the bench understands on its command line.

use std::path::PathBuf;

use clap::ValueEnum;

/// Measures walferry on private servers, beside what the servers alone can do.
///
/// Exit codes: 0 measured (whatever the figures), 1 MongoDB was not equal to PostgreSQL, or something failed.
#[derive(Debug, clap::Parser)]
#[command(name = "bench")]
pub(crate) struct Options {
    /// What to measure.
    #[arg(long, value_delimiter = ',', default_values = ["drain", "reader", "latency", "batch", "memory"])]
    pub(crate) only: Vec<Part>,
    /// Row changes of a backlog; the batch load has twice as many rows, the rules twice as many sales,
    /// the giant transaction four times the rows.
    #[arg(long, default_value_t = 500_000)]
    pub(crate) rows: u64,
    /// How long the latency is measured, each way.
    #[arg(long, default_value_t = 20)]
    pub(crate) seconds: u64,
    /// Prints one JSON object instead of the table.
    #[arg(long)]
    pub(crate) json: bool,
    /// Where the recorded run is, to compare with.
    #[arg(long, default_value = "benches/recorded.json")]
    pub(crate) recorded: PathBuf,
    /// Writes this run there: a whole one, for it is all that later ones are compared with.
    #[arg(long, conflicts_with = "only")]
    pub(crate) record: bool,
}

/// A part of the bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// A backlog into MongoDB, through Kafka and directly
    Drain,
    /// A backlog into Kafka, and into a log that keeps nothing
    Reader,
    /// Commit to visible at a steady rate
    Latency,
    /// The batch load
    Batch,
    /// A giant transaction and large rows
    Memory,
    /// Each rule of etl/analytics over a million sales, for most of an hour; not part of the usual run
    Rules,
    /// A sale's commit to its alert at a steady rate; not part of the usual run
    Alerts,
    /// A drain over sizes and shapes of backlog; not part of the usual run
    Growth,
    /// The incumbent's drain beside ours; not part of the usual run
    Incumbent,
}
