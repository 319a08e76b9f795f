//! Folded batches leave what their events would have left one by one.

use std::collections::BTreeMap;

use bson::Document;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use walferry_core::{Batch, RowEvent, Sink};
use walferry_schema::Column;

use crate::support::{Fixture, Tested, checkpoint, columns, document, key, row};

const LARGE_BYTES: usize = 300_000;

/// What a test asks for; made valid against the rows that are there.
#[derive(Clone, Copy, Debug)]
enum Wish {
    /// Insert, or update with all columns.
    Put {
        id: i32,
        a: i32,
        b: u8,
    },
    /// Update without `b`, or insert.
    Part {
        id: i32,
        a: i32,
        b: u8,
    },
    Delete {
        id: i32,
    },
    Move {
        from: i32,
        to: i32,
        a: i32,
        b: Option<u8>,
    },
    Truncate,
    /// The batch ends here.
    Apply,
}

/// The table as PostgreSQL would have it.
type Table = BTreeMap<i32, (i32, String)>;

fn wish() -> impl Strategy<Value = Wish> {
    let (id, a, b) = (1..5_i32, any::<i32>(), any::<u8>());
    prop_oneof![
        6 => (id.clone(), a, b).prop_map(|(id, a, b)| Wish::Put { id, a, b }),
        6 => (id.clone(), a, b).prop_map(|(id, a, b)| Wish::Part { id, a, b }),
        4 => id.clone().prop_map(|id| Wish::Delete { id }),
        4 => (id.clone(), id, a, any::<Option<u8>>())
            .prop_map(|(from, to, a, b)| Wish::Move { from, to, a, b }),
        1 => Just(Wish::Truncate),
        2 => Just(Wish::Apply),
    ]
}

/// The event that a wish becomes; the table moves on.
fn event<'a>(columns: &'a [Column], table: &mut Table, wish: Wish) -> Option<RowEvent<'a>> {
    // Some are so large that what folding replaced has to be dropped in the middle of a batch.
    let text = |b: u8| format!("b{b}{}", "x".repeat(usize::from(b % 2) * LARGE_BYTES));
    let full = |id, a, b: &str| {
        let mut image = row(columns, id, a, None);
        image.fields[2] =
            walferry_schema::Field::Present(walferry_schema::Value::Text(b.to_owned().into()));
        image
    };
    match wish {
        Wish::Put { id, a, b } | Wish::Part { id, a, b } => match table.get_mut(&id) {
            None => {
                table.insert(id, (a, text(b)));
                Some(RowEvent::Insert(full(id, a, &text(b))))
            }
            Some(old) if matches!(wish, Wish::Part { .. }) => {
                old.0 = a;
                Some(RowEvent::Update(row(columns, id, a, None)))
            }
            Some(old) => {
                *old = (a, text(b));
                Some(RowEvent::Update(full(id, a, &text(b))))
            }
        },
        Wish::Delete { id } => {
            table.remove(&id)?;
            Some(RowEvent::Delete(key(columns, id)))
        }
        Wish::Move { from, to, a, b } => {
            if table.contains_key(&to) {
                return None;
            }
            let (_, old) = table.remove(&from)?;
            let from = key(columns, from);
            let image = b.map_or_else(|| row(columns, to, a, None), |b| full(to, a, &text(b)));
            table.insert(to, (a, b.map_or(old, text)));
            Some(RowEvent::Move { from, to: image })
        }
        Wish::Truncate => {
            table.clear();
            Some(RowEvent::Truncate)
        }
        Wish::Apply => None,
    }
}

async fn check(fixture: &Fixture, wishes: Vec<Wish>) {
    let columns = columns();
    let mut sink = fixture.claimed().await;
    sink.apply(with_truncate(fixture, &sink), &checkpoint(0))
        .await
        .unwrap();
    let mut table = Table::new();
    let mut batch = sink.batch();
    for wish in wishes.into_iter().chain([Wish::Apply]) {
        if let Some(event) = event(&columns, &mut table, wish) {
            batch.push(&fixture.target(0), event).unwrap();
        }
        if matches!(wish, Wish::Apply) {
            let full = std::mem::replace(&mut batch, sink.batch());
            let applied = sink.apply(full, &checkpoint(1)).await.unwrap();
            assert_eq!(applied.repaired, 0);
            let expected = table.iter().map(|(&id, (a, b))| document(id, *a, b));
            let expected: Vec<Document> = expected.collect();
            assert_eq!(fixture.documents("t").await, expected);
        }
    }
}

fn with_truncate(
    fixture: &Fixture,
    sink: &walferry_mongodb::MongoSink,
) -> walferry_mongodb::MongoBatch {
    let mut batch = sink.batch();
    batch.push(&fixture.target(0), RowEvent::Truncate).unwrap();
    batch
}

#[test]
fn folded_batches_leave_what_their_events_would_have_left_one_by_one() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let fixture = runtime.block_on(Fixture::new());
    let config = ProptestConfig {
        cases: 150,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let wishes = proptest::collection::vec(wish(), 1..60);
    let tested = TestRunner::new(config).run(&wishes, |wishes| {
        runtime.block_on(check(&fixture, wishes));
        Ok(())
    });
    tested.unwrap();
}

#[tokio::test]
async fn a_key_that_came_and_went_costs_no_operation() -> Tested {
    let fixture = Fixture::new().await;
    let columns = columns();
    let sink = fixture.claimed().await;
    let mut batch = sink.batch();
    let target = fixture.target(0);
    batch.push(&target, RowEvent::Insert(row(&columns, 1, 2, Some("x"))))?;
    batch.push(&target, RowEvent::Update(row(&columns, 1, 3, None)))?;
    assert_eq!(batch.operations(), 1);
    batch.push(&target, RowEvent::Delete(key(&columns, 1)))?;
    assert_eq!(batch.operations(), 0);
    Ok(())
}

#[tokio::test]
async fn a_move_carries_the_columns_that_only_the_old_document_has() -> Tested {
    let fixture = Fixture::new().await;
    let columns = columns();
    let mut sink = fixture.claimed().await;
    fixture
        .apply(
            &mut sink,
            vec![RowEvent::Insert(row(&columns, 1, 2, Some("toast")))],
        )
        .await?;
    let moved = |from, to, a| RowEvent::Move {
        from: key(&columns, from),
        to: row(&columns, to, a, None),
    };
    fixture
        .apply(&mut sink, vec![moved(1, 5, 3), moved(5, 6, 4)])
        .await?;
    assert_eq!(fixture.documents("t").await, [document(6, 4, "toast")]);
    Ok(())
}

#[tokio::test]
async fn a_truncate_empties_what_came_before_it_and_not_what_comes_after() -> Tested {
    let fixture = Fixture::new().await;
    let columns = columns();
    let mut sink = fixture.claimed().await;
    let insert = |id| RowEvent::Insert(row(&columns, id, 0, Some("")));
    fixture.apply(&mut sink, vec![insert(1)]).await?;
    fixture
        .apply(&mut sink, vec![insert(2), RowEvent::Truncate, insert(3)])
        .await?;
    assert_eq!(fixture.documents("t").await, [document(3, 0, "")]);
    Ok(())
}

#[tokio::test]
async fn twenty_thousand_operations_are_one_transaction() -> Tested {
    const ROWS: i32 = 20_000;
    let mut fixture = Fixture::new().await;
    fixture.settings.max_command_operations = 3_000;
    let columns = columns();
    let mut sink = fixture.claimed().await;
    let rows = |a| (0..ROWS).map(move |id| (id, a));
    let inserts = rows(1)
        .map(|(id, a)| RowEvent::Insert(row(&columns, id, a, Some("text"))))
        .collect();
    fixture.apply(&mut sink, inserts).await?;
    let half = rows(2).filter(|(id, _)| id % 2 == 0);
    let updates = half
        .map(|(id, a)| RowEvent::Update(row(&columns, id, a, None)))
        .collect();
    fixture.apply(&mut sink, updates).await?;
    let documents = fixture.documents("t").await;
    assert_eq!(documents.len(), ROWS as usize);
    assert_eq!(
        documents[..2],
        [document(0, 2, "text"), document(1, 1, "text")]
    );
    Ok(())
}
