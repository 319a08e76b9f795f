//! The error of every fake.

use crate::{Class, Classify, Fault};

/// What a fake was told to fail with, or the contract that its caller broke.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct FakeError {
    class: Class,
    message: String,
}

// === impl FakeError ===

impl FakeError {
    pub(super) fn fault(class: Class, message: impl Into<String>) -> Fault {
        Self {
            class,
            message: message.into(),
        }
        .into()
    }

    pub(super) fn transient(message: impl Into<String>) -> Fault {
        Self::fault(Class::Transient, message)
    }

    pub(super) fn fatal(message: impl Into<String>) -> Fault {
        Self::fault(Class::Fatal, message)
    }
}

impl Classify for FakeError {
    fn class(&self) -> Class {
        self.class
    }
}
