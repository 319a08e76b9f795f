//! The real daemon as child processes, with a configuration of its own.
//!
//! `WALFERRY_PATH` says which way the changes go: through Kafka in one process (`kafka`, the default), in two
//! (`split`), or without Kafka (`direct`). `make test` runs the tests all three ways.

use std::path::PathBuf;
use std::process::{Command, ExitStatus};

pub(crate) use walferry_harness::PATIENCE;
use walferry_harness::{Database, Process, Signal, eventually};

use crate::oracle;

/// The file that the daemon writes to.
const LOG: &str = "walferry.log";

/// Which way the changes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Kafka,
    Split,
    Direct,
}

impl Route {
    pub(crate) fn chosen() -> Self {
        match std::env::var("WALFERRY_PATH").as_deref() {
            Err(_) | Ok("kafka") => Self::Kafka,
            Ok("split") => Self::Split,
            Ok("direct") => Self::Direct,
            Ok(other) => panic!("WALFERRY_PATH is kafka, split or direct, not {other}"),
        }
    }
}

/// What a process of the daemon does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    Reader,
    Sink,
}

/// One pipeline over a database of its own: the configuration, and the daemon when it runs.
pub(crate) struct Pipeline {
    pub(crate) database: Database,
    pub(crate) sql: tokio_postgres::Client,
    pub(crate) mongo: mongodb::Database,
    pub(crate) route: Route,
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
        let mongo = database.mongo().await.unwrap();
        let pipeline = Self {
            database,
            sql,
            mongo,
            directory,
            route: Route::chosen(),
        };
        pipeline.configure(pattern, pipeline.route != Route::Direct);
        pipeline
    }

    /// Writes the configuration, with Kafka or without.
    pub(crate) fn configure(&self, pattern: &str, has_kafka: bool) {
        let Database {
            name,
            postgres_url,
            mongo_url,
            brokers,
        } = &self.database;
        let kafka = format!(
            "[kafka]\nbrokers = {brokers:?}\nprefix = {name:?}\ntransaction_topic = true\n"
        );
        let config = format!(
            "[source]\nurl = {postgres_url:?}\nslot = {name:?}\npublication = \"walmart_publication\"\n\
             {}[sink]\nurl = {mongo_url:?}\ndatabase = {name:?}\n\
             [[table]]\nname = {pattern:?}\nmode = \"stream\"\n",
            if has_kafka { &*kafka } else { "" },
        );
        std::fs::write(self.config(), config).unwrap();
    }

    /// The name of the pipeline's position document.
    pub(crate) fn id(&self) -> String {
        let name = &self.database.name;
        match self.route {
            Route::Direct => name.clone(),
            Route::Kafka | Route::Split => format!("{name}/{name}"),
        }
    }

    /// Has a change that MongoDB cannot take end the daemon.
    pub(crate) fn stop_on_poison(&self) {
        self.reconfigure("[sink]\n", "[sink]\non_poison = \"stop\"\n");
    }

    /// Writes another text wherever the configuration has this one.
    pub(crate) fn reconfigure(&self, from: &str, to: &str) {
        let config = std::fs::read_to_string(self.config()).unwrap();
        std::fs::write(self.config(), config.replace(from, to)).unwrap();
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
        let mut processes = vec![self.spawn(LOG, &self.reader(arguments))];
        if self.route == Route::Split {
            processes.push(self.start_half(Half::Sink));
        }
        Daemon(processes)
    }

    /// Starts the process that does this half; of a daemon that is one process, all of it.
    fn start_half(&self, half: Half) -> Process {
        match (self.route, half) {
            (Route::Split, Half::Sink) => self.spawn(LOG, &["run", "--role", "sink"]),
            _ => self.spawn(LOG, &self.reader(&["run"])),
        }
    }

    /// Starts another daemon over the same pipeline, with a log of its own; of two processes only
    /// the reader: a second sink would take over.
    pub(crate) fn start_apart(&self, arguments: &[&str]) -> Daemon {
        Daemon(vec![self.spawn("another.log", &self.reader(arguments))])
    }

    /// Starts one process.
    pub(crate) fn spawn(&self, log: &str, arguments: &[&str]) -> Process {
        let log = self.directory.path().join(log);
        Process::spawn(&self.command(arguments), &log).unwrap()
    }

    fn reader<'a>(&self, arguments: &[&'a str]) -> Vec<&'a str> {
        let role: &[&str] = match self.route {
            Route::Kafka | Route::Direct => &[],
            Route::Split => &["--role", "reader"],
        };
        [arguments, role].concat()
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
            panic!("{error}\n{}", self.log());
        }
    }

    /// What the daemon has written.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join(LOG)).unwrap_or_default()
    }
}

/// The running daemon, its reader first and its sink last; killed when dropped.
pub(crate) struct Daemon(pub Vec<Process>);

impl Daemon {
    /// Stops it in order.
    pub(crate) async fn stop(self) -> ExitStatus {
        let mut worst = None;
        for process in self.0 {
            let status = process.stop(Signal::TERM, PATIENCE).await.unwrap();
            if !status.success() {
                let log = std::fs::read_to_string(process.log()).unwrap_or_default();
                eprintln!("the daemon ended with {status}:\n{log}");
            }
            worst = worst
                .filter(|it: &ExitStatus| !it.success())
                .or(Some(status));
        }
        worst.unwrap()
    }

    /// Kills it outright.
    pub(crate) async fn kill(self) {
        self.0.iter().for_each(Process::kill);
        for process in self.0 {
            process.wait(PATIENCE).await.unwrap();
        }
    }

    /// Kills the process that does this half.
    pub(crate) async fn kill_half(&self, half: Half) {
        let process = &self.0[self.place(half)];
        process.kill();
        process.wait(PATIENCE).await.unwrap();
    }

    /// Starts the process that does this half in place of the one that was killed.
    pub(crate) fn start_half(&mut self, pipeline: &Pipeline, half: Half) {
        let place = self.place(half);
        self.0[place] = pipeline.start_half(half);
    }

    fn place(&self, half: Half) -> usize {
        match half {
            Half::Reader => 0,
            Half::Sink => self.0.len() - 1,
        }
    }

    /// Waits until its reader ends by itself: its exit code and what was said.
    pub(crate) async fn end(self) -> (Option<i32>, String) {
        let reader = &self.0[0];
        let status = reader.wait(PATIENCE).await.unwrap();
        (
            status.code(),
            std::fs::read_to_string(reader.log()).unwrap(),
        )
    }
}
