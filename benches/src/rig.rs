//! The private servers of one run, and a pipeline between them.
//!
//! - Every pipeline has its own databases, slot and topics: one measurement leaves nothing to the next.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bson::{Document, doc};
use mongodb::options::Acknowledgment;
use tempfile::TempDir;
use tokio_postgres::Client;
use walferry_harness::{
    Kafka, KafkaOptions, Mongo, MongoOptions, Postgres, PostgresOptions, Process, Signal,
    eventually, free_port, fresh_directory,
};

use crate::cost::Cost;
use crate::error::{Error, Result};
use crate::screen;

const WORKLOAD: &str = include_str!("../sql/workload.sql");
/// The streamed tables whose content is compared, with a checksum in SQL and in MongoDB's terms.
const CHECKED: [(&str, &str); 4] = [
    (
        "transactions",
        "coalesce(sum(transaction_id::bigint * 31 + customer_id + store_id * 7 + payment_method_id), 0)::bigint",
    ),
    (
        "transactiondetails",
        "coalesce(sum(transaction_id::bigint * quantity + product_id * 31), 0)::bigint",
    ),
    (
        "inventory",
        "coalesce(sum((store_id * 1000 + product_id)::bigint * inventory_level), 0)::bigint",
    ),
    ("wide", WIDE_CHECKSUM),
];
const WIDE_CHECKSUM: &str = "coalesce(sum(id::bigint * 31 + coalesce(length(body), 0)), 0)::bigint";
pub(crate) const DEADLINE: Duration = Duration::from_mins(15);
const STOPPED: Duration = Duration::from_mins(1);

/// How changes get from PostgreSQL to MongoDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Kafka,
    Direct,
}

/// The servers, and where the engine's program is.
pub(crate) struct Rig {
    pub(crate) postgres: Postgres,
    pub(crate) kafka: Kafka,
    pub(crate) mongo: Mongo,
    pub(crate) client: mongodb::Client,
    pub(crate) directory: TempDir,
    program: PathBuf,
}

/// One pipeline, with the workload's tables at its source.
pub(crate) struct Pipeline<'a> {
    pub(crate) rig: &'a Rig,
    pub(crate) name: String,
    pub(crate) sql: Client,
    pub(crate) target: mongodb::Database,
    pub(crate) config: PathBuf,
}

/// A running engine.
pub(crate) struct Engine {
    process: Process,
}

// === impl Way ===

impl Way {
    pub(crate) const BOTH: [Self; 2] = [Self::Kafka, Self::Direct];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Direct => "direct",
        }
    }
}

// === impl Rig ===

impl Rig {
    /// Starts the servers, large enough that none of them is what is measured.
    pub(crate) async fn start() -> Result<Self> {
        let directory = fresh_directory("bench")?;
        let root = directory.path();
        let options = PostgresOptions {
            settings: [
                ("shared_buffers", "512MB"),
                ("max_wal_size", "8GB"),
                ("autovacuum", "off"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .to_vec(),
            ..PostgresOptions::default()
        };
        let postgres = Postgres::start_with(root, options);
        let kafka = Kafka::start_with(
            root,
            KafkaOptions {
                is_for_load: true,
                ..KafkaOptions::default()
            },
        );
        let mongo = Mongo::start_with(
            root,
            MongoOptions {
                cache_mb: 2_048,
                ..MongoOptions::default()
            },
        );
        let (postgres, kafka, mongo) =
            tokio::try_join!(Box::pin(postgres), Box::pin(kafka), Box::pin(mongo))?;
        let client = mongo.client().await?;
        Ok(Self {
            postgres,
            kafka,
            mongo,
            client,
            program: engine_program()?,
            directory,
        })
    }

    /// A new pipeline over the workload's tables; a name serves once.
    pub(crate) async fn pipeline(&self, name: &str, way: Way) -> Result<Pipeline<'_>> {
        let name = format!("{name}_{}", way.name());
        self.postgres
            .connect("postgres")
            .await?
            .batch_execute(&format!("create database {name}"))
            .await?;
        let sql = self.postgres.connect(&name).await?;
        sql.batch_execute(WORKLOAD).await?;
        let config = self.directory.path().join(format!("{name}.toml"));
        let pipeline = Pipeline {
            rig: self,
            sql,
            target: self.client.database(&name),
            config,
            name,
        };
        pipeline.write_config(way)?;
        Ok(pipeline)
    }
}

/// The program beside this one; a test's own program is one directory further down.
fn engine_program() -> Result<PathBuf> {
    let this = std::env::current_exe().map_err(Error::io("finding the bench's own program"))?;
    let near = this.ancestors().skip(1).take(2);
    let mut programs = near.map(|directory| directory.join("walferry"));
    let found = programs.find(|program| program.exists());
    found.ok_or_else(|| {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        Error::io("finding walferry beside the bench: build both, `cargo build --release`")(missing)
    })
}

// === impl Pipeline ===

impl Pipeline<'_> {
    fn write_config(&self, way: Way) -> Result<()> {
        let (rig, name) = (self.rig, &self.name);
        let kafka = match way {
            Way::Kafka => format!(
                "[kafka]\nbrokers = \"{}\"\nprefix = \"{name}\"\n",
                rig.kafka.brokers()
            ),
            Way::Direct => String::new(),
        };
        let text = format!(
            r#"[source]
url = "{source}"
slot = "{name}"
publication = "bench"
{kafka}[sink]
url = "{sink}"
database = "{name}"
[admin]
listen = "127.0.0.1:{admin}"
[[table]]
name = "public.{{transactions,transactiondetails,inventory,wide*}}"
mode = "stream"
[[table]]
name = "public.*"
mode = "batch"
"#,
            source = rig.postgres.url_of(name),
            sink = rig.mongo.url(),
            admin = free_port()?,
        );
        write(&self.config, &text)
    }

    /// Starts `walferry` with these arguments.
    pub(crate) fn start(&self, arguments: &[&str]) -> Result<Engine> {
        let mut command = std::process::Command::new(&self.rig.program);
        command.args(arguments).arg("--config").arg(&self.config);
        Engine::spawn(&command, &self.config)
    }

    /// Lets the engine copy what is there and apply a first change, then stops it.
    pub(crate) async fn settle(&self) -> Result<()> {
        let engine = self.start(&["run"])?;
        self.await_count(&engine, "inventory", 5_000).await?;
        self.sql.batch_execute("call sale(4, 5)").await?;
        self.await_count(&engine, "transactions", 1).await?;
        engine.stop().await?;
        self.check("the first copy").await
    }

    /// Commits so many row changes, ten a transaction, while nobody reads.
    pub(crate) async fn backlog(&self, rows: u64) -> Result<()> {
        let transactions = rows / 10;
        screen::say(format_args!("{}: {rows} row changes to come", self.name));
        self.sql
            .batch_execute(&format!("call backlog({transactions})"))
            .await?;
        Ok(())
    }

    /// Documents of a collection, as its metadata counts them.
    pub(crate) async fn count(&self, collection: &str) -> Result<u64> {
        let collection = self.target.collection::<Document>(collection);
        Ok(collection.estimated_document_count().await?)
    }

    /// Waits until a collection has so many documents.
    pub(crate) async fn await_count(
        &self,
        engine: &Engine,
        collection: &str,
        count: u64,
    ) -> Result<()> {
        let what = format!("{count} documents in {collection}");
        let done = engine.until(&what, async || match self.count(collection).await {
            Ok(found) if found >= count => Ok(()),
            Ok(found) => Err(format!("{found} documents")),
            Err(error) => Err(error.to_string()),
        });
        done.await
    }

    /// Compares counts and checksums of every table.
    pub(crate) async fn check(&self, after: &str) -> Result<()> {
        for (table, checksum) in CHECKED {
            self.compare(after, table, checksum).await?;
        }
        Ok(())
    }

    /// Compares count and checksum of a table like `wide`.
    pub(crate) async fn check_table(&self, after: &str, table: &str) -> Result<()> {
        self.compare(after, table, WIDE_CHECKSUM).await
    }

    async fn compare(&self, after: &str, table: &str, checksum: &str) -> Result<()> {
        let wanted = format!("select count(*), {checksum} from {table}");
        let wanted = self.sql.query_one(&wanted, &[]).await?;
        let wanted: (i64, i64) = (wanted.get(0), wanted.get(1));
        let found = self.totals(table).await?;
        if wanted == found {
            return Ok(());
        }
        let difference = format!(
            "{table} has (rows, checksum) {wanted:?} in PostgreSQL and {found:?} in MongoDB"
        );
        let after = after.to_owned();
        Err(Error::Different { after, difference })
    }

    async fn totals(&self, table: &str) -> Result<(i64, i64)> {
        let group = doc! { "$group": {
            "_id": null, "n": { "$sum": 1_i64 }, "checksum": { "$sum": checksum(table) },
        } };
        let collection = self.target.collection::<Document>(table);
        let mut cursor = collection.aggregate([group]).await?;
        if !cursor.advance().await? {
            return Ok((0, 0));
        }
        let totals = cursor.deserialize_current()?;
        let number = |field| {
            let long = totals.get_i64(field);
            long.or_else(|_| totals.get_i32(field).map(i64::from))
                .unwrap_or_default()
        };
        Ok((number("n"), number("checksum")))
    }

    /// A database of the target that nobody has written to, read and written with majority.
    pub(crate) fn fresh_database(&self, suffix: &str) -> mongodb::Database {
        let options = mongodb::options::DatabaseOptions::builder()
            .write_concern(
                mongodb::options::WriteConcern::builder()
                    .w(Acknowledgment::Majority)
                    .build(),
            )
            .build();
        let name = format!("{}_{suffix}", self.name);
        self.rig.client.database_with_options(&name, options)
    }
}

/// The same sum as in SQL.
fn checksum(table: &str) -> Document {
    match table {
        "transactions" => doc! { "$add": [
            { "$multiply": [{ "$toLong": "$transaction_id" }, 31] }, "$customer_id",
            { "$multiply": ["$store_id", 7] }, "$payment_method_id",
        ] },
        "transactiondetails" => doc! { "$add": [
            { "$multiply": [{ "$toLong": "$transaction_id" }, "$quantity"] },
            { "$multiply": ["$product_id", 31] },
        ] },
        "inventory" => doc! { "$multiply": [
            { "$add": [{ "$multiply": [{ "$toLong": "$store_id" }, 1000] }, "$product_id"] },
            "$inventory_level",
        ] },
        _ => doc! { "$add": [
            { "$multiply": [{ "$toLong": "$_id" }, 31] },
            { "$strLenCP": { "$ifNull": ["$body", ""] } },
        ] },
    }
}

// === impl Engine ===

impl Engine {
    /// Starts a program; its log stands beside its configuration.
    pub(crate) fn spawn(command: &std::process::Command, config: &Path) -> Result<Self> {
        let process = Process::spawn(command, &config.with_extension("log"))?;
        Ok(Self { process })
    }

    pub(crate) fn cost(&self) -> Result<Cost> {
        Cost::of(self.process.pid())
    }

    /// Whether it still runs.
    pub(crate) fn check(&self) -> Result<()> {
        match self.process.status() {
            None => Ok(()),
            Some(_) => Err(Error::EngineEnded {
                tail: self.process.log_tail(),
            }),
        }
    }

    /// Waits for what it is to bring about; its end ends the wait.
    pub(crate) async fn until(
        &self,
        what: &str,
        mut look: impl AsyncFnMut() -> Result<(), String>,
    ) -> Result<()> {
        eventually(DEADLINE, what, async || match self.check() {
            Err(ended) => Ok(Err(ended)),
            Ok(()) => look().await.map(Ok),
        })
        .await?
    }

    /// Waits for its end, which must be a good one.
    pub(crate) async fn finish(&self) -> Result<()> {
        let status = self.process.wait(DEADLINE).await?;
        if status.success() {
            return Ok(());
        }
        let tail = self.process.log_tail();
        Err(Error::EngineEnded { tail })
    }

    pub(crate) async fn stop(self) -> Result<()> {
        self.process.stop(Signal::TERM, STOPPED).await?;
        Ok(())
    }
}

pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(Error::io(format!("writing {}", path.display())))
}
