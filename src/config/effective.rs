//! The configuration in effect: what each key is and where that comes from.
//!
//! - Reading a key is what records it, so that none can be forgotten, defaults included.
//! - No secret is in it: a password is `***` before it is recorded.

use std::fmt;

use config::Value;
use serde::Serialize;
use serde::ser::Serializer;
use serde_json::Value as Json;

use super::secret;

/// A key in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// `source`, or `table[0]`.
    pub section: String,
    /// The key within its section, as TOML writes it.
    pub key: String,
    /// Its value as the file could state it, `null` when it has none.
    pub value: Json,
    /// Where the value comes from.
    pub origin: Origin,
    pub(super) exact: Exact,
}

/// A value with its secrets: to be compared, never to be shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Exact(pub(super) Json);

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "origin")]
pub enum Origin {
    /// Nobody states it.
    Default,
    /// The configuration's file.
    File,
    /// An environment variable.
    Variable {
        /// Its name.
        name: String,
    },
    /// A file that the configuration names.
    UrlFile {
        /// Its path as it is named.
        path: String,
    },
    /// A file that the configuration names, which holds this value alone.
    SecretFile {
        /// The key that names it.
        #[serde(skip)]
        key: &'static str,
        /// Its path as it is named.
        path: String,
    },
}

// === impl Effective ===

impl Effective {
    /// The key with its section: `source.url`.
    pub fn name(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }

    /// The section's heading in the file: `[source]`, `[[table]]`.
    pub fn heading(&self) -> String {
        heading(&self.section)
    }
}

impl Serialize for Effective {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Flat<'a> {
            key: String,
            value: &'a Json,
            #[serde(flatten)]
            origin: &'a Origin,
        }
        Flat {
            key: self.name(),
            value: &self.value,
            origin: &self.origin,
        }
        .serialize(serializer)
    }
}

// === impl Exact ===

impl Exact {
    /// What was stated, where showing it hides something.
    pub(super) fn of(shown: &Json, stated: &Value) -> Self {
        let hides = |text: &str| text.contains(secret::HIDDEN);
        if !shown.as_str().is_some_and(hides) {
            return Self(shown.clone());
        }
        Self(stated.clone().into_string().unwrap_or_default().into())
    }
}

impl fmt::Debug for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(secret::HIDDEN)
    }
}

// === impl Origin ===

impl Origin {
    /// Where a value that was stated comes from.
    pub(super) fn of(value: &Value) -> Self {
        // The file is parsed as a text without a name, see `Environment` for the others.
        match value.origin() {
            None => Self::File,
            Some(name) => Self::Variable { name: name.into() },
        }
    }
}

/// The heading of a section: `[source]`, `[[table]]` for `table[0]`, `[role.read.through]` for
/// `role[0].read[2].through`.
pub(super) fn heading(section: &str) -> String {
    let name = |part: &str| part.split('[').next().unwrap_or_default().to_owned();
    let name = section.split('.').map(name).collect::<Vec<_>>().join(".");
    if section.ends_with(']') {
        format!("[[{name}]]")
    } else {
        format!("[{name}]")
    }
}
