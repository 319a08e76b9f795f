//! Tables and their definitions, changed while they are streamed, on real servers.

use std::collections::BTreeMap;

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use walferry_harness::{Stack, eventually};

use crate::daemon::{Daemon, PATIENCE, Pipeline, Route};
use crate::site::said;

const TABLE: &str = "create table t (id int primary key, a text, b int);
                     insert into t values (1, 'one', 1), (2, 'two', 2)";

impl Pipeline {
    pub(crate) async fn execute(&self, sql: &str) {
        self.sql.batch_execute(sql).await.unwrap();
    }

    /// A publication of the test's own in place of the one for all tables.
    async fn published(name: &str, schema: &str, publication: &str) -> Self {
        let stack = Stack::shared().await.unwrap();
        let database = stack.fresh_database(name).await.unwrap();
        let setup = format!("{schema}; create publication walmart_publication {publication}");
        Self::over_existing(database, &setup, "public.*").await
    }

    /// All documents of a collection, by `_id`.
    async fn documents(&self, collection: &str) -> Vec<Document> {
        let collection = self.mongo.collection::<Document>(collection);
        let found = collection.find(doc! {}).sort(doc! { "_id": 1 }).await;
        found.unwrap().try_collect().await.unwrap()
    }

    /// Starts the daemon and waits until it streams: what comes then is in no snapshot.
    async fn stream(&self, marked: &str) -> Daemon {
        let daemon = self.start();
        self.equal(&[marked]).await;
        self.execute(&format!("insert into {marked} (id) values (-1)"))
            .await;
        self.equal(&[marked]).await;
        daemon
    }

    /// Waits for the document with a key.
    async fn document(&self, collection: &str, id: impl Into<Bson>) -> Document {
        let found = self.mongo.collection::<Document>(collection);
        let id = doc! { "_id": id.into() };
        let found = async || {
            let found = found.find_one(id.clone()).await;
            found
                .map_err(|error| error.to_string())?
                .ok_or_else(|| "no document".to_owned())
        };
        match eventually(PATIENCE, "the document", found).await {
            Ok(document) => document,
            Err(error) => panic!("{error}\n{}", self.log()),
        }
    }

    /// Compares until both sides are equal: what the comparison said.
    async fn verified(&self) -> serde_json::Value {
        let equal = async || {
            let said = said(self.command(&["verify", "--json"])).await;
            match said.code {
                Some(0) => Ok(serde_json::from_str(&said.out).unwrap()),
                _ => Err(said.out + &said.err),
            }
        };
        match eventually(PATIENCE, "both sides to be equal", equal).await {
            Ok(report) => report,
            Err(error) => panic!("{error}\n{}", self.log()),
        }
    }

    /// Waits until the table `t` is noted as drifted in this way.
    async fn drifts(&self, differences: &[&str]) {
        let own = self.mongo.client().database("_walferry");
        let of = doc! { "_id.pipeline": self.id() };
        let noted = async || {
            let tables = own.collection::<Document>("tables");
            let table = tables.find_one(of.clone()).await;
            let table = table.map_err(|error| error.to_string())?;
            let table = table.ok_or("no table")?;
            let drift = table.get_array("drift").cloned().unwrap_or_default();
            let mut drift: Vec<_> = drift.iter().filter_map(Bson::as_str).collect();
            drift.sort_unstable();
            if drift == differences {
                Ok(())
            } else {
                Err(format!("{drift:?}"))
            }
        };
        if let Err(error) = eventually(PATIENCE, "the drift", noted).await {
            panic!("{error}\n{}", self.log());
        }
    }

    /// Sees that the daemon, or one that is started, ends with this error and goes on after a new snapshot.
    async fn ends_until_a_new_snapshot(&self, daemon: Option<Daemon>, error: &[&str]) -> Daemon {
        let (code, log) = daemon.unwrap_or_else(|| self.start()).end().await;
        assert_eq!(code, Some(1), "{log}");
        assert!(error.iter().all(|part| log.contains(part)), "{log}");
        self.start_with(&["run", "--new-snapshot"])
    }
}

/// Incumbent: "columns added, dropped, renamed, retyped between two changes".
#[tokio::test(flavor = "multi_thread")]
async fn each_row_has_the_columns_that_its_table_had_at_its_change() {
    let pipeline = Pipeline::new("columns", TABLE, "public.*").await;
    let daemon = pipeline.stream("t").await;
    let changes = "insert into t values (3, 'x', 3); alter table t add c numeric(6,2); insert into t values (4, 'x', 4, 4.5);
         alter table t drop b; insert into t values (5, 'x', 5.5); alter table t rename a to e; insert into t values (6, 'x', 6.5);
         alter table t alter c type text using c || '!'; insert into t values (7, 'x', 'seven');
         begin; alter table t drop e; insert into t values (8, 'c'); alter table t add e int; insert into t values (9, 'c', 9); commit";
    let number = |text: &str| Bson::Decimal128(text.parse().unwrap());
    // What was dropped is unset in time, but for `e`, which came again: the old values are drift.
    let expected = [
        doc! {"_id": 3, "id": 3},
        doc! {"_id": 4, "id": 4, "c": number("4.50")},
        doc! {"_id": 5, "id": 5, "c": number("5.50")},
        doc! {"_id": 6, "id": 6, "e": "x", "c": number("6.50")},
        doc! {"_id": 7, "id": 7, "e": "x", "c": "seven"},
        doc! {"_id": 8, "id": 8, "c": "c"},
        doc! {"_id": 9, "id": 9, "c": "c", "e": 9},
    ];
    let are_as_expected = async || {
        let documents = pipeline.documents("t").await;
        match documents.get(3..10) {
            Some(found) if sorted(found) == sorted(&expected) => Ok(()),
            _ => Err(format!("{documents:?}")),
        }
    };
    // Decoded as they come, and as a backlog that is read with the catalog of later.
    pipeline.execute(changes).await;
    let equal = eventually(PATIENCE, "the documents", are_as_expected).await;
    equal.unwrap_or_else(|error| panic!("{error}\n{}", pipeline.log()));
    assert!(daemon.stop().await.success());
    pipeline
        .execute("delete from t where id > 2; alter table t drop c, drop e; alter table t add a text, add b int")
        .await;
    pipeline.execute(changes).await;
    pipeline.execute("insert into t values (10)").await;
    let daemon = pipeline.start();
    pipeline.document("t", 10).await;
    let equal = eventually(PATIENCE, "the documents", are_as_expected).await;
    equal.unwrap_or_else(|error| panic!("{error}\n{}", pipeline.log()));
    assert!(daemon.stop().await.success());
}

/// Documents whose fields have no order: what a column that is added last becomes.
fn sorted(documents: &[Document]) -> Vec<BTreeMap<String, Bson>> {
    let fields = |document: &Document| document.clone().into_iter().collect();
    documents.iter().map(fields).collect()
}

/// To MongoDB a number is the same `_id` whatever its type: a row stays one, and in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_stays_one_row_when_its_key_becomes_a_bigint() {
    let pipeline = Pipeline::new("retyped", TABLE, "public.*").await;
    let daemon = pipeline.stream("t").await;
    assert!(daemon.stop().await.success());
    pipeline
        .execute(
            "insert into t values (3, 'x', 3), (4, 'x', 4); alter table t alter id type bigint;
             update t set a = 'y' where id in (1, 3); delete from t where id in (2, 4); insert into t values (5, 'z', 5)",
        )
        .await;
    let daemon = pipeline.start();
    pipeline.document("t", 5).await;
    let number = |it: &Document| match it.get("_id") {
        Some(Bson::Int32(id)) => i64::from(*id),
        Some(Bson::Int64(id)) => *id,
        other => panic!("{other:?}"),
    };
    let rows = |it: &Document| (number(it), it.get_str("a").unwrap_or_default().to_owned());
    let found: Vec<_> = pipeline.documents("t").await.iter().map(rows).collect();
    let expected = [(-1, ""), (1, "y"), (3, "y"), (5, "z")];
    assert_eq!(found, expected.map(|(id, a)| (id, a.to_owned())));
    // What was there before is spelled as it was: that differs, and nothing is missing or left over.
    let said = said(pipeline.command(&["verify", "--json"])).await;
    let report: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let counts =
        ["rows", "different", "missing", "extra"].map(|it| report["tables"][0][it].as_u64());
    assert_eq!(counts, [4, 3, 0, 0].map(Some), "{report}");
    assert!(daemon.stop().await.success());
}

/// Incumbent 7: older events are keyed by today's catalog, a delete gets the key `{"code":""}`; and 10: documents are
/// left under the old key.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_redefined_with_a_backlog_ends_the_daemon_before_a_wrong_document() {
    let schema = "create table t (id int primary key, code text not null); insert into t values (1, 'a'), (2, 'b')";
    let pipeline = Pipeline::new("rekeyed", schema, "public.*").await;
    let daemon = pipeline.start();
    pipeline.equal(&["t"]).await;
    pipeline.execute("insert into t values (0, '')").await;
    pipeline.equal(&["t"]).await;
    assert!(daemon.stop().await.success());
    pipeline
        .execute(
            "insert into t values (3, 'c'); delete from t where id = 1;
             alter table t drop constraint t_pkey, add primary key (code); insert into t values (4, 'd')",
        )
        .await;
    let (code, log) = pipeline.start().end().await;
    assert_eq!(code, Some(1), "{log}");
    let named = ["public.t", "does not cover the key column", "\"id\""];
    assert!(named.iter().all(|part| log.contains(part)), "{log}");
    let ids: Vec<_> = pipeline.documents("t").await;
    let ids: Vec<_> = ids.iter().map(|it| it.get("_id").cloned()).collect();
    let is_int = |id: &Option<Bson>| matches!(id, Some(Bson::Int32(_)));
    assert!(ids.iter().all(is_int), "{ids:?}");
    let daemon = pipeline.start_with(&["run", "--new-snapshot"]);
    pipeline.equal(&["t"]).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_renamed_ends_the_daemon_until_a_new_snapshot() {
    let pipeline = Pipeline::new("renamed", TABLE, "public.*").await;
    let daemon = pipeline.stream("t").await;
    pipeline
        .execute("insert into t values (3); alter table t rename to r; insert into r values (4)")
        .await;
    let error = ["public.t", "was dropped, renamed or removed"];
    let daemon = pipeline
        .ends_until_a_new_snapshot(Some(daemon), &error)
        .await;
    pipeline.equal(&["r"]).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_dropped_with_a_backlog_is_named_and_a_new_snapshot_goes_on_without_it() {
    let schema = "create type mood as enum ('ok'); create table gone (id int primary key, m mood); \
                  insert into gone values (1, 'ok')";
    let pipeline = Pipeline::new("dropped", &format!("{TABLE}; {schema}"), "public.*").await;
    let daemon = pipeline.stream("t").await;
    pipeline.equal(&["gone"]).await;
    assert!(daemon.stop().await.success());
    pipeline
        .execute("insert into gone values (2, 'ok'); insert into t values (3); drop table gone; drop type mood")
        .await;
    let error = ["public.gone", "was dropped, renamed or removed"];
    let daemon = pipeline.ends_until_a_new_snapshot(None, &error).await;
    pipeline.equal(&["t"]).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_made_while_streaming_under_for_all_tables_is_named_and_a_new_snapshot_has_it() {
    let pipeline = Pipeline::new("created", TABLE, "public.*").await;
    let daemon = pipeline.stream("t").await;
    pipeline
        .execute("create table late (id int primary key); insert into t values (3); insert into late values (1)")
        .await;
    let error = ["public.late", "is not part of generation", "--new-snapshot"];
    let daemon = pipeline
        .ends_until_a_new_snapshot(Some(daemon), &error)
        .await;
    pipeline.equal(&["t", "late"]).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_leaves_the_publication_while_it_is_streamed_is_named() {
    let schema = format!("{TABLE}; create table u (id int primary key); insert into u values (1)");
    let pipeline = Pipeline::published("altered", &schema, "for table t, u").await;
    let daemon = pipeline.stream("t").await;
    pipeline
        .execute("alter publication walmart_publication drop table u; insert into u values (2); insert into t values (3)")
        .await;
    let error = ["public.u", "removed from publication"];
    let daemon = pipeline
        .ends_until_a_new_snapshot(Some(daemon), &error)
        .await;
    pipeline.execute("insert into t values (4)").await;
    pipeline.equal(&["t"]).await;
    pipeline
        .execute("alter publication walmart_publication set table u; insert into t values (5); alter publication walmart_publication add table t")
        .await;
    let error = ["public.t", "while it was streamed"];
    let daemon = pipeline
        .ends_until_a_new_snapshot(Some(daemon), &error)
        .await;
    pipeline.execute("insert into u values (6)").await;
    pipeline.equal(&["t", "u"]).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partitioned_table_is_one_collection_or_one_for_each_leaf_as_published() {
    let schema = "create table r (id int primary key, v text) partition by range (id);
         create table r1 partition of r for values from (-9) to (10);
         create table r2 (v text, extra int, id int not null); alter table r2 drop extra;
         alter table r attach partition r2 for values from (10) to (20);
         insert into r values (1, 'a'), (11, 'b')";
    let changes = "insert into r values (2, 'c'), (12, 'd'); update r set id = 13 where id = 2; update r set v = 'e';
         delete from r where id = 11; create table r3 partition of r for values from (20) to (30);";
    let rooted = "for all tables with (publish_via_partition_root)";
    let pipeline = Pipeline::published("rooted", schema, rooted).await;
    let daemon = pipeline.stream("r").await;
    pipeline.execute(changes).await;
    pipeline.execute("insert into r values (21, 'f')").await;
    pipeline.equal(&["r"]).await;
    pipeline
        .execute("begin; truncate r; insert into r values (1, 'g'), (22, 'h'); commit")
        .await;
    pipeline.equal(&["r"]).await;
    assert!(daemon.stop().await.success());

    let pipeline = Pipeline::published("leaves", schema, "for all tables").await;
    let daemon = pipeline.stream("r1").await;
    pipeline.execute(changes).await;
    pipeline.equal(&["r1", "r2"]).await;
    pipeline
        .execute("truncate r1; insert into r values (3, 'g')")
        .await;
    pipeline.equal(&["r1", "r2"]).await;
    pipeline.execute("insert into r values (21, 'f')").await;
    let error = ["public.r3", "is not part of generation"];
    let daemon = pipeline
        .ends_until_a_new_snapshot(Some(daemon), &error)
        .await;
    pipeline.equal(&["r1", "r2", "r3"]).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_a_primary_key_is_streamed_by_its_index_and_otherwise_refused() {
    for identity in ["default", "full", "nothing"] {
        let schema = format!("create table k (v int); alter table k replica identity {identity}");
        let pipeline = Pipeline::new("keyless", &schema, "public.*").await;
        let (code, log) = pipeline.start().end().await;
        assert_eq!(code, Some(1), "{log}");
        let named = ["public.k", "has no key", "ADD PRIMARY KEY"];
        assert!(named.iter().all(|part| log.contains(part)), "{log}");
    }
    let schema = "create table i (a int not null, b text not null, v text); create unique index i_key on i (b, a);
         alter table i replica identity using index i_key; insert into i values (1, 'x', 'one');
         create table n (id int primary key, v text); alter table n replica identity nothing; insert into n values (1, 'one');
         create table f (id int primary key, v text); alter table f replica identity full; insert into f values (1, 'one')";
    let pipeline = Pipeline::new("indexed", schema, "public.*").await;
    let daemon = pipeline.stream("n").await;
    pipeline.equal(&["f"]).await;
    pipeline
        .execute("insert into i values (2, 'y', 'two'); update i set v = 'new' where a = 1; update i set a = 3 where a = 2;
                  insert into n values (2, 'two'); update f set v = 'new', id = 2; insert into f values (3, 'x'); delete from f where id = 3")
        .await;
    let update = pipeline.sql.batch_execute("update n set v = 'no'").await;
    assert!(update.is_err(), "PostgreSQL refuses it");
    pipeline.equal(&["n", "f"]).await;
    let expected = [
        doc! {"_id": {"b": "x", "a": 1}, "a": 1, "b": "x", "v": "new"},
        doc! {"_id": {"b": "y", "a": 3}, "a": 3, "b": "y", "v": "two"},
    ];
    assert_eq!(pipeline.documents("i").await, expected);
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_any_kind_go_the_whole_way() {
    let schema = r#"create schema "Sché\ma";
        create table "Sché\ma"."T""ä 'b☃" ("k,1" int primary key, "ü \n" text, "SELECT" text);
        create table public."Größe" ("Schlüssel" text primary key, "a b" int)"#;
    let pipeline = Pipeline::new("names", schema, "*.*").await;
    let daemon = pipeline.start();
    let insert = |n: i32| {
        format!(
            r#"insert into "Sché\ma"."T""ä 'b☃" values ({n}, 'x{n}', 'y'); insert into "Größe" values ('ß{n}\', {n})"#
        )
    };
    let expected = |n: i32| {
        let one = doc! {"_id": n, "k,1": n, r"ü \n": format!("x{n}"), "SELECT": "y"};
        let key = format!(r"ß{n}\");
        let two = doc! {"_id": &key, "Schlüssel": &key, "a b": n};
        (one, two)
    };
    pipeline.execute(&insert(1)).await;
    assert_eq!(pipeline.document("Größe", r"ß1\").await, expected(1).1);
    pipeline.execute(&insert(2)).await;
    assert_eq!(pipeline.document("Größe", r"ß2\").await, expected(2).1);
    let odd = "Sché\\ma.T\"ä 'b☃";
    assert_eq!(
        pipeline.documents(odd).await,
        [expected(1).0, expected(2).0]
    );
    let update = r#"update "Sché\ma"."T""ä 'b☃" set "k,1" = 3, "ü \n" = null where "k,1" = 1; delete from "Größe" where "a b" = 1;
                    update "Größe" set "a b" = 7"#;
    pipeline.execute(update).await;
    let moved = doc! {"_id": 3, "k,1": 3, r"ü \n": null, "SELECT": "y"};
    assert_eq!(pipeline.document(odd, 3).await, moved);
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_alike_once_they_are_cleaned_are_refused() {
    let collections = r#"create table "a.t" (id int primary key); create schema a; create table a.t (id int primary key)"#;
    let spaces =
        r#"create table "a b" (id int primary key); create table "a_b" (id int primary key)"#;
    // Kafka takes `.` and `_` for the same where it names its metrics.
    let points =
        r#"create table "a.b" (id int primary key); create table "a_b" (id int primary key)"#;
    let mut refusals = vec![(collections, "a.t")];
    if Route::chosen() != Route::Direct {
        refusals = vec![(spaces, "a_b"), (points, "a_b")];
    }
    if Route::chosen() == Route::Kafka {
        refusals.push((collections, "a.t"));
    }
    for (schema, named) in refusals {
        let pipeline = Pipeline::new("alike", schema, "*.*").await;
        let (code, log) = pipeline.start().end().await;
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains("would share") && log.contains(named), "{log}");
    }
}

/// Incumbent: DDL that rewrites rows is not sent, and nobody notices.
#[tokio::test(flavor = "multi_thread")]
async fn what_ddl_changed_without_sending_it_is_drift_until_the_rows_were_touched_and_verified() {
    let pipeline = Pipeline::new("drift", TABLE, "public.*").await;
    let daemon = pipeline.stream("t").await;
    pipeline
        .execute("alter table t add c int default 7; alter table t alter b type text using b || '!'; insert into t values (3, 'x', 'y', 8)")
        .await;
    pipeline.document("t", 3).await;
    let differences = [
        "column b was int4 and became text",
        "column c of type int4 was added",
    ];
    pipeline.drifts(&differences).await;
    assert!(daemon.stop().await.success());
    let log = pipeline.log();
    assert!(
        log.contains("drifted: documents that do not change lack"),
        "{log}"
    );

    // Changed while nobody read: noticed by the first row that is read.
    pipeline
        .execute("alter table t add d text default 'new'; alter table t rename a to e; delete from t where id = 3")
        .await;
    let daemon = pipeline.start();
    let differences = [
        "column b was int4 and became text",
        "column c of type int4 was added",
        "column d of type text was added",
        "column e of type text was added",
    ];
    pipeline.drifts(&differences).await;
    let verified = said(pipeline.command(&["verify"])).await;
    assert_eq!(verified.code, Some(3), "{}", verified.out);
    pipeline.drifts(&differences).await;
    pipeline.execute("update t set id = id").await;
    // What was dropped or renamed is unset in the background, too in rows that did not change.
    let verified = pipeline.verified().await;
    assert_eq!(verified["settled"], 1, "{verified}");
    pipeline.drifts(&[]).await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_column_is_unset_in_documents_that_do_not_change_but_not_one_that_came_again() {
    let schema = "create table t (id int primary key, a text, b int); insert into t select i, 'old', i from generate_series(1, 3000) i";
    let pipeline = Pipeline::new("unset", schema, "public.*").await;
    let daemon = pipeline.stream("t").await;
    pipeline
        .execute("alter table t drop a; insert into t values (3001, 1)")
        .await;
    pipeline.verified().await;
    pipeline
        .execute("alter table t add a text; update t set a = 'new'; alter table t drop b; insert into t values (3002, 'new'); \
                  alter table t add b int; update t set b = 1")
        .await;
    pipeline.document("t", 3002).await;
    pipeline.verified().await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_column_is_unset_by_its_field_whatever_it_was_called() {
    let schema = r#"create table t (id int primary key, j jsonb, "j.k" int, "$x" int, "_id" int);
        insert into t select i, '{"k": 1}', i, i, i from generate_series(1, 1500) i"#;
    let pipeline = Pipeline::new("unset_odd", schema, "public.*").await;
    let daemon = pipeline.start();
    pipeline.document("t", 1500).await;
    pipeline
        .execute(r#"alter table t drop "j.k", drop "$x", drop "_id"; insert into t values (1501, '{"k": 2}')"#)
        .await;
    pipeline.document("t", 1501).await;
    pipeline.verified().await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_moves_takes_its_drift_with_it() {
    if Route::chosen() != Route::Direct {
        return;
    }
    let pipeline = Pipeline::new("moved", TABLE, "public.*").await;
    let daemon = pipeline.stream("t").await;
    pipeline
        .execute("alter table t add c int default 7; insert into t values (3)")
        .await;
    let differences = ["column c of type int4 was added"];
    pipeline.drifts(&differences).await;
    assert!(daemon.stop().await.success());
    pipeline.configure("public.*", true);
    let (code, log) = pipeline.start_with(&["move", "--to", "kafka"]).end().await;
    assert_eq!(code, Some(0), "{log}");
    let own = pipeline.mongo.client().database("_walferry");
    let name = &pipeline.database.name;
    let of = doc! { "_id.pipeline": format!("{name}/{name}") };
    let table = own.collection::<Document>("tables").find_one(of).await;
    let table = table.unwrap().expect("the table");
    assert_eq!(table.get_array("drift").unwrap().len(), 1, "{table}");
}
