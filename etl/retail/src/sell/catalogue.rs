//! What there is to sell, and who buys.

use std::sync::atomic::{AtomicI32, Ordering};

use tokio_postgres::Client;

use crate::Error;

/// Enough customers for any demo; a million need not be held.
const CUSTOMERS: i64 = 100_000;
const READING: &str = "reading what there is to sell";

/// Everything a sale is drawn from. Each list but the promotions has at least one entry.
#[derive(Debug)]
pub(super) struct Catalogue {
    pub(super) stores: Vec<Store>,
    pub(super) customers: Vec<i32>,
    pub(super) payment_methods: Vec<i32>,
    pub(super) promotions: Vec<i32>,
    pub(super) weather: Vec<i32>,
}

/// A store that holds something.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) id: i32,
    pub(super) shelves: Vec<Shelf>,
}

/// A product in a store.
#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) product_id: i32,
    /// How many come when it is restocked.
    pub(super) reorder_quantity: i32,
    /// What we believe it holds: others may sell too, so it tells only when to look.
    level: AtomicI32,
}

// === impl Catalogue ===

impl Catalogue {
    pub(super) async fn read(client: &Client) -> Result<Self, Error> {
        // Customers are taken from past sales: a store may not list the chain's customers.
        let customers = format!(
            "SELECT DISTINCT customer_id FROM (SELECT customer_id FROM transactions LIMIT {CUSTOMERS}) AS sales
              ORDER BY customer_id"
        );
        let catalogue = Self {
            stores: stores(client).await?,
            customers: ids(client, &customers).await?,
            payment_methods: ids(client, "SELECT method_id FROM paymentmethods ORDER BY 1").await?,
            promotions: ids(client, "SELECT promotion_id FROM promotions ORDER BY 1").await?,
            weather: ids(client, "SELECT weather_id FROM weather ORDER BY 1").await?,
        };
        let missing = [
            ("inventory", catalogue.stores.is_empty()),
            (
                "customer of an earlier sale",
                catalogue.customers.is_empty(),
            ),
            ("payment method", catalogue.payment_methods.is_empty()),
            ("weather", catalogue.weather.is_empty()),
        ];
        match missing.into_iter().find(|(_, is_missing)| *is_missing) {
            Some((missing, _)) => Err(Error::NothingToSell { missing }),
            None => Ok(catalogue),
        }
    }
}

// === impl Shelf ===

impl Shelf {
    /// Takes from what we believe it holds and tells what is left.
    pub(super) fn take(&self, quantity: i32) -> i32 {
        self.level.fetch_sub(quantity, Ordering::Relaxed) - quantity
    }

    pub(super) fn learn(&self, level: i32) {
        self.level.store(level, Ordering::Relaxed);
    }
}

async fn stores(client: &Client) -> Result<Vec<Store>, Error> {
    let rows = client
        .query(
            "SELECT inventory.store_id, product_id, inventory_level, coalesce(reorder_quantity, 100)
               FROM inventory JOIN products USING (product_id)
              ORDER BY store_id, product_id",
            &[],
        )
        .await
        .map_err(Error::database(READING))?;
    let mut stores: Vec<Store> = Vec::new();
    for row in rows {
        let id = row.get(0);
        let shelf = Shelf {
            product_id: row.get(1),
            level: AtomicI32::new(row.get(2)),
            reorder_quantity: row.get(3),
        };
        match stores.last_mut() {
            Some(store) if store.id == id => store.shelves.push(shelf),
            _ => stores.push(Store {
                id,
                shelves: vec![shelf],
            }),
        }
    }
    Ok(stores)
}

async fn ids(client: &Client, query: &str) -> Result<Vec<i32>, Error> {
    let rows = client
        .query(query, &[])
        .await
        .map_err(Error::database(READING))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
