//! The batch load.

use bson::{Document, doc};
use futures_util::future::try_join_all;
use walferry_core::{Class, Classify, RowEvent};
use walferry_mongodb::{Loader, Policies, identity};

use crate::support::{Fixture, Tested, columns, document, row};

#[tokio::test]
async fn a_load_replaces_the_collection_when_all_of_it_is_there() -> Tested {
    let fixture = Fixture::new().await;
    let old = fixture.database.collection::<Document>("t");
    old.insert_one(doc! { "_id": 0, "old": true }).await?;
    let index = doc! { "key": { "a": 1 }, "name": "a" };
    fixture
        .database
        .run_command(doc! { "createIndexes": "t", "indexes": [index] })
        .await?;
    let loader = Loader::connect(fixture.settings.clone()).await?;
    let columns = columns();
    let target = loader.begin(&fixture.table).await?;
    let mut blocks = Vec::new();
    for start in (0..9_000).step_by(1_000) {
        let mut block = loader.block(&fixture.table)?;
        for id in start..start + 1_000 {
            block.push(&row(&columns, id, 1, Some("x")))?;
        }
        blocks.push(block);
    }
    try_join_all(blocks.into_iter().map(|block| target.insert(block))).await?;
    assert_eq!(loader.count("t").await?, 1);
    assert_eq!((target.inserted(), target.count().await?), (9_000, 9_000));
    assert_eq!(target.finish().await?, 9_000);
    assert_eq!(fixture.database.list_collection_names().await?, ["t"]);
    assert_eq!(loader.estimated_count("t").await?, 9_000);
    assert_eq!(old.list_index_names().await?, ["_id_", "a"]);
    assert_eq!(fixture.documents("t").await[1], document(1, 1, "x"));
    Ok(())
}

#[tokio::test]
async fn a_load_that_fails_leaves_the_old_collection_and_nothing_beside_it() -> Tested {
    let fixture = Fixture::new().await;
    let old = fixture.database.collection::<Document>("t");
    old.insert_one(doc! { "_id": 0, "old": true }).await?;
    let loader = Loader::connect(fixture.settings.clone()).await?;
    let columns = columns();
    let target = loader.begin(&fixture.table).await?;
    let mut block = loader.block(&fixture.table)?;
    for id in [1, 2, 1] {
        block.push(&row(&columns, id, 1, Some("x")))?;
    }
    let refused = target.insert(block).await.unwrap_err();
    assert_eq!(refused.class(), Class::Fatal);
    assert!(
        refused.to_string().contains("1 documents were refused"),
        "{refused}"
    );
    // Two documents are there that were never reported.
    assert!(
        target
            .finish()
            .await
            .unwrap_err()
            .to_string()
            .contains("0 documents were sent, 2")
    );
    assert_eq!(fixture.database.list_collection_names().await?, ["t"]);
    assert_eq!(
        fixture.documents("t").await,
        [doc! { "_id": 0, "old": true }]
    );
    let index = doc! { "key": { "b": 1 }, "name": "b", "unique": true };
    fixture
        .database
        .run_command(doc! { "createIndexes": "t", "indexes": [index] })
        .await?;
    let target = loader.begin(&fixture.table).await?;
    let mut block = loader.block(&fixture.table)?;
    for id in [1, 2] {
        block.push(&row(&columns, id, 1, Some("same")))?;
    }
    target.insert(block).await?;
    assert!(target.finish().await.is_err());
    assert_eq!(fixture.database.list_collection_names().await?, ["t"]);
    assert_eq!(
        fixture.documents("t").await,
        [doc! { "_id": 0, "old": true }]
    );
    Ok(())
}

#[tokio::test]
async fn stored_documents_are_found_by_key_and_are_what_the_loader_encodes() -> Tested {
    let fixture = Fixture::new().await;
    let columns = columns();
    let mut sink = fixture.claimed().await;
    let insert = |id| RowEvent::Insert(row(&columns, id, id, Some("x")));
    fixture
        .apply(&mut sink, (0..5).map(insert).collect())
        .await?;
    let loader = Loader::connect(fixture.settings.clone()).await?;
    let mut block = walferry_mongodb::DocumentBlock::new(&fixture.table, Policies::default())?;
    for id in 0..6 {
        block.push(&row(&columns, id, id, Some("x")))?;
    }
    let encoded = block.documents();
    let ids: Vec<_> = encoded.iter().map(|(id, _)| id.clone()).collect();
    let found = loader.fetch(&fixture.table, &ids).await?;
    assert_eq!((encoded.len(), found.len()), (6, 5));
    for (id, document) in &encoded[..5] {
        assert_eq!(found[&*identity(id)].as_bytes(), document);
    }
    Ok(())
}
