//! Orders to a pipeline, which it finds in MongoDB within a second: running or not, here or elsewhere.

use std::time::SystemTime;

use serde::Serialize;
use walferry_core::{Checkpoint, Class, Classify, Fault, Held, Order};
use walferry_mongodb::OrderBook;
use walferry_schema::{CommitId, Phase};

use crate::config::Config;
use crate::pipeline::connect::mongodb_settings;

/// What is asked of a pipeline.
#[derive(Clone, Debug)]
pub enum Request {
    /// Apply nothing more.
    Pause {
        /// Why.
        reason: Option<String>,
    },
    /// Go on.
    Resume,
    /// Pass over a transaction.
    Skip {
        /// The transaction.
        commit: CommitId,
        /// Why.
        reason: Option<String>,
    },
    /// Apply it after all.
    Withdraw {
        /// The transaction.
        commit: CommitId,
    },
}

/// What became of a request.
#[derive(Clone, Debug, Serialize)]
pub struct Ordered {
    /// The pipeline.
    pub pipeline: String,
    /// Whether it changed anything; an order that stands already stays as it is.
    pub is_news: bool,
}

/// Why an order cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// Nothing was applied yet.
    #[error(
        "MongoDB holds no position of pipeline {pipeline}: nothing was applied yet, so that there is no \
         transaction to pass over"
    )]
    NoPosition {
        /// The pipeline.
        pipeline: String,
    },
    /// The transaction is not of this history.
    #[error(
        "{commit} is of generation {}, the pipeline is in generation {generation}: take the name from the \
         present error", commit.generation
    )]
    OtherGeneration {
        /// The transaction.
        commit: CommitId,
        /// The pipeline's generation.
        generation: u64,
    },
    /// The transaction was applied, or passed over.
    #[error("the pipeline is past {commit} already: it has applied everything up to {position}")]
    Past {
        /// The transaction.
        commit: CommitId,
        /// The last one.
        position: String,
    },
}

impl Classify for OrderError {
    fn class(&self) -> Class {
        Class::Fatal
    }
}

/// Gives an order to the pipeline of a configuration.
///
/// # Errors
/// When MongoDB cannot be asked, or the order makes no sense for the pipeline as it stands.
pub async fn give(config: &Config, request: &Request) -> Result<Ordered, Fault> {
    let book = Box::pin(OrderBook::connect(mongodb_settings(config))).await?;
    let is_news = match request {
        Request::Pause { reason } => book.pause(&order(reason.as_deref())).await?,
        Request::Resume => book.resume().await?,
        Request::Skip { commit, reason } => {
            check_to_come(config, &book, *commit).await?;
            book.skip(*commit, &order(reason.as_deref())).await?
        }
        Request::Withdraw { commit } => {
            check_to_come(config, &book, *commit).await?;
            book.withdraw(*commit).await?
        }
    };
    let pipeline = config.pipeline();
    Ok(Ordered { pipeline, is_news })
}

/// Sees that the pipeline has yet to come to a transaction.
async fn check_to_come(config: &Config, book: &OrderBook, commit: CommitId) -> Result<(), Fault> {
    let Some(checkpoint) = book.position().await?.filter(|it| it.generation > 0) else {
        let pipeline = config.pipeline();
        return Err(OrderError::NoPosition { pipeline }.into());
    };
    Ok(judge(&checkpoint, commit)?)
}

fn judge(checkpoint: &Checkpoint, commit: CommitId) -> Result<(), OrderError> {
    let generation = checkpoint.generation;
    if commit.generation != generation {
        return Err(OrderError::OtherGeneration { commit, generation });
    }
    match checkpoint.held(commit.generation, Phase::Stream(commit.lsn)) {
        Held::All => {
            let position = checkpoint.position.map(|it| it.to_string());
            let position = position.unwrap_or_default();
            Err(OrderError::Past { commit, position })
        }
        _ => Ok(()),
    }
}

pub(crate) fn order(reason: Option<&str>) -> Order {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default().as_millis();
    Order {
        by: who(),
        at: i64::try_from(now).unwrap_or(i64::MAX),
        reason: reason.map(str::to_owned),
    }
}

/// Who asks: the user and the machine, as far as the environment tells.
fn who() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"];
    let user = user.iter().find_map(|name| std::env::var(name).ok());
    let user = user.unwrap_or_else(|| "somebody".to_owned());
    match std::fs::read_to_string("/proc/sys/kernel/hostname") {
        Ok(host) => format!("{user}@{}", host.trim()),
        Err(_) => user,
    }
}

#[cfg(test)]
mod tests {
    use walferry_schema::{Lsn, Position};

    use super::*;

    #[test]
    fn only_a_transaction_that_is_to_come_is_passed_over() {
        let commit = |generation, lsn| CommitId {
            generation,
            lsn: Lsn(lsn),
        };
        let checkpoint = Checkpoint {
            generation: 7,
            position: Some(Position::end_of(7, Phase::Stream(Lsn(100)))),
            ..Checkpoint::blank()
        };
        assert!(judge(&checkpoint, commit(7, 101)).is_ok());
        for past in [99, 100] {
            let error = judge(&checkpoint, commit(7, past));
            assert!(matches!(error, Err(OrderError::Past { .. })), "{error:?}");
        }
        let other = judge(&checkpoint, commit(6, 101));
        let other = other.expect_err("another generation").to_string();
        assert!(
            other.contains("generation 6") && other.contains("generation 7"),
            "{other}"
        );
    }
}
