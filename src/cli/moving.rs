//! `walferry move`: moves and says what to do next.

use walferry_core::Tasks;

use super::output::Output;
use super::{CliError, Exit};
use crate::config::Config;
use crate::moving::{self, Destination, Moved};

pub(super) async fn run(
    config: &Config,
    to: Destination,
    tasks: &Tasks,
    output: &Output,
) -> Result<Exit, CliError> {
    let moved = moving::run(config, to, tasks).await?;
    if output.is_json() {
        output.json(&moved)?;
    } else {
        output.text(&shown(&moved))?;
    }
    Ok(Exit::Success)
}

fn shown(moved: &Moved) -> String {
    let next = match moved.to {
        Destination::Kafka => "start `walferry run` with this configuration",
        Destination::Direct => {
            "remove the [kafka] section from the configuration, then start `walferry run`"
        }
    };
    format!(
        "moved: everything before {} is applied\nnext: {next}\n",
        moved.lsn
    )
}
