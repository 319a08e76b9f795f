//! A directory of CSV files, or a flat file of sales, into PostgreSQL.
//!
//! - All files in one transaction: an error leaves the database as it was.
//! - A row whose key is there already is left as it is, so loading twice is loading once.
//! - History does not take from the stock: the trigger on transactiondetails stands still meanwhile.
//! - Sequences stand after the loaded rows and never move back.

mod flat;
mod outcome;
mod stage;

use std::path::Path;

use tokio_postgres::{Config, Transaction};

use crate::table::{TABLES, Table};
use crate::{Error, Session};

use stage::{Staged, stage};

pub use outcome::{Dropped, Loaded, Rows};

/// How far a load has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advance {
    /// The table under way.
    pub table: &'static str,
    /// Bytes of files read.
    pub done_bytes: u64,
    /// Bytes of all files.
    pub total_bytes: u64,
}

/// Loads the twelve files of a directory, or a flat file of sales; `progress` hears of every 64 KiB.
///
/// # Errors
/// [`Error::Read`], [`Error::Header`], [`Error::Row`] and [`Error::OtherSale`] name the file, and nothing was loaded.
pub async fn load(
    database: &Config,
    path: &Path,
    progress: &mut (dyn FnMut(Advance) + Send),
) -> Result<Loaded, Error> {
    let mut session = Session::connect(database).await?;
    let transaction = session
        .client_mut()
        .transaction()
        .await
        .map_err(Error::database("beginning the load"))?;
    hold_sales(&transaction).await?;
    let (tables, dropped) = if path.is_file() {
        Box::pin(flat::insert(&transaction, path, progress)).await?
    } else {
        let tables = Box::pin(insert_files(&transaction, path, progress)).await?;
        (tables, Vec::new())
    };
    let store_roles = release_sales(&transaction).await?;
    transaction
        .commit()
        .await
        .map_err(Error::database("committing the load"))?;
    Ok(Loaded {
        tables,
        dropped,
        store_roles,
    })
}

async fn insert_files(
    transaction: &Transaction<'_>,
    directory: &Path,
    progress: &mut (dyn FnMut(Advance) + Send),
) -> Result<Vec<Rows>, Error> {
    let mut advance = Advance {
        table: "",
        done_bytes: 0,
        total_bytes: total_bytes(directory),
    };
    let mut tables = Vec::with_capacity(TABLES.len() + 1);
    for table in TABLES {
        advance.table = table.name;
        let staged = Box::pin(stage(transaction, table, directory, &mut |bytes| {
            advance.done_bytes += bytes;
            progress(advance);
        }))
        .await?;
        if table.name == "products" {
            tables.push(insert_suppliers(transaction, &staged).await?);
        }
        tables.push(insert(transaction, &staged).await?);
    }
    Ok(tables)
}

/// Waits for the sales under way and lets no new one begin until the end of the transaction, then switches the stock
/// trigger off: the inventory was counted after the sales of the files, so they are no longer in it.
///
/// Not `session_replication_role`, which would switch off the foreign keys too; not a setting that the trigger reads,
/// which any store could set. Switching it off is undone with the transaction, and nobody else can insert meanwhile.
async fn hold_sales(transaction: &Transaction<'_>) -> Result<(), Error> {
    transaction
        .batch_execute(
            "LOCK TABLE transactions, transactiondetails, promotionapplications IN SHARE ROW EXCLUSIVE MODE;
             ALTER TABLE transactiondetails DISABLE TRIGGER sale_takes_from_inventory",
        )
        .await
        .map_err(Error::database("holding sales back (is the schema installed?)"))
}

/// Undoes [`hold_sales`] and brings what hangs on the rows up to them: sequences, roles and statistics.
async fn release_sales(transaction: &Transaction<'_>) -> Result<i64, Error> {
    transaction
        .batch_execute("ALTER TABLE transactiondetails ENABLE TRIGGER sale_takes_from_inventory")
        .await
        .map_err(Error::database("letting sales go on"))?;
    for table in TABLES.into_iter().filter(|table| table.numbered) {
        advance_sequence(transaction, table).await?;
    }
    transaction
        .batch_execute("CALL create_store_roles()")
        .await
        .map_err(Error::database("making the stores' roles"))?;
    for table in TABLES {
        transaction
            .batch_execute(&format!("ANALYZE {}", table.name))
            .await
            .map_err(Error::database("collecting statistics"))?;
    }
    let count =
        "SELECT count(*) FROM stores JOIN pg_roles ON rolname = format('store_user_%s', store_id)";
    let row = transaction
        .query_one(count, &[])
        .await
        .map_err(Error::database("counting the stores' roles"))?;
    Ok(row.get(0))
}

async fn insert(transaction: &Transaction<'_>, staged: &Staged<'_>) -> Result<Rows, Error> {
    if staged.table.name == "transactions" {
        refuse_other_sales(transaction, "staged_transactions", &staged.path).await?;
    }
    let different = transaction
        .query_one(&different_rows(staged), &[])
        .await
        .map_err(Error::database("comparing rows with those that are there"))?
        .get::<_, i64>(0);
    let (table, columns, key) = (
        staged.table.name,
        staged.columns.join(", "),
        staged.table.key.join(", "),
    );
    let statement = format!(
        "INSERT INTO {table} ({columns}) SELECT {columns} FROM staged_{table} ON CONFLICT ({key}) DO NOTHING"
    );
    let inserted = transaction
        .execute(&statement, &[])
        .await
        .map_err(|source| staged.refused(source))?;
    drop_staged(transaction, table).await?;
    Ok(Rows {
        table,
        read: staged.rows,
        inserted,
        different: different.unsigned_abs(),
    })
}

/// The ids are all that the data has of suppliers.
async fn insert_suppliers(
    transaction: &Transaction<'_>,
    products: &Staged<'_>,
) -> Result<Rows, Error> {
    let read = transaction
        .query_one(
            "SELECT count(DISTINCT supplier_id) FROM staged_products",
            &[],
        )
        .await
        .map_err(Error::database("counting suppliers"))?
        .get::<_, i64>(0);
    let inserted = transaction
        .execute(
            "INSERT INTO suppliers (supplier_id)
             SELECT DISTINCT supplier_id FROM staged_products WHERE supplier_id IS NOT NULL
             ON CONFLICT (supplier_id) DO NOTHING",
            &[],
        )
        .await
        .map_err(|source| products.refused(source))?;
    Ok(Rows {
        table: "suppliers",
        read: read.unsigned_abs(),
        inserted,
        different: 0,
    })
}

/// A live sale may have taken the id of a sale in the file: its lines and promotions would be mixed with the other's.
async fn refuse_other_sales(
    transaction: &Transaction<'_>,
    sales: &str,
    path: &Path,
) -> Result<(), Error> {
    let other = transaction
        .query_opt(
            &format!("SELECT transaction_id FROM {sales} AS staged JOIN transactions AS there USING (transaction_id)
              WHERE (staged.transaction_date, staged.customer_id, staged.store_id)
                    IS DISTINCT FROM (there.transaction_date, there.customer_id, there.store_id)
              ORDER BY transaction_id LIMIT 1"),
            &[],
        )
        .await
        .map_err(Error::database("comparing sales with those that are there"))?;
    match other {
        Some(row) => Err(Error::OtherSale {
            path: path.to_owned(),
            id: row.get(0),
        }),
        None => Ok(()),
    }
}

fn different_rows(staged: &Staged<'_>) -> String {
    let row = |of: &str| {
        staged
            .columns
            .iter()
            .map(|column| format!("{of}.{column}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    format!(
        "SELECT count(*) FROM staged_{table} AS staged JOIN {table} AS there USING ({key})
          WHERE ({}) IS DISTINCT FROM ({})",
        row("staged"),
        row("there"),
        table = staged.table.name,
        key = staged.table.key.join(", "),
    )
}

async fn drop_staged(transaction: &Transaction<'_>, table: &str) -> Result<(), Error> {
    transaction
        .batch_execute(&format!("DROP TABLE staged_{table}"))
        .await
        .map_err(Error::database("dropping a temporary table"))
}

/// Never backwards: an id that was given out and whose sale failed is not given out again.
async fn advance_sequence(transaction: &Transaction<'_>, table: &Table) -> Result<(), Error> {
    let key = table.key.join(", ");
    let sequence: String = transaction
        .query_one(
            "SELECT pg_get_serial_sequence($1, $2)",
            &[&table.name, &key],
        )
        .await
        .map_err(Error::database("finding a sequence"))?
        .get(0);
    let statement = format!(
        "SELECT setval('{sequence}', greatest(max({key}), (SELECT last_value FROM {sequence}))) FROM {table}
         HAVING max({key}) IS NOT NULL",
        table = table.name,
    );
    transaction
        .execute(&statement, &[])
        .await
        .map_err(Error::database("setting a sequence after the loaded rows"))?;
    Ok(())
}

fn total_bytes(directory: &Path) -> u64 {
    TABLES
        .iter()
        .filter_map(|table| std::fs::metadata(directory.join(table.file())).ok())
        .map(|file| file.len())
        .sum()
}
