//! The real daemon as a child process, with a configuration of its own.

use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use walferry_harness::{Database, Process, Signal, eventually};

use crate::oracle;

/// How long the two sides may take to become equal; far more than they need.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// One pipeline over a database of its own: the configuration, and the daemon when it runs.
pub(crate) struct Pipeline {
    pub(crate) database: Database,
    pub(crate) sql: tokio_postgres::Client,
    pub(crate) mongo: mongodb::Database,
    directory: tempfile::TempDir,
}

impl Pipeline {
    /// A pipeline over a fresh database that streams the tables which `pattern` names.
    pub(crate) async fn new(name: &str, schema: &str, pattern: &str) -> Self {
        let stack = walferry_harness::Stack::shared().await.unwrap();
        let database = stack.fresh_database(name).await.unwrap();
        Self::over(database, schema, pattern).await
    }

    /// The same over servers of the test's own.
    pub(crate) async fn over(database: Database, schema: &str, pattern: &str) -> Self {
        let publication = "create publication walmart_publication for all tables";
        let schema = format!("{schema}; {publication}");
        Self::over_existing(database, &schema, pattern).await
    }

    /// The same over a database that already has its publication; `sql` is run first.
    pub(crate) async fn over_existing(database: Database, setup: &str, pattern: &str) -> Self {
        let sql = database.sql().await.unwrap();
        sql.batch_execute(setup).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let config = format!(
            "[source]\nurl = {:?}\nslot = {:?}\npublication = \"walmart_publication\"\n\
             [kafka]\nbrokers = {:?}\nprefix = {:?}\ntransaction_topic = true\n\
             [sink]\nurl = {:?}\ndatabase = {:?}\n\
             [[table]]\nname = {pattern:?}\nmode = \"stream\"\n",
            database.postgres_url,
            database.name,
            database.brokers,
            database.name,
            database.mongo_url,
            database.name,
        );
        std::fs::write(directory.path().join("walferry.toml"), config).unwrap();
        let mongo = database.mongo().await.unwrap();
        Self {
            database,
            sql,
            mongo,
            directory,
        }
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.directory.path().join("walferry.toml")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_walferry"));
        command.args(arguments).arg("--config").arg(self.config());
        command
    }

    /// Starts the daemon.
    pub(crate) fn start(&self) -> Daemon {
        self.start_with(&["run"])
    }

    pub(crate) fn start_with(&self, arguments: &[&str]) -> Daemon {
        let log = self.directory.path().join("walferry.log");
        Daemon(Process::spawn(&self.command(arguments), &log).unwrap())
    }

    /// Starts another daemon over the same pipeline, with a log of its own.
    pub(crate) fn start_apart(&self, arguments: &[&str]) -> Daemon {
        let log = self.directory.path().join("another.log");
        Daemon(Process::spawn(&self.command(arguments), &log).unwrap())
    }

    /// Waits until every table equals its collection.
    pub(crate) async fn equal(&self, tables: &[&str]) {
        let attempt = async || {
            for table in tables {
                oracle::compare(&self.sql, &self.mongo, table).await?;
            }
            Ok::<_, String>(())
        };
        if let Err(error) = eventually(PATIENCE, "MongoDB to equal PostgreSQL", attempt).await {
            let log = std::fs::read_to_string(self.directory.path().join("walferry.log"));
            panic!("{error}\n{}", log.unwrap_or_default());
        }
    }
}

/// The running daemon; killed when dropped.
pub(crate) struct Daemon(pub Process);

impl Daemon {
    /// Stops it in order.
    pub(crate) async fn stop(self) -> ExitStatus {
        self.0.stop(Signal::TERM, PATIENCE).await.unwrap()
    }

    /// Kills it outright.
    pub(crate) async fn kill(self) {
        self.0.kill();
        self.0.wait(PATIENCE).await.unwrap();
    }

    /// Waits until it ends by itself: its exit code and what it said.
    pub(crate) async fn end(self) -> (Option<i32>, String) {
        let status = self.0.wait(PATIENCE).await.unwrap();
        (
            status.code(),
            std::fs::read_to_string(self.0.log()).unwrap(),
        )
    }
}
