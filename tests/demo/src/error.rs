//! Why the demo could not go on.

use std::process::ExitStatus;
use std::time::Duration;

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the demo could not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("running the private servers")]
    Harness(#[from] walferry_harness::Error),
    #[error("{doing}")]
    Io {
        doing: String,
        source: std::io::Error,
    },
    #[error("asking PostgreSQL")]
    Postgres(#[from] tokio_postgres::Error),
    #[error("asking MongoDB")]
    Mongo(#[from] mongodb::error::Error),
    #[error("`{command}` failed with {status}")]
    Step { command: String, status: ExitStatus },
    #[error("walferry ended early with {status}; the end of its log:\n{tail}")]
    WalferryEnded { status: ExitStatus, tail: String },
    #[error("{what}: not within {after:?}; the end of walferry's log:\n{tail}")]
    TooLate {
        what: String,
        after: Duration,
        tail: String,
    },
    #[error(
        "column {column} has the type {kind}, which the comparison does not know: teach it to tests/demo/src/render.rs"
    )]
    UnknownType { column: String, kind: String },
}

impl Error {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}
