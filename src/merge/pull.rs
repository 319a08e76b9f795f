//! Taking the rows that one log record counts.
//!
//! - A row of an older term is dropped; one of a later term shows that the rest never comes.
//! - A row taken carries the wanted transaction and rising ordinals.
//! - Rows are taken in source order, whatever their partitions: so one ordinal says how much of a
//!   transaction is done, and a piece of a giant can be applied before the rest is here.

use tokio::time::Instant;
use tracing::debug;
use walferry_core::{LogReader, Partition, PartitionOffset, RowRecord};
use walferry_schema::{LogRecord, Lsn, PartitionCount, Phase, Term};

use super::{MergeError, STALL, WholeLimits};

/// How long a transaction may be incomplete at the ends of all its partitions.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
/// A transaction or chunk whose rows are being taken.
pub(super) struct Pull {
    pub(super) term: Term,
    pub(super) phase: Phase,
    /// Where the log record that counts the rows stands, and its hash.
    pub(super) offset: i64,
    pub(super) hash: u64,
    wants: Vec<Want>,
    /// All of it was applied before.
    pub(super) is_applied: bool,
    /// The last ordinal that was applied before, of a giant that was cut short.
    pub(super) applied: Option<u64>,
    pub(super) end_lsn: Option<Lsn>,
    pub(super) committed_at: Option<i64>,
    pub(super) xid: Option<u32>,
    records: Vec<(usize, RowRecord)>,
    /// About how many bytes `records` holds.
    bytes: usize,
    /// Whether the transaction is applied in pieces.
    pub(super) is_giant: bool,
    /// How far the log was searched for the `open` that would end the term.
    searched: i64,
    is_term_over: bool,
    waiting_since: Option<Instant>,
}

/// What is still to be taken from a partition.
struct Want {
    name: PartitionOffset,
    /// None until the reader was asked for it.
    partition: Option<Partition>,
    table: usize,
    left: u64,
    last: Option<(u64, bool)>,
    /// The partition's end when the term was known to be over.
    end: Option<i64>,
}

/// How a pull ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pulled {
    /// All rows are here.
    Complete,
    /// Some rows of a giant are here; more are to come.
    Piece,
    /// Some will never come: the next term sends the transaction again.
    Void,
}

/// The partition whose row comes next.
enum Head {
    /// This one's, up to the first ordinal of another partition.
    Of { index: usize, below: u64 },
    /// All rows were taken.
    Done,
    /// A row that may be the next one is not here yet.
    Waiting,
    /// A row will never come.
    Void,
}

/// What stands first in one partition.
enum Look {
    Row(u64),
    Done,
    Waiting,
    Void,
}

// === impl Pull ===

impl Pull {
    pub(super) fn new(term: Term, phase: Phase) -> Self {
        Self {
            term,
            phase,
            offset: 0,
            hash: 0,
            wants: Vec::new(),
            is_applied: false,
            applied: None,
            end_lsn: None,
            committed_at: None,
            xid: None,
            records: Vec::new(),
            bytes: 0,
            is_giant: false,
            searched: 0,
            is_term_over: false,
            waiting_since: None,
        }
    }

    /// Says where the log record that counts the rows stands.
    pub(super) fn found_at(&mut self, offset: i64, hash: u64) {
        (self.offset, self.hash, self.searched) = (offset, hash, offset + 1);
    }

    /// Adds rows to take.
    pub(super) fn want(&mut self, count: &PartitionCount, table: usize) {
        let name = PartitionOffset {
            topic: count.topic.clone(),
            partition: count.partition,
        };
        let left = count.count;
        self.wants.push(Want {
            name,
            partition: None,
            table,
            left,
            last: None,
            end: None,
        });
    }

    /// The partitions that rows were taken from.
    pub(super) fn partitions(&self) -> impl Iterator<Item = (&PartitionOffset, Partition)> {
        self.wants
            .iter()
            .filter_map(|want| Some((&want.name, want.partition?)))
    }

    /// Takes rows until all are here, enough for a piece, or some are known never to come.
    ///
    /// # Cancel safety
    /// Cancel safe: what was taken stays here.
    pub(super) async fn advance<R: LogReader>(
        &mut self,
        reader: &mut R,
        whole: WholeLimits,
    ) -> Result<Pulled, MergeError> {
        for want in &mut self.wants {
            if want.partition.is_none() {
                want.partition = Some(reader.partition(&want.name).await?);
            }
        }
        loop {
            match self.head(reader)? {
                Head::Of { index, below } => {
                    self.take_from(reader, index, below, whole)?;
                    if self.is_piece_full(whole) {
                        return Ok(Pulled::Piece);
                    }
                }
                Head::Done => return Ok(Pulled::Complete),
                Head::Void => {
                    self.check_void(reader).await?;
                    return Ok(Pulled::Void);
                }
                Head::Waiting => match tokio::time::timeout(STALL, reader.arrived()).await {
                    Ok(arrived) => arrived?,
                    Err(_) => self.search(reader).await?,
                },
            }
        }
    }

    /// Whether the log says too that the term is over: no reader produces before its `open` is there.
    async fn check_void<R: LogReader>(&mut self, reader: &mut R) -> Result<(), MergeError> {
        if !self.is_term_over {
            self.find_next_open(reader).await?;
        }
        if self.is_term_over {
            return Ok(());
        }
        let (term, phase) = (self.term, self.phase);
        Err(MergeError::OpenMissing { term, phase })
    }

    /// Judges by the count whether the transaction is applied in pieces.
    pub(super) fn judge_size(&mut self, whole: WholeLimits) {
        let rows: u64 = self.wants.iter().map(|want| want.left).sum();
        self.is_giant = self.is_stream() && rows > whole.rows;
    }

    /// The rows that are here, in source order.
    pub(super) fn take_records(&mut self) -> Vec<(usize, RowRecord)> {
        self.bytes = 0;
        std::mem::take(&mut self.records)
    }

    fn is_stream(&self) -> bool {
        matches!(self.phase, Phase::Stream(_))
    }

    fn is_piece_full(&self, whole: WholeLimits) -> bool {
        self.is_giant && whole.is_piece(self.records.len(), self.bytes)
    }

    /// Where the next row in source order stands.
    fn head<R: LogReader>(&mut self, reader: &mut R) -> Result<Head, MergeError> {
        let (mut first, mut below) = (None, u64::MAX);
        let mut is_waiting = false;
        for index in 0..self.wants.len() {
            match self.look(reader, index)? {
                Look::Row(ordinal) => match first {
                    // One ordinal is one row: taking neither would be no progress, both an invention.
                    Some((_, least)) if ordinal == least => return Err(self.wrong(reader, index)?),
                    Some((_, least)) if ordinal >= least => below = below.min(ordinal),
                    _ => {
                        below = first.map_or(below, |(_, least)| below.min(least));
                        first = Some((index, ordinal));
                    }
                },
                Look::Done => {}
                Look::Waiting => is_waiting = true,
                Look::Void => return Ok(Head::Void),
            }
        }
        Ok(match first {
            _ if is_waiting => Head::Waiting,
            Some((index, _)) => Head::Of { index, below },
            None => Head::Done,
        })
    }

    /// That the row which stands first in a partition does not belong there.
    fn wrong<R: LogReader>(&self, reader: &mut R, index: usize) -> Result<MergeError, MergeError> {
        let want = &self.wants[index];
        let row = match want.partition {
            Some(partition) => reader.peek(partition)?,
            None => None,
        };
        Ok(row.map_or(
            MergeError::Incomplete {
                phase: self.phase,
                missing: want.left,
            },
            |row| want.wrong(self.phase, row),
        ))
    }

    /// The row that stands first in a partition; those that a dead reader left are dropped.
    fn look<R: LogReader>(&mut self, reader: &mut R, index: usize) -> Result<Look, MergeError> {
        let want = &self.wants[index];
        if want.left == 0 {
            return Ok(Look::Done);
        }
        let Some(partition) = want.partition else {
            return Ok(Look::Waiting);
        };
        while let Some(row) = reader.peek(partition)? {
            let stamp = row.stamp;
            if stamp.term > self.term {
                return Ok(Look::Void);
            }
            if stamp.term == self.term {
                want.check(self.phase, row)?;
                return Ok(Look::Row(stamp.ordinal));
            }
            reader.take(partition);
            self.waiting_since = None;
        }
        let is_past_end = want.end.is_some_and(|end| reader.offset(partition) >= end);
        Ok(if is_past_end {
            Look::Void
        } else {
            Look::Waiting
        })
    }

    /// Takes the rows of one partition that come before those of all others.
    fn take_from<R: LogReader>(
        &mut self,
        reader: &mut R,
        index: usize,
        below: u64,
        whole: WholeLimits,
    ) -> Result<(), MergeError> {
        while let Look::Row(ordinal) = self.look(reader, index)? {
            let is_stream = self.is_stream();
            let want = &mut self.wants[index];
            let Some(partition) = want.partition.filter(|_| ordinal < below) else {
                break;
            };
            let Some(record) = reader.take(partition) else {
                break;
            };
            self.waiting_since = None;
            want.last = Some((ordinal, record.value.is_none()));
            want.left -= 1;
            if self.is_applied || self.applied.is_some_and(|applied| ordinal <= applied) {
                continue;
            }
            self.bytes += record.bytes();
            self.is_giant |= self.bytes > whole.bytes && is_stream;
            self.records.push((want.table, record));
            if self.is_piece_full(whole) {
                break;
            }
        }
        Ok(())
    }

    /// Searches the log for the end of this term, once rows fail to arrive (rules 10 and 12).
    async fn search<R: LogReader>(&mut self, reader: &mut R) -> Result<(), MergeError> {
        if !self.is_term_over {
            self.find_next_open(reader).await?;
        }
        if self.is_term_over {
            for want in self
                .wants
                .iter_mut()
                .filter(|want| want.left > 0 && want.end.is_none())
            {
                want.end = Some(reader.bounds(&want.name).await?.end);
            }
            return Ok(());
        }
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= PATIENCE
            && let Some(missing) = self.missing(reader).await?
        {
            self.waiting_since = None;
            let phase = self.phase;
            return Err(MergeError::Incomplete { phase, missing });
        }
        Ok(())
    }

    /// Looks ahead in the log, keeping nothing but whether a newer term begins.
    async fn find_next_open<R: LogReader>(&mut self, reader: &mut R) -> Result<(), MergeError> {
        loop {
            let entries = reader.look_ahead(self.searched, 1_000).await?;
            let Some(last) = entries.last() else {
                return Ok(());
            };
            self.searched = last.offset + 1;
            self.is_term_over = entries.iter().any(|entry| match &entry.record {
                LogRecord::Open(open) => open.follows == self.term.number,
                // It takes over also from a term that the log lost after this one.
                LogRecord::Generation(next) => {
                    next.generation > self.term.generation && next.follows >= self.term.number
                }
                _ => false,
            });
            if self.is_term_over {
                debug!(
                    term = self.term.number,
                    "the term is over, its last rows may be missing"
                );
                return Ok(());
            }
        }
    }

    /// How many rows are missing when every partition that is waited for was read to its end; none
    /// while one was not.
    async fn missing<R: LogReader>(&self, reader: &mut R) -> Result<Option<u64>, MergeError> {
        let mut missing = 0;
        for want in self.wants.iter().filter(|want| want.left > 0) {
            let Some(partition) = want.partition else {
                return Ok(None);
            };
            let ahead = reader.bounds(&want.name).await?.end - reader.offset(partition);
            if reader.peek(partition)?.is_none() && ahead > 0 {
                return Ok(None);
            }
            missing += want
                .left
                .saturating_sub(u64::try_from(ahead).unwrap_or_default());
        }
        Ok(Some(missing))
    }
}

// === impl Want ===

impl Want {
    /// A row of the wanted term must be the transaction's next one; a tombstone shares the ordinal
    /// of its delete.
    fn check(&self, phase: Phase, row: &RowRecord) -> Result<(), MergeError> {
        let (stamp, is_tombstone) = (row.stamp, row.value.is_none());
        let follows = self.last.is_none_or(|(last, was_tombstone)| {
            stamp.ordinal > last || (stamp.ordinal == last && is_tombstone && !was_tombstone)
        });
        if stamp.phase != phase || !follows {
            return Err(self.wrong(phase, row));
        }
        Ok(())
    }

    fn wrong(&self, phase: Phase, row: &RowRecord) -> MergeError {
        MergeError::WrongRow {
            partition: format!("{}/{}", self.name.topic, self.name.partition),
            offset: row.offset,
            found: row.stamp.to_string(),
            wanted: phase,
        }
    }
}
