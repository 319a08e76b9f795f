//! What PostgreSQL says beside rows: logical messages, replication origins.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::daemon::{Pipeline, Route};

const SCHEMA: &str = "create table t (id int primary key, v text);
                      create table u (id int primary key, t int references t);
                      create table s (id int generated always as identity primary key, t int references t)";

/// Incumbent 5: messages and truncates kill MongoDB's official sink.
#[tokio::test(flavor = "multi_thread")]
async fn logical_messages_reach_their_topic_and_the_sink_loses_nothing() {
    let pipeline = Pipeline::new("messages", SCHEMA, "public.*").await;
    let daemon = pipeline.start();
    let run = async |sql: &str| pipeline.sql.batch_execute(sql).await.unwrap();
    run("insert into t values (0)").await;
    pipeline.equal(&["t"]).await;
    run("select pg_logical_emit_message(false, 'alone', 'a')").await;
    run(
        "begin; insert into t values (1, 'x'); select pg_logical_emit_message(true, 'inside', '\\xff00'::bytea); \
         update t set id = 2 where id = 1; select pg_logical_emit_message(true, 'inside', 'b'); \
         insert into u values (1, 2); commit",
    )
    .await;
    run("begin; select pg_logical_emit_message(true, 'undone', ''); rollback").await;
    run("select pg_logical_emit_message(true, 'lone', 'c')").await;
    run("insert into t values (3)").await;
    pipeline.equal(&["t", "u"]).await;
    daemon.kill().await;
    // The last record before a restart is a message.
    run("select pg_logical_emit_message(false, 'last', 'd')").await;
    let daemon = pipeline.start();
    run("insert into t values (4)").await;
    pipeline.equal(&["t", "u"]).await;
    assert!(daemon.stop().await.success());
    if pipeline.route == Route::Direct {
        return;
    }
    let of = |topic: &str| pipeline.values_of(&format!("{}.{topic}", pipeline.database.name));
    // The kill may have had some sent again: each is known by its LSN.
    let mut messages: BTreeMap<u64, Value> = BTreeMap::new();
    for message in of("message") {
        assert_eq!(message["op"], "m");
        messages.insert(message["source"]["lsn"].as_u64().unwrap(), message);
    }
    let said: Vec<_> = messages
        .values()
        .map(|it| {
            (
                it["message"]["prefix"].clone(),
                it["message"]["content"].clone(),
            )
        })
        .collect();
    let expected = [
        ("alone", "YQ=="),
        ("inside", "/wA="),
        ("inside", "Yg=="),
        ("lone", "Yw=="),
        ("last", "ZA=="),
    ];
    assert_eq!(
        said,
        expected.map(|(prefix, content)| (json!(prefix), json!(content)))
    );
    let inside: Vec<_> = messages
        .values()
        .filter(|it| it["message"]["prefix"] == "inside")
        .collect();
    let id = &inside[0]["transaction"]["id"];
    let orders = inside
        .iter()
        .map(|it| it["transaction"]["total_order"].clone());
    // The insert, then the delete and the insert of the key change between the two.
    assert_eq!(orders.collect::<Vec<_>>(), [2, 5]);
    let end = of("transaction")
        .into_iter()
        .find(|it| it["status"] == "END" && it["id"] == *id);
    let end = end.expect("the transaction's end");
    assert_eq!(end["event_count"], 6, "{end}");
    let collections = end["data_collections"].as_array().unwrap();
    let counted = json!({"data_collection": "LOGICAL_DECODING_MESSAGE", "event_count": 2});
    assert!(collections.contains(&counted), "{end}");
}

/// Incumbent 5: truncates are skipped by default, silently.
#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_empties_every_table_that_it_cascades_to_and_identities_begin_anew() {
    let pipeline = Pipeline::new("cascade", SCHEMA, "public.*").await;
    let daemon = pipeline.start();
    let run = async |sql: &str| pipeline.sql.batch_execute(sql).await.unwrap();
    run(
        "insert into t select i, 'x' from generate_series(1, 50) i; \
         insert into u select i, i from generate_series(1, 50) i; \
         insert into s (t) select i from generate_series(1, 50) i",
    )
    .await;
    pipeline.equal(&["t", "u", "s"]).await;
    run("begin; insert into t values (60), (61); insert into s (t) values (60); \
         truncate t restart identity cascade; insert into t values (1, 'new'); insert into s (t) values (1); commit")
    .await;
    pipeline.equal(&["t", "u", "s"]).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replicated_transaction_names_its_origin_in_its_records() {
    let pipeline = Pipeline::new("origin", SCHEMA, "public.*").await;
    let daemon = pipeline.start();
    let first = "insert into t values (0)";
    pipeline.sql.batch_execute(first).await.unwrap();
    pipeline.equal(&["t"]).await;
    let name = &pipeline.database.name;
    let setup = format!(
        "select pg_replication_origin_create('{name}'); select pg_replication_origin_session_setup('{name}');
         begin; select pg_replication_origin_xact_setup('0/ABCDEF', now()); insert into t values (1); commit;
         select pg_replication_origin_session_reset(); insert into t values (2);
         select pg_replication_origin_drop('{name}')"
    );
    for statement in setup.split(';') {
        pipeline.sql.batch_execute(statement).await.unwrap();
    }
    pipeline.equal(&["t"]).await;
    assert!(daemon.stop().await.success());
    if pipeline.route == Route::Direct {
        return;
    }
    let records = pipeline.values_of(&format!("{name}.public.t"));
    let origins: Vec<_> = records
        .iter()
        .filter(|it| it["op"] == "c" && it["after"]["id"] != 0)
        .map(|it| {
            (
                it["source"]["origin"].clone(),
                it["source"]["origin_lsn"].clone(),
            )
        })
        .collect();
    let expected = [
        (json!(name), json!(0x00AB_CDEF)),
        (Value::Null, Value::Null),
    ];
    assert_eq!(origins, expected);
}
