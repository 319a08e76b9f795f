//! Where a transaction's rows stand in their partitions, and where a key was written last.
//!
//! - Stamps rise along a partition but for the few records that a dead reader wrote late.

use walferry_core::{Bounds, Fault, LogReader, PartitionOffset};
use walferry_kafka::{KafkaLogReader, RowMark};
use walferry_schema::{Commit, PartitionCount, Phase};

use super::journey::Records;

/// Records that are looked at for a key, counted from the newest.
const REACH: i64 = 500_000;
const FIRST_PIECE: i64 = 500;
const LARGEST_PIECE: i64 = 20_000;

/// Row partitions, as they are asked.
pub(super) trait Rows {
    /// What a partition holds.
    async fn extent(&mut self, name: &PartitionOffset) -> Result<Bounds, Fault>;

    /// A partition's records from `from` on, at most `limit`.
    async fn marks(
        &mut self,
        name: &PartitionOffset,
        from: i64,
        limit: usize,
    ) -> Result<Vec<RowMark>, Fault>;
}

impl Rows for KafkaLogReader {
    async fn extent(&mut self, name: &PartitionOffset) -> Result<Bounds, Fault> {
        self.bounds(name).await
    }

    async fn marks(
        &mut self,
        name: &PartitionOffset,
        from: i64,
        limit: usize,
    ) -> Result<Vec<RowMark>, Fault> {
        KafkaLogReader::marks(self, name, from, limit).await
    }
}

/// The rows of a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Located {
    /// By partition.
    pub(super) records: Vec<Records>,
    /// When the first that was found was decoded, microseconds since 1970.
    pub(super) decoded_at: Option<i64>,
    /// Whether records are missing that were never deleted.
    pub(super) is_incomplete: bool,
}

/// Finds the rows that a commit counts.
pub(super) async fn locate<R: Rows>(rows: &mut R, commit: &Commit) -> Result<Located, Fault> {
    let mut located = Located::default();
    for count in &commit.records {
        let name = PartitionOffset {
            topic: count.topic.clone(),
            partition: count.partition,
        };
        let bounds = rows.extent(&name).await?;
        let (first, place) = first_of(rows, &name, bounds, commit).await?;
        let found = match &first {
            Some(first) => are_all_there(rows, &name, first, commit, count).await?,
            None => false,
        };
        let first = first.filter(|_| found);
        let is_deleted = place == bounds.first && bounds.first > 0;
        located.is_incomplete |= first.is_none() && !is_deleted;
        let decoded_at = first.as_ref().and_then(|it| it.decoded_at);
        located.decoded_at = match (located.decoded_at, decoded_at) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let offset = first.map(|it| it.offset);
        located.records.push(Records {
            topic: count.topic.to_string(),
            partition: count.partition,
            count: count.count,
            first_offset: offset,
            last_offset: offset.map(|it| it + last(count)),
        });
    }
    Ok(located)
}

/// The first record of a commit in a partition, and the offset where it stands or would.
async fn first_of<R: Rows>(
    rows: &mut R,
    name: &PartitionOffset,
    bounds: Bounds,
    commit: &Commit,
) -> Result<(Option<RowMark>, i64), Fault> {
    let wanted = (commit.term, Phase::Stream(commit.commit_lsn));
    let (mut from, mut to) = (bounds.first, bounds.end);
    let mut found = None;
    while from < to {
        let middle = from + (to - from) / 2;
        let mark = rows.marks(name, middle, 1).await?.into_iter().next();
        match mark.filter(|it| it.offset < to) {
            None => to = middle,
            Some(it) if (it.stamp.term, it.stamp.phase) < wanted => from = it.offset + 1,
            Some(it) => {
                to = middle;
                found = is_of(&it, commit).then_some(it);
            }
        }
    }
    Ok((found, from))
}

/// Whether as many records as are counted follow the first.
async fn are_all_there<R: Rows>(
    rows: &mut R,
    name: &PartitionOffset,
    first: &RowMark,
    commit: &Commit,
    count: &PartitionCount,
) -> Result<bool, Fault> {
    let at = first.offset + last(count);
    let mark = rows.marks(name, at, 1).await?.into_iter().next();
    Ok(mark.is_some_and(|it| it.offset == at && is_of(&it, commit)))
}

fn is_of(mark: &RowMark, commit: &Commit) -> bool {
    mark.stamp.term == commit.term && mark.stamp.phase == Phase::Stream(commit.commit_lsn)
}

/// How far the last of a partition's records is from the first.
fn last(count: &PartitionCount) -> i64 {
    i64::try_from(count.count)
        .unwrap_or(i64::MAX)
        .saturating_sub(1)
        .max(0)
}

/// The newest record of a key within [`REACH`]; none when there is none, with the offset that was looked back to.
pub(super) async fn newest_of<R: Rows>(
    rows: &mut R,
    name: &PartitionOffset,
    key: &[u8],
) -> Result<(Option<RowMark>, i64), Fault> {
    let bounds = rows.extent(name).await?;
    let oldest = bounds.first.max(bounds.end - REACH);
    let (mut end, mut piece) = (bounds.end, FIRST_PIECE);
    while end > oldest {
        let from = oldest.max(end - piece);
        let limit = usize::try_from(end - from).unwrap_or_default();
        let marks = rows.marks(name, from, limit).await?;
        let is_it = |it: &RowMark| it.offset < end && it.key.as_deref() == Some(key);
        if let Some(found) = marks.into_iter().rfind(is_it) {
            return Ok((Some(found), from));
        }
        end = from;
        piece = LARGEST_PIECE.min(2 * piece);
    }
    Ok((None, oldest))
}

#[cfg(test)]
mod tests;
