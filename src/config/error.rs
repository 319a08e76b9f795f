//! What is wrong with a configuration, all of it at once.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("reading the configuration {}; name another file with --config", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("reading the configuration {} as TOML: {message}", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// Where and why, without the line itself, which may hold a secret.
        message: String,
    },
    /// The file and the environment together have mistakes.
    #[error("{}", listed(file, problems))]
    Invalid {
        /// The file.
        file: PathBuf,
        /// The mistakes.
        problems: Vec<Problem>,
    },
}

/// A mistake at a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, as `section.key`, or an environment variable.
    pub key: String,
    /// What is wrong and what would be right; never a value that may be secret.
    pub message: String,
}

// === impl ConfigError ===

impl ConfigError {
    /// TOML's errors quote the line between their first line and their last.
    pub(super) fn syntax(file: &Path, error: &config::ConfigError) -> Self {
        let text = error.to_string();
        let is_message = |line: &&str| !line.is_empty() && !line.contains('|');
        let lines: Vec<_> = text.lines().map(str::trim).filter(is_message).collect();
        Self::Syntax {
            file: file.to_owned(),
            message: lines.join(": "),
        }
    }
}

// === impl Problem ===

impl Problem {
    pub(crate) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

fn listed(file: &Path, problems: &[Problem]) -> String {
    let count = match problems.len() {
        1 => "a mistake".to_owned(),
        many => format!("{many} mistakes"),
    };
    let mut text = format!("the configuration {} has {count}:", file.display());
    for problem in problems {
        // Writing to a string never fails.
        let _ = write!(text, "\n  {problem}");
    }
    text
}
