use proptest::prelude::*;

use super::*;

fn read<'a>(kind: &Type, text: &'a str) -> Option<Value<'a>> {
    Value::from_text(kind, text.as_bytes()).ok()
}

fn refuses(kind: &Type, texts: &[&str]) {
    for text in texts {
        assert_eq!(read(kind, text), None, "{kind:?} {text:?}");
    }
}

#[test]
fn integers_end_where_their_types_end() {
    assert_eq!(read(&Type::Int2, "-32768"), Some(Value::Int4(-32_768)));
    assert_eq!(read(&Type::Int4, "2147483647"), Some(Value::Int4(i32::MAX)));
    assert_eq!(
        read(&Type::Int8, "-9223372036854775808"),
        Some(Value::Int8(i64::MIN))
    );
    assert_eq!(
        read(&Type::Int8, "9223372036854775807"),
        Some(Value::Int8(i64::MAX))
    );
    assert_eq!(
        read(&Type::Oid, "4294967295"),
        Some(Value::Int8(4_294_967_295))
    );
    refuses(&Type::Int2, &["32768", "-32769"]);
    refuses(
        &Type::Int4,
        &["2147483648", "", "-", "+1", "1 ", "0x1", "1.0", "--1"],
    );
    refuses(
        &Type::Int8,
        &["9223372036854775808", "-9223372036854775809"],
    );
    refuses(&Type::Oid, &["-1", "4294967296"]);
}

#[test]
fn booleans_are_one_letter() {
    assert_eq!(read(&Type::Bool, "t"), Some(Value::Bool(true)));
    assert_eq!(read(&Type::Bool, "f"), Some(Value::Bool(false)));
    refuses(&Type::Bool, &["", "true", "T", "1"]);
}

#[test]
fn floats_are_the_doubles_next_to_their_text() {
    let float = |kind, text| match read(&kind, text) {
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
    refuses(&Type::Float4, &["1e39", "1e400"]);
    refuses(
        &Type::Float8,
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
        assert_eq!(
            read(&Type::Numeric(None), text),
            Some(Value::Numeric(text.into()))
        );
    }
    refuses(
        &Type::Numeric(None),
        &["", "-", ".5", "1.", "1e5", "+1", "1.2.3", "-NaN", "$1"],
    );
}

#[test]
fn bytea_is_read_in_its_hex_form_only() {
    assert_eq!(
        read(&Type::Bytea, "\\x00fF10"),
        Some(Value::Bytes(vec![0, 255, 16].into()))
    );
    assert_eq!(read(&Type::Bytea, "\\x"), Some(Value::Bytes(vec![].into())));
    refuses(&Type::Bytea, &["", "abc", "\\000", "\\x0", "\\x0g"]);
}

#[test]
fn a_uuid_has_its_hyphens() {
    let bytes = *b"\xa0\xee\xbc\x99\x9c\x0b\x4e\xf8\xbb\x6d\x6b\xb9\xbd\x38\x0a\x11";
    let text = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    assert_eq!(read(&Type::Uuid, text), Some(Value::Uuid(bytes)));
    let misplaced = "a0eebc999-c0b-4ef8-bb6d-6bb9bd380a11";
    refuses(
        &Type::Uuid,
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
    let days = |text| match read(&Type::Date, text) {
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
        &Type::Date,
        &[
            "",
            "2023-02-29",
            "2024-13-01",
            "0000-01-01",
            "0000-01-01 BC",
        ],
    );
    refuses(
        &Type::Date,
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
    let plain = |text| micros(&Type::Timestamp(6), text);
    let zoned = |text| micros(&Type::TimestampTz(6), text);
    let at = Instant::from_micros;
    assert_eq!(
        plain("2024-02-29 12:34:56.123456"),
        at(1_709_210_096_123_456)
    );
    assert_eq!(plain("2024-02-29 12:34:56"), at(1_709_210_096_000_000));
    assert_eq!(plain("1969-12-31 23:59:59.999999"), at(-1));
    assert_eq!(plain("0044-03-15 12:00:00 BC"), at(-63_517_780_800_000_000));
    // PostgreSQL's last, past 64 bits.
    assert_eq!(
        plain("294276-12-31 23:59:59.999999"),
        at(9_224_318_015_999_999_999)
    );
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
        &Type::Timestamp(6),
        &[
            "9999999-01-01 00:00:00",
            "2024-02-29",
            "2024-01-01 24:00:00",
        ],
    );
    refuses(
        &Type::Timestamp(6),
        &[
            "2024-01-01 00:60:00",
            "2024-01-01 00:00:60",
            "2024-01-01 00:00:00.",
        ],
    );
    refuses(
        &Type::Timestamp(6),
        &["2024-01-01 00:00:00.1234567", "2024-01-01 00:00:00+00"],
    );
    refuses(
        &Type::TimestampTz(6),
        &["2024-01-01 00:00:00", "2024-01-01 00:00:00+02"],
    );
}

#[test]
fn digits_below_the_declared_precision_are_refused() {
    assert!(read(&Type::Timestamp(3), "2024-01-01 00:00:00.123").is_some());
    assert!(read(&Type::Timestamp(3), "2024-01-01 00:00:00.123000").is_some());
    refuses(
        &Type::Timestamp(3),
        &["2024-01-01 00:00:00.1234", "2024-01-01 00:00:00.000001"],
    );
    refuses(&Type::TimestampTz(0), &["2024-01-01 00:00:00.1+00"]);
}

#[test]
fn text_must_be_utf_8() {
    assert_eq!(read(&Type::Text, ""), Some(Value::Text("".into())));
    assert_eq!(
        read(&Type::Json, "{\"é\": 1}"),
        Some(Value::Json("{\"é\": 1}".into()))
    );
    assert!(Value::from_text(&Type::Text, b"\xff").is_err());
    assert!(Value::from_text(&Type::Json, b"\xc3").is_err());
}

fn pair() -> Type {
    let attribute = |name: &str, kind| crate::Attribute {
        name: name.into(),
        kind,
    };
    Type::Composite([attribute("a", Type::Int4), attribute("b", Type::Text)].into())
}

fn elements(kind: Type, text: &str) -> Vec<Value<'_>> {
    match read(&Type::array_of(kind), text) {
        Some(Value::Array(array)) => array.elements,
        other => panic!("no array: {other:?}"),
    }
}

fn parts<'a>(kind: &Type, text: &'a str) -> Parts<'a> {
    match read(kind, text) {
        Some(Value::Literal(literal)) => literal.parts,
        other => panic!("no parts: {other:?}"),
    }
}

#[test]
fn money_is_its_amount() {
    let amount = |text| match read(&Type::Money(2), text) {
        Some(Value::Numeric(amount)) => Some(amount.into_owned()),
        _ => None,
    };
    assert_eq!(
        amount("-$92,233,720,368,547,758.08").as_deref(),
        Some("-92233720368547758.08")
    );
    assert_eq!(amount("$0.10").as_deref(), Some("0.10"));
    let with = |digits, text| match read(&Type::Money(digits), text) {
        Some(Value::Numeric(amount)) => Some(amount.into_owned()),
        _ => None,
    };
    // What is stored is the number of the smallest units.
    assert_eq!(with(0, "-$1,234.56").as_deref(), Some("-123456"));
    assert_eq!(with(0, "$0.00").as_deref(), Some("0"));
    assert_eq!(with(3, "$1,234.56").as_deref(), Some("123.456"));
    assert_eq!(with(3, "$0.01").as_deref(), Some("0.001"));
    refuses(
        &Type::Money(2),
        &["1.00", "$", "$-1.00", "1,00 €", "$1.00-"],
    );
}

#[test]
fn times_end_at_midnight_and_keep_their_offset() {
    assert_eq!(
        read(&Type::Time(6), "24:00:00"),
        Some(Value::Time(86_400_000_000, 6))
    );
    assert_eq!(
        read(&Type::Time(3), "00:00:00.001"),
        Some(Value::Time(1_000, 3))
    );
    let zoned = |text| match read(&Type::TimeTz, text) {
        Some(Value::TimeTz(time)) => Some(time.to_string()),
        _ => None,
    };
    assert_eq!(
        zoned("23:59:59.99+02").as_deref(),
        Some("23:59:59.99+02:00")
    );
    assert_eq!(
        zoned("00:00:00-15:59:59").as_deref(),
        Some("00:00:00-15:59:59")
    );
    assert_eq!(zoned("24:00:00+00").as_deref(), Some("24:00:00+00:00"));
    refuses(
        &Type::Time(3),
        &["24:00:01", "24:00", "12:00:00.0001", "12:00:60", ""],
    );
    refuses(
        &Type::TimeTz,
        &[
            "12:00:00",
            "12:00:00+",
            "12:00:00+02:60",
            "12:00:00+02:00:00:00",
        ],
    );
}

#[test]
fn bits_have_the_length_of_their_type() {
    assert_eq!(read(&Type::Bit(3), "101"), Some(Value::Bits("101".into())));
    refuses(&Type::Bit(3), &["10", "1010", "102"]);
}

#[test]
fn arrays_are_read_in_any_rank() {
    let numbers = |numbers: &[i32]| numbers.iter().map(|&n| Value::Int4(n)).collect::<Vec<_>>();
    assert_eq!(elements(Type::Int4, "{}"), []);
    assert_eq!(
        elements(Type::Int4, "{1,NULL}"),
        [Value::Int4(1), Value::Null]
    );
    let inner = |these: &[i32]| {
        Value::Array(
            Array {
                elements: numbers(these),
                text: None,
            }
            .into(),
        )
    };
    assert_eq!(
        elements(Type::Int4, "{{1,2},{3,4}}"),
        [inner(&[1, 2]), inner(&[3, 4])]
    );
    assert_eq!(elements(Type::Int4, "[-1:0]={1,2}"), numbers(&[1, 2]));
    let text = |text: &'static str| Value::Text(text.into());
    assert_eq!(
        elements(Type::Text, r#"{a,NULL,"null","NULL","","c,d","\"","\\"}"#),
        [
            text("a"),
            Value::Null,
            text("null"),
            text("NULL"),
            text(""),
            text("c,d"),
            text("\""),
            text("\\")
        ]
    );
    assert_eq!(
        read(
            &Type::Array(Type::Text.into(), ';'),
            "{(1,1),(0,0);(2,2),(0,0)}"
        )
        .map(|_| ()),
        Some(())
    );
    refuses(
        &Type::array_of(Type::Int4),
        &[
            "",
            "{",
            "{1",
            "{1,}",
            "{,1}",
            "{1}x",
            "1",
            "[0:1]{1}",
            "{{{{{{{1}}}}}}}",
            "{\"1}",
        ],
    );
}

#[test]
fn ranges_know_their_bounds() {
    let range = || Type::Range(Type::Int4.into());
    let bounds = |lower, upper, lower_inclusive, upper_inclusive| Bounds {
        lower,
        upper,
        lower_inclusive,
        upper_inclusive,
    };
    let (one, five) = (Value::Int4(1), Value::Int4(5));
    assert_eq!(parts(&range(), "empty"), Parts::Range(None));
    let expected = bounds(one.clone(), five.clone(), true, false);
    assert_eq!(
        parts(&range(), "[1,5)"),
        Parts::Range(Some(expected.clone()))
    );
    let endless = bounds(Value::Null, Value::Null, false, false);
    assert_eq!(parts(&range(), "(,)"), Parts::Range(Some(endless.clone())));
    let text = Type::Range(Type::Text.into());
    let quoted = bounds(
        Value::Text(", \"".into()),
        Value::Text("".into()),
        false,
        true,
    );
    assert_eq!(parts(&text, r#"(", """,""]"#), Parts::Range(Some(quoted)));
    let many = Type::Multirange(Type::Int4.into());
    assert_eq!(parts(&many, "{}"), Parts::Multirange(vec![]));
    assert_eq!(
        parts(&many, "{[1,5),(,)}"),
        Parts::Multirange(vec![expected, endless])
    );
    refuses(
        &range(),
        &["", "[1,5", "1,5", "[1)", "[a,b)", "[1,5)x", "[1,2,3)"],
    );
    refuses(&many, &["{[1,2)", "{[1,2),}", "{empty}", "[1,2)"]);
}

#[test]
fn composites_have_their_fields_by_name() {
    let fields = |a, b| Parts::Composite(vec![("a".into(), a), ("b".into(), b)]);
    let text = |text: &'static str| Value::Text(text.into());
    assert_eq!(parts(&pair(), "(1,x)"), fields(Value::Int4(1), text("x")));
    assert_eq!(parts(&pair(), "(,)"), fields(Value::Null, Value::Null));
    assert_eq!(
        parts(&pair(), r#"(1,"")"#),
        fields(Value::Int4(1), text(""))
    );
    assert_eq!(
        parts(&pair(), r#"(1,"a,""b\\)")"#),
        fields(Value::Int4(1), text("a,\"b\\)"))
    );
    // Written before the type was given its second field.
    assert_eq!(parts(&pair(), "(1)"), fields(Value::Int4(1), Value::Null));
    refuses(
        &pair(),
        &["", "(", "(1,x", "(1,x,2)", "(x,1)", "(1,x)y", r#"(1,"x)"#],
    );
    assert_eq!(
        parts(&Type::Composite([].into()), "()"),
        Parts::Composite(vec![])
    );
}

#[test]
fn a_composite_with_fewer_fields_than_its_type_is_not_whole() {
    let is_whole = |kind: &Type, text| read(kind, text).map(|value| value.is_whole(kind));
    assert_eq!(is_whole(&pair(), "(1,x)"), Some(true));
    assert_eq!(is_whole(&pair(), "(,)"), Some(true));
    assert_eq!(is_whole(&pair(), "(1)"), Some(false));
    let pairs = Type::array_of(pair());
    assert_eq!(is_whole(&pairs, r#"{{"(1,x)"},{"(1,\",\")"}}"#), Some(true));
    assert_eq!(is_whole(&pairs, r#"{"(1,x)",(1)}"#), Some(false));
    let nested = Type::Composite(
        [crate::Attribute {
            name: "p".into(),
            kind: pair(),
        }]
        .into(),
    );
    assert_eq!(is_whole(&nested, r#"("(1,x)")"#), Some(true));
    assert_eq!(is_whole(&nested, "((1))"), None);
    assert_eq!(is_whole(&nested, r#"("(1)")"#), Some(false));
}

#[test]
fn points_hstores_and_vectors_are_taken_apart() {
    assert_eq!(
        read(&Type::Point, "(1.5,-2e-05)"),
        Some(Value::Point(1.5, -2e-5))
    );
    refuses(&Type::Point, &["(1)", "1,2", "(1,2,3)", "(a,b)"]);
    let entries = vec![
        ("a \"b".into(), Some("1, 2".into())),
        ("n".into(), None),
        ("t".into(), Some("NULL".into())),
    ];
    assert_eq!(
        read(&Type::Hstore, r#""a \"b"=>"1, 2", "n"=>NULL, "t"=>"NULL""#),
        Some(Value::Hstore(entries))
    );
    assert_eq!(read(&Type::Hstore, ""), Some(Value::Hstore(vec![])));
    refuses(
        &Type::Hstore,
        &["a", "\"a\"", "\"a\"=>", "\"a\"=>\"1\",", "\"a\"=>\"1\"x"],
    );
    assert_eq!(
        parts(&Type::Vector, "[1,2.5,-3e-05]"),
        Parts::Vector(vec![1.0, 2.5, -3e-5])
    );
    refuses(&Type::Vector, &["[]", "1,2", "[1,]"]);
}

#[test]
fn an_error_shows_the_beginning_of_the_text() {
    let error = Value::from_text(&Type::Int4, "☃".repeat(100).as_bytes()).expect_err("no integer");
    assert_eq!(
        error,
        ValueError {
            kind: "int4".into(),
            text: "☃".repeat(60).into()
        }
    );
}

proptest! {
    #[test]
    fn any_bytes_are_a_value_or_an_error_and_never_a_panic(bytes: Vec<u8>, precision in 0_u8..=9) {
        for kind in kinds(precision) {
            let _ = Value::from_text(&kind, &bytes);
        }
    }

    #[test]
    fn nearly_right_text_is_a_value_or_an_error_and_never_a_panic(
        text in "-?[0-9]{1,9}-[0-9]{2}-[0-9]{2}( [0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{0,8})?)?(\\+00)?( BC)?|-?[0-9.eE+-]{0,25}|[0-9a-f-]{36}|.x[0-9a-g]{0,8}|[({\\[]{1,3}[a\\\\\",=>NUL1)}\\]]{0,20}",
        precision in 0_u8..=9,
    ) {
        for kind in kinds(precision) {
            let _ = Value::from_text(&kind, text.as_bytes());
        }
    }

    #[test]
    fn integers_are_what_rust_reads(number: i64) {
        let text = number.to_string();
        prop_assert_eq!(read(&Type::Int8, &text), Some(Value::Int8(number)));
    }
}

fn kinds(precision: u8) -> [Type; 26] {
    [
        Type::Bool,
        Type::Int2,
        Type::Int4,
        Type::Int8,
        Type::Oid,
        Type::Float4,
        Type::Float8,
        Type::Numeric(None),
        Type::Bytea,
        Type::Uuid,
        Type::Date,
        Type::Timestamp(precision),
        Type::TimestampTz(precision),
        Type::Json,
        Type::Text,
        Type::Money(precision),
        Type::Time(precision),
        Type::TimeTz,
        Type::Interval,
        Type::Bit(precision.into()),
        Type::Point,
        Type::Hstore,
        Type::Vector,
        Type::array_of(Type::array_of(pair())),
        Type::Multirange(Type::Range(Type::Text.into()).into()),
        pair(),
    ]
}
