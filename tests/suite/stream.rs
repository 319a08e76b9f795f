//! The whole way of a change, on real servers.

use std::time::Duration;

use walferry_harness::Signal;

use crate::daemon::{PATIENCE, Pipeline, Route};
use crate::workload;

#[tokio::test(flavor = "multi_thread")]
async fn a_random_workload_ends_with_equal_sides() {
    let pipeline = Pipeline::new("random", workload::SCHEMA, "public.*").await;
    workload::run(&pipeline.sql, 1, 0, 30).await;
    let daemon = pipeline.start();
    pipeline.equal(&workload::TABLES).await;
    let (one, two) = (
        pipeline.database.sql().await.unwrap(),
        pipeline.database.sql().await.unwrap(),
    );
    tokio::join!(
        workload::run(&one, 2, 1, 150),
        workload::run(&two, 3, 2, 150)
    );
    pipeline.equal(&workload::TABLES).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_taken_while_writes_go_on_loses_and_repeats_nothing() {
    let pipeline = Pipeline::new("handover", workload::SCHEMA, "public.*").await;
    pipeline
        .sql
        .batch_execute(
            "insert into paired select i, 'seed', i from generate_series(100000, 160000) i",
        )
        .await
        .unwrap();
    let (one, two) = (
        pipeline.database.sql().await.unwrap(),
        pipeline.database.sql().await.unwrap(),
    );
    let daemon = pipeline.start();
    tokio::join!(
        workload::run(&one, 4, 1, 400),
        workload::run(&two, 5, 2, 400)
    );
    pipeline.equal(&workload::TABLES).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_killing_and_starting_at_any_point_loses_and_repeats_nothing() {
    let pipeline = Pipeline::new("restarts", workload::SCHEMA, "public.*").await;
    let one = pipeline.database.sql().await.unwrap();
    let writing = tokio::task::spawn(async move { workload::run(&one, seed(), 1, 1500).await });
    for round in 0..10_u64 {
        let daemon = pipeline.start();
        tokio::time::sleep(Duration::from_millis(150 + 131 * round)).await;
        if round % 3 == 0 {
            assert!(daemon.stop().await.success());
        } else {
            daemon.kill().await;
        }
    }
    let daemon = pipeline.start();
    writing.await.unwrap();
    pipeline.equal(&workload::TABLES).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn truncates_take_effect_in_order() {
    let pipeline = Pipeline::new("truncate", workload::SCHEMA, "public.*").await;
    let daemon = pipeline.start();
    workload::run(&pipeline.sql, 7, 0, 40).await;
    pipeline
        .sql
        .batch_execute(
            "begin; insert into plain (id) values (-1); truncate plain, paired; \
             insert into plain (id) values (-2); commit; insert into paired values (1, 'x', 2)",
        )
        .await
        .unwrap();
    workload::run(&pipeline.sql, 8, 0, 10).await;
    pipeline.equal(&workload::TABLES).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_and_daemon_killed_under_load_lose_and_repeat_nothing() {
    let root = walferry_harness::fresh_directory("underload").unwrap();
    let mut stack = walferry_harness::Stack::start(root.path()).await.unwrap();
    let database = stack.fresh_database("underload").await.unwrap();
    let pipeline = Pipeline::over(database.clone(), workload::SCHEMA, "public.*").await;
    let mut daemon = pipeline.start();
    let mut writers = Vec::new();
    for lane in 1..=2_i32 {
        let sql = database.sql().await.unwrap();
        let seed = seed() + u64::from(lane.unsigned_abs());
        writers.push(tokio::task::spawn(async move {
            workload::run(&sql, seed, lane, 1_500).await;
        }));
    }
    for round in 0..3_u64 {
        tokio::time::sleep(Duration::from_millis(700 + 300 * round)).await;
        stack.kafka.kill().await.unwrap();
        stack.kafka.restart().await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        stack.mongo.kill().await.unwrap();
        stack.mongo.restart().await.unwrap();
        daemon.kill().await;
        daemon = pipeline.start();
    }
    for writer in writers {
        writer.await.unwrap();
    }
    pipeline.equal(&workload::TABLES).await;
    assert!(daemon.stop().await.success());
}

/// What the random workloads grow from; another one by `WALFERRY_SEED`.
fn seed() -> u64 {
    let given = std::env::var("WALFERRY_SEED").ok();
    given.map_or(100, |seed| seed.parse().expect("WALFERRY_SEED is a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_moves_into_kafka_and_back_and_loses_and_repeats_nothing() {
    if Route::chosen() != Route::Kafka {
        return;
    }
    let pipeline = Pipeline::new("moving", workload::SCHEMA, "public.*").await;
    let mut seed = 20;
    let mut run = async |has_kafka: bool| {
        pipeline.configure("public.*", has_kafka);
        let daemon = pipeline.start();
        seed += 2;
        workload::run(&pipeline.sql, seed, 1, 40).await;
        pipeline.equal(&workload::TABLES).await;
        assert!(daemon.stop().await.success());
        // For whoever comes next.
        workload::run(&pipeline.sql, seed + 1, 1, 40).await;
    };
    let walk = async |to: &str| {
        pipeline.configure("public.*", true);
        // Killed at any point, it is done again by whoever moves next.
        for round in 0..5_u64 {
            let moving = pipeline.start_with(&["move", "--to", to]);
            tokio::time::sleep(Duration::from_millis(100 + 120 * round)).await;
            moving.kill().await;
        }
        let mut pause = Duration::from_secs(1);
        loop {
            let moved = pipeline.start_with(&["move", "--to", to]).end().await;
            if moved.0 == Some(0) {
                break;
            }
            // A heartbeat may be in Kafka only; what to do then is what it says.
            assert!(moved.1.contains("walferry run --role sink"), "{}", moved.1);
            let sink = pipeline.spawn("sink.log", &["run", "--role", "sink"]);
            tokio::time::sleep(pause).await;
            pause *= 2;
            assert!(sink.stop(Signal::TERM, PATIENCE).await.unwrap().success());
        }
    };
    run(false).await;
    walk("kafka").await;
    run(true).await;
    walk("direct").await;
    run(false).await;
    walk("kafka").await;
    run(true).await;
    pipeline.configure("public.*", false);
    let (code, log) = pipeline.start().end().await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("MongoDB holds the changes only to"), "{log}");
    // What is repeated meets documents that are not as its transaction expects them.
    assert!(!log.contains("operations were mended"), "{log}");
}
