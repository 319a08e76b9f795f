//! Kills at chosen places, each proved to have landed there.
//!
//! - In the middle of a source transaction on its way to Kafka: rows of the dead reader's term stand in the
//!   topic, fewer than the transaction has, and no commit of that term is in the log.
//! - Between the writes to MongoDB and their commit: mongod holds the commit back, and nobody sees the writes.
//! - After the commit and before its reply: mongod holds the reply back, and everybody sees the writes.
//!
//! The fail points are mongod's own; the engine has none.

use std::collections::BTreeMap;
use std::time::Duration;

use bson::{Bson, Document, doc};
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{Offset, TopicPartitionList};
use walferry_harness::{Stack, eventually, fresh_directory};
use walferry_schema::header::{POSITION, Stamp};
use walferry_schema::{LogRecord, Phase, Term};

use super::oplog;
use super::reader::number;
use crate::daemon::{Daemon, Half, PATIENCE, Pipeline, Route};

const SCHEMA: &str = "
    create table t (id int8 primary key);
    insert into t values (0);
    create table history (writer int, n int8, primary key (writer, n));
";
/// Rows of a transaction that takes Kafka a while.
const ROWS: i64 = 60_000;
/// How often each place is hit.
const ROUNDS: usize = 2;
/// So many transactions may pass whole before one is cut.
const TRIES: usize = 10;
/// Longer than anything takes: it is the kill, or the next claim, that ends a hold.
const HELD: Duration = Duration::from_mins(5);

#[tokio::test(flavor = "multi_thread")]
async fn kills_within_a_transaction_before_its_commit_and_before_the_reply_lose_and_double_nothing()
{
    let root = fresh_directory("landings").unwrap();
    let stack = Stack::start_with_fail_points(root.path()).await.unwrap();
    let database = stack.fresh_database("landings").await.unwrap();
    let pipeline = Pipeline::over(database, SCHEMA, "public.*").await;
    let mut landings = Landings::start(pipeline).await;
    for _ in 0..ROUNDS {
        if landings.pipeline.route != Route::Direct {
            landings.kill_within_a_source_transaction().await;
        }
        landings.kill_before_the_commit().await;
        landings.kill_before_the_reply().await;
    }
    landings.check().await;
}

/// A pipeline that is killed, and what it was given.
struct Landings {
    pipeline: Pipeline,
    daemon: Daemon,
    /// Committed history rows.
    history: i64,
}

// === impl Landings ===

impl Landings {
    async fn start(pipeline: Pipeline) -> Self {
        let daemon = pipeline.start();
        // The row shows that the snapshot is in: from here on the oplog tells of every row by its name.
        pipeline.equal(&["t"]).await;
        Self {
            pipeline,
            daemon,
            history: 0,
        }
    }

    async fn kill_within_a_source_transaction(&mut self) {
        let client = self.pipeline.client();
        for _ in 0..TRIES {
            self.daemon.kill_half(Half::Reader).await;
            self.commit(ROWS).await;
            let from = self.pipeline.end_of(&client, "public.t");
            self.daemon.start_half(&self.pipeline, Half::Reader);
            let is_begun = async || self.pipeline.end_of(&client, "public.t") > from;
            eventually(PATIENCE, "rows to come to Kafka", is_begun)
                .await
                .unwrap();
            self.daemon.kill_half(Half::Reader).await;
            let is_cut = self.is_cut(&client, from);
            self.daemon.start_half(&self.pipeline, Half::Reader);
            self.applied().await;
            if is_cut {
                return;
            }
        }
        panic!("no kill landed within a transaction");
    }

    async fn kill_before_the_commit(&mut self) {
        let commits = doc! {
            "failCommands": ["commitTransaction"],
            "blockConnection": true,
            "blockTimeMS": i64::try_from(HELD.as_millis()).unwrap(),
        };
        // Once: mongod holds it until the next claim ends the orphan's session.
        self.hold("failCommand", doc! { "times": 1 }, commits).await;
        assert!(!self.is_visible().await, "the commit was held back");
        self.daemon.kill_half(Half::Sink).await;
        assert!(!self.is_visible().await, "the orphan is not committed");
        self.daemon.start_half(&self.pipeline, Half::Sink);
        self.applied().await;
    }

    async fn kill_before_the_reply(&mut self) {
        let point = "waitAfterCommandFinishesExecution";
        let release = doc! { "configureFailPoint": point, "mode": "off" };
        for _ in 0..TRIES {
            let commits = doc! { "commands": ["commitTransaction"] };
            self.hold(point, "alwaysOn", commits).await;
            let is_executed = self.is_visible().await;
            if is_executed {
                self.daemon.kill_half(Half::Sink).await;
            }
            self.admin(release.clone()).await;
            if is_executed {
                self.daemon.start_half(&self.pipeline, Half::Sink);
                // Only what comes after it shows that the next sink goes on.
                self.commit(1).await;
            }
            self.applied().await;
            if is_executed {
                return;
            }
            // What was held was the commit of a heartbeat that came first.
        }
        panic!("no kill landed between a commit and its reply");
    }

    async fn check(self) {
        self.pipeline.equal(&["t", "history"]).await;
        let applied = oplog::read(&self.pipeline.mongo).await;
        assert_eq!(applied.histories, BTreeMap::from([(1, self.history)]));
        let log = self.pipeline.log();
        assert!(!log.contains("operations were mended"), "{log}");
        assert!(self.daemon.stop().await.success());
    }

    /// One source transaction: rows, and the next of the history.
    async fn commit(&mut self, rows: i64) {
        self.history += 1;
        let transaction = format!(
            "begin; insert into t select (select coalesce(max(id), 0) from t) + i from generate_series(1, {rows}) i; \
             insert into history values (1, {}); commit",
            self.history
        );
        self.pipeline.sql.batch_execute(&transaction).await.unwrap();
    }

    /// Gives the sink a transaction and waits until mongod holds the sink's commit at a fail point.
    async fn hold(&mut self, point: &str, mode: impl Into<Bson>, data: Document) {
        let set = doc! { "configureFailPoint": point, "mode": mode.into(), "data": data };
        let answer = self.admin(set).await;
        let entered = number(&answer, "count");
        self.commit(1).await;
        let wait = doc! {
            "waitForFailPoint": point,
            "timesEntered": entered + 1,
            "maxTimeMS": i64::try_from(PATIENCE.as_millis()).unwrap(),
        };
        self.admin(wait).await;
        let waiting = self.daemon.0.iter().all(|it| it.status().is_none());
        assert!(waiting, "{}", self.pipeline.log());
    }

    async fn admin(&self, command: Document) -> Document {
        let admin = self.pipeline.mongo.client().database("admin");
        admin.run_command(command).await.unwrap()
    }

    /// Waits until the last transaction is in MongoDB.
    async fn applied(&self) {
        let is_there = async || self.is_visible().await;
        if let Err(error) = eventually(PATIENCE, "the last history row", is_there).await {
            panic!("{error}\n{}", self.pipeline.log());
        }
    }

    async fn is_visible(&self) -> bool {
        let history = self.pipeline.mongo.collection::<Document>("history");
        let last = history.find_one(doc! { "n": self.history }).await;
        last.unwrap().is_some()
    }

    /// Whether the newest term was cut within the large transaction, the last one that it sent rows of:
    /// there are some of them, from this offset on, and nothing that counts them.
    fn is_cut(&self, client: &BaseConsumer, from: i64) -> bool {
        let rows = self.records(client, "public.t", from, place_of);
        let last = *rows.iter().max().expect("rows were seen");
        let sent = rows.iter().filter(|place| **place == last).count();
        let commits = self.records(client, "commits", 0, |record| match log_record(record) {
            LogRecord::Commit(commit) => Some((commit.term, Phase::Stream(commit.commit_lsn))),
            _ => None,
        });
        let is_counted = commits.contains(&Some(last));
        eprintln!("landings: {sent} of {ROWS} rows were sent, counted: {is_counted}");
        (2..usize::try_from(ROWS).unwrap()).contains(&sent) && !is_counted
    }

    /// What there is of each record of a topic's one partition.
    fn records<T>(
        &self,
        client: &BaseConsumer,
        topic: &str,
        from: i64,
        read: impl Fn(&BorrowedMessage<'_>) -> T,
    ) -> Vec<T> {
        let end = self.pipeline.end_of(client, topic);
        let topic = self.pipeline.topic(topic);
        let mut from_there = TopicPartitionList::new();
        let added = from_there.add_partition_offset(&topic, 0, Offset::Offset(from));
        added.unwrap();
        client.assign(&from_there).unwrap();
        let mut read_so_far = Vec::new();
        while end > from + i64::try_from(read_so_far.len()).unwrap() {
            let record = client.poll(PATIENCE).expect("a record").unwrap();
            read_so_far.push(read(&record));
        }
        client.unassign().unwrap();
        read_so_far
    }
}

/// The term and the transaction that a row belongs to.
fn place_of(record: &BorrowedMessage<'_>) -> (Term, Phase) {
    let headers = record.headers().unwrap();
    let stamp = headers.iter().find(|header| header.key == POSITION);
    let stamp = std::str::from_utf8(stamp.unwrap().value.unwrap()).unwrap();
    let stamp: Stamp = stamp.parse().unwrap();
    (stamp.term, stamp.phase)
}

fn log_record(record: &BorrowedMessage<'_>) -> LogRecord {
    LogRecord::from_bytes(record.payload().unwrap()).unwrap()
}
