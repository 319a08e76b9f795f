//! `walferry pause`, `resume` and `skip`: gives the order and says what follows.

use super::output::Output;
use super::{CliError, Exit};
use crate::config::Config;
use crate::orders::{self, Ordered, Request};

pub(super) async fn run(
    config: &Config,
    request: &Request,
    output: &Output,
) -> Result<Exit, CliError> {
    let ordered = orders::give(config, request).await?;
    if output.is_json() {
        output.json(&ordered)?;
    } else {
        output.text(&shown(config, request, &ordered))?;
    }
    Ok(Exit::Success)
}

fn shown(config: &Config, request: &Request, ordered: &Ordered) -> String {
    let keeps = match config.kafka {
        Some(_) => "Kafka",
        None => "PostgreSQL's slot",
    };
    let text = match (request, ordered.is_news) {
        (Request::Pause { .. }, true) => {
            format!("paused within a second: {keeps} keeps what comes, until `walferry resume`")
        }
        (Request::Pause { .. }, false) => "it is paused already".to_owned(),
        (Request::Resume, true) => "goes on within a second".to_owned(),
        (Request::Resume, false) => "it was not paused".to_owned(),
        (Request::Skip { commit, .. }, true) => format!(
            "{commit} will be passed over when the pipeline comes to it, and kept in _walferry.skipped; \
             start `walferry run` where it has stopped for it, then mend what is missing and run \
             `walferry verify`"
        ),
        (Request::Skip { commit, .. }, false) => {
            format!("{commit} is to be passed over already")
        }
        (Request::Withdraw { commit }, true) => format!("{commit} will be applied"),
        (Request::Withdraw { commit }, false) => {
            format!("nobody asked to pass over {commit}")
        }
    };
    format!("{}: {text}\n", ordered.pipeline)
}
