//! What can go wrong with roles and their views.

use std::fmt;

use walferry_core::{Class, Classify};

use super::{Made, Step};
use crate::Error;

/// Roles that cannot be made as they should be.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Names are another's.
    #[error("{}", listed(.0))]
    Taken(Vec<Taken>),
    /// The user may not do it.
    #[error(
        "{doing}: MongoDB says {what:?}; it takes the role dbOwner on the database, and readWrite on _walferry: \
         db.getSiblingDB(\"admin\").grantRolesToUser(\"<the user>\", [{{role: \"dbOwner\", db: \"{database}\"}}, {{role: \
         \"readWrite\", db: \"_walferry\"}}])"
    )]
    Denied {
        /// What was being done.
        doing: String,
        /// What the server says.
        what: String,
        /// The database of the collections.
        database: String,
    },
    /// A step failed; the next `apply` goes on from there.
    #[error("{doing}; what was done before it stays, run the command again to go on")]
    Step {
        /// What was being done.
        doing: String,
        /// Why.
        source: Box<Error>,
    },
}

/// A name that something else has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// What was to be made.
    pub made: Made,
    /// The slot of the pipeline that it was made for; none when it was not made here, or is a collection.
    pub by: Option<String>,
}

// === impl AccessError ===

impl AccessError {
    /// What an error says of a step.
    pub(super) fn of(step: &Step, database: &str, error: Error) -> Error {
        match Self::of_looking(step.to_string(), database, error) {
            Error::Access(error) => error.into(),
            other => {
                let (doing, source) = (step.to_string(), Box::new(other));
                Self::Step { doing, source }.into()
            }
        }
    }

    /// What an error says of something that changes nothing.
    pub(super) fn of_looking(doing: impl Into<String>, database: &str, error: Error) -> Error {
        let Error::Denied { what, .. } = error else {
            return error;
        };
        let denied = Self::Denied {
            doing: doing.into(),
            what,
            database: database.to_owned(),
        };
        denied.into()
    }
}

impl Classify for AccessError {
    fn class(&self) -> Class {
        match self {
            Self::Step { source, .. } => source.class(),
            _ => Class::Fatal,
        }
    }
}

// === impl Taken ===

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let made = &self.made;
        match &self.by {
            Some(slot) => write!(
                f,
                "{made} is there for the pipeline with the slot {slot}: give the role here another name, or run `walferry \
                 access drop` with the configuration of that one"
            ),
            None => write!(
                f,
                "{made} cannot be made: the name is taken by something that `walferry access` did not make; give the role \
                 another name, or drop that"
            ),
        }
    }
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Role(role) => write!(f, "the role {role}"),
            Self::View(view) => write!(f, "the view {view}"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DropRole { role } => write!(f, "dropping the role {role}"),
            Self::Narrow { role, .. } | Self::Widen { role, .. } => {
                write!(f, "changing the role {role}")
            }
            Self::DropView { view } => write!(f, "dropping the view {view}"),
            Self::MakeView { view, .. } => write!(f, "making the view {view}"),
            Self::ChangeView { view, .. } => write!(f, "changing the view {view}"),
            Self::MakeRole { role, .. } => write!(f, "making the role {role}"),
            Self::Forget { made } => write!(f, "forgetting {made}"),
        }
    }
}

fn listed(taken: &[Taken]) -> String {
    let lines: Vec<_> = taken.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
