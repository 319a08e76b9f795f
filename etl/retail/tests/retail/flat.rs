//! The flat file of sales into the database.

use std::fs;
use std::path::PathBuf;

use futures_util::TryStreamExt;
use tempfile::TempDir;
use walferry_retail::load::{Loaded, load};
use walferry_retail::{Error, explain, generate};

use crate::shop::Shop;

const HEADER: &str = "transaction_id,customer_id,product_id,product_name,category,quantity_sold,unit_price,\
    transaction_date,store_id,store_location,inventory_level,reorder_point,reorder_quantity,supplier_id,\
    supplier_lead_time,customer_age,customer_gender,customer_income,customer_loyalty_level,payment_method,\
    promotion_applied,promotion_type,weather_conditions,holiday_indicator,weekday,stockout_indicator,\
    forecasted_demand,actual_demand";

/// A sale of two lines, three more sales, and after them a line for each reason to leave one out.
const LINES: [&str; 10] = [
    "1,7,10,Fridge,Electronics,2,100.50,3/31/2024 21:46,1,\"Miami, FL\",20,5,50,70,3,29,Other,50000.00,Gold,Cash,True,BOGO,Rainy,False,Sunday,False,100,90",
    "1,7,11,TV,Electronics,1,900.00,3/31/2024 21:46,1,\"Miami, FL\",30,5,50,70,3,29,Other,50000.00,Gold,Cash,True,BOGO,Rainy,False,Sunday,False,50,60",
    "2,8,10,Fridge,Appliances,1,99.00,2024-04-01 10:00,2,\"Dallas, TX\",40,5,50,71,4,30,Male,,Silver,Card,True,None,Sunny,False,Monday,True,,",
    "3,7,10,Fridge,Electronics,3,100.50,2024-04-02 10:00,1,\"Miami, FL\",15,5,50,70,3,30,Other,50000.00,Gold,Card,False,,Rainy,False,Tuesday,False,100,90",
    "4,8,11,TV,Electronics,1,900.00,2024-04-02 11:00,2,\"Dallas, TX\",8,5,50,70,3,30,Male,,Silver,Cash,False,,,False,Tuesday,False,10,10",
    "5,,10,Fridge,Electronics,1,100.50,2024-04-02 10:00,1,\"Miami, FL\",15,5,50,70,3,30,Other,1.00,Gold,Card,False,,Rainy,False,Tuesday,False,100,90",
    "6,7,10,Fridge,Electronics,-1,100.50,2024-04-02 10:00,1,\"Miami, FL\",15,5,50,70,3,30,Other,1.00,Gold,Card,False,,Rainy,False,Tuesday,False,100,90",
    "7,7,10,Fridge,Electronics,1,100.50,2024-04-02 10:00,1,\"Miami, FL\",-15,5,50,70,3,30,Other,1.00,Gold,Card,False,,Rainy,False,Tuesday,False,100,90",
    "1,8,12,Camera,Electronics,1,10.00,3/31/2024 21:46,1,\"Miami, FL\",15,5,50,70,3,30,Male,1.00,Gold,Cash,False,,Rainy,False,Sunday,False,100,90",
    "1,7,10,Fridge,Electronics,4,100.50,3/31/2024 21:46,1,\"Miami, FL\",15,5,50,70,3,29,Other,1.00,Gold,Cash,True,BOGO,Rainy,False,Sunday,False,100,90",
];

/// All that the tables say, as the flat file would.
const FLAT: &str = "
    COPY (SELECT t.transaction_id, t.customer_id, d.product_id, p.product_name, c.category_name AS category,
                 d.quantity AS quantity_sold, coalesce(d.unit_price, p.unit_price) AS unit_price, t.transaction_date,
                 t.store_id, s.location AS store_location, i.inventory_level, p.reorder_point, p.reorder_quantity,
                 p.supplier_id, u.lead_time AS supplier_lead_time, k.age AS customer_age, k.gender AS customer_gender,
                 k.income AS customer_income, k.loyalty_level AS customer_loyalty_level,
                 m.method_name AS payment_method, t.promotion_applied, o.promotion_type, w.weather_conditions,
                 NULL AS holiday_indicator, to_char(t.transaction_date, 'Day') AS weekday,
                 t.stockout AS stockout_indicator, f.forecasted_demand, f.actual_demand
            FROM transactions t JOIN transactiondetails d USING (transaction_id) JOIN products p USING (product_id)
            JOIN categories c USING (category_id) LEFT JOIN suppliers u USING (supplier_id)
            JOIN stores s USING (store_id) JOIN customers k USING (customer_id)
            JOIN inventory i ON i.store_id = t.store_id AND i.product_id = d.product_id
            JOIN paymentmethods m ON m.method_id = t.payment_method_id
            LEFT JOIN promotions o USING (promotion_id) LEFT JOIN weather w USING (weather_id)
            LEFT JOIN demandforecast f ON f.store_id = t.store_id AND f.product_id = d.product_id
                                      AND f.forecast_date = t.transaction_date::date
           ORDER BY t.transaction_id, d.product_id) TO STDOUT WITH (FORMAT csv, HEADER true)";

#[tokio::test]
async fn a_flat_file_becomes_the_tables_and_says_what_it_left_out_and_why() {
    let (shop, directory) = (Shop::empty().await, tempfile::tempdir().unwrap());
    let loaded = load_lines(&shop, &directory, &LINES).await.unwrap();
    let dropped: Vec<_> = loaded
        .dropped
        .iter()
        .map(|it| {
            (
                it.reason.split(' ').next().unwrap(),
                it.lines,
                it.first_line,
            )
        })
        .collect();
    let expected = [
        ("an", 1, 7),
        ("a", 1, 8),
        ("a", 1, 9),
        ("another", 1, 10),
        ("a", 1, 11),
    ];
    assert_eq!(dropped, expected, "{loaded}");
    let rows: Vec<_> = loaded
        .tables
        .iter()
        .map(|it| (it.table, it.inserted, it.different))
        .collect();
    let expected = [
        ("categories", 2, 0),
        ("paymentmethods", 2, 0),
        ("promotions", 1, 0),
        ("weather", 2, 0),
        ("suppliers", 2, 0),
        ("products", 2, 1),
        ("stores", 2, 0),
        ("customers", 2, 1),
        ("inventory", 4, 1),
        ("demandforecast", 4, 0),
        ("transactions", 4, 0),
        ("transactiondetails", 5, 0),
        ("promotionapplications", 1, 0),
    ];
    assert_eq!(rows, expected, "{loaded}");
    let price = "SELECT string_agg(unit_price::text, ' ' ORDER BY transaction_id, product_id) FROM transactiondetails";
    assert_eq!(shop.text(price).await, "100.50 900.00 99.00 100.50 900.00");
    let level = shop.level(1, 10).await;
    assert_eq!(level, 20, "the first line holds, and history takes nothing");
}

#[tokio::test]
async fn loading_a_flat_file_twice_is_loading_it_once() {
    let (shop, directory) = (Shop::empty().await, tempfile::tempdir().unwrap());
    let first = load_lines(&shop, &directory, &LINES).await.unwrap();
    let once = flat(&shop).await;
    let second = load_lines(&shop, &directory, &LINES).await.unwrap();
    assert_eq!(flat(&shop).await, once);
    assert_eq!(second.dropped, first.dropped);
    for (first, second) in first.tables.iter().zip(&second.tables) {
        let expected = (first.read, 0, first.different);
        let found = (second.read, second.inserted, second.different);
        assert_eq!(found, expected, "{}", first.table);
    }
}

#[tokio::test]
async fn what_was_loaded_as_twelve_files_is_the_same_by_way_of_a_flat_one() {
    let directory = tempfile::tempdir().unwrap();
    let plan = generate::Plan {
        sales: 1_000,
        seed: 9,
    };
    generate::generate(plan, directory.path(), |_| {}).unwrap();
    let whole = Shop::empty().await;
    load(&whole.config(), directory.path(), &mut |_| {})
        .await
        .unwrap();
    let expected = flat(&whole).await;
    let file = directory.path().join("sales.csv");
    fs::write(&file, &expected).unwrap();

    let shop = Shop::empty().await;
    let loaded = load(&shop.config(), &file, &mut |_| {}).await.unwrap();
    assert_eq!(loaded.dropped, []);
    assert!(loaded.tables.iter().all(|it| it.different == 0), "{loaded}");
    assert_eq!(flat(&shop).await, expected);
    for table in ["promotionapplications", "demandforecast", "inventory"] {
        let count = format!("SELECT count(*) FROM {table}");
        assert_eq!(shop.number(&count).await, whole.number(&count).await);
    }
}

#[tokio::test]
async fn a_mistake_in_a_flat_file_is_named_with_its_line_and_nothing_is_loaded() {
    let (shop, directory) = (Shop::empty().await, tempfile::tempdir().unwrap());
    let broken = LINES[1].replace("900.00", "much");
    let error = load_lines(&shop, &directory, &[LINES[0], &broken])
        .await
        .unwrap_err();
    let text = explain(&error);
    assert!(
        text.contains("sales.csv, line 3, column unit_price: \"much\""),
        "{text}"
    );
    assert_eq!(shop.number("SELECT count(*) FROM products").await, 0);
    let file = directory.path().join("sales.csv");
    fs::write(&file, "transaction_id,customer_id\n1,2\n").unwrap();
    let error = load(&shop.config(), &file, &mut |_| {}).await.unwrap_err();
    assert!(explain(&error).ends_with("line 1: the header has no column product_id"));
}

#[tokio::test]
async fn a_sale_that_the_database_knows_otherwise_is_refused() {
    let (shop, directory) = (Shop::open().await, tempfile::tempdir().unwrap());
    let error = load_lines(&shop, &directory, &LINES).await.unwrap_err();
    assert!(matches!(error, Error::OtherSale { id: 1, .. }), "{error:?}");
}

async fn load_lines(shop: &Shop, directory: &TempDir, lines: &[&str]) -> Result<Loaded, Error> {
    let file: PathBuf = directory.path().join("sales.csv");
    fs::write(&file, format!("{HEADER}\n{}\n", lines.join("\n"))).unwrap();
    load(&shop.config(), &file, &mut |_| {}).await
}

async fn flat(shop: &Shop) -> String {
    let copied = shop.client().copy_out(FLAT).await.unwrap();
    let parts: Vec<bytes::Bytes> = copied.try_collect().await.unwrap();
    String::from_utf8(parts.concat()).unwrap()
}
