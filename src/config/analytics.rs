//! `[analytics]`: the rules over what was delivered.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Section;

/// Each refresh reads all that the rules ask about.
const LEAST_REFRESH: Duration = Duration::from_secs(1);

/// The rules over what was delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Analytics {
    /// `rules`: the directory of the rules, a `.json` file each (relative to the configuration's folder).
    pub rules: PathBuf,
    /// `refresh`: how long the daemon's sink waits before it refreshes all answers again, from `1s`; it does not by default.
    pub refresh: Option<Duration>,
    /// `incremental`: whether what was touched is asked about at once, between two refreshes; so it is by default.
    pub is_incremental: bool,
}

// === impl Analytics ===

impl Analytics {
    pub(super) fn read(mut section: Section<'_>, folder: &Path) -> Option<Self> {
        let rules = section.required::<String>("rules");
        let refresh = section.optional::<Duration>("refresh");
        if refresh.is_some_and(|it| it < LEAST_REFRESH) {
            section.problem("refresh", "must be a time of \"1s\" at least");
        }
        let incremental = section.optional::<bool>("incremental");
        if incremental == Some(true) && refresh.is_none() {
            let message = "needs refresh beside it: what cannot be followed waits for the schedule";
            section.problem("incremental", message);
        }
        section.finish();
        Some(Self {
            rules: folder.join(rules?),
            refresh,
            is_incremental: incremental.unwrap_or(true),
        })
    }
}
