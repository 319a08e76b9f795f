//! What the bench says: progress on standard error, results on standard output.

use std::fmt::Display;
use std::io::Write;

/// Tells how far the run is. A terminal that went away is no reason to stop measuring.
pub(crate) fn say(progress: impl Display) {
    let _ = writeln!(std::io::stderr(), "bench: {progress}");
}

/// A line of the result.
pub(crate) fn line(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// An error with its causes.
pub(crate) fn complain(error: &dyn std::error::Error) {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    say(text);
}
