//! Live sales.

use std::time::Duration;

use tokio_postgres::Config;
use tokio_util::sync::CancellationToken;
use walferry_retail::Error;
use walferry_retail::sell::{Plan, Seller};

use crate::shop::Shop;

#[tokio::test]
async fn sales_come_at_the_rate_asked_for_and_are_counted() {
    let shop = Shop::open().await;
    shop.run("UPDATE inventory SET inventory_level = 1000000")
        .await;
    let before = shop.number("SELECT count(*) FROM transactions").await;
    let sold = sell(plan(shop.config(), 20.0, Some(Duration::from_secs(2))))
        .await
        .unwrap();
    assert!((30..=40).contains(&sold.totals.sold), "{sold:?}");
    assert_eq!((sold.totals.refused, sold.totals.restocked), (0, 0));
    let after = shop.number("SELECT count(*) FROM transactions").await;
    assert_eq!(after - before, sold.totals.sold.cast_signed());
}

#[tokio::test]
async fn a_sale_without_stock_is_counted_and_the_product_is_restocked() {
    let shop = Shop::open().await;
    shop.run("UPDATE inventory SET inventory_level = 0").await;
    let sold = sell(plan(shop.config(), 5_000.0, Some(Duration::from_secs(3))))
        .await
        .unwrap();
    assert!(
        sold.totals.refused > 0 && sold.totals.restocked > 3 && sold.totals.sold > 20,
        "{sold:?}"
    );
    let balance = "SELECT (SELECT sum(inventory_level) FROM inventory)
                        + (SELECT sum(quantity) FROM transactiondetails WHERE transaction_id > 2)";
    let restocked = i64::try_from(sold.totals.restocked).unwrap() * 50;
    assert_eq!(
        shop.number(balance).await,
        restocked,
        "what came in is sold or still there"
    );
}

#[tokio::test]
async fn selling_stops_when_told_to() {
    let shop = Shop::open().await;
    let seller = Seller::prepare(plan(shop.config(), 50.0, None))
        .await
        .unwrap();
    let (counts, stop) = (seller.counts(), CancellationToken::new());
    let mut selling = Box::pin(seller.run(&stop));
    let mut look = tokio::time::interval(Duration::from_millis(5));
    loop {
        tokio::select! {
            sold = &mut selling => panic!("it stopped by itself: {sold:?}"),
            _ = look.tick() => {}
        }
        if counts.totals().sold >= 5 {
            break;
        }
    }
    stop.cancel();
    let sold = selling.await.unwrap();
    assert_eq!(
        shop.number("SELECT count(*) FROM transactions").await,
        2 + sold.totals.sold.cast_signed()
    );
}

#[tokio::test]
async fn with_a_stores_own_role_only_that_store_sells() {
    let shop = Shop::open().await;
    let plan = plan(
        shop.config_of("store_user_2"),
        100.0,
        Some(Duration::from_millis(500)),
    );
    let sold = sell(plan).await.unwrap();
    let by_store = |store| {
        format!("SELECT count(*) FROM transactions WHERE transaction_id > 2 AND store_id = {store}")
    };
    assert_eq!(
        shop.number(&by_store(2)).await,
        sold.totals.sold.cast_signed()
    );
    assert!(sold.totals.sold > 0);
}

#[tokio::test]
async fn the_same_seed_sells_the_same() {
    let mut baskets = Vec::new();
    for _ in 0..2 {
        let shop = Shop::open().await;
        shop.run("UPDATE inventory SET inventory_level = 1000000")
            .await;
        let mut plan = plan(shop.config(), 10.0, Some(Duration::from_secs(3)));
        plan.connections = 1;
        sell(plan).await.unwrap();
        let basket =
            "SELECT string_agg(concat_ws('/', store_id, customer_id, product_id, quantity), ' '
                             ORDER BY transaction_id, product_id)
                        FROM transactions JOIN transactiondetails USING (transaction_id)
                       WHERE transaction_id BETWEEN 3 AND 10";
        baskets.push(shop.text(basket).await);
    }
    assert_eq!(baskets[0], baskets[1]);
}

#[tokio::test]
async fn an_error_that_is_no_lack_of_stock_ends_the_selling() {
    let shop = Shop::open().await;
    let seller = Seller::prepare(plan(shop.config(), 50.0, None))
        .await
        .unwrap();
    shop.run("ALTER TABLE transactions ADD CONSTRAINT closed CHECK (transaction_id < 5)")
        .await;
    let error = seller.run(&CancellationToken::new()).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Database {
                doing: "selling",
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn an_empty_database_has_nothing_to_sell() {
    let shop = Shop::empty().await;
    let error = Seller::prepare(plan(shop.config(), 1.0, None))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::NothingToSell {
                missing: "inventory"
            }
        ),
        "{error}"
    );
}

fn plan(database: Config, rate: f64, length: Option<Duration>) -> Plan {
    Plan {
        database,
        rate,
        length,
        seed: 1,
        connections: 3,
    }
}

async fn sell(plan: Plan) -> Result<walferry_retail::sell::Sold, Error> {
    Seller::prepare(plan)
        .await?
        .run(&CancellationToken::new())
        .await
}
