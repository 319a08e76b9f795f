//! CSV files into the database.

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use walferry_retail::generate::{self, Plan};
use walferry_retail::load::{Loaded, load};
use walferry_retail::{Error, explain};

use crate::shop::{Shop, published, sale};

#[tokio::test]
async fn the_published_data_loads_with_its_sums() {
    let Some(directory) = published() else { return };
    let shop = Shop::empty().await;
    let loaded = load_into(&shop, &directory).await.unwrap();
    assert_eq!(loaded.store_roles, 5);
    for (query, expected) in [
        (
            "SELECT count(*) || ' ' || sum(transaction_id) FROM transactions",
            "5006 12532525",
        ),
        (
            "SELECT count(*) || ' ' || sum(quantity) FROM transactiondetails",
            "5011 14940",
        ),
        (
            "SELECT count(*) || ' ' || sum(inventory_level) FROM inventory",
            "3028 761455",
        ),
        (
            "SELECT count(*) || ' ' || sum(income) FROM customers",
            "3848 270499849.35",
        ),
        (
            "SELECT count(*) || ' ' || sum(unit_price) FROM products",
            "898 900966.73",
        ),
        ("SELECT count(*) FROM demandforecast", "4986"),
        ("SELECT count(*) FROM promotionapplications", "813"),
        ("SELECT count(*) FROM stores", "5"),
        ("SELECT count(*) FROM weather", "4"),
        ("SELECT count(*) FROM paymentmethods", "4"),
        ("SELECT count(*) FROM categories", "2"),
        ("SELECT count(*) FROM promotions", "2"),
        ("SELECT count(*) FROM suppliers", "354"),
        ("SELECT count(unit_price) FROM transactiondetails", "0"),
        (
            "SELECT sum(quantity * products.unit_price) FROM transactiondetails JOIN products USING (product_id)",
            "14893604.02",
        ),
    ] {
        assert_eq!(shop.text(query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn generated_data_loads_and_history_does_not_take_from_the_stock() {
    let (shop, data) = (Shop::empty().await, data());
    let loaded = load_into(&shop, data.path()).await.unwrap();
    for rows in &loaded.tables {
        assert_eq!(
            (rows.inserted, rows.different),
            (rows.read, 0),
            "{}",
            rows.table
        );
        assert_eq!(
            shop.number(&format!("SELECT count(*) FROM {}", rows.table))
                .await,
            rows.read.cast_signed()
        );
    }
    let levels = sum_of_column(&data.path().join("inventory.csv"), 2);
    assert_eq!(
        shop.number("SELECT sum(inventory_level) FROM inventory")
            .await,
        levels
    );
}

#[tokio::test]
async fn loading_twice_is_loading_once() {
    let (shop, data) = (Shop::empty().await, data());
    let first = load_into(&shop, data.path()).await.unwrap();
    let second = load_into(&shop, data.path()).await.unwrap();
    for (first, second) in first.tables.iter().zip(&second.tables) {
        assert_eq!(
            (second.read, second.inserted, second.different),
            (first.read, 0, 0),
            "{}",
            first.table
        );
    }
}

#[tokio::test]
async fn sales_go_on_after_the_loaded_rows() {
    let (shop, data) = (Shop::empty().await, data());
    load_into(&shop, data.path()).await.unwrap();
    shop.run(SALE_OF_SOMETHING).await;
    assert_eq!(
        shop.number("SELECT max(transaction_id) FROM transactions")
            .await,
        SALES + 1
    );
    assert_eq!(
        shop.number("SELECT count(*) FROM transactiondetails WHERE unit_price IS NOT NULL")
            .await,
        1
    );
    let levels = sum_of_column(&data.path().join("inventory.csv"), 2);
    let held = shop
        .number("SELECT sum(inventory_level) FROM inventory")
        .await;
    assert_eq!(levels - held, 1, "the trigger works again");

    let again = load_into(&shop, data.path()).await.unwrap();
    let inventory = again
        .tables
        .iter()
        .find(|rows| rows.table == "inventory")
        .unwrap();
    assert_eq!(
        inventory.different, 1,
        "a level that moved on is left as it is, and said"
    );
    shop.run(SALE_OF_SOMETHING).await;
    assert_eq!(
        shop.number("SELECT max(transaction_id) FROM transactions")
            .await,
        SALES + 2
    );
}

#[tokio::test]
async fn every_sequence_stands_after_the_loaded_rows_and_belongs_to_its_column() {
    let (shop, data) = (Shop::empty().await, data());
    load_into(&shop, data.path()).await.unwrap();
    for (table, key) in [
        ("transactions", "transaction_id"),
        ("categories", "category_id"),
        ("paymentmethods", "method_id"),
        ("promotions", "promotion_id"),
        ("weather", "weather_id"),
    ] {
        let ahead = format!(
            "SELECT nextval(pg_get_serial_sequence('{table}', '{key}')) - (SELECT max({key}) FROM {table})"
        );
        assert_eq!(shop.number(&ahead).await, 1, "{table}");
    }
}

#[tokio::test]
async fn a_bad_cell_is_named_by_file_line_and_column_and_nothing_is_loaded() {
    let (shop, data) = (Shop::empty().await, data());
    edit(&data, "customers.csv", |lines| {
        lines[2] = "4711,old,Other,1.00,Gold".into();
    });
    let error = load_into(&shop, data.path()).await.unwrap_err();
    let text = explain(&error);
    assert!(
        text.contains("customers.csv, line 3, column age: \"old\""),
        "{text}"
    );
    assert!(
        text.contains("invalid input syntax for type integer"),
        "{text}"
    );
    assert_eq!(shop.number("SELECT count(*) FROM stores").await, 0);
}

#[tokio::test]
async fn a_row_that_breaks_a_constraint_is_named_by_its_line() {
    let (shop, data) = (Shop::empty().await, data());
    edit(&data, "inventory.csv", |lines| lines[4] = "1,100,-1".into());
    let text = explain(&load_into(&shop, data.path()).await.unwrap_err());
    assert!(
        text.contains("inventory.csv, line 5") && text.contains("inventory_level_not_negative"),
        "{text}"
    );
}

#[tokio::test]
async fn a_key_that_stands_twice_in_a_file_is_named_by_its_line() {
    let (shop, data) = (Shop::empty().await, data());
    edit(&data, "stores.csv", |lines| lines.push(lines[1].clone()));
    let text = explain(&load_into(&shop, data.path()).await.unwrap_err());
    assert!(
        text.contains("stores.csv, line 7") && text.contains("duplicate key"),
        "{text}"
    );
}

#[tokio::test]
async fn a_row_that_names_nobody_is_an_error_with_its_key() {
    let (shop, data) = (Shop::empty().await, data());
    edit(&data, "transactiondetails.csv", |lines| {
        lines[1] = "1,4711,1".into();
    });
    let text = explain(&load_into(&shop, data.path()).await.unwrap_err());
    assert!(
        text.contains("transactiondetails.csv") && text.contains("(product_id)=(4711)"),
        "{text}"
    );
}

#[tokio::test]
async fn a_header_that_lacks_a_column_is_named() {
    let (shop, data) = (Shop::empty().await, data());
    edit(&data, "weather.csv", |lines| {
        lines[0] = "weather_id,sky".into();
    });
    let text = explain(&load_into(&shop, data.path()).await.unwrap_err());
    assert!(
        text.ends_with("weather.csv, line 1: the header has no column weather_conditions"),
        "{text}"
    );
}

#[tokio::test]
async fn a_file_that_is_missing_is_named() {
    let (shop, data) = (Shop::empty().await, data());
    fs::remove_file(data.path().join("promotions.csv")).unwrap();
    let text = explain(&load_into(&shop, data.path()).await.unwrap_err());
    assert!(text.contains("promotions.csv: No such file"), "{text}");
}

#[tokio::test]
async fn a_live_sale_with_the_id_of_a_row_is_not_mixed_with_it() {
    let (shop, data) = (Shop::open().await, data());
    let error = load_into(&shop, data.path()).await.unwrap_err();
    assert!(matches!(error, Error::OtherSale { id: 1, .. }), "{error}");
    shop.run(&sale("{1}", "{1}")).await;
    assert_eq!(
        shop.level(1, 1).await,
        9,
        "the trigger is on again after a load that failed"
    );
}

#[tokio::test]
async fn loading_without_the_schema_says_so() {
    let shop = Shop::empty().await;
    shop.run("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        .await;
    let text = explain(&load_into(&shop, data().path()).await.unwrap_err());
    assert!(text.contains("is the schema installed?"), "{text}");
}

const SALES: i64 = 2_000;

const SALE_OF_SOMETHING: &str = "
    DO $$
    DECLARE
        held record;
        buyer integer;
    BEGIN
        SELECT * INTO held FROM inventory WHERE inventory_level > 10 ORDER BY store_id, product_id LIMIT 1;
        SELECT min(customer_id) INTO buyer FROM customers;
        CALL insert_transaction('2025-06-01', buyer, held.store_id, 1, false, NULL, 1, false,
                                ARRAY[held.product_id], ARRAY[1]);
    END
    $$";

fn data() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    generate::generate(
        Plan {
            sales: 2_000,
            seed: 7,
        },
        directory.path(),
        |_| (),
    )
    .unwrap();
    directory
}

async fn load_into(shop: &Shop, directory: &Path) -> Result<Loaded, Error> {
    Box::pin(load(&shop.config(), directory, &mut |_| ())).await
}

fn edit(data: &TempDir, file: &str, change: impl FnOnce(&mut Vec<String>)) {
    let path = data.path().join(file);
    let mut lines: Vec<String> = fs::read_to_string(&path)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    change(&mut lines);
    fs::write(path, lines.join("\n") + "\n").unwrap();
}

fn sum_of_column(file: &Path, column: usize) -> i64 {
    let text = fs::read_to_string(file).unwrap();
    text.lines()
        .skip(1)
        .map(|line| line.split(',').nth(column).unwrap().parse::<i64>().unwrap())
        .sum()
}
