//! What can go wrong with questions and their answers.

use mongodb::error::ErrorKind;
use walferry_core::{Class, Classify};

use super::SNAPSHOT_TOO_OLD;
use crate::Error;
use crate::error::code;

/// The server's codes of a pipeline that would be fine by itself: the server is busy, going, or not asked at all.
const NOT_OF_PIPELINE: [i32; 4] = [13, 18, 50, 8_000];

/// A question that cannot be asked, or an answer that cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum AnalyticsError {
    /// A collection has the name of a view, or a view that was not made here.
    #[error(
        "the view {view} cannot be made: a collection of that name is there, or a view that no rule made; rename the view's \
         file, or what is there"
    )]
    ViewTaken {
        /// The view.
        view: String,
    },
    /// The user may not make views.
    #[error(
        "making the view {view}: MongoDB says {what:?}; grant walferry's user the roles readWrite and dbAdmin on the \
         database, or createCollection, collMod and find there"
    )]
    ViewDenied {
        /// The view.
        view: String,
        /// What the server says.
        what: String,
    },
    /// The server does not take a view.
    #[error("making the view {view}")]
    View {
        /// The view.
        view: String,
        /// Why.
        source: Box<Error>,
    },
    /// The server does not take an index.
    #[error("making the index {index} of {collection}")]
    Index {
        /// The collection.
        collection: String,
        /// The index.
        index: String,
        /// Why.
        source: Box<Error>,
    },
    /// Documents that nobody here wrote are where an answer should be kept.
    #[error(
        "{collection} was not made for the answers of rules, or was restored from a backup: give the rule another output, \
         or drop the collection: it is made anew"
    )]
    OutputTaken {
        /// The collection.
        collection: String,
    },
    /// A document of an answer that cannot be kept.
    #[error("a document of the answer {wanted}: {document}")]
    Unfit {
        /// What is wrong with it.
        wanted: String,
        /// The document.
        document: String,
    },
    /// Some of an answer is gone before it was kept.
    #[error(
        "of {rows} documents of the answer {counted} stand aside: nothing was removed, and the next refresh asks again"
    )]
    AsideLost {
        /// How many there were.
        rows: u64,
        /// How many there are.
        counted: u64,
    },
    /// MongoDB shows the moment no more, or not yet of all that is asked about.
    #[error(
        "MongoDB has the moment no more, or a collection was made after it: the next look asks about another"
    )]
    MomentGone {
        /// What the server says.
        source: mongodb::error::Error,
    },
    /// MongoDB has forgotten the moment before the answer was read.
    #[error(
        "the answer took longer than MongoDB keeps the moment that it is about (five minutes by default): have the rule read \
         less, or raise minSnapshotHistoryWindowInSeconds of the server"
    )]
    TooSlow {
        /// What the server says.
        source: mongodb::error::Error,
    },
    /// Two documents of an answer are the same one.
    #[error("two documents of the answer have the same _id: {message}")]
    Twice {
        /// What the server says.
        message: String,
    },
}

// === impl AnalyticsError ===

impl AnalyticsError {
    pub(super) fn view_taken(view: &str) -> Self {
        let view = view.to_owned();
        Self::ViewTaken { view }
    }

    /// What an error says of the making of a view.
    pub(super) fn of_view(view: &str, error: Error) -> Error {
        let view = view.to_owned();
        let error = match error {
            Error::Denied { what, .. } => Self::ViewDenied { view, what },
            other => Self::View {
                view,
                source: Box::new(other),
            },
        };
        error.into()
    }

    /// What an error says of the answer that was being read.
    pub(super) fn of_answer(error: Error) -> Error {
        match error {
            Error::Server { source, .. } | Error::Analytics(Self::MomentGone { source })
                if code(&source) == Some(SNAPSHOT_TOO_OLD) =>
            {
                Self::TooSlow { source }.into()
            }
            other => other,
        }
    }

    /// What an error says of the making of an index.
    pub(super) fn of_index(collection: &str, fields: &[String], error: Error) -> Error {
        let index = Self::Index {
            collection: collection.to_owned(),
            index: fields.join("_"),
            source: Box::new(error),
        };
        index.into()
    }
}

impl Classify for AnalyticsError {
    fn class(&self) -> Class {
        match self {
            Self::View { source, .. } | Self::Index { source, .. } => source.class(),
            Self::MomentGone { .. } => Class::Transient,
            _ => Class::Fatal,
        }
    }
}

/// What the server says of a pipeline itself; none when the error is about something else.
pub(super) fn refusal(error: &Error) -> Option<String> {
    let Error::Server { source, .. } = error else {
        return None;
    };
    let is_other = |code| NOT_OF_PIPELINE.contains(&code);
    if error.class() != Class::Fatal || code(source).is_none_or(is_other) {
        return None;
    }
    match source.kind.as_ref() {
        ErrorKind::Command(command) => Some(command.message.clone()),
        _ => None,
    }
}
