//! What operators ask of a pipeline, and what is kept for them.

use bson::doc;
use futures_util::TryStreamExt;
use walferry_core::{Batch, Order, Orders, RowEvent, Sink, Skipped, SkippedChange};
use walferry_mongodb::{MongoSink, OrderBook};
use walferry_schema::{CommitId, Lsn};

use crate::support::{Fixture, Tested, checkpoint, columns, row};

const COMMIT: CommitId = CommitId {
    generation: 7,
    lsn: Lsn(0x99),
};

fn order(reason: &str) -> Order {
    Order {
        by: "ann@db1".into(),
        at: 1_700_000_000_123,
        reason: Some(reason.into()),
    }
}

fn skipped(fixture: &Fixture, changes: &[(u64, String)]) -> Skipped {
    let kept = |(ordinal, change): &(u64, String)| SkippedChange {
        table: fixture.table.clone(),
        ordinal: *ordinal,
        change: change.clone(),
    };
    Skipped {
        commit: COMMIT,
        committed_at: Some(1_600_000_000_000_000),
        order: order("too large"),
        changes: changes.iter().map(kept).collect(),
    }
}

async fn kept(fixture: &Fixture) -> Result<Vec<bson::Document>, mongodb::error::Error> {
    let own = fixture.database.client().database("_walferry");
    let changes = own.collection::<bson::Document>("skipped_changes");
    let of = doc! { "_id.pipeline": &fixture.settings.pipeline };
    let found = changes.find(of).sort(doc! { "_id.ordinal": 1 }).await?;
    found.try_collect().await
}

#[tokio::test]
async fn orders_are_read_as_they_were_given_until_they_are_taken_back() -> Tested {
    let fixture = Fixture::new().await;
    let book = OrderBook::connect(fixture.settings.clone()).await?;
    assert_eq!(book.orders().await?, Orders::default());
    assert!(book.pause(&order("index")).await?);
    assert!(!book.pause(&order("again")).await?);
    assert!(book.skip(COMMIT, &order("poison")).await?);
    assert!(!book.skip(COMMIT, &order("again")).await?);
    let asked = book.orders().await?;
    assert_eq!(asked.pause, Some(order("index")));
    assert_eq!(asked.skips, [(COMMIT, order("poison"))].into());
    assert!(book.resume().await? && !book.resume().await?);
    assert!(book.withdraw(COMMIT).await? && !book.withdraw(COMMIT).await?);
    assert_eq!(book.orders().await?, Orders::default());
    Ok(())
}

#[tokio::test]
async fn what_is_passed_over_is_kept_with_the_position_and_with_the_rows_around_it() -> Tested {
    let fixture = Fixture::new().await;
    let columns = columns();
    let mut sink = fixture.claimed().await;
    let book = OrderBook::connect(fixture.settings.clone()).await?;
    book.skip(COMMIT, &order("too large")).await?;
    let mut batch = sink.batch();
    let before = RowEvent::Insert(row(&columns, 1, 1, Some("x")));
    batch.push(&fixture.target(1), before)?;
    let large = "x".repeat(16 << 20);
    let changes = [(1, "{}".to_owned()), (3, large), (5, "[1]".to_owned())];
    batch.skip(skipped(&fixture, &changes));
    let after = RowEvent::Insert(row(&columns, 2, 2, Some("y")));
    batch.push(&fixture.target(3), after)?;
    sink.apply(batch, &checkpoint(3)).await?;
    // A giant goes on in another group.
    let mut batch = sink.batch();
    batch.skip(skipped(&fixture, &[(7, "{}".to_owned())]));
    sink.apply(batch, &checkpoint(4)).await?;

    assert_eq!(fixture.documents("t").await.len(), 2);
    let found = kept(&fixture).await?;
    let changes: Vec<_> = found.iter().map(|it| it.get_str("change").ok()).collect();
    assert_eq!(changes, [Some("{}"), None, Some("[1]"), Some("{}")]);
    assert_eq!(found[1].get_i64("left_out_bytes")?, 16 << 20);
    let unverified = book.orders().await?.unverified;
    assert_eq!(unverified.len(), 1);
    assert_eq!((unverified[0].commit, unverified[0].changes), (COMMIT, 4));
    assert_eq!(unverified[0].order, order("too large"));
    assert_eq!(unverified[0].tables, ["public.t"]);
    Ok(())
}

#[tokio::test]
async fn it_is_shown_until_a_comparison_that_began_later_finds_its_table_equal() -> Tested {
    let fixture = Fixture::new().await;
    let mut sink = fixture.claimed().await;
    let book = OrderBook::connect(fixture.settings.clone()).await?;
    book.skip(COMMIT, &order("too large")).await?;
    let before = book.now().await? - 1;
    let mut batch = sink.batch();
    batch.skip(skipped(&fixture, &[(1, "{}".to_owned())]));
    sink.apply(batch, &checkpoint(3)).await?;
    assert_eq!(book.verified(&fixture.table, before).await?, 0);
    assert_eq!(book.orders().await?.unverified.len(), 1);
    let later = book.now().await? + 1;
    assert_eq!(book.verified(&fixture.table, later).await?, 1);
    assert!(book.orders().await?.unverified.is_empty());
    Ok(())
}

#[tokio::test]
async fn an_order_that_was_taken_back_meanwhile_passes_nothing_over() -> Tested {
    let fixture = Fixture::new().await;
    let mut sink = fixture.claimed().await;
    let book = OrderBook::connect(fixture.settings.clone()).await?;
    book.skip(COMMIT, &order("too large")).await?;
    book.withdraw(COMMIT).await?;
    let mut batch = sink.batch();
    batch.skip(skipped(&fixture, &[(1, "{}".to_owned())]));
    let refused = sink.apply(batch, &checkpoint(3)).await;
    let class = refused.err().map(|it| it.class());
    assert_eq!(class, Some(walferry_core::Class::Transient));
    assert!(kept(&fixture).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_writer_that_was_overtaken_keeps_nothing() -> Tested {
    let fixture = Fixture::new().await;
    let mut old = fixture.claimed().await;
    let _new = fixture.claimed().await;
    let mut batch = MongoSink::batch(&old);
    batch.skip(skipped(&fixture, &[(1, "{}".to_owned())]));
    let fenced = old.apply(batch, &checkpoint(3)).await;
    assert_eq!(
        fenced.err().map(|it| it.class()),
        Some(walferry_core::Class::Fenced)
    );
    assert!(kept(&fixture).await?.is_empty());
    Ok(())
}
