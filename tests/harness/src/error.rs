//! What can go wrong with a private server, said so that the reader of a test's output can act.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// The harness's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a server could not be started, reached or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program or library that `make setup` installs is not there.
    #[error("{what} is missing (looked at {looked_at}): run `make setup`")]
    NotSetUp {
        /// What is missing.
        what: &'static str,
        /// Where it was expected.
        looked_at: String,
    },
    /// A file, directory or process could not be made or read.
    #[error("{doing}")]
    Io {
        /// What was being done, with the path.
        doing: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A helper program failed.
    #[error("{program} failed with {status}:\n{output}")]
    Failed {
        /// The program's name.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote.
        output: String,
    },
    /// A server ended before it was ready.
    #[error("{name} ended early with {status}; the end of {}:\n{tail}", log.display())]
    Exited {
        /// The server's name.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// What was waited for did not happen.
    #[error("timed out after {after:?} waiting for {what}{}", last.as_ref().map(|l| format!("; last: {l}")).unwrap_or_default())]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
        /// What the last try said.
        last: Option<String>,
    },
    /// A certificate could not be made.
    #[error("making a certificate")]
    Certificate(#[from] rcgen::Error),
    /// PostgreSQL refused a connection or a statement.
    #[error("talking to PostgreSQL")]
    Postgres(#[from] tokio_postgres::Error),
    /// MongoDB refused a command.
    #[error("talking to MongoDB")]
    Mongo(#[from] mongodb::error::Error),
}

impl Error {
    /// Wraps the system's answer with what was being done.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
