//! Rows in scripted partitions.

use std::collections::BTreeMap;

use walferry_schema::{Lsn, Stamp, Term};

use super::*;

/// Partitions of one topic by number: the first offset, and the records from there on.
#[derive(Default)]
struct Partitions(BTreeMap<i32, (i64, Vec<RowMark>)>);

impl Partitions {
    fn push(&mut self, partition: i32, term: i64, lsn: u64, key: &str) -> i64 {
        let (first, marks) = self.0.entry(partition).or_default();
        let offset = *first + i64::try_from(marks.len()).unwrap();
        marks.push(RowMark {
            offset,
            stamp: Stamp {
                term: Term {
                    generation: 7,
                    number: term,
                },
                phase: Phase::Stream(Lsn(lsn)),
                ordinal: 1,
            },
            key: Some(key.to_owned().into()),
            decoded_at: Some(1_000 + offset),
        });
        offset
    }
}

impl Rows for Partitions {
    async fn extent(&mut self, name: &PartitionOffset) -> Result<Bounds, Fault> {
        let (first, marks) = &self.0[&name.partition];
        let end = first + i64::try_from(marks.len()).unwrap();
        Ok(Bounds { first: *first, end })
    }

    async fn marks(
        &mut self,
        name: &PartitionOffset,
        from: i64,
        limit: usize,
    ) -> Result<Vec<RowMark>, Fault> {
        let (_, marks) = &self.0[&name.partition];
        let left = marks.iter().filter(|it| it.offset >= from);
        Ok(left.take(limit).cloned().collect())
    }
}

fn commit(term: i64, lsn: u64, counts: &[(i32, u64)]) -> Commit {
    let count = |&(partition, count): &(i32, u64)| PartitionCount {
        topic: "t".into(),
        partition,
        count,
    };
    Commit {
        term: Term {
            generation: 7,
            number: term,
        },
        xid: 1,
        commit_lsn: Lsn(lsn),
        end_lsn: Lsn(lsn + 10),
        committed_at: 0,
        records: counts.iter().map(count).collect(),
        after: Lsn::ZERO,
    }
}

fn offsets(located: &Located) -> Vec<Option<(i64, i64)>> {
    let records = located.records.iter();
    records
        .map(|it| Some((it.first_offset?, it.last_offset?)))
        .collect()
}

#[tokio::test]
async fn the_rows_of_every_transaction_are_found_in_each_partition() {
    let mut rows = Partitions::default();
    for lsn in 1..=200 {
        for _ in 0..3 {
            rows.push(0, 5, lsn, "a");
        }
        rows.push(1, 5, lsn, "b");
    }
    for lsn in 1..=200_u64 {
        let located = locate(&mut rows, &commit(5, lsn, &[(0, 3), (1, 1)]))
            .await
            .unwrap();
        let at = i64::try_from(lsn - 1).unwrap();
        let expected = [Some((3 * at, 3 * at + 2)), Some((at, at))];
        assert_eq!(offsets(&located), expected);
        assert_eq!(located.decoded_at, Some(1_000 + at));
        assert!(!located.is_incomplete);
    }
}

#[tokio::test]
async fn rows_that_never_came_are_told_from_rows_that_were_deleted() {
    let mut rows = Partitions::default();
    rows.push(0, 5, 1, "a");
    rows.push(0, 5, 2, "a");
    rows.push(0, 9, 2, "a");
    rows.push(0, 9, 2, "a");
    let cut = locate(&mut rows, &commit(5, 2, &[(0, 2)])).await.unwrap();
    assert!(cut.is_incomplete);
    let again = locate(&mut rows, &commit(9, 2, &[(0, 2)])).await.unwrap();
    assert_eq!(offsets(&again), [Some((2, 3))]);

    let mut rows = Partitions([(0, (100, Vec::new()))].into());
    rows.push(0, 5, 3, "a");
    let deleted = locate(&mut rows, &commit(5, 2, &[(0, 2)])).await.unwrap();
    assert_eq!(offsets(&deleted), [None]);
    assert!(!deleted.is_incomplete);
}

#[tokio::test]
async fn the_newest_record_of_a_key_is_found_however_far_back_within_reach() {
    let mut rows = Partitions::default();
    rows.push(0, 5, 1, "k");
    let newest = rows.push(0, 5, 2, "k");
    for lsn in 3..3_000 {
        rows.push(0, 5, lsn, "other");
    }
    let name = PartitionOffset {
        topic: "t".into(),
        partition: 0,
    };
    let (found, _) = newest_of(&mut rows, &name, b"k").await.unwrap();
    assert_eq!(found.map(|it| it.offset), Some(newest));
    assert_eq!(newest_of(&mut rows, &name, b"x").await.unwrap(), (None, 0));
}
