//! A shared mongod with fail points, and what the tests say often.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use mongodb::{Client, Database};
use tokio::sync::{Mutex, MutexGuard, OnceCell};
use walferry_core::{Applied, Batch, Checkpoint, Fault, PipelineState, RowEvent, Sink, Target};
use walferry_harness::{
    PATIENCE, Process, eventually, free_port, fresh_directory, project_root, unique,
};
use walferry_mongodb::{MongoSink, Settings};
use walferry_schema::{
    Column, Field, Image, Lsn, Phase, Position, TableName, TableSpec, Term, Type, Value,
};

pub(crate) type Tested = Result<(), Failure>;

/// Any error: a fault is none of the standard library's.
#[derive(Debug)]
pub(crate) struct Failure(#[expect(dead_code, reason = "shown when a test fails")] String);

struct Server {
    _process: Process,
    port: u16,
}

/// One test's database, pipeline and client.
pub(crate) struct Fixture {
    pub(crate) database: Database,
    pub(crate) settings: Settings,
    pub(crate) table: TableName,
}

// === impl Failure ===

impl<E: std::fmt::Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

// === impl Fixture ===

impl Fixture {
    pub(crate) async fn new() -> Self {
        let name = unique("sink");
        let port = server().await.port;
        let url = format!(
            "mongodb://127.0.0.1:{port}/?replicaSet=rs0&heartbeatFrequencyMS=500&appName={name}"
        );
        let client = Client::with_uri_str(&url).await.unwrap();
        let mut settings = Settings::new(url, &name, &name);
        settings.retry_timeout = Duration::from_secs(20);
        Self {
            database: client.database(&name),
            settings,
            table: TableName::new("public", "t"),
        }
    }

    pub(crate) async fn sink(&self) -> MongoSink {
        MongoSink::connect(self.settings.clone()).await.unwrap()
    }

    /// A sink that has claimed the pipeline.
    pub(crate) async fn claimed(&self) -> MongoSink {
        let mut sink = self.sink().await;
        sink.claim().await.unwrap();
        sink
    }

    pub(crate) async fn apply(
        &self,
        sink: &mut MongoSink,
        events: Vec<RowEvent<'_>>,
    ) -> Result<Applied, Fault> {
        let mut batch = sink.batch();
        for (ordinal, event) in events.into_iter().enumerate() {
            batch.push(&self.target(ordinal as u64), event)?;
        }
        sink.apply(batch, &checkpoint(1)).await
    }

    pub(crate) fn target(&self, ordinal: u64) -> Target<'_> {
        Target {
            table: &self.table,
            staging: None,
            position: at(ordinal),
            committed_at: None,
            xid: None,
            oversize: None,
            whole: None,
        }
    }

    pub(crate) async fn documents(&self, collection: &str) -> Vec<Document> {
        let collection = self.database.collection::<Document>(collection);
        let found = collection
            .find(doc! {})
            .sort(doc! { "_id": 1 })
            .await
            .unwrap();
        found.try_collect().await.unwrap()
    }

    pub(crate) async fn position(&self) -> Document {
        let positions = self.database.client().database("_walferry");
        let positions = positions.collection::<Document>("positions");
        let found = positions
            .find_one(doc! { "_id": &self.settings.pipeline })
            .await;
        found.unwrap().unwrap()
    }

    /// Makes the server fail commands of this test's clients; one test at a time.
    pub(crate) async fn fail(&self, times: i32, mut data: Document) -> Failing {
        static ALONE: Mutex<()> = Mutex::const_new(());
        let alone = ALONE.lock().await;
        data.insert("appName", &self.settings.pipeline);
        let command =
            doc! { "configureFailPoint": "failCommand", "mode": { "times": times }, "data": data };
        let answer = self.admin(command).await;
        let entered = answer.get("count").and_then(|count| {
            let long = count.as_i64();
            long.or(count.as_i32().map(i64::from))
        });
        Failing {
            _alone: alone,
            entered: entered.unwrap(),
        }
    }

    /// Waits until a command has met what [`Self::fail`] has set.
    pub(crate) async fn until_met(&self, failing: &Failing) {
        let wait = doc! {
            "waitForFailPoint": "failCommand",
            "timesEntered": failing.entered + 1,
            "maxTimeMS": 300_000,
        };
        self.admin(wait).await;
    }

    /// Has the server answer again, where nothing met the fail point.
    pub(crate) async fn off(&self, failing: Failing) {
        self.admin(doc! { "configureFailPoint": "failCommand", "mode": "off" })
            .await;
        drop(failing);
    }

    async fn admin(&self, command: Document) -> Document {
        let admin = self.database.client().database("admin");
        admin.run_command(command).await.unwrap()
    }

    pub(crate) fn spec(&self) -> TableSpec {
        TableSpec {
            name: self.table.clone(),
            oid: 1,
            key: vec!["id".into()],
            topic: "t".into(),
            partitions: 1,
        }
    }
}

/// A fail point that is set; no other is while this stands.
pub(crate) struct Failing {
    _alone: MutexGuard<'static, ()>,
    /// How often commands had met it before.
    entered: i64,
}

async fn server() -> &'static Server {
    static SHARED: OnceCell<Server> = OnceCell::const_new();
    SHARED.get_or_init(start).await
}

async fn start() -> Server {
    let directory = fresh_directory("mongodb").unwrap().keep();
    let mongod = std::env::var_os("MONGOD").map_or_else(
        || project_root().join(".tools/mongod/mongod"),
        PathBuf::from,
    );
    let port = free_port().unwrap();
    let data = directory.join("data");
    std::fs::create_dir(&data).unwrap();
    let mut command = Command::new(mongod);
    command.arg("--dbpath").arg(data);
    command.args([
        "--port",
        &port.to_string(),
        "--bind_ip",
        "127.0.0.1",
        "--nounixsocket",
    ]);
    command.args([
        "--replSet",
        "rs0",
        "--oplogSize",
        "512",
        "--wiredTigerCacheSizeGB",
        "0.5",
    ]);
    command.args(["--setParameter", "enableTestCommands=1"]);
    command.args(["--setParameter", "diagnosticDataCollectionEnabled=false"]);
    let process = Process::spawn(&command, &directory.join("mongo.log")).unwrap();
    let url = format!("mongodb://127.0.0.1:{port}/?directConnection=true");
    let admin = Client::with_uri_str(url).await.unwrap().database("admin");
    let host = format!("127.0.0.1:{port}");
    let members = doc! { "_id": "rs0", "members": [{ "_id": 0, "host": host }] };
    let answers = eventually(PATIENCE, "mongod to answer", async || {
        admin.run_command(doc! { "ping": 1 }).await
    });
    answers.await.unwrap();
    admin
        .run_command(doc! { "replSetInitiate": members })
        .await
        .unwrap();
    let ready = eventually(PATIENCE, "mongod to be primary", async || {
        let hello = admin.run_command(doc! { "hello": 1 }).await.unwrap();
        hello.get_bool("isWritablePrimary").unwrap_or_default()
    });
    ready.await.unwrap();
    Server {
        _process: process,
        port,
    }
}

pub(crate) fn at(ordinal: u64) -> Position {
    Position {
        generation: 7,
        phase: Phase::Stream(Lsn(0x100)),
        ordinal,
    }
}

pub(crate) fn checkpoint(log_offset: i64) -> Checkpoint {
    Checkpoint {
        state: PipelineState::Live,
        generation: 7,
        term: Term {
            generation: 7,
            number: 3,
        },
        position: Some(at(9)),
        end_lsn: Lsn(0x131),
        committed_at: None,
        log_offset,
        log_check: u64::MAX,
        partitions: [].into(),
        server: None,
        tables: Vec::new(),
    }
}

pub(crate) fn column(name: &str, type_name: &str, key: u16) -> Column {
    Column {
        name: name.into(),
        type_name: type_name.into(),
        kind: Type::from_name(type_name),
        key,
    }
}

/// `id` (the key), `a`, `b`.
pub(crate) fn columns() -> Arc<[Column]> {
    vec![
        column("id", "int4", 1),
        column("a", "int4", 0),
        column("b", "text", 0),
    ]
    .into()
}

/// A row of [`columns`]; without `b` it is unchanged.
pub(crate) fn row<'a>(columns: &'a [Column], id: i32, a: i32, b: Option<&'a str>) -> Image<'a> {
    let b = b.map_or(Field::Absent, |b| Field::Present(Value::Text(b.into())));
    let fields = vec![
        Field::Present(Value::Int4(id)),
        Field::Present(Value::Int4(a)),
        b,
    ];
    Image { columns, fields }
}

/// The key of a row of [`columns`].
pub(crate) fn key(columns: &[Column], id: i32) -> Image<'_> {
    let fields = vec![
        Field::Present(Value::Int4(id)),
        Field::Absent,
        Field::Absent,
    ];
    Image { columns, fields }
}

/// The document of [`row`].
pub(crate) fn document(id: i32, a: i32, b: &str) -> Document {
    doc! { "_id": id, "id": id, "a": a, "b": b }
}

pub(crate) fn int(value: Option<&Bson>) -> i64 {
    value.and_then(Bson::as_i64).unwrap()
}
