//! What walferry says of itself, without a configuration: its version, completions, man pages.
//!
//! - All of it comes from the definitions that the command line is parsed by.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Subcommand};
use clap_complete::Shell;
use serde_json::json;

use super::output::Output;
use super::{Cli, CliError, Exit, help};

/// The commit that this was built from, when whoever builds says so.
const COMMIT: Option<&str> = option_env!("WALFERRY_COMMIT");
const NAME: &str = "walferry";
/// The servers that the tests run against, as README.md names them.
const TESTED: [(&str, &str); 3] = [
    ("PostgreSQL", "15 to 18"),
    ("Kafka", "4.3"),
    ("MongoDB", "6.0"),
];

#[derive(Debug, Subcommand)]
pub(super) enum About {
    /// Writes a shell's completions
    #[command(long_about = help::COMPLETIONS, after_long_help = help::COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell
        #[arg(value_enum, value_name = "SHELL")]
        shell: Shell,
    },
    /// Writes the man pages
    #[command(long_about = help::MAN, after_long_help = help::MAN_EXAMPLES)]
    Man {
        /// Where a page for each command is written to; without it walferry's own goes to stdout
        #[arg(value_name = "DIRECTORY")]
        directory: Option<PathBuf>,
    },
    /// Shows the version
    #[command(long_about = help::VERSION, after_long_help = help::VERSION_EXAMPLES)]
    Version,
}

// === impl About ===

impl About {
    pub(super) fn answer(&self, output: &Output) -> Result<Exit, CliError> {
        match self {
            Self::Completions { shell } => output.text(&completions(*shell)),
            Self::Man { directory: None } => page(output),
            Self::Man {
                directory: Some(directory),
            } => pages(directory),
            Self::Version => version(output),
        }?;
        Ok(Exit::Success)
    }
}

fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

fn page(output: &Output) -> Result<(), CliError> {
    let mut page = Vec::new();
    // `walferry help` has no page of its own.
    clap_mangen::Man::new(Cli::command().disable_help_subcommand(true))
        .render(&mut page)
        .map_err(CliError::Output)?;
    output.text(&String::from_utf8_lossy(&page))
}

fn pages(directory: &Path) -> Result<(), CliError> {
    let written = std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory));
    written.map_err(|source| CliError::Pages {
        directory: directory.to_owned(),
        source,
    })
}

fn version(output: &Output) -> Result<(), CliError> {
    let (version, format) = (env!("CARGO_PKG_VERSION"), walferry_schema::FORMAT);
    if !output.is_json() {
        return output.text(&format!("{NAME} {version} (format {format})\n"));
    }
    output.json(&json!({
        "version": version,
        "commit": COMMIT,
        "format": format,
        "target": format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        "tested": BTreeMap::from(TESTED),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_that_are_named_are_those_of_the_readme() {
        let readme = include_str!("../../README.md");
        let line = readme
            .lines()
            .find(|it| it.contains("Tested with"))
            .unwrap();
        for (server, version) in TESTED {
            assert!(line.contains(&format!("{server} {version}")), "{line}");
        }
    }
}
