use proptest::prelude::*;

use super::*;

fn read(kind: Type, text: &str) -> Option<Value<'_>> {
    Value::from_text(kind, text.as_bytes()).ok()
}

fn refuses(kind: Type, texts: &[&str]) {
    for text in texts {
        assert_eq!(read(kind, text), None, "{kind:?} {text:?}");
    }
}

#[test]
fn integers_end_where_their_types_end() {
    assert_eq!(read(Type::Int2, "-32768"), Some(Value::Int4(-32_768)));
    assert_eq!(read(Type::Int4, "2147483647"), Some(Value::Int4(i32::MAX)));
    assert_eq!(
        read(Type::Int8, "-9223372036854775808"),
        Some(Value::Int8(i64::MIN))
    );
    assert_eq!(
        read(Type::Int8, "9223372036854775807"),
        Some(Value::Int8(i64::MAX))
    );
    assert_eq!(
        read(Type::Oid, "4294967295"),
        Some(Value::Int8(4_294_967_295))
    );
    refuses(Type::Int2, &["32768", "-32769"]);
    refuses(
        Type::Int4,
        &["2147483648", "", "-", "+1", "1 ", "0x1", "1.0", "--1"],
    );
    refuses(Type::Int8, &["9223372036854775808", "-9223372036854775809"]);
    refuses(Type::Oid, &["-1", "4294967296"]);
}

#[test]
fn booleans_are_one_letter() {
    assert_eq!(read(Type::Bool, "t"), Some(Value::Bool(true)));
    assert_eq!(read(Type::Bool, "f"), Some(Value::Bool(false)));
    refuses(Type::Bool, &["", "true", "T", "1"]);
}

#[test]
fn floats_are_the_doubles_next_to_their_text() {
    let float = |kind, text| match read(kind, text) {
        Some(Value::Float(number)) => Some(number.to_bits()),
        _ => None,
    };
    assert_eq!(float(Type::Float4, "0.1"), Some(0.1_f64.to_bits()));
    assert_eq!(
        float(Type::Float4, "3.4028235e+38"),
        Some(3.402_823_5e38_f64.to_bits())
    );
    assert_eq!(float(Type::Float8, "-0"), Some((-0.0_f64).to_bits()));
    assert_eq!(float(Type::Float8, "1e-07"), Some(1e-7_f64.to_bits()));
    assert_eq!(float(Type::Float8, "5e-324"), Some(1));
    assert_eq!(float(Type::Float8, "NaN"), Some(f64::NAN.to_bits()));
    assert_eq!(
        float(Type::Float4, "-Infinity"),
        Some(f64::NEG_INFINITY.to_bits())
    );
    refuses(Type::Float4, &["1e39", "1e400"]);
    refuses(
        Type::Float8,
        &[
            "", "-", "inf", "nan", "infinity", ".5", "+1", "1e400", "1e", "1 ",
        ],
    );
}

#[test]
fn a_numeric_keeps_its_text() {
    for text in [
        "0",
        "-1.00",
        "123.4500",
        "123456789012345678901234567890",
        "NaN",
        "-Infinity",
    ] {
        assert_eq!(read(Type::Numeric, text), Some(Value::Numeric(text.into())));
    }
    refuses(
        Type::Numeric,
        &["", "-", ".5", "1.", "1e5", "+1", "1.2.3", "-NaN", "$1"],
    );
}

#[test]
fn bytea_is_read_in_its_hex_form_only() {
    assert_eq!(
        read(Type::Bytea, "\\x00fF10"),
        Some(Value::Bytes(vec![0, 255, 16].into()))
    );
    assert_eq!(read(Type::Bytea, "\\x"), Some(Value::Bytes(vec![].into())));
    refuses(Type::Bytea, &["", "abc", "\\000", "\\x0", "\\x0g"]);
}

#[test]
fn a_uuid_has_its_hyphens() {
    let bytes = *b"\xa0\xee\xbc\x99\x9c\x0b\x4e\xf8\xbb\x6d\x6b\xb9\xbd\x38\x0a\x11";
    let text = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    assert_eq!(read(Type::Uuid, text), Some(Value::Uuid(bytes)));
    let misplaced = "a0eebc999-c0b-4ef8-bb6d-6bb9bd380a11";
    refuses(
        Type::Uuid,
        &[
            "",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            misplaced,
            &text[..35],
        ],
    );
}

#[test]
fn dates_reach_from_bc_to_far_years() {
    let days = |text| match read(Type::Date, text) {
        Some(Value::Date(date)) => Some(date),
        _ => None,
    };
    assert_eq!(days("2024-02-29"), Some(Date::Days(19_782)));
    assert_eq!(days("0044-03-15 BC"), Some(Date::Days(-735_160)));
    assert_eq!(days("0001-12-31 BC"), Some(Date::Days(-719_163)));
    assert_eq!(days("0001-01-01"), Some(Date::Days(-719_162)));
    assert_eq!(days("5874897-12-31"), Some(Date::Days(2_145_042_905)));
    assert_eq!(days("infinity"), Some(Date::Infinity));
    assert_eq!(days("-infinity"), Some(Date::NegInfinity));
    refuses(
        Type::Date,
        &[
            "",
            "2023-02-29",
            "2024-13-01",
            "0000-01-01",
            "0000-01-01 BC",
        ],
    );
    refuses(
        Type::Date,
        &[
            "24-01-01",
            "2024-1-1",
            "2024-01-01 ",
            "9999999-12-31",
            "2024-01-01T",
        ],
    );
}

#[test]
fn timestamps_are_microseconds() {
    let micros = |kind, text| match read(kind, text) {
        Some(Value::Timestamp(at, _) | Value::TimestampTz(at, _)) => Some(at),
        _ => None,
    };
    let plain = |text| micros(Type::Timestamp(6), text);
    let zoned = |text| micros(Type::TimestampTz(6), text);
    let at = |micros| Some(Instant::Micros(micros));
    assert_eq!(
        plain("2024-02-29 12:34:56.123456"),
        at(1_709_210_096_123_456)
    );
    assert_eq!(plain("2024-02-29 12:34:56"), at(1_709_210_096_000_000));
    assert_eq!(plain("1969-12-31 23:59:59.999999"), at(-1));
    assert_eq!(plain("0044-03-15 12:00:00 BC"), at(-63_517_780_800_000_000));
    assert_eq!(plain("294247-01-10 04:00:54.775807"), at(i64::MAX));
    assert_eq!(
        zoned("2024-02-29 10:34:56.12+00"),
        at(1_709_202_896_120_000)
    );
    assert_eq!(
        zoned("0044-03-15 12:00:00+00 BC"),
        at(-63_517_780_800_000_000)
    );
    assert_eq!(zoned("infinity"), Some(Instant::Infinity));
    assert_eq!(plain("-infinity"), Some(Instant::NegInfinity));
    refuses(
        Type::Timestamp(6),
        &[
            "294247-01-10 04:00:54.775808",
            "2024-02-29",
            "2024-01-01 24:00:00",
        ],
    );
    refuses(
        Type::Timestamp(6),
        &[
            "2024-01-01 00:60:00",
            "2024-01-01 00:00:60",
            "2024-01-01 00:00:00.",
        ],
    );
    refuses(
        Type::Timestamp(6),
        &["2024-01-01 00:00:00.1234567", "2024-01-01 00:00:00+00"],
    );
    refuses(
        Type::TimestampTz(6),
        &["2024-01-01 00:00:00", "2024-01-01 00:00:00+02"],
    );
}

#[test]
fn digits_below_the_declared_precision_are_refused() {
    assert!(read(Type::Timestamp(3), "2024-01-01 00:00:00.123").is_some());
    assert!(read(Type::Timestamp(3), "2024-01-01 00:00:00.123000").is_some());
    refuses(
        Type::Timestamp(3),
        &["2024-01-01 00:00:00.1234", "2024-01-01 00:00:00.000001"],
    );
    refuses(Type::TimestampTz(0), &["2024-01-01 00:00:00.1+00"]);
}

#[test]
fn text_must_be_utf_8() {
    assert_eq!(read(Type::Text, ""), Some(Value::Text("".into())));
    assert_eq!(
        read(Type::Json, "{\"é\": 1}"),
        Some(Value::Json("{\"é\": 1}".into()))
    );
    assert!(Value::from_text(Type::Text, b"\xff").is_err());
    assert!(Value::from_text(Type::Json, b"\xc3").is_err());
}

#[test]
fn an_error_shows_the_beginning_of_the_text() {
    let error = Value::from_text(Type::Int4, "☃".repeat(100).as_bytes()).expect_err("no integer");
    assert_eq!(
        error,
        ValueError {
            kind: Type::Int4,
            text: "☃".repeat(60)
        }
    );
}

proptest! {
    #[test]
    fn any_bytes_are_a_value_or_an_error_and_never_a_panic(bytes: Vec<u8>, precision in 0_u8..=9) {
        for kind in kinds(precision) {
            let _ = Value::from_text(kind, &bytes);
        }
    }

    #[test]
    fn nearly_right_text_is_a_value_or_an_error_and_never_a_panic(
        text in "-?[0-9]{1,9}-[0-9]{2}-[0-9]{2}( [0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{0,8})?)?(\\+00)?( BC)?|-?[0-9.eE+-]{0,25}|[0-9a-f-]{36}|.x[0-9a-g]{0,8}",
        precision in 0_u8..=9,
    ) {
        for kind in kinds(precision) {
            let _ = Value::from_text(kind, text.as_bytes());
        }
    }

    #[test]
    fn integers_are_what_rust_reads(number: i64) {
        let text = number.to_string();
        prop_assert_eq!(read(Type::Int8, &text), Some(Value::Int8(number)));
    }
}

fn kinds(precision: u8) -> [Type; 15] {
    [
        Type::Bool,
        Type::Int2,
        Type::Int4,
        Type::Int8,
        Type::Oid,
        Type::Float4,
        Type::Float8,
        Type::Numeric,
        Type::Bytea,
        Type::Uuid,
        Type::Date,
        Type::Timestamp(precision),
        Type::TimestampTz(precision),
        Type::Json,
        Type::Text,
    ]
}
