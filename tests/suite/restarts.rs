//! The restarts that lose rows elsewhere.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use walferry_harness::eventually;

use crate::daemon::{PATIENCE, Pipeline, Route};

// The row shows that the snapshot is live: no collection at all equals an empty table.
const SCHEMA: &str =
    "create table t (id int primary key, v text default 'copied'); insert into t values (0)";
const ROWS: i64 = 60_000;
/// So many kills have to land in the middle of a transaction.
const LANDED: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_in_the_middle_of_a_copy_loses_and_repeats_nothing() {
    if Route::chosen() == Route::Direct {
        return;
    }
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
            let from = pipeline.end_of(&client, "public.t");
            let daemon = pipeline.start();
            let is_begun = async || pipeline.end_of(&client, "public.t") > from;
            eventually(PATIENCE, "rows to come to Kafka", is_begun)
                .await
                .unwrap();
            daemon.kill().await;
            is_whole = pipeline.end_of(&client, "public.t") - from >= ROWS;
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
    let root = walferry_harness::fresh_directory("uncommitted").unwrap();
    let stack = walferry_harness::Stack::start(root.path()).await.unwrap();
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

impl Pipeline {
    pub(crate) fn topic(&self, name: &str) -> String {
        format!("{}.{name}", self.database.name)
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
        let bounds = client.fetch_watermarks(&self.topic(topic), 0, Duration::from_secs(10));
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
        let documents = self.mongo.collection::<bson::Document>("t");
        let is_there = async || {
            let found = documents.find_one(bson::doc! { "_id": id }).await;
            found.is_ok_and(|found| found.is_some())
        };
        eventually(PATIENCE, "a document", is_there).await.unwrap();
    }
}
