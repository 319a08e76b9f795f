use std::sync::Arc;

use super::*;
use crate::{Field, Relation, ReplicaIdentity, RowBuilder, TableName, Type, Value};

mod properties;

fn column(name: &str, kind: Type, key: u16) -> Column {
    Column {
        name: name.into(),
        type_name: format!("{kind:?}").into(),
        kind,
        key,
    }
}

fn relation(columns: impl Into<Arc<[Column]>>) -> Relation {
    let name = TableName::new("inv", "customers");
    Relation {
        oid: 1,
        name,
        identity: ReplicaIdentity::Default,
        columns: columns.into(),
    }
}

fn template() -> Template {
    Template {
        version: "3.6.3.Final".into(),
        name: "dbz".into(),
        database: "postgres".into(),
    }
}

const META: Meta = Meta {
    op: Op::Create,
    snapshot: SnapshotMark::False,
    committed_at: 1_795_199_044_423_359,
    last_commit_lsn: Some(Lsn(26_360_184)),
    lsn: Lsn(26_360_320),
    xid: 842,
    transaction: Some(TransactionMark {
        commit_lsn: Lsn(26_360_600),
        total_order: 2,
        data_collection_order: 1,
    }),
    processed_at: 1_795_199_044_720_504_981,
};

fn written(relation: &Relation, meta: &Meta, before: Before<'_>, after: Option<&Row>) -> String {
    let mut out = Vec::new();
    write_value(&mut out, &template(), relation, meta, before, after)
        .expect("texts of their types");
    String::from_utf8(out).expect("JSON is UTF-8")
}

/// The JSON of one value, through a whole row.
fn json_of(kind: Type, text: &str) -> String {
    let relation = relation([column("v", kind, 1)]);
    let mut out = Vec::new();
    write_key(&mut out, &relation, &Row::from_texts(&[Some(text)])).expect("text of its type");
    let out = String::from_utf8(out).expect("JSON is UTF-8");
    out.strip_prefix("{\"v\":")
        .and_then(|out| out.strip_suffix('}'))
        .expect("a row")
        .to_owned()
}

#[test]
fn a_value_has_all_members_in_the_documented_order() {
    let relation = relation([column("id", Type::Int4, 1), column("name", Type::Text, 0)]);
    let row = Row::from_texts(&[Some("2"), Some("Bob")]);
    let expected = concat!(
        r#"{"before":null,"after":{"id":2,"name":"Bob"},"#,
        r#""source":{"version":"3.6.3.Final","connector":"postgresql","name":"dbz","#,
        r#""ts_ms":1795199044423,"snapshot":"false","db":"postgres","#,
        r#""sequence":"[\"26360184\",\"26360320\"]","#,
        r#""ts_us":1795199044423359,"ts_ns":1795199044423359000,"#,
        r#""schema":"inv","table":"customers","txId":842,"lsn":26360320,"#,
        r#""xmin":null,"origin":null,"origin_lsn":null},"#,
        r#""transaction":{"id":"842:26360600","total_order":2,"data_collection_order":1},"#,
        r#""op":"c","ts_ms":1795199044720,"ts_us":1795199044720504,"ts_ns":1795199044720504981}"#,
    );
    assert_eq!(
        written(&relation, &META, Before::None, Some(&row)),
        expected
    );
}

#[test]
fn a_snapshot_row_has_no_transaction_and_no_last_commit() {
    let relation = relation([column("id", Type::Int4, 1)]);
    let meta = Meta {
        op: Op::Read,
        snapshot: SnapshotMark::LastInDataCollection,
        last_commit_lsn: None,
        transaction: None,
        ..META
    };
    let json = written(
        &relation,
        &meta,
        Before::None,
        Some(&Row::from_texts(&[Some("1")])),
    );
    assert!(
        json.contains(r#""snapshot":"last_in_data_collection""#),
        "{json}"
    );
    assert!(
        json.contains(r#""sequence":"[null,\"26360320\"]""#),
        "{json}"
    );
    assert!(json.contains(r#""transaction":null,"op":"r","#), "{json}");
}

#[test]
fn a_truncate_shows_no_row() {
    let relation = relation([column("id", Type::Int4, 1)]);
    let json = written(
        &relation,
        &Meta {
            op: Op::Truncate,
            ..META
        },
        Before::None,
        None,
    );
    assert!(
        json.starts_with(r#"{"before":null,"after":null,"source":{"#),
        "{json}"
    );
    let envelope = Envelope::from_bytes(json.as_bytes()).expect("an envelope");
    assert_eq!(envelope.op, Op::Truncate);
    assert!(envelope.before.is_none() && envelope.after.is_none());
}

#[test]
fn before_shows_the_key_in_table_order_or_the_whole_row() {
    let columns = [
        column("b", Type::Int4, 2),
        column("v", Type::Text, 0),
        column("a", Type::Int4, 1),
    ];
    let relation = relation(columns);
    let row = Row::from_texts(&[Some("1"), None, Some("2")]);
    let meta = Meta {
        op: Op::Delete,
        ..META
    };
    let json = written(&relation, &meta, Before::Key(&row), None);
    assert!(
        json.starts_with(r#"{"before":{"b":1,"a":2},"after":null,"#),
        "{json}"
    );
    let json = written(&relation, &meta, Before::Full(&row), None);
    assert!(
        json.starts_with(r#"{"before":{"b":1,"v":null,"a":2},"after":null,"#),
        "{json}"
    );
}

#[test]
fn a_key_is_in_key_order() {
    let relation = relation([column("b", Type::Text, 2), column("a", Type::Int4, 1)]);
    let mut out = Vec::new();
    write_key(
        &mut out,
        &relation,
        &Row::from_texts(&[Some("x"), Some("7")]),
    )
    .expect("a key");
    assert_eq!(out, br#"{"a":7,"b":"x"}"#);
}

#[test]
fn a_table_without_a_key_has_no_key_bytes() {
    let mut out = Vec::new();
    let row = Row::from_texts(&[Some("x")]);
    write_key(&mut out, &relation([column("a", Type::Text, 0)]), &row).expect("no key");
    assert!(out.is_empty());
}

#[test]
fn an_unchanged_column_is_absent_and_named() {
    let columns = [
        column("big", Type::Text, 0),
        column("id", Type::Int4, 1),
        column("é\"", Type::Json, 0),
    ];
    let relation = relation(columns);
    let mut row = RowBuilder::with_capacity(3);
    row.unchanged();
    row.text(0, 1);
    row.unchanged();
    let row = row.build(bytes::Bytes::from_static(b"5"));
    let json = written(&relation, &META, Before::Full(&row), Some(&row));
    assert!(
        json.starts_with(r#"{"before":{"id":5},"after":{"id":5},"#),
        "{json}"
    );
    let names = unchanged_names(&relation, &row);
    assert_eq!(names.as_deref(), Some(r#"["big","é\""]"#.as_bytes()));
    assert_eq!(
        unchanged_names(&relation, &Row::from_texts(&[None, Some("5"), None])),
        None
    );
    let envelope = Envelope::from_bytes(json.as_bytes()).expect("an envelope");
    let image = read_image(&relation.columns, envelope.after.expect("a row")).expect("an image");
    assert_eq!(
        image.fields,
        [Field::Absent, Field::Present(Value::Int4(5)), Field::Absent]
    );
}

#[test]
fn an_unchanged_key_column_is_an_error_of_the_key() {
    let relation = relation([column("id", Type::Text, 1)]);
    let mut row = RowBuilder::with_capacity(1);
    row.unchanged();
    let error = write_key(&mut Vec::new(), &relation, &row.build(bytes::Bytes::new()));
    assert!(matches!(error, Err(EnvelopeError::UnchangedKey(column)) if column == "id"));
}

#[test]
fn values_have_their_documented_forms() {
    let forms = [
        (Type::Bool, "t", "true"),
        (Type::Int2, "-32768", "-32768"),
        (Type::Int8, "-9223372036854775808", "-9223372036854775808"),
        (Type::Oid, "4294967295", "4294967295"),
        (Type::Numeric, "123.4500", "\"123.4500\""),
        (Type::Numeric, "NaN", "\"NaN\""),
        (Type::Bytea, "\\x", "\"\""),
        (Type::Bytea, "\\x00ff", "\"AP8=\""),
        (Type::Json, "{\"a\": 1}", r#""{\"a\": 1}""#),
        (Type::Date, "2024-02-29", "19782"),
        (Type::Date, "-infinity", "\"-infinity\""),
        (Type::Timestamp(0), "1969-12-31 23:59:59", "-1000"),
        (Type::Timestamp(3), "1969-12-31 23:59:59.999", "-1"),
        (Type::Timestamp(4), "1969-12-31 23:59:59.9999", "-100"),
        (Type::Timestamp(6), "infinity", "\"infinity\""),
        (
            Type::TimestampTz(6),
            "2024-02-29 10:34:56+00",
            "\"2024-02-29T10:34:56.000000Z\"",
        ),
        (
            Type::TimestampTz(3),
            "2024-02-29 10:34:56.12+00",
            "\"2024-02-29T10:34:56.120Z\"",
        ),
        (
            Type::TimestampTz(1),
            "2024-02-29 10:34:56.1+00",
            "\"2024-02-29T10:34:56.1Z\"",
        ),
        (
            Type::TimestampTz(0),
            "2024-02-29 10:34:56+00",
            "\"2024-02-29T10:34:56Z\"",
        ),
        (
            Type::TimestampTz(0),
            "10000-01-01 00:00:00+00",
            "\"+10000-01-01T00:00:00Z\"",
        ),
        (
            Type::TimestampTz(0),
            "0044-03-15 12:00:00+00 BC",
            "\"-0043-03-15T12:00:00Z\"",
        ),
        (
            Type::TimestampTz(0),
            "0001-12-31 23:59:59+00 BC",
            "\"0000-12-31T23:59:59Z\"",
        ),
        (Type::TimestampTz(0), "-infinity", "\"-infinity\""),
    ];
    for (kind, text, json) in forms {
        assert_eq!(json_of(kind, text), json, "{kind:?} {text}");
    }
}

#[test]
fn floats_are_written_as_java_writes_them() {
    let forms = [
        ("0", "0.0"),
        ("-0", "-0.0"),
        ("1", "1.0"),
        ("-1.5", "-1.5"),
        ("0.1", "0.1"),
        ("0.001", "0.001"),
        ("0.00099", "9.9E-4"),
        ("9999999", "9999999.0"),
        ("1e+07", "1.0E7"),
        ("12345678.5", "1.23456785E7"),
        ("-1.2345678901234568e+29", "-1.2345678901234568E29"),
        ("1e-07", "1.0E-7"),
        ("1.7976931348623157e+308", "1.7976931348623157E308"),
        ("2.2250738585072014e-308", "2.2250738585072014E-308"),
        ("NaN", "\"NaN\""),
        ("Infinity", "\"Infinity\""),
        ("-Infinity", "\"-Infinity\""),
    ];
    for (text, json) in forms {
        assert_eq!(json_of(Type::Float8, text), json, "{text}");
    }
    assert_eq!(json_of(Type::Float4, "3.4028235e+38"), "3.4028235E38");
}

#[test]
fn only_what_json_must_escape_is_escaped() {
    let text =
        "plain text of more than sixteen bytes \"\\/\u{8}\t\n\u{c}\r\u{0}\u{1f}\u{7f}é☃😀\u{2028}";
    let json = concat!(
        r#""plain text of more than sixteen bytes \"\\/\b\t\n\f\r\u0000\u001F"#,
        "\u{7f}é☃😀\u{2028}\""
    );
    assert_eq!(json_of(Type::Text, text), json);
}

#[test]
fn an_image_is_read_by_name_whatever_the_order() {
    let columns = [
        column("a", Type::Int4, 1),
        column("b", Type::Text, 0),
        column("c", Type::Bool, 0),
    ];
    let image = read_image(&columns, r#" { "c" : true , "a" : 1 } "#).expect("an image");
    let expected = [
        Field::Present(Value::Int4(1)),
        Field::Absent,
        Field::Present(Value::Bool(true)),
    ];
    assert_eq!(image.fields, expected);
    assert!(!image.is_complete());
}

#[test]
fn a_member_that_is_no_column_is_named() {
    let columns = [column("a", Type::Int4, 1)];
    let error = read_image(&columns, r#"{"a":1,"b\u0022":[2]}"#);
    assert!(matches!(error, Err(EnvelopeError::UnknownColumn(name)) if name == "b\""));
}

#[test]
fn a_value_of_another_form_names_its_column() {
    let forms = [
        (Type::Bool, "1"),
        (Type::Int2, "32768"),
        (Type::Int4, "\"1\""),
        (Type::Int4, "1.0"),
        (Type::Float8, "\"1.0\""),
        (Type::Numeric, "1.0"),
        (Type::Numeric, "\"MDk=\""),
        (Type::Text, "1"),
        (Type::Text, "{\"x\":1}"),
        (Type::Bytea, "\"AP8\""),
        (Type::Date, "\"2024-01-01\""),
        (Type::Timestamp(3), "9223372036854775807"),
        (Type::TimestampTz(6), "1709210096123456"),
        (Type::TimestampTz(6), "\"2024-02-29 10:34:56+00\""),
        (Type::Json, "[1]"),
    ];
    for (kind, json) in forms {
        let row = format!("{{\"v\":{json}}}");
        let columns = [column("v", kind, 0)];
        let error = read_image(&columns, &row).err();
        let is_named = matches!(&error, Some(EnvelopeError::Value { column, .. }) if column == "v");
        assert!(is_named, "{kind:?} {json}: {error:?}");
    }
}

#[test]
fn an_envelope_needs_an_operation_that_is_known() {
    for json in [
        "",
        "null",
        "{}",
        r#"{"op":"m"}"#,
        r#"{"op":1}"#,
        r#"{"op":"c"} x"#,
    ] {
        assert!(Envelope::from_bytes(json.as_bytes()).is_err(), "{json}");
    }
    let envelope = Envelope::from_bytes(br#"{"op":"u","after":{},"x":[{"op":1}]}"#).expect("one");
    assert_eq!(envelope.op, Op::Update);
    assert_eq!(envelope.after, Some("{}"));
}

#[test]
fn an_envelope_is_read_whatever_the_order_of_its_members() {
    let ends = r#""ts_ms":1,"ts_us":2,"ts_ns":3}"#;
    let heads = [
        r#"{"source":{"op":"d"},"before":null,"after":{"id":1},"op":"u","#,
        r#"{"before":null,"source":{},"after":{"id":1},"op":"u","#,
        r#"{"before": null,"after": {"id":1},"op": "u","#,
        r#"{"before":null,"after":{"id":1},"op":"u","ts_s":0,"#,
    ];
    for head in heads {
        let json = format!("{head}{ends}");
        let envelope = Envelope::from_bytes(json.as_bytes()).expect("an envelope");
        assert!(Envelope::as_written(&json).is_none(), "{json}");
        assert_eq!(
            (envelope.op, envelope.after),
            (Op::Update, Some(r#"{"id":1}"#)),
            "{json}"
        );
    }
}

#[test]
fn a_text_that_looks_like_an_envelope_is_not_taken_for_it() {
    let looks = r#"},"after":{"id":9},"op":"d","ts_ms":1,"ts_us":2,"ts_ns":3}"#;
    let relation = relation([column("id", Type::Int4, 1), column("v", Type::Text, 0)]);
    let row = Row::from_texts(&[Some("2"), Some(looks)]);
    let json = written(&relation, &META, Before::Full(&row), Some(&row));
    let envelope = Envelope::as_written(&json).expect("an envelope as it is written");
    assert_eq!(envelope.op, META.op);
    for read in [envelope.before, envelope.after] {
        let image = read_image(&relation.columns, read.expect("a row")).expect("an image");
        assert_eq!(image.fields[1], Field::Present(Value::Text(looks.into())));
    }
    let inner = r#"{"op":"c","x":{"op":"d","ts_ms":1,"ts_us":2,"ts_ns":3}}"#;
    let envelope = Envelope::from_bytes(inner.as_bytes()).expect("an envelope");
    assert_eq!(envelope.op, Op::Create);
}

#[test]
fn an_envelope_tells_when_it_was_decoded() {
    let ends = r#"{"before":null,"op":"c","ts_ms":1795199044720,"ts_us":1795199044720504,"ts_ns":1795199044720504981}"#;
    assert_eq!(decoded_at(ends), Some(1_795_199_044_720_504));
    assert_eq!(decoded_at(r#"{"op":"c","ts_ms":1795199044720}"#), None);
}
