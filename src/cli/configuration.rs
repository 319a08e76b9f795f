//! `walferry config`: what is in effect, as TOML that the file could hold.
//!
//! - Each line says where its value comes from; a key without a value is a comment.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::output::Output;
use super::{CliError, Exit};
use crate::config::{Config, Effective, Origin};

pub(super) fn run(config: &Config, output: &Output) -> Result<Exit, CliError> {
    let (file, settings) = (config.file(), config.effective());
    if output.is_json() {
        output.json(&json!({ "file": file, "settings": settings }))?;
    } else {
        output.text(&shown(settings, file))?;
    }
    Ok(Exit::Success)
}

fn shown(settings: &[Effective], file: &Path) -> String {
    let lines: Vec<_> = settings.iter().map(line).collect();
    let width = |line: &String| line.chars().count();
    let width = lines.iter().map(width).max().unwrap_or(0);
    let mut text = String::new();
    let mut section = "";
    // Writing to a string never fails.
    for (setting, line) in settings.iter().zip(lines) {
        if setting.section != section {
            section = &setting.section;
            let _ = writeln!(text, "{}", setting.heading());
        }
        let _ = writeln!(text, "{line:<width$}  # {}", origin(&setting.origin, file));
    }
    text
}

fn line(setting: &Effective) -> String {
    match &setting.value {
        Value::Null => format!("# {} is not set", setting.key),
        Value::Object(_) => format!("{} = {{}}", setting.key),
        // A string of JSON is one of TOML.
        value => format!("{} = {value}", setting.key),
    }
}

fn origin(origin: &Origin, file: &Path) -> String {
    match origin {
        Origin::Default => "default".to_owned(),
        Origin::File => file.display().to_string(),
        Origin::Variable { name } => name.clone(),
        Origin::UrlFile { path } => format!("url_file {path}"),
        Origin::SecretFile { key, path } => format!("{key} {path}"),
    }
}
