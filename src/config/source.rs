//! `[source]`: the PostgreSQL that is read.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::setting::Size;
use super::{ConnectionUrl, Section};

const SCHEMES: &[&str] = &["postgres://", "postgresql://"];
const MAX_NAME_BYTES: usize = 63;
const DEFAULT_SPOOL_LIMIT: usize = 16 << 30;
const LEAST_SPOOL_LIMIT: usize = 1 << 20;
const DEFAULT_MAX_ROW_BYTES: usize = 32 << 20;
/// PostgreSQL makes no message of a gibibyte or more.
const MAX_ROW_BYTES: RangeInclusive<usize> = 64 << 10..=1 << 30;

/// The PostgreSQL that is read.
#[derive(Clone, Debug)]
pub struct Source {
    /// `url`, or `url_file`, the path of a file that holds it (relative to the configuration's
    /// folder): `postgres://user:password@host:5432/database`, with libpq's `sslmode` and the files
    /// that go with it. The user needs REPLICATION and SELECT.
    pub url: ConnectionUrl,
    /// `slot`: the replication slot, which walferry makes; `a-z`, `0-9` and `_`, at most 63.
    pub slot: String,
    /// `publication`: the publication that holds the streamed tables; it must exist.
    pub publication: String,
    /// `copy_connections`: how many connections copy tables at the same time, 1 to 64; 2 by
    /// default.
    pub copy_connections: usize,
    /// `failover`: whether the slot is synchronised to standbys, so that it is there after a failover; PostgreSQL 17 and
    /// newer; false by default.
    pub failover: bool,
    /// `streaming`: whether PostgreSQL sends large transactions before they commit, so that it need not spill them and
    /// their rows are here at the commit; false by default.
    pub streaming: bool,
    /// `max_row_bytes`: the largest row that is held in memory, `64KiB` to `1GiB`; `32MiB` by default. The large values of
    /// a larger one are put into a file, and do not go with the row.
    pub max_row_bytes: usize,
    /// `spool`: the directory for what has to wait on disk (relative to the configuration's folder); the system's for
    /// temporary files by default.
    pub spool: PathBuf,
    /// `spool_limit`: how much transactions in progress may take there, from `1MiB`; `16GiB` by default.
    pub spool_limit: usize,
}

// === impl Source ===

impl Source {
    pub(super) fn read(mut section: Section<'_>, folder: &Path) -> Option<Self> {
        let url = ConnectionUrl::read(&mut section, folder, SCHEMES);
        let slot = section.required::<String>("slot");
        if slot.as_deref().is_some_and(|slot| !is_slot_name(slot)) {
            section.problem("slot", "must be 1 to 63 characters of a-z, 0-9 and _");
        }
        let publication = section.required::<String>("publication");
        let is_name = |name: &str| (1..=MAX_NAME_BYTES).contains(&name.len());
        if publication.as_deref().is_some_and(|name| !is_name(name)) {
            section.problem("publication", "must be 1 to 63 bytes long");
        }
        let copy_connections = section.number("copy_connections", 2, 1..=64);
        let failover = section.or("failover", false);
        let streaming = section.or("streaming", false);
        let Size(max_row_bytes) = section.or("max_row_bytes", Size(DEFAULT_MAX_ROW_BYTES));
        if !MAX_ROW_BYTES.contains(&max_row_bytes) {
            section.problem("max_row_bytes", "must be a size from \"64KiB\" to \"1GiB\"");
        }
        let spool = section.optional::<String>("spool");
        let spool = spool.map_or_else(std::env::temp_dir, |spool| folder.join(spool));
        let Size(spool_limit) = section.or("spool_limit", Size(DEFAULT_SPOOL_LIMIT));
        if spool_limit < LEAST_SPOOL_LIMIT {
            section.problem("spool_limit", "must be a size of \"1MiB\" at least");
        }
        section.finish();
        Some(Self {
            url: url?,
            slot: slot?,
            publication: publication?,
            copy_connections,
            failover,
            streaming,
            max_row_bytes,
            spool,
            spool_limit,
        })
    }
}

fn is_slot_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(is_allowed)
}
