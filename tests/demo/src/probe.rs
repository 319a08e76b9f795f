//! A sale of the demo's own, and how long after its commit MongoDB shows it.

use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use mongodb::{Client as MongoClient, Collection};
use tokio_postgres::Client;

use crate::error::Result;
use crate::machines::Machines;
use crate::pipeline::{DATABASE, TARGET};

/// One unit of what is best in stock, so that it is refused only when everything is sold out.
const SALE: &str = "
do $$
declare sale record;
begin
  select store_id, product_id, (select min(customer_id) from customers) as customer_id,
      (select min(method_id) from paymentmethods) as method_id, (select min(weather_id) from weather) as weather_id
    into sale from inventory order by inventory_level desc limit 1;
  call insert_transaction(localtimestamp(3)::timestamp, sale.customer_id, sale.store_id, sale.method_id,
    false, null, sale.weather_id, false, array[sale.product_id], array[1]);
end $$";
/// The id that this session's last sale was given.
const SOLD: &str = "select currval(pg_get_serial_sequence('transactions', 'transaction_id'))::int";
const LOOK_AGAIN: Duration = Duration::from_micros(500);

/// A customer who buys one thing at a time and then looks for it in MongoDB.
#[derive(Debug)]
pub(crate) struct Probe {
    postgres: Client,
    transactions: Collection<Document>,
}

impl Probe {
    pub(crate) async fn new(machines: &Machines) -> Result<Self> {
        let mongo: MongoClient = machines.mongo.client().await?;
        let transactions = mongo.database(TARGET).collection("transactions");
        Ok(Self {
            postgres: machines.postgres.connect(DATABASE).await?,
            transactions,
        })
    }

    /// Sells, and measures from the commit until MongoDB shows the sale; `None` when it still does not after
    /// `timeout`.
    pub(crate) async fn measure(&mut self, timeout: Duration) -> Result<Option<Duration>> {
        let transaction = self.postgres.transaction().await?;
        transaction.batch_execute(SALE).await?;
        let id: i32 = transaction.query_one(SOLD, &[]).await?.get(0);
        transaction.commit().await?;
        let committed = Instant::now();
        while committed.elapsed() < timeout {
            if self.shows(id).await? {
                return Ok(Some(committed.elapsed()));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(None)
    }

    async fn shows(&self, id: i32) -> Result<bool> {
        Ok(self
            .transactions
            .find_one(doc! { "_id": id })
            .projection(doc! { "_id": 1 })
            .await?
            .is_some())
    }
}
