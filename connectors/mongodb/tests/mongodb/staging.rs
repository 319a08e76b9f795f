//! Staging collections and their swap.

use bson::{Document, doc};
use futures_util::TryStreamExt;
use walferry_core::{Batch, Class, RowEvent, Sink, Target};
use walferry_mongodb::MongoSink;

use crate::support::{Fixture, Tested, at, checkpoint, columns, document, row};

async fn fill(fixture: &Fixture, sink: &mut MongoSink, generation: u64, a: i32) -> Tested {
    let columns = columns();
    let mut batch = sink.batch();
    let target = Target {
        table: &fixture.table,
        staging: Some(generation),
        position: at(0),
    };
    batch.push(&target, RowEvent::Insert(row(&columns, 1, a, Some(""))))?;
    sink.apply(batch, &checkpoint(1)).await?;
    Ok(())
}

async fn names(fixture: &Fixture) -> Vec<String> {
    let mut names = fixture.database.list_collection_names().await.unwrap();
    names.sort();
    names
}

async fn index_names(fixture: &Fixture, collection: &str) -> Vec<String> {
    let collection = fixture.database.collection::<Document>(collection);
    collection.list_index_names().await.unwrap()
}

#[tokio::test]
async fn a_generation_is_staged_and_swapped_in_and_each_step_can_be_repeated() -> Tested {
    let fixture = Fixture::new().await;
    let mut sink = fixture.claimed().await;
    let mut other = fixture.spec();
    other.name = walferry_schema::TableName::new("s", "u");
    let tables = [fixture.spec(), other];
    sink.stage(5, &tables).await?;
    sink.stage(5, &tables).await?;
    assert_eq!(names(&fixture).await, ["s.u.5", "t.5"]);
    fill(&fixture, &mut sink, 5, 1).await?;
    sink.stage(6, &tables).await?;
    assert_eq!(names(&fixture).await, ["s.u.6", "t.6"]);
    fill(&fixture, &mut sink, 6, 2).await?;
    sink.stage(6, &tables).await?;
    sink.swap(6, &tables[..1]).await?;
    assert_eq!(names(&fixture).await, ["s.u.6", "t"]);
    sink.swap(6, &tables).await?;
    sink.swap(6, &tables).await?;
    assert_eq!(names(&fixture).await, ["s.u", "t"]);
    assert_eq!(fixture.documents("t").await, [document(1, 2, "")]);
    fixture
        .database
        .collection::<Document>("s.u")
        .drop()
        .await?;
    let lost = sink.swap(6, &tables).await.unwrap_err();
    assert_eq!(lost.class(), Class::Fatal, "{lost}");
    Ok(())
}

#[tokio::test]
async fn a_new_generation_has_the_indexes_and_options_of_the_collection_it_replaces() -> Tested {
    let fixture = Fixture::new().await;
    let mut sink = fixture.claimed().await;
    let validator = doc! { "a": { "$gte": 0 } };
    fixture
        .database
        .run_command(doc! { "create": "t", "validator": validator.clone() })
        .await?;
    let indexes = vec![
        doc! { "key": { "a": 1, "b": -1 }, "name": "ab", "partialFilterExpression": { "a": 1 } },
        doc! { "key": { "b": 1 }, "name": "b", "unique": true, "sparse": true },
    ];
    fixture
        .database
        .run_command(doc! { "createIndexes": "t", "indexes": indexes })
        .await?;
    let tables = [fixture.spec()];
    sink.stage(5, &tables).await?;
    assert_eq!(index_names(&fixture, "t.5").await, ["_id_", "ab", "b"]);
    fill(&fixture, &mut sink, 5, 1).await?;
    sink.swap(5, &tables).await?;
    assert_eq!(index_names(&fixture, "t").await, ["_id_", "ab", "b"]);
    let found: Vec<_> = fixture
        .database
        .list_collections()
        .await?
        .try_collect()
        .await?;
    assert_eq!(found[0].options.validator, Some(validator));
    Ok(())
}

#[tokio::test]
async fn a_view_in_the_place_of_a_collection_is_a_named_error() -> Tested {
    let fixture = Fixture::new().await;
    let mut sink = fixture.claimed().await;
    let view = doc! { "create": "t", "viewOn": "x", "pipeline": [] };
    fixture.database.run_command(view).await?;
    let refused = sink.stage(5, &[fixture.spec()]).await.unwrap_err();
    assert!(refused.to_string().contains("t is a view"), "{refused}");
    Ok(())
}
