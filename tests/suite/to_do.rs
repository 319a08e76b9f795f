//! What waits for the operator of a running pipeline: told everywhere, each with its command.

use bson::{Document, doc};
use mongodb::IndexModel;
use mongodb::options::IndexOptions;
use serde_json::Value;
use walferry_harness::eventually;

use crate::admin::{append, get, has_browser, in_browser, listening, said, status};
use crate::daemon::{Daemon, PATIENCE, Pipeline};

/// A daemon that follows changes, with a table that is drifted and has a dead letter.
pub(crate) struct Troubled {
    pub(crate) pipeline: Pipeline,
    pub(crate) port: u16,
    pub(crate) daemon: Daemon,
    /// What `/metrics` said before the trouble.
    pub(crate) healthy: String,
}

// === impl Troubled ===

impl Troubled {
    pub(crate) async fn begin(name: &str) -> Self {
        let (pipeline, port) = listening(name).await;
        answer(&pipeline);
        let daemon = pipeline.start();
        let insert = "insert into t values (1, 'a'), (2, 'b')";
        pipeline.sql.batch_execute(insert).await.unwrap();
        pipeline.equal(&["t"]).await;
        let troubled = Self {
            healthy: caught_up(port).await,
            pipeline,
            port,
            daemon,
        };
        troubled.trouble().await;
        troubled
    }

    /// A rule of the collection that the table does not have, and DDL that PostgreSQL does not send.
    async fn trouble(&self) {
        let options = IndexOptions::builder().unique(true).build();
        let keys = doc! { "v": 1 };
        let index = IndexModel::builder().keys(keys).options(options).build();
        let documents = self.pipeline.mongo.collection::<Document>("t");
        documents.create_index(index).await.unwrap();
        let trouble = "insert into t values (3, 'a'); alter table t add c int default 7; insert into t values (4, 'd')";
        self.pipeline.sql.batch_execute(trouble).await.unwrap();
        self.until("drift and a dead letter", |it| {
            it["state"] == "drifted" && it["dead_letters"][0]["letters"] == 1
        })
        .await;
    }

    /// Waits until the daemon says so.
    async fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let attempt = async || match status(self.port).await {
            Ok(status) if is_so(&status) => Ok(status),
            other => Err(format!("{other:?}\n{}", self.pipeline.log())),
        };
        let seen = eventually(PATIENCE, what, attempt).await;
        seen.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The page as a browser makes it; empty where there is none.
    async fn page(&self) -> String {
        if has_browser() {
            in_browser(self.port).await
        } else {
            String::new()
        }
    }
}

/// Has the daemon keep an answer, so that it shows how fresh that is.
fn answer(pipeline: &Pipeline) {
    let rules = pipeline.config().with_file_name("rules");
    std::fs::create_dir(&rules).unwrap();
    let rule = r#"{ "title": "T", "question": "Q?", "kind": "report", "input": "t", "per": "v", "output": "r",
                    "pipeline": [{ "$group": { "_id": "$v", "n": { "$sum": 1 } } }] }"#;
    std::fs::write(rules.join("r01.json"), rule).unwrap();
    append(
        pipeline,
        "[analytics]\nrules = \"rules\"\nrefresh = \"1h\"\n",
    );
}

/// What the metrics are once everything is applied and the slot is measured.
async fn caught_up(port: u16) -> String {
    let attempt = async || match status(port).await? {
        status if status["lag"]["seconds"] != 0.0 => Err(status.to_string()),
        status if status["source"]["is_active"] != true => Err(status.to_string()),
        _ => Ok(get(port, "/metrics").await?.body),
    };
    let caught_up = eventually(PATIENCE, "all to be applied and measured", attempt).await;
    caught_up.unwrap()
}

fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_the_operator_is_told_everywhere_with_its_command() {
    let troubled = Troubled::begin("to_do").await;
    let Troubled { pipeline, port, .. } = &troubled;
    let drift = ": column c of type int4 was added";
    let mend = "walferry verify public.t; or walferry run --new-snapshot";
    let letters = "walferry dead-letter list --table public.t; mend the rows, then walferry dead-letter retry --table public.t";

    // A look at a pipeline that runs is nothing to warn of.
    let checked = said(pipeline, &["check"]).await;
    assert!(!checked.err.contains("WARN"), "{}", checked.err);

    let ready = get(*port, "/ready").await.unwrap();
    assert_eq!((ready.code, &*ready.body), (200, "drifted\n"));
    let metrics = get(*port, "/metrics").await.unwrap().body;
    let lines = [
        "walferry_pipeline_state{state=\"drifted\"} 1\n",
        "walferry_sink_drifted_tables 1\n",
        "walferry_sink_dead_letters{table=\"public.t\"} 1\n",
    ];
    assert_has(&metrics, &lines);
    let people = said(pipeline, &["status"]).await;
    assert_eq!(people.code, Some(0), "{}", people.err);
    let told = ["drifted: public.t since 2", drift, mend, letters];
    assert_has(&people.out, &[": drifted, up "]);
    assert_has(&people.out, &told);
    let object = said(pipeline, &["status", "--json"]).await;
    let object: Value = serde_json::from_str(&object.out).unwrap();
    assert_eq!(object["state"], "drifted", "{object}");
    assert_eq!(object["to_do"][1]["remedy"], letters, "{object}");
    let page = troubled.page().await;
    if !page.is_empty() {
        assert_has(&page, &[">drifted<", "id=\"to-do\">"]);
        assert_has(&page, &told);
    }

    // An order for what has not come yet, and a pause: that is what keeps it from following.
    let generation = object["sink"]["generation"].to_string();
    let commit = format!("{generation}/FFFFFFFF/0");
    for order in [
        &["skip", "--commit", &commit, "--reason", "later"][..],
        &["pause", "--reason", "<b>an index</b>"],
    ] {
        let said = said(pipeline, order).await;
        assert_eq!(said.code, Some(0), "{}", said.err);
    }
    let paused = troubled
        .until("the pause", |it| it["state"] == "paused")
        .await;
    let count = paused["to_do"].as_array().map(Vec::len);
    assert_eq!(count, Some(4), "{paused}");
    assert_eq!(get(*port, "/ready").await.unwrap().code, 200);
    let told = [
        "walferry resume",
        "to be passed over: ",
        drift,
        letters,
        "dead letters: 1 of public.t since 2",
    ];
    let people = said(pipeline, &["status"]).await;
    assert_has(&people.out, &told);
    let page = troubled.page().await;
    if !page.is_empty() {
        assert_has(&page, &[">paused<", "&lt;b&gt;an index&lt;/b&gt;"]);
        assert_has(&page, &told);
    }

    // The servers know of it too.
    let Troubled {
        pipeline,
        port,
        daemon,
        healthy,
    } = troubled;
    assert!(daemon.stop().await.success());
    let stopped = said(&pipeline, &["status"]).await;
    assert_eq!(stopped.code, Some(1), "{}", stopped.out);
    assert_has(&stopped.out, &["from the servers:", "paused by "]);
    assert_has(&stopped.out, &told);
    let stopped = said(&pipeline, &["status", "--json"]).await;
    let stopped: Value = serde_json::from_str(&stopped.out).unwrap();
    assert_eq!(stopped["to_do"], paused["to_do"], "{stopped}");
    let troubled = Troubled {
        daemon: pipeline.start(),
        pipeline,
        port,
        healthy,
    };
    let pipeline = &troubled.pipeline;

    // What is mended is told no more.
    let mended = [
        &["resume"][..],
        &["skip", "--withdraw", "--commit", &commit],
        &["dead-letter", "discard", "--all"],
    ];
    for order in mended {
        let said = said(pipeline, order).await;
        assert_eq!(said.code, Some(0), "{}", said.err);
    }
    let delete = "delete from t where id = 3; update t set id = id";
    pipeline.sql.batch_execute(delete).await.unwrap();
    pipeline.equal(&["t"]).await;
    let verified = said(pipeline, &["verify"]).await;
    assert_eq!(verified.code, Some(0), "{}", verified.out);
    let nothing = |it: &Value| it["state"] == "live" && it["to_do"] == serde_json::json!([]);
    troubled.until("nothing to do", nothing).await;
    assert!(troubled.daemon.stop().await.success());
}
