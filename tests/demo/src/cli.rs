//! What the demo understands on its command line.

use std::path::PathBuf;

/// Runs walferry's main job on private servers and shows it live.
///
/// Starts PostgreSQL, Kafka and MongoDB below .run/ on free ports, installs the retail schema and data, loads the
/// master tables, starts the daemon and sells. Everything is stopped and removed at the end.
///
/// Exit codes: 0 MongoDB equals PostgreSQL (or Ctrl-C), 1 it does not or something failed.
#[derive(Debug, clap::Parser)]
#[command(name = "demo")]
pub(crate) struct Options {
    /// How long to sell; then compare MongoDB with PostgreSQL, column for column. Without it, until Ctrl-C.
    #[arg(long)]
    pub(crate) seconds: Option<u64>,
    /// A directory with the twelve CSV files to load, instead of generated ones.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Sales to generate when no directory is given.
    #[arg(long, default_value_t = 5_000)]
    pub(crate) sales: u32,
    /// Sales per second.
    #[arg(long, default_value_t = 200)]
    pub(crate) rate: u32,
    /// Without Kafka: from PostgreSQL straight into MongoDB.
    #[arg(long)]
    pub(crate) direct: bool,
}
