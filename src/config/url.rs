//! Connection URLs, which hold passwords.
//!
//! - Neither `Debug` nor `Display` shows a password or an option.

use std::fmt;
use std::path::Path;

use config::Value;
use serde_json::Value as Json;

use super::secret;
use super::section::Section;
use super::setting::Setting;

/// The URL of a server with all that is needed to log in.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionUrl(String);

// === impl ConnectionUrl ===

impl ConnectionUrl {
    /// Wraps a URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The URL with its password: for the driver, and for nothing that is shown.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Reads `url`, or the file that `url_file` names.
    pub(super) fn read(section: &mut Section<'_>, folder: &Path, schemes: &[&str]) -> Option<Self> {
        if section.has("url") && section.has("url_file") {
            section.problem("url_file", "is given beside url: one of them must go");
        } else if !section.has("url") && !section.has("url_file") {
            section.problem("url", "is missing (or url_file, a file that holds it)");
        }
        let in_place = section.optional::<Self>("url");
        let in_file = section.optional::<String>("url_file").and_then(|file| {
            let content = std::fs::read_to_string(folder.join(&file));
            let failed = |error| section.problem("url_file", format!("reading {file}: {error}"));
            let url = Self(content.map_err(failed).ok()?.trim().to_owned());
            section.url_is_in_file(&url, file);
            Some(url)
        });
        let (key, url) = match (in_place, in_file) {
            (Some(url), _) => ("url", url),
            (None, Some(url)) => ("url_file", url),
            (None, None) => return None,
        };
        let is_known = |scheme: &&str| {
            url.0
                .strip_prefix(*scheme)
                .is_some_and(|rest| !rest.is_empty())
        };
        if !schemes.iter().any(is_known) {
            let example = schemes.first().unwrap_or(&"");
            section.problem(key, format!("must be a URL that begins with {example}"));
            return None;
        }
        Some(url)
    }
}

impl Setting for ConnectionUrl {
    fn from_value(value: Value) -> Result<Self, String> {
        String::from_value(value).map(Self)
    }

    fn shown(&self) -> Json {
        secret::url(self).into()
    }
}

/// The URL without its password and options: `postgres://walferry:***@localhost:5432/walmart?…`.
impl fmt::Display for ConnectionUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return f.write_str("***");
        };
        let (place, options) = match rest.split_once('?') {
            Some((place, options)) => (place, Some(options)),
            None => (rest, None),
        };
        // Either an option has an @, or a password has a ? that should have been escaped.
        if options.is_some_and(|options| options.contains('@')) {
            return write!(f, "{scheme}://***");
        }
        write!(f, "{scheme}://")?;
        match place.rsplit_once('@') {
            None => f.write_str(place)?,
            Some((user, host)) => match user.split_once(':') {
                None => write!(f, "{user}@{host}")?,
                Some((user, _)) => write!(f, "{user}:***@{host}")?,
            },
        }
        f.write_str(if options.is_some() { "?…" } else { "" })
    }
}

impl fmt::Debug for ConnectionUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_secrets() {
        let cases = [
            (
                "postgres://walferry@h:5432/db",
                "postgres://walferry@h:5432/db",
            ),
            (
                "postgres://u:s3cret@h/db?sslmode=require",
                "postgres://u:***@h/db?…",
            ),
            ("postgres://u:s3@cr:et@h/db", "postgres://u:***@h/db"),
            ("postgres://u:s3@cr:et?x@h/db", "postgres://***"),
            (
                "postgres://h/db?user=u&password=s3cret",
                "postgres://h/db?…",
            ),
            ("postgres://h/db?password=s3@cret", "postgres://***"),
            ("mongodb://a:1,b:2/?replicaSet=rs0", "mongodb://a:1,b:2/?…"),
            ("s3cret", "***"),
        ];
        for (url, shown) in cases {
            let url = ConnectionUrl::new(url);
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("\"{shown}\""));
        }
    }
}
