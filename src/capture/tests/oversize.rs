//! Rows that are too large for their topic.

use walferry_core::fakes::{FakeChange, Place};
use walferry_core::{Class, Classify, PartitionOffset, RowRecord};
use walferry_schema::{Oversize, Phase};

use super::super::CaptureError;
use super::{Rig, insert, pass, rows_of, settle};

/// What a topic of these tests takes: less than a row, more than a marker.
const LARGEST_BYTES: usize = 2_000;

fn large(id: i32) -> FakeChange {
    FakeChange::insert("a", id, &"x".repeat(5_000))
}

fn dead_letter() -> PartitionOffset {
    PartitionOffset {
        topic: "p.dead-letter".into(),
        partition: 0,
    }
}

/// The markers among the records of the tables.
fn markers(rig: &Rig) -> Vec<(RowRecord, Oversize)> {
    let marker = |row: RowRecord| {
        let oversize = Oversize::from_bytes(row.oversize.as_ref()?).expect("a header");
        Some((row, oversize))
    };
    rig.kafka
        .all_rows()
        .into_iter()
        .filter_map(marker)
        .collect()
}

fn text(row: &RowRecord) -> String {
    String::from_utf8(row.value.clone().expect("a value").to_vec()).expect("JSON is UTF-8")
}

/// The value that the parts of one record give, the record being known by its stamp.
fn whole(rig: &Rig, marker: &RowRecord) -> (usize, String) {
    let parts = rig.kafka.rows(&dead_letter()).into_iter();
    let parts: Vec<_> = parts.filter(|part| part.stamp == marker.stamp).collect();
    let is_small = |part: &RowRecord| part.bytes() <= LARGEST_BYTES && part.key == marker.key;
    assert!(parts.iter().all(is_small), "{parts:?}");
    (parts.len(), parts.iter().map(text).collect())
}

#[tokio::test(start_paused = true)]
async fn a_row_that_is_too_large_leaves_a_marker_and_its_whole_record_in_parts() {
    let rig = Rig::streaming().await;
    rig.kafka.set_largest_bytes(LARGEST_BYTES);
    let _term = rig.start();
    rig.server.commit(&[insert(1), large(2), insert(3)]);
    settle().await;
    let markers = markers(&rig);
    let [(marker, oversize)] = markers.as_slice() else {
        panic!("one marker: {markers:?}");
    };
    assert_eq!(
        (marker.stamp.ordinal, &*oversize.columns),
        (3, &["v".into()][..])
    );
    assert!(oversize.error.contains("too large"), "{}", oversize.error);
    assert!(text(marker).contains(r#""after":{"id":2},"#), "{marker:?}");
    let (count, whole) = whole(&rig, marker);
    assert_eq!(
        (count as u64, whole.len() as u64),
        (oversize.parts, oversize.bytes)
    );
    let row = format!(r#""after":{{"id":2,"v":"{}"}},"#, "x".repeat(5_000));
    assert_eq!(whole, text(marker).replace(r#""after":{"id":2},"#, &row));
    let counted: u64 = rig.commits()[0].records.iter().map(|it| it.count).sum();
    assert_eq!(counted, 3);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_confirmed_before_the_parts_are_acknowledged() {
    let rig = Rig::streaming().await;
    rig.kafka.set_largest_bytes(LARGEST_BYTES);
    let _term = rig.start();
    settle().await;
    let start = rig.confirmed();
    rig.kafka.hold();
    rig.server.commit(&[large(1)]);
    settle().await;
    for place in [rows_of("a", 0), rows_of("a", 1), Place::Log] {
        rig.kafka.release(&place, 9);
    }
    pass(2).await;
    assert_eq!(rig.confirmed(), start);
    rig.kafka.flow();
    pass(2).await;
    assert_eq!(rig.confirmed(), rig.server.end_lsn());
}

#[tokio::test(start_paused = true)]
async fn a_row_of_the_snapshot_that_is_too_large_is_a_marker_in_its_chunk() {
    let rig = Rig::new();
    rig.server.commit(&[insert(1), large(2)]);
    rig.kafka.set_largest_bytes(LARGEST_BYTES);
    let _term = rig.start();
    settle().await;
    let markers = markers(&rig);
    assert_eq!(markers.len(), 1, "{markers:?}");
    let (marker, oversize) = &markers[0];
    assert!(matches!(marker.stamp.phase, Phase::Snapshot(_)));
    let (count, whole) = whole(&rig, marker);
    assert_eq!(count as u64, oversize.parts);
    assert!(whole.contains(&"x".repeat(5_000)), "{whole}");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_too_large_without_its_values_is_named_by_its_table() {
    let rig = Rig::streaming().await;
    rig.kafka.set_largest_bytes(300);
    rig.server.commit(&[large(1)]);
    let error = rig.error().await;
    assert!(matches!(error, CaptureError::Record { .. }), "{error}");
    assert!(error.to_string().contains("public.a"), "{error}");
    assert_eq!(error.class(), Class::Poison);
    assert!(rig.commits().is_empty());
    assert!(rig.kafka.rows(&dead_letter()).is_empty());
}
