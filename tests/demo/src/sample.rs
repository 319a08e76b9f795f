//! What both sides hold at one moment.

use std::time::Instant;

use mongodb::Database;
use mongodb::bson::{Bson, Document, doc};
use tokio_postgres::Client;

use crate::error::Result;
use crate::machines::Machines;
use crate::pipeline::{DATABASE, SLOT, STREAMED, TARGET};

const TABLES: &str = "
select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'public' and c.relkind = 'r' order by c.relname";
const CHANGES: &str = "
select coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::bigint from pg_stat_user_tables
where schemaname = 'public' and relname = any($1)";
const UNCONFIRMED: &str = "
select (pg_current_wal_lsn() - confirmed_flush_lsn)::bigint from pg_replication_slots where slot_name = $1";

/// The rows of one table on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) table: String,
    pub(crate) is_streamed: bool,
    pub(crate) postgres: u64,
    pub(crate) mongo: u64,
}

/// What both sides hold at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) at: Instant,
    /// The streamed tables first.
    pub(crate) tables: Vec<Rows>,
    /// Rows inserted, updated and deleted in the streamed tables since the server's start.
    pub(crate) changes: u64,
    /// Documents that MongoDB inserted, updated and deleted since its start, walferry's own included.
    pub(crate) documents: u64,
    /// Bytes of WAL that the slot has not confirmed; `None` before there is a slot.
    pub(crate) unconfirmed_bytes: Option<u64>,
}

/// Takes samples.
#[derive(Debug)]
pub(crate) struct Sampler {
    postgres: Client,
    mongo: Database,
    tables: Vec<String>,
}

// === impl Sample ===

impl Sample {
    /// Rows of streamed tables that one side has more than the other.
    pub(crate) fn rows_behind(&self) -> u64 {
        self.tables
            .iter()
            .filter(|t| t.is_streamed)
            .map(|t| t.postgres.abs_diff(t.mongo))
            .sum()
    }
}

// === impl Sampler ===

impl Sampler {
    pub(crate) async fn new(machines: &Machines) -> Result<Self> {
        let (postgres, mongo) = (
            machines.postgres.connect(DATABASE).await?,
            machines.mongo.client().await?,
        );
        let rows = postgres.query(TABLES, &[]).await?;
        let mut tables: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        tables.sort_by_key(|t| {
            STREAMED
                .iter()
                .position(|s| s == t)
                .unwrap_or(STREAMED.len())
        });
        Ok(Self {
            postgres,
            mongo: mongo.database(TARGET),
            tables,
        })
    }

    /// All tables: the streamed ones first, in the order of the configuration.
    pub(crate) fn tables(&self) -> &[String] {
        &self.tables
    }

    pub(crate) async fn take(&self) -> Result<Sample> {
        let mut tables = Vec::with_capacity(self.tables.len());
        for table in &self.tables {
            // MongoDB first: a row that is only on its way is then never counted as one that should not be there.
            let mongo = self
                .mongo
                .collection::<Document>(table)
                .estimated_document_count()
                .await?;
            let count = self
                .postgres
                .query_one(&format!("select count(*) from public.\"{table}\""), &[])
                .await?;
            let is_streamed = STREAMED.contains(&table.as_str());
            tables.push(Rows {
                table: table.clone(),
                is_streamed,
                postgres: natural(count.get(0)),
                mongo,
            });
        }
        let changes = self
            .postgres
            .query_one(CHANGES, &[&STREAMED.as_slice()])
            .await?;
        let unconfirmed = self.postgres.query_opt(UNCONFIRMED, &[&SLOT]).await?;
        Ok(Sample {
            at: Instant::now(),
            tables,
            changes: natural(changes.get(0)),
            documents: self.documents_written().await?,
            unconfirmed_bytes: unconfirmed
                .and_then(|row| row.get::<_, Option<i64>>(0))
                .map(natural),
        })
    }

    async fn documents_written(&self) -> Result<u64> {
        let status = self.mongo.run_command(doc! { "serverStatus": 1 }).await?;
        let documents = status
            .get_document("metrics")
            .and_then(|m| m.get_document("document"));
        let counter = |name: &str| {
            documents
                .as_ref()
                .ok()
                .and_then(|d| d.get(name))
                .and_then(Bson::as_i64)
                .unwrap_or_default()
        };
        Ok(natural(
            counter("inserted") + counter("updated") + counter("deleted"),
        ))
    }
}

fn natural(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
