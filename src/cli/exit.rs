//! Exit codes. They are part of the interface: scripts and service managers rely on them.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done; for `run`: stopped in order.
    Success = 0,
    /// Something went wrong; the error says what to do.
    Failed = 1,
    /// The command line or the configuration is mistaken: nothing was begun.
    Usage = 2,
    /// `verify` found differences, `fidelity` what may be lost, `preview` a row without a document, `access plan` steps to
    /// take.
    Different = 3,
    /// Another process has taken over this pipeline: do not start this one again.
    Fenced = 4,
    /// `trace` found the change on its way, not applied yet.
    Waiting = 5,
    /// `trace` did not find the change.
    Unknown = 6,
    /// A second signal came before everything had stopped.
    Interrupted = 130,
    /// Whoever read the results has gone: as of a program that `SIGPIPE` ends, and as silently.
    Unread = 141,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
