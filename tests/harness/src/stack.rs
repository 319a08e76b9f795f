//! The three servers together, and names in them that nobody else uses.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::OnceCell;

use crate::{Kafka, Mongo, MongoOptions, Postgres, Result, fresh_directory};

/// PostgreSQL, Kafka and MongoDB, started together.
#[derive(Debug)]
pub struct Stack {
    /// The source.
    pub postgres: Postgres,
    /// The log between.
    pub kafka: Kafka,
    /// The target.
    pub mongo: Mongo,
}

/// One test's own names in a [`Stack`] that many share: none of them existed before.
#[derive(Debug, Clone)]
pub struct Database {
    /// A PostgreSQL database, created and empty, and a MongoDB database, not yet there; also a slot and a prefix that
    /// are free.
    pub name: String,
    /// PostgreSQL's superuser URL of this database.
    pub postgres_url: String,
    /// MongoDB's URL, without a database.
    pub mongo_url: String,
    /// Kafka's `bootstrap.servers`.
    pub brokers: String,
}

// === impl Stack ===

impl Stack {
    /// Starts the three servers below `root`, at the same time.
    ///
    /// # Errors
    /// When one is not installed or does not come up.
    pub async fn start(root: &Path) -> Result<Self> {
        Self::start_around(root, Mongo::start(root)).await
    }

    /// The same with a MongoDB that takes fail points.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with_fail_points(root: &Path) -> Result<Self> {
        let options = MongoOptions {
            has_fail_points: true,
            ..MongoOptions::default()
        };
        Self::start_around(root, Mongo::start_with(root, options)).await
    }

    async fn start_around(root: &Path, mongo: impl Future<Output = Result<Mongo>>) -> Result<Self> {
        let (postgres, kafka) = (Postgres::start(root), Kafka::start(root));
        let (postgres, kafka, mongo) =
            tokio::try_join!(Box::pin(postgres), Box::pin(kafka), Box::pin(mongo))?;
        Ok(Self {
            postgres,
            kafka,
            mongo,
        })
    }

    /// The servers that all tests of one binary share; they end with the process. Do not stop them.
    ///
    /// # Errors
    /// When one is not installed or does not come up.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<Stack> = OnceCell::const_new();
        SHARED
            .get_or_try_init(async || {
                // Not removed on drop, which a static never sees, but after the process's death.
                let root = fresh_directory("shared")?.keep();
                Self::start(&root).await
            })
            .await
    }

    /// Creates a PostgreSQL database with a new name that starts with `name`.
    ///
    /// # Errors
    /// When PostgreSQL refuses it.
    pub async fn fresh_database(&self, name: &str) -> Result<Database> {
        let name = unique(name);
        let postgres = self.postgres.connect("postgres").await?;
        postgres
            .batch_execute(&format!("create database \"{name}\""))
            .await?;
        let (postgres_url, mongo_url) = (self.postgres.url_of(&name), self.mongo.url());
        Ok(Database {
            name,
            postgres_url,
            mongo_url,
            brokers: self.kafka.brokers(),
        })
    }
}

// === impl Database ===

impl Database {
    /// A new superuser connection to the PostgreSQL database.
    ///
    /// # Errors
    /// When PostgreSQL refuses it.
    pub async fn sql(&self) -> Result<tokio_postgres::Client> {
        crate::postgres::connect(&self.postgres_url).await
    }

    /// The MongoDB database of this name, by a client of its own.
    ///
    /// # Errors
    /// When the driver refuses the URL.
    pub async fn mongo(&self) -> Result<mongodb::Database> {
        Ok(mongodb::Client::with_uri_str(&self.mongo_url)
            .await?
            .database(&self.name))
    }
}

/// `name` with a suffix that makes it new in every server of this machine: fit for a database, a slot and a topic.
pub fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!(
        "{name}_{}_{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}
