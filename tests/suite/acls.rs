//! A Kafka that allows only what docs/operations.md grants: enough for a pipeline, and what is missing is named.

use std::process::Command;

use bson::{Document, doc};
use serde_json::Value;
use walferry_harness::{
    Authority, Database, Kafka, KafkaOptions, KafkaTls, Process, Signal, Stack, eventually,
    fresh_directory,
};

use crate::daemon::PATIENCE;
use crate::deployment::{blocks, text};
use crate::site::{Said, binary, said};

/// As the page has it.
const USER: &str = "walferry";
const PASSWORD: &str = "s3nt1nel";
const SCHEMA: &str = "create table t (id int primary key); insert into t values (1);
    create publication walmart_publication for all tables";

/// A pipeline whose Kafka has ACLs.
struct Guarded {
    kafka: Kafka,
    authority: Authority,
    database: Database,
    sql: tokio_postgres::Client,
    documents: mongodb::Collection<Document>,
    root: tempfile::TempDir,
    _servers: tempfile::TempDir,
}

// === impl Guarded ===

impl Guarded {
    async fn new() -> Self {
        let servers = fresh_directory("acls").unwrap();
        let authority = Authority::new(servers.path(), "authority").unwrap();
        let options = KafkaOptions {
            tls: Some(KafkaTls {
                server: authority.server(&["localhost"]).unwrap(),
                user: USER.into(),
                password: PASSWORD.into(),
            }),
            has_acls: true,
            ..KafkaOptions::default()
        };
        let kafka = Kafka::start_with(servers.path(), options).await.unwrap();
        let database = Stack::shared().await.unwrap();
        let database = database.fresh_database("acls").await.unwrap();
        let guarded = Self {
            kafka,
            authority,
            sql: database.sql().await.unwrap(),
            documents: database.mongo().await.unwrap().collection("t"),
            root: tempfile::tempdir().unwrap(),
            _servers: servers,
            database,
        };
        guarded.sql.batch_execute(SCHEMA).await.unwrap();
        guarded.configure();
        guarded
    }

    fn configure(&self) {
        let Database {
            name,
            postgres_url,
            mongo_url,
            ..
        } = &self.database;
        let (brokers, authority) = (self.kafka.sasl_brokers(), self.authority.file().display());
        let config = format!(
            "[source]\nurl = {postgres_url:?}\nslot = {name:?}\npublication = \"walmart_publication\"\n\
             [sink]\nurl = {mongo_url:?}\ndatabase = {name:?}\n\
             [kafka]\nbrokers = {brokers:?}\nprefix = {name:?}\n[kafka.properties]\n\
             \"security.protocol\" = \"SASL_SSL\"\n\"ssl.ca.location\" = \"{authority}\"\n\
             \"sasl.mechanism\" = \"PLAIN\"\n\"sasl.username\" = {USER:?}\n\
             [[table]]\nname = \"public.*\"\nmode = \"stream\"\n"
        );
        std::fs::write(self.config(), config).unwrap();
    }

    fn config(&self) -> std::path::PathBuf {
        self.root.path().join("walferry.toml")
    }

    fn walferry(&self, arguments: &[&str]) -> Command {
        let mut command = binary();
        command.args(arguments).arg("--config").arg(self.config());
        command.env("WALFERRY__KAFKA__PROPERTIES__SASL_PASSWORD", PASSWORD);
        command
    }

    /// The page's lines that begin with `kafka-acls.sh`, under the test's names.
    fn granted(&self) -> Vec<String> {
        let blocks = blocks(&text("docs/operations.md"), "sh").concat();
        let lines = blocks.lines().filter(|it| it.starts_with("kafka-acls.sh "));
        let (name, brokers) = (&self.database.name, self.kafka.sasl_brokers());
        let own = |line: &str| {
            line.replace("localhost:9092", &brokers)
                .replace("walmart_slot", name)
                .replace("walmartdb", name)
        };
        lines.map(own).collect()
    }

    /// Runs a `kafka-acls.sh` line, as an administrator, who comes another way.
    async fn administer(&self, line: &str) {
        let (own, all) = (self.kafka.sasl_brokers(), self.kafka.brokers());
        let line = line.replace(&own, &all);
        let mut words = line.split_whitespace();
        assert_eq!(words.next(), Some("kafka-acls.sh"), "{line}");
        let mut acls = self.kafka.acls().unwrap();
        acls.args(words);
        let Said { code, out, err } = said(acls).await;
        assert_eq!(code, Some(0), "{line}\n{out}{err}");
    }

    /// What `walferry check` finds refused in Kafka, once all of it has this verdict; nothing when none is expected.
    async fn refused(&self, verdict: Option<&str>) -> Vec<Value> {
        let attempt = async || {
            let said = said(self.walferry(&["check", "--json"])).await;
            let report: Value = serde_json::from_str(&said.out).unwrap();
            let mut findings = report["findings"].as_array().unwrap().clone();
            findings.retain(|it| it["remedy"].to_string().contains("kafka-acls.sh"));
            let verdicts = findings.iter().map(|it| it["verdict"].as_str());
            let is_so = match verdict {
                Some(_) => !findings.is_empty() && verdicts.clone().all(|it| it == verdict),
                None => findings.is_empty() && said.code == Some(0),
            };
            is_so.then_some(findings).ok_or(report.to_string())
        };
        eventually(PATIENCE, "the ACLs to be seen", attempt)
            .await
            .unwrap()
    }

    /// Runs the daemon, which ends with all that is not granted. A Kafka that has just begun may be too slow to tell
    /// in time: then it is asked again.
    async fn refuses_to_run(&self) {
        let attempt = async || {
            let refused = said(self.walferry(&["run"])).await;
            assert_eq!(refused.code, Some(1), "{}", refused.err);
            let told = ["may not make topic", "may write to no topic"];
            let is_told = told.iter().all(|it| refused.err.contains(it));
            is_told.then_some(()).ok_or(refused.err)
        };
        let what = "the daemon to say what is refused";
        eventually(PATIENCE, what, attempt).await.unwrap();
    }

    /// Runs the daemon until new rows are in MongoDB and it has said this.
    async fn carries(&self, id: i32, says: &str) {
        let log = self.root.path().join(format!("log{id}"));
        let daemon = Process::spawn(&self.walferry(&["run"]), &log).unwrap();
        for id in [id, id + 1] {
            let insert = format!("insert into t values ({id})");
            self.sql.batch_execute(&insert).await.unwrap();
            let arrived = eventually(PATIENCE, "the row to arrive", async || {
                daemon.check_running().unwrap();
                let found = self.documents.find_one(doc! { "_id": id }).await;
                found.unwrap().map(|_| ()).ok_or_else(|| daemon.log_tail())
            });
            arrived.await.unwrap();
        }
        let said = || std::fs::read_to_string(&log).unwrap();
        let told = async || said().contains(says).then_some(()).ok_or_else(said);
        eventually(PATIENCE, says, told).await.unwrap();
        let ended = daemon.stop(Signal::TERM, PATIENCE).await.unwrap();
        assert_eq!(ended.code(), Some(0), "{}", daemon.log_tail());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_page_grants_in_kafka_is_enough_and_whatever_is_missing_is_named_and_mended() {
    let guarded = Guarded::new().await;
    guarded.refuses_to_run().await;

    let granted = guarded.granted();
    assert_eq!(granted.len(), 2, "{granted:?}");
    for line in &granted {
        guarded.administer(line).await;
    }
    guarded.refused(None).await;
    guarded.carries(10, "applying").await;
    let first = guarded.documents.find_one(doc! { "_id": 1 }).await.unwrap();
    assert!(first.is_some(), "the snapshot's row");

    let (topics, group) = (&granted[0], &granted[1]);
    let operations = topics.split("--operation ").skip(1).map(str::trim);
    let begins = topics.split_once(" --operation").unwrap().0;
    let each = operations.map(|it| format!("{begins} --operation {it}"));
    for line in each.chain([group.clone()]) {
        let remove = line.replace("--add", "--remove --force");
        guarded.administer(&remove).await;
        let is_needed = ["Read", "Write"].iter().any(|it| line.ends_with(it)) && line != *group;
        let verdict = if is_needed { "FAIL" } else { "WARN" };
        let found = guarded.refused(Some(verdict)).await;
        for finding in &found {
            assert_eq!(finding["remedy"], line.as_str(), "{found:?}");
        }
        if line == *group {
            let told = "kafka refuses the consumer group: lag tools will not see this pipeline";
            guarded.carries(20, told).await;
        }
        guarded
            .administer(found[0]["remedy"].as_str().unwrap())
            .await;
        guarded.refused(None).await;
    }
}
