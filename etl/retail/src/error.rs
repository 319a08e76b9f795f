//! What can go wrong, in the words of who has to act on it.

use std::io;
use std::path::PathBuf;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL of the database cannot be read.
    #[error("reading the URL of the database (postgres://user@host:port/database is expected)")]
    Url(#[source] tokio_postgres::Error),
    /// PostgreSQL cannot be reached or refuses the login.
    #[error("connecting to PostgreSQL")]
    Connect(#[source] tokio_postgres::Error),
    /// One file of the schema failed; none was applied.
    #[error("applying {file} (a superuser is needed)")]
    Install {
        /// Its name in `schema/retail`.
        file: &'static str,
        /// PostgreSQL's answer.
        source: tokio_postgres::Error,
    },
    /// A file could not be written.
    #[error("writing {}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The header line does not name the columns of the table.
    #[error("{}, line 1: {reason}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A row of a file is not a row of its table; nothing was loaded.
    #[error("loading {}{place}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Line and column as PostgreSQL names them, or nothing.
        place: String,
        /// PostgreSQL's answer.
        source: tokio_postgres::Error,
    },
    /// The database knows another sale under the id of a row; nothing was loaded.
    #[error(
        "loading {}: transaction {id} is another sale in the database; load into a database without live sales",
        path.display()
    )]
    OtherSale {
        /// The file.
        path: PathBuf,
        /// The id of the first such sale.
        id: i32,
    },
    /// There is nothing to sell, or nobody to sell to.
    #[error("there is no {missing} to sell with; load data first")]
    NothingToSell {
        /// What there is none of.
        missing: &'static str,
    },
    /// The data has nobody or nothing for a scene of the story; nothing was told.
    #[error(
        "there is no {missing} for the scene {scene:?}; load the published data, or generate 1000 sales or more"
    )]
    NoScene {
        /// What happens in it.
        scene: &'static str,
        /// What there is none of.
        missing: &'static str,
    },
    /// A statement failed.
    #[error("{doing}")]
    Database {
        /// What it was for.
        doing: &'static str,
        /// PostgreSQL's answer.
        source: tokio_postgres::Error,
    },
    /// A second signal came while the work of the first was being brought to its end.
    #[error("interrupted while stopping")]
    Interrupted,
    /// Writing the result failed.
    #[error("printing the result")]
    Print(#[source] io::Error),
}

// === impl Error ===

impl Error {
    pub(crate) fn database(doing: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |source| Self::Database { doing, source }
    }
}

/// The error and its causes on one line, as an operator reads it.
pub fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let reason = error.to_string();
        // tokio-postgres puts this in front of the server's own words.
        if reason != "db error" {
            text = format!("{text}: {reason}");
        }
        cause = error.source();
    }
    text.replace('\n', "; ")
}
