//! Every defect of the original sale is mended.

use std::time::Duration;

use tokio::task::JoinSet;

use walferry_harness::eventually;

use crate::shop::{Shop, number, refusal, sale};

#[tokio::test]
async fn a_sale_of_more_than_the_store_holds_fails_whole() {
    let shop = Shop::open().await;
    let refused = refusal(shop.client(), &sale("{2,1}", "{1,11}")).await;
    assert_eq!(
        refused,
        (
            "RT001".into(),
            "store 1 holds 10 of product 1, the sale wants 11".into()
        )
    );
    assert_eq!((shop.level(1, 1).await, shop.level(1, 2).await), (10, 20));
    assert_eq!(shop.number("SELECT count(*) FROM transactions").await, 2);
}

#[tokio::test]
async fn a_sale_of_all_that_the_store_holds_leaves_nothing() {
    let shop = Shop::open().await;
    shop.run(&sale("{1}", "{10}")).await;
    assert_eq!(shop.level(1, 1).await, 0);
}

#[tokio::test]
async fn a_product_that_the_store_does_not_stock_is_not_sold() {
    let shop = Shop::open().await;
    for product in ["3", "4711"] {
        let refused = refusal(shop.client(), &sale(&format!("{{{product}}}"), "{1}")).await;
        assert_eq!(
            refused,
            (
                "RT001".into(),
                format!("store 1 does not stock product {product}")
            )
        );
    }
}

#[tokio::test]
async fn a_quantity_that_is_not_positive_is_refused() {
    let shop = Shop::open().await;
    for quantity in ["-3", "0", "NULL"] {
        let refused = refusal(shop.client(), &sale("{2,1}", &format!("{{1,{quantity}}}"))).await;
        let message =
            format!("the quantity of product 1 is {quantity}, a sale needs a positive one");
        assert_eq!(refused, ("RT002".into(), message));
    }
    assert_eq!(shop.level(1, 1).await, 10);
}

#[tokio::test]
async fn arrays_of_unequal_length_are_refused() {
    let shop = Shop::open().await;
    let refused = refusal(shop.client(), &sale("{1,2}", "{1}")).await;
    assert_eq!(
        refused,
        (
            "RT002".into(),
            "a sale of 2 products names 1 quantities".into()
        )
    );
    assert_eq!((shop.level(1, 1).await, shop.level(1, 2).await), (10, 20));
}

#[tokio::test]
async fn a_sale_of_nothing_or_of_an_unknown_product_is_refused() {
    let shop = Shop::open().await;
    assert_eq!(refusal(shop.client(), &sale("{}", "{}")).await.0, "RT002");
    assert_eq!(
        refusal(shop.client(), &sale("{NULL}", "{1}")).await.0,
        "RT002"
    );
    let without_arrays =
        "CALL insert_transaction('2024-05-01', 1, 1, 1, false, NULL, 1, false, NULL, NULL)";
    assert_eq!(refusal(shop.client(), without_arrays).await.0, "RT002");
}

#[tokio::test]
async fn a_product_named_twice_is_sold_once_with_both_quantities() {
    let shop = Shop::open().await;
    shop.run(&sale("{1,2,1}", "{2,1,3}")).await;
    assert_eq!((shop.level(1, 1).await, shop.level(1, 2).await), (5, 19));
    let sold = "SELECT string_agg(product_id || ':' || quantity, ' ' ORDER BY product_id)
                  FROM transactiondetails WHERE transaction_id = 3";
    assert_eq!(shop.text(sold).await, "1:5 2:1");
    assert_eq!(
        refusal(shop.client(), &sale("{1,1}", "{3,3}")).await.0,
        "RT001",
        "both together are too many"
    );
}

#[tokio::test]
async fn quantities_that_overflow_together_are_too_many() {
    let shop = Shop::open().await;
    assert_eq!(
        refusal(shop.client(), &sale("{1,1}", "{2147483647,2147483647}"))
            .await
            .0,
        "RT001"
    );
}

#[tokio::test]
async fn a_promotion_is_recorded_when_it_was_applied_and_named() {
    let shop = Shop::open().await;
    for (applied, promotion, recorded) in [("true", "1", 1), ("true", "NULL", 0), ("false", "1", 0)]
    {
        let before = shop
            .number("SELECT count(*) FROM promotionapplications")
            .await;
        shop.run(&format!(
            "CALL insert_transaction('2024-05-01', 1, 1, 1, {applied}, {promotion}, 1, false, '{{1}}', '{{1}}')"
        ))
        .await;
        let after = shop
            .number("SELECT count(*) FROM promotionapplications")
            .await;
        assert_eq!(
            after - before,
            recorded,
            "applied {applied}, promotion {promotion}"
        );
    }
}

#[tokio::test]
async fn a_sale_keeps_the_price_of_its_day() {
    let shop = Shop::open().await;
    shop.run(&sale("{1}", "{1}")).await;
    shop.run("UPDATE products SET unit_price = 1.00 WHERE product_id = 1")
        .await;
    assert_eq!(
        shop.text("SELECT unit_price FROM transactiondetails WHERE transaction_id = 3")
            .await,
        "100.50"
    );
}

#[tokio::test]
async fn arguments_may_be_named() {
    let shop = Shop::open().await;
    shop.run(
        "CALL insert_transaction(
            transaction_date => '2024-05-01', customer_id => 1, store_id => 1, payment_method_id => 1,
            promotion_applied => false, promotion_id => NULL, weather_id => NULL, stockout => false,
            product_ids => ARRAY[1, 2], quantities => ARRAY[1, 1])",
    )
    .await;
    assert_eq!(
        shop.number("SELECT count(*) FROM transactiondetails WHERE transaction_id = 3")
            .await,
        2
    );
}

#[tokio::test]
async fn constraints_hold_without_the_procedure_too() {
    let shop = Shop::open().await;
    for statement in [
        "UPDATE inventory SET inventory_level = -1 WHERE store_id = 1",
        "INSERT INTO transactiondetails VALUES (1, 2, -5)",
        "INSERT INTO transactiondetails VALUES (1, 2, 0)",
        "INSERT INTO transactiondetails VALUES (1, 2, 21)",
        "UPDATE products SET unit_price = -1",
    ] {
        assert_eq!(
            refusal(shop.client(), statement).await.0,
            "23514",
            "{statement}"
        );
    }
    let not_stocked = "INSERT INTO transactiondetails VALUES (1, 3, 1)";
    assert_eq!(refusal(shop.client(), not_stocked).await.0, "RT001");
}

#[tokio::test]
async fn a_line_inserted_by_hand_takes_from_the_stock() {
    let shop = Shop::open().await;
    shop.run("INSERT INTO transactiondetails VALUES (1, 2, 5)")
        .await;
    assert_eq!(shop.level(1, 2).await, 15);
}

#[tokio::test]
async fn a_temporary_table_does_not_stand_in_for_the_stock() {
    let shop = Shop::open().await;
    let store = shop.login("store_user_1").await;
    let shadow = "CREATE TEMPORARY TABLE inventory AS SELECT 1 AS store_id, 1 AS product_id, 1000 AS inventory_level";
    store.client().batch_execute(shadow).await.unwrap();
    assert_eq!(
        refusal(store.client(), &sale("{1}", "{11}")).await.0,
        "RT001"
    );
    store
        .client()
        .batch_execute(&sale("{1}", "{1}"))
        .await
        .unwrap();
    assert_eq!(shop.level(1, 1).await, 9);
}

#[tokio::test]
async fn concurrent_sales_never_oversell() {
    let shop = Shop::open().await;
    let mut tills = JoinSet::new();
    for _ in 0..8 {
        let till = shop.login("postgres").await;
        tills.spawn(async move {
            let mut sold = 0;
            for _ in 0..5 {
                match till.client().batch_execute(&sale("{1}", "{1}")).await {
                    Ok(()) => sold += 1,
                    Err(refused) => assert_eq!(refused.code().unwrap().code(), "RT001"),
                }
            }
            sold
        });
    }
    let sold: i64 = tills.join_all().await.into_iter().sum();
    assert_eq!((sold, shop.level(1, 1).await), (10, 0));
}

#[tokio::test]
async fn sales_of_the_same_products_in_opposite_order_do_not_deadlock() {
    let shop = Shop::open().await;
    shop.run("UPDATE inventory SET inventory_level = 100000")
        .await;
    let mut tills = JoinSet::new();
    for till in 0..6 {
        let session = shop.login("postgres").await;
        let call = if till % 2 == 0 {
            sale("{1,2}", "{1,1}")
        } else {
            sale("{2,1}", "{1,1}")
        };
        tills.spawn(async move {
            for _ in 0..50 {
                session
                    .client()
                    .batch_execute(&call)
                    .await
                    .expect("a sale that waits goes on");
            }
        });
    }
    tills.join_all().await;
    assert_eq!(shop.level(1, 1).await, 100_000 - 300);
}

#[tokio::test]
async fn a_sale_that_waited_for_another_sells_what_that_one_left() {
    let shop = Shop::open().await;
    shop.run(&format!("BEGIN; {}", sale("{1}", "{10}"))).await;
    let late = shop.login("postgres").await;
    let waiting = sale("{1}", "{1}");
    let refused = async { refusal(late.client(), &waiting).await };
    let (refused, ()) = tokio::join!(refused, async {
        someone_waits(&shop).await;
        shop.run("COMMIT").await;
    });
    assert_eq!(
        refused,
        (
            "RT001".into(),
            "store 1 holds 0 of product 1, the sale wants 1".into()
        )
    );
}

#[tokio::test]
async fn a_sale_that_waits_for_a_product_holds_none_of_a_higher_id() {
    let shop = Shop::open().await;
    shop.run(
        "BEGIN; UPDATE inventory SET inventory_level = 9 WHERE store_id = 1 AND product_id = 1",
    )
    .await;
    let late = shop.login("postgres").await;
    let waiting = sale("{2,1}", "{1,1}");
    let (sold, ()) = tokio::join!(late.client().batch_execute(&waiting), async {
        someone_waits(&shop).await;
        shop.run("SELECT FROM inventory WHERE store_id = 1 AND product_id = 2 FOR UPDATE NOWAIT")
            .await;
        shop.run("COMMIT").await;
    });
    sold.unwrap();
    assert_eq!((shop.level(1, 1).await, shop.level(1, 2).await), (8, 19));
}

/// Returns when another session of this database waits for a lock.
async fn someone_waits(shop: &Shop) {
    let observer = shop.login("postgres").await;
    let waiting = "SELECT count(*) FROM pg_stat_activity
                    WHERE wait_event_type = 'Lock' AND datname = current_database()";
    eventually(Duration::from_secs(30), "a session to wait", async || {
        number(&observer, waiting).await > 0
    })
    .await
    .unwrap();
}
