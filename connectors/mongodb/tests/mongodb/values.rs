//! Every value, written by the sink and read back by the driver.

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document, doc};
use walferry_core::{Batch, Class, RowEvent};
use walferry_mongodb::{Microseconds, MongoBatch, NumericOverflow, Policies};
use walferry_schema::{Column, Date, Field, Image, Instant, TableName, Value};

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

fn millis(millis: i64) -> Bson {
    Bson::DateTime(DateTime::from_millis(millis))
}

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "one line per row of the table of types"
)]
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
        (
            "timestamp",
            Value::Timestamp(Instant::Micros(-1), 6),
            millis(-1),
        ),
        (
            "timestamptz",
            Value::TimestampTz(Instant::Micros(1_999), 6),
            millis(1),
        ),
        (
            "timestamptz",
            Value::TimestampTz(Instant::NegInfinity, 6),
            Bson::String("-infinity".into()),
        ),
        (
            "timestamp",
            Value::Timestamp(Instant::Micros(i64::MIN), 6),
            millis(i64::MIN / 1_000 - 1),
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
        Value::TimestampTz(Instant::Micros(1_709_210_096_000_000), 6),
        Value::Numeric("1.50".into()),
        Value::Timestamp(Instant::Micros(1_000), 3),
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
        Value::Timestamp(Instant::Micros(-1), 6),
        Value::TimestampTz(Instant::Micros(5_000), 3),
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
    for name in ["a.b", "$a", "_id"] {
        refuse(
            &[id.clone(), column(name, "int4", 0)],
            &[one.clone(), one.clone()],
            Class::Fatal,
            name,
        );
    }
    let clash = [
        id.clone(),
        column("a", "timestamp", 0),
        column("a_us", "int4", 0),
    ];
    let values = [
        one.clone(),
        Value::Timestamp(Instant::Micros(0), 6),
        one.clone(),
    ];
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
