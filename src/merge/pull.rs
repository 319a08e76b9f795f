//! Taking the rows that one log record counts.
//!
//! - A row of an older term is dropped; one of a later term shows that the rest never comes.
//! - A row taken carries the wanted transaction and rising ordinals.

use tokio::time::Instant;
use tracing::debug;
use walferry_core::{LogReader, Partition, PartitionOffset, RowRecord};
use walferry_schema::{LogRecord, Lsn, PartitionCount, Phase, Stamp, Term};

use super::{MergeError, STALL};

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
    pub(super) is_applied: bool,
    pub(super) end_lsn: Option<Lsn>,
    pub(super) committed_at: Option<i64>,
    records: Vec<(usize, RowRecord)>,
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
    /// Some will never come: the next term sends the transaction again.
    Void,
}

/// What a look at one partition showed.
enum Look {
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
            end_lsn: None,
            committed_at: None,
            records: Vec::new(),
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

    /// Takes rows until all are here or some are known never to come.
    ///
    /// # Cancel safety
    /// Cancel safe: what was taken stays here.
    pub(super) async fn advance<R: LogReader>(
        &mut self,
        reader: &mut R,
    ) -> Result<Pulled, MergeError> {
        for want in &mut self.wants {
            if want.partition.is_none() {
                want.partition = Some(reader.partition(&want.name).await?);
            }
        }
        loop {
            let mut is_complete = true;
            for index in 0..self.wants.len() {
                match self.take_from(reader, index)? {
                    Look::Done => {}
                    Look::Waiting => is_complete = false,
                    Look::Void => return Ok(Pulled::Void),
                }
            }
            if is_complete {
                return Ok(Pulled::Complete);
            }
            match tokio::time::timeout(STALL, reader.arrived()).await {
                Ok(arrived) => arrived?,
                Err(_) => self.search(reader).await?,
            }
        }
    }

    /// The rows in source order.
    pub(super) fn into_records(mut self) -> Vec<(usize, RowRecord)> {
        if self.wants.len() > 1 {
            self.records.sort_by_key(|(_, record)| record.stamp.ordinal);
        }
        self.records
    }

    fn take_from<R: LogReader>(
        &mut self,
        reader: &mut R,
        index: usize,
    ) -> Result<Look, MergeError> {
        let want = &mut self.wants[index];
        let Some(partition) = want.partition else {
            return Ok(Look::Waiting);
        };
        while want.left > 0 {
            let Some(row) = reader.peek(partition)? else {
                let is_past_end = want.end.is_some_and(|end| reader.offset(partition) >= end);
                return Ok(if is_past_end {
                    Look::Void
                } else {
                    Look::Waiting
                });
            };
            let (stamp, offset, is_tombstone) = (row.stamp, row.offset, row.value.is_none());
            if stamp.term > self.term {
                return Ok(Look::Void);
            }
            let record = reader.take(partition);
            self.waiting_since = None;
            if stamp.term < self.term {
                continue;
            }
            want.check(self.phase, stamp, offset, is_tombstone)?;
            want.left -= 1;
            if let Some(record) = record.filter(|_| !self.is_applied) {
                self.records.push((want.table, record));
            }
        }
        Ok(Look::Done)
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
        if since.elapsed() >= PATIENCE && self.is_at_the_ends(reader).await? {
            self.waiting_since = None;
            return Err(MergeError::Incomplete {
                phase: self.phase,
                missing: self.wants.iter().map(|want| want.left).sum(),
            });
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
                LogRecord::Generation(next) => next.follows == self.term.number,
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

    async fn is_at_the_ends<R: LogReader>(&self, reader: &mut R) -> Result<bool, MergeError> {
        for want in self.wants.iter().filter(|want| want.left > 0) {
            let end = reader.bounds(&want.name).await?.end;
            if want
                .partition
                .is_none_or(|partition| reader.offset(partition) < end)
            {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

// === impl Want ===

impl Want {
    /// A row of the wanted term must be the transaction's next one; a tombstone shares the ordinal
    /// of its delete.
    fn check(
        &mut self,
        phase: Phase,
        stamp: Stamp,
        offset: i64,
        is_tombstone: bool,
    ) -> Result<(), MergeError> {
        let follows = self.last.is_none_or(|(last, was_tombstone)| {
            stamp.ordinal > last || (stamp.ordinal == last && is_tombstone && !was_tombstone)
        });
        if stamp.phase != phase || !follows {
            return Err(MergeError::WrongRow {
                partition: format!("{}/{}", self.name.topic, self.name.partition),
                offset,
                found: stamp.to_string(),
                wanted: phase,
            });
        }
        self.last = Some((stamp.ordinal, is_tombstone));
        Ok(())
    }
}
