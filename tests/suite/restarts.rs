//! The restarts that lose rows elsewhere.

use std::path::Path;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use walferry_harness::{Stack, eventually, fresh_directory};

use crate::daemon::{PATIENCE, Pipeline, Route};

// The row shows that the snapshot is live: no collection at all equals an empty table.
const SCHEMA: &str =
    "create table t (id int primary key, v text default 'copied'); insert into t values (0)";
const ROWS: i64 = 60_000;
/// So many kills have to land in the middle of a transaction.
const LANDED: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_in_the_middle_of_a_copy_loses_and_repeats_nothing() {
    let pipeline = Pipeline::new("copy", SCHEMA, "public.*").await;
    let daemon = pipeline.start();
    pipeline.equal(&["t"]).await;
    daemon.kill().await;
    let client = pipeline.client();
    let mut landed = 0;
    for round in 0..10 {
        let (first, last) = (round * ROWS + 1, (round + 1) * ROWS);
        let copy = format!("copy t (id) from program 'seq {first} {last}'");
        pipeline.sql.batch_execute(&copy).await.unwrap();
        // A term sends the whole transaction again, until one gets to its end.
        let mut is_whole = false;
        while landed < LANDED && !is_whole {
            let from = pipeline.way(&client);
            let daemon = pipeline.start();
            let is_begun = async || pipeline.way(&client) > from;
            let begun = eventually(PATIENCE, "the transaction to be on its way", is_begun);
            begun.await.unwrap();
            daemon.kill().await;
            is_whole = match pipeline.route {
                Route::Direct => pipeline.has(last).await,
                Route::Kafka | Route::Split => pipeline.way(&client) - from >= ROWS,
            };
            landed += usize::from(!is_whole);
        }
        if landed == LANDED {
            break;
        }
    }
    assert_eq!(landed, LANDED, "kills in the middle of the transaction");
    let daemon = pipeline.start();
    pipeline.equal(&["t"]).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_while_a_transaction_is_open_loses_and_repeats_nothing() {
    // An open transaction would hold up the slots of other tests.
    let root = fresh_directory("uncommitted").unwrap();
    let stack = Stack::start(root.path()).await.unwrap();
    let database = stack.fresh_database("uncommitted").await.unwrap();
    let pipeline = Pipeline::over(database, SCHEMA, "public.*").await;
    let daemon = pipeline.start();
    pipeline.equal(&["t"]).await;
    let open = pipeline.database.sql().await.unwrap();
    open.batch_execute("begin; insert into t select i, 'open' from generate_series(1, 5000) i")
        .await
        .unwrap();
    pipeline
        .sql
        .batch_execute("insert into t values (-1)")
        .await
        .unwrap();
    pipeline.one(-1).await;
    daemon.kill().await;
    open.batch_execute(
        "insert into t values (-2); savepoint s; insert into t values (-3); rollback to s",
    )
    .await
    .unwrap();
    let daemon = pipeline.start();
    pipeline
        .sql
        .batch_execute("insert into t values (-4)")
        .await
        .unwrap();
    pipeline.one(-4).await;
    daemon.kill().await;
    open.batch_execute("commit").await.unwrap();
    let daemon = pipeline.start();
    pipeline.equal(&["t"]).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_that_forgot_what_it_acknowledged_is_noticed_and_a_new_snapshot_mends_it() {
    // A lone sink ends as soon as it finds the log gone; it is started again after the reader.
    if Route::chosen() != Route::Kafka {
        return;
    }
    let pipeline = Pipeline::new("forgot", SCHEMA, "public.*").await;
    let daemon = pipeline.start();
    pipeline
        .sql
        .batch_execute("insert into t values (1)")
        .await
        .unwrap();
    pipeline.equal(&["t"]).await;
    assert!(daemon.stop().await.success());
    pipeline.delete_topics(&["public.t", "commits"]).await;
    pipeline
        .sql
        .batch_execute("insert into t values (2)")
        .await
        .unwrap();
    let (code, log) = pipeline.start_apart(&["run"]).end().await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("--new-snapshot"), "{log}");
    let documents = pipeline.mongo.collection::<bson::Document>("t");
    assert_eq!(documents.count_documents(bson::doc! {}).await.unwrap(), 2);
    let daemon = pipeline.start_with(&["run", "--new-snapshot"]);
    pipeline.equal(&["t"]).await;
    assert!(daemon.stop().await.success());
}

/// As after a power cut of a broker that had acknowledged what it had not written yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_that_forgot_the_end_of_its_topics_is_noticed_and_a_new_snapshot_mends_it() {
    if Route::chosen() != Route::Kafka {
        return;
    }
    let root = fresh_directory("tail").unwrap();
    let mut stack = Stack::start(root.path()).await.unwrap();
    for forgotten in [&["public.t", "commits"][..], &["public.t"], &["commits"]] {
        forget(&mut stack, forgotten).await;
    }
}

/// Has Kafka go back in these topics to before a transaction that it acknowledged and that was applied.
async fn forget(stack: &mut Stack, topics: &[&str]) {
    let database = stack.fresh_database("tail").await.unwrap();
    let pipeline = Pipeline::over(database, SCHEMA, "public.*").await;
    let carry = async |id: i32| {
        let daemon = pipeline.start();
        let insert = format!("insert into t values ({id})");
        pipeline.sql.batch_execute(&insert).await.unwrap();
        pipeline.equal(&["t"]).await;
        assert!(daemon.stop().await.success());
    };
    carry(1).await;
    stack.kafka.stop().await.unwrap();
    let data = stack.kafka.log().with_file_name("data");
    let place = |topic| data.join(format!("{}-0", pipeline.topic(topic)));
    let kept = tempfile::tempdir().unwrap();
    let kept = |topic| kept.path().join(topic);
    for topic in topics {
        copy(&place(topic), &kept(topic));
    }
    stack.kafka.restart().await.unwrap();
    carry(2).await;
    stack.kafka.kill().await.unwrap();
    for topic in topics {
        std::fs::remove_dir_all(place(topic)).unwrap();
        copy(&kept(topic), &place(topic));
    }
    stack.kafka.restart().await.unwrap();
    let insert = "insert into t values (3)";
    pipeline.sql.batch_execute(insert).await.unwrap();
    // Rows that do not come are waited for, in case that only the reader is away; anything else ends it.
    let daemon = pipeline.start_apart(&["run"]);
    let noticed = async || {
        let log = std::fs::read_to_string(daemon.0[0].log()).unwrap();
        let is_told = log.contains("--new-snapshot");
        is_told.then_some(()).ok_or(format!("{topics:?}\n{log}"))
    };
    let what = "the daemon to name what was forgotten";
    eventually(PATIENCE, what, noticed).await.unwrap();
    daemon.kill().await;
    let daemon = pipeline.start_with(&["run", "--new-snapshot"]);
    pipeline.equal(&["t"]).await;
    assert!(daemon.stop().await.success());
}

/// Copies the files of a directory into a new one.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

impl Pipeline {
    pub(crate) fn topic(&self, name: &str) -> String {
        format!("{}.{name}", self.database.name)
    }

    /// How far a transaction came on its way: rows in Kafka, or how often a stream was begun that goes directly.
    fn way(&self, client: &BaseConsumer) -> i64 {
        if self.route == Route::Direct {
            let begun = self.log().matches("reading the stream").count();
            return begun.try_into().unwrap();
        }
        self.end_of(client, "public.t")
    }

    /// A consumer that is told what to read.
    pub(crate) fn client(&self) -> BaseConsumer {
        ClientConfig::new()
            .set("bootstrap.servers", &self.database.brokers)
            .set("group.id", self.topic("suite"))
            .set("enable.auto.commit", "false")
            .create()
            .unwrap()
    }

    /// The end of a topic's one partition.
    pub(crate) fn end_of(&self, client: &BaseConsumer, topic: &str) -> i64 {
        let bounds = client.fetch_watermarks(&self.topic(topic), 0, PATIENCE);
        bounds.unwrap().1
    }

    async fn delete_topics(&self, topics: &[&str]) {
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", &self.database.brokers)
            .create()
            .unwrap();
        let topics: Vec<_> = topics.iter().map(|topic| self.topic(topic)).collect();
        let names: Vec<_> = topics.iter().map(String::as_str).collect();
        let deleted = admin
            .delete_topics(&names, &AdminOptions::new())
            .await
            .unwrap();
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    }

    /// Waits for one document.
    pub(crate) async fn one(&self, id: i32) {
        let is_there = async || self.has(id.into()).await;
        eventually(PATIENCE, "a document", is_there).await.unwrap();
    }

    async fn has(&self, id: i64) -> bool {
        let documents = self.mongo.collection::<bson::Document>("t");
        let found = documents.find_one(bson::doc! { "_id": id }).await;
        found.is_ok_and(|found| found.is_some())
    }
}
