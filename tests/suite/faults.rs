//! Faults that must be noticed and named, and what must not change because of them.

use std::time::Duration;

use walferry_harness::{Process, Signal, eventually};

use crate::daemon::{Daemon, PATIENCE, Pipeline, Route};
use crate::reload::told_until;

const SCHEMA: &str = "create table t (id int primary key, v text)";

async fn streaming(name: &str) -> (Pipeline, crate::daemon::Daemon) {
    let pipeline = Pipeline::new(name, SCHEMA, "public.*").await;
    let daemon = pipeline.start();
    pipeline
        .sql
        .batch_execute("insert into t values (1, 'one')")
        .await
        .unwrap();
    pipeline.equal(&["t"]).await;
    (pipeline, daemon)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_says_so_and_changes_nothing() {
    let (pipeline, daemon) = streaming("second").await;
    let epoch = async || {
        let positions = pipeline.mongo.client().database("_walferry");
        let positions = positions.collection::<bson::Document>("positions");
        positions
            .find_one(bson::doc! { "_id": pipeline.id() })
            .await
            .unwrap()
            .unwrap()
            .get("epoch")
            .cloned()
    };
    let client = (pipeline.route != Route::Direct).then(|| pipeline.client());
    let rows = || Some(pipeline.end_of(client.as_ref()?, "public.t"));
    let errors = || pipeline.log().matches("trying again").count();
    let before = (epoch().await, rows(), errors());
    let (code, log) = pipeline.start_apart(&["run"]).end().await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("is active") || log.contains("in use"), "{log}");
    assert_eq!((epoch().await, rows(), errors()), before);
    pipeline
        .sql
        .batch_execute("insert into t values (2, 'two')")
        .await
        .unwrap();
    pipeline.equal(&["t"]).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_does_not_take_a_snapshot_under_way_for_an_interrupted_one() {
    let pipeline = Pipeline::new("copying", SCHEMA, "public.*").await;
    pipeline
        .sql
        .batch_execute("insert into t select i, repeat('x', 100) from generate_series(1, 200000) i")
        .await
        .unwrap();
    let daemon = pipeline.start();
    let slot = format!(
        "select count(*) from pg_replication_slots where slot_name = '{}'",
        pipeline.database.name
    );
    eventually(PATIENCE, "the snapshot to begin", async || {
        pipeline
            .sql
            .query_one(&slot, &[])
            .await
            .unwrap()
            .get::<_, i64>(0)
            == 1
    })
    .await
    .unwrap();
    let (code, log) = pipeline.start_apart(&["run"]).end().await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("is active for process"), "{log}");
    pipeline.equal(&["t"]).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_slot_is_named_and_a_new_snapshot_mends_it() {
    let (pipeline, daemon) = streaming("dropped").await;
    assert!(daemon.stop().await.success());
    let drop = format!(
        "select pg_drop_replication_slot('{}')",
        pipeline.database.name
    );
    pipeline.sql.batch_execute(&drop).await.unwrap();
    pipeline
        .sql
        .batch_execute("update t set v = 'unseen'; insert into t values (3)")
        .await
        .unwrap();
    let (code, log) = pipeline.start().end().await;
    assert_eq!(code, Some(1), "{log}");
    assert!(
        log.contains("is gone") && log.contains("--new-snapshot"),
        "{log}"
    );
    let daemon = pipeline.start_with(&["run", "--new-snapshot"]);
    pipeline.equal(&["t"]).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_made_anew_by_somebody_else_is_noticed() {
    let (pipeline, daemon) = streaming("anew").await;
    assert!(daemon.stop().await.success());
    let name = &pipeline.database.name;
    for statement in [
        format!("select pg_drop_replication_slot('{name}')"),
        "insert into t values (4, 'lost')".to_owned(),
        format!("select pg_create_logical_replication_slot('{name}', 'pgoutput')"),
    ] {
        pipeline.sql.batch_execute(&statement).await.unwrap();
    }
    let (code, log) = pipeline.start().end().await;
    assert_eq!(code, Some(1), "{log}");
    let named = match pipeline.route {
        Route::Direct => "MongoDB holds the changes only to",
        Route::Kafka | Route::Split => "commit log ends at",
    };
    assert!(log.contains(named), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_database_beside_a_busy_one_does_not_retain_wal() {
    let (pipeline, daemon) = streaming("idle").await;
    let stack = walferry_harness::Stack::shared().await.unwrap();
    let busy = stack
        .fresh_database("busy")
        .await
        .unwrap()
        .sql()
        .await
        .unwrap();
    busy.batch_execute("create table b (t text)").await.unwrap();
    let target: String = {
        busy.batch_execute("insert into b select repeat('x', 1000) from generate_series(1, 20000)")
            .await
            .unwrap();
        busy.query_one("select pg_current_wal_lsn()::text", &[])
            .await
            .unwrap()
            .get(0)
    };
    let passed = format!(
        "select confirmed_flush_lsn >= '{target}' from pg_replication_slots where slot_name = '{}'",
        pipeline.database.name
    );
    eventually(PATIENCE, "the idle slot to advance", async || {
        pipeline
            .sql
            .query_one(&passed, &[])
            .await
            .unwrap()
            .get::<_, bool>(0)
    })
    .await
    .unwrap();
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_snapshot_replaces_documents_that_somebody_else_changed() {
    let (pipeline, daemon) = streaming("again").await;
    assert!(daemon.stop().await.success());
    let documents = pipeline.mongo.collection::<bson::Document>("t");
    documents
        .insert_one(bson::doc! { "_id": 99, "id": 99 })
        .await
        .unwrap();
    let daemon = pipeline.start_with(&["run", "--new-snapshot"]);
    pipeline.equal(&["t"]).await;
    let staging = pipeline.mongo.list_collection_names().await.unwrap();
    assert_eq!(staging, ["t"], "no staging collection is left");
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_a_key_is_refused_by_name() {
    let pipeline = Pipeline::new("keyless", "create table k (v text)", "public.*").await;
    let (code, log) = pipeline.start().end().await;
    assert_eq!(code, Some(1), "{log}");
    assert!(
        log.contains("public.k") && log.contains("PRIMARY KEY"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_come_back_are_gone_on_with() {
    let root = walferry_harness::fresh_directory("restarting").unwrap();
    let mut stack = walferry_harness::Stack::start(root.path()).await.unwrap();
    let database = stack.fresh_database("restarting").await.unwrap();
    let mut pipeline = Pipeline::over(database.clone(), SCHEMA, "public.*").await;
    let daemon = pipeline.start();
    pipeline
        .sql
        .batch_execute("insert into t values (0, 'zero')")
        .await
        .unwrap();
    pipeline.equal(&["t"]).await;
    for round in 1..=2 {
        stack.mongo.kill().await.unwrap();
        let insert =
            format!("insert into t select {round} * 1000 + i, 'm' from generate_series(1, 500) i");
        pipeline.sql.batch_execute(&insert).await.unwrap();
        stack.mongo.restart().await.unwrap();
        pipeline.equal(&["t"]).await;
        stack.kafka.kill().await.unwrap();
        let update = format!("update t set v = v || 'k' where id > {round} * 1000");
        pipeline.sql.batch_execute(&update).await.unwrap();
        stack.kafka.restart().await.unwrap();
        pipeline.equal(&["t"]).await;
        stack.postgres.kill().await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        stack.postgres.restart().await.unwrap();
        pipeline.sql = database.sql().await.unwrap();
        pipeline
            .sql
            .batch_execute(&format!("delete from t where id = {round} * 1000 + 7"))
            .await
            .unwrap();
        pipeline.equal(&["t"]).await;
    }
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_lone_sinks_the_newcomer_wins_and_the_old_one_exits_with_its_own_code() {
    if Route::chosen() == Route::Direct {
        return;
    }
    let pipeline = Pipeline::new("lone", SCHEMA, "public.*").await;
    let reader = pipeline.spawn("reader.log", &["run", "--role", "reader"]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let mut old = pipeline.command(&["run", "--role", "sink"]);
    old.env("NOTIFY_SOCKET", &path);
    let old = Process::spawn(&old, &directory.path().join("old.log")).unwrap();
    let insert = "insert into t select coalesce(max(id), 0) + 1, 'x' from t";
    pipeline.sql.batch_execute(insert).await.unwrap();
    pipeline.equal(&["t"]).await;
    // Stalled, as by a long pause of its machine: it learns of the other when it wakes up.
    old.signal(Signal::STOP);
    let new = pipeline.spawn("new.log", &["run", "--role", "sink"]);
    pipeline.sql.batch_execute(insert).await.unwrap();
    pipeline.equal(&["t"]).await;
    old.signal(Signal::CONT);
    pipeline.sql.batch_execute(insert).await.unwrap();
    let fenced = old.wait(PATIENCE).await.unwrap();
    assert_eq!(fenced.code(), Some(4));
    let (_socket, told) = told_until(socket, "STOPPING=1").await;
    assert_eq!(told[told.len() - 2], "STATUS=fenced", "{told:?}");
    pipeline.equal(&["t"]).await;
    for process in [reader, new] {
        assert!(
            process
                .stop(Signal::TERM, PATIENCE)
                .await
                .unwrap()
                .success()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_kafka_is_refused_with_the_remedy() {
    let pipeline = Pipeline::new("norole", SCHEMA, "public.*").await;
    pipeline.configure("public.*", false);
    let sink = pipeline.spawn("walferry.log", &["run", "--role", "sink"]);
    let (code, log) = Daemon(vec![sink]).end().await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("needs Kafka"), "{log}");
}
