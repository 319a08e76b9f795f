//! `walferry check`: what is wrong is found at once, and what it says mends it does.

use serde_json::Value;
use walferry_harness::{Process, Signal, eventually};

use crate::daemon::PATIENCE;
use crate::site::{Site, binary};

const SCHEMA: &str = "
    create table good (id int primary key);
    create table hidden (id int primary key, owner text);
    alter table hidden enable row level security;
    create table secret (id int primary key);
    create table keyless (v int);
    create table late (id int, constraint late_key primary key (id) deferrable);
    create table ignored (v int)";
const TABLES: [(&str, &str); 2] = [("public.ignored", "ignore"), ("public.*", "stream")];

/// A site whose configuration names a role of the test's own, which may do nothing yet but log in.
async fn as_nobody(name: &str) -> (Site, String) {
    let site = Site::new(name, SCHEMA, &TABLES).await;
    let role = site.database.name.clone();
    site.sql
        .batch_execute(&format!(
            "create role {role} login; alter publication p set (publish = 'insert, update, delete');
             grant select on good, hidden, keyless, late to {role}"
        ))
        .await
        .unwrap();
    log_in_as(&site, &role);
    (site, role)
}

/// Has the configuration name a role of the source.
fn log_in_as(site: &Site, role: &str) {
    let text = std::fs::read_to_string(site.config()).unwrap();
    let text = text.replacen("postgres://postgres", &format!("postgres://{role}"), 1);
    assert!(text.contains(&format!("//{role}")), "{text}");
    std::fs::write(site.config(), text).unwrap();
}

/// How many slots of the pipeline's name there are.
async fn slots(site: &Site) -> i64 {
    let asked = "select count(*) from pg_replication_slots where slot_name = $1";
    let asked = site.sql.query_one(asked, &[&site.database.name]).await;
    asked.unwrap().get(0)
}

/// Sees that a daemon copies a table, and stops it.
async fn begins(site: &Site, arguments: &[&str], collection: &str) {
    let mut command = crate::site::binary();
    command.args(arguments).arg("--config").arg(site.config());
    let daemon = Process::spawn(&command, &site.config().with_extension("log")).unwrap();
    let copied = async || site.collections().await.contains(&collection.to_owned());
    let begun = eventually(PATIENCE, "the first copy", copied).await;
    begun.unwrap_or_else(|error| panic!("{error}: {}", daemon.log_tail()));
    daemon.stop(Signal::TERM, PATIENCE).await.unwrap();
}

fn findings(report: &Value, verdict: &str) -> Vec<Value> {
    let all = report["findings"].as_array().unwrap();
    all.iter()
        .filter(|it| it["verdict"] == verdict)
        .cloned()
        .collect()
}

fn subjects(findings: &[Value]) -> Vec<&str> {
    let subjects = findings.iter().map(|it| it["subject"].as_str().unwrap());
    subjects.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_wrong_is_found_at_once_and_its_statements_mend_it() {
    let (site, role) = as_nobody("wrong").await;
    let (code, report) = site.json(&["check"]).await;
    assert_eq!(code, Some(1), "{report}");
    let failed = findings(&report, "FAIL");
    let expected = [
        "PostgreSQL: role",
        "PostgreSQL: publication p",
        "PostgreSQL: table public.hidden",
        "PostgreSQL: table public.keyless",
        "PostgreSQL: table public.late",
        "PostgreSQL: table public.secret",
    ];
    assert_eq!(subjects(&failed), expected, "{report}");
    let warned = findings(&report, "WARN");
    let refused = "the application's own UPDATE and DELETE fail";
    let ignored = warned
        .iter()
        .find(|it| it["subject"] == "PostgreSQL: table public.ignored");
    assert!(
        ignored.unwrap()["found"]
            .as_str()
            .unwrap()
            .contains(refused),
        "{report}"
    );

    for finding in &failed {
        let remedy = finding["remedy"].as_str().unwrap();
        let remedy = remedy
            .split(", or ")
            .next()
            .unwrap()
            .replace("(...)", "(id)");
        let column = "alter table keyless add column id int generated always as identity";
        let first = if remedy.contains("keyless") {
            column
        } else {
            ""
        };
        site.sql
            .batch_execute(&format!("{first}; {remedy}"))
            .await
            .unwrap();
    }
    let (code, report) = site.json(&["check"]).await;
    assert_eq!(code, Some(0), "{report}");
    assert!(findings(&report, "FAIL").is_empty(), "{report}");
    site.sql
        .batch_execute(&format!("drop owned by {role}; drop role {role}"))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_not_ready_is_not_begun_with() {
    let (site, _) = as_nobody("unready_source").await;
    let said = site.run(&["run"]).await;
    assert_eq!(said.code, Some(1), "{}", said.err);
    for part in [
        "PostgreSQL: role: ",
        "REPLICATION",
        "table public.keyless: has no key",
    ] {
        assert!(said.err.contains(part), "{part} in {}", said.err);
    }
    assert!(site.collections().await.is_empty());
    assert_eq!(slots(&site).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_is_a_pipeline_whose_target_refuses_it() {
    let site = Site::new(
        "unready_target",
        "create table t (id int primary key)",
        &[("public.*", "stream")],
    )
    .await;
    let text = std::fs::read_to_string(site.config()).unwrap();
    let stranger = text.replace("\"mongodb://", "\"mongodb://nobody:wrong@");
    std::fs::write(site.config(), stranger).unwrap();
    let said = site.run(&["run"]).await;
    assert_eq!(said.code, Some(1), "{}", said.err);
    for part in ["not everything is ready", "MongoDB: ", "uthentication"] {
        assert!(said.err.contains(part), "{part} in {}", said.err);
    }
    assert!(!said.err.contains("wrong"), "{}", said.err);
    assert_eq!(slots(&site).await, 0);

    // A lone reader has no use for it, and may stand where it cannot be reached.
    let mut reader = binary();
    reader
        .args(["run", "--role", "reader", "--config"])
        .arg(site.config());
    let log = site.config().with_extension("log");
    let reader = Process::spawn(&reader, &log).unwrap();
    let begun = async || {
        (slots(&site).await == 1)
            .then_some(())
            .ok_or(reader.log_tail())
    };
    eventually(PATIENCE, "the slot", begun).await.unwrap();
    let ended = reader.stop(Signal::TERM, PATIENCE).await;
    assert_eq!(ended.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_target_would_trip_over_and_a_server_that_is_away_are_told_apart() {
    let site = Site::new(
        "target",
        "create table t (id int primary key, v int)",
        &[("public.*", "stream")],
    )
    .await;
    let index = mongodb::IndexModel::builder()
        .keys(bson::doc! { "v": 1 })
        .options(
            mongodb::options::IndexOptions::builder()
                .unique(true)
                .build(),
        )
        .build();
    site.mongo
        .collection::<bson::Document>("t")
        .create_index(index)
        .await
        .unwrap();
    let (code, report) = site.json(&["check"]).await;
    assert_eq!(code, Some(0), "{report}");
    let warned = findings(&report, "WARN");
    assert!(
        subjects(&warned).contains(&"MongoDB: collection t"),
        "{report}"
    );

    let away = walferry_harness::free_port().unwrap();
    let text = std::fs::read_to_string(site.config()).unwrap();
    let gone = format!("mongodb://127.0.0.1:{away}/?serverSelectionTimeoutMS=300");
    std::fs::write(site.config(), text.replace(&site.database.mongo_url, &gone)).unwrap();
    let said = site.run(&["check"]).await;
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(said.out.contains("\nAWAY  MongoDB: "), "{}", said.out);
    assert!(
        said.out.starts_with("PASS  PostgreSQL: version: "),
        "{}",
        said.out
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_cannot_be_written_is_named_and_no_slot_is_made() {
    let tables = [("public.good", "stream")];
    let site = Site::new("spool", "create table good (id int primary key)", &tables).await;
    let text = std::fs::read_to_string(site.config()).unwrap();
    let configure = |spool: &str, streaming: bool| {
        let keys = format!("[source]\nstreaming = {streaming}\nspool = {spool:?}\n");
        let text = text.replace("[source]\n", &keys);
        let text = text.replace("[kafka]\n", "[kafka]\nmessage_topic = false\n");
        std::fs::write(site.config(), text).unwrap();
    };
    for streaming in [true, false] {
        configure("gone", streaming);
        let (code, report) = site.json(&["check"]).await;
        let failed = findings(&report, "FAIL");
        assert_eq!(
            (code, subjects(&failed)),
            (Some(1), vec!["source.spool"]),
            "{report}"
        );
        let said = site.run(&["run"]).await;
        assert_eq!(said.code, Some(1), "{}", said.err);
        assert!(said.err.contains("source.spool"), "{}", said.err);
        assert_eq!(slots(&site).await, 0, "{}", said.err);
    }
    configure(".", true);
    let (code, report) = site.json(&["check"]).await;
    assert_eq!(code, Some(0), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_only_loaded_does_not_keep_the_stream_from_beginning() {
    let tables = [("public.good", "stream"), ("public.*", "batch")];
    let site = Site::new("loaded_beside", SCHEMA, &tables).await;
    let role = site.database.name.clone();
    let granted = format!("create role {role} login replication; grant select on good to {role}");
    site.sql.batch_execute(&granted).await.unwrap();
    log_in_as(&site, &role);
    let (code, report) = site.json(&["check"]).await;
    assert_eq!(code, Some(1), "{report}");
    assert!(
        subjects(&findings(&report, "FAIL")).contains(&"PostgreSQL: table public.secret"),
        "{report}"
    );

    begins(&site, &["run"], "good").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_slot_is_named_and_a_new_snapshot_mends_it() {
    let directory = walferry_harness::fresh_directory("lost").unwrap();
    let options = walferry_harness::PostgresOptions {
        settings: vec![("max_slot_wal_keep_size".to_owned(), "1MB".to_owned())],
        ..Default::default()
    };
    let postgres = walferry_harness::Postgres::start_with(directory.path(), options)
        .await
        .unwrap();
    let site = Site::new("lost", "select 1", &[("public.*", "stream")]).await;
    let sql = postgres.connect("postgres").await.unwrap();
    sql.batch_execute("create table t (id int primary key); create publication p for all tables")
        .await
        .unwrap();
    let slot = format!(
        "select pg_create_logical_replication_slot('{}', 'pgoutput')",
        site.database.name
    );
    sql.batch_execute(&slot).await.unwrap();
    for id in 0..6 {
        let insert = format!("insert into t values ({id})");
        sql.batch_execute(&insert).await.unwrap();
        sql.batch_execute("select pg_switch_wal()").await.unwrap();
    }
    sql.batch_execute("checkpoint").await.unwrap();
    let text = std::fs::read_to_string(site.config()).unwrap();
    std::fs::write(
        site.config(),
        text.replace(&site.database.postgres_url, &postgres.url_of("postgres")),
    )
    .unwrap();
    let (code, report) = site.json(&["check"]).await;
    assert_eq!(code, Some(1), "{report}");
    let failed = findings(&report, "FAIL");
    assert!(
        failed[0]["remedy"]
            .as_str()
            .unwrap()
            .contains("run --new-snapshot"),
        "{report}"
    );

    begins(&site, &["run", "--new-snapshot"], "t").await;
}
