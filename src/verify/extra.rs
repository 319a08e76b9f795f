//! The search for documents without a row.
//!
//! - It is only made when the counts say that there are some, and ends when enough are found.
//! - It remembers the hashes of at most [`PART_ROWS`] keys: a larger table is read again for each
//!   part of its keys.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use walferry_core::Fault;
use walferry_mongodb::{identity, show_id};
use walferry_postgres::{BlockRange, SnapshotTable};

use super::range::Reading;
use super::{Difference, DifferenceKind};

const PART_ROWS: u64 = 2_000_000;

/// Up to `wanted` documents without a row.
pub(super) async fn find(
    reading: &Reading,
    table: &Arc<SnapshotTable>,
    rows: u64,
    wanted: usize,
) -> Result<Vec<Difference>, Fault> {
    let mut found = Vec::new();
    let parts = rows.div_ceil(PART_ROWS).max(1);
    for part in 0..parts {
        if found.len() < wanted {
            let keys = row_keys(reading, table, part, parts).await?;
            let is_extra = |hash: u64| hash % parts == part && !keys.contains(&hash);
            let room = wanted - found.len();
            found.extend(documents(reading, table, room, is_extra).await?);
        }
    }
    Ok(found)
}

async fn row_keys(
    reading: &Reading,
    table: &Arc<SnapshotTable>,
    part: u64,
    parts: u64,
) -> Result<HashSet<u64>, Fault> {
    let mut keys = HashSet::new();
    let mut rows = reading.documents(table, BlockRange::WHOLE).await?;
    while let Some(block) = rows.next().await? {
        let hashes = block.documents().into_iter().map(|(id, _)| hash(&id));
        keys.extend(hashes.filter(|hash| hash % parts == part));
    }
    rows.give_back();
    Ok(keys)
}

async fn documents(
    reading: &Reading,
    table: &SnapshotTable,
    wanted: usize,
    is_extra: impl Fn(u64) -> bool,
) -> Result<Vec<Difference>, Fault> {
    let name = &table.relation().name;
    let mut scan = Box::pin(reading.loader.scan_keys(name)).await?;
    let mut found = Vec::new();
    while found.len() < wanted {
        let Some(id) = Box::pin(scan.next()).await? else {
            break;
        };
        if is_extra(hash(&id)) {
            found.push(Difference {
                table: name.clone(),
                parked: reading.is_parked(name, &id),
                id: show_id(&id),
                kind: DifferenceKind::Extra,
            });
        }
    }
    Ok(found)
}

fn hash(id: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    identity(id).hash(&mut hasher);
    hasher.finish()
}
