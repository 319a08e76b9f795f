//! Standard output: lines, and in a terminal a block of lines that is drawn over itself.

use std::error::Error;
use std::io::{IsTerminal, Write};

/// Says what is being done.
pub(crate) fn say(line: impl std::fmt::Display) {
    write(&format!("demo: {line}\n"));
}

/// Writes a line as it is.
pub(crate) fn line(line: impl std::fmt::Display) {
    write(&format!("{line}\n"));
}

/// Writes an error and its causes to standard error.
pub(crate) fn complain(error: &dyn Error) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    let _ = writeln!(std::io::stderr().lock(), "demo: {text}");
}

/// A block of lines at the bottom of the terminal.
#[derive(Debug, Default)]
pub(crate) struct Block {
    height: usize,
}

impl Block {
    /// Whether standard output can be drawn over.
    pub(crate) fn is_possible() -> bool {
        std::io::stdout().is_terminal()
    }

    /// Draws the lines over those of the last call.
    pub(crate) fn draw(&mut self, lines: &[String]) {
        let up = if self.height > 0 {
            format!("\x1b[{}A", self.height)
        } else {
            String::new()
        };
        let text = lines.join("\n\x1b[2K");
        write(&format!("{up}\x1b[2K{text}\n\x1b[J"));
        self.height = lines.len();
    }
}

/// A reader that has gone (`make demo | head`) is no reason to leave servers behind.
fn write(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
}
