//! A server that all tests share, a database for each, and events as short texts.

use std::fmt;

use tokio::sync::OnceCell;
use tokio_postgres::Client;
use walferry_core::{Class, Fault, SnapshotChunk, Source, SourceEvent, Tasks};
use walferry_harness::{PATIENCE, Postgres, PostgresOptions, fresh_directory, unique};
use walferry_postgres::{ReplicationSource, Settings};
use walferry_schema::{Cell, Change, Lsn, Row, RowOp, TableName};

pub(crate) type Tested = Result<(), Failure>;

/// Whatever ended a test; not an error itself, so that it can be made of all of them.
pub(crate) struct Failure(String);

impl<E: fmt::Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(format!("{error:#}"))
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(crate) const PUBLICATION: &str = "pub";

/// One test's database, with a publication of all its tables; the slot has the database's name.
pub(crate) struct Database {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) sql: Client,
    pub(crate) tasks: Tasks,
}

/// The server that is never stopped.
pub(crate) async fn shared() -> &'static Postgres {
    static SHARED: OnceCell<Postgres> = OnceCell::const_new();
    let start = async || {
        let root = fresh_directory("postgres-tests").unwrap().keep();
        let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let settings = vec![
            setting("max_replication_slots", "90"),
            setting("max_wal_senders", "90"),
        ];
        let options = PostgresOptions {
            settings,
            hba: crate::login::hba(),
            ..PostgresOptions::default()
        };
        Postgres::start_with(&root, options).await.unwrap()
    };
    SHARED.get_or_init(start).await
}

/// A database for one test, after running `sql` in it.
pub(crate) async fn database(sql: &str) -> Database {
    database_on(shared().await, sql).await
}

pub(crate) async fn database_on(server: &Postgres, sql: &str) -> Database {
    let name = unique("source");
    let admin = server.connect("postgres").await.unwrap();
    admin
        .batch_execute(&format!("create database {name}"))
        .await
        .unwrap();
    let client = server.connect(&name).await.unwrap();
    client.batch_execute(sql).await.unwrap();
    client
        .batch_execute(&format!("create publication {PUBLICATION} for all tables"))
        .await
        .unwrap();
    Database {
        url: server.url_of(&name),
        name,
        sql: client,
        tasks: Tasks::default(),
    }
}

impl Database {
    pub(crate) fn settings(&self) -> Settings {
        Settings::new(&self.url, &self.name, PUBLICATION)
    }

    pub(crate) fn source(&self) -> ReplicationSource {
        self.source_with(self.settings())
    }

    pub(crate) fn source_with(&self, settings: Settings) -> ReplicationSource {
        ReplicationSource::new(settings, self.tasks.clone()).unwrap()
    }

    /// A source with all tables' own keys, its slot made and its stream begun.
    pub(crate) async fn streaming(&self) -> ReplicationSource {
        let mut source = self.source();
        let tables = source.tables().await.unwrap();
        let keys: Vec<_> = tables
            .into_iter()
            .map(|table| (table.name, table.key))
            .collect();
        source.set_keys(&keys);
        source.create_slot(&[]).await.unwrap();
        source.start().await.unwrap();
        source
    }

    pub(crate) async fn run(&self, sql: &str) {
        self.sql.batch_execute(sql).await.unwrap();
    }

    /// The server's major version.
    pub(crate) async fn version(&self) -> i32 {
        let sql = "select current_setting('server_version_num')::int4 / 10000";
        self.sql.query_one(sql, &[]).await.unwrap().get(0)
    }

    pub(crate) async fn confirmed(&self) -> Lsn {
        let sql = "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1";
        let row = self.sql.query_one(sql, &[&self.name]).await.unwrap();
        row.get::<_, &str>(0).parse().unwrap()
    }
}

pub(crate) fn public(table: &str) -> TableName {
    TableName::new("public", table)
}

/// The next event that is no keepalive.
pub(crate) async fn next(source: &mut ReplicationSource) -> Result<SourceEvent, Fault> {
    let event = async {
        loop {
            match source.next().await {
                Ok(SourceEvent::Keepalive { .. }) => {}
                other => return other,
            }
        }
    };
    tokio::time::timeout(PATIENCE, event)
        .await
        .expect("an event within the time")
}

/// The events of the next transactions that hold anything, as texts.
pub(crate) async fn transactions(source: &mut ReplicationSource, count: usize) -> Vec<Vec<String>> {
    let mut transactions = vec![vec![]];
    loop {
        let event = next(source).await.unwrap();
        let is_commit = matches!(event, SourceEvent::Commit { .. });
        transactions.last_mut().unwrap().extend(text(&event));
        if is_commit && !transactions.last().unwrap().is_empty() {
            if transactions.len() == count {
                return transactions;
            }
            transactions.push(vec![]);
        }
    }
}

/// A change as `ordinal op table cells`, a message as `message prefix content`.
pub(crate) fn text(event: &SourceEvent) -> Option<String> {
    match event {
        SourceEvent::Change {
            ordinal,
            change: Change::Row { relation, op },
            ..
        } => {
            let op = match op {
                RowOp::Insert { new } => format!("insert {} {}", relation.name.table, cells(new)),
                RowOp::Update { old: None, new } => {
                    format!("update {} {}", relation.name.table, cells(new))
                }
                RowOp::Update {
                    old: Some(old),
                    new,
                } => {
                    format!(
                        "update {} {} -> {}",
                        relation.name.table,
                        cells(old),
                        cells(new)
                    )
                }
                RowOp::Delete { old } => format!("delete {} {}", relation.name.table, cells(old)),
            };
            Some(format!("{ordinal} {op}"))
        }
        SourceEvent::Change {
            ordinal,
            change: Change::Truncate { relations },
            ..
        } => {
            let names: Vec<_> = relations
                .iter()
                .map(|relation| &*relation.name.table)
                .collect();
            Some(format!("{ordinal} truncate {}", names.join(" ")))
        }
        SourceEvent::Message {
            is_transactional,
            prefix,
            content,
            ..
        } => Some(format!(
            "message {is_transactional} {prefix} {}",
            String::from_utf8_lossy(content)
        )),
        _ => None,
    }
}

pub(crate) fn cells(row: &Row) -> String {
    let cell = |cell| match cell {
        Cell::Null => "null".to_owned(),
        Cell::Unchanged => "unchanged".to_owned(),
        Cell::Large(_) => "large".to_owned(),
        Cell::Text(text) => String::from_utf8_lossy(text).into_owned(),
    };
    row.cells().map(cell).collect::<Vec<_>>().join(",")
}

/// All chunks that are left.
pub(crate) async fn chunks(source: &mut ReplicationSource) -> Vec<SnapshotChunk> {
    let mut chunks = vec![];
    while let Some(chunk) = source.next_chunk().await.unwrap() {
        chunks.push(chunk);
    }
    chunks
}

/// The error's text, which must be of the class.
pub(crate) fn refused<T>(result: Result<T, Fault>, class: Class) -> String {
    let fault = result.err().expect("an error");
    assert_eq!(fault.class(), class, "{fault}");
    fault.to_string()
}
