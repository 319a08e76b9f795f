//! `[source]`: the PostgreSQL that is read.

use std::path::Path;

use super::{ConnectionUrl, Section};

const SCHEMES: &[&str] = &["postgres://", "postgresql://"];
const MAX_NAME_BYTES: usize = 63;

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
        section.finish();
        Some(Self {
            url: url?,
            slot: slot?,
            publication: publication?,
            copy_connections,
        })
    }
}

fn is_slot_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(is_allowed)
}
