//! Where the source is and how it is read.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::large::LargeRows;

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
    /// Whether the slot is to be synchronised to standbys, so that it outlives a failover (PostgreSQL 17 and newer).
    pub failover: bool,
    /// The largest row that is held in memory, in bytes; larger ones are put into files.
    pub max_row_bytes: usize,
    /// How many bytes of transactions that the server sends before they commit are kept in files; none has it send them
    /// at their commit.
    pub streaming: Option<u64>,
    /// The directory of those files.
    pub spool: PathBuf,
    /// How long a slot that is active elsewhere is waited for: our own crashed reader's server process may live a moment.
    pub slot_wait: Duration,
}

/// Where transactions in progress are kept until they commit.
#[derive(Clone, Debug)]
pub(crate) struct Streaming {
    /// The directory, and what is too large for memory when it leaves.
    pub(crate) large_rows: LargeRows,
    /// How much all of them may take together.
    pub(crate) limit_bytes: u64,
}

// === impl Settings ===

impl Settings {
    pub(crate) fn large_rows(&self) -> LargeRows {
        LargeRows {
            max_row_bytes: self.max_row_bytes,
            directory: Arc::new(self.spool.clone()),
        }
    }

    pub(crate) fn streaming(&self) -> Option<Streaming> {
        self.streaming.map(|limit_bytes| Streaming {
            large_rows: self.large_rows(),
            limit_bytes,
        })
    }

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
            failover: false,
            max_row_bytes: 32 << 20,
            streaming: None,
            spool: std::env::temp_dir(),
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
