//! Large rows and wide tables, on real servers.

use std::time::Duration;

use bson::{Document, doc};
use futures_util::TryStreamExt as _;
use rdkafka::admin::{AdminOptions, ResourceSpecifier};
use rdkafka::message::{Headers as _, OwnedMessage};
use rdkafka::{ClientConfig, Message as _};
use serde_json::Value;
use walferry_harness::eventually;

use crate::daemon::{PATIENCE, Pipeline, Route};
use crate::dead_letters::{json, letters};

/// PostgreSQL's maximum.
const MOST_COLUMNS: usize = 1_600;
const BYTEA: &str = "create table blob (id int primary key, tag text, data bytea);
    alter table blob alter data set storage external";

/// Sets keys of `[kafka]`, where the changes go through it.
fn set_kafka(pipeline: &Pipeline, keys: &str) {
    pipeline.reconfigure("[kafka]\n", &format!("[kafka]\n{keys}\n"));
}

/// A statement's expression for this many bytes that follow no pattern.
fn bytes(count: usize) -> String {
    format!(
        "(select decode(string_agg(md5((random() * i)::text), ''), 'hex') from generate_series(1, {}) i)",
        count / 16
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bytea_of_ten_megabytes_is_copied_and_streamed_exactly() {
    let pipeline = Pipeline::new("tenmegabytes", BYTEA, "public.*").await;
    set_kafka(&pipeline, "max_record_bytes = \"16MiB\"");
    let insert = async |id: i32| {
        let insert = format!("insert into blob values ({id}, 'a', {})", bytes(10_000_000));
        pipeline.sql.batch_execute(&insert).await.unwrap();
    };
    insert(1).await;
    let daemon = pipeline.start();
    pipeline.equal(&["blob"]).await;
    insert(2).await;
    let rest = "update blob set tag = 'b' where id = 1; update blob set id = 3 where id = 2; \
                update blob set data = substr(data, 2) where id = 1";
    pipeline.sql.batch_execute(rest).await.unwrap();
    pipeline.equal(&["blob"]).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_the_most_columns_is_copied_and_streamed_exactly() {
    let columns: Vec<_> = (1..MOST_COLUMNS).map(|n| format!("c{n} int2")).collect();
    let schema = format!(
        "create table wide (id int primary key, {})",
        columns.join(", ")
    );
    let pipeline = Pipeline::new("wide", &schema, "public.*").await;
    let insert = async |id: i32| {
        let values: Vec<_> = (1..MOST_COLUMNS)
            .map(|n| (n % 7 > 0).then_some(n))
            .collect();
        let text = |value: Option<usize>| value.map_or("null".to_owned(), |n| n.to_string());
        let values: Vec<_> = values.into_iter().map(text).collect();
        let insert = format!("insert into wide values ({id}, {})", values.join(", "));
        pipeline.sql.batch_execute(&insert).await.unwrap();
    };
    insert(1).await;
    insert(2).await;
    let daemon = pipeline.start();
    pipeline.equal(&["wide"]).await;
    insert(3).await;
    let rest = "update wide set c1599 = -1 where id = 1; update wide set id = 4 where id = 2; \
                delete from wide where id = 3; insert into wide (id) values (5)";
    pipeline.sql.batch_execute(rest).await.unwrap();
    pipeline.equal(&["wide"]).await;
    assert!(daemon.stop().await.success());
}

/// A header of a record; empty when it is not there.
pub(crate) fn header<'a>(message: &'a OwnedMessage, name: &str) -> &'a str {
    let mut headers = message.headers().into_iter().flat_map(|it| it.iter());
    let found = headers.find(|header| header.key == name);
    let value = found.and_then(|header| header.value).unwrap_or_default();
    std::str::from_utf8(value).unwrap()
}

/// A setting of a topic.
async fn setting(pipeline: &Pipeline, topic: &str, name: &str) -> Option<String> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &pipeline.database.brokers);
    let admin: rdkafka::admin::AdminClient<_> = config.create().unwrap();
    let asked = [ResourceSpecifier::Topic(topic)];
    let answers = admin.describe_configs(&asked, &AdminOptions::new()).await;
    let answer = answers.unwrap().remove(0).unwrap();
    answer.get(name).and_then(|entry| entry.value.clone())
}

/// The newest marker of a key with all of its parts: a reader that failed in between sends them again.
async fn marked(
    pipeline: &Pipeline,
    id: i32,
    patience: Duration,
) -> (OwnedMessage, Vec<OwnedMessage>) {
    let topic = |name: &str| format!("{}.{name}", pipeline.database.name);
    let key = format!("{{\"id\":{id}}}");
    let is_its = |row: &OwnedMessage| row.key() == Some(key.as_bytes());
    let found = eventually(patience, "the marker and its parts", async || {
        let markers = pipeline.messages_where(&topic("public.blob"), is_its);
        let marker = markers.into_iter().last().ok_or("there is no marker")?;
        let oversize: Value = serde_json::from_str(header(&marker, "walferry.oversize")).unwrap();
        let position = header(&marker, "walferry.position");
        let is_part = |part: &OwnedMessage| header(part, "walferry.position") == position;
        let parts = pipeline.messages_where(&topic("dead-letter"), is_part);
        if oversize["parts"] != parts.len() {
            return Err(format!("{} parts of {oversize}", parts.len()));
        }
        Ok((marker, parts))
    });
    found.await.unwrap()
}

/// The value that the parts of one dead letter give, its parts checked.
fn whole(parts: &[OwnedMessage]) -> Value {
    let mut value = Vec::new();
    for (part, number) in parts.iter().zip(1..) {
        assert_eq!(
            header(part, "walferry.part"),
            format!("{number}/{}", parts.len())
        );
        assert_eq!(header(part, "walferry.table"), "public.blob");
        assert!(header(part, "walferry.error").contains("larger than"));
        let payload = part.payload().unwrap();
        assert!(payload.len() <= 1 << 20);
        value.extend_from_slice(payload);
    }
    serde_json::from_slice(&value).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_above_what_kafka_takes_leaves_a_marker_and_stands_in_parts() {
    let pipeline = Pipeline::new("oversize", BYTEA, "public.*").await;
    let daemon = pipeline.start();
    pipeline.equal(&["blob"]).await;
    let insert = format!(
        "insert into blob values (1, 'a', '\\x01'); insert into blob values (7, 'b', {})",
        bytes(3_000_000)
    );
    pipeline.sql.batch_execute(&insert).await.unwrap();
    if pipeline.route == Route::Direct {
        pipeline.equal(&["blob"]).await;
        assert!(daemon.stop().await.success());
        return;
    }
    let letter = letters(&pipeline, 1).await.remove(0);
    assert_eq!(
        (&letter["table"], &letter["key"]),
        (&"public.blob".into(), &"7".into())
    );
    let reference = letter["reference"].as_str().unwrap();
    assert!(
        reference.contains("parts on the dead-letter topic"),
        "{letter}"
    );
    assert!(reference.contains("larger than"), "{letter}");

    let topic = |name: &str| format!("{}.{name}", pipeline.database.name);
    let (marker, parts) = marked(&pipeline, 7, PATIENCE).await;
    let oversize: Value = serde_json::from_str(header(&marker, "walferry.oversize")).unwrap();
    assert_eq!(oversize["columns"], serde_json::json!(["data"]));
    assert!(parts.len() > 3, "{} parts", parts.len());
    assert!(parts.iter().all(|part| part.key() == marker.key()));
    let mut value = whole(&parts);
    let data = value["after"]
        .as_object_mut()
        .unwrap()
        .remove("data")
        .unwrap();
    let select = "select translate(encode(data, 'base64'), E'\\n', '') from blob where id = 7";
    let row = pipeline.sql.query_one(select, &[]).await.unwrap();
    assert!(data == row.get::<_, String>(0));
    let expected: Value = serde_json::from_slice(marker.payload().unwrap()).unwrap();
    assert_eq!(value, expected);
    let retention = setting(&pipeline, &topic("dead-letter"), "retention.ms").await;
    assert_eq!(retention.as_deref(), Some("-1"));

    // What comes after it waits for it, and brings what it lacks.
    let small =
        "update blob set data = '\\x02' where id = 7; insert into blob values (8, 'c', '\\x03')";
    pipeline.sql.batch_execute(small).await.unwrap();
    letters(&pipeline, 2).await;
    json(&pipeline, &["dead-letter", "retry", "--all"]).await;
    pipeline.equal(&["blob"]).await;
    letters(&pipeline, 0).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_too_large_ends_a_daemon_that_is_to_stop_for_it() {
    let pipeline = Pipeline::new("oversize_stop", BYTEA, "public.*").await;
    pipeline.reconfigure("[source]\n", "[source]\nmax_row_bytes = \"64KiB\"\n");
    pipeline.reconfigure("[sink]\n", "[sink]\non_poison = \"stop\"\n");
    let daemon = pipeline.start();
    pipeline.equal(&["blob"]).await;
    let insert = format!("insert into blob values (7, 'b', {})", bytes(3_000_000));
    pipeline.sql.batch_execute(&insert).await.unwrap();
    let sink = daemon.0.last().unwrap();
    let status = sink.wait(PATIENCE).await.unwrap();
    let (code, log) = (status.code(), pipeline.log());
    assert_eq!(code, Some(1), "{log}");
    let named = "the row 7 of public.blob at";
    assert!(
        log.contains(named) && log.contains("came without data"),
        "{log}"
    );
    assert!(log.contains("raise source.max_row_bytes"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_row_that_makes_a_record_too_large_is_left_out_and_the_change_applied() {
    let schema = format!("{BYTEA}; alter table blob replica identity full");
    let pipeline = Pipeline::new("oldrow", &schema, "public.*").await;
    set_kafka(&pipeline, "max_record_bytes = \"6MiB\"");
    let daemon = pipeline.start();
    let insert = format!("insert into blob values (1, 'a', {})", bytes(3_000_000));
    let update = format!("update blob set data = {} where id = 1", bytes(3_000_000));
    pipeline.sql.batch_execute(&insert).await.unwrap();
    pipeline.equal(&["blob"]).await;
    pipeline.sql.batch_execute(&update).await.unwrap();
    pipeline.equal(&["blob"]).await;
    pipeline
        .sql
        .batch_execute("delete from blob")
        .await
        .unwrap();
    pipeline.equal(&["blob"]).await;
    assert!(daemon.stop().await.success());
    if pipeline.route == Route::Direct {
        return;
    }
    let rows = pipeline.messages_of(&format!("{}.public.blob", pipeline.database.name));
    let oversize = |row: &OwnedMessage| serde_json::from_str(header(row, "walferry.oversize")).ok();
    let marked: Vec<Value> = rows.iter().filter_map(oversize).collect();
    assert_eq!(marked.len(), 1, "{marked:?}");
    let named = (&marked[0]["columns"], &marked[0]["before"]);
    assert_eq!(
        named,
        (&serde_json::json!([]), &serde_json::json!(["data"]))
    );
}

/// The text that a row of so many bytes repeats, and what JSON makes of it.
const TEXT: (&str, &str) = (
    "0123456789 abcdefgh \"é\"\n....",
    "0123456789 abcdefgh \"é\"\n....",
);
/// The same of its bytes: thirty of them are forty characters of base64.
const BYTES: (&str, &str) = (
    "walferry carries all its bytes",
    "d2FsZmVycnkgY2FycmllcyBhbGwgaXRzIGJ5dGVz",
);
/// What a reader may take however large a row is: the debug build with its queues, and the rows that it holds.
const MOST_RESIDENT_BYTES: u64 = 200 << 20;

/// The most memory that a process ever had resident.
fn peak_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kibibytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kibibytes << 10
}

/// Half of it is text, half of it bytes, which PostgreSQL sends as two digits each. `WALFERRY_LARGE_ROW_MB` says how large
/// the row is.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_larger_than_memory_passes_the_reader_in_the_memory_of_any_other() {
    let megabytes = std::env::var("WALFERRY_LARGE_ROW_MB").map_or(100, |it| it.parse().unwrap());
    let half = megabytes * 1_000_000_usize / 2;
    let times = (half / TEXT.0.len(), half / 2 / BYTES.0.len());
    let schema = "create table blob (id int primary key, tag text, data text, bytes bytea);
                  alter table blob alter data set storage external, alter bytes set storage external";
    let pipeline = Pipeline::new("largerow", schema, "public.*").await;
    let insert = async |id: i32| {
        let insert = format!(
            "insert into blob values ({id}, 'a', repeat(E'{}', {}), repeat('{}', {})::bytea)",
            TEXT.0.replace('\n', "\\n"),
            times.0,
            BYTES.0,
            times.1
        );
        pipeline.sql.batch_execute(&insert).await.unwrap();
    };
    if pipeline.route == Route::Direct {
        let daemon = pipeline.start();
        pipeline.equal(&["blob"]).await;
        insert(1).await;
        let letter = letters(&pipeline, 1).await.remove(0);
        let reference = letter["reference"].as_str().unwrap();
        assert!(reference.contains("raise source.max_row_bytes"), "{letter}");
        let peak = peak_bytes(daemon.0[0].pid());
        println!(
            "a row of {megabytes} MB: the daemon had at most {} MiB resident",
            peak >> 20
        );
        assert!(peak < MOST_RESIDENT_BYTES, "{} MiB", peak >> 20);
        let id = letter["id"].as_str().unwrap();
        let shown = json(&pipeline, &["dead-letter", "show", id]).await;
        assert_eq!(shown["content"]["tag"], "a");
        let value = |name: &str| shown["large"][name].as_str().unwrap();
        assert!(value("data") == TEXT.0.repeat(times.0));
        let digits: Vec<_> = BYTES.0.bytes().map(|it| format!("{it:02x}")).collect();
        let bytes = value("bytes").strip_prefix("\\x").unwrap();
        assert!(bytes == digits.concat().repeat(times.1));
        let small = "update blob set data = 'd', bytes = null; insert into blob (id) values (2)";
        pipeline.sql.batch_execute(small).await.unwrap();
        letters(&pipeline, 2).await;
        json(&pipeline, &["dead-letter", "retry", "--all"]).await;
        pipeline.equal(&["blob"]).await;
        assert!(daemon.stop().await.success());
        return;
    }
    insert(1).await;
    let reader = pipeline.spawn("reader.log", &["run", "--role", "reader"]);
    let patience = Duration::from_mins(10);
    drop(marked(&pipeline, 1, patience).await);
    insert(2).await;
    let (marker, parts) = marked(&pipeline, 2, patience).await;
    reader.check_running().unwrap();
    let peak = peak_bytes(reader.pid());
    println!(
        "a row of {megabytes} MB: the reader had at most {} MiB resident",
        peak >> 20
    );
    assert!(peak < MOST_RESIDENT_BYTES, "{} MiB", peak >> 20);

    let oversize: Value = serde_json::from_str(header(&marker, "walferry.oversize")).unwrap();
    assert_eq!(oversize["columns"], serde_json::json!(["data", "bytes"]));
    let whole = whole(&parts);
    let value = |name: &str| whole["after"][name].as_str().unwrap();
    assert!(value("data") == TEXT.1.repeat(times.0));
    assert!(value("bytes") == BYTES.1.repeat(times.1));
    reader
        .stop(walferry_harness::Signal::TERM, PATIENCE)
        .await
        .unwrap();
}

/// A row of so many megabytes of text, in two columns.
fn insert_texts(id: i32, megabytes: usize) -> String {
    let times = megabytes * 1_000_000 / 2 / TEXT.0.len();
    let text = format!("repeat(E'{}', {times})", TEXT.0.replace('\n', "\\n"));
    format!("insert into blob values ({id}, {text}, 't', {text})")
}

const TEXTS: &str = "create table blob (id int primary key, a text, tag text, b text);
    alter table blob alter a set storage external, alter b set storage external";

/// The parts that are kept of what rows were too large with, by the claims that wrote them.
async fn parts(pipeline: &Pipeline) -> std::collections::BTreeMap<i64, usize> {
    let own = pipeline.mongo.client().database("_walferry");
    let parts = own.collection::<Document>("dead_letter_parts");
    let of = doc! { "_id.pipeline": pipeline.id() };
    let found = parts.find(of).projection(doc! { "_id": 1 }).await.unwrap();
    let found: Vec<Document> = found.try_collect().await.unwrap();
    let mut counted = std::collections::BTreeMap::new();
    for part in found {
        let id = part.get_document("_id").unwrap();
        *counted.entry(id.get_i64("epoch").unwrap()).or_default() += 1;
    }
    counted
}

/// The one dead letter that is left once that was tried again, and why it stays.
async fn tried(pipeline: &Pipeline) -> (Value, String) {
    let tried = eventually(PATIENCE, "the retry", async || {
        let letter = letters(pipeline, 1).await.remove(0);
        let why = letter["retry_error"].as_str().map(str::to_owned);
        why.map(|why| (letter.clone(), why)).ok_or(letter)
    });
    tried.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_killed_while_it_keeps_a_large_row_leaves_nothing_twice() {
    let pipeline = Pipeline::new("keptkill", TEXTS, "public.*").await;
    if pipeline.route != Route::Direct {
        return;
    }
    let daemon = pipeline.start();
    pipeline.equal(&["blob"]).await;
    let insert = insert_texts(1, 80);
    pipeline.sql.batch_execute(&insert).await.unwrap();
    let begun = eventually(PATIENCE, "parts of the row", async || {
        let count: usize = parts(&pipeline).await.values().sum();
        if count > 1 { Ok(()) } else { Err("none yet") }
    });
    begun.await.unwrap();
    daemon.kill().await;
    println!("killed after {:?}", parts(&pipeline).await);
    let daemon = pipeline.start();
    let letter = letters(&pipeline, 1).await.remove(0);
    let counted = parts(&pipeline).await;
    // Two values of 40 MB in parts of 4 MiB, and the rest of the row.
    assert_eq!(
        counted.values().copied().collect::<Vec<_>>(),
        [21],
        "{counted:?}"
    );
    let id = letter["id"].as_str().unwrap();
    let shown = json(&pipeline, &["dead-letter", "show", id]).await;
    for name in ["a", "b"] {
        let value = shown["large"][name].as_str().unwrap();
        assert!(value == TEXT.0.repeat(40_000_000 / TEXT.0.len()));
    }
    json(&pipeline, &["dead-letter", "discard", "--all"]).await;
    letters(&pipeline, 0).await;
    assert!(daemon.stop().await.success());
    assert!(parts(&pipeline).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_only_a_limit_of_the_way_kept_out_is_applied_when_it_is_retried() {
    let pipeline = Pipeline::new("waylimit", TEXTS, "public.*").await;
    pipeline.reconfigure("[source]\n", "[source]\nmax_row_bytes = \"1MiB\"\n");
    // Copied, streamed, changed but for what is large, under another key, and too large for a document.
    pipeline
        .sql
        .batch_execute(&insert_texts(1, 3))
        .await
        .unwrap();
    let daemon = pipeline.start();
    letters(&pipeline, 1).await;
    for (id, megabytes) in [(2, 3), (3, 3), (4, 3), (5, 20)] {
        let insert = insert_texts(id, megabytes);
        pipeline.sql.batch_execute(&insert).await.unwrap();
    }
    letters(&pipeline, 5).await;
    let rest = "update blob set tag = 'u' where id = 3; update blob set id = 6 where id = 4";
    pipeline.sql.batch_execute(rest).await.unwrap();
    letters(&pipeline, 7).await;
    json(&pipeline, &["dead-letter", "retry", "--all"]).await;
    let (left, why) = tried(&pipeline).await;
    assert!(why.contains("MongoDB takes 16777216"), "{left}");
    assert_eq!(left["missing"], serde_json::json!(["a", "b"]));
    let id = left["id"].as_str().unwrap();
    let shown = json(&pipeline, &["dead-letter", "show", id]).await;
    let value = match pipeline.route {
        Route::Direct => &shown["large"]["a"],
        Route::Kafka | Route::Split => &shown["records"][id]["after"]["a"],
    };
    assert!(value.as_str().unwrap() == TEXT.0.repeat(10_000_000 / TEXT.0.len()));
    pipeline
        .sql
        .batch_execute("delete from blob where id = 5")
        .await
        .unwrap();
    letters(&pipeline, 2).await;
    json(&pipeline, &["dead-letter", "retry", "--all"]).await;
    pipeline.equal(&["blob"]).await;
    letters(&pipeline, 0).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_its_topic_lost_is_named_with_what_brings_it() {
    let pipeline = Pipeline::new("lostparts", TEXTS, "public.*").await;
    if pipeline.route == Route::Direct {
        return;
    }
    let daemon = pipeline.start();
    pipeline.equal(&["blob"]).await;
    pipeline
        .sql
        .batch_execute(&insert_texts(1, 3))
        .await
        .unwrap();
    letters(&pipeline, 1).await;
    assert!(daemon.stop().await.success());
    let topic = format!("{}.dead-letter", pipeline.database.name);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &pipeline.database.brokers);
    let admin: rdkafka::admin::AdminClient<_> = config.create().unwrap();
    let deleted = admin.delete_topics(&[&topic], &AdminOptions::new()).await;
    assert!(deleted.unwrap().iter().all(Result::is_ok));
    let daemon = pipeline.start();
    json(&pipeline, &["dead-letter", "retry", "--all"]).await;
    let (_, why) = tried(&pipeline).await;
    assert!(
        why.contains("no longer has the record")
            && why.contains("an UPDATE in PostgreSQL that sets a, b"),
        "{why}"
    );
    let small = "update blob set a = 'a', b = 'b'";
    pipeline.sql.batch_execute(small).await.unwrap();
    letters(&pipeline, 2).await;
    json(&pipeline, &["dead-letter", "retry", "--all"]).await;
    pipeline.equal(&["blob"]).await;
    assert!(daemon.stop().await.success());
}
