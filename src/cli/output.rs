//! Results on stdout, errors on stderr.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::{CliError, Exit};
use crate::telemetry::is_coloured;

/// Where results and errors go, and in which form.
pub(super) struct Output {
    is_json: bool,
}

/// Rows of text under a heading, in columns.
pub(super) struct Grid {
    rows: Vec<Vec<String>>,
    is_text: bool,
}

// === impl Output ===

impl Output {
    pub(super) fn new(is_json: bool) -> Self {
        Self { is_json }
    }

    pub(super) fn is_json(&self) -> bool {
        self.is_json
    }

    /// Whether something that moves can be shown on stderr.
    pub(super) fn is_live(&self) -> bool {
        !self.is_json && io::stderr().is_terminal()
    }

    /// Whether results go to a terminal.
    #[allow(
        clippy::unused_self,
        reason = "as the results, what is known of stdout goes through one place"
    )]
    pub(super) fn is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// Writes one JSON object.
    pub(super) fn json(&self, value: &impl Serialize) -> Result<(), CliError> {
        self.text(&format!("{}\n", json(value)?))
    }

    /// Writes text as it is.
    pub(super) fn text(&self, text: &str) -> Result<(), CliError> {
        self.bytes(text.as_bytes())
    }

    /// The same of bytes that are a part of a text.
    #[allow(
        clippy::unused_self,
        reason = "what is written goes through the one who knows where"
    )]
    pub(super) fn bytes(&self, bytes: &[u8]) -> Result<(), CliError> {
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(bytes)
            .and_then(|()| stdout.flush())
            .map_err(CliError::Output)
    }

    /// Says on stderr what is no result.
    #[allow(
        clippy::unused_self,
        reason = "as the results, what is said beside them goes through one place"
    )]
    pub(super) fn note(&self, text: &str) {
        // Nobody is left to tell when stderr is gone.
        writeln!(io::stderr(), "{text}").unwrap_or_default();
    }

    /// Shows an error on stderr, unless nobody wants to read on; its exit code.
    #[allow(
        clippy::unused_self,
        reason = "as the results, errors go through one place"
    )]
    pub(super) fn error(&self, error: &CliError) -> Exit {
        let exit = error.exit();
        if exit == Exit::Unread {
            return exit;
        }
        let mut stderr = io::stderr().lock();
        let (red, plain) = if is_coloured(&stderr) {
            ("\x1b[1;31m", "\x1b[0m")
        } else {
            ("", "")
        };
        // Writing to a string never fails.
        let mut text = format!("{red}error:{plain} {error}\n");
        for cause in error.causes() {
            let _ = writeln!(text, "  cause: {cause}");
        }
        if let Some(remedy) = error.remedy() {
            let _ = writeln!(text, "  to do: {remedy}");
        }
        // Nobody is left to tell when stderr is gone.
        stderr.write_all(text.as_bytes()).unwrap_or_default();
        exit
    }
}

// === impl Grid ===

impl Grid {
    pub(super) fn new(heading: &[&str]) -> Self {
        Self {
            rows: vec![heading.iter().map(ToString::to_string).collect()],
            is_text: false,
        }
    }

    /// A grid that is read as text, all columns to the left.
    pub(super) fn of_text(heading: &[&str]) -> Self {
        Self {
            is_text: true,
            ..Self::new(heading)
        }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

/// The first column to the left, the others to the right, as numbers stand; text all to the left.
impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length =
            |row: &Vec<String>, at: usize| row.get(at).map_or(0, |cell| cell.chars().count());
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column| {
            self.rows
                .iter()
                .map(|row| length(row, column))
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                match column {
                    0 => write!(line, "{cell:<width$}")?,
                    _ if self.is_text => write!(line, "  {cell:<width$}")?,
                    _ => write!(line, "  {cell:>width$}")?,
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A value as JSON on one line.
pub(super) fn json(value: &impl Serialize) -> Result<String, CliError> {
    written(serde_json::to_string(value))
}

/// A value as JSON for people.
pub(super) fn pretty_json(value: &impl Serialize) -> Result<String, CliError> {
    written(serde_json::to_string_pretty(value))
}

fn written(text: serde_json::Result<String>) -> Result<String, CliError> {
    text.map_err(io::Error::from).map_err(CliError::Output)
}

/// A number with its thousands apart: `1,234,567`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size with its unit; a dash when it is not known.
pub(super) fn bytes(size: Option<u64>) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let Some(size) = size else {
        return "-".to_owned();
    };
    let unit = UNITS.into_iter().find(|(unit, _)| size >= *unit);
    unit.map_or(format!("{size} B"), |(unit, name)| {
        format!("{}.{} {name}", size / unit, size % unit * 10 / unit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_under_one_another() {
        let mut grid = Grid::new(&["table", "rows"]);
        grid.row(["public.customers".into(), thousands(3_848)]);
        grid.row(["a".into(), thousands(7)]);
        let expected =
            "table              rows\npublic.customers  3,848\na                     7\n";
        assert_eq!(grid.to_string(), expected);
    }

    #[test]
    fn thousands_are_apart() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ];
        for (number, text) in cases {
            assert_eq!(thousands(number), text);
        }
    }

    #[test]
    fn a_size_has_the_largest_unit_that_fits() {
        let cases = [
            (None, "-"),
            (Some(1_023), "1023 B"),
            (Some(1_536), "1.5 KiB"),
            (Some(5 << 30), "5.0 GiB"),
        ];
        for (size, text) in cases {
            assert_eq!(bytes(size), text);
        }
    }
}
