//! What walferry costs and how fast it is, beside what its servers alone can do. `make bench` runs it.
//!
//! - Every figure with a limit has that limit measured in the same run: figures of two runs move, their ratio does not.
//! - A run in which MongoDB does not equal PostgreSQL has no figures, only an error.

#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap,
    reason = "figures are shown with three digits, and counts are far below any limit"
)]

use std::process::ExitCode;

use clap::Parser;

mod alerts;
mod batch;
mod cli;
mod cost;
mod drain;
mod error;
mod growth;
mod incumbent;
mod latency;
mod memory;
mod null_log;
mod reader;
mod replay;
mod report;
mod rig;
mod rules;
mod screen;

use cli::{Options, Part};
use error::Result;
use report::{Line, Report};
use rig::{Rig, Way};

#[tokio::main]
async fn main() -> ExitCode {
    match bench(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            screen::complain(&error);
            ExitCode::FAILURE
        }
    }
}

async fn bench(options: Options) -> Result<()> {
    let rig = Box::pin(Rig::start()).await?;
    let mut report = Report::new(options.rows)?;
    for part in &options.only {
        screen::say(format_args!("{part:?}"));
        let lines = Box::pin(measure(&rig, *part, &options)).await?;
        report.lines.extend(lines);
    }
    report.show(options.json)?;
    report.compare(&options.recorded)?;
    if options.record {
        report.record(&options.recorded)?;
    }
    Ok(())
}

async fn measure(rig: &Rig, part: Part, options: &Options) -> Result<Vec<Line>> {
    let rows = options.rows;
    let mut lines = Vec::new();
    match part {
        Part::Reader => lines.extend(reader::measure(rig, rows).await?),
        Part::Batch => lines.extend(batch::measure(rig, rows * 2).await?),
        Part::Rules => lines.extend(rules::measure(rig, rows * 2).await?),
        Part::Incumbent => lines.extend(incumbent::measure(rig, rows, options.seconds).await?),
        Part::Growth => lines.extend(growth::measure(rig, rows).await?),
        Part::Drain => {
            for way in Way::BOTH {
                lines.extend(drain::measure(rig, way, rows).await?);
            }
        }
        Part::Latency => {
            for way in Way::BOTH {
                lines.extend(latency::measure(rig, way, options.seconds).await?);
            }
        }
        Part::Alerts => {
            for way in Way::BOTH {
                lines.extend(alerts::measure(rig, way, options.seconds).await?);
            }
        }
        Part::Memory => {
            for way in Way::BOTH {
                lines.extend(memory::measure(rig, way, rows * 4).await?);
            }
        }
    }
    Ok(lines)
}
