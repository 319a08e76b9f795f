//! What one change costs in each step of its way: `cargo bench -p walferry-bench`.

#![allow(
    missing_docs,
    reason = "criterion's macro makes a public function without a word"
)]

mod merge;

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use walferry_core::{Batch, RowEvent, Target};
use walferry_mongodb::{MongoBatch, Policies};
use walferry_postgres::pgoutput;
use walferry_schema::envelope::{
    Before, Envelope, Meta, Op, SnapshotMark, Template, TransactionMark, read_image, row_image,
    write_value,
};
use walferry_schema::{
    Column, Lsn, Modes, Phase, Position, Relation, ReplicaIdentity, Row, TableName, Type,
};

const COLUMNS: [(&str, &str); 9] = [
    ("transaction_id", "int4"),
    ("transaction_date", "timestamp"),
    ("customer_id", "int4"),
    ("store_id", "int4"),
    ("payment_method_id", "int4"),
    ("promotion_applied", "bool"),
    ("promotion_id", "int4"),
    ("weather_id", "int4"),
    ("stockout", "bool"),
];
const VALUES: [Option<&str>; 9] = [
    Some("123456"),
    Some("2024-01-02 10:17:36"),
    Some("2240"),
    Some("2"),
    Some("1"),
    Some("t"),
    None,
    Some("1"),
    Some("f"),
];
const ROWS: u64 = 1_000;
const COMMIT: Lsn = Lsn(0x273_2698);

criterion_group!(benches, decoder, envelope, merge::merge, documents);
criterion_main!(benches);

fn decoder(criterion: &mut Criterion) {
    let frame = insert_frame();
    let mut group = criterion.benchmark_group("pgoutput");
    group.throughput(Throughput::Elements(1));
    group.bench_function("decode an insert", |bencher| {
        bencher
            .iter(|| pgoutput::decode(black_box(frame.clone())).expect("the frame is well formed"));
    });
    group.finish();
}

fn envelope(criterion: &mut Criterion) {
    let (relation, row) = (relation(), Row::from_texts(&VALUES));
    let template = Template {
        version: "0".into(),
        name: "bench".into(),
        database: "bench".into(),
        modes: Modes::default(),
    };
    let mut value = Vec::new();
    let mut group = criterion.benchmark_group("envelope");
    group.throughput(Throughput::Elements(1));
    group.bench_function("write", |bencher| {
        bencher.iter(|| {
            value.clear();
            let row = Some(black_box(&row));
            write_value(&mut value, &template, &relation, &meta(), Before::None, row)
        });
    });
    group.bench_function("parse", |bencher| {
        bencher.iter(|| {
            let envelope = Envelope::from_bytes(black_box(&value)).expect("we wrote it");
            let after = envelope.after.expect("an insert has a new row");
            read_image(&relation.columns, template.modes, after)
                .expect("we wrote it")
                .fields
                .len()
        });
    });
    group.finish();
}

fn documents(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("write model");
    group.throughput(Throughput::Elements(ROWS));
    group.bench_function("1,000 inserts", |bencher| {
        bencher.iter(|| batch(Op::Create));
    });
    group.bench_function("1,000 updates", |bencher| {
        bencher.iter(|| batch(Op::Update));
    });
    group.finish();
}

/// Encodes rows with keys of their own, so that nothing is folded.
fn batch(op: Op) -> usize {
    let relation = relation();
    let mut batch = MongoBatch::new(Policies::default());
    for id in 0..ROWS {
        let id = id.to_string();
        let mut values = VALUES;
        values[0] = Some(&id);
        let row = Row::from_texts(&values);
        let image = row_image(&relation.columns, &row).expect("the values fit their types");
        let event = match op {
            Op::Update => RowEvent::Update(image),
            _ => RowEvent::Insert(image),
        };
        batch
            .push(&target(&relation), event)
            .expect("the row has a form");
    }
    batch.operations()
}

fn target(relation: &Relation) -> Target<'_> {
    Target {
        table: &relation.name,
        staging: None,
        position: Position {
            generation: 1,
            phase: Phase::Stream(COMMIT),
            ordinal: 1,
        },
        committed_at: None,
        xid: None,
        oversize: None,
        whole: None,
    }
}

/// An `I` frame of the table, as PostgreSQL sends it.
fn insert_frame() -> Bytes {
    let mut frame = vec![b'I'];
    frame.extend(1_u32.to_be_bytes());
    frame.push(b'N');
    frame.extend(9_u16.to_be_bytes());
    for value in VALUES {
        let Some(text) = value else {
            frame.push(b'n');
            continue;
        };
        frame.push(b't');
        frame.extend(u32::try_from(text.len()).unwrap_or_default().to_be_bytes());
        frame.extend(text.as_bytes());
    }
    frame.into()
}

fn relation() -> Relation {
    let column = |(index, (name, kind)): (usize, &(&str, &str))| Column {
        name: Arc::from(*name),
        type_name: Arc::from(*kind),
        kind: Type::from_name(kind),
        key: u16::from(index == 0),
    };
    Relation {
        oid: 1,
        name: TableName::new("public", "transactions"),
        identity: ReplicaIdentity::Default,
        columns: COLUMNS.iter().enumerate().map(column).collect(),
    }
}

fn meta() -> Meta<'static> {
    Meta {
        op: Op::Create,
        snapshot: SnapshotMark::False,
        committed_at: 1_700_000_000_000_000,
        last_commit_lsn: Some(COMMIT),
        lsn: COMMIT,
        xid: 995,
        transaction: Some(TransactionMark {
            commit_lsn: COMMIT,
            total_order: 1,
            data_collection_order: 1,
        }),
        origin: None,
        processed_at: 1_700_000_000_000_000_000,
    }
}
