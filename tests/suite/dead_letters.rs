//! Changes that MongoDB cannot take, on every way of the changes.

use bson::{Document, doc};
use rdkafka::Message as _;
use rdkafka::message::OwnedMessage;
use serde_json::Value;
use walferry_harness::eventually;

use crate::daemon::{Daemon, PATIENCE, Pipeline, Route};
use crate::large::header;

const SCHEMA: &str = "
    create table t (id int primary key, a text, b text);
    create table u (id int primary key)";
/// Two of them do not fit in one document; each fits in a record.
const HALF: &str = "repeat('x', 9000000)";

/// A pipeline whose log takes each of the large values.
async fn pipeline(name: &str) -> Pipeline {
    let pipeline = Pipeline::new(name, SCHEMA, "public.*").await;
    pipeline.reconfigure("[kafka]\n", "[kafka]\nmax_record_bytes = \"12MiB\"\n");
    pipeline
}

pub(crate) async fn json(pipeline: &Pipeline, arguments: &[&str]) -> Value {
    let command = pipeline.command(&[arguments, &["--json"]].concat());
    let said = crate::site::said(command).await;
    serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

async fn execute(pipeline: &Pipeline, sql: &str) {
    pipeline.sql.batch_execute(sql).await.unwrap();
}

/// A daemon that follows, over a row with one large column.
async fn begun(pipeline: &Pipeline) -> Daemon {
    let daemon = pipeline.start();
    // The other column stays where it is: TOAST, which the next change does not carry.
    let insert = format!(
        "alter table t alter a set storage external; insert into t values (1, {HALF}, 'b')"
    );
    execute(pipeline, &insert).await;
    pipeline.equal(&["t"]).await;
    daemon
}

/// The dead letters that stand, once there are so many.
pub(crate) async fn letters(pipeline: &Pipeline, count: usize) -> Vec<Value> {
    let attempt = async || {
        let listed = json(pipeline, &["dead-letter", "list"]).await;
        match listed["letters"].as_array() {
            Some(letters) if letters.len() == count => Ok(letters.clone()),
            _ => Err(format!("{listed}\n{}", pipeline.log())),
        }
    };
    let found = eventually(PATIENCE, "the dead letters", attempt).await;
    found.unwrap_or_else(|error| panic!("{error}"))
}

async fn field(pipeline: &Pipeline, id: i32, name: &str) -> Option<String> {
    let documents = pipeline.mongo.collection::<Document>("t");
    let found = documents.find_one(doc! { "_id": id }).await.unwrap()?;
    Some(found.get_str(name).unwrap().to_owned())
}

/// The parts of a dead letter on its topic.
fn published(pipeline: &Pipeline, letter: &Value) -> Vec<OwnedMessage> {
    let topic = format!("{}.dead-letter", pipeline.database.name);
    let is_its = |it: &OwnedMessage| letter["id"] == header(it, "walferry.letter");
    pipeline.messages_where(&topic, is_its)
}

/// Sees that the whole change stands on the topic, with why it does; where there is a topic.
fn assert_published(pipeline: &Pipeline, letter: &Value) {
    if pipeline.route == Route::Direct {
        return;
    }
    let parts = published(pipeline, letter);
    assert!(parts.len() > 8, "9 MB in parts of 1 MiB: {}", parts.len());
    let mut value = Vec::new();
    for (part, number) in parts.iter().zip(1..) {
        let place = format!("{number}/{}", parts.len());
        assert_eq!(header(part, "walferry.part"), place);
        assert_eq!(header(part, "walferry.table"), "public.t");
        assert_eq!(letter["error"], header(part, "walferry.error"));
        assert_eq!(part.key(), Some(&b"{\"_id\":1}"[..]));
        value.extend(part.payload().unwrap());
    }
    let value: Value = serde_json::from_slice(&value).unwrap();
    assert_eq!((&value["_id"], value.get("a")), (&1.into(), None));
    assert_eq!(value["b"].as_str().map(str::len), Some(9_000_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_grows_too_large_waits_alone_with_all_that_follows_until_it_is_small_again() {
    let pipeline = pipeline("letters").await;
    let daemon = begun(&pipeline).await;
    let grown = format!(
        "begin; insert into u values (1); update t set b = {HALF} where id = 1; insert into u values (2); commit"
    );
    execute(&pipeline, &grown).await;
    pipeline.equal(&["u"]).await;
    let first = letters(&pipeline, 1).await;
    assert_eq!(
        (&first[0]["table"], &first[0]["key"]),
        (&"public.t".into(), &"1".into())
    );
    let error = first[0]["error"].as_str().unwrap();
    assert!(
        error.contains("MongoDB refuses it: BSONObj size"),
        "{error}"
    );
    assert_eq!(field(&pipeline, 1, "b").await.as_deref(), Some("b"));
    assert_published(&pipeline, &first[0]);

    daemon.kill().await;
    let daemon = pipeline.start();
    execute(
        &pipeline,
        "update t set b = 'c' where id = 1; insert into u values (3)",
    )
    .await;
    pipeline.equal(&["u"]).await;
    let behind = letters(&pipeline, 2).await;
    // What only waits is no dead letter to others.
    assert!(published(&pipeline, &behind[1]).is_empty());
    assert_eq!(
        field(&pipeline, 1, "b").await.as_deref(),
        Some("b"),
        "{behind:?}"
    );
    let compared = json(&pipeline, &["verify", "t"]).await;
    let table = &compared["tables"][0];
    assert_eq!(
        (&table["different"], &table["parked"]),
        (&1.into(), &1.into()),
        "{compared}"
    );
    assert_eq!(compared["examples"][0]["parked"], true, "{compared}");

    let id = behind[1]["id"].as_str().unwrap();
    let shown = json(&pipeline, &["dead-letter", "show", id]).await;
    assert_eq!(shown["content"]["b"], "c", "{shown}");
    let reason = ["--reason", "small again"];
    let given = json(
        &pipeline,
        &[&["dead-letter", "retry", "--id", id][..], &reason].concat(),
    )
    .await;
    assert_eq!(given["letters"], 1, "{given}");
    pipeline.equal(&["t", "u"]).await;
    letters(&pipeline, 0).await;
    execute(&pipeline, "update t set b = 'd' where id = 1").await;
    pipeline.equal(&["t"]).await;
    let settled = json(&pipeline, &["dead-letter", "list", "--settled"]).await;
    let states: Vec<_> = settled["letters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["state"])
        .collect();
    assert_eq!(states, ["retried", "retried"], "{settled}");
    assert_eq!(settled["letters"][0]["settled"]["reason"], "small again");
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_discarded_stays_out_until_a_change_has_all_of_the_row() {
    let pipeline = pipeline("discard").await;
    let daemon = begun(&pipeline).await;
    execute(&pipeline, &format!("update t set b = {HALF} where id = 1")).await;
    letters(&pipeline, 1).await;
    let given = json(&pipeline, &["dead-letter", "discard", "--table", "t"]).await;
    assert_eq!(given["letters"], 1, "{given}");
    letters(&pipeline, 0).await;
    daemon.kill().await;
    let daemon = pipeline.start();
    execute(
        &pipeline,
        "update t set b = 'c' where id = 1; insert into u values (1)",
    )
    .await;
    pipeline.equal(&["u"]).await;
    assert_eq!(field(&pipeline, 1, "b").await.as_deref(), Some("b"));
    execute(&pipeline, "update t set a = 'a', b = 'd' where id = 1").await;
    pipeline.equal(&["t"]).await;
    execute(&pipeline, "update t set b = 'e' where id = 1").await;
    pipeline.equal(&["t"]).await;
    letters(&pipeline, 0).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_gets_a_new_key_takes_its_dead_letters_along() {
    let pipeline = pipeline("moved").await;
    let daemon = begun(&pipeline).await;
    execute(&pipeline, &format!("update t set b = {HALF} where id = 1")).await;
    letters(&pipeline, 1).await;
    // One that lacks a column, and one that has all of the row.
    execute(&pipeline, "update t set id = 2, b = 'c' where id = 1").await;
    execute(
        &pipeline,
        "update t set id = 3, a = 'a' where id = 2; insert into u values (1)",
    )
    .await;
    pipeline.equal(&["u"]).await;
    assert_eq!(field(&pipeline, 1, "b").await.as_deref(), Some("b"));
    for id in [2, 3] {
        assert_eq!(field(&pipeline, id, "b").await, None, "{id}");
    }
    json(&pipeline, &["dead-letter", "retry", "--all"]).await;
    pipeline.equal(&["t"]).await;
    letters(&pipeline, 0).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_makes_dead_letters_obsolete() {
    let pipeline = pipeline("emptied").await;
    let daemon = begun(&pipeline).await;
    execute(&pipeline, &format!("update t set b = {HALF} where id = 1")).await;
    letters(&pipeline, 1).await;
    execute(&pipeline, "truncate t; insert into t values (1, 'a', 'b')").await;
    pipeline.equal(&["t"]).await;
    letters(&pipeline, 0).await;
    let settled = json(&pipeline, &["dead-letter", "list", "--settled"]).await;
    assert_eq!(settled["letters"][0]["state"], "obsolete", "{settled}");
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_too_large_when_it_is_inserted_or_copied_is_parked() {
    let pipeline = pipeline("copied").await;
    if pipeline.route != Route::Direct {
        // A record of it is larger than Kafka takes.
        return;
    }
    let large = |id| format!("insert into t values ({id}, {HALF}, {HALF})");
    execute(&pipeline, &large(1)).await;
    let daemon = pipeline.start();
    letters(&pipeline, 1).await;
    execute(&pipeline, &large(2)).await;
    letters(&pipeline, 2).await;
    execute(
        &pipeline,
        "update t set a = 'a', b = 'b'; insert into u values (1)",
    )
    .await;
    letters(&pipeline, 4).await;
    pipeline.equal(&["u"]).await;
    json(&pipeline, &["dead-letter", "retry", "--all"]).await;
    pipeline.equal(&["t"]).await;
    letters(&pipeline, 0).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_to_stop_for_it_does_and_offers_the_way_past() {
    let pipeline = pipeline("stops").await;
    pipeline.stop_on_poison();
    let daemon = begun(&pipeline).await;
    execute(&pipeline, &format!("update t set b = {HALF} where id = 1")).await;
    let ended = daemon.0.last().unwrap().wait(PATIENCE).await.unwrap();
    assert_eq!(ended.code(), Some(1), "{}", pipeline.log());
    let log = pipeline.log();
    assert!(log.contains("walferry skip --commit"), "{log}");
    let listed = json(&pipeline, &["dead-letter", "list"]).await;
    assert_eq!(listed["letters"], serde_json::json!([]));
    let said = crate::site::said(pipeline.command(&["dead-letter", "retry", "--all"])).await;
    assert!(
        said.code == Some(1) && said.err.contains("dead-letter list"),
        "{said:?}"
    );
    let said = crate::site::said(pipeline.command(&["dead-letter", "show", "7/0/1/2"])).await;
    assert!(
        said.code == Some(1) && said.err.contains("7/0/1/2"),
        "{said:?}"
    );
}
