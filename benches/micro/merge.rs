//! The commit log and a row partition made one stream again, over a log in memory.

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use walferry::merge::{Merge, Merged, WholeLimits};
use walferry_core::fakes::{FakeKafka, FakeLogReader, SERVER_ID, table_spec};
use walferry_core::{PartitionOffset, RowRecord};
use walferry_schema::{
    Commit, Generation, LogRecord, Lsn, Open, PartitionCount, Phase, ServerIdentity, SnapshotEnd,
    Stamp, TableName, Term,
};

const GENERATION: u64 = 1;
const TRANSACTIONS: u64 = 1_000;
const ROWS: u64 = 10;
const START: u64 = 100;

pub(crate) fn merge(criterion: &mut Criterion) {
    let kafka = history();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime without drivers");
    let mut group = criterion.benchmark_group("merge");
    group.throughput(Throughput::Elements(TRANSACTIONS * ROWS));
    group.bench_function("1,000 transactions of 10 rows", |bencher| {
        bencher.iter(|| runtime.block_on(drain(&kafka)));
    });
    group.finish();
}

/// Merges all of it: how many rows.
async fn drain(kafka: &FakeKafka) -> u64 {
    let whole = WholeLimits {
        rows: 100_000,
        bytes: 64 << 20,
    };
    let reader = FakeLogReader::new(kafka);
    let merge = Merge::open(reader, None, None, whole).await;
    let mut merge = merge.expect("the log has a generation");
    let mut rows = 0;
    while rows < TRANSACTIONS * ROWS {
        match merge.next().await.expect("the history is whole") {
            Merged::Rows(taken) => rows += taken.records.len() as u64,
            Merged::Barrier(_) => merge.pass(),
            Merged::Heartbeat => {}
        }
    }
    rows
}

/// An empty snapshot, then transactions of one table.
fn history() -> FakeKafka {
    let kafka = FakeKafka::new();
    let tables = vec![table_spec("p", "a", 1)];
    let server = ServerIdentity {
        system_id: SERVER_ID.into(),
        timeline: 1,
    };
    let generation = Generation {
        generation: GENERATION,
        follows: kafka.newest_term(),
        server: server.clone(),
        slot: "slot".into(),
        tables: tables.clone(),
    };
    let number = kafka.append_log(&LogRecord::Generation(generation));
    kafka.append_log(&LogRecord::SnapshotEnd(SnapshotEnd {
        chunks: None,
        term: term(number),
        lsn: Lsn(START),
        tables: vec![TableName::new("public", "a")],
    }));
    let open = Open {
        moved: false,
        generation: GENERATION,
        follows: kafka.newest_term(),
        start_lsn: Lsn(START),
        server,
        tables,
    };
    let term = term(kafka.append_log(&LogRecord::Open(open)));
    for number in 1..=TRANSACTIONS {
        transaction(&kafka, term, Lsn(START + 10 * number));
    }
    kafka
}

fn transaction(kafka: &FakeKafka, term: Term, commit_lsn: Lsn) {
    let name = PartitionOffset {
        topic: "p.public.a".into(),
        partition: 0,
    };
    for ordinal in 1..=ROWS {
        let row = RowRecord {
            offset: 0,
            stamp: Stamp {
                term,
                phase: Phase::Stream(commit_lsn),
                ordinal,
            },
            key: None,
            value: Some(Bytes::from_static(b"a row")),
            columns: Bytes::new(),
            unchanged: None,
            oversize: None,
            old_key: None,
            has_new_key: false,
        };
        kafka.append_row(&name, row);
    }
    let count = PartitionCount {
        topic: name.topic,
        partition: name.partition,
        count: ROWS,
    };
    kafka.append_log(&LogRecord::Commit(Commit {
        after: Lsn::ZERO,
        term,
        xid: 1,
        commit_lsn,
        end_lsn: Lsn(commit_lsn.0 + 1),
        committed_at: 5,
        records: vec![count],
    }));
}

fn term(number: i64) -> Term {
    Term {
        generation: GENERATION,
        number,
    }
}
