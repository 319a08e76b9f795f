//! Reads the directory of the rules.

use std::fs;
use std::path::{Path, PathBuf};

use walferry_etl::analytics::{RuleFile, RuleSet};

use super::AnalyticsError;
use crate::config::Config;

/// What a rule's file ends with.
const ENDING: &str = "json";

/// The rules that the configuration names.
///
/// # Errors
/// When it names none, they cannot be read, or some are mistaken.
pub fn load(config: &Config) -> Result<RuleSet, AnalyticsError> {
    let Some(analytics) = &config.analytics else {
        let file = config.file().to_owned();
        return Err(AnalyticsError::NotConfigured { file });
    };
    let paths = paths(&analytics.rules).map_err(read(&analytics.rules))?;
    if paths.is_empty() {
        let directory = analytics.rules.clone();
        return Err(AnalyticsError::Empty { directory });
    }
    let files: Result<Vec<_>, _> = paths.iter().map(|path| file(path)).collect();
    RuleSet::read(&files?).map_err(AnalyticsError::Mistaken)
}

/// The files of the directory, in the order of their names.
fn paths(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == ENDING) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn file(path: &Path) -> Result<RuleFile, AnalyticsError> {
    let text = fs::read_to_string(path).map_err(read(path))?;
    let path = path.display().to_string();
    Ok(RuleFile { path, text })
}

fn read(path: &Path) -> impl Fn(std::io::Error) -> AnalyticsError {
    move |source| AnalyticsError::Read {
        path: path.to_owned(),
        source,
    }
}
