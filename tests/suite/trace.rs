//! A change followed through the real servers, on each of the ways.

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::Consumer;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::Value;
use walferry_harness::eventually;
use walferry_schema::{Commit, LogRecord, Lsn, Open, PartitionCount, Term};

use crate::daemon::{Daemon, Half, PATIENCE, Pipeline, Route};
use crate::site::{Said, said};

const SCHEMA: &str = "create table t (id int primary key, v text);
                      create table pairs (a int, b text, v int, primary key (a, b));
                      create table apart (id int primary key)";
const STAGES: [&str; 4] = ["postgresql", "reader", "kafka", "mongodb"];

/// A pipeline, and what became of what was asked.
struct Traced {
    pipeline: Pipeline,
}

/// Commits statements; the LSN where their commit record ends, however much others write to the same log meanwhile.
pub(crate) async fn commit(sql: &tokio_postgres::Client, statements: &str) -> String {
    sql.batch_execute("create extension if not exists pg_walinspect; begin")
        .await
        .unwrap();
    sql.batch_execute(statements).await.unwrap();
    let before = "select pg_current_xact_id()::xid::text, pg_current_wal_insert_lsn()::text";
    let before = sql.query_one(before, &[]).await.unwrap();
    let (xid, from): (String, String) = (before.get(0), before.get(1));
    sql.batch_execute("commit").await.unwrap();
    let end = format!(
        "select end_lsn::text from pg_get_wal_records_info('{from}', pg_current_wal_flush_lsn()) \
         where xid = '{xid}' and resource_manager = 'Transaction'"
    );
    sql.query_one(&end, &[]).await.unwrap().get(0)
}

impl Traced {
    async fn new(name: &str) -> (Self, Daemon) {
        let pipeline = Pipeline::new(name, SCHEMA, "public.{t,pairs}").await;
        let daemon = pipeline.start();
        pipeline
            .sql
            .batch_execute("insert into t values (0)")
            .await
            .unwrap();
        pipeline.equal(&["t"]).await;
        (Self { pipeline }, daemon)
    }

    /// Commits; the LSN where that ends.
    async fn commit(&self, statements: &str) -> String {
        commit(&self.pipeline.sql, statements).await
    }

    /// The commit LSN of what is committed, from the position once it is applied.
    async fn commit_and_apply(&self, sql: &str) -> String {
        self.commit(sql).await;
        self.pipeline.equal(&["t", "pairs"]).await;
        let positions = self.pipeline.mongo.client().database("_walferry");
        let positions = positions.collection::<bson::Document>("positions");
        let id = bson::doc! { "_id": self.pipeline.id() };
        let position = positions.find_one(id).await.unwrap().unwrap();
        let position = position.get_document("position").unwrap();
        position.get_str("commit_lsn").unwrap().to_owned()
    }

    async fn said(&self, arguments: &[&str]) -> Said {
        said(self.pipeline.command(&[&["trace"], arguments].concat())).await
    }

    /// Waits until a change is traced to its end; a moment before, others may see it that MongoDB has not yet promised to
    /// keep.
    async fn applied(&self, lsn: &str) {
        eventually(PATIENCE, "the change to be applied", async || {
            let (code, journey) = self.json(&[lsn]).await;
            if code == Some(0) {
                Ok(())
            } else {
                Err(journey.to_string())
            }
        })
        .await
        .unwrap();
    }

    async fn json(&self, arguments: &[&str]) -> (Option<i32>, Value) {
        let said = self.said(&[arguments, &["--json"]].concat()).await;
        let journey = serde_json::from_str(&said.out);
        (
            said.code,
            journey.unwrap_or_else(|_| panic!("{}{}", said.out, said.err)),
        )
    }

    /// Sends records to the commit log: the last one's offset.
    fn forge(&self, record: &LogRecord) -> i64 {
        let producer: BaseProducer = self.kafka().create().unwrap();
        let (topic, bytes) = (self.pipeline.topic("commits"), record.to_bytes());
        let record = BaseRecord::<(), [u8]>::to(&topic).payload(&bytes);
        producer
            .send(record.partition(0))
            .map_err(|it| it.0)
            .unwrap();
        producer.flush(PATIENCE).unwrap();
        self.pipeline.end_of(&self.pipeline.client(), "commits") - 1
    }

    /// The commit log's records with their offsets.
    fn log(&self) -> Vec<(i64, LogRecord)> {
        let client = self.pipeline.client();
        let end = self.pipeline.end_of(&client, "commits");
        let mut from_there = TopicPartitionList::new();
        let topic = self.pipeline.topic("commits");
        from_there
            .add_partition_offset(&topic, 0, Offset::Beginning)
            .unwrap();
        client.assign(&from_there).unwrap();
        let mut log: Vec<(i64, LogRecord)> = Vec::new();
        while log.last().is_none_or(|(last, _)| last + 1 < end) {
            let record = client.poll(PATIENCE).expect("a record").unwrap();
            let read = LogRecord::from_bytes(record.payload().unwrap()).unwrap();
            log.push((record.offset(), read));
        }
        log
    }

    /// The LSNs of the last commit that the slot holds back: of its record, and after it.
    async fn unread_commit(&self) -> (Lsn, Lsn) {
        let peek = "select data from pg_logical_slot_peek_binary_changes($1, null, null, 'proto_version', '1', \
                    'publication_names', 'walmart_publication')";
        let slot = &self.pipeline.database.name;
        let messages = self.pipeline.sql.query(peek, &[slot]).await.unwrap();
        let messages = messages.iter().map(|row| row.get::<_, Vec<u8>>(0));
        let commit = messages.filter(|it| it[0] == b'C').last().unwrap();
        let lsn = |at: usize| Lsn(u64::from_be_bytes(commit[at..at + 8].try_into().unwrap()));
        (lsn(2), lsn(10))
    }

    fn kafka(&self) -> ClientConfig {
        let mut kafka = ClientConfig::new();
        kafka.set("bootstrap.servers", &self.pipeline.database.brokers);
        kafka
    }

    fn is_direct(&self) -> bool {
        self.pipeline.route == Route::Direct
    }
}

fn stages(journey: &Value) -> Vec<&str> {
    let stages = journey["stages"].as_array().unwrap();
    stages
        .iter()
        .map(|it| it["stage"].as_str().unwrap())
        .collect()
}

fn says(journey: &Value) -> &str {
    journey["says"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_followed_by_its_lsn_to_its_visibility() {
    let (traced, daemon) = Traced::new("followed").await;
    let lsn = traced
        .commit_and_apply("insert into t select i, 'x' from generate_series(1, 7) i")
        .await;
    let (code, journey) = traced.json(&[&lsn]).await;
    assert_eq!(
        (code, &journey["verdict"]),
        (Some(0), &"applied".into()),
        "{journey}"
    );
    let expected: &[_] = if traced.is_direct() {
        &["postgresql", "mongodb"]
    } else {
        &STAGES
    };
    assert_eq!(stages(&journey), expected, "{journey}");
    assert!(journey["slowest"].is_string(), "{journey}");
    if !traced.is_direct() {
        let records = &journey["records"][0];
        let topic = format!("{}.public.t", traced.pipeline.database.name);
        assert_eq!(records["topic"], topic);
        assert_eq!(records["count"], 7);
        let offset = |name: &str| records[name].as_i64().unwrap();
        assert_eq!(offset("last_offset") - offset("first_offset"), 6);
        assert_eq!(journey["transaction"]["commit_lsn"], lsn);
    }

    let shown = traced.said(&[&lsn]).await;
    assert_eq!(shown.code, Some(0), "{}", shown.err);
    for part in [
        "committed in PostgreSQL",
        "visible in MongoDB",
        "(slowest)",
        "\nall",
    ] {
        assert!(shown.out.contains(part), "{part} in\n{}", shown.out);
    }
    assert!(!shown.out.contains('\x1b'), "{}", shown.out);
    assert!(daemon.stop().await.success());
    // It needs no daemon.
    assert_eq!(traced.json(&[&lsn]).await.1, journey);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_transaction_of_many_is_told_from_its_neighbours() {
    let (traced, daemon) = Traced::new("neighbours").await;
    if traced.is_direct() {
        return;
    }
    let mut ends = Vec::new();
    for n in 1..=300 {
        let insert = format!("insert into t values ({n}, 'x')");
        ends.push(traced.commit(&insert).await);
    }
    traced.pipeline.equal(&["t"]).await;
    let mut before = None;
    for end in ends.iter().step_by(50) {
        let (code, journey) = traced.json(&[end]).await;
        assert_eq!(code, Some(0), "{journey}");
        let offset = journey["records"][0]["first_offset"].as_i64();
        let offset = offset.unwrap_or_else(|| panic!("{journey}"));
        if let Some(before) = before {
            assert_eq!(offset, before + 50, "{journey}");
        }
        before = Some(offset);
    }
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rows_last_change_is_followed_by_its_key() {
    let (traced, daemon) = Traced::new("keyed").await;
    traced
        .commit_and_apply(
            "insert into t values (42, 'a'); insert into pairs values (1, 'x y', 0), (2, 'x y', 0)",
        )
        .await;
    let lsn = traced
        .commit_and_apply("update t set v = 'b' where id = 42")
        .await;
    traced
        .commit_and_apply("update t set v = 'c' where id = 0")
        .await;
    let (code, journey) = traced.json(&["public.t", "42"]).await;
    assert_eq!(code, Some(0), "{journey}");
    assert!(stages(&journey).contains(&"mongodb"), "{journey}");
    if traced.is_direct() {
        assert!(journey["notes"].to_string().contains(&lsn), "{journey}");
    } else {
        assert_eq!(journey["transaction"]["commit_lsn"], lsn, "{journey}");
    }
    for key in [&["1", "x y"][..], &["{\"b\": \"x y\", \"a\": 1}"]] {
        let (code, journey) = traced.json(&[&["pairs"], key].concat()).await;
        assert_eq!(code, Some(0), "{journey}");
        assert_eq!(journey["asked"], "public.pairs {\"a\":1,\"b\":\"x y\"}");
    }
    let lsn = traced.commit_and_apply("delete from t where id = 42").await;
    let (_, deleted) = traced.json(&["t", "42"]).await;
    assert!(deleted.to_string().contains(&lsn), "{deleted}");
    let (code, never) = traced.json(&["t", "4711"]).await;
    assert_eq!(
        (code, &never["verdict"]),
        (Some(6), &"unknown".into()),
        "{never}"
    );
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_cannot_be_meant_is_exit_code_2_and_says_why() {
    let traced = Traced {
        pipeline: Pipeline::new("mistaken", SCHEMA, "public.{t,pairs}").await,
    };
    let cases: [(&[&str], &str); 7] = [
        (&["soon"], "\"soon\" is no LSN such as 0/1A2B3C4"),
        (&["public.nothing", "1"], "the source has no such table"),
        (&["apart", "1"], "public.apart is not streamed"),
        (
            &["t", "1", "2"],
            "the key of public.t is (id): 2 values do not fit it",
        ),
        (&["t", "one"], "public.t, column id: \"one\" is no int4"),
        (&["pairs", "{\"a\": 1}"], "the JSON does not say b"),
        (&["t", "99999999999"], "is no int4"),
    ];
    for (arguments, expected) in cases {
        let said = traced.said(arguments).await;
        assert_eq!(
            said.code,
            Some(2),
            "{arguments:?}: {}{}",
            said.out,
            said.err
        );
        assert!(said.err.contains(expected), "{arguments:?}: {}", said.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_applied_says_where_it_waits() {
    let (traced, mut daemon) = Traced::new("waiting").await;
    if traced.pipeline.route == Route::Split {
        daemon.kill_half(Half::Sink).await;
        let lsn = traced.commit("insert into t values (1, 'x')").await;
        eventually(PATIENCE, "the change to be in Kafka", async || {
            let (code, journey) = traced.json(&[&lsn]).await;
            let is_there = code == Some(5) && stages(&journey) == STAGES[..3];
            let says = says(&journey).to_owned();
            if is_there && says.contains("the sink stands at") {
                return Ok(());
            }
            Err(says)
        })
        .await
        .unwrap();
        daemon.start_half(&traced.pipeline, Half::Sink);
        traced.applied(&lsn).await;
    }
    assert!(daemon.stop().await.success());
    let lsn = traced.commit("insert into t values (2, 'x')").await;
    let (code, journey) = traced.json(&[&lsn]).await;
    assert_eq!(
        (code, &journey["verdict"]),
        (Some(5), &"waiting".into()),
        "{journey}"
    );
    assert_eq!(journey["stands_at"], "postgresql");
    assert!(
        says(&journey).contains("nobody reads the slot"),
        "{journey}"
    );
    let (code, never) = traced.json(&["FFFF/0"]).await;
    assert_eq!(code, Some(6));
    assert!(says(&never).contains("there is no such LSN yet"), "{never}");
    let restarted = traced.pipeline.start();
    traced.applied(&lsn).await;
    assert!(restarted.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_before_the_snapshot_is_part_of_the_copy() {
    let pipeline = Pipeline::new("copied", SCHEMA, "public.{t,pairs}").await;
    let traced = Traced { pipeline };
    let lsn = traced.commit("insert into t values (1, 'x')").await;
    let (code, nothing) = traced.json(&[&lsn]).await;
    assert_eq!(code, Some(5), "{nothing}");
    assert!(says(&nothing).contains("does not exist"), "{nothing}");
    let daemon = traced.pipeline.start();
    traced.pipeline.equal(&["t"]).await;
    let (code, journey) = traced.json(&[&lsn]).await;
    assert_eq!(code, Some(6), "{journey}");
    assert!(says(&journey).contains("the copy"), "{journey}");
    let (_, row) = traced.json(&["t", "1"]).await;
    let is_told = says(&row).contains("has not changed since") || traced.is_direct();
    assert!(is_told, "{row}");
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kafka_no_longer_holds_is_known_to_be_applied() {
    let (traced, daemon) = Traced::new("expired").await;
    if traced.is_direct() {
        return;
    }
    let lsn = traced
        .commit_and_apply("insert into t values (1, 'x')")
        .await;
    let end = traced.pipeline.end_of(&traced.pipeline.client(), "commits");
    let mut until = TopicPartitionList::new();
    let topic = traced.pipeline.topic("commits");
    until
        .add_partition_offset(&topic, 0, Offset::Offset(end))
        .unwrap();
    let admin: AdminClient<DefaultClientContext> = traced.kafka().create().unwrap();
    admin
        .delete_records(&until, &AdminOptions::new())
        .await
        .unwrap();
    let later = traced
        .commit_and_apply("insert into t values (2, 'x')")
        .await;
    let (code, journey) = traced.json(&[&lsn]).await;
    assert_eq!(code, Some(0), "{journey}");
    let expected = "older than the commit log's first record";
    assert!(says(&journey).contains(expected), "{journey}");
    assert_eq!(stages(&journey), ["mongodb"], "{journey}");
    let (code, journey) = traced.json(&[&later]).await;
    assert_eq!(
        (code, &stages(&journey)[..]),
        (Some(0), &STAGES[..]),
        "{journey}"
    );
    assert!(daemon.stop().await.success());
}

/// A reader that dies between its commit record and the rows that this counts leaves it void: rarer than a test
/// can wait for, so it is written by hand.
#[tokio::test(flavor = "multi_thread")]
async fn a_void_commit_is_told_and_the_one_that_counts_is_followed() {
    let (traced, daemon) = Traced::new("void").await;
    if traced.is_direct() {
        return;
    }
    traced
        .commit_and_apply("insert into t values (1, 'x')")
        .await;
    assert!(daemon.stop().await.success());
    traced.commit("insert into t values (2, 'x')").await;
    let (commit_lsn, end_lsn) = traced.unread_commit().await;
    let opened = |(offset, record): (i64, LogRecord)| match record {
        LogRecord::Open(open) => Some((offset, open)),
        _ => None,
    };
    let (follows, open) = traced.log().into_iter().rev().find_map(opened).unwrap();
    let generation = open.generation;
    let dead = Open { follows, ..open };
    let number = traced.forge(&LogRecord::Open(dead));
    let forged = Commit {
        term: Term { generation, number },
        xid: 1,
        commit_lsn,
        end_lsn,
        committed_at: 0,
        records: vec![PartitionCount {
            topic: traced.pipeline.topic("public.t").into(),
            partition: 0,
            count: 1,
        }],
        after: Lsn::ZERO,
    };
    let offset = traced.forge(&LogRecord::Commit(forged));
    let lsn = commit_lsn.to_string();
    assert_eq!(traced.json(&[&lsn]).await.0, Some(5));

    let daemon = traced.pipeline.start();
    traced.pipeline.equal(&["t"]).await;
    let (code, journey) = traced.json(&[&lsn]).await;
    assert_eq!(
        (code, &stages(&journey)[..]),
        (Some(0), &STAGES[..]),
        "{journey}"
    );
    let void = format!("void: the same at offset {offset} of the commit log, by term {number},");
    assert!(journey["notes"].to_string().contains(&void), "{journey}");
    assert!(
        journey["transaction"]["term"].as_i64() > Some(number),
        "{journey}"
    );
    assert!(daemon.stop().await.success());
}
