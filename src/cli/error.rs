//! Why a command failed, as the operator reads it.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use opentelemetry_otlp::ExporterBuildError;
use walferry_core::{Class, Fault};
use walferry_etl::PlanError;

use super::Exit;
use crate::access::AccessError;
use crate::analytics::AnalyticsError;
use crate::backfill::BackfillError;
use crate::config::ConfigError;
use crate::fidelity::LookError;
use crate::status;
use crate::trace::TraceError;
use crate::verify::VerifyError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// The configuration is mistaken.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Tables were named that cannot be used.
    #[error(transparent)]
    Tables(#[from] PlanError),
    /// A change was asked for that cannot be meant.
    #[error(transparent)]
    Trace(TraceError),
    /// The rules of the analytics, or what was asked of them, are mistaken.
    #[error(transparent)]
    Analytics(AnalyticsError),
    /// Somebody ended the changing of roles.
    #[error(transparent)]
    Access(AccessError),
    /// Answers of several rules have several headings.
    #[error("--csv shows the answer of one rule: name one")]
    OneTable,
    /// The engine or a connector failed.
    #[error("{}", .0.error())]
    Fault(Fault),
    /// The runtime could not be made.
    #[error("starting the runtime")]
    Runtime(#[source] io::Error),
    /// The results cannot be written, or nobody reads them.
    #[error("writing to stdout")]
    Output(#[source] io::Error),
    /// There is nothing to draw on.
    #[error(
        "`walferry top` draws on a terminal, and neither into a pipe nor as JSON: there `walferry status --watch` shows \
         the same"
    )]
    NoTerminal,
    /// The terminal does not do what it is told.
    #[error("drawing on the terminal")]
    Terminal(#[source] io::Error),
    /// The man pages cannot be written.
    #[error("writing the man pages into {}", directory.display())]
    Pages {
        /// Where to.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Traces cannot be sent as the environment asks.
    #[error(
        "sending traces to [telemetry] otlp: see the environment's variables that begin with OTEL_"
    )]
    Traces(#[from] ExporterBuildError),
    /// A record vanished while it was shown.
    #[error("the dead-letter topic lost the record while it was read")]
    RecordGone,
    /// Signals cannot be heard.
    #[error("listening to signals")]
    Signals(#[from] io::Error),
}

// === impl CliError ===

impl CliError {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Config(_)
            | Self::Tables(_)
            | Self::Analytics(_)
            | Self::OneTable
            | Self::NoTerminal
            | Self::Traces(_) => Exit::Usage,
            Self::Trace(error) if error.is_mistaken() => Exit::Usage,
            Self::Fault(fault) if fault.class() == Class::Fenced => Exit::Fenced,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Unread,
            _ => Exit::Failed,
        }
    }

    /// What caused it, the nearest cause first; each only once.
    pub(super) fn causes(&self) -> Vec<String> {
        let mut next = match self {
            Self::Fault(fault) => fault.error().source(),
            other => other.source(),
        };
        let mut causes: Vec<String> = Vec::new();
        while let Some(cause) = next {
            let text = cause.to_string();
            if causes.last().is_none_or(|last| !last.contains(&text)) {
                causes.push(text);
            }
            next = cause.source();
        }
        causes
    }

    /// What to do, where the message does not say it already.
    pub(super) fn remedy(&self) -> Option<&'static str> {
        let Self::Fault(fault) = self else {
            return None;
        };
        status::remedy(fault.class())
    }
}

impl From<BackfillError> for CliError {
    fn from(error: BackfillError) -> Self {
        match error {
            BackfillError::Tables(error) => Self::Tables(error),
            BackfillError::Fault(fault) => Self::Fault(fault),
        }
    }
}

impl From<VerifyError> for CliError {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Tables(error) => Self::Tables(error),
            VerifyError::Fault(fault) => Self::Fault(fault),
        }
    }
}

impl From<LookError> for CliError {
    fn from(error: LookError) -> Self {
        match error {
            LookError::Tables(error) => Self::Tables(error),
            LookError::Fault(fault) => Self::Fault(fault),
        }
    }
}

impl From<TraceError> for CliError {
    fn from(error: TraceError) -> Self {
        match error {
            TraceError::Table(error) => Self::Tables(error),
            TraceError::Fault(fault) => Self::Fault(fault),
            other => Self::Trace(other),
        }
    }
}

impl From<AnalyticsError> for CliError {
    fn from(error: AnalyticsError) -> Self {
        match error {
            AnalyticsError::Fault(fault) => Self::Fault(fault),
            other => Self::Analytics(other),
        }
    }
}

impl From<AccessError> for CliError {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Mistaken(error) => Self::Config(error),
            AccessError::Fault(fault) => Self::Fault(fault),
            stopped @ AccessError::Stopped => Self::Access(stopped),
        }
    }
}

impl From<Fault> for CliError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}
