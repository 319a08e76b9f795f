//! Errors with a class, so that one place can decide what follows.

use std::error::Error;
use std::fmt;

/// What can be done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Likely to pass: reconnect and go on.
    Transient,
    /// One change cannot be carried; the same change would fail again.
    Poison,
    /// A file that a connection needs cannot be used. At a start an operator must act; of a process that could use it
    /// before, somebody may just be replacing it.
    File,
    /// An operator must act; the message says how.
    Fatal,
    /// Another writer has taken over this pipeline: stop for good and do not come back.
    Fenced,
}

/// An error that knows its class.
pub trait Classify: Error + Send + Sync + 'static {
    /// The class of this error.
    fn class(&self) -> Class;
}

/// Any connector's error, with its class; shows the error itself.
pub struct Fault {
    class: Class,
    error: Box<dyn Error + Send + Sync>,
}

// === impl Fault ===

impl Fault {
    /// The class of the error.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The error itself.
    pub fn error(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.error
    }
}

impl<E: Classify> From<E> for Fault {
    fn from(error: E) -> Self {
        Self {
            class: error.class(),
            error: Box::new(error),
        }
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.class, self)
    }
}

/// The error and its causes, joined by colons.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        let mut cause = self.error.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
