//! What `walferry status` says when no daemon answers: what the servers know.

use serde_json::Value;
use walferry_harness::free_port;

use crate::admin::listening;
use crate::daemon::Pipeline;
use crate::site::{Said, said};

async fn status(pipeline: &Pipeline) -> Said {
    let said = said(pipeline.command(&["status"])).await;
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(
        said.err.contains("error: asking the daemon"),
        "{}",
        said.err
    );
    said
}

async fn object(pipeline: &Pipeline) -> Value {
    let said = said(pipeline.command(&["status", "--json"])).await;
    assert_eq!(said.code, Some(1), "{}", said.out);
    let object: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(object["from"], "servers", "{object}");
    let error = object["daemon_error"].as_str().unwrap();
    assert!(error.starts_with("asking the daemon at "), "{object}");
    object
}

fn assert_lines(text: &str, begins: &[&str]) {
    for begin in begins {
        let is_there = text.lines().any(|line| line.starts_with(begin));
        assert!(is_there, "{begin} in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_pipeline_is_shown_as_its_servers_know_it() {
    let (pipeline, _) = listening("stopped_status").await;
    let id = pipeline.id();
    let before = status(&pipeline).await;
    let head = format!("{id}: the daemon does not answer; from the servers:");
    assert_lines(&before.out, &[&head, "slot: none", "position: none yet"]);
    let unknown = object(&pipeline).await;
    assert_eq!(unknown["position"], Value::Null, "{unknown}");
    assert_eq!(unknown["position_error"], Value::Null, "{unknown}");

    let daemon = pipeline.start();
    let insert = "insert into t select i, 'x' from generate_series(1, 5) i";
    pipeline.sql.batch_execute(insert).await.unwrap();
    pipeline.equal(&["t"]).await;
    assert!(daemon.stop().await.success());

    let after = status(&pipeline).await;
    let lines = [
        &head,
        "slot: not in use, ",
        "position: live, applied up to ",
    ];
    assert_lines(&after.out, &lines);
    assert!(after.out.contains(" of WAL behind"), "{}", after.out);
    let known = object(&pipeline).await;
    assert_eq!(known["pipeline"], id, "{known}");
    assert_eq!(known["position"]["state"], "live", "{known}");
    let written = known["position"]["updated_at"].as_u64().unwrap();
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs();
    assert!((now - 600..=now + 600).contains(&written), "{known}");
    assert_eq!(known["source"]["is_active"], false, "{known}");
    let slot = "select confirmed_flush_lsn::text from pg_replication_slots where slot_name = $1";
    let slot = pipeline
        .sql
        .query_one(slot, &[&pipeline.database.name])
        .await;
    let confirmed: String = slot.unwrap().get(0);
    assert_eq!(known["confirmed_lsn"], confirmed, "{known}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_too_does_not_hide_the_other() {
    let (pipeline, _) = listening("half_status").await;
    let closed = free_port().unwrap();
    let away = format!("mongodb://127.0.0.1:{closed}/?serverSelectionTimeoutMS=300");
    let text = std::fs::read_to_string(pipeline.config()).unwrap();
    let text = text.replace(&pipeline.database.mongo_url, &away);
    std::fs::write(pipeline.config(), text).unwrap();
    let said = status(&pipeline).await;
    assert_lines(&said.out, &["slot: none", "MongoDB: connecting to MongoDB"]);
    let object = object(&pipeline).await;
    assert!(object["source"]["flush_lsn"].is_string(), "{object}");
    assert!(object["position_error"].is_string(), "{object}");
    assert_eq!(object["lag_bytes"], Value::Null, "{object}");
}
