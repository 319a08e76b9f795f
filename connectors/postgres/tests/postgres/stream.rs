//! What the stream says of what was done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use walferry_core::{Class, Source, SourceEvent};
use walferry_schema::{Change, Relation, ReplicaIdentity, RowOp, TableName};

use crate::support::{Tested, cells, database, next, public, refused, transactions};

async fn relation(source: &mut walferry_postgres::ReplicationSource) -> Arc<Relation> {
    loop {
        if let SourceEvent::Change {
            change: Change::Row { relation, .. },
            ..
        } = next(source).await.unwrap()
        {
            return relation;
        }
    }
}

#[tokio::test]
async fn every_operation_is_told_with_its_old_row() {
    let database = database(
        "create table t (id int primary key, v text);
         create table f (id int primary key, v text); alter table f replica identity full;
         create table n (v text); alter table n replica identity nothing;
         create table i (a int, b int not null, v text); create unique index i_b on i (b);
         alter table i replica identity using index i_b",
    )
    .await;
    let mut source = database.streaming().await;
    database.run("begin; insert into t values (1, 'one'), (2, null); update t set v = 'eins' where id = 1; commit").await;
    database
        .run("begin; update t set id = 3 where id = 2; delete from t where id = 1; commit")
        .await;
    database.run("begin; insert into f values (1, 'one'); update f set v = null; delete from f; insert into n values ('x'); commit").await;
    database
        .run("begin; insert into i values (1, 2, 'v'); update i set b = 3; delete from i; commit")
        .await;
    let expected: [&[&str]; 4] = [
        &["0 insert t 1,one", "2 insert t 2,null", "4 update t 1,eins"],
        &["0 update t 2,null -> 3,null", "2 delete t 1,null"],
        &[
            "0 insert f 1,one",
            "2 update f 1,one -> 1,null",
            "4 delete f 1,null",
            "6 insert n x",
        ],
        &[
            "0 insert i 1,2,v",
            "2 update i null,2,null -> 1,3,v",
            "4 delete i null,3,null",
        ],
    ];
    assert_eq!(transactions(&mut source, 4).await, expected);
}

#[tokio::test]
async fn a_transaction_is_framed_by_its_commit() -> Tested {
    let database = database("create table t (id int primary key)").await;
    let mut source = database.streaming().await;
    database
        .run("begin; insert into t values (1); commit")
        .await;
    let SourceEvent::Begin {
        commit_lsn,
        committed_at,
        xid,
    } = next(&mut source).await?
    else {
        panic!("no begin")
    };
    let SourceEvent::Change { lsn, .. } = next(&mut source).await? else {
        panic!("no change")
    };
    let SourceEvent::Commit {
        commit_lsn: same,
        end_lsn,
    } = next(&mut source).await?
    else {
        panic!("no commit")
    };
    assert!(lsn < commit_lsn && commit_lsn == same && same < end_lsn);
    let row = database
        .sql
        .query_one(
            "select xmin::text::int8, (extract(epoch from now()) * 1e6)::int8 from t",
            &[],
        )
        .await?;
    assert_eq!(row.get::<_, i64>(0), i64::from(xid));
    assert!((0..60_000_000).contains(&(row.get::<_, i64>(1) - committed_at)));
    Ok(())
}

#[tokio::test]
async fn an_unchanged_toast_value_is_told_as_unchanged() {
    let database = database(
        "create table t (id int primary key, v int, big text); alter table t alter big set storage external;
         insert into t values (1, 1, repeat('x', 10000))",
    )
    .await;
    let mut source = database.streaming().await;
    database.run("update t set v = 2").await;
    assert_eq!(
        transactions(&mut source, 1).await,
        [["0 update t 1,2,unchanged"]]
    );
}

#[tokio::test]
async fn tables_truncated_together_are_one_change_with_an_ordinal_each() {
    let database =
        database("create table a (id int primary key); create table b (id int primary key)").await;
    let mut source = database.streaming().await;
    database
        .run("begin; insert into a values (1); truncate a, b; insert into b values (2); commit")
        .await;
    assert_eq!(
        transactions(&mut source, 1).await,
        [["0 insert a 1", "2 truncate a b", "6 insert b 2"]]
    );
}

#[tokio::test]
async fn a_logical_message_is_told_inside_its_transaction_or_alone() -> Tested {
    let database = database("create table t (id int primary key)").await;
    let mut source = database.streaming().await;
    database
        .run("select pg_logical_emit_message(false, 'alone', 'content')")
        .await;
    database.run("begin; insert into t values (1); select pg_logical_emit_message(true, 'inside', ''); commit").await;
    let told = transactions(&mut source, 1).await;
    assert_eq!(
        told,
        [[
            "message false alone content",
            "0 insert t 1",
            "message true inside "
        ]]
    );
    Ok(())
}

#[tokio::test]
async fn what_was_rolled_back_is_not_told() {
    let database = database("create table t (id int primary key)").await;
    let mut source = database.streaming().await;
    database
        .run("begin; insert into t values (9); rollback")
        .await;
    database
        .run("begin; insert into t values (1); savepoint s; insert into t values (2); rollback to s; insert into t values (3); commit")
        .await;
    assert_eq!(
        transactions(&mut source, 1).await,
        [["0 insert t 1", "2 insert t 3"]]
    );
}

#[tokio::test]
async fn a_changed_table_is_a_new_version_and_an_unchanged_one_the_same() -> Tested {
    let database = database("create table t (id int primary key, a int)").await;
    let mut source = database.streaming().await;
    database
        .run("insert into t values (1, 1); insert into t values (2, 2)")
        .await;
    let (first, second) = (relation(&mut source).await, relation(&mut source).await);
    assert!(Arc::ptr_eq(&first, &second));
    database
        .run("alter table t rename a to b; insert into t values (3, 3)")
        .await;
    assert_eq!(&*relation(&mut source).await.columns[1].name, "b");
    database.run("alter table t add c varchar(7) default 'x', alter b type numeric(5,1); insert into t values (4, 4)").await;
    let relation = relation(&mut source).await;
    let types: Vec<_> = relation
        .columns
        .iter()
        .map(|column| &*column.type_name)
        .collect();
    assert_eq!(types, ["int4", "numeric(5,1)", "varchar(7)"]);
    Ok(())
}

#[tokio::test]
async fn a_redefined_key_is_an_error_where_it_happened() -> Tested {
    let database = database("create table t (id int primary key, code int not null)").await;
    let mut source = database.streaming().await;
    database.run("insert into t values (1, 1)").await;
    assert_eq!(relation(&mut source).await.key_columns(), [0]);
    database.run("alter table t drop constraint t_pkey, add primary key (code); insert into t values (2, 2)").await;
    let error = loop {
        if let Err(fault) = next(&mut source).await {
            break refused::<()>(Err(fault), Class::Fatal);
        }
    };
    assert!(
        error.contains("public.t") && error.contains("\"id\"") && error.contains("new generation"),
        "{error}"
    );
    source.set_keys(&[(public("t"), vec!["gone".to_owned()])]);
    source.inspect().await?;
    source.start().await?;
    next(&mut source).await?;
    let error = refused(next(&mut source).await, Class::Fatal);
    assert!(error.contains("has no column \"gone\""), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_key_has_the_order_of_the_primary_key() -> Tested {
    let database = database(
        "create table t (b int, v int, a int, primary key (a, b) include (v));
         create table u (x int, y int not null, z int not null); create unique index u_zy on u (z, y);
         alter table u replica identity using index u_zy; create table w (v int)",
    )
    .await;
    let mut source = database.source();
    let tables = source.tables().await?;
    let keys: Vec<_> = tables
        .iter()
        .map(|table| (&*table.name.table, table.key.join(",")))
        .collect();
    assert_eq!(
        keys,
        [
            ("t", "a,b".into()),
            ("u", "z,y".into()),
            ("w", String::new())
        ]
    );
    let mut source = database.streaming().await;
    database.run("insert into t values (2, 0, 1)").await;
    assert_eq!(relation(&mut source).await.key_columns(), [2, 0]);
    database.run("insert into u values (0, 0, 0)").await;
    let relation = relation(&mut source).await;
    assert_eq!(
        (relation.key_columns(), relation.identity),
        (vec![2, 1], ReplicaIdentity::Index)
    );
    Ok(())
}

#[tokio::test]
async fn names_with_any_characters_go_through() -> Tested {
    let database = database(
        r#"create schema "Sché\ma.1"; create table "Sché\ma.1"."T""ä 'b" ("k,1" int primary key, "ü	\n" text);
           create publication "püb "" \ '1" for all tables"#,
    )
    .await;
    let name = TableName::new("Sché\\ma.1", "T\"ä 'b");
    let publication = "püb \" \\ '1".to_owned();
    let mut source = database.source_with(walferry_postgres::Settings {
        publication,
        ..database.settings()
    });
    let tables = source.tables().await?;
    assert_eq!(
        (&tables[0].name, &tables[0].key),
        (&name, &vec!["k,1".to_owned()])
    );
    source.set_keys(&[(name.clone(), tables[0].key.clone())]);
    database
        .run(r#"insert into "Sché\ma.1"."T""ä 'b" values (1, E'a\\b\t\n')"#)
        .await;
    source.create_slot(std::slice::from_ref(&name)).await?;
    let chunk = source.next_chunk().await?.ok_or("a chunk")?;
    assert_eq!(cells(&chunk.rows[0]), "1,a\\b\t\n");
    source.start().await?;
    database
        .run(r#"insert into "Sché\ma.1"."T""ä 'b" values (2, 'ö')"#)
        .await;
    assert_eq!(*relation(&mut source).await, *chunk.relation);
    Ok(())
}

#[tokio::test]
async fn a_partitioned_table_is_its_root_or_its_leaves_as_published() -> Tested {
    let database = database(
        "create table r (id int primary key, v text) partition by range (id);
         create table r1 partition of r for values from (0) to (10);
         create table r2 partition of r for values from (10) to (20);
         insert into r values (1, 'a'), (11, 'b');
         create publication root for all tables with (publish_via_partition_root)",
    )
    .await;
    let mut leaves = database.source();
    let names: Vec<_> = leaves
        .tables()
        .await?
        .iter()
        .map(|table| table.name.to_string())
        .collect();
    assert_eq!(names, ["public.r1", "public.r2"]);
    let settings = walferry_postgres::Settings {
        publication: "root".into(),
        ..database.settings()
    };
    let mut root = database.source_with(settings);
    let tables = root.tables().await?;
    assert_eq!(
        (tables.len(), &tables[0].name, tables[0].key.join(",")),
        (1, &public("r"), "id".into())
    );
    root.set_keys(&[(public("r"), vec!["id".to_owned()])]);
    root.create_slot(&[public("r")]).await?;
    let chunk = root.next_chunk().await?.ok_or("a chunk")?;
    assert_eq!(
        chunk.rows.iter().map(cells).collect::<Vec<_>>(),
        ["1,a", "11,b"]
    );
    root.start().await?;
    database.run("insert into r values (2, 'c')").await;
    assert_eq!(*relation(&mut root).await, *chunk.relation);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_wait_loses_and_repeats_nothing() -> Tested {
    const ROWS: i32 = 20_000;
    const COMMITS: i32 = ROWS / 50;
    let database = database(
        "create type mood as enum ('ok'); create domain positive as int check (value > 0);
         create table t (id int primary key, m mood, p positive)",
    )
    .await;
    let mut source = database.streaming().await;
    let url = database.url.clone();
    // One transaction for each dropped wait: so there are enough of them however fast the server is.
    let permits = Arc::new(Semaphore::new(0));
    let allowed = Arc::clone(&permits);
    let writer = database.tasks.spawn(async move {
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
            .await
            .unwrap();
        let write = async {
            for from in (1..=ROWS).step_by(50) {
                let to = from + 49;
                allowed.acquire().await.unwrap().forget();
                let sql =
                    format!("insert into t select i, 'ok', i from generate_series({from}, {to}) i");
                client.batch_execute(&sql).await.unwrap();
            }
        };
        tokio::select! { _ = connection => panic!("connection lost"), () = write => {} }
    });
    let (mut seen, mut dropped, mut commits) = (Vec::new(), 0, 0);
    while seen.len() < ROWS as usize {
        let wait = Duration::from_micros(seen.len() as u64 % 7 * 20);
        let event = tokio::time::timeout(wait, source.next()).await;
        let event = if let Ok(event) = event {
            event?
        } else {
            dropped += 1;
            permits.add_permits(1);
            continue;
        };
        match event {
            SourceEvent::Change {
                change:
                    Change::Row {
                        op: RowOp::Insert { new },
                        relation,
                    },
                ..
            } => {
                assert_eq!(&*relation.columns[2].type_name, "int4");
                seen.push(cells(&new));
            }
            SourceEvent::Commit { end_lsn, .. } => {
                commits += 1;
                let _ = tokio::time::timeout(Duration::ZERO, source.confirm(end_lsn)).await;
            }
            _ => {}
        }
    }
    writer.await?;
    let expected: Vec<_> = (1..=ROWS).map(|id| format!("{id},ok,{id}")).collect();
    assert!(seen == expected, "{} rows seen", seen.len());
    assert!(
        dropped >= COMMITS && commits >= COMMITS - 1,
        "{dropped} waits dropped, {commits} commits"
    );
    Ok(())
}

#[tokio::test]
async fn what_is_here_is_told_without_waiting() -> Tested {
    let database = database("create table t (id int primary key)").await;
    let mut source = database.streaming().await;
    database
        .run("insert into t select generate_series(1, 1000)")
        .await;
    let mut rows = BTreeMap::from([("waited", 0), ("buffered", 0)]);
    loop {
        let (how, event) = match source.buffered()? {
            Some(event) => ("buffered", event),
            None => ("waited", source.next().await?),
        };
        match event {
            SourceEvent::Change { .. } => *rows.entry(how).or_default() += 1,
            SourceEvent::Commit { .. } => break,
            _ => {}
        }
    }
    assert_eq!(rows.values().sum::<i32>(), 1000);
    assert!(rows["buffered"] > 100, "{rows:?}");
    Ok(())
}

#[tokio::test]
async fn stopping_inside_a_large_transaction_frees_the_slot() -> Tested {
    let database = database("create table t (id int primary key, v text)").await;
    let mut source = database.streaming().await;
    database
        .run("insert into t select i, repeat('x', 500) from generate_series(1, 200000) i")
        .await;
    next(&mut source).await?;
    next(&mut source).await?;
    source.stop().await?;
    source.inspect().await?;
    source.start().await?;
    Ok(())
}

#[tokio::test]
async fn a_large_row_goes_through() -> Tested {
    let database = database("create table t (id int primary key, v text)").await;
    let mut source = database.streaming().await;
    database
        .run("insert into t values (1, repeat('x', 20000000)); insert into t values (2, 'y')")
        .await;
    loop {
        if let SourceEvent::Change {
            change:
                Change::Row {
                    op: RowOp::Insert { new },
                    ..
                },
            ..
        } = next(&mut source).await?
        {
            assert_eq!(new.text_bytes(), 20_000_001);
            break;
        }
    }
    assert_eq!(transactions(&mut source, 1).await, [["2 insert t 2,y"]]);
    Ok(())
}
