//! The merge against a scripted log, by the protocol's rules.

mod broken;
mod giants;
mod taking;
mod voids;

use std::time::Duration;

use bytes::Bytes;
use walferry_core::fakes::{FakeKafka, FakeLogReader, SERVER_ID, table_spec};
use walferry_core::{Checkpoint, PartitionOffset, RowRecord};
use walferry_schema::{
    Chunk, Commit, Generation, Heartbeat, LogRecord, Lsn, Open, PartitionCount, Phase,
    ServerIdentity, SnapshotEnd, Stamp, TableName, Term,
};

use super::{Announced, Barrier, Merge, MergeError, Merged, Rows, WholeLimits};

const GENERATION: u64 = 7;
const WHOLE: WholeLimits = WholeLimits {
    rows: 2_500,
    bytes: 1 << 20,
};
/// Where the snapshot ends and the first term begins.
const START: u64 = 100;

/// A Kafka with the rows of one table in three partitions.
struct Rig {
    kafka: FakeKafka,
}

impl Rig {
    fn new() -> Self {
        Self {
            kafka: FakeKafka::new(),
        }
    }

    /// A generation with an empty snapshot and one open: that term.
    fn streaming() -> (Self, Term) {
        let rig = Self::new();
        rig.snapshot(GENERATION);
        let term = rig.open(START);
        (rig, term)
    }

    fn snapshot(&self, generation: u64) -> Term {
        let term = self.generation(generation);
        let tables = vec![TableName::new("public", "a")];
        let end = SnapshotEnd {
            chunks: None,
            term,
            lsn: Lsn(START),
            tables,
        };
        self.kafka.append_log(&LogRecord::SnapshotEnd(end));
        term
    }

    fn generation(&self, generation: u64) -> Term {
        let tables = vec![table_spec("p", "a", 3)];
        let record = Generation {
            generation,
            follows: self.kafka.newest_term(),
            server: server(),
            slot: "slot".into(),
            tables,
        };
        Term {
            generation,
            number: self.kafka.append_log(&LogRecord::Generation(record)),
        }
    }

    fn open(&self, start: u64) -> Term {
        self.open_of(GENERATION, start)
    }

    fn open_of(&self, generation: u64, start: u64) -> Term {
        self.open_after(self.kafka.newest_term(), generation, start)
    }

    /// An `open` whose writer saw the term with the number `follows` as the newest.
    fn open_after(&self, follows: i64, generation: u64, start: u64) -> Term {
        let (start_lsn, tables) = (Lsn(start), vec![table_spec("p", "a", 3)]);
        let open = Open {
            moved: false,
            generation,
            follows,
            start_lsn,
            server: server(),
            tables,
        };
        Term {
            generation,
            number: self.kafka.append_log(&LogRecord::Open(open)),
        }
    }

    /// A commit that counts `counts[i]` records of partition `i` and ends ten after it stands.
    fn commit(&self, term: Term, lsn: u64, counts: [u64; 3]) -> i64 {
        let records = counted(counts);
        let (commit_lsn, end_lsn) = (Lsn(lsn), Lsn(lsn + 10));
        let commit = Commit {
            after: Lsn::ZERO,
            term,
            xid: 1,
            commit_lsn,
            end_lsn,
            committed_at: 5,
            records,
        };
        self.kafka.append_log(&LogRecord::Commit(commit))
    }

    fn chunk(&self, term: Term, chunk: u64, counts: [u64; 3]) {
        let (table, records) = (TableName::new("public", "a"), counted(counts));
        self.kafka.append_log(&LogRecord::Chunk(Chunk {
            term,
            chunk,
            table,
            records,
        }));
    }

    fn beat(&self, term: Term, lsn: u64) {
        self.kafka.append_log(&LogRecord::Heartbeat(Heartbeat {
            after: Lsn::ZERO,
            term,
            lsn: Lsn(lsn),
        }));
    }

    fn row(&self, partition: i32, term: Term, lsn: u64, ordinal: u64) {
        self.record(partition, term, Phase::Stream(Lsn(lsn)), ordinal, true);
    }

    fn record(&self, partition: i32, term: Term, phase: Phase, ordinal: u64, has_value: bool) {
        let row = RowRecord {
            offset: 0,
            stamp: Stamp {
                term,
                phase,
                ordinal,
            },
            key: None,
            value: has_value.then_some(Bytes::from_static(b"ten bytes.")),
            columns: Bytes::new(),
            unchanged: None,
            oversize: None,
            old_key: None,
            has_new_key: false,
        };
        self.kafka.append_row(&name(partition), row);
    }

    async fn merge(
        &self,
        checkpoint: Option<Checkpoint>,
    ) -> Result<Merge<FakeLogReader>, MergeError> {
        Merge::open(FakeLogReader::new(&self.kafka), checkpoint, None, WHOLE).await
    }

    /// A merge that has passed the snapshot, with a checkpoint as a sink would have stored it.
    async fn live(&self) -> Merge<FakeLogReader> {
        let mut merge = self.merge(None).await.expect("it opens");
        for _ in 0..2 {
            barrier(&mut merge).await;
        }
        merge
    }
}

fn server() -> ServerIdentity {
    ServerIdentity {
        system_id: SERVER_ID.into(),
        timeline: 1,
    }
}

fn name(partition: i32) -> PartitionOffset {
    PartitionOffset {
        topic: "p.public.a".into(),
        partition,
    }
}

fn counted(counts: [u64; 3]) -> Vec<PartitionCount> {
    let count = |(partition, count)| PartitionCount {
        topic: "p.public.a".into(),
        partition,
        count,
    };
    (0..)
        .zip(counts)
        .filter(|(_, count)| *count > 0)
        .map(count)
        .collect()
}

/// The next item, or none when nothing comes for a while.
async fn next(merge: &mut Merge<FakeLogReader>) -> Result<Option<Merged>, MergeError> {
    match tokio::time::timeout(Duration::from_secs(5), merge.next()).await {
        Ok(item) => item.map(Some),
        Err(_) => Ok(None),
    }
}

async fn rows(merge: &mut Merge<FakeLogReader>) -> Rows {
    match next(merge).await.expect("no error") {
        Some(Merged::Rows(rows)) => rows,
        other => panic!("rows were expected, not {other:?}"),
    }
}

/// The commit LSN and the ordinals of the next transaction.
async fn transaction(merge: &mut Merge<FakeLogReader>) -> (u64, Vec<u64>) {
    let rows = rows(merge).await;
    let Phase::Stream(lsn) = rows.position.phase else {
        panic!("a transaction")
    };
    (
        lsn.0,
        rows.records
            .iter()
            .map(|(_, record)| record.stamp.ordinal)
            .collect(),
    )
}

async fn barrier(merge: &mut Merge<FakeLogReader>) -> Barrier {
    match next(merge).await.expect("no error") {
        Some(Merged::Barrier(barrier)) => {
            merge.pass();
            barrier
        }
        other => panic!("a barrier was expected, not {other:?}"),
    }
}

async fn nothing(merge: &mut Merge<FakeLogReader>) {
    let item = next(merge).await.expect("no error");
    assert!(item.is_none(), "{item:?}");
}

async fn error(merge: &mut Merge<FakeLogReader>) -> MergeError {
    let patience = Duration::from_mins(1);
    let item = tokio::time::timeout(patience, merge.next())
        .await
        .expect("it ends");
    item.expect_err("it fails")
}
