//! The retail rules of `etl/analytics`, over what walferry itself delivered.
//!
//! Each question is asked a second time in SQL (`analytics_rules/<rule>.sql`), written without a look at the
//! pipeline, and PostgreSQL's answer is held against the one that is kept, row for row and value for value.

mod rows;
mod shop;
mod stock;

use bson::{Document, doc};
use serde_json::json;
use walferry_harness::project_root;
use walferry_retail::generate;

use self::shop::Shop;
use self::stock::{Commit, version};

const SOWN: &str = include_str!("analytics_rules/sown.sql");

/// How many rows each answer has on the published data.
const EXPECTED: [(&str, usize); 23] = [
    ("f01_velocity_burst", 4),
    ("f02_impossible_travel", 10),
    ("f03_duplicate_basket", 1),
    ("f04_store_amount_outlier", 14),
    ("f05_income_mismatch", 29),
    ("f06_off_hours_high_value", 62),
    ("f07_promo_flag_mismatch", 1_794 + 780 + 4),
    ("f08_serial_promo_user", 27),
    ("f09_cash_structuring", 26),
    ("f10_payment_hopping", 3),
    ("f11_inventory_tampering", 0),
    ("f12_customer_risk_score", 149),
    ("r01_low_stock_reorder", 591),
    ("r02_oversold", 31),
    ("r03_days_of_cover", 10),
    ("r04_top_products", 5),
    ("r05_store_dashboard", 5),
    ("r06_admin_dashboard", 5),
    ("r07_store_share", 5),
    ("r08_forecast_accuracy", 5),
    ("r09_promotion_effect", 6),
    ("r10_customer_360", 3_848),
    ("r12_inventory_value", 5),
];

#[tokio::test(flavor = "multi_thread")]
async fn on_the_published_data_every_answer_has_the_expected_rows() {
    let data = project_root().join("../shared/data/walmart");
    if !data.exists() {
        println!("skipped: {} is not there", data.display());
        return;
    }
    let shop = Shop::open("published", &data, "").await;
    shop.refresh().await;
    for (rule, rows) in EXPECTED {
        assert_eq!(shop.answer(rule).await.len(), rows, "{rule}");
    }
    assert_eq!(shop.answer("v_sales").await.len(), 5_006);
    assert_eq!(shop.answer("v_sales_lines").await.len(), 5_011);
    shop.expect_groups("f07_promo_flag_mismatch", "evidence.kind", &[4, 780, 1_794])
        .await;
    shop.expect_groups("f09_cash_structuring", "store_id", &[3, 5, 5, 6, 7])
        .await;
    shop.expect_groups("r10_customer_360", "tier", &[308, 1_101, 1_184, 1_255])
        .await;
    let alerts = doc! { "score": { "$gt": 0 } };
    let scored = shop.pipeline.mongo.collection::<Document>("fraud_alerts");
    assert_eq!(scored.count_documents(alerts).await.unwrap(), 176);
    shop.expect_story().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_that_of_the_same_question_in_sql() {
    let data = generated(2_000, 11);
    let shop = Shop::open("asked_in_sql", data.path(), SOWN).await;
    shop.change_stock().await;
    shop.refresh().await;
    let kinds = [2, 8, 13];
    shop.expect_groups("f11_inventory_tampering", "evidence.kind", &kinds)
        .await;
    shop.expect_sql().await;
    shop.expect_rerun_to_change_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_for_some_values_is_a_part_of_the_whole_and_an_index_finds_it() {
    let data = generated(2_000, 14);
    let shop = Shop::open("in_parts", data.path(), SOWN).await;
    shop.change_stock().await;
    shop.refresh().await;
    shop.expect_scans_to_be_seen().await;
    for rule in shop.rules.rules() {
        shop.expect_per(rule).await;
        shop.expect_indexes(rule).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_story_raises_exactly_the_alerts_that_it_names() {
    let data = generated(3_000, 12);
    let shop = Shop::open("told", data.path(), "").await;
    shop.refresh().await;
    shop.expect_story().await;
    shop.expect_sql().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_retail_rules_have_no_mistake_and_can_be_asked_one_by_one() {
    let data = generated(300, 13);
    let shop = Shop::open("checked", data.path(), "").await;
    let checked = shop.run(&["check"]).await;
    assert_eq!(checked["mistakes"], serde_json::json!([]), "{checked}");
    let every = ["--param", "window_minutes=1000000"];
    let asked = shop.run(&[&["run", "F01"], &every[..]].concat()).await;
    let rows = asked["rules"][0]["rows"].as_array().unwrap();
    assert!(!rows.is_empty(), "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_story_is_told_at_once_and_each_answer_per_a_field_stays_whole() {
    let data = generated(2_000, 15);
    let shop = Shop::open("told_at_once", data.path(), SOWN).await;
    shop.expect_story_at_once().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_of_one_number_are_told_apart_and_what_a_snapshot_found_is_no_change() {
    let shop = Shop::bare("numbered").await;
    let found = |hour| commit("r", 0, None, hour);
    // One number thrice: before it came round, after, and then at the same LSN of a server that was restored.
    let sale = commit("u", 10, Some(700), 1);
    let theft = commit("u", 20, Some(700), 2);
    let restored = commit("u", 20, Some(700), 3);
    let level = |product: i32, level: i32, begun, ended| {
        let row = doc! { "store_id": 1, "product_id": product };
        version(&row, doc! { "inventory_level": level }, begun, ended)
    };
    let stock = [
        level(5, 10, (1, found(0)), Some(sale)),
        level(5, 8, (1, sale), Some(theft)),
        level(5, 6, (2, theft), Some(restored)),
        level(5, 8, (3, restored), None),
        // A new copy found another level, and one that stays goes later.
        level(6, 5, (1, found(0)), Some(found(2))),
        level(6, 9, (2, found(2)), None),
        level(7, 4, (1, found(0)), Some(commit("d", 30, Some(701), 4))),
    ];
    let line = doc! { "transaction_id": 1, "product_id": 5 };
    let lines = [version(&line, doc! { "quantity": 2 }, (1, sale), None)];
    let sales = [doc! { "_id": 1, "transaction_id": 1, "store_id": 1 }];
    for (collection, documents) in [
        ("inventory_history", &stock[..]),
        ("transactiondetails_history", &lines[..]),
        ("transactions", &sales[..]),
    ] {
        let collection = shop.pipeline.mongo.collection::<Document>(collection);
        collection.insert_many(documents).await.unwrap();
    }
    let answered = shop.run(&["run", "f11"]).await;
    let alerts = answered["rules"][0]["rows"].as_array().unwrap();
    let of = |it: &serde_json::Value| {
        let evidence = &it["evidence"];
        json!([
            it["product_id"],
            it["_id"]["ref"]["lsn"],
            evidence["kind"],
            evidence["unexplained"]
        ])
    };
    let mut alerts: Vec<_> = alerts.iter().map(|it| of(it).to_string()).collect();
    alerts.sort();
    let expected = [
        r#"[5,20,"restock",2]"#,
        r#"[5,20,"shrinkage",-2]"#,
        r#"[7,30,"shrinkage",-4]"#,
    ];
    assert_eq!(alerts, expected, "{answered}");
}

fn commit(op: &'static str, lsn: i64, xid: Option<i64>, hour: i64) -> Commit {
    Commit { op, lsn, xid, hour }
}

fn generated(sales: u32, seed: u64) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    generate::generate(generate::Plan { sales, seed }, directory.path(), |_| {}).unwrap();
    directory
}
