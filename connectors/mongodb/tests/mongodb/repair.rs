//! Documents that are not as the source says.

use bson::doc;
use walferry_core::{Class, RowEvent, Sink};

use crate::support::{Fixture, Tested, columns, document, key, row};

#[tokio::test]
async fn rule_16_duplicates_and_missing_documents_are_mended_from_full_images_and_counted() -> Tested
{
    let fixture = Fixture::new().await;
    let columns = columns();
    let mut sink = fixture.claimed().await;
    let insert = |id, a| RowEvent::Insert(row(&columns, id, a, Some("x")));
    let update = |id, a| RowEvent::Update(row(&columns, id, a, Some("y")));
    fixture
        .apply(&mut sink, vec![insert(1, 1), insert(2, 1)])
        .await?;
    let applied = fixture
        .apply(&mut sink, vec![insert(1, 2), insert(3, 2), update(2, 2)])
        .await?;
    assert_eq!(applied.repaired, 1);
    let applied = fixture
        .apply(&mut sink, vec![update(4, 3), update(3, 3)])
        .await?;
    assert_eq!(applied.repaired, 1);
    let delete = RowEvent::Delete(key(&columns, 9));
    let applied = fixture.apply(&mut sink, vec![delete, update(1, 4)]).await?;
    assert_eq!(applied.repaired, 1);
    let expected = [
        document(1, 4, "y"),
        document(2, 2, "y"),
        document(3, 3, "y"),
        document(4, 3, "y"),
    ];
    assert_eq!(fixture.documents("t").await, expected);
    Ok(())
}

#[tokio::test]
async fn rule_16_a_partial_update_without_a_document_is_a_named_error_and_writes_nothing() -> Tested
{
    let fixture = Fixture::new().await;
    let columns = columns();
    let mut sink = fixture.claimed().await;
    let insert = |id| RowEvent::Insert(row(&columns, id, 1, Some("x")));
    fixture
        .apply(
            &mut sink,
            (0..100).filter(|id| *id != 77).map(insert).collect(),
        )
        .await?;
    let updates = (0..100)
        .map(|id| RowEvent::Update(row(&columns, id, 2, None)))
        .collect();
    let missing = fixture.apply(&mut sink, updates).await.unwrap_err();
    assert_eq!(missing.class(), Class::Poison);
    let text = missing.to_string();
    assert!(
        text.contains("document 77 of public.t") && text.contains("at 7/0/100"),
        "{text}"
    );
    assert!(
        fixture
            .documents("t")
            .await
            .iter()
            .all(|document| document.get_i32("a").ok() == Some(1))
    );
    Ok(())
}

#[tokio::test]
async fn rule_16_a_move_without_a_document_is_a_named_error_and_onto_one_is_mended() -> Tested {
    let fixture = Fixture::new().await;
    let columns = columns();
    let mut sink = fixture.claimed().await;
    let insert = |id| RowEvent::Insert(row(&columns, id, id, Some("x")));
    let moved = |from, to| RowEvent::Move {
        from: key(&columns, from),
        to: row(&columns, to, 9, None),
    };
    fixture.apply(&mut sink, vec![insert(1), insert(2)]).await?;
    let applied = fixture.apply(&mut sink, vec![moved(1, 2)]).await?;
    assert_eq!(applied.repaired, 1);
    assert_eq!(fixture.documents("t").await, [document(2, 9, "x")]);
    let missing = fixture
        .apply(&mut sink, vec![moved(1, 3)])
        .await
        .unwrap_err();
    assert!(
        missing.to_string().contains("document 1 of public.t"),
        "{missing}"
    );
    Ok(())
}

#[tokio::test]
async fn rule_16_a_unique_index_of_the_target_that_refuses_a_row_is_named() -> Tested {
    let fixture = Fixture::new().await;
    let columns = columns();
    let mut sink = fixture.claimed().await;
    let insert = |id| RowEvent::Insert(row(&columns, id, 1, Some("same")));
    fixture.apply(&mut sink, vec![insert(1)]).await?;
    let index = doc! { "key": { "b": 1 }, "name": "b_1", "unique": true };
    fixture
        .database
        .run_command(doc! { "createIndexes": "t", "indexes": [index] })
        .await?;
    let refused = fixture.apply(&mut sink, vec![insert(2)]).await.unwrap_err();
    assert_eq!(refused.class(), Class::Poison);
    let text = refused.to_string();
    assert!(text.contains("_id 2") && text.contains("b_1"), "{text}");
    Ok(())
}

#[tokio::test]
async fn rule_16_a_move_that_needs_a_field_that_nobody_has_is_a_named_error() -> Tested {
    let fixture = Fixture::new().await;
    let columns = columns();
    let mut sink = fixture.claimed().await;
    let collection = fixture.database.collection::<bson::Document>("t");
    collection
        .insert_one(doc! { "_id": 1, "id": 1, "a": 1 })
        .await?;
    let moved = RowEvent::Move {
        from: key(&columns, 1),
        to: row(&columns, 2, 9, None),
    };
    let lost = fixture.apply(&mut sink, vec![moved]).await.unwrap_err();
    assert_eq!(lost.class(), Class::Poison, "{lost}");
    let text = lost.to_string();
    assert!(
        text.contains("public.t") && text.contains("field b"),
        "{text}"
    );
    let old = [doc! { "_id": 1, "id": 1, "a": 1 }];
    assert_eq!(fixture.documents("t").await, old);
    Ok(())
}

#[tokio::test]
async fn rule_16_a_delete_that_the_server_refuses_is_named() -> Tested {
    let fixture = Fixture::new().await;
    let columns = columns();
    let mut sink = fixture.claimed().await;
    let base = fixture.database.collection::<bson::Document>("base");
    base.insert_one(document(1, 1, "x")).await?;
    let view = doc! { "create": "t", "viewOn": "base", "pipeline": [] };
    fixture.database.run_command(view).await?;
    let moved = RowEvent::Move {
        from: key(&columns, 1),
        to: row(&columns, 2, 9, None),
    };
    for (event, expected) in [
        (RowEvent::Truncate, "emptying the collection t"),
        (moved, "_id 1"),
    ] {
        sink.claim().await?;
        let refused = fixture.apply(&mut sink, vec![event]).await.unwrap_err();
        assert_eq!(refused.class(), Class::Fatal, "{refused}");
        assert!(refused.to_string().contains(expected), "{refused}");
    }
    assert_eq!(fixture.documents("base").await, [document(1, 1, "x")]);
    Ok(())
}

#[tokio::test]
async fn rule_16_a_transaction_that_the_servers_limits_end_again_and_again_is_named() -> Tested {
    let fixture = Fixture::new().await;
    let columns = columns();
    let mut sink = fixture.claimed().await;
    let insert = RowEvent::Insert(row(&columns, 1, 1, Some("x")));
    fixture.apply(&mut sink, vec![insert]).await?;
    let limits = [
        doc! { "failCommands": ["delete"], "errorCode": 290 },
        doc! { "failCommands": ["delete"], "errorCode": 388 },
    ];
    for limit in limits {
        let alone = fixture.fail(2, limit.clone()).await;
        fixture.apply(&mut sink, vec![RowEvent::Truncate]).await?;
        drop(alone);
        let _alone = fixture.fail(3, limit).await;
        let named = fixture.apply(&mut sink, vec![RowEvent::Truncate]).await;
        let named = named.unwrap_err();
        assert_eq!(named.class(), Class::Fatal, "{named}");
        let text = named.to_string();
        let expected = [
            "on t took longer",
            "3 times",
            "transactionLifetimeLimitSeconds",
        ];
        assert!(expected.iter().all(|part| text.contains(part)), "{text}");
        sink.claim().await?;
    }
    Ok(())
}
