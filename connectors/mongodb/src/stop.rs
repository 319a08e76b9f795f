//! Why an attempt at a transaction ends without a commit.

use crate::Error;

/// Why an attempt ended without a commit.
pub(crate) enum Stop {
    /// The position document did not match.
    NoMatch,
    /// Documents are not as the batch expects them.
    Mismatch,
    /// Anything else.
    Failed(Error),
}

// === impl Stop ===

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}
