//! What change data capture sees.

use crate::shop::{Shop, number, refusal, sale};

#[tokio::test]
async fn a_sale_of_two_products_is_five_row_changes_in_one_wal_transaction() {
    let shop = Shop::open().await;
    let slot = Slot::create(&shop).await;
    shop.run(&sale("{2,1}", "{1,1}")).await;
    assert_eq!(
        slot.changes(&shop).await,
        [
            "BEGIN",
            "transactions: INSERT",
            "transactiondetails: INSERT",
            "transactiondetails: INSERT",
            "inventory: UPDATE",
            "inventory: UPDATE",
            "COMMIT",
        ]
    );
    slot.drop(&shop).await;
}

#[tokio::test]
async fn an_applied_promotion_is_a_sixth_row_change() {
    let shop = Shop::open().await;
    let slot = Slot::create(&shop).await;
    shop.run("CALL insert_transaction('2024-05-01', 1, 1, 1, true, 1, 1, false, '{1,2}', '{1,1}')")
        .await;
    let changes = slot.changes(&shop).await;
    assert_eq!(changes.len(), 8);
    assert!(
        changes.contains(&"promotionapplications: INSERT".to_owned()),
        "{changes:?}"
    );
    slot.drop(&shop).await;
}

#[tokio::test]
async fn a_refused_sale_is_no_change() {
    let shop = Shop::open().await;
    let slot = Slot::create(&shop).await;
    refusal(shop.client(), &sale("{1}", "{11}")).await;
    assert_eq!(slot.changes(&shop).await, [""; 0]);
    slot.drop(&shop).await;
}

#[tokio::test]
async fn the_publication_covers_all_tables() {
    let shop = Shop::empty().await;
    let published =
        "SELECT count(*) FROM pg_publication_tables WHERE pubname = 'walmart_publication'";
    assert_eq!(shop.number(published).await, 13);
    shop.run("CREATE TABLE later (id int PRIMARY KEY)").await;
    assert_eq!(shop.number(published).await, 14);
}

#[tokio::test]
async fn the_replication_role_reads_every_store_and_writes_nothing() {
    let shop = Shop::open().await;
    let attributes =
        "SELECT concat_ws(' ', rolreplication, rolbypassrls, rolsuper, rolcreaterole, rolcreatedb)
                        FROM pg_roles WHERE rolname = 'walferry'";
    assert_eq!(shop.text(attributes).await, "t t f f f");
    let walferry = shop.login("walferry").await;
    assert_eq!(
        number(&walferry, "SELECT count(*) FROM transactions").await,
        2
    );
    assert_eq!(number(&walferry, "SELECT count(*) FROM customers").await, 2);
    for statement in [
        "UPDATE inventory SET inventory_level = 1",
        "DELETE FROM stores",
        &sale("{1}", "{1}"),
    ] {
        assert_eq!(
            refusal(walferry.client(), statement).await.0,
            "42501",
            "{statement}"
        );
    }
    shop.run("CREATE TABLE later (id int PRIMARY KEY)").await;
    assert_eq!(
        number(&walferry, "SELECT count(*) FROM later").await,
        0,
        "tables made later are readable too"
    );
}

struct Slot(String);

impl Slot {
    async fn create(shop: &Shop) -> Self {
        let name = walferry_harness::unique("slot");
        shop.run(&format!(
            "SELECT pg_create_logical_replication_slot('{name}', 'test_decoding')"
        ))
        .await;
        Self(name)
    }

    /// BEGIN, COMMIT, and table and operation of each row between.
    async fn changes(&self, shop: &Shop) -> Vec<String> {
        let query = format!(
            "SELECT data FROM pg_logical_slot_get_changes('{}', NULL, NULL)",
            self.0
        );
        let rows = shop.client().query(&query, &[]).await.unwrap();
        rows.iter().map(|row| shortened(row.get(0))).collect()
    }

    async fn drop(self, shop: &Shop) {
        shop.run(&format!("SELECT pg_drop_replication_slot('{}')", self.0))
            .await;
    }
}

/// `table public.inventory: UPDATE: …` becomes `inventory: UPDATE`, `BEGIN 731` becomes `BEGIN`.
fn shortened(change: &str) -> String {
    match change.strip_prefix("table public.") {
        Some(row) => row
            .splitn(3, ": ")
            .take(2)
            .collect::<Vec<_>>()
            .join(": ")
            .trim_end_matches(':')
            .to_owned(),
        None => change.split(' ').next().unwrap_or_default().to_owned(),
    }
}
