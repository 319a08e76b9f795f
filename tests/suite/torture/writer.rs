//! Writers that keep the invariants in every commit and survive a PostgreSQL that is killed.
//!
//! - Each transaction ends with the writer's next history row, so that a commit whose answer was lost
//!   is told by reading that row back.
//! - Writers wait for a pipeline that is far behind.
//! - Rows are locked in the order of the tables and of the products: writers never deadlock.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::{RwLock, RwLockWriteGuard};
use tokio_postgres::{Client, Error};
use walferry_harness::Database;

use super::{PER_PRODUCT, PRODUCTS};
use crate::daemon::PATIENCE;
use crate::workload;

/// How many commits a writer may be ahead of the reader: kills are to meet a pipeline that flows.
const AHEAD: i64 = 400;

/// What all writers have done.
#[derive(Default)]
pub(super) struct Progress {
    commits: AtomicU64,
    is_over: AtomicBool,
    /// Each transaction holds it for reading.
    gate: RwLock<()>,
    /// The last history row that each writer has committed.
    histories: Mutex<BTreeMap<i32, i64>>,
    /// The last history row of each writer that the reader has seen.
    seen: Mutex<BTreeMap<i32, i64>>,
}

/// One connection's work.
pub(super) struct Writer {
    database: Database,
    random: ChaCha8Rng,
    number: i32,
    /// Rows of the largest transactions.
    giant: i32,
    /// The last committed history row.
    history: i64,
    /// Numbers the headers.
    next_header: i64,
}

// === impl Progress ===

impl Progress {
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    pub(super) fn stop(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Lets all transactions end, and none begin until this is dropped.
    pub(super) async fn rest(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().await
    }

    /// Says what the reader has seen.
    pub(super) fn saw(&self, histories: BTreeMap<i32, i64>) {
        *self.seen.lock().unwrap() = histories;
    }

    fn seen(&self, writer: i32) -> i64 {
        let seen = self.seen.lock().unwrap();
        seen.get(&writer).copied().unwrap_or_default()
    }

    /// The last committed history row by writer.
    pub(super) fn histories(&self) -> BTreeMap<i32, i64> {
        self.histories.lock().unwrap().clone()
    }

    fn committed(&self, writer: i32, history: i64) {
        self.histories.lock().unwrap().insert(writer, history);
        self.commits.fetch_add(1, Ordering::Relaxed);
    }
}

// === impl Writer ===

impl Writer {
    pub(super) fn new(database: &Database, seed: u64, number: i32, giant: i32) -> Self {
        Self {
            database: database.clone(),
            random: ChaCha8Rng::seed_from_u64(seed + u64::from(number.unsigned_abs())),
            number,
            giant,
            history: 0,
            next_header: i64::from(number) * 1_000_000_000,
        }
    }

    /// Writes until it is told to stop.
    pub(super) async fn run(mut self, progress: std::sync::Arc<Progress>) {
        let mut sql = self.connect().await;
        while !progress.is_over.load(Ordering::Relaxed) {
            if self.history - progress.seen(self.number) > AHEAD {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
            let _going = progress.gate.read().await;
            let is_committed = match self.transaction(&sql).await {
                Ok(is_committed) => is_committed,
                Err(error)
                    if error.as_db_error().is_some() && !sql.is_closed() && !is_end(&error) =>
                {
                    panic!("writer {}: {error:?}", self.number)
                }
                Err(_) => {
                    sql = self.connect().await;
                    self.is_in_history(&sql).await
                }
            };
            if is_committed {
                self.history += 1;
                progress.committed(self.number, self.history);
            }
        }
    }

    async fn connect(&self) -> Client {
        let connected = tokio::time::timeout(PATIENCE, async {
            loop {
                match self.database.sql().await {
                    Ok(sql) => return sql,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
        connected.await.expect("PostgreSQL comes back")
    }

    /// Whether the transaction whose end was not heard was committed.
    async fn is_in_history(&self, sql: &Client) -> bool {
        let query = "select from history where writer = $1 and n = $2";
        let rows = sql.query(query, &[&self.number, &(self.history + 1)]).await;
        !rows.expect("PostgreSQL has just come back").is_empty()
    }

    /// One transaction: whether it was committed.
    async fn transaction(&mut self, sql: &Client) -> Result<bool, Error> {
        sql.batch_execute("begin").await?;
        if self.number == super::WRITERS[2] {
            self.random_workload(sql).await?;
        } else {
            match self.random.random_range(0..100) {
                0..50 => self.sell(sql).await?,
                50..52 => self.stock_up(sql).await?,
                52..54 => sql.batch_execute("truncate headers, details").await?,
                54..64 => self.copy_document(sql).await?,
                _ => self.document(sql).await?,
            }
        }
        if self.random.random_bool(0.1) {
            sql.batch_execute("rollback").await?;
            return Ok(false);
        }
        let (writer, n) = (self.number, self.history + 1);
        let end = format!("insert into history values ({writer}, {n}); commit");
        sql.batch_execute(&end).await?;
        Ok(true)
    }

    async fn random_workload(&mut self, sql: &Client) -> Result<(), Error> {
        if self.random.random_bool(0.02) {
            let table = workload::TABLES[self.random.random_range(0..workload::TABLES.len())];
            sql.batch_execute(&format!("truncate {table}")).await?;
        }
        workload::statements(sql, &mut self.random, self.number).await
    }

    /// Moves some of some products from one table to the other.
    async fn sell(&mut self, sql: &Client) -> Result<(), Error> {
        let mut text = String::new();
        for product in 1..=PRODUCTS {
            if self.random.random_bool(0.1) {
                let quantity = self.random.random_range(-3..6);
                write!(
                    text,
                    "update stock set \"left\" = \"left\" - {quantity} where product = {product}; \
                     update sold set quantity = quantity + {quantity} where product = {product};"
                )
                .unwrap();
            }
        }
        sql.batch_execute(&text).await
    }

    /// Empties both tables and fills them again.
    async fn stock_up(&mut self, sql: &Client) -> Result<(), Error> {
        let left = self.random.random_range(0..=PER_PRODUCT);
        sql.batch_execute(&format!(
            "truncate stock, sold; \
             insert into stock select p, {left} from generate_series(1, {PRODUCTS}) p; \
             insert into sold select p, {PER_PRODUCT} - {left} from generate_series(1, {PRODUCTS}) p"
        ))
        .await
    }

    /// A new document, or another size for an old one, or none of it.
    async fn document(&mut self, sql: &Client) -> Result<(), Error> {
        let lines = self.lines();
        let header = if self.random.random_bool(0.5) {
            self.header()
        } else {
            self.next_header - self.random.random_range(0..20)
        };
        let keep = self.random.random_bool(0.7);
        sql.batch_execute(&format!(
            "delete from headers where id = {header}; delete from details where header = {header} \
             and line > {lines} / 2;"
        ))
        .await?;
        if !keep {
            let rest = format!("delete from details where header = {header}");
            return sql.batch_execute(&rest).await;
        }
        sql.batch_execute(&format!(
            "insert into headers values ({header}, {lines}); \
             insert into details select {header}, i, 'n' || i from generate_series(1, {lines}) i \
             on conflict (header, line) do update set note = details.note || '+'"
        ))
        .await
    }

    async fn copy_document(&mut self, sql: &Client) -> Result<(), Error> {
        let (lines, header) = (self.lines(), self.header());
        let insert = format!("insert into headers values ({header}, {lines})");
        sql.batch_execute(&insert).await?;
        let mut text = String::new();
        for line in 1..=lines {
            writeln!(text, "{header}\t{line}\tcopied").unwrap();
        }
        let copy = sql.copy_in("copy details from stdin").await?;
        let mut copy = std::pin::pin!(copy);
        copy.send(Bytes::from(text)).await?;
        copy.finish().await.map(drop)
    }

    fn header(&mut self) -> i64 {
        self.next_header += 1;
        self.next_header
    }

    /// Mostly few, sometimes as many as there may be.
    fn lines(&mut self) -> i32 {
        match self.random.random_range(0..40) {
            0 => self.random.random_range(self.giant / 2..=self.giant),
            1..5 => self.random.random_range(1..=100),
            _ => self.random.random_range(1..=8),
        }
    }
}

/// Whether the server said that it ends or is not there yet.
fn is_end(error: &Error) -> bool {
    error
        .code()
        .is_some_and(|code| code.code().starts_with("57P"))
}
