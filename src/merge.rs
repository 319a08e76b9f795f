//! The commit log and the row topics made one ordered stream again (protocol rules 9 to 12).
//!
//! - Merging is pulling: exactly the rows that a commit counts are taken, nothing is read ahead.
//! - Log order decides: an `open` voids the records of older terms after it.
//! - A commit whose rows a dead reader never delivered is void, with all later ones of its term.
//! - What was applied before is read past, with its rows.
//! - A transaction is given out whole, unless it is a giant: that comes in pieces (rule 17).

mod error;
mod pull;
#[cfg(test)]
mod tests;

use std::time::Duration;

use tracing::{debug, info, warn};
use walferry_core::{Bounds, Checkpoint, Held, LogEntry, LogReader, PipelineState, RowRecord};
use walferry_schema::{
    Generation, LogRecord, Lsn, Open, PartitionCount, Phase, Position, SnapshotEnd, TableSpec, Term,
};

use crate::succession::Succession;

pub use error::MergeError;
use pull::{Pull, Pulled};

/// How long rows may be missing before the log is searched for the end of their term.
const STALL: Duration = Duration::from_millis(100);

/// A `generation` record that is known to stand in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The generation.
    pub generation: u64,
    /// The record's offset.
    pub offset: i64,
}

/// The largest transaction that is applied as a whole; a larger one is a giant (rule 17).
#[derive(Clone, Copy, Debug)]
pub struct WholeLimits {
    /// Rows.
    pub rows: u64,
    /// Bytes of records.
    pub bytes: usize,
}

/// The most of a giant that is given out at a time: a few of them fill a group.
const PIECE_ROWS: u64 = 2_000;
const PIECE_BYTES: usize = 2 << 20;

// === impl WholeLimits ===

impl WholeLimits {
    /// Whether rows of a giant are enough to be given out.
    pub(crate) fn is_piece(self, rows: usize, bytes: usize) -> bool {
        rows as u64 >= PIECE_ROWS.min(self.rows) || bytes >= PIECE_BYTES.min(self.bytes)
    }
}

/// What comes next in the history of the source.
#[derive(Debug)]
pub enum Merged {
    /// A whole source transaction or snapshot chunk, or a piece of a giant.
    Rows(Rows),
    /// Something that everything before must be applied for: see [`Merge::pass`].
    Barrier(Barrier),
    /// Nothing of interest happened for a while; only the checkpoint moved.
    Heartbeat,
}

/// Where the documents change their meaning as a whole.
#[derive(Clone, Debug)]
pub enum Barrier {
    /// A new generation: its snapshot follows.
    Generation(Generation),
    /// The snapshot is complete.
    SnapshotEnd(SnapshotEnd),
}

/// The rows of a transaction, a piece of one or a chunk, in source order.
#[derive(Debug)]
pub struct Rows {
    /// The last change's position, for the checkpoint; complete unless more pieces follow.
    pub position: Position,
    /// When the source committed, microseconds since 1970; none for a chunk.
    pub committed_at: Option<i64>,
    /// The transaction's number; none for a chunk.
    pub xid: Option<u32>,
    /// The records with the index of their table in [`Checkpoint::tables`].
    pub records: Vec<(usize, RowRecord)>,
}

/// The merge of one pipeline.
pub struct Merge<R> {
    reader: R,
    whole: WholeLimits,
    checkpoint: Checkpoint,
    pull: Option<Pull>,
    /// The barrier that waits to be passed, with its offset and hash.
    barrier: Option<(Barrier, i64, u64)>,
    /// Set while the records of a void term are passed over: up to a newer `open`.
    skipping: Option<Term>,
}

// === impl Merge ===

impl<R: LogReader> Merge<R> {
    /// Goes on from a checkpoint (rule 12), or from the newest generation that the log announces.
    ///
    /// `announced` is a generation that this process has begun: an older checkpoint is given up for
    /// it, since what the log holds in between may be the very thing that it remedies.
    ///
    /// # Errors
    /// When the log or a partition no longer holds what comes after the checkpoint, or holds
    /// something else than what was read before it.
    pub async fn open(
        mut reader: R,
        checkpoint: Option<Checkpoint>,
        announced: Option<Announced>,
        whole: WholeLimits,
    ) -> Result<Self, MergeError> {
        let generation = checkpoint
            .as_ref()
            .map_or(0, |checkpoint| checkpoint.generation);
        let announced = announced.filter(|new| new.generation > generation);
        let checkpoint = match (checkpoint, announced) {
            (_, Some(new)) => Checkpoint {
                log_offset: new.offset,
                ..Checkpoint::blank()
            },
            (Some(checkpoint), None) => match check_continuity(&mut reader, &checkpoint).await {
                Ok(()) => checkpoint,
                Err(broken) => {
                    let bounds = reader.log_bounds().await?;
                    match newest_generation(&mut reader, bounds).await? {
                        Some(new) if new.generation > checkpoint.generation => Checkpoint {
                            log_offset: new.offset,
                            ..Checkpoint::blank()
                        },
                        _ => return Err(broken),
                    }
                }
            },
            (None, None) => Checkpoint {
                log_offset: first_generation(&mut reader).await?,
                ..Checkpoint::blank()
            },
        };
        reader
            .assign(checkpoint.log_offset, &checkpoint.partitions)
            .await?;
        Ok(Self {
            reader,
            whole,
            checkpoint,
            pull: None,
            barrier: None,
            skipping: None,
        })
    }

    /// Where the merge stands after what [`next`](Self::next) returned last.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Changes what the merge cannot know: the pipeline's state and what was applied.
    pub fn checkpoint_mut(&mut self) -> &mut Checkpoint {
        &mut self.checkpoint
    }

    /// Publishes the checkpoint's offsets for lag tools.
    pub fn publish_offsets(&mut self, checkpoint: &Checkpoint) {
        self.reader
            .publish_offsets(checkpoint.log_offset, &checkpoint.partitions);
    }

    /// The next item of the source's history.
    ///
    /// # Errors
    /// Whatever breaks the history: see [`MergeError`].
    ///
    /// # Cancel safety
    /// Cancel safe: rows that were pulled for an incomplete transaction are kept.
    pub async fn next(&mut self) -> Result<Merged, MergeError> {
        loop {
            if let Some((barrier, ..)) = &self.barrier {
                return Ok(Merged::Barrier(barrier.clone()));
            }
            if let Some(pull) = &mut self.pull {
                match pull.advance(&mut self.reader, self.whole).await? {
                    Pulled::Void => self.abandon(),
                    Pulled::Piece => return Ok(Merged::Rows(self.piece())),
                    Pulled::Complete => {
                        if let Some(rows) = self.complete() {
                            return Ok(Merged::Rows(rows));
                        }
                    }
                }
                continue;
            }
            let entry = match self.reader.buffered_log()? {
                Some(entry) => entry,
                None => self.reader.next_log().await?,
            };
            if self.read(entry)? {
                return Ok(Merged::Heartbeat);
            }
        }
    }

    /// Passes the barrier that [`next`](Self::next) showed, once everything before it is applied.
    pub fn pass(&mut self) {
        let Some((barrier, offset, hash)) = self.barrier.take() else {
            return;
        };
        self.skipping = None;
        self.move_to(offset, hash);
        match barrier {
            Barrier::Generation(new) => {
                self.checkpoint.generation = new.generation;
                self.checkpoint.term = Term {
                    generation: new.generation,
                    number: offset,
                };
                self.checkpoint.end_lsn = Lsn::ZERO;
                self.checkpoint.state = PipelineState::Snapshot;
                self.checkpoint.server = Some(new.server);
                self.checkpoint.tables = new.tables;
            }
            Barrier::SnapshotEnd(end) => {
                self.checkpoint.end_lsn = end.lsn;
                self.checkpoint.state = PipelineState::Swapping;
            }
        }
    }

    /// Handles a log record: rows that it counts are pulled next, a barrier waits to be passed.
    /// Whether it was a heartbeat that counts.
    fn read(&mut self, entry: LogEntry) -> Result<bool, MergeError> {
        let LogEntry {
            offset,
            record,
            hash,
        } = entry;
        let mut is_heartbeat = false;
        match record {
            LogRecord::Generation(new) if self.takes_over(&new) => {
                self.barrier = Some((Barrier::Generation(new), offset, hash));
                return Ok(false);
            }
            LogRecord::Generation(old) => {
                debug!(
                    generation = old.generation,
                    "passing over an older generation, or one that came late"
                );
            }
            LogRecord::Open(open) => self.read_open(offset, &open)?,
            LogRecord::Commit(commit) if self.counts(commit.term, offset)? => {
                self.check_covered(offset, commit.after)?;
                let mut pull = Pull::new(commit.term, Phase::Stream(commit.commit_lsn));
                pull.end_lsn = Some(commit.end_lsn);
                pull.committed_at = Some(commit.committed_at);
                pull.xid = Some(commit.xid);
                return self.begin_pull(pull, (offset, hash), &commit.records);
            }
            LogRecord::Chunk(chunk) if self.counts(chunk.term, offset)? => {
                self.check_chunks(offset, chunk.chunk)?;
                let pull = Pull::new(chunk.term, Phase::Snapshot(chunk.chunk));
                return self.begin_pull(pull, (offset, hash), &chunk.records);
            }
            LogRecord::SnapshotEnd(end) if self.counts(end.term, offset)? => {
                if let Some(chunks) = end.chunks {
                    self.check_chunks(offset, chunks)?;
                }
                self.barrier = Some((Barrier::SnapshotEnd(end), offset, hash));
                return Ok(false);
            }
            LogRecord::Heartbeat(beat) if self.counts(beat.term, offset)? => {
                self.check_covered(offset, beat.after)?;
                self.checkpoint.end_lsn = self.checkpoint.end_lsn.max(beat.lsn);
                is_heartbeat = true;
            }
            _ => debug!(offset, "passing over a record of a void term"),
        }
        self.move_to(offset, hash);
        Ok(is_heartbeat)
    }

    /// Says that the record at an offset was read. While records are passed over as void the place
    /// stays: whoever begins again there has to find the void commit first.
    fn move_to(&mut self, offset: i64, hash: u64) {
        if self.skipping.is_some() {
            return;
        }
        self.checkpoint.log_offset = offset + 1;
        self.checkpoint.log_check = hash;
    }

    /// Whether a generation takes over from the newest term. One that follows a term which was
    /// never seen does: it mends whatever was lost.
    fn takes_over(&self, new: &Generation) -> bool {
        new.generation > self.checkpoint.generation && new.follows >= self.checkpoint.term.number
    }

    fn read_open(&mut self, offset: i64, open: &Open) -> Result<(), MergeError> {
        let term = Term {
            generation: open.generation,
            number: offset,
        };
        if open.generation > self.checkpoint.generation {
            return Err(MergeError::UnknownGeneration {
                offset,
                generation: open.generation,
            });
        }
        let newest = self.checkpoint.term;
        if term < newest || open.follows < newest.number {
            info!(offset, "passing over an open that came late");
            return Ok(());
        }
        if open.follows > newest.number {
            return Err(MergeError::UnknownTerm {
                offset,
                term: Term {
                    number: open.follows,
                    ..newest
                },
            });
        }
        if open.start_lsn > self.checkpoint.end_lsn {
            return Err(MergeError::LogForgot {
                offset,
                start: open.start_lsn,
                covered: self.checkpoint.end_lsn,
            });
        }
        self.skipping = None;
        self.checkpoint.term = term;
        info!(term = offset, start_lsn = %open.start_lsn, "a new term");
        Ok(())
    }

    /// Whether a record of this term counts (rule 10).
    fn counts(&self, term: Term, offset: i64) -> Result<bool, MergeError> {
        if term.generation > self.checkpoint.generation {
            return Err(MergeError::UnknownGeneration {
                offset,
                generation: term.generation,
            });
        }
        if term > self.checkpoint.term {
            return Err(MergeError::UnknownTerm { offset, term });
        }
        Ok(term == self.checkpoint.term && self.skipping != Some(term))
    }

    /// Whether the records before this one were all read: it says how far they reached.
    fn check_covered(&self, offset: i64, after: Lsn) -> Result<(), MergeError> {
        let covered = self.checkpoint.end_lsn;
        if after > covered {
            return Err(MergeError::Hole {
                offset,
                after,
                covered,
            });
        }
        Ok(())
    }

    /// Whether all chunks before this number were read.
    fn check_chunks(&self, offset: i64, found: u64) -> Result<(), MergeError> {
        let generation = self.checkpoint.generation;
        let read = self.checkpoint.position.map(|it| (it.generation, it.phase));
        let expected = match read {
            Some((of, Phase::Snapshot(last))) if of == generation => last + 1,
            _ => 0,
        };
        if found > expected {
            return Err(MergeError::ChunkMissing {
                offset,
                expected,
                found,
            });
        }
        Ok(())
    }

    /// Begins to take the rows that the record at an offset counts.
    fn begin_pull(
        &mut self,
        mut pull: Pull,
        (offset, hash): (i64, u64),
        counts: &[PartitionCount],
    ) -> Result<bool, MergeError> {
        pull.found_at(offset, hash);
        match self.checkpoint.held(pull.term.generation, pull.phase) {
            Held::Nothing => {}
            Held::UpTo(ordinal) => pull.applied = Some(ordinal),
            Held::All => pull.is_applied = true,
            Held::NothingAfterPart(cut_short) => {
                let found = pull.phase;
                return Err(MergeError::RestMissing { cut_short, found });
            }
        }
        for count in counts {
            let is_its = |table: &TableSpec| table.topic == count.topic;
            let Some(table) = self.checkpoint.tables.iter().position(is_its) else {
                return Err(MergeError::UnknownTable {
                    topic: count.topic.to_string(),
                    generation: self.checkpoint.generation,
                    at: pull.phase,
                });
            };
            pull.want(count, table);
        }
        pull.judge_size(self.whole);
        if pull.is_giant && !pull.is_applied {
            warn!(
                phase = ?pull.phase, after = ?pull.applied,
                "a transaction above the limit is applied in pieces: readers see it half done"
            );
        }
        self.pull = Some(pull);
        Ok(false)
    }

    /// A piece of a giant. The checkpoint stays before the transaction: whoever begins again there
    /// reads past what was applied.
    fn piece(&mut self) -> Rows {
        let pull = self.pull.as_mut().expect("a piece is of a pull");
        let records = pull.take_records();
        let ordinal = records.last().map_or(0, |(_, last)| last.stamp.ordinal);
        let position = Position {
            generation: pull.term.generation,
            phase: pull.phase,
            ordinal,
        };
        self.checkpoint.position = Some(position);
        Rows {
            position,
            committed_at: pull.committed_at,
            xid: pull.xid,
            records,
        }
    }

    /// Moves the checkpoint past a complete pull; its rows, unless they were applied before.
    fn complete(&mut self) -> Option<Rows> {
        let mut pull = self.pull.take()?;
        for (name, partition) in pull.partitions() {
            self.checkpoint
                .partitions
                .insert(name.clone(), self.reader.offset(partition));
        }
        self.move_to(pull.offset, pull.hash);
        if let Some(lsn) = pull.end_lsn {
            self.checkpoint.end_lsn = self.checkpoint.end_lsn.max(lsn);
        }
        if pull.is_applied {
            return None;
        }
        let position = Position::end_of(pull.term.generation, pull.phase);
        self.checkpoint.position = Some(position);
        let committed_at = pull.committed_at;
        self.checkpoint.committed_at = committed_at.or(self.checkpoint.committed_at);
        Some(Rows {
            position,
            committed_at,
            xid: pull.xid,
            records: pull.take_records(),
        })
    }

    /// Drops a void pull: nothing of its term counts any more, up to a newer `open`.
    fn abandon(&mut self) {
        if let Some(pull) = self.pull.take() {
            info!(term = pull.term.number, phase = ?pull.phase, "dropping what a dead reader left");
            self.skipping = Some(pull.term);
        }
    }
}

/// Checks that the servers still hold what follows a checkpoint (rule 12).
async fn check_continuity<R: LogReader>(
    reader: &mut R,
    checkpoint: &Checkpoint,
) -> Result<(), MergeError> {
    let log = reader.log_bounds().await?;
    let offset = checkpoint.log_offset;
    if offset < log.first || offset > log.end {
        let (first, end) = (log.first, log.end);
        return Err(MergeError::OutOfRange {
            partition: "the commit log".into(),
            offset,
            first,
            end,
        });
    }
    if offset > log.first && checkpoint.log_check != 0 {
        let before = reader.look_ahead(offset - 1, 1).await?;
        if before.first().map(|entry| entry.hash) != Some(checkpoint.log_check) {
            return Err(MergeError::OtherLog { offset: offset - 1 });
        }
    }
    for (name, &offset) in &checkpoint.partitions {
        let bounds = reader.bounds(name).await?;
        if offset < bounds.first || offset > bounds.end {
            let partition = format!("{}/{}", name.topic, name.partition);
            let (first, end) = (bounds.first, bounds.end);
            return Err(MergeError::OutOfRange {
                partition,
                offset,
                first,
                end,
            });
        }
    }
    Ok(())
}

/// Where a new pipeline begins: at the newest generation, or at the beginning of an empty log.
async fn first_generation<R: LogReader>(reader: &mut R) -> Result<i64, MergeError> {
    // Asked once: while the log was empty, all that comes is still to be read.
    let bounds = reader.log_bounds().await?;
    match newest_generation(reader, bounds).await? {
        Some(newest) => Ok(newest.offset),
        None if bounds.end == 0 => Ok(0),
        None => Err(MergeError::NoSnapshot {
            first: bounds.first,
        }),
    }
}

/// The newest generation that the log announces within these bounds and that counts.
async fn newest_generation<R: LogReader>(
    reader: &mut R,
    bounds: Bounds,
) -> Result<Option<Announced>, MergeError> {
    let (mut terms, mut begun, mut next) = (Succession::default(), Vec::new(), bounds.first);
    while next < bounds.end {
        let entries = reader.look_ahead(next, 10_000).await?;
        let Some(last) = entries.last() else { break };
        next = last.offset + 1;
        for entry in &entries {
            let counts = terms.judge(entry);
            if let LogRecord::Generation(new) = &entry.record
                && counts
            {
                begun.push(Announced {
                    generation: new.generation,
                    offset: entry.offset,
                });
            }
        }
    }
    let newest = terms.newest().map_or(0, |term| term.generation);
    Ok(begun.into_iter().rfind(|it| it.generation <= newest))
}
