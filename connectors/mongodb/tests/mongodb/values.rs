//! Every value, written by the sink and read back by the driver.

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document, doc};
use walferry_core::{Batch, Class, RowEvent};
use walferry_mongodb::{Microseconds, MongoBatch, NumericOverflow, Policies};
use walferry_schema::{Attribute, Column, Date, Field, Image, Instant, TableName, Type, Value};

use crate::support::{Fixture, Tested, checkpoint, column};
use walferry_core::Sink;

fn image<'a>(columns: &'a [Column], values: &[Value<'a>]) -> Image<'a> {
    let fields = values.iter().cloned().map(Field::Present).collect();
    Image { columns, fields }
}

/// The document that a row becomes.
async fn stored(fixture: &Fixture, columns: &[Column], values: &[Value<'_>]) -> Document {
    let mut sink = fixture.claimed().await;
    let event = RowEvent::Insert(image(columns, values));
    fixture.apply(&mut sink, vec![event]).await.unwrap();
    fixture.documents("t").await.remove(0)
}

fn decimal(text: &str) -> Bson {
    Bson::Decimal128(text.parse().unwrap())
}

fn at(micros: i128) -> Instant {
    Instant::from_micros(micros).unwrap()
}

fn millis(millis: i64) -> Bson {
    Bson::DateTime(DateTime::from_millis(millis))
}

#[tokio::test]
async fn every_value_is_stored_as_the_table_of_types_says() -> Tested {
    let long = "1".repeat(40);
    let binary = |subtype, bytes: &[u8]| {
        Bson::Binary(Binary {
            subtype,
            bytes: bytes.to_vec(),
        })
    };
    let cases = [
        ("bool", Value::Bool(true), Bson::Boolean(true)),
        ("int4", Value::Int4(i32::MIN), Bson::Int32(i32::MIN)),
        ("int8", Value::Int8(7), Bson::Int64(7)),
        ("float8", Value::Float(0.1), Bson::Double(0.1)),
        (
            "float8",
            Value::Float(f64::NEG_INFINITY),
            Bson::Double(f64::NEG_INFINITY),
        ),
        (
            "numeric",
            Value::Numeric("123.4500".into()),
            decimal("123.4500"),
        ),
        ("numeric", Value::Numeric("NaN".into()), decimal("NaN")),
        (
            "numeric",
            Value::Numeric("-Infinity".into()),
            decimal("-Infinity"),
        ),
        (
            "numeric",
            Value::Numeric(long.as_str().into()),
            Bson::String(long.clone()),
        ),
        (
            "text",
            Value::Text("é\u{1F600}".into()),
            Bson::String("é\u{1F600}".into()),
        ),
        (
            "bytea",
            Value::Bytes(vec![0, 255].into()),
            binary(BinarySubtype::Generic, &[0, 255]),
        ),
        (
            "uuid",
            Value::Uuid([7; 16]),
            binary(BinarySubtype::Uuid, &[7; 16]),
        ),
        ("date", Value::Date(Date::Days(-1)), millis(-86_400_000)),
        (
            "date",
            Value::Date(Date::Days(i32::MAX)),
            millis(i64::from(i32::MAX) * 86_400_000),
        ),
        (
            "date",
            Value::Date(Date::Infinity),
            Bson::String("infinity".into()),
        ),
        ("timestamp", Value::Timestamp(at(-1), 6), millis(-1)),
        ("timestamptz", Value::TimestampTz(at(1_999), 6), millis(1)),
        (
            "timestamptz",
            Value::TimestampTz(Instant::NegInfinity, 6),
            Bson::String("-infinity".into()),
        ),
        (
            "timestamp",
            Value::Timestamp(at(9_224_318_015_999_999_999), 6),
            millis(9_224_318_015_999_999),
        ),
        (
            "jsonb",
            Value::Json(r#"{"z": [1, 2.5, 3000000000], "a": null}"#.into()),
            doc! { "z": [1, 2.5, 3_000_000_000_i64], "a": null }.into(),
        ),
        (
            "json",
            Value::Json(r#"{"a\u0000": 1}"#.into()),
            Bson::String(r#"{"a\u0000": 1}"#.into()),
        ),
        ("text", Value::Null, Bson::Null),
    ];
    let mut columns = vec![column("id", "int4", 1)];
    let mut values = vec![Value::Int4(1)];
    let mut expected = doc! { "_id": 1, "id": 1 };
    for (at, (type_name, value, bson)) in cases.into_iter().enumerate() {
        let name = format!("c{at}");
        columns.push(column(&name, type_name, 0));
        values.push(value);
        expected.insert(name, bson);
    }
    let fixture = Fixture::new().await;
    assert_eq!(stored(&fixture, &columns, &values).await, expected);
    Ok(())
}

/// A column of any type, and a value of it from PostgreSQL's text.
fn typed<'a>(name: &str, kind: Type, key: u16, text: &'a str) -> (Column, Value<'a>) {
    let value = Value::from_text(&kind, text.as_bytes()).unwrap();
    let column = Column {
        kind,
        ..column(name, "of the user's", key)
    };
    (column, value)
}

fn composite(attributes: &[(&str, Type)]) -> Type {
    let attribute = |(name, kind): &(&str, Type)| Attribute {
        name: (*name).into(),
        kind: kind.clone(),
    };
    Type::Composite(attributes.iter().map(attribute).collect())
}

/// What the values of some types and texts are in a document.
async fn fields(cases: &[(Type, &str, Bson)]) -> (Document, Document) {
    let (mut columns, mut values) = (vec![column("id", "int4", 1)], vec![Value::Int4(1)]);
    let mut expected = doc! { "_id": 1, "id": 1 };
    for (at, (kind, text, bson)) in cases.iter().enumerate() {
        let (column, value) = typed(&format!("c{at}"), kind.clone(), 0, text);
        expected.insert(&*column.name, bson.clone());
        columns.push(column);
        values.push(value);
    }
    let fixture = Fixture::new().await;
    (stored(&fixture, &columns, &values).await, expected)
}

#[tokio::test]
async fn values_with_parts_are_stored_as_the_table_of_types_says() -> Tested {
    let range = |lower: Bson, upper: Bson, lower_inclusive: bool, empty: bool| {
        doc! {
            "lower": lower, "upper": upper,
            "lower_inclusive": lower_inclusive, "upper_inclusive": false, "empty": empty,
        }
    };
    let numbers = range(1.into(), 5.into(), true, false);
    let address = composite(&[("street", Type::Text), ("at", Type::array_of(Type::Date))]);
    let dollar = composite(&[("$a", Type::Int4)]);
    let deep = format!("{}{}", "[".repeat(90), "]".repeat(90));
    let deep_array = format!("{{{{\"{deep}\"}}}}");
    let cases: Vec<(Type, &str, Bson)> = vec![
        (Type::Money(2), "-$1,234.56", decimal("-1234.56")),
        (Type::Time(6), "24:00:00", "24:00:00".into()),
        (Type::Time(3), "12:34:56.12", "12:34:56.12".into()),
        (Type::TimeTz, "12:34:56.12+02", "12:34:56.12+02:00".into()),
        (
            Type::Interval,
            "P1Y2M3DT4H5M6.789S",
            "P1Y2M3DT4H5M6.789S".into(),
        ),
        (Type::Bit(3), "101", "101".into()),
        (Type::Point, "(1.5,-2)", doc! { "x": 1.5, "y": -2.0 }.into()),
        (
            Type::Hstore,
            r#""a.b"=>"1", "n"=>NULL, ""=>"""#,
            doc! { "a.b": "1", "n": null, "": "" }.into(),
        ),
        (Type::Hstore, r#""$a"=>"\"""#, r#""$a"=>"\"""#.into()),
        (
            Type::Vector,
            "[1,2.5]",
            vec![Bson::Double(1.0), Bson::Double(2.5)].into(),
        ),
        (
            Type::array_of(Type::Int4),
            "{1,NULL}",
            bson::bson!([1, null]),
        ),
        (
            Type::array_of(Type::Int4),
            "[0:1]={1,2}",
            bson::bson!([1, 2]),
        ),
        (
            Type::array_of(Type::Text),
            "{{a,b},{c,d}}",
            bson::bson!([["a", "b"], ["c", "d"]]),
        ),
        (Type::array_of(Type::Int4), "{}", bson::bson!([])),
        (
            Type::Range(Type::Int4.into()),
            "[1,5)",
            numbers.clone().into(),
        ),
        (
            Type::Range(Type::Int4.into()),
            "empty",
            range(Bson::Null, Bson::Null, false, true).into(),
        ),
        (
            Type::Range(Type::Date.into()),
            "[1970-01-02,)",
            range(millis(86_400_000), Bson::Null, true, false).into(),
        ),
        (
            Type::Multirange(Type::Int4.into()),
            "{[1,5)}",
            bson::bson!([numbers]),
        ),
        (
            address,
            r#"("a, b",{1970-01-01})"#,
            doc! { "street": "a, b", "at": [millis(0)] }.into(),
        ),
        (dollar, "(1)", "(1)".into()),
        (
            Type::array_of(Type::Json),
            &deep_array,
            bson::bson!([[deep.as_str()]]),
        ),
    ];
    let (stored, expected) = fields(&cases).await;
    assert_eq!(stored, expected);
    Ok(())
}

#[tokio::test]
async fn a_key_of_any_type_is_exact() -> Tested {
    let pair = composite(&[("a", Type::Int4), ("t", Type::array_of(Type::Timestamp(6)))]);
    let bounds = doc! {
        "lower": "2024-01-01T00:00:00.000001", "upper": null,
        "lower_inclusive": true, "upper_inclusive": false, "empty": false,
    };
    let cases: Vec<(Type, &str, Bson)> = vec![
        (
            Type::array_of(Type::Int4),
            "{1,2}",
            doc! { "array": [1, 2] }.into(),
        ),
        (
            Type::array_of(Type::Int4),
            "[0:1]={1,2}",
            doc! { "array": [1, 2], "bounds": "[0:1]" }.into(),
        ),
        (
            Type::array_of(Type::Int4),
            "{{1},{2}}",
            doc! { "array": [[1], [2]] }.into(),
        ),
        (
            Type::Range(Type::Timestamp(6).into()),
            "[\"2024-01-01 00:00:00.000001\",)",
            bounds.clone().into(),
        ),
        (
            Type::Multirange(Type::Timestamp(6).into()),
            "{[\"2024-01-01 00:00:00.000001\",)}",
            doc! { "array": [bounds] }.into(),
        ),
        (
            pair,
            r#"(1,"{""2024-01-01 00:00:00.5""}")"#,
            doc! { "a": 1, "t": { "array": ["2024-01-01T00:00:00.500000"] } }.into(),
        ),
        (Type::Float8, "NaN", f64::NAN.into()),
        (
            Type::Bytea,
            "\\x00ff",
            Bson::Binary(Binary {
                subtype: BinarySubtype::Generic,
                bytes: vec![0, 255],
            }),
        ),
        (Type::TimeTz, "12:00:00-05:30", "12:00:00-05:30".into()),
    ];
    for (kind, text, expected) in cases {
        let (column, value) = typed("k", kind, 1, text);
        let fixture = Fixture::new().await;
        let document = stored(&fixture, &[column], &[value]).await;
        assert_eq!(
            format!("{:?}", document.get("_id")),
            format!("{:?}", Some(expected)),
            "{text}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn microseconds_lost_within_an_array_are_counted_whatever_the_policy() -> Tested {
    let mut fixture = Fixture::new().await;
    fixture.settings.policies.microseconds = Microseconds::Keep;
    let (at, value) = typed(
        "at",
        Type::array_of(Type::Timestamp(6)),
        0,
        "{\"1970-01-01 00:00:00.000001\"}",
    );
    let columns = [column("id", "int4", 1), at];
    let mut sink = fixture.claimed().await;
    let event = RowEvent::Insert(image(&columns, &[Value::Int4(1), value]));
    fixture.apply(&mut sink, vec![event]).await?;
    let counted: Vec<_> = sink.truncated().iter().collect();
    assert_eq!(counted, [(&(fixture.table.clone(), "at".into()), &1)]);
    Ok(())
}

#[tokio::test]
async fn json_of_any_depth_and_any_key_can_be_stored_and_updated() -> Tested {
    let fixture = Fixture::new().await;
    let columns = [column("id", "int4", 1), column("v", "json", 0)];
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = format!("{}1{}", r#"{"a.b":"#.repeat(95), "}".repeat(95));
    let texts = [
        nested(95),
        nested(96),
        nested(500),
        objects,
        r#"{"$ref": 1, "": {"$x": 2}}"#.into(),
    ];
    let mut sink = fixture.claimed().await;
    for text in &texts {
        let row = || {
            image(
                &columns,
                &[Value::Int4(1), Value::Json(text.as_str().into())],
            )
        };
        fixture
            .apply(&mut sink, vec![RowEvent::Insert(row())])
            .await?;
        fixture
            .apply(&mut sink, vec![RowEvent::Update(row())])
            .await?;
        fixture
            .apply(&mut sink, vec![RowEvent::Delete(row())])
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_composite_key_is_a_document_in_key_order_and_loses_nothing() -> Tested {
    let fixture = Fixture::new().await;
    let columns = [
        column("at", "timestamptz", 2),
        column("n", "numeric", 1),
        column("day", "timestamp(3)", 3),
        column("v", "text", 0),
    ];
    let values = [
        Value::TimestampTz(at(1_709_210_096_000_000), 6),
        Value::Numeric("1.50".into()),
        Value::Timestamp(at(1_000), 3),
        Value::Text("x".into()),
    ];
    let document = stored(&fixture, &columns, &values).await;
    let id = doc! {
        "n": decimal("1.50"),
        "at": "2024-02-29T12:34:56.000000Z",
        "day": millis(1),
    };
    let expected = doc! {
        "_id": id,
        "at": millis(1_709_210_096_000),
        "n": decimal("1.50"),
        "day": millis(1),
        "v": "x",
    };
    assert_eq!(document, expected);
    assert_eq!(
        document.get_document("_id")?.keys().collect::<Vec<_>>(),
        ["n", "at", "day"]
    );
    Ok(())
}

#[tokio::test]
async fn names_that_mongodb_does_not_take_are_stored_in_full_width() -> Tested {
    let mut fixture = Fixture::new().await;
    fixture.settings.policies.microseconds = Microseconds::Keep;
    let columns = [
        column("_id", "int4", 1),
        column("a.b", "int4", 2),
        column("$c", "timestamp", 0),
        column("d", "text", 0),
    ];
    let row = |d: Field<'static>| {
        let at = Value::Timestamp(at(1), 6);
        let values = [Value::Int4(1), Value::Int4(2), at].map(Field::Present);
        Image {
            columns: &columns,
            fields: values.into_iter().chain([d]).collect(),
        }
    };
    let mut sink = fixture.claimed().await;
    let inserted = RowEvent::Insert(row(Field::Present(Value::Text("x".into()))));
    fixture.apply(&mut sink, vec![inserted]).await?;
    // With an unchanged column fields are set one by one.
    let updated = RowEvent::Update(row(Field::Absent));
    fixture.apply(&mut sink, vec![updated]).await?;
    let expected = doc! {
        "_id": { "＿id": 1, "a．b": 2 },
        "＿id": 1, "a．b": 2, "＄c": millis(0), "＄c_us": 1_i64, "d": "x",
    };
    assert_eq!(fixture.documents("t").await, [expected]);
    Ok(())
}

#[tokio::test]
async fn lost_microseconds_are_counted_and_kept_ones_have_a_field_of_their_own() -> Tested {
    let mut fixture = Fixture::new().await;
    let columns = [
        column("id", "int4", 1),
        column("a", "timestamp", 0),
        column("b", "timestamptz(3)", 0),
        column("c", "timestamptz", 0),
    ];
    let values = [
        Value::Int4(1),
        Value::Timestamp(at(-1), 6),
        Value::TimestampTz(at(5_000), 3),
        Value::Null,
    ];
    let mut sink = fixture.claimed().await;
    let event = RowEvent::Insert(image(&columns, &values));
    fixture.apply(&mut sink, vec![event]).await?;
    let counted: Vec<_> = sink.truncated().iter().collect();
    assert_eq!(counted, [(&(fixture.table.clone(), "a".into()), &1)]);
    fixture.table = TableName::new("other", "t");
    fixture.settings.policies.microseconds = Microseconds::Keep;
    let mut sink = fixture.claimed().await;
    let event = RowEvent::Insert(image(&columns, &values));
    fixture.apply(&mut sink, vec![event]).await?;
    let expected = doc! {
        "_id": 1, "id": 1, "a": millis(-1), "a_us": -1_i64, "b": millis(5), "c": null, "c_us": null,
    };
    assert_eq!(fixture.documents("other.t").await, [expected]);
    assert!(sink.truncated().is_empty());
    Ok(())
}

#[test]
fn what_has_no_form_is_refused_by_name_and_leaves_the_batch_as_it_was() {
    let fixture_table = TableName::new("public", "t");
    let target = walferry_core::Target {
        table: &fixture_table,
        staging: None,
        position: crate::support::at(0),
        committed_at: None,
        xid: None,
        oversize: None,
        whole: None,
    };
    let policies = Policies {
        numeric_overflow: NumericOverflow::Error,
        microseconds: Microseconds::Keep,
    };
    let mut batch = MongoBatch::new(policies);
    let mut refuse = |columns: &[Column], values: &[Value<'_>], class, text: &str| {
        let refused = batch
            .push(&target, RowEvent::Insert(image(columns, values)))
            .unwrap_err();
        assert_eq!(refused.class(), class, "{refused}");
        assert!(refused.to_string().contains(text), "{refused}");
        assert_eq!((batch.operations(), batch.bytes()), (0, 0));
    };
    let id = column("id", "int4", 1);
    let huge = "9".repeat(35);
    let number = Value::Numeric(huge.as_str().into());
    let one = Value::Int4(1);
    refuse(
        &[id.clone(), column("n", "numeric", 0)],
        &[one.clone(), number],
        Class::Poison,
        "column n of public.t",
    );
    let names = [
        id.clone(),
        column("a.b", "int4", 0),
        column("a．b", "int4", 0),
    ];
    refuse(
        &names,
        &[one.clone(), one.clone(), one.clone()],
        Class::Fatal,
        "a．b",
    );
    let clash = [
        id.clone(),
        column("a", "timestamp", 0),
        column("a_us", "int4", 0),
    ];
    let values = [one.clone(), Value::Timestamp(at(0), 6), one.clone()];
    refuse(&clash, &values, Class::Fatal, "a_us");
    refuse(
        &[column("a", "int4", 0)],
        std::slice::from_ref(&one),
        Class::Fatal,
        "no primary key",
    );
    let large = "x".repeat(16 * 1024 * 1024);
    let large = Value::Text(large.as_str().into());
    refuse(
        &[id, column("v", "text", 0)],
        &[one, large],
        Class::Poison,
        "the row 1 of public.t",
    );
}

#[tokio::test]
async fn a_document_of_just_under_the_limit_is_stored_and_one_above_is_refused() -> Tested {
    let fixture = Fixture::new().await;
    let columns = [column("id", "int4", 1), column("v", "text", 0)];
    let overhead = 4 + 1 + (1 + 4 + 4) + (1 + 3 + 4) + (1 + 2 + 4 + 1);
    let largest = "x".repeat(16 * 1024 * 1024 - overhead);
    let mut sink = fixture.claimed().await;
    let row = |id, text: &str| {
        let fields = vec![
            Field::Present(Value::Int4(id)),
            Field::Present(Value::Text(text.to_owned().into())),
        ];
        Image {
            columns: &columns,
            fields,
        }
    };
    fixture
        .apply(&mut sink, vec![RowEvent::Insert(row(1, &largest))])
        .await?;
    let events = vec![
        RowEvent::Update(row(1, &largest)),
        RowEvent::Insert(row(2, &largest)),
    ];
    fixture.apply(&mut sink, events).await?;
    let mut batch = sink.batch();
    let larger = format!("{largest}x");
    let refused = batch.push(&fixture.target(0), RowEvent::Insert(row(3, &larger)));
    assert_eq!(refused.unwrap_err().class(), Class::Poison);
    sink.apply(batch, &checkpoint(1)).await?;
    Ok(())
}
