//! `walferry init`: a first configuration.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use walferry_core::{Class, Classify, Fault, Tasks};

use super::output::Output;
use super::{CliError, Exit};
use crate::init::{self, Wish};

/// The file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("writing {}: an existing file is never overwritten; name another with --config", file.display())]
struct NotWritten {
    file: PathBuf,
    source: io::Error,
}

impl Classify for NotWritten {
    fn class(&self) -> Class {
        Class::Fatal
    }
}

pub(super) async fn run(
    wish: &Wish,
    file: &Path,
    tasks: &Tasks,
    output: &Output,
) -> Result<Exit, CliError> {
    let proposal = init::propose(wish, tasks).await?;
    write_new(file, &proposal.config).map_err(|source| {
        let file = file.to_owned();
        Fault::from(NotWritten { file, source })
    })?;
    if output.is_json() {
        output.json(&proposal)?;
    } else {
        output.text(&format!(
            "-- {} is written. What it needs, to be run once by a superuser:\n{}",
            file.display(),
            proposal.sql
        ))?;
    }
    Ok(Exit::Success)
}

fn write_new(file: &Path, text: &str) -> io::Result<()> {
    let mut file = std::fs::File::create_new(file)?;
    file.write_all(text.as_bytes())
}
