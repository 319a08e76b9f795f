//! Starts and stops.

use std::process::ExitCode;

use clap::Parser;
use tikv_jemallocator::Jemalloc;
use walferry::cli::{self, Cli};

/// Its settings stand in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    cli::main(Cli::parse()).into()
}
