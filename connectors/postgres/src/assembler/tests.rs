use super::*;

const AT: Lsn = Lsn(7);

fn message(identity: u8, flagged: &[bool]) -> RelationMessage {
    let column = |(name, is_identity): (&str, &bool)| RelationColumn {
        is_identity: *is_identity,
        name: name.to_owned(),
        type_oid: 23,
        type_modifier: -1,
    };
    let columns = ["b", "v", "a"]
        .into_iter()
        .zip(flagged)
        .map(column)
        .collect();
    RelationMessage {
        oid: 1,
        schema: "public".into(),
        name: "t".into(),
        identity,
        columns,
    }
}

fn keys(key: &[&str]) -> Keys {
    let key = key.iter().map(|name| (*name).to_owned()).collect();
    [(TableName::new("public", "t"), key)].into()
}

fn described(message: &RelationMessage, keys: &Keys) -> Result<Relation> {
    relation(AT, message, keys, &Catalog::default())
        .map(|relation| relation.expect("built-in types"))
}

fn row() -> Row {
    Row::from_texts(&[Some("1"), None, Some("2")])
}

fn open(assembler: &mut Assembler) {
    assembler.describe(described(&message(b'd', &[true, false, true]), &Keys::new()).unwrap());
    let begin = Message::Begin {
        commit_lsn: Lsn(9),
        committed_at: 0,
        xid: 1,
    };
    assembler.accept(AT, begin).unwrap();
}

fn ordinal(assembler: &mut Assembler, message: Message) -> u64 {
    match assembler.accept(AT, message).unwrap() {
        Some(SourceEvent::Change { ordinal, .. }) => ordinal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_row_and_every_truncated_relation_owns_two_ordinals() {
    let mut assembler = Assembler::default();
    open(&mut assembler);
    assert_eq!(
        ordinal(
            &mut assembler,
            Message::Insert {
                relation: 1,
                new: row()
            }
        ),
        0
    );
    assert_eq!(
        ordinal(
            &mut assembler,
            Message::Update {
                relation: 1,
                old: Some(row()),
                new: row()
            }
        ),
        2
    );
    assert_eq!(
        ordinal(
            &mut assembler,
            Message::Truncate {
                relations: vec![1, 1]
            }
        ),
        4
    );
    assert_eq!(
        ordinal(
            &mut assembler,
            Message::Delete {
                relation: 1,
                old: row()
            }
        ),
        8
    );
    let commit = Message::Commit {
        commit_lsn: Lsn(9),
        end_lsn: Lsn(10),
    };
    assembler.accept(AT, commit).unwrap();
    open(&mut assembler);
    assert_eq!(
        ordinal(
            &mut assembler,
            Message::Insert {
                relation: 1,
                new: row()
            }
        ),
        0
    );
}

#[test]
fn a_relation_that_did_not_change_stays_the_same() {
    let mut assembler = Assembler::default();
    let first = described(&message(b'd', &[true, false, true]), &Keys::new()).unwrap();
    assembler.describe(first.clone());
    let kept = assembler.relation(AT, 1).unwrap();
    assembler.describe(first);
    assert!(Arc::ptr_eq(&kept, &assembler.relation(AT, 1).unwrap()));
    assembler.describe(described(&message(b'f', &[true, true, true]), &Keys::new()).unwrap());
    assert!(!Arc::ptr_eq(&kept, &assembler.relation(AT, 1).unwrap()));
}

#[test]
fn what_is_out_of_order_is_an_error_that_names_its_lsn() {
    let refused =
        |assembler: &mut Assembler, message| assembler.accept(AT, message).unwrap_err().to_string();
    let insert = |relation, cells: &[Option<&str>]| Message::Insert {
        relation,
        new: Row::from_texts(cells),
    };
    let begin = Message::Begin {
        commit_lsn: Lsn(9),
        committed_at: 0,
        xid: 1,
    };
    let commit = |commit_lsn| Message::Commit {
        commit_lsn,
        end_lsn: Lsn(10),
    };
    let mut assembler = Assembler::default();
    let note = |is_transactional| Message::Message {
        is_transactional,
        lsn: AT,
        prefix: String::new(),
        content: bytes::Bytes::new(),
    };
    assert!(
        refused(&mut assembler, insert(1, &[])).contains("0/7: a change outside a transaction")
    );
    assert!(refused(&mut assembler, commit(Lsn(9))).contains("0/7: a commit outside"));
    assert!(refused(&mut assembler, note(true)).contains("message outside"));
    assert!(assembler.accept(AT, note(false)).unwrap().is_some());
    open(&mut assembler);
    assert!(refused(&mut assembler, begin).contains("inside another"));
    assert!(refused(&mut assembler, insert(2, &[])).contains("unknown relation 2"));
    assert!(refused(&mut assembler, insert(1, &[None])).contains("1 cells for 3 columns"));
    assert!(refused(&mut assembler, commit(Lsn(8))).contains("another transaction"));
}

#[test]
fn the_key_is_the_recorded_one_in_its_order() {
    let relation = described(&message(b'd', &[true, false, true]), &keys(&["a", "b"])).unwrap();
    assert_eq!(relation.key_columns(), [2, 0]);
    let unrecorded = described(&message(b'd', &[true, false, true]), &Keys::new()).unwrap();
    assert!(unrecorded.key_columns().is_empty());
}

#[test]
fn a_relation_without_its_recorded_key_is_an_error() {
    let missing =
        described(&message(b'd', &[true, false, true]), &keys(&["a", "gone"])).unwrap_err();
    assert!(matches!(missing, Error::KeyColumnMissing { column, lsn: AT, .. } if column == "gone"));
    for identity in *b"di" {
        let uncovered =
            described(&message(identity, &[true, false, false]), &keys(&["a"])).unwrap_err();
        assert!(
            matches!(uncovered, Error::KeyNotInIdentity { column, lsn: AT, .. } if column == "a")
        );
    }
    assert!(described(&message(b'f', &[true, true, true]), &keys(&["a"])).is_ok());
    assert!(described(&message(b'n', &[false, false, false]), &keys(&["a"])).is_ok());
}

#[test]
fn only_the_types_of_captured_tables_are_asked_for() {
    let mut message = message(b'd', &[true, false, true]);
    message.columns[1].type_oid = 99_999;
    let ask = |keys: &Keys| relation(AT, &message, keys, &Catalog::default()).unwrap();
    assert!(ask(&keys(&["a"])).is_none());
    assert_eq!(&*ask(&Keys::new()).unwrap().columns[1].type_name, "unknown");
}
