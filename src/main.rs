//! Starts and stops.

use std::process::ExitCode;

use clap::Parser;
use walferry::cli::{self, Cli};

fn main() -> ExitCode {
    cli::main(Cli::parse()).into()
}
