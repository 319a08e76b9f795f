//! Why an attempt at a transaction ends without a commit.

use std::sync::Arc;

use crate::Error;
use crate::suspects::Suspects;

/// Why an attempt ended without a commit.
pub(crate) enum Stop {
    /// The position document did not match.
    NoMatch,
    /// Documents are not as the batch expects them.
    Mismatch,
    /// A document cannot be written.
    Unwritable(Box<Unwritable>),
    /// One of several documents cannot be written, and the server does not say which.
    Unclear(Suspects),
    /// Anything else.
    Failed(Error),
}

/// A document that cannot be written.
#[derive(Debug)]
pub(crate) struct Unwritable {
    /// The place of its segment.
    pub(crate) segment: usize,
    /// The collection; a segment may have several.
    pub(crate) collection: Arc<str>,
    pub(crate) id: Vec<u8>,
    pub(crate) error: Error,
}

// === impl Stop ===

impl Stop {
    /// What an error says of the write of a document.
    pub(crate) fn of_document(collection: &Arc<str>, id: &[u8], error: Error) -> Self {
        if !error.is_of_document() {
            return Self::Failed(error);
        }
        Self::Unwritable(Box::new(Unwritable {
            segment: 0,
            collection: collection.clone(),
            id: id.to_vec(),
            error,
        }))
    }

    /// The same, met in the collection at a place of its segment.
    pub(crate) fn in_collection(mut self, at: usize) -> Self {
        if let Self::Unclear(suspects) = &mut self {
            suspects.collection = at;
        }
        self
    }

    /// The same, met in the segment at a place.
    pub(crate) fn in_segment(mut self, at: usize) -> Self {
        match &mut self {
            Self::Unwritable(unwritable) => unwritable.segment = at,
            Self::Unclear(suspects) => suspects.segment = at,
            _ => {}
        }
        self
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}
