//! What a pipeline goes on with: its generation's server, slot and tables, held against the source
//! as it is now.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use walferry_core::{Checkpoint, Source, SourceState, SourceTable};
use walferry_schema::{Lsn, ServerIdentity, TableName, TableSpec};

use super::{CaptureError, CaptureOptions};

/// How long a slot that is streamed from is waited for: the reader may just have died.
const SLOT_WAIT: Duration = Duration::from_secs(5);
const SLOT_PAUSE: Duration = Duration::from_millis(100);

/// The generation that is gone on with.
#[derive(Clone, Debug)]
pub(crate) struct Lineage {
    pub(crate) generation: u64,
    pub(crate) server: ServerIdentity,
    pub(crate) tables: Vec<TableSpec>,
}

// === impl Lineage ===

impl Lineage {
    /// What a checkpoint goes on from; one of a version that did not record the server goes on from
    /// the one that is there.
    pub(crate) fn of(checkpoint: &Checkpoint, state: &SourceState) -> Self {
        let server = checkpoint.server.as_ref().unwrap_or(&state.server);
        Self {
            generation: checkpoint.generation,
            server: server.clone(),
            tables: checkpoint.tables.clone(),
        }
    }

    /// Whether server and slot are the ones that the generation speaks of, and the server's log
    /// reaches as far as what was read of it.
    pub(crate) fn check(
        &self,
        state: &SourceState,
        covered: Lsn,
        slot: &str,
    ) -> Result<(), CaptureError> {
        if self.server != state.server {
            return Err(CaptureError::OtherServer {
                generation: self.generation,
                expected: describe(&self.server),
                found: describe(&state.server),
            });
        }
        match state.slot {
            None => {
                return Err(CaptureError::SlotMissing {
                    slot: slot.to_owned(),
                    covered,
                });
            }
            Some(it) if it.is_lost => {
                return Err(CaptureError::SlotLost {
                    slot: slot.to_owned(),
                });
            }
            Some(_) => {}
        }
        if state.flush_lsn < covered {
            return Err(CaptureError::ServerBehind {
                flushed: state.flush_lsn,
                covered,
            });
        }
        Ok(())
    }

    /// Whether the generation's tables are still in the publication, and still the same tables:
    /// otherwise changes of them were missed.
    pub(crate) async fn check_tables<S: Source>(
        &self,
        source: &mut S,
        publication: &str,
    ) -> Result<(), CaptureError> {
        let published = source.tables().await?;
        let is_there = |table: &TableSpec| {
            let same = published.iter().find(|it| it.name == table.name);
            same.is_some_and(|it| it.oid == table.oid)
        };
        let deferrable = |it: &&SourceTable| {
            let is_streamed = self.tables.iter().any(|table| table.name == it.name);
            is_streamed && it.deferrable_key.is_some()
        };
        if let Some(table) = published.iter().find(deferrable) {
            return Err(CaptureError::DeferrableKey {
                table: table.name.clone(),
                constraint: table.deferrable_key.clone().unwrap_or_default(),
            });
        }
        match self.tables.iter().find(|table| !is_there(table)) {
            None => Ok(()),
            Some(gone) => Err(CaptureError::TableGone {
                table: gone.name.clone(),
                generation: self.generation,
                publication: publication.to_owned(),
            }),
        }
    }
}

/// Waits for whoever still streams from the slot: announcing a generation is not for those who
/// cannot make its slot.
pub(crate) async fn wait_until_free<S: Source>(
    source: &mut S,
    state: &SourceState,
    name: &str,
    was_ours: bool,
) -> Result<(), CaptureError> {
    let deadline = Instant::now() + SLOT_WAIT;
    let mut slot = state.slot;
    while slot.is_some_and(|slot| slot.is_active) {
        if Instant::now() >= deadline {
            return Err(CaptureError::SlotInUse {
                slot: name.to_owned(),
                was_ours,
            });
        }
        tokio::time::sleep(SLOT_PAUSE).await;
        slot = source.inspect().await?.slot;
    }
    Ok(())
}

/// The publication's tables that the configuration streams, with the columns of their `_id`.
pub(crate) async fn choose_tables<S: Source>(
    source: &mut S,
    options: &CaptureOptions,
) -> Result<Vec<TableSpec>, CaptureError> {
    let mut chosen = Vec::new();
    for table in source.tables().await? {
        if !(options.selects)(&table.name) {
            continue;
        }
        if let Some(constraint) = table.deferrable_key {
            return Err(CaptureError::DeferrableKey {
                table: table.name,
                constraint,
            });
        }
        if table.key.is_empty() {
            return Err(CaptureError::NoKey { table: table.name });
        }
        chosen.push(TableSpec {
            topic: topic_name(&options.prefix, &table.name).into(),
            name: table.name,
            oid: table.oid,
            key: table.key,
            partitions: options.partitions,
        });
    }
    if chosen.is_empty() {
        return Err(CaptureError::NoTables {
            publication: options.publication.clone(),
        });
    }
    Ok(chosen)
}

/// The tables of a generation with the topics that they have under a prefix.
pub(crate) fn with_topics(
    tables: &[TableSpec],
    options: &CaptureOptions,
) -> Result<Vec<TableSpec>, CaptureError> {
    let renamed = tables.iter().map(|table| TableSpec {
        topic: topic_name(&options.prefix, &table.name).into(),
        partitions: options.partitions,
        ..table.clone()
    });
    let renamed: Vec<_> = renamed.collect();
    check_topics(&renamed)?;
    Ok(renamed)
}

/// A number for a generation after `last`: a Kafka that was wiped cannot bring an old one back.
pub(crate) fn next_generation(last: u64, now: SystemTime) -> u64 {
    let elapsed = now.duration_since(UNIX_EPOCH);
    let millis = u64::try_from(elapsed.unwrap_or_default().as_millis());
    (last + 1).max(millis.unwrap_or_default())
}

/// Whether every table has a topic of its own; names may become equal once they are cleaned. Kafka refuses topics that
/// differ in points and underscores only, which are the same in the names of its metrics.
pub(crate) fn check_topics(tables: &[TableSpec]) -> Result<(), CaptureError> {
    let mut topics = std::collections::HashMap::new();
    for table in tables {
        if let Some(other) = topics.insert(table.topic.replace('.', "_"), &table.name) {
            return Err(CaptureError::SameTopic {
                topic: table.topic.to_string(),
                one: other.clone(),
                other: table.name.clone(),
            });
        }
    }
    Ok(())
}

/// The columns of each table's `_id`.
pub(crate) fn keys_of(tables: &[TableSpec]) -> Vec<(TableName, Vec<String>)> {
    tables
        .iter()
        .map(|table| (table.name.clone(), table.key.clone()))
        .collect()
}

/// `<prefix>.<schema>.<table>`, with `_` for what Kafka does not allow in a topic's name.
pub(crate) fn topic_name(prefix: &str, table: &TableName) -> String {
    let allowed = |c: char| {
        if c.is_ascii_alphanumeric() || "._-".contains(c) {
            c
        } else {
            '_'
        }
    };
    format!("{prefix}.{table}").chars().map(allowed).collect()
}

fn describe(server: &ServerIdentity) -> String {
    format!("system {}, timeline {}", server.system_id, server.timeline)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_named_after_its_table_with_odd_characters_replaced() {
        let table = TableName::new("public", "große Tabelle");
        assert_eq!(topic_name("shop", &table), "shop.public.gro_e_Tabelle");
    }
}
