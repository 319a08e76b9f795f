//! What a group holds, counted while it is filled.

use std::time::{Duration, SystemTime};

/// Rows by table, and when the source committed them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    rows: u64,
    /// By the index of the table in the checkpoint.
    tables: Vec<u64>,
    /// The first and the last commit, microseconds since 1970; none while there are only snapshot rows.
    committed: Option<(i64, i64)>,
}

// === impl Tally ===

impl Tally {
    /// Counts a row of the table with this index in the checkpoint.
    pub fn row(&mut self, table: usize) {
        if self.tables.len() <= table {
            self.tables.resize(table + 1, 0);
        }
        self.tables[table] += 1;
        self.rows += 1;
    }

    /// Notes when the source committed rows, microseconds since 1970; commits come in order.
    pub fn commit(&mut self, at: i64) {
        let (first, _) = self.committed.unwrap_or((at, at));
        self.committed = Some((first, at));
    }

    /// All rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Tables that have rows, by their index, with how many.
    pub fn tables(&self) -> impl Iterator<Item = (usize, u64)> {
        let counted = self.tables.iter().copied().enumerate();
        counted.filter(|(_, rows)| *rows > 0)
    }

    /// When the last of the commits was, microseconds since 1970.
    pub fn last_commit(&self) -> Option<i64> {
        self.committed.map(|(_, last)| last)
    }

    /// How long ago the first of the commits was; nothing when the clocks say that it is yet to come.
    pub fn age(&self, now: SystemTime) -> Option<Duration> {
        let (first, _) = self.committed?;
        let first = SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(first).ok()?);
        Some(now.duration_since(first).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_is_the_oldest_commits_and_never_negative() {
        let mut tally = Tally::default();
        let at = |micros| SystemTime::UNIX_EPOCH + Duration::from_micros(micros);
        assert_eq!(tally.age(at(5)), None);
        tally.commit(1_000);
        tally.commit(3_000);
        assert_eq!(tally.age(at(4_000)), Some(Duration::from_millis(3)));
        assert_eq!(tally.age(at(500)), Some(Duration::ZERO));
        assert_eq!(tally.last_commit(), Some(3_000));
    }

    #[test]
    fn rows_are_counted_by_table() {
        let mut tally = Tally::default();
        for table in [3, 0, 3] {
            tally.row(table);
        }
        assert_eq!(tally.tables().collect::<Vec<_>>(), [(0, 1), (3, 2)]);
        assert_eq!(tally.rows(), 3);
    }
}
