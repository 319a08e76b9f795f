//! The `retail` command: starts the work and turns its outcome into an exit code.

use std::process::ExitCode;

use clap::Parser;
use walferry_retail::cli::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    walferry_retail::run(Cli::parse()).await
}
