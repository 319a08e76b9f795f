//! `walferry check`: what was found, and what would mend it.

use std::fmt::Write as _;
use std::io;

use walferry_core::{Finding, Tasks, Verdict};

use super::output::Output;
use super::{CliError, Exit};
use crate::check::{self, Report};
use crate::config::Config;
use crate::telemetry::is_coloured;

pub(super) async fn run(config: &Config, tasks: &Tasks, output: &Output) -> Result<Exit, CliError> {
    let report = check::run(config, tasks).await;
    if output.is_json() {
        output.json(&report)?;
    } else {
        output.text(&shown(&report, is_coloured(&io::stdout())))?;
    }
    Ok(match report.worst() {
        Verdict::Pass | Verdict::Warn => Exit::Success,
        Verdict::Away | Verdict::Fail => Exit::Failed,
    })
}

fn shown(report: &Report, is_coloured: bool) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let Finding {
            subject,
            verdict,
            found,
            remedy,
        } = finding;
        let (name, colour) = match verdict {
            Verdict::Pass => ("PASS", "\x1b[32m"),
            Verdict::Warn => ("WARN", "\x1b[33m"),
            Verdict::Away => ("AWAY", "\x1b[31m"),
            Verdict::Fail => ("FAIL", "\x1b[1;31m"),
        };
        let (colour, plain) = if is_coloured {
            (colour, "\x1b[0m")
        } else {
            ("", "")
        };
        // Writing to a string never fails.
        let _ = writeln!(text, "{colour}{name}{plain}  {subject}: {found}");
        if let Some(remedy) = remedy {
            let _ = writeln!(text, "      {remedy}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_stands_under_what_it_mends() {
        let findings = vec![
            Finding::pass("PostgreSQL: wal_level", "logical"),
            Finding::fail(
                "PostgreSQL: role",
                "app may not replicate",
                "ALTER ROLE app REPLICATION",
            ),
        ];
        let expected = "PASS  PostgreSQL: wal_level: logical\nFAIL  PostgreSQL: role: app may not replicate\n      ALTER ROLE app REPLICATION\n";
        assert_eq!(shown(&Report { findings }, false), expected);
    }
}
