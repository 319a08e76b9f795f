//! One connection that sells.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use tokio::time::sleep_until;
use tokio_postgres::Statement;
use tokio_util::sync::CancellationToken;

use crate::{Error, Session};

use super::catalogue::{Catalogue, Store};
use super::counts::Counts;
use super::sale::{Line, Sale};
use super::{Plan, Schedule};

/// Below this a product is restocked. More than any line of a sale takes, so a product that was refused is restocked
/// too; far below the usual reorder points, so that there stays something to reorder.
const LOW: i32 = 10;
/// `insert_transaction`'s own SQLSTATE.
const NOT_ENOUGH_STOCK: &str = "RT001";

pub(super) struct Clerk {
    session: Session,
    call: Statement,
    restock: Statement,
    level: Statement,
    seed: u64,
    catalogue: Arc<Catalogue>,
    counts: Arc<Counts>,
}

// === impl Clerk ===

impl Clerk {
    pub(super) async fn connect(
        plan: &Plan,
        catalogue: Arc<Catalogue>,
        counts: Arc<Counts>,
    ) -> Result<Self, Error> {
        let session = Session::connect(&plan.database).await?;
        let client = session.client();
        let preparing = "preparing to sell (is the schema installed?)";
        let call = client
            .prepare("CALL insert_transaction($1::timestamp, $2, $3, $4, $5, $6, $7, $8, $9, $10)")
            .await
            .map_err(Error::database(preparing))?;
        let restock = client
            .prepare(
                "UPDATE inventory SET inventory_level = inventory_level + $3
                  WHERE store_id = $1 AND product_id = $2 AND inventory_level < $4",
            )
            .await
            .map_err(Error::database(preparing))?;
        let level = client
            .prepare(
                "SELECT inventory_level FROM inventory WHERE store_id = $1 AND product_id = $2",
            )
            .await
            .map_err(Error::database(preparing))?;
        Ok(Self {
            session,
            call,
            restock,
            level,
            seed: plan.seed,
            catalogue,
            counts,
        })
    }

    pub(super) async fn sell(
        self,
        schedule: Schedule,
        stop: CancellationToken,
    ) -> Result<(), Error> {
        loop {
            let nth = self.counts.draw();
            let Some(due) = schedule.due(nth) else {
                return Ok(());
            };
            tokio::select! {
                biased;
                // 1. Stop before the next sale, never within one.
                () = stop.cancelled() => return Ok(()),
                // 2. Due at once when we are behind.
                () = sleep_until(due) => {}
            }
            let sale = Sale::draw(&self.catalogue, self.seed, nth);
            self.make(&sale).await?;
        }
    }

    async fn make(&self, sale: &Sale<'_>) -> Result<(), Error> {
        let is_sold = self.call(sale).await?;
        let count = if is_sold {
            &self.counts.sold
        } else {
            &self.counts.refused
        };
        count.fetch_add(1, Ordering::Relaxed);
        for line in &sale.lines {
            let is_low = is_sold && line.shelf.take(line.quantity) < LOW;
            if is_low || !is_sold {
                self.look_after(sale.store, line).await?;
            }
        }
        Ok(())
    }

    /// Whether it was sold; `false` when the store holds too little.
    async fn call(&self, sale: &Sale<'_>) -> Result<bool, Error> {
        let outcome = self
            .session
            .client()
            .execute(
                &self.call,
                &[
                    &SystemTime::now(),
                    &sale.customer_id,
                    &sale.store.id,
                    &sale.payment_method_id,
                    &sale.promotion_applied,
                    &sale.promotion_id,
                    &sale.weather_id,
                    &sale.stockout,
                    &sale.product_ids(),
                    &sale.quantities(),
                ],
            )
            .await;
        match outcome {
            Ok(_) => Ok(true),
            Err(error)
                if error
                    .code()
                    .is_some_and(|state| state.code() == NOT_ENOUGH_STOCK) =>
            {
                Ok(false)
            }
            Err(source) => Err(Error::Database {
                doing: "selling",
                source,
            }),
        }
    }

    /// Restocks a product that is low and learns what it holds. Of several who look after it at once one restocks.
    async fn look_after(&self, store: &Store, line: &Line<'_>) -> Result<(), Error> {
        let (client, shelf) = (self.session.client(), line.shelf);
        let restocked = client
            .execute(
                &self.restock,
                &[&store.id, &shelf.product_id, &shelf.reorder_quantity, &LOW],
            )
            .await
            .map_err(Error::database("restocking"))?;
        self.counts
            .restocked
            .fetch_add(restocked, Ordering::Relaxed);
        let level = client
            .query_opt(&self.level, &[&store.id, &shelf.product_id])
            .await
            .map_err(Error::database("reading a level"))?;
        if let Some(level) = level {
            shelf.learn(level.get(0));
        }
        Ok(())
    }
}
