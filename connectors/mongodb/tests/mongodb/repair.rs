//! Documents that are not as the source says.

use bson::doc;
use walferry_core::{Applied, Class, RowEvent};

use crate::support::{Fixture, Tested, columns, document, key, row};

#[tokio::test]
async fn duplicates_and_missing_documents_are_mended_from_full_images_and_counted() -> Tested {
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
    assert_eq!(applied, Applied { repaired: 1 });
    let applied = fixture
        .apply(&mut sink, vec![update(4, 3), update(3, 3)])
        .await?;
    assert_eq!(applied, Applied { repaired: 1 });
    let delete = RowEvent::Delete(key(&columns, 9));
    let applied = fixture.apply(&mut sink, vec![delete, update(1, 4)]).await?;
    assert_eq!(applied, Applied { repaired: 1 });
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
async fn a_partial_update_without_a_document_is_a_named_error_and_writes_nothing() -> Tested {
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
    assert_eq!(missing.class(), Class::Fatal);
    let text = missing.to_string();
    assert!(
        text.contains("document 77 of public.t") && text.contains("ordinal: 77"),
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
async fn a_move_without_a_document_is_a_named_error_and_onto_one_is_mended() -> Tested {
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
    assert_eq!(applied, Applied { repaired: 1 });
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
async fn a_unique_index_of_the_target_that_refuses_a_row_is_named() -> Tested {
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
    assert_eq!(refused.class(), Class::Fatal);
    let text = refused.to_string();
    assert!(text.contains("_id 2") && text.contains("b_1"), "{text}");
    Ok(())
}
