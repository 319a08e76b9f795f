//! A table's history, held against what a trigger of PostgreSQL has seen.

use bson::{Document, doc};
use futures_util::TryStreamExt as _;
use walferry_harness::eventually;

use crate::daemon::{PATIENCE, Pipeline};

/// Each version is noted by the transaction that makes it.
const SCHEMA: &str = "
    create table t (id int primary key, a int, b text);
    alter table t alter b set storage external;
    create table audit (n bigint generated always as identity primary key, op text, id int, a int, b text, xid bigint);
    create function note() returns trigger language plpgsql as $$ begin
        if tg_op = 'TRUNCATE' then
            insert into audit (op, xid) values ('t', txid_current() % (1::bigint << 32));
        elsif tg_op = 'DELETE' then
            insert into audit (op, id, xid) values ('d', old.id, txid_current() % (1::bigint << 32));
        else
            insert into audit (op, id, a, b, xid)
            values (case tg_op when 'INSERT' then 'c' else 'u' end, new.id, new.a, new.b,
                    txid_current() % (1::bigint << 32));
        end if;
        return null;
    end $$;
    create trigger note after insert or update or delete on t for each row execute function note();
    create trigger emptied after truncate on t for each statement execute function note();";

/// Values of a few bytes, and ones that stand outside of their row, where an update may leave them alone.
const WORKLOAD: &str = "
    do $$ begin
        insert into t select i, i, repeat('x', case when i % 3 = 0 then 9000 else 5 end) from generate_series(1, 60) i
            on conflict (id) do update set a = t.a + 1;
        update t set a = a + 1 where id % 2 = 0;
        update t set a = a + 1, b = repeat('y', 8000) where id % 5 = 0;
        delete from t where id % 7 = 0;
        insert into t select i, -i, 'again' from generate_series(7, 60, 7) i;
        update t set a = -a where id % 11 = 0;
    end $$;
    update t set id = id + 1000 where id between 20 and 22;
    delete from t where id > 1000;";

type Seen = (String, i32, i32, String, i64);

/// The pipeline of a table that keeps its history.
async fn kept(name: &str) -> Pipeline {
    let pipeline = Pipeline::new(name, SCHEMA, "public.t").await;
    let config = std::fs::read_to_string(pipeline.config()).unwrap();
    let with = config.replace("mode = \"stream\"", "mode = \"stream\"\nhistory = true");
    assert_ne!(config, with);
    std::fs::write(pipeline.config(), with).unwrap();
    pipeline
}

async fn seen_by_the_trigger(pipeline: &Pipeline) -> Vec<Seen> {
    let query = "select op, id, a, b, xid from audit where op in ('c', 'u') order by n";
    let rows = pipeline.sql.query(query, &[]).await.unwrap();
    let seen = rows
        .iter()
        .map(|it| (it.get(0), it.get(1), it.get(2), it.get(3), it.get(4)));
    seen.collect()
}

async fn versions(pipeline: &Pipeline) -> Vec<Document> {
    let versions = pipeline.mongo.collection::<Document>("t_history");
    let order = doc! { "_id.generation": 1, "lsn": 1, "_id.ordinal": 1 };
    let found = versions.find(doc! { "op": { "$ne": "r" } }).sort(order);
    found.await.unwrap().try_collect().await.unwrap()
}

fn seen(version: &Document) -> Seen {
    let int = |field: &str| version.get_i32(field).unwrap();
    let text = |field: &str| version.get_str(field).unwrap().to_owned();
    let xid = version.get_i64("xid").unwrap();
    (text("op"), int("id"), int("a"), text("b"), xid)
}

/// That the current versions are the table, and no row's versions leave a gap or overlap.
async fn check_chains(pipeline: &Pipeline) {
    let all = pipeline.mongo.collection::<Document>("t_history");
    let order = doc! { "_id.row": 1, "_id.generation": 1, "lsn": 1, "_id.ordinal": 1 };
    let found = all.find(doc! {}).sort(order).await.unwrap();
    let found: Vec<_> = found.try_collect().await.unwrap();
    for pair in found.windows(2) {
        let row = |it: &Document| it.get_document("_id").unwrap().get_i32("row").unwrap();
        let time = |it: &Document, field: &str| it.get_datetime(field).copied();
        if row(&pair[0]) == row(&pair[1]) {
            let (end, next) = (
                time(&pair[0], "valid_to").unwrap(),
                time(&pair[1], "valid_from"),
            );
            assert!(end <= next.unwrap(), "{pair:?}");
        }
    }
    let current = |it: &&Document| it.get_bool("is_current").unwrap();
    let mut current: Vec<_> = found
        .iter()
        .filter(current)
        .map(|it| (it.get_i32("id").unwrap(), it.get_i32("a").unwrap()))
        .collect();
    current.sort_unstable();
    let rows = pipeline.sql.query("select id, a from t order by id", &[]);
    let rows: Vec<(i32, i32)> = rows
        .await
        .unwrap()
        .iter()
        .map(|it| (it.get(0), it.get(1)))
        .collect();
    assert_eq!(current, rows);
}

async fn until_all_versions_are_there(pipeline: &Pipeline) {
    let expected = seen_by_the_trigger(pipeline).await.len();
    let attempt = async || {
        let found = versions(pipeline).await.len();
        (found >= expected)
            .then_some(())
            .ok_or_else(|| format!("{found} of {expected}"))
    };
    if let Err(error) = eventually(PATIENCE, "the versions", attempt).await {
        panic!("{error}\n{}", pipeline.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_is_kept_whole_with_its_transaction_over_kills() {
    let pipeline = kept("history").await;
    pipeline
        .sql
        .batch_execute("insert into t values (0, 0, 'before')")
        .await
        .unwrap();
    pipeline.sql.batch_execute("truncate audit").await.unwrap();
    let mut daemon = pipeline.start();
    pipeline.equal(&["t"]).await;
    for round in 0..4 {
        pipeline.sql.batch_execute(WORKLOAD).await.unwrap();
        if round == 1 {
            pipeline.sql.batch_execute("truncate t").await.unwrap();
        }
        // In the middle of it.
        daemon.kill().await;
        daemon = pipeline.start();
    }
    pipeline.equal(&["t"]).await;
    until_all_versions_are_there(&pipeline).await;
    let found: Vec<_> = versions(&pipeline).await.iter().map(seen).collect();
    assert_eq!(found, seen_by_the_trigger(&pipeline).await);
    check_chains(&pipeline).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_known_as_it_was_at_any_time() {
    let pipeline = kept("as_of").await;
    pipeline
        .sql
        .batch_execute("insert into t values (1, 1, 'x'), (2, 2, 'y')")
        .await
        .unwrap();
    let daemon = pipeline.start();
    pipeline.equal(&["t"]).await;
    pipeline
        .sql
        .batch_execute("update t set a = 10 where id = 1; delete from t where id = 2")
        .await
        .unwrap();
    pipeline.equal(&["t"]).await;
    let then = versions(&pipeline).await[0]
        .get_datetime("valid_from")
        .unwrap()
        .timestamp_millis();
    // The pipeline of docs/history.md.
    let as_of = async |millis: i64| {
        let at = bson::DateTime::from_millis(millis);
        let is_valid = doc! {
            "valid_from": { "$lte": at },
            "$or": [{ "valid_to": { "$gt": at } }, { "valid_to": null }],
        };
        let rows = pipeline.mongo.collection::<Document>("t_history");
        let found = rows
            .find(is_valid)
            .sort(doc! { "_id.row": 1 })
            .await
            .unwrap();
        let found: Vec<_> = found.try_collect().await.unwrap();
        let row = |it: &Document| (it.get_i32("id").unwrap(), it.get_i32("a").unwrap());
        found.iter().map(row).collect::<Vec<_>>()
    };
    assert_eq!(as_of(then - 1).await, [(1, 1), (2, 2)]);
    assert_eq!(as_of(then + 60_000).await, [(1, 10)]);

    // A new copy of the tables goes on with the history.
    assert!(daemon.stop().await.success());
    pipeline
        .sql
        .batch_execute("update t set a = 11")
        .await
        .unwrap();
    let daemon = pipeline.start_with(&["run", "--new-snapshot"]);
    pipeline.equal(&["t"]).await;
    pipeline
        .sql
        .batch_execute("insert into t values (3, 3, 'z')")
        .await
        .unwrap();
    pipeline.equal(&["t"]).await;
    check_chains(&pipeline).await;
    assert_eq!(as_of(then + 1).await.first(), Some(&(1, 10)));
    assert!(daemon.stop().await.success());
}
