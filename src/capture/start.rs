//! How a term begins (protocol rules 1, 3, 5 and 8).
//!
//! - The slot is owned before its confirmed LSN is read, and that is in the log before it is judged.
//! - Only a complete snapshot is gone on from; an interrupted one starts over as a new generation.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use tracing::info;
use walferry_core::{Log, Source, SourceState, SourceTable, TopicSpec};
use walferry_schema::{
    Generation, LogRecord, Lsn, Open, ServerIdentity, TableName, TableSpec, Term,
};

use super::markers;
use super::tail::Tail;
use super::{Capture, CaptureError, Lineage, Opened};
use crate::merge::Announced;

/// How long a slot that is streamed from is waited for: the reader may just have died.
const SLOT_WAIT: Duration = Duration::from_secs(5);
const SLOT_PAUSE: Duration = Duration::from_millis(100);

// === impl Capture ===

impl<S: Source, L: Log> Capture<S, L> {
    /// Begins a term, after a new snapshot where one is due.
    pub(super) async fn open(&mut self) -> Result<Opened, CaptureError> {
        self.log.begin().await?;
        self.log.ensure_topics(&[]).await?;
        let mut state = self.source.inspect().await?;
        self.template.database.clone_from(&state.database);
        let (mut tail, mut end) = Tail::read(&mut self.log).await?;
        if self.is_new_snapshot_wanted || self.is_snapshot_due(&state, &tail)? {
            let generation = self.begin_generation(&state, &tail, end).await?;
            self.is_new_snapshot_wanted = false;
            // The entries of a term begin at 0 again, and the slot is another one now.
            self.log.begin().await?;
            state = self.source.inspect().await?;
            (tail, end) = Tail::read(&mut self.log).await?;
            check_generation(generation, &tail)?;
        }
        let lineage = self.lineage(&state, &tail)?;
        self.check_tables(&lineage).await?;
        let mut topics: Vec<_> = lineage.tables.iter().map(topic_of).collect();
        if self.options.transaction_topic {
            topics.push(markers::topic(&self.options.prefix));
        }
        self.log.ensure_topics(&topics).await?;
        self.own(lineage, tail, end).await
    }

    /// Whether the pipeline needs a snapshot before it can go on.
    fn is_snapshot_due(&self, state: &SourceState, tail: &Tail) -> Result<bool, CaptureError> {
        if tail.generation() == 0 {
            return match state.slot {
                None => Ok(true),
                Some(_) => Err(CaptureError::SlotWithoutLog {
                    slot: self.options.slot.clone(),
                    log: self.log_topic(),
                }),
            };
        }
        if tail.covered().is_none() && tail.is_opened() {
            let slot = self.options.slot.clone();
            let confirmed = state.slot.map_or(Lsn::ZERO, |slot| slot.confirmed_lsn);
            return Err(CaptureError::LogForgot {
                slot,
                confirmed,
                covered: Lsn::ZERO,
            });
        }
        if tail.covered().is_none() {
            info!(
                generation = tail.generation(),
                "the snapshot was interrupted: starting over"
            );
        }
        Ok(tail.covered().is_none())
    }

    /// The generation to go on with, once server and slot are seen to be the ones it speaks of.
    fn lineage(&self, state: &SourceState, tail: &Tail) -> Result<Lineage, CaptureError> {
        let slot = || self.options.slot.clone();
        let generation = tail.generation();
        let covered = tail.covered().unwrap_or_default();
        let Some((server, tables)) = tail.identity().cloned() else {
            return Err(CaptureError::SlotWithoutLog {
                slot: slot(),
                log: self.log_topic(),
            });
        };
        if server != state.server {
            return Err(CaptureError::OtherServer {
                generation,
                expected: describe(&server),
                found: describe(&state.server),
            });
        }
        match state.slot {
            None => {
                return Err(CaptureError::SlotMissing {
                    slot: slot(),
                    covered,
                });
            }
            Some(it) if it.is_lost => return Err(CaptureError::SlotLost { slot: slot() }),
            Some(_) => {}
        }
        if state.flush_lsn < covered {
            return Err(CaptureError::ServerBehind {
                flushed: state.flush_lsn,
                covered,
            });
        }
        Ok(Lineage {
            generation,
            server,
            tables,
        })
    }

    /// Whether the generation's tables are still in the publication, and still the same tables:
    /// otherwise changes of them were missed.
    async fn check_tables(&mut self, lineage: &Lineage) -> Result<(), CaptureError> {
        let published = self.source.tables().await?;
        let is_there = |table: &TableSpec| {
            let same = published.iter().find(|it| it.name == table.name);
            same.is_some_and(|it| it.oid == table.oid)
        };
        let deferrable = |it: &&SourceTable| {
            let is_streamed = lineage.tables.iter().any(|table| table.name == it.name);
            is_streamed && it.deferrable_key.is_some()
        };
        if let Some(table) = published.iter().find(deferrable) {
            return Err(CaptureError::DeferrableKey {
                table: table.name.clone(),
                constraint: table.deferrable_key.clone().unwrap_or_default(),
            });
        }
        match lineage.tables.iter().find(|table| !is_there(table)) {
            None => Ok(()),
            Some(gone) => Err(CaptureError::TableGone {
                table: gone.name.clone(),
                generation: lineage.generation,
                publication: self.options.publication.clone(),
            }),
        }
    }

    /// Owns the slot, writes `open` and checks the log up to it (rule 5).
    async fn own(
        &mut self,
        lineage: Lineage,
        mut tail: Tail,
        end: i64,
    ) -> Result<Opened, CaptureError> {
        self.source.set_keys(&keys_of(&lineage.tables));
        let start_lsn = self.source.start().await?;
        let open = LogRecord::Open(Open {
            generation: lineage.generation,
            follows: tail.follows(),
            start_lsn,
            server: lineage.server.clone(),
            tables: lineage.tables.clone(),
        });
        let offset = self.log.append(&open).await?;
        tail.read_on(&mut self.log, end, offset + 1).await?;
        let term = Term {
            generation: lineage.generation,
            number: offset,
        };
        check_term(term, &tail)?;
        let covered = tail.covered().unwrap_or_default();
        if start_lsn > covered {
            let slot = self.options.slot.clone();
            return Err(CaptureError::LogForgot {
                slot,
                confirmed: start_lsn,
                covered,
            });
        }
        self.status.send_modify(|status| status.is_owner = true);
        info!(%start_lsn, generation = term.generation, term = term.number, "reading the stream");
        Ok(Opened {
            term,
            lineage,
            start_lsn,
            last_commit: tail.last_commit(),
        })
    }

    /// Announces a generation, makes its slot and copies its tables.
    async fn begin_generation(
        &mut self,
        state: &SourceState,
        tail: &Tail,
        end: i64,
    ) -> Result<u64, CaptureError> {
        self.wait_until_free(state).await?;
        let tables = self.choose_tables().await?;
        let topics: Vec<_> = tables.iter().map(topic_of).collect();
        self.log.ensure_topics(&topics).await?;
        let generation = (tail.generation() + 1).max(unix_seconds());
        let announced = LogRecord::Generation(Generation {
            generation,
            follows: tail.follows(),
            server: state.server.clone(),
            slot: self.options.slot.clone(),
            tables: tables.clone(),
        });
        let offset = self.log.append(&announced).await?;
        let term = Term {
            generation,
            number: offset,
        };
        let mut tail = tail.clone();
        tail.read_on(&mut self.log, end, offset + 1).await?;
        check_term(term, &tail)?;
        self.source.set_keys(&keys_of(&tables));
        let names: Vec<TableName> = tables.iter().map(|table| table.name.clone()).collect();
        let start = self.source.create_slot(&names).await?;
        self.status.send_modify(|status| {
            status.is_owner = true;
            status.began = Some(Announced { generation, offset });
        });
        info!(generation, lsn = %start.consistent_lsn, tables = names.len(), "copying the snapshot");
        self.copy_snapshot(term, &tables, start).await?;
        Ok(generation)
    }

    /// Waits for whoever still streams from the slot: announcing a generation is not for those who
    /// cannot make its slot.
    async fn wait_until_free(&mut self, state: &SourceState) -> Result<(), CaptureError> {
        let deadline = Instant::now() + SLOT_WAIT;
        let mut slot = state.slot;
        while slot.is_some_and(|slot| slot.is_active) {
            if Instant::now() >= deadline {
                return Err(CaptureError::SlotInUse {
                    slot: self.options.slot.clone(),
                    was_ours: self.status.borrow().is_owner,
                });
            }
            tokio::time::sleep(SLOT_PAUSE).await;
            slot = self.source.inspect().await?.slot;
        }
        Ok(())
    }

    /// The publication's tables that the configuration streams, with the columns of their `_id`.
    async fn choose_tables(&mut self) -> Result<Vec<TableSpec>, CaptureError> {
        let mut chosen = Vec::new();
        for table in self.source.tables().await? {
            if !(self.options.selects)(&table.name) {
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
                topic: topic_name(&self.options.prefix, &table.name).into(),
                name: table.name,
                oid: table.oid,
                key: table.key,
                partitions: self.options.partitions,
            });
        }
        check_topics(&chosen)?;
        if chosen.is_empty() {
            return Err(CaptureError::NoTables {
                publication: self.options.publication.clone(),
            });
        }
        Ok(chosen)
    }
}

/// Whether the term that this reader has just begun took over.
fn check_term(begun: Term, tail: &Tail) -> Result<(), CaptureError> {
    check_generation(begun.generation, tail)?;
    if tail.term() == Some(begun) {
        return Ok(());
    }
    Err(CaptureError::Overtaken {
        number: begun.number,
    })
}

/// Whether the log still ends in the generation that this reader goes on with.
fn check_generation(expected: u64, tail: &Tail) -> Result<(), CaptureError> {
    let found = tail.generation();
    if found == expected {
        return Ok(());
    }
    Err(CaptureError::OtherGeneration { expected, found })
}

/// Whether every table has a topic of its own; names may become equal once they are cleaned.
fn check_topics(tables: &[TableSpec]) -> Result<(), CaptureError> {
    let mut topics = std::collections::HashMap::new();
    for table in tables {
        if let Some(other) = topics.insert(&table.topic, &table.name) {
            return Err(CaptureError::SameTopic {
                topic: table.topic.to_string(),
                one: other.clone(),
                other: table.name.clone(),
            });
        }
    }
    Ok(())
}

fn topic_of(table: &TableSpec) -> TopicSpec {
    TopicSpec {
        name: table.topic.clone(),
        partitions: table.partitions,
    }
}

fn keys_of(tables: &[TableSpec]) -> Vec<(TableName, Vec<String>)> {
    tables
        .iter()
        .map(|table| (table.name.clone(), table.key.clone()))
        .collect()
}

/// `<prefix>.<schema>.<table>`, with `_` for what Kafka does not allow in a topic's name.
fn topic_name(prefix: &str, table: &TableName) -> String {
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

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
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
