//! What operators order a running or a stopped pipeline to do.

use bson::{Document, doc};
use serde_json::Value;
use walferry_harness::eventually;

use crate::daemon::{Daemon, PATIENCE, Pipeline, Route};

const SCHEMA: &str =
    "create table t (id int primary key, v text); create table u (id int primary key)";

async fn said(pipeline: &Pipeline, arguments: &[&str]) -> (Option<i32>, String) {
    let said = crate::site::said(pipeline.command(arguments)).await;
    (said.code, said.out + &said.err)
}

async fn json(pipeline: &Pipeline, arguments: &[&str]) -> Value {
    let command = pipeline.command(&[arguments, &["--json"]].concat());
    let said = crate::site::said(command).await;
    serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

/// The transaction that the sink's last error offers to pass over.
pub(crate) fn named(log: &str) -> String {
    let offered = log.rsplit_once("walferry skip --commit ").expect(log).1;
    if let Some(named) = offered.strip_prefix("GENERATION/LSN") {
        // The error names it before: `at 1731888000/16/B374D848`.
        assert!(named.starts_with(", as named above"), "{log}");
        let before = log.rsplit_once("walferry skip").expect(log).0;
        let at = before.rsplit_once(" at ").expect(log).1;
        return at.split(':').next().expect(log).to_owned();
    }
    let end = offered.find(|c: char| c.is_whitespace() || c == '"');
    offered[..end.unwrap_or(offered.len())].to_owned()
}

/// A daemon that has applied a row.
async fn begun(pipeline: &Pipeline) -> Daemon {
    let daemon = pipeline.start();
    let insert = "insert into t values (1, 'a')";
    pipeline.sql.batch_execute(insert).await.unwrap();
    pipeline.equal(&["t"]).await;
    daemon
}

async fn ended(daemon: Daemon) -> Option<i32> {
    let sink = daemon.0.last().expect("a sink");
    sink.wait(PATIENCE).await.unwrap().code()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_mongodb_refuses_is_passed_over_by_name_kept_and_settled_by_verify() {
    let pipeline = Pipeline::new("skip", SCHEMA, "public.*").await;
    pipeline.stop_on_poison();
    let daemon = pipeline.start();
    let sql = async |text| pipeline.sql.batch_execute(text).await.unwrap();
    sql("insert into t values (1, 'a')").await;
    pipeline.equal(&["t"]).await;
    let unique = mongodb::IndexModel::builder()
        .keys(doc! { "v": 1 })
        .options(
            mongodb::options::IndexOptions::builder()
                .unique(true)
                .build(),
        )
        .build();
    let documents = pipeline.mongo.collection::<Document>("t");
    documents.create_index(unique).await.unwrap();
    sql("insert into t values (2, 'b')").await;
    sql("begin; insert into u values (1); insert into t values (3, 'a'); commit").await;
    sql("insert into t values (4, 'c')").await;
    assert_eq!(ended(daemon).await, Some(1), "{}", pipeline.log());

    let commit = named(&pipeline.log());
    let (code, text) = said(
        &pipeline,
        &["skip", "--commit", &commit, "--reason", "twice"],
    )
    .await;
    assert_eq!(code, Some(0), "{text}");
    let daemon = pipeline.start();
    eventually(PATIENCE, "what comes after it", async || {
        match documents.find_one(doc! { "_id": 4 }).await {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}\n{}", pipeline.log())),
        }
    })
    .await
    .unwrap();
    assert!(
        documents
            .find_one(doc! { "_id": 3 })
            .await
            .unwrap()
            .is_none()
    );
    let others = pipeline.mongo.collection::<Document>("u");
    assert!(
        others.find_one(doc! { "_id": 1 }).await.unwrap().is_none(),
        "a half of it"
    );

    let own = pipeline.mongo.client().database("_walferry");
    let of = doc! { "_id.pipeline": pipeline.id() };
    let kept = own
        .collection::<Document>("skipped")
        .find_one(of.clone())
        .await
        .unwrap();
    let kept = kept.expect("it is kept");
    assert_eq!(kept.get_i64("changes").ok(), Some(2));
    assert_eq!(kept.get_str("reason").ok(), Some("twice"));
    let changes = own.collection::<Document>("skipped_changes");
    assert_eq!(changes.count_documents(of.clone()).await.unwrap(), 2);

    let end = commit.split_once('/').unwrap().1;
    let traced = json(&pipeline, &["trace", end]).await;
    match pipeline.route {
        Route::Direct => assert!(traced["notes"].to_string().contains(&commit), "{traced}"),
        Route::Kafka | Route::Split => {
            let says = traced["says"].as_str().unwrap();
            assert!(says.contains("passed over, as "), "{traced}");
        }
    }

    // Past it there is nothing to pass over, or to take back.
    let (code, text) = said(&pipeline, &["skip", "--commit", &commit]).await;
    assert!(code == Some(1) && text.contains("is past"), "{text}");
    let differs = json(&pipeline, &["verify"]).await;
    assert_eq!(differs["settled"], 0);
    sql("delete from t where id = 3; delete from u where id = 1").await;
    pipeline.equal(&["t", "u"]).await;
    let equal = json(&pipeline, &["verify"]).await;
    assert_eq!(equal["settled"], 2, "{equal}");
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_pipeline_applies_nothing_until_it_is_resumed_over_restarts_too() {
    let pipeline = Pipeline::new("pause", SCHEMA, "public.*").await;
    let daemon = begun(&pipeline).await;
    let paused = json(&pipeline, &["pause", "--reason", "an index"]).await;
    assert_eq!(paused["is_news"], true);
    assert_eq!(json(&pipeline, &["pause"]).await["is_news"], false);
    eventually(PATIENCE, "the pause", async || match pipeline.log() {
        log if log.contains("paused") => Ok(()),
        log => Err(log),
    })
    .await
    .unwrap();
    assert!(daemon.stop().await.success(), "{}", pipeline.log());
    pipeline
        .sql
        .batch_execute("insert into t values (2, 'b')")
        .await
        .unwrap();
    let daemon = pipeline.start();
    eventually(
        PATIENCE,
        "the next start to be paused",
        async || match pipeline.log().matches("paused").count() {
            2.. => Ok(()),
            _ => Err(pipeline.log()),
        },
    )
    .await
    .unwrap();
    let documents = pipeline.mongo.collection::<Document>("t");
    assert_eq!(documents.count_documents(doc! {}).await.unwrap(), 1);
    assert_eq!(json(&pipeline, &["resume"]).await["is_news"], true);
    pipeline.equal(&["t"]).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_makes_no_sense_is_refused_with_the_reason() {
    let pipeline = Pipeline::new("orders", SCHEMA, "public.*").await;
    let (code, text) = said(&pipeline, &["skip", "--commit", "7/0/10"]).await;
    assert!(
        code == Some(1) && text.contains("nothing was applied yet"),
        "{text}"
    );
    let (code, text) = said(&pipeline, &["skip", "--commit", "0/10"]).await;
    assert!(code == Some(2) && text.contains("GENERATION/LSN"), "{text}");
    let daemon = begun(&pipeline).await;
    let (code, text) = said(&pipeline, &["skip", "--commit", "7/0/10"]).await;
    assert!(
        code == Some(1) && text.contains("is of generation 7"),
        "{text}"
    );
    let (code, text) = said(&pipeline, &["resume"]).await;
    assert!(code == Some(0) && text.contains("was not paused"), "{text}");
    assert!(daemon.stop().await.success());
}
