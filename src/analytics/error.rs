//! Why there are no answers.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::io;
use std::path::PathBuf;

use walferry_core::{Class, Classify, Fault};
use walferry_etl::analytics::{Mistake, ParameterError, Unknown};

/// Why there are no answers.
#[derive(Debug, thiserror::Error)]
pub enum AnalyticsError {
    /// The configuration names no rules.
    #[error(
        "the configuration {} has no [analytics]: add\n  [analytics]\n  rules = \"etl/analytics\"\nwhere the directory, \
         beside the configuration, holds the rules",
        file.display()
    )]
    NotConfigured {
        /// The configuration.
        file: PathBuf,
    },
    /// The rules cannot be read.
    #[error("reading the rules in {}: analytics.rules names the directory", path.display())]
    Read {
        /// The directory, or one of its files.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There are none.
    #[error("there are no rules in {}: each is a file that ends with .json", directory.display())]
    Empty {
        /// The directory.
        directory: PathBuf,
    },
    /// Some of them are mistaken.
    #[error("{}", listed(.0))]
    Mistaken(Vec<Mistake>),
    /// A rule was named that is none.
    #[error(transparent)]
    Unknown(#[from] Unknown),
    /// A parameter was given that cannot be.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// Somebody ended it.
    #[error("stopped before every rule was looked at")]
    Stopped,
    /// MongoDB or a rule in it failed.
    #[error("{}", .0.error())]
    Fault(Fault),
}

/// A rule that cannot be answered.
#[derive(Debug, thiserror::Error)]
#[error("asking {rule}: `walferry analytics check` names the place of a mistake")]
pub(super) struct Unanswered {
    pub(super) rule: String,
    pub(super) source: walferry_mongodb::Error,
}

/// A rule that reads what is not there.
#[derive(Debug, thiserror::Error)]
#[error("{rule} is not asked: {why}")]
pub(super) struct NotAsked {
    pub(super) rule: String,
    pub(super) why: String,
}

// === impl NotAsked ===

impl Classify for NotAsked {
    fn class(&self) -> Class {
        Class::Fatal
    }
}

// === impl Unanswered ===

impl Classify for Unanswered {
    fn class(&self) -> Class {
        self.source.class()
    }
}

// === impl AnalyticsError ===

impl AnalyticsError {
    /// The error with its causes, as a log line has them.
    pub(super) fn told(&self) -> String {
        match (self, self.source()) {
            (Self::Fault(fault), _) => fault.to_string(),
            (other, Some(cause)) => format!("{other}: {cause}"),
            (other, None) => other.to_string(),
        }
    }
}

impl From<Fault> for AnalyticsError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<walferry_mongodb::Error> for AnalyticsError {
    fn from(error: walferry_mongodb::Error) -> Self {
        Self::Fault(error.into())
    }
}

fn listed(mistakes: &[Mistake]) -> impl fmt::Display {
    let count = match mistakes.len() {
        1 => "a mistake".to_owned(),
        many => format!("{many} mistakes"),
    };
    let mut text = format!("the rules have {count}:");
    for mistake in mistakes {
        // Writing to a string never fails.
        let _ = write!(text, "\n  {mistake}");
    }
    text
}
