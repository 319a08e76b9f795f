//! Generated files are like the published ones, and the same each time.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use walferry_retail::generate::{self, Plan};
use walferry_retail::load::load;

use crate::shop::{Shop, published};

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_does_not() {
    let [first, again, other] =
        [(3_000, 1), (3_000, 1), (3_000, 2)].map(|(sales, seed)| files(sales, seed));
    assert_eq!(first.len(), 12);
    assert!(first == again);
    assert!(first["transactions.csv"] != other["transactions.csv"]);
}

#[test]
fn a_seed_gives_what_it_gave_in_earlier_releases() {
    let files = files(3_000, 1);
    let last = |file: &str| files[file].lines().last().unwrap();
    assert_eq!(
        last("transactions.csv"),
        "3000,2025-04-27 11:55:25.651582,1001,5,1,f,,1,f"
    );
    assert_eq!(last("customers.csv"), "3900,27,Female,111145.79,Bronze");
    assert_eq!(
        last("products.csv"),
        "619,Washing Machine,1,334,1061.67,73,159"
    );
}

#[test]
fn headers_are_those_of_the_published_files() {
    let Some(directory) = published() else { return };
    for (file, text) in files(1, 1) {
        let published = fs::read_to_string(directory.join(&file)).unwrap();
        assert_eq!(text.lines().next(), published.lines().next(), "{file}");
    }
}

#[test]
fn as_many_sales_as_published_give_about_as_many_rows_as_published() {
    let files = files(5_006, 1);
    for (file, rows, tolerance) in [
        ("transactions.csv", 5_006, 0),
        ("transactiondetails.csv", 5_011, 2),
        ("inventory.csv", 3_028, 100),
        ("customers.csv", 3_848, 120),
        ("products.csv", 898, 6),
        ("demandforecast.csv", 4_986, 15),
        ("promotionapplications.csv", 813, 100),
        ("stores.csv", 5, 0),
        ("weather.csv", 4, 0),
        ("paymentmethods.csv", 4, 0),
        ("categories.csv", 2, 0),
        ("promotions.csv", 2, 0),
    ] {
        let generated = files[file].lines().count() - 1;
        assert!(
            generated.abs_diff(rows) <= tolerance,
            "{file}: {generated} rows, {rows} are published"
        );
    }
}

#[test]
fn a_tenfold_of_sales_has_as_many_customers_who_come_again() {
    let text = &files(50_000, 3)["transactions.csv"];
    let mut sales = BTreeMap::<&str, u32>::new();
    for line in text.lines().skip(1) {
        *sales.entry(line.split(',').nth(2).unwrap()).or_default() += 1;
    }
    let again = sales.values().filter(|count| **count > 1).count();
    let percent = again * 100 / sales.len();
    assert!(
        (22..=29).contains(&percent),
        "{percent} % buy again, 25 % of the published customers do"
    );
}

#[tokio::test]
async fn generated_rows_keep_the_invariants_of_the_published_ones() {
    let directory = tempfile::tempdir().unwrap();
    generate::generate(
        Plan {
            sales: 10_000,
            seed: 11,
        },
        directory.path(),
        |_| (),
    )
    .unwrap();
    let shop = Shop::empty().await;
    Box::pin(load(&shop.config(), directory.path(), &mut |_| ()))
        .await
        .unwrap();
    for (what, query) in [
        ("sold but not stocked", "SELECT count(*) FROM transactiondetails JOIN transactions USING (transaction_id)
            LEFT JOIN inventory USING (store_id, product_id) WHERE inventory_level IS NULL"),
        ("stocked but never sold", "SELECT count(*) FROM inventory WHERE NOT EXISTS (
            SELECT FROM transactiondetails JOIN transactions USING (transaction_id)
             WHERE transactions.store_id = inventory.store_id AND product_id = inventory.product_id)"),
        ("a sale without lines", "SELECT count(*) FROM transactions LEFT JOIN transactiondetails USING (transaction_id)
            WHERE product_id IS NULL"),
        ("a customer who never bought", "SELECT count(*) FROM customers LEFT JOIN transactions USING (customer_id)
            WHERE transaction_id IS NULL"),
        ("an application of another promotion", "SELECT count(*) FROM promotionapplications AS applied
            JOIN transactions USING (transaction_id)
            WHERE NOT promotion_applied OR transactions.promotion_id IS DISTINCT FROM applied.promotion_id"),
        ("a quantity out of 1 to 5", "SELECT count(*) FROM transactiondetails WHERE quantity NOT BETWEEN 1 AND 5"),
        ("a price out of range", "SELECT count(*) FROM products WHERE unit_price NOT BETWEEN 50 AND 2000"),
        ("a level out of range", "SELECT count(*) FROM inventory WHERE inventory_level NOT BETWEEN 0 AND 500"),
    ] {
        assert_eq!(shop.number(query).await, 0, "{what}");
    }
    for (what, query) in [
        (
            "applied without a promotion",
            "promotion_applied AND promotion_id IS NULL",
        ),
        (
            "a promotion that was not applied",
            "NOT promotion_applied AND promotion_id IS NOT NULL",
        ),
        (
            "applied, but without its row",
            "promotion_applied AND promotion_id IS NOT NULL AND NOT EXISTS (
            SELECT FROM promotionapplications WHERE transaction_id = transactions.transaction_id)",
        ),
    ] {
        let found = shop
            .number(&format!("SELECT count(*) FROM transactions WHERE {query}"))
            .await;
        assert!(found > 0, "the source's inconsistency is missing: {what}");
    }
}

#[tokio::test]
async fn a_single_sale_loads() {
    let directory = tempfile::tempdir().unwrap();
    generate::generate(Plan { sales: 1, seed: 5 }, directory.path(), |_| ()).unwrap();
    let shop = Shop::empty().await;
    Box::pin(load(&shop.config(), directory.path(), &mut |_| ()))
        .await
        .unwrap();
    assert_eq!(shop.number("SELECT count(*) FROM transactions").await, 1);
}

/// Name and text of each generated file.
fn files(sales: u32, seed: u64) -> BTreeMap<String, String> {
    let directory = tempfile::tempdir().unwrap();
    generate::generate(Plan { sales, seed }, directory.path(), |_| ()).unwrap();
    fs::read_dir(directory.path())
        .unwrap()
        .map(|file| read(&file.unwrap().path()))
        .collect()
}

fn read(path: &Path) -> (String, String) {
    (
        path.file_name().unwrap().to_string_lossy().into_owned(),
        fs::read_to_string(path).unwrap(),
    )
}
