use std::io::Read;

use super::*;
use crate::{Cell, Large, Spool};

fn modes(binary: BinaryMode) -> Modes {
    Modes { binary, ..MODES }
}

/// The whole value of an update of rows whose last cells are large.
pub(super) fn whole(modes: Modes, relation: &Arc<Relation>, row: &Row) -> String {
    let template = Template {
        modes,
        ..template()
    };
    let before = Before::Full(row);
    let value = WholeValue::new(&template, (relation, None), &META, before, Some(row));
    let mut value = value.expect("texts of their types");
    let (mut first, mut again) = (String::new(), String::new());
    value.read_to_string(&mut first).expect("it is read");
    value.rewind();
    value.read_to_string(&mut again).expect("it is read again");
    assert!(first == again);
    first
}

/// The columns of a row, the last of them in a spool.
fn spooled(texts: [&str; 2]) -> (Row, Row) {
    let held = Row::from_texts(&[Some(texts[0]), Some(texts[1])]);
    let file = format!("{}{}", texts[0], texts[1]).into_bytes();
    let mut row = RowBuilder::with_capacity(2);
    row.text(0, texts[0].len());
    row.spooled(texts[0].len() as u64, texts[1].len() as u64);
    let row = row.build_spooled(file.clone().into(), Some(Spool::new(file)));
    (held, row)
}

#[test]
fn a_large_value_is_written_piece_by_piece_as_it_is_written_whole() {
    let text = "é\"\\\n\u{1}0123456789".repeat(20_000);
    let hex = format!("\\x{}", "00ff1a".repeat(40_001));
    let array = format!("{{{}7}}", "1,".repeat(60_000));
    let kinds = [
        (Type::Text, &text),
        (Type::Json, &text),
        (Type::Bytea, &hex),
        (Type::array_of(Type::Int4), &array),
    ];
    let binary = [
        BinaryMode::Base64,
        BinaryMode::Base64UrlSafe,
        BinaryMode::Hex,
    ];
    for ((kind, text), binary) in kinds.iter().flat_map(|it| binary.map(|mode| (it, mode))) {
        let relation = relation([column("id", Type::Int4, 1), column("v", kind.clone(), 0)]);
        let (held, row) = spooled(["5", text]);
        let modes = modes(binary);
        let before = Before::Full(&held);
        let expected = written_as(modes, &relation, &META, before, Some(&held));
        let relation = relation.into();
        assert!(whole(modes, &relation, &row) == expected, "{kind:?}");
        let marked = held.with_large(|index| index == 1);
        assert!(whole(modes, &relation, &marked) == expected, "{kind:?}");
    }
}

#[test]
fn a_large_value_is_left_out_of_the_row_and_named() {
    let relation = relation([column("id", Type::Int4, 1), column("v", Type::Text, 0)]);
    let (_, row) = spooled(["5", "abc"]);
    let value = written(&relation, &META, Before::Full(&row), Some(&row));
    assert!(
        value.starts_with(r#"{"before":{"id":5},"after":{"id":5},"#),
        "{value}"
    );
    assert_eq!(large_names(&relation, &row), ["v".into()]);
    assert_eq!(unchanged_names(&relation, &row), None);
    let Cell::Large(large @ Large::Spooled { .. }) = row.cell(1) else {
        panic!("it is spooled");
    };
    assert_eq!(
        (large.bytes(), row.large_bytes(), row.text_bytes()),
        (3, 3, 1)
    );
}
