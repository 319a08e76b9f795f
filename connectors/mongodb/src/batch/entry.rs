//! What is to be done with one key of a batch.

use walferry_schema::Position;

use crate::document::Span;

/// What is to be done with one key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) id: Span,
    pub(super) action: Action,
    pub(super) position: Position,
    pub(super) fate: Fate,
}

/// What becomes of an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is written.
    #[default]
    Write,
    /// It becomes a dead letter.
    Park,
    /// Nothing comes of it.
    Drop,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing any more: inserted and deleted.
    Nothing,
    /// A document that is not there yet.
    Insert(Body),
    /// A document that is there gets a new content.
    Replace(Body),
    /// A document that is there gets these fields.
    Update(Body),
    /// A document that is there goes.
    Delete,
}

/// The columns of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Body {
    pub(super) elements: Span,
    /// Where the key columns stand in the elements; none where only all of it is written.
    pub(super) keys: Span,
    pub(crate) is_complete: bool,
}

/// One operation as it is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation<'a> {
    pub(crate) id: &'a [u8],
    pub(super) entry: &'a Entry,
}

// === impl Operation ===

impl Operation<'_> {
    pub(crate) fn action(&self) -> Action {
        self.entry.action
    }

    /// Whether a row begins with it.
    pub(crate) fn is_new(&self) -> bool {
        matches!(self.entry.action, Action::Insert(_) | Action::Replace(_))
    }

    pub(crate) fn position(&self) -> Position {
        self.entry.position
    }
}

// === impl Entry ===

impl Entry {
    /// What it has of the arena.
    pub(super) fn bytes(&self) -> usize {
        let body = self.action.body().map_or(0, |body| body.elements.len());
        self.id.len() + body
    }
}

// === impl Action ===

impl Action {
    /// The columns that are written.
    pub(crate) fn body(mut self) -> Option<Body> {
        self.body_mut().copied()
    }

    pub(super) fn body_mut(&mut self) -> Option<&mut Body> {
        match self {
            Self::Insert(body) | Self::Replace(body) | Self::Update(body) => Some(body),
            Self::Nothing | Self::Delete => None,
        }
    }
}
