//! Rows whose key is spelled in another way than before: a column of another type, a number of another scale.

use std::sync::Arc;

use bson::{Bson, Decimal128, Document, doc};
use walferry_core::{Applied, Batch, LetterAction, RowEvent, Sink};
use walferry_mongodb::{Histories, identity};
use walferry_schema::{Column, Field, Image, Value};

use crate::dead_letters::{Rig, too_large};
use crate::support::{Fixture, Tested, checkpoint, column, columns, document, key, row};

/// [`columns`] after `ALTER TABLE … ALTER COLUMN id TYPE bigint`.
fn big_columns() -> Arc<[Column]> {
    of_key("int8")
}

fn of_key(type_name: &str) -> Arc<[Column]> {
    let mut all = columns().to_vec();
    all[0] = column("id", type_name, 1);
    all.into()
}

/// A row with its key in another form.
fn keyed<'a>(id: Value<'a>, mut image: Image<'a>) -> Image<'a> {
    image.fields[0] = Field::Present(id);
    image
}

fn big_row<'a>(columns: &'a [Column], id: i64, a: i32, b: Option<&'a str>) -> Image<'a> {
    keyed(Value::Int8(id), row(columns, 0, a, b))
}

fn big_key(columns: &[Column], id: i64) -> Image<'_> {
    keyed(Value::Int8(id), key(columns, 0))
}

/// The document of [`big_row`].
fn big_document(id: i64, a: i32, b: &str) -> Document {
    doc! { "_id": id, "id": id, "a": a, "b": b }
}

fn decimal(text: &str) -> Bson {
    Bson::Decimal128(text.parse::<Decimal128>().unwrap())
}

/// An `_id`, type byte and payload.
fn id(value: &Bson) -> Vec<u8> {
    let document = doc! { "": value }.to_vec().unwrap();
    [&document[4..5], &document[6..document.len() - 1]].concat()
}

#[tokio::test]
async fn ids_have_one_identity_exactly_when_mongodb_takes_them_as_one() -> Tested {
    let fixture = Fixture::new().await;
    let collection = fixture.database.collection::<Document>("ids");
    let ids: [Bson; 22] = [
        5.into(),
        5_i64.into(),
        5.0.into(),
        decimal("5.00"),
        decimal("0.5E+1"),
        "5".into(),
        0.into(),
        (-0.0).into(),
        decimal("-0.000"),
        false.into(),
        0.1.into(),
        decimal("0.1"),
        0.5.into(),
        decimal("0.50"),
        1e22.into(),
        decimal("1E+22"),
        i64::MAX.into(),
        9_223_372_036_854_775_807.0.into(),
        f64::NAN.into(),
        decimal("NaN"),
        doc! { "a": 5, "b": { "array": [1, 2_i64] } }.into(),
        doc! { "a": decimal("5.0"), "b": { "array": [1.0, 2] } }.into(),
    ];
    for (at, first) in ids.iter().enumerate() {
        collection.insert_one(doc! { "_id": first }).await?;
        for other in &ids[at + 1..] {
            let inserted = collection.insert_one(doc! { "_id": other }).await;
            let are_one = identity(&id(first)) == identity(&id(other));
            assert_eq!(inserted.is_err(), are_one, "{first} {other}");
            if inserted.is_ok() {
                collection.delete_one(doc! { "_id": other }).await?;
            }
        }
        collection.delete_many(doc! {}).await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_changes_of_a_row_keep_their_order_where_its_key_is_retyped_within_a_group() -> Tested {
    let mut rig = Rig::new().await;
    let (columns, big) = (rig.columns.clone(), big_columns());
    let applied = rig
        .apply(vec![
            RowEvent::Insert(row(&columns, 1, 1, Some("old"))),
            RowEvent::Insert(row(&columns, 2, 2, Some("old"))),
            RowEvent::Insert(row(&columns, 3, 3, Some("old"))),
            RowEvent::Insert(row(&columns, 4, 4, Some("old"))),
            RowEvent::Update(big_row(&big, 1, 10, None)),
            RowEvent::Delete(big_key(&big, 2)),
            RowEvent::Update(big_row(&big, 3, 30, Some("new"))),
            RowEvent::Insert(big_row(&big, 2, 20, Some("new"))),
            RowEvent::Move {
                from: big_key(&big, 4),
                to: big_row(&big, 5, 50, None),
            },
        ])
        .await;
    assert_eq!(applied, Applied::default(), "nothing has to be mended");
    // What stood there keeps its spelling until it is copied again, which status says.
    let expected = [
        document(1, 10, "old"),
        big_document(2, 20, "new"),
        document(3, 30, "new"),
        big_document(5, 50, "old"),
    ];
    assert_eq!(rig.documents().await, expected);
    rig.apply(vec![
        RowEvent::Delete(big_key(&big, 1)),
        RowEvent::Delete(big_key(&big, 3)),
    ])
    .await;
    assert_eq!(rig.documents().await.len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_change_after_a_retyped_key_waits_behind_the_dead_letter_of_its_row() -> Tested {
    let mut rig = Rig::new().await;
    let (columns, big, large) = (rig.columns.clone(), big_columns(), too_large());
    rig.apply(vec![RowEvent::Insert(row(&columns, 2, 1, Some("a")))])
        .await;
    // In the group of the retype, in the next one, and after another process has taken over.
    let applied = rig
        .apply(vec![
            RowEvent::Update(row(&columns, 2, 2, Some(&large))),
            RowEvent::Update(big_row(&big, 2, 3, Some("b"))),
        ])
        .await;
    assert_eq!(applied.parked, 2);
    let update = |a| RowEvent::Update(big_row(&big, 2, a, None));
    assert_eq!(rig.apply(vec![update(4)]).await.parked, 1);
    rig.restart().await;
    assert_eq!(rig.apply(vec![update(5)]).await.parked, 1);
    assert_eq!(rig.documents().await, [document(2, 1, "a")]);
    rig.order(LetterAction::Retry).await;
    assert_eq!(rig.letters().await, []);
    let found = rig.documents().await;
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].get_i32("a")?, found[0].get_str("b")?),
        (5, "b"),
        "{found:?}"
    );
    let applied = rig.apply(vec![update(6)]).await;
    assert_eq!(applied, Applied::default());
    Ok(())
}

#[tokio::test]
async fn a_row_that_was_given_up_before_its_key_was_retyped_is_known_after_it() -> Tested {
    let mut rig = Rig::new().await;
    let (columns, big, large) = (rig.columns.clone(), big_columns(), too_large());
    rig.apply(vec![RowEvent::Insert(row(&columns, 2, 1, Some("a")))])
        .await;
    rig.apply(vec![RowEvent::Update(row(&columns, 2, 2, Some(&large)))])
        .await;
    rig.order(LetterAction::Discard).await;
    let part = |a| RowEvent::Update(big_row(&big, 2, a, None));
    assert_eq!(rig.apply(vec![part(3)]).await.dropped, 1);
    assert_eq!(rig.documents().await, [document(2, 1, "a")]);
    let whole = RowEvent::Update(big_row(&big, 2, 4, Some("b")));
    assert_eq!(rig.apply(vec![whole]).await.dropped, 0);
    rig.restart().await;
    assert_eq!(rig.apply(vec![part(5)]).await, Applied::default());
    let found = rig.documents().await;
    assert_eq!((found.len(), found[0].get_i32("a")?), (1, 5), "{found:?}");
    Ok(())
}

#[tokio::test]
async fn a_key_of_another_scale_is_the_same_row_and_gets_its_new_spelling() -> Tested {
    let mut rig = Rig::new().await;
    let (numeric, large) = (of_key("numeric"), too_large());
    let one =
        |scale: &'static str, a, b| keyed(Value::Numeric(scale.into()), row(&numeric, 0, a, b));
    let moved = |from, to, a, b| RowEvent::Move {
        from: keyed(Value::Numeric(from), key(&numeric, 0)),
        to: one(to, a, b),
    };
    let document =
        |id: &str, a: i32, b: &str| doc! { "_id": decimal(id), "id": decimal(id), "a": a, "b": b };
    // Whole, in part, and in part within the group.
    rig.apply(vec![RowEvent::Insert(one("1.0", 1, Some("a")))])
        .await;
    rig.apply(vec![moved("1.0".into(), "1.00", 2, Some("b"))])
        .await;
    assert_eq!(rig.documents().await, [document("1.00", 2, "b")]);
    rig.apply(vec![moved("1.00".into(), "1.000", 3, None)])
        .await;
    assert_eq!(rig.documents().await, [document("1.000", 3, "b")]);
    // Behind a dead letter.
    rig.apply(vec![RowEvent::Update(one("1.000", 4, Some(&large)))])
        .await;
    rig.apply(vec![moved("1.000".into(), "1.0", 5, Some("c"))])
        .await;
    rig.restart().await;
    let applied = rig.apply(vec![RowEvent::Update(one("1.0", 6, None))]).await;
    assert_eq!(applied.parked, 1);
    assert_eq!(rig.documents().await, [document("1.000", 3, "b")]);
    rig.order(LetterAction::Retry).await;
    assert_eq!(rig.documents().await, [document("1.0", 6, "c")]);
    // Behind one as two changes.
    let grown = RowEvent::Update(one("1.0", 7, Some(&large)));
    rig.apply(vec![grown]).await;
    let gone = keyed(Value::Numeric("1.0".into()), key(&numeric, 0));
    let again = RowEvent::Insert(one("1.00", 8, Some("d")));
    let applied = rig.apply(vec![RowEvent::Delete(gone), again]).await;
    assert_eq!(applied.parked, 2);
    assert_eq!(rig.documents().await, [document("1.0", 6, "c")]);
    rig.order(LetterAction::Retry).await;
    assert_eq!(rig.documents().await, [document("1.00", 8, "d")]);
    Ok(())
}

#[tokio::test]
async fn a_row_whose_key_is_only_spelled_otherwise_stays_when_its_dead_letters_are_given_up()
-> Tested {
    let (numeric, large) = (of_key("numeric"), too_large());
    let one =
        |scale: &'static str, a, b| keyed(Value::Numeric(scale.into()), row(&numeric, 0, a, b));
    let moved = |from: &'static str, to, a, b| RowEvent::Move {
        from: keyed(Value::Numeric(from.into()), key(&numeric, 0)),
        to: one(to, a, b),
    };
    for carried in [None, Some("c")] {
        let mut rig = Rig::new().await;
        rig.apply(vec![RowEvent::Insert(one("1.0", 1, Some("a")))])
            .await;
        rig.apply(vec![RowEvent::Update(one("1.0", 2, Some(&large)))])
            .await;
        rig.apply(vec![moved("1.0", "1.00", 3, carried)]).await;
        rig.order(LetterAction::Discard).await;
        let before = doc! { "_id": decimal("1.0"), "id": decimal("1.0"), "a": 1, "b": "a" };
        assert_eq!(
            rig.documents().await,
            std::slice::from_ref(&before),
            "{carried:?}"
        );
        // Nor does it go when the row that was given up is spelled otherwise once more.
        rig.apply(vec![moved("1.00", "1.000", 4, None)]).await;
        assert_eq!(rig.documents().await, [before], "{carried:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_history_goes_on_where_the_key_is_retyped() -> Tested {
    let mut fixture = Fixture::new().await;
    fixture.settings.histories = Histories::of(|_| true);
    let mut sink = fixture.claimed().await;
    let (columns, big) = (columns(), big_columns());
    let mut apply = async |ordinals: std::ops::Range<u64>, events: Vec<RowEvent<'_>>| {
        let mut batch = sink.batch();
        for (ordinal, event) in ordinals.zip(events) {
            batch.push(&fixture.target(ordinal), event).unwrap();
        }
        sink.apply(batch, &checkpoint(1)).await.unwrap();
    };
    let first = vec![RowEvent::Insert(row(&columns, 1, 1, Some("b")))];
    apply(1..2, first).await;
    let second = vec![
        RowEvent::Update(row(&columns, 1, 2, None)),
        RowEvent::Update(big_row(&big, 1, 3, None)),
    ];
    apply(2..4, second).await;
    apply(4..5, vec![RowEvent::Update(big_row(&big, 1, 4, None))]).await;
    let mut versions = fixture.documents("t_history").await;
    versions.sort_by_key(|it| it.get_i32("a").unwrap());
    let said = versions.iter().map(|it| {
        let (a, b) = (it.get_i32("a").unwrap(), it.get_str("b").unwrap());
        (a, b, it.get_bool("is_current").unwrap())
    });
    let said: Vec<_> = said.collect();
    assert_eq!(
        said,
        [
            (1, "b", false),
            (2, "b", false),
            (3, "b", false),
            (4, "b", true)
        ]
    );
    Ok(())
}
