//! The main job, live: private servers, the retail system, walferry between them. `make demo` runs it.

use std::process::ExitCode;

use clap::Parser;

mod cli;
mod columns;
mod compare;
mod ending;
mod error;
mod interrupt;
mod latency;
mod live;
mod machines;
mod pipeline;
mod probe;
mod render;
mod sample;
mod screen;
mod story;

#[tokio::main]
async fn main() -> ExitCode {
    let options = cli::Options::parse();
    match story::tell(options).await {
        Ok(ending) => ending.exit_code(),
        Err(error) => {
            screen::complain(&error);
            ExitCode::FAILURE
        }
    }
}
