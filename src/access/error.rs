//! Why roles are not as they are configured.

use walferry_core::{Class, Classify, Fault};

use crate::config::ConfigError;

/// Why roles are not as they are configured.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// They cannot be: they name what is not there, or what cannot be.
    #[error(transparent)]
    Mistaken(#[from] ConfigError),
    /// Somebody ended it.
    #[error("stopped before everything was done: run the command again to go on")]
    Stopped,
    /// A server failed or refused.
    #[error("{}", .0.error())]
    Fault(Fault),
}

// === impl AccessError ===

impl Classify for AccessError {
    fn class(&self) -> Class {
        match self {
            Self::Fault(fault) => fault.class(),
            Self::Mistaken(_) | Self::Stopped => Class::Fatal,
        }
    }
}

impl From<Fault> for AccessError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<walferry_mongodb::Error> for AccessError {
    fn from(error: walferry_mongodb::Error) -> Self {
        Self::Fault(error.into())
    }
}
