#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests build their own inputs"
)]

use proptest::prelude::*;
use walferry_schema::Cell;

use super::*;

/// Sent by PostgreSQL 15.18.
const BEGIN: &str = "420000000002732698000303b82b82e0d7000003e3";
const COMMIT: &str = "4300000000000273269800000000027326c8000303b82b82e0d7";
const RELATION: &str = "52000040cf7075626c69630070726f6475637473006400070170726f647563745f69640000000017ffffffff0070726f647563745f6e616d650000000413000000680063617465676f72795f69640000000017ffffffff00737570706c6965725f69640000000017ffffffff00756e69745f707269636500000006a4000a00060072656f726465725f706f696e740000000017ffffffff0072656f726465725f7175616e746974790000000017ffffffff";
const INSERT: &str = "49000040dc4e00037400000004353030387400000003383433740000000132";
const UPDATE_KEY: &str =
    "55000040dc4b000374000000013174000000033834336e4e00037400000001317400000003383434740000000133";
const DELETE_KEY: &str = "44000040dc4b000374000000013274000000033133356e";
const TRUNCATE: &str = "540000000100000040d2";
/// Made by hand after the documentation: `K` with an unchanged cell, a message, an origin, a type.
const UPDATE_UNCHANGED: &str = "55000040dc4e0002740000000131 75";
const MESSAGE: &str = "4d01000000000273269870726500000000026869";
const ORIGIN: &str = "4f00000000027326986f6e6500";
const TYPE: &str = "5900004e277075626c6963006d6f6f6400";

fn bytes(hex: &str) -> Bytes {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect::<Vec<_>>().into()
}

fn decoded(hex: &str) -> Message {
    decode(bytes(hex)).unwrap()
}

fn row(cells: &[Option<&str>]) -> Vec<Option<String>> {
    cells
        .iter()
        .map(|cell| cell.map(ToOwned::to_owned))
        .collect()
}

fn cells(row: &Row) -> Vec<Option<String>> {
    let text = |cell| match cell {
        Cell::Text(text) => Some(String::from_utf8(text.to_vec()).unwrap()),
        Cell::Null | Cell::Large(_) => None,
        Cell::Unchanged => Some("<unchanged>".to_owned()),
    };
    row.cells().map(text).collect()
}

#[test]
fn a_transaction_is_read() {
    let Message::Begin {
        commit_lsn,
        committed_at,
        xid,
    } = decoded(BEGIN)
    else {
        panic!("no begin")
    };
    assert_eq!((commit_lsn, xid), (Lsn(0x273_2698), 995));
    assert_eq!(
        committed_at,
        i64::from_str_radix("000303b82b82e0d7", 16).unwrap() + 946_684_800_000_000
    );
    assert_eq!(
        decoded(COMMIT),
        Message::Commit {
            commit_lsn: Lsn(0x273_2698),
            end_lsn: Lsn(0x273_26C8)
        }
    );
}

#[test]
fn a_relation_is_read() {
    let Message::Relation(relation) = decoded(RELATION) else {
        panic!("no relation")
    };
    assert_eq!(
        (
            relation.oid,
            relation.schema.as_str(),
            relation.name.as_str()
        ),
        (0x40cf, "public", "products")
    );
    assert_eq!((relation.identity, relation.columns.len()), (b'd', 7));
    let id = RelationColumn {
        is_identity: true,
        name: "product_id".into(),
        type_oid: 23,
        type_modifier: -1,
    };
    assert_eq!(relation.columns[0], id);
    assert_eq!(
        (
            relation.columns[4].type_oid,
            relation.columns[4].type_modifier
        ),
        (1700, 0x000a_0006)
    );
}

#[test]
fn rows_are_read_in_place() {
    let frame = bytes(INSERT);
    let Message::Insert { relation, new } = decode(frame.clone()).unwrap() else {
        panic!("no insert")
    };
    assert_eq!(
        (relation, cells(&new)),
        (0x40dc, row(&[Some("5008"), Some("843"), Some("2")]))
    );
    let Cell::Text(text) = new.cell(0) else {
        panic!("no text")
    };
    assert!(frame.as_ptr_range().contains(&text.as_ptr()));
}

#[test]
fn old_rows_are_read() {
    let Message::Update {
        old: Some(old),
        new,
        ..
    } = decoded(UPDATE_KEY)
    else {
        panic!("no old row")
    };
    assert_eq!(cells(&old), row(&[Some("1"), Some("843"), None]));
    assert_eq!(cells(&new), row(&[Some("1"), Some("844"), Some("3")]));
    let Message::Delete { old, .. } = decoded(DELETE_KEY) else {
        panic!("no delete")
    };
    assert_eq!(cells(&old), row(&[Some("2"), Some("135"), None]));
    let Message::Update { old: None, new, .. } = decoded(UPDATE_UNCHANGED) else {
        panic!("an old row")
    };
    assert_eq!(cells(&new), row(&[Some("1"), Some("<unchanged>")]));
}

#[test]
fn the_other_messages_are_read() {
    assert_eq!(
        decoded(TRUNCATE),
        Message::Truncate {
            relations: vec![0x40d2]
        }
    );
    let message = Message::Message {
        is_transactional: true,
        lsn: Lsn(0x273_2698),
        prefix: "pre".into(),
        content: Bytes::from_static(b"hi"),
    };
    assert_eq!(decoded(MESSAGE), message);
    assert_eq!(
        decoded(ORIGIN),
        Message::Origin {
            commit_lsn: Lsn(0x273_2698),
            name: "one".into()
        }
    );
    assert_eq!(
        decoded(TYPE),
        Message::Type {
            oid: 20007,
            schema: "public".into(),
            name: "mood".into()
        }
    );
}

#[test]
fn what_is_no_message_is_an_error_that_says_why() {
    let error = |hex: &str| decode(bytes(hex)).unwrap_err();
    assert_eq!(error(""), DecodeError::Truncated);
    assert_eq!(error("5a"), DecodeError::UnknownMessage(0x5a));
    assert_eq!(error("49000040dc58"), DecodeError::UnknownTuple(0x58));
    assert_eq!(error("49000040dc4e000162"), DecodeError::BinaryCell);
    assert_eq!(error("49000040dc4e000178"), DecodeError::UnknownCell(0x78));
    assert_eq!(
        error("49000040dc4e0001 74 ffffffff 31"),
        DecodeError::Truncated
    );
    assert_eq!(error(&format!("{COMMIT}00")), DecodeError::Trailing(1));
    assert_eq!(error("5200000001 00 ff00 64 0000"), DecodeError::NotUtf8);
    assert_eq!(
        error("5200000001 00 4100 78 0000"),
        DecodeError::UnknownIdentity(0x78)
    );
    assert_eq!(
        error("42 0000000000000000 7fffffffffffffff 00000001"),
        DecodeError::OutOfRange
    );
}

/// Frames kept from a real server, beside the checkout; absent elsewhere.
#[test]
fn golden_frames_are_read() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../../shared/golden/pgoutput/pgoutput_v1.txt"
    );
    let Ok(text) = std::fs::read_to_string(path) else {
        println!("skipped: {path} is not here");
        return;
    };
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    let frames: Vec<&str> = lines.map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert!(frames.len() > 30);
    let (mut transactions, mut rows) = (0, 0);
    for frame in frames {
        match decoded(frame) {
            Message::Begin { .. } => transactions += 1,
            Message::Commit { .. } => transactions -= 1,
            Message::Insert { .. } | Message::Update { .. } | Message::Delete { .. } => rows += 1,
            _ => {}
        }
    }
    assert_eq!(transactions, 0);
    assert!(rows > 10);
}

const GOOD: [&str; 11] = [
    BEGIN,
    COMMIT,
    RELATION,
    INSERT,
    UPDATE_KEY,
    DELETE_KEY,
    TRUNCATE,
    UPDATE_UNCHANGED,
    MESSAGE,
    ORIGIN,
    TYPE,
];

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_an_error_and_never_a_panic(kind in prop::sample::select(b"BCORYIUDTMX".to_vec()), rest: Vec<u8>) {
        let frame = [vec![kind], rest].concat();
        if let Ok(Message::Insert { new, .. }) = decode(frame.into()) {
            let _ = cells_or_nothing(&new);
        }
    }

    #[test]
    fn a_truncated_message_is_an_error(good in prop::sample::select(GOOD.to_vec()), cut: prop::sample::Index) {
        let frame = bytes(good);
        let cut = cut.index(frame.len());
        prop_assert!(decode(frame.slice(..cut)).is_err());
    }

    #[test]
    fn a_changed_message_never_panics(good in prop::sample::select(GOOD.to_vec()), at: prop::sample::Index, byte: u8) {
        let mut frame = bytes(good).to_vec();
        let at = at.index(frame.len());
        frame[at] = byte;
        if let Ok(Message::Update { old: Some(old), new, .. }) = decode(frame.into()) {
            let _ = (cells_or_nothing(&old), cells_or_nothing(&new));
        }
    }
}

fn cells_or_nothing(row: &Row) -> usize {
    row.text_bytes()
}
