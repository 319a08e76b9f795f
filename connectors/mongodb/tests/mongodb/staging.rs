//! Staging collections and their swap.

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use walferry_core::{Batch, Checkpoint, Class, PipelineState, RowEvent, Sink, Target};
use walferry_mongodb::MongoSink;
use walferry_schema::{Phase, Position};

use crate::support::{Fixture, Tested, at, checkpoint, columns, document, row};

async fn fill(fixture: &Fixture, sink: &mut MongoSink, generation: u64, a: i32) -> Tested {
    let columns = columns();
    let mut batch = sink.batch();
    let target = Target {
        table: &fixture.table,
        staging: Some(generation),
        position: at(0),
        committed_at: None,
        xid: None,
        oversize: None,
        whole: None,
    };
    batch.push(&target, RowEvent::Insert(row(&columns, 1, a, Some(""))))?;
    let checkpoint = in_state(fixture, PipelineState::Snapshot, generation);
    sink.apply(batch, &checkpoint).await?;
    Ok(())
}

/// A checkpoint of the fixture's table after the first chunk.
fn in_state(fixture: &Fixture, state: PipelineState, generation: u64) -> Checkpoint {
    Checkpoint {
        state,
        generation,
        position: Some(Position {
            generation,
            phase: Phase::Snapshot(0),
            ordinal: 0,
        }),
        server: None,
        tables: vec![fixture.spec()],
        ..checkpoint(1)
    }
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

#[tokio::test]
async fn a_collection_with_a_name_like_a_staging_collection_is_never_dropped() -> Tested {
    let fixture = Fixture::new().await;
    let mut sink = fixture.claimed().await;
    let tables = [fixture.spec()];
    let of_users = ["t.2023", "t.1700000000"];
    for name in of_users {
        let collection = fixture.database.collection::<Document>(name);
        collection.insert_one(doc! { "_id": name }).await?;
    }
    sink.stage(1_795_199_030, &tables).await?;
    let of_users_own = fixture.database.collection::<Document>("t.1795199030");
    of_users_own.drop().await?;
    of_users_own.insert_one(doc! { "_id": 1 }).await?;
    sink.stage(1_795_199_031, &tables).await?;
    let expected = ["t.1700000000", "t.1795199030", "t.1795199031", "t.2023"];
    assert_eq!(names(&fixture).await, expected);
    for name in of_users {
        assert_eq!(fixture.documents(name).await, [doc! { "_id": name }]);
    }
    let taken = sink.stage(1_700_000_000, &tables).await.unwrap_err();
    assert_eq!(taken.class(), Class::Fatal);
    assert!(taken.to_string().contains("t.1700000000 is in the way"));
    assert_eq!(fixture.documents("t.1700000000").await.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_lost_staging_collection_is_a_named_error_and_never_made_again() -> Tested {
    let fixture = Fixture::new().await;
    let mut sink = fixture.claimed().await;
    let tables = [fixture.spec()];
    let staging = fixture.database.collection::<Document>("t.5");
    sink.stage(5, &tables).await?;
    fill(&fixture, &mut sink, 5, 1).await?;
    let loading = in_state(&fixture, PipelineState::Snapshot, 5);
    assert!(loading.has_chunks());
    assert_eq!(sink.claim().await?, Some(loading.clone()));
    sink.check(&loading).await?;
    staging.drop().await?;
    let lost = sink.check(&loading).await.unwrap_err();
    assert_eq!(lost.class(), Class::Fatal);
    assert!(lost.to_string().contains("--new-snapshot"), "{lost}");
    // Made by someone else, it is still not the one that was filled.
    fixture.database.create_collection("t.5").await?;
    assert!(sink.check(&loading).await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_live_pipeline_whose_collection_is_gone_is_a_named_error() -> Tested {
    let fixture = Fixture::new().await;
    let mut sink = fixture.claimed().await;
    sink.stage(5, &[fixture.spec()]).await?;
    fill(&fixture, &mut sink, 5, 1).await?;
    sink.swap(5, &[fixture.spec()]).await?;
    let live = in_state(&fixture, PipelineState::Live, 5);
    sink.apply(sink.batch(), &live).await?;
    sink.check(&live).await?;
    let none: &[Bson] = &[];
    assert_eq!(fixture.position().await.get_array("staging")?, none);
    fixture.database.drop().await?;
    let lost = sink.check(&live).await.unwrap_err();
    assert_eq!(lost.class(), Class::Fatal);
    assert!(lost.to_string().contains("collection t is gone"), "{lost}");
    Ok(())
}

#[tokio::test]
async fn a_staging_collection_that_an_overtaken_writer_makes_late_is_not_swapped_in() -> Tested {
    let fixture = Fixture::new().await;
    let tables = [fixture.spec()];
    let mut overtaken = fixture.claimed().await;
    overtaken.stage(5, &tables).await?;
    fill(&fixture, &mut overtaken, 5, 1).await?;
    let mut sink = fixture.claimed().await;
    sink.swap(5, &tables).await?;
    // What the overtaken writer was about to do when it was frozen.
    fixture.database.create_collection("t.5").await?;
    sink.swap(5, &tables).await?;
    assert_eq!(fixture.documents("t").await, [document(1, 1, "")]);
    for refused in [
        overtaken.stage(6, &tables).await,
        overtaken.swap(5, &tables).await,
    ] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.class(), Class::Fenced, "{refused}");
    }
    assert_eq!(names(&fixture).await, ["t", "t.5"]);
    Ok(())
}

#[tokio::test]
async fn a_staging_collection_that_is_lost_before_the_swap_leaves_the_old_one() -> Tested {
    let fixture = Fixture::new().await;
    let mut sink = fixture.claimed().await;
    let target = fixture.database.collection::<Document>("t");
    target.insert_one(document(1, 0, "old")).await?;
    sink.stage(5, &[fixture.spec()]).await?;
    fixture
        .database
        .collection::<Document>("t.5")
        .drop()
        .await?;
    let lost = sink.swap(5, &[fixture.spec()]).await.unwrap_err();
    assert!(lost.to_string().contains("t.5 has vanished"), "{lost}");
    assert_eq!(fixture.documents("t").await, [document(1, 0, "old")]);
    Ok(())
}
