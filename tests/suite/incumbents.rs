//! What other engines between PostgreSQL and MongoDB were seen to lose or to invent, one test a defect.
//!
//! Defects that belong to a subject with a module of its own are tested there: docs/reliability.md has the list.

use bson::{Bson, DateTime, Document, doc};
use serde_json::{Value, json};
use walferry_harness::eventually;

use crate::daemon::{Daemon, PATIENCE, Pipeline, Route};

/// The pipeline over a schema whose table `t` is streamed by the daemon; its row 0 was in the snapshot.
async fn streaming(name: &str, schema: &str) -> (Pipeline, Daemon) {
    let schema = format!("{schema}; insert into t (id) values (0)");
    let pipeline = Pipeline::new(name, &schema, "public.*").await;
    let daemon = pipeline.start();
    pipeline.equal(&["t"]).await;
    (pipeline, daemon)
}

/// The streamed records of `t`, tombstones left out; none without Kafka.
fn records(pipeline: &Pipeline) -> Vec<Value> {
    if pipeline.route == Route::Direct {
        return Vec::new();
    }
    pipeline.records_of_stream(&["t"])
}

/// Elsewhere `__debezium_unavailable_value` is stored over the real one.
#[tokio::test(flavor = "multi_thread")]
async fn an_update_beside_a_toasted_column_keeps_its_value_and_sends_no_placeholder() {
    let schema = "create table t (id int primary key, long text, list jsonb, n int)";
    let (pipeline, daemon) = streaming("toast", schema).await;
    let long = "select string_agg(md5(i::text), '') from generate_series(1, 600) i";
    let insert = format!(
        "insert into t select 1, long, jsonb_build_array(long, null), 0 from ({long}) x (long)"
    );
    pipeline.execute(&insert).await;
    // In transactions of their own: none can be folded into the insert.
    for n in 1..=5 {
        pipeline
            .execute(&format!("update t set n = {n} where id = 1"))
            .await;
    }
    pipeline.execute("update t set id = 2 where id = 1").await;
    pipeline.equal(&["t"]).await;
    assert!(daemon.stop().await.success());
    for record in records(&pipeline) {
        assert!(!record.to_string().contains("unavailable"), "{record}");
        if record["op"] == "u" {
            let columns: Vec<_> = record["after"].as_object().unwrap().keys().collect();
            assert_eq!(columns, ["id", "n"]);
        }
    }
}

/// Elsewhere one tombstone discards a whole poll, and a batch that begins with a delete is lost.
#[tokio::test(flavor = "multi_thread")]
async fn deletes_and_their_tombstones_before_and_between_other_changes_lose_none_of_them() {
    let schema = "create table t (id int primary key, v text);
                  insert into t select i, 'first' from generate_series(1, 200) i";
    let (pipeline, daemon) = streaming("deletes", schema).await;
    pipeline.execute("delete from t where id % 2 = 0").await;
    pipeline
        .execute("insert into t values (1000, 'x'); delete from t where id % 3 = 0")
        .await;
    pipeline
        .execute(
            "delete from t where id = 1; update t set v = 'second'; delete from t where id = 5",
        )
        .await;
    pipeline.equal(&["t"]).await;
    assert!(daemon.stop().await.success());
}

/// Elsewhere unordered bulk writes leave 0 of 20 documents.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_made_deleted_and_made_again_is_there() {
    let schema = "create table t (id int primary key, v text)";
    let (pipeline, daemon) = streaming("again", schema).await;
    let statements = |last: &str| -> Vec<String> {
        let last = last.to_string();
        let of = move |id: i32| {
            let insert = |v: &str| format!("insert into t values ({id}, '{v}')");
            let delete = format!("delete from t where id = {id}");
            [insert("old"), delete, insert(&last)]
        };
        (1..=20).flat_map(of).collect()
    };
    // As one transaction, and as sixty that become few groups. They end with different values: equal sides are not
    // those of the one before.
    pipeline.execute(&statements("new").join(";")).await;
    pipeline.execute("delete from t where id > 0").await;
    for statement in statements("newer") {
        pipeline.execute(&statement).await;
    }
    pipeline.equal(&["t"]).await;
    let found = pipeline.mongo.collection::<Document>("t");
    assert_eq!(
        found.count_documents(doc! { "v": "newer" }).await.unwrap(),
        20
    );
    assert!(daemon.stop().await.success());
}

/// Elsewhere NaN is null or 0.0, `int[][]` is `[null, null]`, `name` is null, infinity is two wrong dates, columns of
/// composite types, multiranges and LSNs are dropped, and one date out of range stops its table.
#[tokio::test(flavor = "multi_thread")]
async fn values_without_an_obvious_form_are_neither_lost_nor_invented() {
    let schema = "create type pair as (a int, b text);
        create table t (id int primary key, number numeric, float float8, grid int[][], called name, day date,
                        moment timestamptz, past date, far timestamp, ranges int4multirange, two pair, place pg_lsn);
        insert into t values (1, 'NaN', 'NaN', '{{1,2},{3,null}}', 'a name', 'infinity', '-infinity',
                              '0044-03-15 BC', '294276-12-31', '{[1,3),[5,7)}', '(1,\"x y\")', '16/B374D848')";
    let pipeline = Pipeline::new("values", schema, "public.*").await;
    let daemon = pipeline.start();
    let columns = "number, float, grid, called, day, moment, past, far, ranges, two, place";
    let millis = async |column: &str| {
        let query = format!("select extract(epoch from {column})::int8 * 1000 from t where id = 1");
        let row = pipeline.sql.query_one(&query, &[]).await.unwrap();
        DateTime::from_millis(row.get(0))
    };
    let range = |lower: i32, upper: i32| {
        doc! { "lower": lower, "upper": upper, "lower_inclusive": true, "upper_inclusive": false, "empty": false }
    };
    let expected = doc! {
        "number": Bson::Decimal128("NaN".parse().unwrap()),
        "grid": [[1, 2], [Bson::Int32(3), Bson::Null]],
        "called": "a name",
        "day": "infinity",
        "moment": "-infinity",
        "past": millis("past").await,
        "far": millis("far").await,
        "ranges": [range(1, 3), range(5, 7)],
        "two": { "a": 1, "b": "x y" },
        "place": "16/B374D848",
    };
    let collection = pipeline.mongo.collection::<Document>("t");
    for id in [1, 2] {
        let found = async || match collection.find_one(doc! { "_id": id }).await {
            Ok(Some(found)) => Ok(found),
            other => Err(format!("{other:?}")),
        };
        let found = eventually(PATIENCE, "the row", found).await;
        let mut found = found.unwrap_or_else(|error| panic!("{error}\n{}", pipeline.log()));
        if id == 1 {
            pipeline
                .execute(&format!("insert into t select 2, {columns} from t"))
                .await;
        }
        assert!(found.get_f64("float").unwrap().is_nan(), "{found}");
        for alone in ["_id", "id", "float"] {
            found.remove(alone);
        }
        assert_eq!(found, expected, "{id}");
    }
    assert!(daemon.stop().await.success());
}

/// Elsewhere generated columns are in the snapshot only.
#[tokio::test(flavor = "multi_thread")]
async fn a_generated_column_is_in_the_copied_and_the_streamed_rows_or_in_neither() {
    let schema =
        "create table t (id int primary key, double int generated always as (id * 2) stored);
                  insert into t values (1)";
    let pipeline = Pipeline::new("generated", schema, "public.*").await;
    let daemon = pipeline.start();
    let collection = pipeline.mongo.collection::<Document>("t");
    let mut have = Vec::new();
    for id in [1, 2] {
        pipeline
            .execute("insert into t values (2) on conflict do nothing")
            .await;
        let found = async || match collection.find_one(doc! { "_id": id }).await {
            Ok(Some(found)) => Ok(found.contains_key("double")),
            other => Err(format!("{other:?}")),
        };
        have.push(eventually(PATIENCE, "the row", found).await.unwrap());
    }
    assert_eq!(have[0], have[1]);
    assert!(daemon.stop().await.success());
}

/// Elsewhere a delete has "" and 0 for the columns that PostgreSQL did not send, and each event of a
/// transaction another id.
#[tokio::test(flavor = "multi_thread")]
async fn a_delete_invents_no_values_and_a_transaction_has_one_id() {
    let schema =
        "create table t (id int primary key, v text not null default '', n int not null default 0)";
    let (pipeline, daemon) = streaming("invents", schema).await;
    pipeline
        .execute(
            "begin; insert into t values (1, 'x', 1), (2, 'y', 2); update t set n = 3 where id = 1;
                    delete from t where id = 2; commit",
        )
        .await;
    pipeline.equal(&["t"]).await;
    assert!(daemon.stop().await.success());
    let records = records(&pipeline);
    let mut ids: Vec<_> = records.iter().map(|it| &it["transaction"]["id"]).collect();
    ids.dedup();
    let deleted = records.iter().find(|it| it["op"] == "d");
    if pipeline.route != Route::Direct {
        assert_eq!((records.len(), ids.len()), (4, 1), "{records:?}");
        assert_eq!(deleted.unwrap()["before"], json!({ "id": 2 }));
    }
}
