//! A database of its own with a configuration, and the real binary over them.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::{Command, Output};

use bson::Document;
use futures_util::TryStreamExt;
use serde_json::Value;
use walferry_harness::{Database, Stack};

/// A PostgreSQL database, a MongoDB database of the same name, and a configuration.
pub(crate) struct Site {
    pub(crate) database: Database,
    pub(crate) sql: tokio_postgres::Client,
    pub(crate) mongo: mongodb::Database,
    directory: tempfile::TempDir,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Site {
    /// A fresh database with a schema; `tables` are `[[table]]`s as pattern and mode.
    pub(crate) async fn new(name: &str, schema: &str, tables: &[(&str, &str)]) -> Self {
        let stack = Stack::shared().await.unwrap();
        let database = stack.fresh_database(name).await.unwrap();
        let sql = database.sql().await.unwrap();
        sql.batch_execute(schema).await.unwrap();
        sql.batch_execute("create publication p for all tables")
            .await
            .unwrap();
        let site = Self {
            sql,
            mongo: database.mongo().await.unwrap(),
            directory: tempfile::tempdir().unwrap(),
            database,
        };
        site.configure(tables);
        site
    }

    /// Writes the configuration anew.
    pub(crate) fn configure(&self, tables: &[(&str, &str)]) {
        let Database {
            name,
            postgres_url,
            mongo_url,
            brokers,
        } = &self.database;
        let mut config = format!(
            "[source]\nurl = {postgres_url:?}\nslot = {name:?}\npublication = \"p\"\n\
             [kafka]\nbrokers = {brokers:?}\nprefix = {name:?}\n\
             [sink]\nurl = {mongo_url:?}\ndatabase = {name:?}\n"
        );
        for (pattern, mode) in tables {
            writeln!(config, "[[table]]\nname = {pattern:?}\nmode = {mode:?}").unwrap();
        }
        std::fs::write(self.config(), config).unwrap();
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.directory.path().join("walferry.toml")
    }

    /// Runs the binary to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Said {
        let mut command = binary();
        command.args(arguments).arg("--config").arg(self.config());
        said(command).await
    }

    /// Runs the binary with `--json`: its exit code and the object that it wrote.
    pub(crate) async fn json(&self, arguments: &[&str]) -> (Option<i32>, Value) {
        let said = self.run(&[arguments, &["--json"]].concat()).await;
        let object = serde_json::from_str(&said.out);
        (
            said.code,
            object.unwrap_or_else(|error| panic!("{error}: {}{}", said.out, said.err)),
        )
    }

    /// All documents of a collection, in the order of their `_id`s.
    pub(crate) async fn documents(&self, collection: &str) -> Vec<Document> {
        let collection = self.mongo.collection::<Document>(collection);
        let find = collection.find(bson::doc! {}).sort(bson::doc! { "_id": 1 });
        find.await.unwrap().try_collect().await.unwrap()
    }

    /// The names of all collections, sorted.
    pub(crate) async fn collections(&self) -> Vec<String> {
        let mut names = self.mongo.list_collection_names().await.unwrap();
        names.sort();
        names
    }
}

/// The binary, with nothing in its environment that could change it.
pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walferry"));
    for variable in ["RUST_LOG", "WALFERRY_CONFIG", "NO_COLOR"] {
        command.env_remove(variable);
    }
    command
}

/// Runs a command to its end.
pub(crate) async fn said(mut command: Command) -> Said {
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap();
    let Output {
        status,
        stdout,
        stderr,
    } = output.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said {
        code: status.code(),
        out: text(stdout),
        err: text(stderr),
    }
}
