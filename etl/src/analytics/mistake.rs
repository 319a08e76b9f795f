//! What is wrong with a rule, and where.

use std::fmt;

use serde::Serialize;

use super::json::Place;

/// A mistake in a rule's file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Mistake {
    /// The file.
    pub file: String,
    /// Where in it.
    #[serde(flatten)]
    pub place: Place,
    /// What is wrong, and what would be right where that can be said.
    pub message: String,
}

/// The same while the file is read, which need not know its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) place: Place,
    pub(super) message: String,
}

// === impl Mistake ===

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            place: Place { line, column },
            message,
        } = self;
        write!(f, "{file}:{line}:{column}: {message}")
    }
}

// === impl Flaw ===

impl Flaw {
    pub(super) fn new(place: Place, message: impl Into<String>) -> Self {
        Self {
            place,
            message: message.into(),
        }
    }

    pub(super) fn of(self, file: &str) -> Mistake {
        Mistake {
            file: file.to_owned(),
            place: self.place,
            message: self.message,
        }
    }
}
