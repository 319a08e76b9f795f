//! How a term begins (protocol rules 1, 3, 5 and 8).
//!
//! - The slot is owned before its confirmed LSN is read, and that is in the log before it is judged.
//! - Only a complete snapshot is gone on from; an interrupted one starts over as a new generation.

use tracing::info;
use walferry_core::{Log, Source, SourceState, TopicSpec};
use walferry_schema::{Generation, LogRecord, Lsn, Open, TableName, TableSpec, Term};

use super::ReaderStage;
use super::lineage::{self, Lineage};
use super::markers;
use super::messages;
use super::tail::Tail;
use super::{Capture, CaptureError, Opened};
use crate::merge::Announced;
use crate::traces;

// === impl Capture ===

impl<S: Source, L: Log> Capture<S, L> {
    /// Begins a term, after a new snapshot where one is due.
    pub(super) async fn open(&mut self) -> Result<Opened, CaptureError> {
        self.log.begin().await?;
        self.log.ensure_topics(&[]).await?;
        let connecting = traces::connecting("PostgreSQL");
        let mut state = traces::within(connecting, self.source.inspect()).await?;
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
        lineage
            .check_tables(&mut self.source, &self.options.publication)
            .await?;
        let mut topics: Vec<_> = lineage.tables.iter().map(topic_of).collect();
        if self.options.extra_topics.transaction {
            topics.push(markers::topic(&self.options.prefix));
        }
        if self.options.extra_topics.message {
            topics.push(messages::topic(&self.options.prefix));
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
        let lineage = Lineage {
            generation,
            server,
            tables,
        };
        lineage.check(state, covered, &self.options.slot)?;
        Ok(lineage)
    }

    /// Owns the slot, writes `open` and checks the log up to it (rule 5).
    async fn own(
        &mut self,
        lineage: Lineage,
        mut tail: Tail,
        end: i64,
    ) -> Result<Opened, CaptureError> {
        self.source.set_keys(&lineage::keys_of(&lineage.tables));
        let start_lsn = self.source.start().await?;
        let open = LogRecord::Open(Open {
            moved: false,
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
        self.progress.own(None);
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
        let was_ours = self.progress.was_owner();
        lineage::wait_until_free(&mut self.source, state, &self.options.slot, was_ours).await?;
        let tables = lineage::choose_tables(&mut self.source, &self.options).await?;
        lineage::check_topics(&tables)?;
        let topics: Vec<_> = tables.iter().map(topic_of).collect();
        self.log.ensure_topics(&topics).await?;
        let generation = lineage::next_generation(tail.generation(), (self.options.clock)());
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
        self.source.set_keys(&lineage::keys_of(&tables));
        let names: Vec<TableName> = tables.iter().map(|table| table.name.clone()).collect();
        let start = self.source.create_slot(&names).await?;
        self.progress.own(Some(Announced { generation, offset }));
        self.progress.read_generation(generation);
        self.progress.enter(ReaderStage::Copying);
        info!(generation, lsn = %start.consistent_lsn, tables = names.len(), "copying the snapshot");
        self.copy_snapshot(term, &tables, start).await?;
        Ok(generation)
    }
}

/// Whether the term that this reader has just begun took over.
pub(super) fn check_term(begun: Term, tail: &Tail) -> Result<(), CaptureError> {
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

pub(super) fn topic_of(table: &TableSpec) -> TopicSpec {
    TopicSpec {
        name: table.topic.clone(),
        partitions: table.partitions,
    }
}
