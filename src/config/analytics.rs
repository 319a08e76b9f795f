//! `[analytics]`: the rules over what was delivered.

use std::path::{Path, PathBuf};

use super::Section;

/// The rules over what was delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Analytics {
    /// `rules`: the directory of the rules, a `.json` file each (relative to the configuration's folder).
    pub rules: PathBuf,
}

// === impl Analytics ===

impl Analytics {
    pub(super) fn read(mut section: Section<'_>, folder: &Path) -> Option<Self> {
        let rules = section.required::<String>("rules");
        section.finish();
        Some(Self {
            rules: folder.join(rules?),
        })
    }
}
