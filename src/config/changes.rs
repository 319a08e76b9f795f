//! What differs between the configuration that a process runs with and a newer one.
//!
//! - Keys are compared with their secrets, and no secret is told.
//! - What runs takes over only what can change without a restart.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Map;

use super::effective::Exact;
use super::{Config, Effective};

/// Keys that a running process takes over.
const LIVE: [&str; 3] = ["sink.group_bytes", "sink.group_rows", "telemetry.log"];
const TABLES: &str = "table[";
/// No process but `walferry access` reads them.
const ROLES: &str = "role[";

/// The keys in which a newer configuration differs from the one in effect; a section that came or went is named as
/// one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// They take effect now.
    pub live: Vec<String>,
    /// They are `walferry access apply`'s, which has to be run for them.
    pub access: Vec<String>,
    /// They take effect with the next start.
    pub waiting: Vec<String>,
}

// === impl Changes ===

impl Changes {
    /// Takes over what can change while the process runs: what that was, and what waits.
    ///
    /// The tables of mode `batch` or `ignore` are the daemon's only where they could hide streamed ones.
    pub fn take(running: &mut Config, newer: Config) -> Self {
        let changed = changed(running.effective(), newer.effective());
        let is_same_stream = running.tables.streams_as(&newer.tables);
        let is_access = |key: &String| key.starts_with(ROLES);
        let is_live = |key: &String| {
            LIVE.contains(&key.as_str()) || is_same_stream && key.starts_with(TABLES)
        };
        let (access, changed): (Vec<_>, Vec<_>) = changed.into_iter().partition(is_access);
        let (live, waiting) = changed.into_iter().partition::<Vec<_>, _>(is_live);
        let is_taken = |it: &Effective| is_live(&it.name()) || is_access(&it.name());
        running.effective.retain(|it| !is_taken(it));
        let taken = newer.effective.into_iter().filter(is_taken);
        running.effective.extend(taken);
        running.sink.group_rows = newer.sink.group_rows;
        running.sink.group_bytes = newer.sink.group_bytes;
        running.telemetry.log = newer.telemetry.log;
        running.roles = newer.roles;
        if is_same_stream {
            running.tables = newer.tables;
        }
        Self {
            live,
            access,
            waiting,
        }
    }
}

/// What differs, in the order of its names.
fn changed(running: &[Effective], newer: &[Effective]) -> Vec<String> {
    let has = |side: &[Effective], section: &str| side.iter().any(|it| it.section == section);
    let values_before = values(running);
    let values_after = values(newer);
    let is_changed =
        |it: &&Effective| values_before.get(&it.name()) != values_after.get(&it.name());
    let name = |it: &Effective| {
        if has(running, &it.section) && has(newer, &it.section) {
            it.name()
        } else {
            it.section.clone()
        }
    };
    let all = compared(running).chain(compared(newer));
    let names: BTreeSet<_> = all.filter(is_changed).map(name).collect();
    names.into_iter().collect()
}

fn values(effective: &[Effective]) -> BTreeMap<String, &Exact> {
    compared(effective)
        .map(|it| (it.name(), &it.exact))
        .collect()
}

/// Without tables that are empty, and the files that hold the value of another key: that one is compared.
fn compared(effective: &[Effective]) -> impl Iterator<Item = &Effective> {
    let is_empty = |it: &Effective| it.value.as_object().is_some_and(Map::is_empty);
    let is_compared = move |it: &&Effective| !it.key.ends_with("_file") && !is_empty(it);
    effective.iter().filter(is_compared)
}
