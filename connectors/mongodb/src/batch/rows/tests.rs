use super::*;
use crate::Policies;
use crate::bson_value::element::Elements;
use walferry_schema::{Column, Field, Phase, TableName, Type, Value};

const POSITION: Position = Position {
    generation: 1,
    phase: Phase::Snapshot(0),
    ordinal: 0,
};

fn columns() -> [Column; 3] {
    [
        ("id", Type::Int4, 1),
        ("n", Type::Int4, 0),
        ("big", Type::Text, 0),
    ]
    .map(|(name, kind, key)| Column {
        name: name.into(),
        type_name: name.into(),
        kind,
        key,
    })
}

fn image<'a>(columns: &'a [Column], n: i32, big: Option<&'a str>) -> Image<'a> {
    let present = |value| Field::Present(value);
    let big = big.map_or(Field::Absent, |text| present(Value::Text(text.into())));
    let fields = vec![present(Value::Int4(7)), present(Value::Int4(n)), big];
    Image { columns, fields }
}

#[test]
fn a_row_whose_numbers_change_again_and_again_takes_no_more_room() {
    let table = TableName::new("public", "t");
    let mut rows = Rows::new("t".into(), Encoder::new(table, Policies::default()));
    let columns = columns();
    let mut sizes = Vec::new();
    for n in 0..3 {
        rows.push(Step::Update, &image(&columns, n, Some("text")), POSITION)
            .expect("a row");
        sizes.push((rows.arena.len(), rows.keys.len(), rows.live_bytes));
    }
    assert_eq!(sizes[1..], [sizes[0]; 2]);
    let body = rows.entries[0].action.body().expect("an update");
    assert_eq!(
        rows.elements(body),
        b"\x10id\0\x07\0\0\0\x10n\0\x02\0\0\0\x02big\0\x05\0\0\0text\0"
    );
}

#[test]
fn a_large_row_that_is_updated_again_and_again_is_held_a_few_times() {
    let table = TableName::new("public", "t");
    let mut rows = Rows::new("t".into(), Encoder::new(table, Policies::default()));
    let (columns, big) = (columns(), "x".repeat(1 << 20));
    rows.push(Step::Insert, &image(&columns, 0, Some(&big)), POSITION)
        .expect("a row");
    for n in 1..=100 {
        rows.push(Step::Update, &image(&columns, n, None), POSITION)
            .expect("a row");
        assert!(rows.arena.len() <= 4 << 20, "{} bytes", rows.arena.len());
    }
    let operations: Vec<_> = rows.iter().collect();
    let [operation] = operations[..] else {
        unreachable!("one key");
    };
    let body = operation.action().body().expect("an insert");
    let values: Vec<u8> = rows.values(body).flatten().copied().collect();
    let names: Vec<_> = Elements::new(&values).map(|it| it.name).collect();
    assert_eq!(names, [b"n".as_slice(), b"big"]);
    assert!(values.starts_with(b"\x10n\0\x64\0\0\0\x02big\0"));
    assert!(values.len() > big.len());
}
