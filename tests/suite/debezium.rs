//! Records held against those that Debezium wrote of the same statements: see `debezium/README.md`.

use std::collections::BTreeMap;

use bson::Document;
use futures_util::TryStreamExt;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use walferry_harness::eventually;

use crate::daemon::{PATIENCE, Pipeline, Route};

const TABLES: &str = include_str!("debezium/tables.sql");
const CHANGES: &str = include_str!("debezium/changes.sql");
/// All tables that have a key.
const STREAMED: &str = "inv.{customers,types,required,defaults,full_,toast,comppk}";

/// A record, less what differs from run to run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Record {
    headers: Vec<String>,
    key: Option<String>,
    value: Option<String>,
}

type Topics = BTreeMap<String, Vec<Record>>;

/// The records of a capture by topic, the topics without the prefix.
fn captured(text: &str) -> Topics {
    let mut topics = raw(text);
    for record in topics.values_mut().flatten() {
        for part in [&mut record.key, &mut record.value] {
            *part = part.take().map(|text| level(&text));
        }
    }
    topics
}

/// The same as they were.
fn raw(text: &str) -> Topics {
    let mut schemas = BTreeMap::new();
    let mut topics = Topics::new();
    let mut topic = String::new();
    for line in text.lines() {
        let (tag, rest) = line.split_once(' ').unwrap();
        let part = || (rest != "null").then(|| whole(rest, &schemas));
        match tag {
            "SCHEMA" => {
                let (number, schema) = rest.split_once(' ').unwrap();
                schemas.insert(number.to_owned(), schema.to_owned());
            }
            "TOPIC" => {
                let mut parts = rest.split(' ');
                let (_, name) = parts.next().unwrap().split_once('.').unwrap();
                name.clone_into(&mut topic);
                let headers = parts.map(str::to_owned).collect();
                topics.entry(topic.clone()).or_default().push(Record {
                    headers,
                    ..Record::default()
                });
            }
            "KEY" => last(&mut topics, &topic).key = part(),
            _ => last(&mut topics, &topic).value = part(),
        }
    }
    topics
}

fn last<'a>(topics: &'a mut Topics, topic: &str) -> &'a mut Record {
    topics.get_mut(topic).unwrap().last_mut().unwrap()
}

/// A record with its schema in the place of its number.
fn whole(text: &str, schemas: &BTreeMap<String, String>) -> String {
    let Some((number, payload)) = text
        .strip_prefix("{\"schema\":#")
        .and_then(|it| it.split_once(','))
    else {
        return text.to_owned();
    };
    format!("{{\"schema\":{},{payload}", schemas[number])
}

/// The text without what differs from run to run: the block `source`, times, ids of transactions and the prefix.
fn level(text: &str) -> String {
    let mut text = between(text, "\"source\":{", "},\"transaction\"");
    for id in [
        "\"transaction\":{\"id\":\"",
        "\"status\":\"BEGIN\",\"id\":\"",
        "\"status\":\"END\",\"id\":\"",
        "\"payload\":{\"id\":\"",
    ] {
        text = between(&text, id, "\"");
    }
    for time in ["\"ts_ms\":", "\"ts_us\":", "\"ts_ns\":"] {
        let mut parts = text.split(time);
        let first = parts.next().unwrap().to_owned();
        let rest = parts.map(|part| part.trim_start_matches(|it: char| it.is_ascii_digit()));
        text = rest.fold(first, |text, part| text + time + part);
    }
    let named = text.find(".inv.").and_then(|at| {
        text[..at]
            .rfind('"')
            .map(|from| text[from + 1..at].to_owned())
    });
    match named {
        Some(prefix) => text.replace(&format!("\"{prefix}.inv."), "\"prefix.inv."),
        None => text,
    }
}

/// The text without what stands between these two, wherever they are.
fn between(text: &str, from: &str, to: &str) -> String {
    let mut parts = text.split(from);
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |text, part| {
        let end = part.find(to).unwrap();
        text + from + &part[end..]
    })
}

/// What stands on a topic's one partition.
fn records(pipeline: &Pipeline, topic: &str) -> Vec<Record> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &pipeline.database.brokers)
        .set("group.id", "test")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let name = format!("{}.{topic}", pipeline.database.name);
    let mut assignment = TopicPartitionList::new();
    assignment
        .add_partition_offset(&name, 0, Offset::Beginning)
        .unwrap();
    consumer.assign(&assignment).unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut records = Vec::new();
    // Ends at the partition's end, which is an error of its own.
    while let Some(Ok(message)) = consumer.poll(PATIENCE) {
        let headers = message.headers().into_iter().flat_map(|it| it.iter());
        let of_debezium = headers.filter(|it| it.key.starts_with("__debezium"));
        records.push(Record {
            headers: of_debezium
                .map(|it| format!("{}={}", it.key, text(it.value.unwrap())))
                .collect(),
            key: message.key().map(|it| level(&text(it))),
            value: message.payload().map(|it| level(&text(it))),
        });
    }
    records
}

/// A pipeline that has applied all of the statements, with these lines in its `[kafka]`.
async fn written(name: &str, lines: &str) -> Pipeline {
    let stack = walferry_harness::Stack::shared().await.unwrap();
    let database = stack.fresh_database(name).await.unwrap();
    let pipeline = Pipeline::over_existing(database, TABLES, STREAMED).await;
    pipeline.reconfigure("[kafka]\n", &format!("[kafka]\n{lines}"));
    let daemon = pipeline.start();
    // The changes are to come by the stream.
    find(&pipeline, "inv.types", 1).await;
    // Each a transaction of its own, as psql has it.
    for statement in CHANGES.split_inclusive(";\n") {
        pipeline.sql.batch_execute(statement).await.unwrap();
    }
    pipeline
        .sql
        .batch_execute("insert into inv.customers values (99, '', '', '')")
        .await
        .unwrap();
    find(&pipeline, "inv.customers", 99).await;
    assert!(daemon.stop().await.success());
    pipeline
}

/// Waits until a document is there.
async fn find(pipeline: &Pipeline, collection: &str, id: i32) {
    let documents = pipeline.mongo.collection::<Document>(collection);
    let attempt = async || match documents.find_one(bson::doc! { "_id": id }).await {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err("it is not there".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    let what = format!("{id} of {collection}");
    if let Err(error) = eventually(PATIENCE, &what, attempt).await {
        panic!("{error}\n{}", pipeline.log());
    }
}

/// Holds every record of a capture against ours.
fn compare(pipeline: &Pipeline, capture: &str) {
    for (topic, theirs) in captured(capture) {
        if topic == "inv.nopk" {
            continue;
        }
        let ours = records(pipeline, &topic);
        assert!(
            ours.len() >= theirs.len(),
            "{topic}: {} records",
            ours.len()
        );
        for (ours, theirs) in ours.into_iter().zip(theirs) {
            // Only the tombstone of a key change lacks Debezium's header.
            let theirs = Record {
                headers: match theirs.value {
                    Some(_) => theirs.headers,
                    None => ours.headers.clone(),
                },
                ..theirs
            };
            assert_eq!(ours.headers, theirs.headers, "{topic}");
            same(&topic, ours.key.as_deref(), theirs.key.as_deref());
            let (ours, theirs) = alike(ours.value, theirs.value);
            same(&topic, ours.as_deref(), theirs.as_deref());
        }
    }
}

/// Debezium has a block `transaction` only where it was asked for it.
fn alike(ours: Option<String>, theirs: Option<String>) -> (Option<String>, Option<String>) {
    let has_none = |text: &String| text.contains("\"transaction\":null,\"op\"");
    if !theirs.as_ref().is_some_and(has_none) {
        return (ours, theirs);
    }
    let without = |text: String| between(&text, "\"transaction\":", ",\"op\"");
    (ours.map(without), theirs.map(without))
}

/// Shows where two texts part: they are long.
fn same(topic: &str, ours: Option<&str>, theirs: Option<&str>) {
    if ours == theirs {
        return;
    }
    let (ours, theirs) = (ours.unwrap_or("null"), theirs.unwrap_or("null"));
    let shared = ours.bytes().zip(theirs.bytes()).take_while(|(a, b)| a == b);
    let from = shared.count().saturating_sub(100);
    let part = |text: &str| text.chars().skip(from).take(300).collect::<String>();
    panic!("{topic}: ours is\n{}\ntheirs\n{}", part(ours), part(theirs));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_with_schemas_are_byte_for_byte_those_of_debezium() {
    if Route::chosen() == Route::Direct {
        return;
    }
    let debezium = "compatibility = \"debezium\"\nschemas = true\n";
    let pipeline = written("schemas", debezium).await;
    compare(&pipeline, include_str!("debezium/default.txt"));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_with_schemas_are_debeziums_in_other_modes_too() {
    if Route::chosen() == Route::Direct {
        return;
    }
    let debezium = "compatibility = \"debezium\"\nschemas = true\n";
    let connect = "decimal = \"string\"\ntime_precision = \"connect\"\ninterval = \"string\"\nhstore = \"map\"\n\
                   binary = \"base64-url-safe\"\n";
    let iso = "decimal = \"double\"\ntime_precision = \"isostring\"\nbinary = \"hex\"\n";
    let modes = [
        (connect, include_str!("debezium/connect.txt")),
        (iso, include_str!("debezium/iso.txt")),
        (
            "time_precision = \"microseconds\"\n",
            include_str!("debezium/micro.txt"),
        ),
        (
            "time_precision = \"nanoseconds\"\n",
            include_str!("debezium/nano.txt"),
        ),
    ];
    for (mode, capture) in modes {
        let pipeline = written("schemas", &format!("{debezium}{mode}")).await;
        compare(&pipeline, capture);
    }
}

/// What the sink makes of the records does not depend on their schemas.
#[tokio::test(flavor = "multi_thread")]
async fn documents_are_the_same_with_schemas_and_without() {
    if Route::chosen() == Route::Direct {
        return;
    }
    let (bare, with) = tokio::join!(written("bare", ""), written("schemas", "schemas = true\n"));
    for table in ["types", "full_", "toast", "comppk", "customers"] {
        let collection = format!("inv.{table}");
        let documents = documents(&bare, &collection).await;
        assert!(!documents.is_empty());
        assert_eq!(
            documents,
            self::documents(&with, &collection).await,
            "{table}"
        );
    }
}

async fn documents(pipeline: &Pipeline, collection: &str) -> Vec<Document> {
    let documents = pipeline.mongo.collection::<Document>(collection);
    let sorted = documents
        .find(Document::new())
        .sort(bson::doc! { "_id": 1 });
    sorted.await.unwrap().try_collect().await.unwrap()
}

/// Debezium's topics of a capture, in the cluster of a pipeline.
struct Incumbent<'a> {
    pipeline: &'a Pipeline,
    prefix: String,
    topics: Topics,
}

impl<'a> Incumbent<'a> {
    async fn new(pipeline: &'a Pipeline, capture: &str) -> Self {
        let prefix = format!("{}_dbz", pipeline.database.name);
        let topics = raw(capture);
        let admin: AdminClient<DefaultClientContext> = client(pipeline).create().unwrap();
        let names: Vec<_> = topics.keys().map(|it| format!("{prefix}.{it}")).collect();
        let new = names
            .iter()
            .map(|it| NewTopic::new(it, 1, TopicReplication::Fixed(1)));
        let new: Vec<_> = new.collect();
        let made = admin
            .create_topics(&new, &AdminOptions::new())
            .await
            .unwrap();
        assert!(made.iter().all(Result::is_ok), "{made:?}");
        Self {
            pipeline,
            prefix,
            topics,
        }
    }

    /// Writes records of each topic, from one to before another.
    fn write(&self, topic: &str, from: usize, to: usize) {
        let producer: ThreadedProducer<DefaultProducerContext> =
            client(self.pipeline).create().unwrap();
        let name = format!("{}.{topic}", self.prefix);
        for record in &self.topics[topic][from..to] {
            let mut headers = OwnedHeaders::new();
            for header in &record.headers {
                let (key, value) = header.split_once('=').unwrap();
                headers = headers.insert(Header {
                    key,
                    value: Some(value),
                });
            }
            let mut sent = BaseRecord::<str, str>::to(&name).headers(headers);
            sent.key = record.key.as_deref();
            sent.payload = record.value.as_deref();
            producer.send(sent).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
    }

    /// Makes the pipeline's configuration that of a sink of these topics.
    fn configure(&self) {
        let name = &self.pipeline.database.name;
        let config = std::fs::read_to_string(self.pipeline.config()).unwrap();
        let config = config
            .replace(
                &format!("prefix = {name:?}"),
                &format!("prefix = {:?}\nformat = \"debezium\"", self.prefix),
            )
            .replace(
                &format!("database = {name:?}"),
                &format!("database = {:?}", self.prefix),
            );
        std::fs::write(self.pipeline.config(), config).unwrap();
    }

    fn target(&self) -> mongodb::Database {
        self.pipeline.mongo.client().database(&self.prefix)
    }
}

fn client(pipeline: &Pipeline) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &pipeline.database.brokers);
    config
}

/// The same rows by walferry's own way, then what Debezium wrote of them, with a kill and with records that come twice.
async fn reads_what_debezium_wrote(name: &str, capture: &str, lost: &[&str]) {
    let pipeline = written(name, "").await;
    let incumbent = Incumbent::new(&pipeline, capture).await;
    let tables = ["customers", "types", "full_", "toast", "comppk"];
    for table in tables {
        let topic = format!("inv.{table}");
        incumbent.write(&topic, 0, incumbent.topics[&topic].len() / 2);
    }
    incumbent.configure();
    let sink = pipeline.spawn("debezium.log", &["run", "--role", "sink"]);
    let there = incumbent.target();
    let arrived = async || match there
        .collection::<Document>("inv.comppk")
        .count_documents(Document::new())
        .await
    {
        Ok(0) => Err("nothing".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    };
    let log = |sink: &walferry_harness::Process| std::fs::read_to_string(sink.log()).unwrap();
    if let Err(error) = eventually(PATIENCE, "the first records", arrived).await {
        panic!("{error}\n{}", log(&sink));
    }
    sink.kill();
    sink.wait(PATIENCE).await.unwrap();
    for table in tables {
        let topic = format!("inv.{table}");
        let count = incumbent.topics[&topic].len();
        incumbent.write(&topic, count / 2, count);
    }
    // As after a crash of Debezium's.
    let count = incumbent.topics["inv.customers"].len();
    incumbent.write("inv.customers", count - 3, count);
    let sink = pipeline.spawn("debezium.log", &["run", "--role", "sink"]);
    for table in tables {
        let wanted = expected(&pipeline, table, lost).await;
        let attempt = async || {
            let found = all(&there, &format!("inv.{table}")).await;
            let found = without(found, lost);
            if found == wanted {
                Ok(())
            } else {
                Err(format!("{found:#?}\n instead of\n{wanted:#?}"))
            }
        };
        if let Err(error) = eventually(PATIENCE, table, attempt).await {
            panic!("{error}\n{}", log(&sink));
        }
    }
    let status = sink
        .stop(walferry_harness::Signal::TERM, PATIENCE)
        .await
        .unwrap();
    assert!(status.success(), "{}", log(&sink));
}

/// The documents of walferry's own way.
async fn expected(pipeline: &Pipeline, table: &str, lost: &[&str]) -> Vec<Document> {
    let mut documents = documents(pipeline, &format!("inv.{table}")).await;
    // The mark of the end.
    documents.retain(|it| table != "customers" || it.get_i32("_id").ok() != Some(99));
    without(documents, lost)
}

async fn all(database: &mongodb::Database, collection: &str) -> Vec<Document> {
    let documents = database.collection::<Document>(collection);
    let sorted = documents
        .find(Document::new())
        .sort(bson::doc! { "_id": 1 });
    sorted.await.unwrap().try_collect().await.unwrap()
}

/// Documents without the fields that Debezium does not carry as they are.
fn without(mut documents: Vec<Document>, lost: &[&str]) -> Vec<Document> {
    for document in &mut documents {
        for field in lost {
            document.remove(field);
        }
    }
    documents
}

/// Zeros at the end of numbers, the calendar of an interval, the offset of a time; an unchanged `numeric[]` is NULL.
const LOST: [&str; 6] = ["n", "an", "iv", "tmtz", "atmtz", "bign"];

#[tokio::test(flavor = "multi_thread")]
async fn what_debezium_wrote_with_schemas_becomes_the_same_documents() {
    // A schema calls ranges strings, and a single bit a boolean.
    let ranges = ["i4r", "i8r", "nr", "tsr", "tstzr", "dr", "ai4r", "bit1"];
    let lost = [LOST.as_slice(), &ranges].concat();
    if Route::chosen() != Route::Direct {
        reads_what_debezium_wrote("schemas", include_str!("debezium/default.txt"), &lost).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_debezium_wrote_without_schemas_becomes_the_same_documents() {
    if Route::chosen() != Route::Direct {
        reads_what_debezium_wrote("plain", include_str!("debezium/plain.txt"), &LOST).await;
    }
}
