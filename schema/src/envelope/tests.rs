use std::sync::Arc;

use super::*;
use crate::{
    Attribute, BinaryMode, DecimalMode, Field, HstoreMode, IntervalMode, Modes, Relation,
    ReplicaIdentity, RowBuilder, SchemaMode, TableName, TimePrecision, TimeZoneMode,
    TransactionIdMode, Type, Value,
};

mod properties;
mod whole;

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
        modes: MODES,
    }
}

const MODES: Modes = Modes {
    decimal: DecimalMode::String,
    time_precision: TimePrecision::Adaptive,
    interval: IntervalMode::String,
    hstore: HstoreMode::Json,
    binary: BinaryMode::Base64,
    time_zone: TimeZoneMode::Offset,
    transaction_id: TransactionIdMode::Commit,
    schemas: SchemaMode::None,
};
const META: Meta<'static> = Meta {
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
    origin: None,
    processed_at: 1_795_199_044_720_504_981,
};

fn written(
    relation: &Relation,
    meta: &Meta<'_>,
    before: Before<'_>,
    after: Option<&Row>,
) -> String {
    written_as(MODES, relation, meta, before, after)
}

fn written_as(
    modes: Modes,
    relation: &Relation,
    meta: &Meta<'_>,
    before: Before<'_>,
    after: Option<&Row>,
) -> String {
    let template = Template {
        modes,
        ..template()
    };
    let mut out = Vec::new();
    write_value(&mut out, &template, relation, meta, before, after).expect("texts of their types");
    String::from_utf8(out).expect("JSON is UTF-8")
}

/// The JSON of one value, through a whole row.
fn json_of(kind: &Type, text: &str) -> String {
    let relation = relation([column("v", kind.clone(), 1)]);
    let mut out = Vec::new();
    write_key(&mut out, &relation, MODES, &Row::from_texts(&[Some(text)]))
        .expect("text of its type");
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
fn a_replicated_transaction_names_its_origin() {
    let relation = relation([column("id", Type::Int4, 1)]);
    for (lsn, shown) in [(Some(Lsn(26_000_000)), "26000000"), (None, "null")] {
        let origin = Origin {
            name: "böhm \"1\"".into(),
            lsn,
        };
        let meta = Meta {
            origin: Some(&origin),
            ..META
        };
        let row = Row::from_texts(&[Some("1")]);
        let json = written(&relation, &meta, Before::None, Some(&row));
        let expected = format!(r#""xmin":null,"origin":"böhm \"1\"","origin_lsn":{shown}}},"#);
        assert!(json.contains(&expected), "{json}");
    }
}

fn written_message(meta: &Meta<'_>) -> (String, String) {
    let message = LogicalMessage {
        prefix: "fo\"o",
        content: b"bar\xff",
    };
    let (mut key, mut value) = (Vec::new(), Vec::new());
    write_message_key(&mut key, MODES, &message);
    write_message(&mut value, &template(), meta, &message);
    let text = |bytes| String::from_utf8(bytes).expect("JSON is UTF-8");
    (text(key), text(value))
}

#[test]
fn a_logical_message_is_written_as_debezium_writes_it() {
    let (key, value) = written_message(&META);
    assert_eq!(key, r#"{"prefix":"fo\"o"}"#);
    let expected = concat!(
        r#"{"op":"m","ts_ms":1795199044720,"#,
        r#""source":{"version":"3.6.3.Final","connector":"postgresql","name":"dbz","#,
        r#""ts_ms":1795199044423,"snapshot":"false","db":"postgres","#,
        r#""sequence":"[\"26360184\",\"26360320\"]","#,
        r#""ts_us":1795199044423359,"ts_ns":1795199044423359000,"#,
        r#""schema":"","table":"","txId":842,"lsn":26360320,"#,
        r#""xmin":null,"origin":null,"origin_lsn":null},"#,
        r#""transaction":{"id":"842:26360600","total_order":2,"data_collection_order":1},"#,
        r#""message":{"prefix":"fo\"o","content":"YmFy/w=="}}"#,
    );
    assert_eq!(value, expected);
    let envelope = Envelope::from_bytes(value.as_bytes()).expect("an envelope");
    assert_eq!(envelope.op, Op::Message);
}

#[test]
fn a_logical_message_outside_a_transaction_names_none() {
    let meta = Meta {
        transaction: None,
        ..META
    };
    let (_, value) = written_message(&meta);
    assert!(value.contains(r#""txId":null,"lsn":26360320"#), "{value}");
    assert!(
        value.contains(r#""transaction":null,"message":{"#),
        "{value}"
    );
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
        MODES,
        &Row::from_texts(&[Some("x"), Some("7")]),
    )
    .expect("a key");
    assert_eq!(out, br#"{"a":7,"b":"x"}"#);
}

#[test]
fn a_table_without_a_key_has_no_key_bytes() {
    let mut out = Vec::new();
    let row = Row::from_texts(&[Some("x")]);
    write_key(
        &mut out,
        &relation([column("a", Type::Text, 0)]),
        MODES,
        &row,
    )
    .expect("no key");
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
    let image =
        read_image(&relation.columns, MODES, envelope.after.expect("a row")).expect("an image");
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
    let error = write_key(
        &mut Vec::new(),
        &relation,
        MODES,
        &row.build(bytes::Bytes::new()),
    );
    assert!(matches!(error, Err(EnvelopeError::UnchangedKey(column)) if column == "id"));
}

#[test]
fn values_have_their_documented_forms() {
    let forms = [
        (Type::Bool, "t", "true"),
        (Type::Int2, "-32768", "-32768"),
        (Type::Int8, "-9223372036854775808", "-9223372036854775808"),
        (Type::Oid, "4294967295", "4294967295"),
        (Type::Numeric(None), "123.4500", "\"123.4500\""),
        (Type::Numeric(None), "NaN", "\"NaN\""),
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
        assert_eq!(json_of(&kind, text), json, "{kind:?} {text}");
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
        assert_eq!(json_of(&Type::Float8, text), json, "{text}");
    }
    assert_eq!(json_of(&Type::Float4, "3.4028235e+38"), "3.4028235E38");
}

#[test]
fn only_what_json_must_escape_is_escaped() {
    let text =
        "plain text of more than sixteen bytes \"\\/\u{8}\t\n\u{c}\r\u{0}\u{1f}\u{7f}é☃😀\u{2028}";
    let json = concat!(
        r#""plain text of more than sixteen bytes \"\\/\b\t\n\f\r\u0000\u001F"#,
        "\u{7f}é☃😀\u{2028}\""
    );
    assert_eq!(json_of(&Type::Text, text), json);
}

#[test]
fn an_image_is_read_by_name_whatever_the_order() {
    let columns = [
        column("a", Type::Int4, 1),
        column("b", Type::Text, 0),
        column("c", Type::Bool, 0),
    ];
    let image = read_image(&columns, MODES, r#" { "c" : true , "a" : 1 } "#).expect("an image");
    let expected = [
        Field::Present(Value::Int4(1)),
        Field::Absent,
        Field::Present(Value::Bool(true)),
    ];
    assert_eq!(image.fields, expected);
    assert!(!image.is_complete());
}

#[test]
fn values_with_parts_have_the_documented_forms() {
    let pair = Type::Composite(
        [("a", Type::Int4), ("b", Type::Text)]
            .map(|(name, kind)| Attribute {
                name: name.into(),
                kind,
            })
            .into(),
    );
    let forms = [
        (Type::Money(2), "-$1,234.56", r#""-1234.56""#),
        (Type::Time(3), "12:34:56.789", "45296789"),
        (Type::Time(6), "12:34:56.123456", "45296123456"),
        (Type::Time(6), "24:00:00", "86400000000"),
        (Type::TimeTz, "10:34:56.12+00", r#""10:34:56.12Z""#),
        (Type::TimeTz, "12:34:56-05:30", r#""12:34:56-05:30""#),
        (
            Type::Interval,
            "P1Y2M3DT4H5M6.789S",
            r#""P1Y2M3DT4H5M6.789S""#,
        ),
        (Type::Bit(1), "1", "true"),
        (Type::Bit(8), "10000001", r#""gQ==""#),
        (Type::Bit(12), "100000000001", r#""AQg=""#),
        (
            Type::Point,
            "(1,2)",
            r#"{"x":1.0,"y":2.0,"wkb":"AQEAAAAAAAAAAADwPwAAAAAAAABA","srid":null}"#,
        ),
        (
            Type::Hstore,
            r#""k1"=>"v1", "k2"=>NULL"#,
            r#""{\"k1\":\"v1\",\"k2\":null}""#,
        ),
        (Type::array_of(Type::Int4), "{1,NULL,3}", "[1,null,3]"),
        (Type::array_of(Type::Int4), "{{1,2},{3,4}}", "[[1,2],[3,4]]"),
        (Type::array_of(Type::Int4), "{}", "[]"),
        (
            Type::array_of(Type::Int4),
            "[0:1]={1,2}",
            r#""[0:1]={1,2}""#,
        ),
        (
            Type::array_of(Type::Text),
            r#"{a,NULL,"c,d","NULL"}"#,
            r#"["a",null,"c,d","NULL"]"#,
        ),
        (
            Type::array_of(pair.clone()),
            r#"{"(1,\"a,b\")"}"#,
            r#"["(1,\"a,b\")"]"#,
        ),
        (
            Type::Range(Type::Numeric(None).into()),
            "(1.5,)",
            r#""(1.5,)""#,
        ),
        (pair, "(,x)", r#""(,x)""#),
    ];
    for (kind, text, json) in forms {
        assert_eq!(json_of(&kind, text), json);
    }
}

#[test]
fn a_number_whose_bytes_read_as_infinity_in_base64_is_itself() {
    let modes = Modes {
        decimal: DecimalMode::Precise,
        ..MODES
    };
    for (kind, text) in [
        (Type::Numeric(Some((16, 2))), "378982984692.34"),
        (Type::Numeric(None), "378982984692.34"),
        (Type::Numeric(Some((16, 2))), "NaN"),
        (Type::Numeric(None), "-Infinity"),
    ] {
        let relation = relation([column("v", kind, 0)]);
        let row = Row::from_texts(&[Some(text)]);
        let json = written_as(modes, &relation, &META, Before::None, Some(&row));
        let envelope = Envelope::from_bytes(json.as_bytes()).expect("an envelope");
        let image = read_image(&relation.columns, modes, envelope.after.expect("a row"));
        let fields = image.expect("an image").fields;
        assert_eq!(fields, [Field::Present(Value::Numeric(text.into()))]);
    }
}

#[test]
fn a_key_is_exact_whatever_the_forms_of_other_columns_lose() {
    let modes = Modes {
        decimal: DecimalMode::Double,
        time_precision: TimePrecision::Connect,
        ..Modes::debezium()
    };
    let keys = [
        (Type::Numeric(None), "9007199254740993"),
        (Type::Timestamp(6), "2024-01-01 00:00:00.000001"),
        (Type::TimeTz, "12:00:00+02"),
        (Type::Interval, "P1M"),
    ];
    for (kind, text) in keys {
        let relation = relation([column("k", kind.clone(), 1)]);
        let row = Row::from_texts(&[Some(text)]);
        let expected = Field::Present(Value::from_text(&kind, text.as_bytes()).expect("a value"));
        let mut key = Vec::new();
        write_key(&mut key, &relation, modes, &row).expect("a key");
        let image = read_key(&relation.columns, modes, &key).expect("an image");
        assert_eq!(image.fields[0], expected);
        let json = written_as(modes, &relation, &META, Before::None, Some(&row));
        let envelope = Envelope::from_bytes(json.as_bytes()).expect("an envelope");
        let image = read_image(&relation.columns, modes, envelope.after.expect("a row"));
        assert_eq!(image.expect("an image").fields, [expected]);
    }
}

#[test]
fn what_was_written_as_postgresqls_text_before_is_still_read() {
    let forms = [
        (Type::Money(2), "$1,234.56"),
        (Type::Time(6), "12:34:56.5"),
        (Type::TimeTz, "12:34:56+02"),
        (Type::Interval, "P1DT2H"),
        (Type::Bit(1), "1"),
        (Type::Bit(4), "1010"),
        (Type::Point, "(1,2)"),
        (Type::Hstore, "\"a\"=>\"1\""),
    ];
    for (kind, text) in forms {
        let columns = [column("v", kind.clone(), 0)];
        let row = format!("{{\"v\":{}}}", serde_json::Value::from(text));
        let image = read_image(&columns, MODES, &row).expect("an image");
        let expected = Value::from_text(&kind, text.as_bytes()).expect("a value");
        assert_eq!(image.fields, [Field::Present(expected)]);
    }
}

#[test]
fn a_member_that_is_no_column_is_named() {
    let columns = [column("a", Type::Int4, 1)];
    let error = read_image(&columns, MODES, r#"{"a":1,"b\u0022":[2]}"#);
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
        (Type::Numeric(None), "1.0"),
        (Type::Numeric(None), "\"MDk=\""),
        (Type::Text, "1"),
        (Type::Text, "{\"x\":1}"),
        (Type::Bytea, "\"AP8\""),
        (Type::Date, "\"2024-01-01\""),
        (Type::Timestamp(3), "9223372036854775807"),
        (Type::TimestampTz(6), "1709210096123456"),
        (Type::TimestampTz(6), "\"2024-02-29 10:34:56+00\""),
        (Type::Json, "[1]"),
        (Type::Time(6), "86400000001"),
        (Type::Bit(1), "\"AQ==\""),
        (Type::Bit(12), "\"gQ==\""),
        (Type::Bit(12), "\"AfA=\""),
        (Type::Point, "{\"x\":1.0}"),
        (Type::Hstore, "\"{\\\"a\\\":1}\""),
        (Type::array_of(Type::Int4), "[1,\"2\"]"),
        (Type::Range(Type::Int4.into()), "\"[1,2\""),
    ];
    for (kind, json) in forms {
        let row = format!("{{\"v\":{json}}}");
        let columns = [column("v", kind.clone(), 0)];
        let error = read_image(&columns, MODES, &row).err();
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
        r#"{"op":"x"}"#,
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
        let image = read_image(&relation.columns, MODES, read.expect("a row")).expect("an image");
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
