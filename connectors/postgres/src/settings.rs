//! Where the source is and how it is read.

use std::fmt;
use std::time::Duration;

/// What a [`crate::ReplicationSource`] needs to know.
#[derive(Clone)]
pub struct Settings {
    /// `postgres://user:password@host:port/database`; TCP only, several hosts are tried in order.
    pub url: String,
    /// The replication slot's name.
    pub slot: String,
    /// The publication's name.
    pub publication: String,
    /// How many connections read a snapshot; at least 1.
    pub copy_connections: usize,
    /// The most rows of a snapshot chunk; at least 1.
    pub chunk_rows: usize,
    /// About how many bytes of text make a snapshot chunk full before that.
    pub chunk_bytes: usize,
    /// How long a slot that is active elsewhere is waited for: our own crashed reader's server process may live a moment.
    pub slot_wait: Duration,
}

// === impl Settings ===

impl Settings {
    /// The settings with the default sizes: 2 connections, chunks of 5,000 rows or 2 MiB.
    pub fn new(
        url: impl Into<String>,
        slot: impl Into<String>,
        publication: impl Into<String>,
    ) -> Self {
        Self {
            url: url.into(),
            slot: slot.into(),
            publication: publication.into(),
            copy_connections: 2,
            chunk_rows: 5_000,
            chunk_bytes: 2 * 1024 * 1024,
            slot_wait: Duration::from_secs(5),
        }
    }
}

/// Without the URL, which may hold a password.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("slot", &self.slot)
            .field("publication", &self.publication)
            .field("copy_connections", &self.copy_connections)
            .field("chunk_rows", &self.chunk_rows)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_is_not_shown() {
        let settings = Settings::new("postgres://u:secret@h/d", "s", "p");
        assert!(!format!("{settings:?}").contains("secret"));
    }
}
