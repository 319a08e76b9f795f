//! Starts and stops.

use std::process::ExitCode;

use clap::Parser;
use tikv_jemallocator::Jemalloc;
use walferry::cli::{self, Cli};

/// Its settings are built in: see `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    cli::main(Cli::parse()).into()
}
