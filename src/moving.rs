//! A pipeline moves between direct mode and Kafka, losing and repeating nothing (protocol rule 20).
//!
//! - Only a position that holds everything up to the slot moves; otherwise nothing is changed.
//! - The slot's name is locked meanwhile, and whoever still writes the old position is fenced.
//! - Started the old way afterwards, a pipeline finds its slot ahead of what it knows: a named error.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;
use tokio::sync::watch;
use tracing::info;
use walferry_core::{
    Checkpoint, Class, Classify, Fault, Log, LogReader, PartitionOffset, PipelineState, Sink,
    Source, Tasks,
};
use walferry_schema::{Lsn, ServerIdentity, Term};

use crate::capture::lineage::{self, Lineage};
use crate::capture::{CaptureError, CaptureOptions, open_moved};
use crate::config::{Config, Format};
use crate::pipeline::connect;
use crate::supervise::Supervisor;

/// Where a pipeline moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Destination {
    /// From direct mode into Kafka
    Kafka,
    /// From Kafka into direct mode
    Direct,
}

/// What was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// Where to.
    pub to: Destination,
    /// The generation, which goes on.
    pub generation: u64,
    /// Everything of the source before this is applied; the pipeline goes on here.
    pub lsn: Lsn,
}

/// Why a pipeline cannot be moved.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// A connector failed.
    #[error("{0}")]
    Connector(Fault),
    /// The source, or the log, is not the one that the position speaks of.
    #[error(transparent)]
    Source(#[from] CaptureError),
    /// The configuration says nothing of Kafka.
    #[error(
        "moving needs the [kafka] section: it names the log that the pipeline moves into or comes \
         from. After moving to direct, remove it"
    )]
    NoKafka,
    /// The topics are not walferry's.
    #[error(
        "[kafka] format = \"debezium\": a sink of Debezium's topics has no other way to move to"
    )]
    Foreign,
    /// There is nothing to move.
    #[error(
        "MongoDB holds no position of pipeline {pipeline}: it never ran this way, so there is nothing \
         to move; `walferry run` begins it"
    )]
    NoPosition {
        /// The name of its position document.
        pipeline: String,
    },
    /// A snapshot or a giant transaction is half done.
    #[error(
        "pipeline {pipeline} is in the middle of {what}: run walferry as before until that is done, \
         stop it, and move again"
    )]
    HalfDone {
        /// The name of its position document.
        pipeline: String,
        /// Of what.
        what: &'static str,
    },
    /// Kafka holds changes that are not applied yet.
    #[error(
        "the slot is confirmed to {confirmed}, but MongoDB holds the changes only to {applied}: the \
         rest is in Kafka. Run `walferry run --role sink` until it has applied everything (`walferry \
         verify`), stop it, and move again"
    )]
    Behind {
        /// Where the slot stands.
        confirmed: Lsn,
        /// How far the changes are applied.
        applied: Lsn,
    },
}

/// How often a move is tried: a topic that was just made may have no leader yet.
const TRIES: u32 = 5;

/// Moves the pipeline of a configuration.
///
/// # Errors
/// When it cannot be moved as it is; it then goes on the old way.
pub async fn run(config: &Config, to: Destination, tasks: &Tasks) -> Result<Moved, Fault> {
    let mut supervisor = Supervisor::new("move", watch::Sender::default());
    let stop = tasks.stop_signal();
    for _ in 1..TRIES {
        match attempt(config, to, tasks).await {
            Err(fault) if !stop.is_cancelled() => supervisor.after(fault, stop).await?,
            ended => return ended,
        }
    }
    attempt(config, to, tasks).await
}

async fn attempt(config: &Config, to: Destination, tasks: &Tasks) -> Result<Moved, Fault> {
    let kafka = config.kafka.as_ref().ok_or(MoveError::NoKafka)?;
    if kafka.format == Format::Debezium {
        return Err(MoveError::Foreign.into());
    }
    let direct = config.source.slot.clone();
    let through = config.pipeline();
    let (from, into) = match to {
        Destination::Kafka => (direct, through),
        Destination::Direct => (through, direct),
    };
    let mut moving = Moving {
        source: connect::source(config, tasks)?,
        from: connect::sink_of(config, &from).await?,
        into: connect::sink_of(config, &into).await?,
        name: from.clone(),
        options: connect::capture_options(config, kafka),
    };
    // Once nobody writes any more, and before anything moves: done again it is the same.
    moving.from.claim().await?;
    let book = connect::orders_of(config, &into).await?;
    book.take_over_tables(&from).await?;
    book.take_over_letters(&from).await?;
    Ok(match to {
        Destination::Direct => moving.move_to_direct().await?,
        Destination::Kafka => {
            let (log, reader) = (
                connect::log(config, kafka),
                connect::log_reader(config, kafka),
            );
            moving.move_to_kafka(log, reader).await?
        }
    })
}

/// A pipeline on its way from one position document to another.
struct Moving<S, K> {
    source: S,
    from: K,
    into: K,
    /// The pipeline that is left.
    name: String,
    options: CaptureOptions,
}

// === impl Moving ===

impl<S: Source, K: Sink> Moving<S, K> {
    async fn move_to_direct(&mut self) -> Result<Moved, MoveError> {
        let (checkpoint, _) = self.take().await?;
        let generation = checkpoint.generation;
        let number = 0;
        let moved = Checkpoint {
            term: Term { generation, number },
            log_offset: 0,
            log_check: 0,
            partitions: BTreeMap::new(),
            ..checkpoint
        };
        self.put(&moved, Destination::Direct).await
    }

    async fn move_to_kafka<L: Log, R: LogReader>(
        &mut self,
        mut log: L,
        mut reader: R,
    ) -> Result<Moved, MoveError> {
        let (checkpoint, server) = self.take().await?;
        let tables = lineage::with_topics(&checkpoint.tables, &self.options)?;
        let opened = open_moved(&mut log, &checkpoint, server, tables.clone()).await?;
        let mut partitions = BTreeMap::new();
        for table in &tables {
            for partition in 0..table.partitions {
                let topic = table.topic.clone();
                let name = PartitionOffset { topic, partition };
                let end = reader.bounds(&name).await?.end;
                partitions.insert(name, end);
            }
        }
        let moved = Checkpoint {
            term: Term {
                generation: checkpoint.generation,
                number: opened.offset,
            },
            log_offset: opened.offset + 1,
            log_check: opened.hash,
            partitions,
            tables,
            ..checkpoint
        };
        self.put(&moved, Destination::Kafka).await
    }

    /// The position that is left, once it is seen that nothing is missing behind it.
    async fn take(&mut self) -> Result<(Checkpoint, ServerIdentity), MoveError> {
        let state = self.source.inspect().await?;
        let checkpoint = self.from.claim().await?.filter(|it| it.generation > 0);
        let pipeline = || self.name.clone();
        let Some(checkpoint) = checkpoint else {
            let pipeline = pipeline();
            return Err(MoveError::NoPosition { pipeline });
        };
        let half_done = |what| {
            let pipeline = pipeline();
            Err(MoveError::HalfDone { pipeline, what })
        };
        if checkpoint.state != PipelineState::Live {
            return half_done("a snapshot");
        }
        if checkpoint.position.is_some_and(|it| !it.is_end()) {
            return half_done("a giant transaction");
        }
        let lineage = Lineage::of(&checkpoint, &state);
        let applied = checkpoint.end_lsn;
        lineage.check(&state, applied, &self.options.slot)?;
        let confirmed = state.slot.map_or(Lsn::ZERO, |slot| slot.confirmed_lsn);
        if confirmed > applied {
            return Err(MoveError::Behind { confirmed, applied });
        }
        Ok((checkpoint, lineage.server))
    }

    async fn put(&mut self, checkpoint: &Checkpoint, to: Destination) -> Result<Moved, MoveError> {
        self.into.claim().await?;
        let empty = self.into.batch();
        self.into.apply(empty, checkpoint).await?;
        let (generation, lsn) = (checkpoint.generation, checkpoint.end_lsn);
        info!(generation, %lsn, ?to, "moved");
        Ok(Moved {
            to,
            generation,
            lsn,
        })
    }
}

impl From<Fault> for MoveError {
    fn from(fault: Fault) -> Self {
        Self::Connector(fault)
    }
}

impl Classify for MoveError {
    fn class(&self) -> Class {
        match self {
            Self::Connector(fault) => fault.class(),
            Self::Source(error) => error.class(),
            _ => Class::Fatal,
        }
    }
}
