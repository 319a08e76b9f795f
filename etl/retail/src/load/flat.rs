//! The flat file of sales: a line for each product of a sale, taken apart into the tables.
//!
//! - Of each key the first line of the file holds, unless the database has it already; a line that says otherwise is
//!   counted.
//! - A line that is no sale is left out, and counted by why.
//! - The price of a line is kept as the price of that sale.

mod part;

use std::path::Path;

use tokio_postgres::Transaction;

use crate::Error;
use crate::table::FLAT;

use super::stage::{Staged, copy};
use super::{Advance, Dropped, Rows, refuse_other_sales};

use part::{PARTS, Part};

/// The line counts from 2, as an editor counts below the header.
const STAGED: &str = "
    SET LOCAL datestyle TO 'ISO, MDY';
    CREATE TEMPORARY TABLE staged_flat (
        line bigint GENERATED ALWAYS AS IDENTITY (START WITH 2) PRIMARY KEY,
        transaction_id integer, customer_id integer, product_id integer, product_name text, category text,
        quantity_sold integer, unit_price numeric(10,2), transaction_date timestamp, store_id integer,
        store_location text, inventory_level integer, reorder_point integer, reorder_quantity integer,
        supplier_id integer, supplier_lead_time integer, customer_age integer, customer_gender text,
        customer_income numeric(10,2), customer_loyalty_level text, payment_method text, promotion_applied boolean,
        promotion_type text, weather_conditions text, holiday_indicator text, weekday text,
        stockout_indicator boolean, forecasted_demand integer, actual_demand integer
    ) ON COMMIT DROP";

/// Some files write out that there was none.
const CLEANED: &str = "
    UPDATE staged_flat SET promotion_type = NULL WHERE lower(promotion_type) = 'none';
    CREATE INDEX ON staged_flat (transaction_id, product_id, line);
    ANALYZE staged_flat";

/// Why a line is left out, and which; each is looked for among what the ones before have left.
const REASONS: [(&str, &str); 5] = [
    (
        "an empty field that a sale needs",
        "num_nulls(transaction_id, customer_id, product_id, product_name, category, unit_price, transaction_date,
                   store_id, payment_method, promotion_applied, stockout_indicator) > 0",
    ),
    (
        "a quantity that is not positive",
        "coalesce(quantity_sold, 0) <= 0",
    ),
    (
        "a negative number, or a reorder quantity of nothing",
        "least(unit_price, inventory_level, reorder_point, supplier_lead_time, customer_age, customer_income,
               forecasted_demand, actual_demand, reorder_quantity - 1) < 0",
    ),
    (
        "another date, customer, store or payment than the first line of the same sale",
        "EXISTS (SELECT FROM staged_flat AS first
                  WHERE first.line = (SELECT min(line) FROM staged_flat AS own
                                       WHERE own.transaction_id = flat.transaction_id)
                    AND (first.transaction_date, first.customer_id, first.store_id, first.payment_method)
                        IS DISTINCT FROM
                        (flat.transaction_date, flat.customer_id, flat.store_id, flat.payment_method))",
    ),
    (
        "a product that an earlier line of the same sale has",
        "EXISTS (SELECT FROM staged_flat AS earlier
                  WHERE earlier.transaction_id = flat.transaction_id AND earlier.product_id = flat.product_id
                    AND earlier.line < flat.line)",
    ),
];

/// Names that become rows with a number: table, column and the flat file's column.
const NAMES: [(&str, &str, &str); 4] = [
    ("categories", "category_name", "category"),
    ("paymentmethods", "method_name", "payment_method"),
    ("promotions", "promotion_type", "promotion_type"),
    ("weather", "weather_conditions", "weather_conditions"),
];

/// Each line with the columns of all tables, under their names.
const SOLD: &str = "
    CREATE TEMPORARY VIEW sold AS
    SELECT flat.*, quantity_sold AS quantity, transaction_date::date AS forecast_date, store_location AS location,
           supplier_lead_time AS lead_time, customer_age AS age, customer_gender AS gender,
           customer_income AS income, customer_loyalty_level AS loyalty_level, stockout_indicator AS stockout,
           (SELECT category_id FROM categories WHERE category_name = category) AS category_id,
           (SELECT min(method_id) FROM paymentmethods WHERE method_name = payment_method) AS payment_method_id,
           (SELECT min(promotion_id) FROM promotions
             WHERE promotions.promotion_type = flat.promotion_type) AS promotion_id,
           (SELECT min(weather_id) FROM weather
             WHERE weather.weather_conditions = flat.weather_conditions) AS weather_id
      FROM staged_flat AS flat";

/// Copies the file and takes it apart; what became of each table, and what was left out.
pub(super) async fn insert(
    transaction: &Transaction<'_>,
    path: &Path,
    progress: &mut (dyn FnMut(Advance) + Send),
) -> Result<(Vec<Rows>, Vec<Dropped>), Error> {
    let mut advance = Advance {
        table: "sales",
        done_bytes: 0,
        total_bytes: std::fs::metadata(path).map_or(0, |file| file.len()),
    };
    let staged = Box::pin(copy(
        transaction,
        &FLAT,
        path.to_owned(),
        STAGED,
        &mut |bytes| {
            advance.done_bytes += bytes;
            progress(advance);
        },
    ))
    .await?;
    execute(transaction, CLEANED).await?;
    let mut dropped = Vec::new();
    for (reason, lines) in REASONS {
        dropped.extend(drop_lines(transaction, reason, lines).await?);
    }
    let mut tables = Vec::with_capacity(NAMES.len() + PARTS.len());
    for name in NAMES {
        tables.push(insert_names(transaction, &staged, name).await?);
    }
    execute(transaction, SOLD).await?;
    refuse_other_sales(transaction, "sold", path).await?;
    for part in &PARTS {
        tables.push(insert_part(transaction, &staged, part).await?);
    }
    execute(transaction, "DROP VIEW sold; DROP TABLE staged_flat").await?;
    Ok((tables, dropped))
}

async fn drop_lines(
    transaction: &Transaction<'_>,
    reason: &'static str,
    lines: &str,
) -> Result<Option<Dropped>, Error> {
    let statement = format!(
        "WITH gone AS (DELETE FROM staged_flat AS flat WHERE {lines} RETURNING line)
         SELECT count(*), min(line) FROM gone"
    );
    let row = transaction
        .query_one(&statement, &[])
        .await
        .map_err(Error::database("leaving out lines that are no sale"))?;
    let lines = row.get::<_, i64>(0).unsigned_abs();
    let first_line: Option<i64> = row.get(1);
    Ok(first_line.map(|first_line| Dropped {
        reason,
        lines,
        first_line,
    }))
}

/// New names are numbered in the order in which the file has them.
async fn insert_names(
    transaction: &Transaction<'_>,
    staged: &Staged<'_>,
    (table, column, from): (&'static str, &str, &str),
) -> Result<Rows, Error> {
    let read = format!("SELECT count(DISTINCT {from}) FROM staged_flat");
    let statement = format!(
        "INSERT INTO {table} ({column})
         SELECT {from} FROM staged_flat AS flat
          WHERE {from} IS NOT NULL AND NOT EXISTS (SELECT FROM {table} AS there WHERE there.{column} = flat.{from})
          GROUP BY {from} ORDER BY min(line)"
    );
    Ok(Rows {
        table,
        read: count(transaction, &read).await?,
        inserted: rows(transaction, staged, &statement).await?,
        different: 0,
    })
}

async fn insert_part(
    transaction: &Transaction<'_>,
    staged: &Staged<'_>,
    part: &Part,
) -> Result<Rows, Error> {
    Ok(Rows {
        table: part.table,
        read: count(transaction, &part.keys()).await?,
        inserted: rows(transaction, staged, &part.insert()).await?,
        different: count(transaction, &part.different()).await?,
    })
}

async fn execute(transaction: &Transaction<'_>, statements: &str) -> Result<(), Error> {
    let executed = transaction.batch_execute(statements).await;
    executed.map_err(Error::database("taking the flat file apart"))
}

async fn rows(
    transaction: &Transaction<'_>,
    staged: &Staged<'_>,
    statement: &str,
) -> Result<u64, Error> {
    let inserted = transaction.execute(statement, &[]).await;
    inserted.map_err(|source| staged.refused(source))
}

async fn count(transaction: &Transaction<'_>, query: &str) -> Result<u64, Error> {
    let counted = transaction.query_one(query, &[]).await;
    let row = counted.map_err(Error::database("counting what the flat file has"))?;
    Ok(row.get::<_, i64>(0).unsigned_abs())
}
