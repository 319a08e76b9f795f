//! A database of its own for each test, on one private server for all of them.

use std::path::PathBuf;

use tokio::sync::OnceCell;
use tokio_postgres::{Client, Config};
use walferry_harness::{Postgres, fresh_directory, project_root, unique};
use walferry_retail::{Session, parse_url, schema};

/// Two stores, three products, two customers. Store 1 holds 10 of product 1 and 20 of product 2, store 2 holds 5 of
/// product 1. Each store has one sale with a promotion, and one forecast.
const LITTLE_DATA: &str = "
    INSERT INTO categories (category_name) VALUES ('Electronics');
    INSERT INTO suppliers (supplier_id) VALUES (1);
    INSERT INTO products VALUES (1, 'TV', 1, 1, 100.50, 5, 50), (2, 'Laptop', 1, 1, 900.00, 5, 50),
                                (3, 'Camera', 1, 1, 300.00, 5, 50);
    INSERT INTO stores VALUES (1, 'Miami, FL'), (2, 'Dallas, TX');
    INSERT INTO customers VALUES (1, 30, 'Other', 50000, 'Gold'), (2, 40, 'Other', 60000, 'Silver');
    INSERT INTO paymentmethods (method_name) VALUES ('Cash');
    INSERT INTO promotions (promotion_type) VALUES ('BOGO');
    INSERT INTO weather (weather_conditions) VALUES ('Sunny');
    INSERT INTO inventory VALUES (1, 1, 11), (1, 2, 20), (2, 1, 6);
    INSERT INTO demandforecast VALUES ('2024-01-01', 1, 1, 100, 90), ('2024-01-01', 2, 1, 100, 90);
    CALL insert_transaction('2024-01-01', 1, 1, 1, true, 1, 1, false, '{1}', '{1}');
    CALL insert_transaction('2024-01-01', 2, 2, 1, true, 1, 1, false, '{1}', '{1}');
    CALL create_store_roles();
";

pub(crate) struct Shop {
    url: String,
    /// The superuser's session.
    pub(crate) session: Session,
}

impl Shop {
    /// The schema and nothing in it.
    pub(crate) async fn empty() -> Self {
        let name = unique("shop");
        let server = server().await;
        let everywhere = server.connect("postgres").await.unwrap();
        everywhere
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .await
            .unwrap();
        let url = server.url_of(&name);
        schema::install(&parse_url(&url).unwrap()).await.unwrap();
        let session = Session::connect(&parse_url(&url).unwrap()).await.unwrap();
        Self { url, session }
    }

    /// The schema and [`LITTLE_DATA`].
    pub(crate) async fn open() -> Self {
        let shop = Self::empty().await;
        shop.run(LITTLE_DATA).await;
        shop
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn config(&self) -> Config {
        self.config_of("postgres")
    }

    pub(crate) fn config_of(&self, role: &str) -> Config {
        let mut config = parse_url(&self.url).unwrap();
        config.user(role);
        config
    }

    pub(crate) fn client(&self) -> &Client {
        self.session.client()
    }

    /// A session that logged in as the role.
    pub(crate) async fn login(&self, role: &str) -> Session {
        Session::connect(&self.config_of(role)).await.unwrap()
    }

    pub(crate) async fn run(&self, sql: &str) {
        self.client().batch_execute(sql).await.unwrap();
    }

    /// The number that a query gives.
    pub(crate) async fn number(&self, query: &str) -> i64 {
        number(&self.session, query).await
    }

    pub(crate) async fn text(&self, query: &str) -> String {
        let query = format!("SELECT ({query})::text");
        self.client().query_one(&query, &[]).await.unwrap().get(0)
    }

    pub(crate) async fn level(&self, store: i32, product: i32) -> i64 {
        self.number(&format!(
            "SELECT inventory_level FROM inventory WHERE store_id = {store} AND product_id = {product}"
        ))
        .await
    }
}

pub(crate) async fn number(session: &Session, query: &str) -> i64 {
    let query = format!("SELECT ({query})::bigint");
    session
        .client()
        .query_one(&query, &[])
        .await
        .unwrap()
        .get(0)
}

/// A sale of store 1 to customer 1 without a promotion.
pub(crate) fn sale(product_ids: &str, quantities: &str) -> String {
    format!(
        "CALL insert_transaction('2024-05-01 10:00', 1, 1, 1, false, NULL, 1, false, '{product_ids}', '{quantities}')"
    )
}

/// SQLSTATE and message of a statement that must fail.
pub(crate) async fn refusal(client: &Client, sql: &str) -> (String, String) {
    let error = client
        .batch_execute(sql)
        .await
        .expect_err("the statement should be refused");
    let error = error.as_db_error().expect("the server refuses it");
    (error.code().code().to_owned(), error.message().to_owned())
}

/// The published data, where this machine has it.
pub(crate) fn published() -> Option<PathBuf> {
    let directory = project_root().join("../shared/data/walmart");
    if directory.is_dir() {
        return Some(directory);
    }
    println!("skipped: the published data is not on this machine");
    None
}

async fn server() -> &'static Postgres {
    static SERVER: OnceCell<Postgres> = OnceCell::const_new();
    SERVER
        .get_or_init(async || {
            Postgres::start(&fresh_directory("retail").unwrap().keep())
                .await
                .unwrap()
        })
        .await
}
