//! Snapshots, and how the stream goes on from them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use walferry_core::{Class, Source, SourceEvent};
use walferry_postgres::{Settings, SnapshotReader};
use walferry_schema::{Change, Row, RowOp};

use crate::support::{PUBLICATION, Tested, cells, chunks, database, next, public, refused};

/// `id,version` rows.
fn pair(row: &Row) -> (i32, i32) {
    let text = cells(row);
    let (id, version) = text.split_once(',').unwrap();
    (id.parse().unwrap(), version.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_and_the_stream_after_it_miss_nothing_and_repeat_nothing() -> Tested {
    let database = database(
        "create table t (id int primary key, version int);
         insert into t select i, 0 from generate_series(1, 30000) i",
    )
    .await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3).map(|writer| {
        let (url, stop) = (database.url.clone(), Arc::clone(&stop));
        database.tasks.spawn(async move {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
            let write = async {
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    round += 1;
                    let id = 100_000 + round * 3 + writer;
                    let old = (round * 37 + writer * 1000) % 30_000 + 1;
                    let sql = format!(
                        "begin; insert into t values ({id}, 0); update t set version = version + 1 where id = {old};
                         delete from t where id = {}; commit", id - 30
                    );
                    client.batch_execute(&sql).await.unwrap();
                }
            };
            tokio::select! { _ = connection => panic!("connection lost"), () = write => {} }
        })
    }).collect();
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let mut source = database.source_with(Settings {
        chunk_rows: 1000,
        ..database.settings()
    });
    source.create_slot(&[public("t")]).await?;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let chunks = chunks(&mut source).await;
    assert!(chunks.iter().all(|chunk| chunk.rows.len() <= 1000));
    let mut rows = BTreeMap::new();
    for (id, version) in chunks.iter().flat_map(|chunk| chunk.rows.iter().map(pair)) {
        assert_eq!(rows.insert(id, version), None);
    }
    assert!(rows.len() >= 30_000);
    source.start().await?;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await?;
    }
    database
        .run("select pg_logical_emit_message(true, 'end', '')")
        .await;
    let mut changes = 0;
    loop {
        let change = match next(&mut source).await? {
            SourceEvent::Message { .. } => break,
            SourceEvent::Change {
                change: Change::Row { op, .. },
                ..
            } => op,
            _ => continue,
        };
        changes += 1;
        match change {
            RowOp::Insert { new } => assert_eq!(rows.insert(pair(&new).0, pair(&new).1), None),
            RowOp::Update { new, .. } => {
                let (id, version) = pair(&new);
                assert_eq!(rows.insert(id, version), Some(version - 1));
            }
            RowOp::Delete { old } => {
                let id: i32 = cells(&old).split(',').next().unwrap().parse()?;
                assert!(rows.remove(&id).is_some());
            }
        }
    }
    assert!(changes > 100, "{changes} changes");
    let table = database
        .sql
        .query("select id, version from t order by id", &[])
        .await?;
    let table: Vec<(i32, i32)> = table.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(rows.into_iter().collect::<Vec<_>>(), table);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn block_ranges_cover_every_row_once() -> Tested {
    let database = database(
        "create table t (id int primary key, v text);
         insert into t select i, repeat('x', i % 300) from generate_series(1, 40000) i;
         delete from t where id % 3 = 0; update t set v = 'moved' where id % 5 = 0",
    )
    .await;
    let mut reader = SnapshotReader::export(&database.url, &database.tasks).await?;
    let table = reader.describe(&public("t"), PUBLICATION).await?;
    // Not in the snapshot.
    database.run("insert into t values (-1, ''); delete from t where id = 1; update t set v = 'new' where id < 100").await;
    let ranges = table.ranges(256 * 1024);
    assert!(ranges.len() > 10, "{} ranges", ranges.len());
    let ranges = Arc::new(std::sync::Mutex::new(ranges));
    let mut readers = Vec::new();
    for _ in 0..3 {
        let (mut copier, table, ranges) =
            (reader.copier().await?, table.clone(), Arc::clone(&ranges));
        readers.push(database.tasks.spawn(async move {
            let mut ids = Vec::new();
            loop {
                let Some(range) = ranges.lock().unwrap().pop() else {
                    return ids;
                };
                copier.start(&table, range).await.unwrap();
                while let Some(rows) = copier.next_rows(100, 10_000).await.unwrap() {
                    assert!(rows.len() <= 100);
                    ids.extend(rows.iter().map(|row| {
                        cells(row)
                            .split(',')
                            .next()
                            .unwrap()
                            .parse::<i32>()
                            .unwrap()
                    }));
                }
            }
        }));
    }
    let mut ids = Vec::new();
    for reader in readers {
        ids.extend(reader.await?);
    }
    assert_eq!(reader.count(&table).await?, ids.len() as u64);
    ids.sort_unstable();
    assert_eq!(
        ids,
        (1..=40_000).filter(|id| id % 3 != 0).collect::<Vec<_>>()
    );
    Ok(())
}

#[tokio::test]
async fn the_first_rows_are_those_of_a_copy_and_end_as_one() -> Tested {
    let database = database(
        "create table t (id int primary key, v text); insert into t select i, 'v' from generate_series(1, 500) i",
    )
    .await;
    let mut reader = SnapshotReader::export(&database.url, &database.tasks).await?;
    let table = reader.describe(&public("t"), PUBLICATION).await?;
    let mut copier = reader.copier().await?;
    for most in [7, 250, 900] {
        copier.start_first(&table, most).await?;
        let mut rows = Vec::new();
        while let Some(more) = copier.next_rows(100, 10_000).await? {
            rows.extend(more.iter().map(cells));
        }
        let expected: Vec<_> = (1..=most.min(500)).map(|id| format!("{id},v")).collect();
        assert_eq!(rows, expected);
    }
    Ok(())
}

#[tokio::test]
async fn what_a_table_leaves_out_is_told_with_its_reason() -> Tested {
    let database = database(
        "create table t (id int primary key, secret text, v text, d int generated always as (id * 2) stored);
         create publication part for table t (id, v) where (id > 1)",
    )
    .await;
    let mut reader = SnapshotReader::export(&database.url, &database.tasks).await?;
    let published = reader.describe_in(&public("t"), "part").await?;
    assert_eq!(published.filter(), Some("(id > 1)"));
    let whole = reader.describe(&public("t"), PUBLICATION).await?;
    assert_eq!(whole.filter(), None);
    for (table, expected) in [
        (published, &[("secret", false), ("d", true)][..]),
        (whole, &[("d", true)]),
    ] {
        let left_out = reader.left_out(&table).await?;
        let left_out = left_out
            .iter()
            .map(|it| (&*it.column.name, it.is_generated));
        assert_eq!(left_out.collect::<Vec<_>>(), expected);
    }
    Ok(())
}

#[tokio::test]
async fn chunks_come_in_the_order_of_the_tables_given() -> Tested {
    let database = database(
        "create table a (id int primary key); create table b (id int primary key); create table c ();
         create table e (id int primary key);
         insert into a select generate_series(1, 12000); insert into b select generate_series(1, 10);
         insert into c default values; insert into c default values",
    )
    .await;
    let mut source = database.source();
    source
        .create_slot(&["b", "a", "e", "c"].map(public))
        .await?;
    let chunks = chunks(&mut source).await;
    let shown: Vec<_> = chunks
        .iter()
        .map(|chunk| (&*chunk.relation.name.table, chunk.rows.len()))
        .collect();
    assert_eq!(
        shown,
        [("b", 10), ("a", 5000), ("a", 5000), ("a", 2000), ("c", 2)]
    );
    assert!(chunks[4].rows[0].is_empty());
    assert!(source.next_chunk().await?.is_none());
    Ok(())
}

#[tokio::test]
async fn a_chunk_is_full_by_its_bytes_too() -> Tested {
    let database = database(
        "create table t (id int primary key, v text); alter table t alter v set storage external;
         insert into t select i, repeat('x', 1000000) from generate_series(1, 7) i",
    )
    .await;
    let mut source = database.source();
    source.create_slot(&[public("t")]).await?;
    let sizes: Vec<_> = chunks(&mut source)
        .await
        .iter()
        .map(|chunk| chunk.rows.len())
        .collect();
    assert_eq!(sizes, [3, 3, 1]);
    Ok(())
}

#[tokio::test]
async fn only_published_rows_and_columns_are_copied() -> Tested {
    let database = database(
        "create table t (id int primary key, secret text, v text, d int generated always as (id * 2) stored);
         insert into t (id, secret, v) values (1, 's', 'a'), (2, 's', 'b'), (3, 's', 'c');
         create publication part for table t (id, v) where (id > 1)",
    )
    .await;
    let mut source = database.source_with(Settings {
        publication: "part".into(),
        ..database.settings()
    });
    let keys = [(public("t"), vec!["id".to_owned()])];
    source.set_keys(&keys);
    source.create_slot(&[public("t")]).await?;
    let chunk = source.next_chunk().await?.ok_or("a chunk")?;
    assert_eq!(
        chunk.rows.iter().map(cells).collect::<Vec<_>>(),
        ["2,b", "3,c"]
    );
    source.start().await?;
    database
        .run("insert into t (id, v) values (0, 'no'), (4, 'yes')")
        .await;
    next(&mut source).await?;
    let SourceEvent::Change {
        change: Change::Row {
            relation,
            op: RowOp::Insert { new },
        },
        ..
    } = next(&mut source).await?
    else {
        panic!("no insert")
    };
    assert_eq!(
        (&*relation, cells(&new)),
        (&*chunk.relation, "4,yes".to_owned())
    );
    Ok(())
}

#[tokio::test]
async fn a_table_that_cannot_be_copied_is_named() -> Tested {
    let database = database("create table t (id int primary key); create table u (id int); create publication one for table t").await;
    let mut source = database.source_with(Settings {
        publication: "one".into(),
        ..database.settings()
    });
    let error = refused(source.create_slot(&[public("gone")]).await, Class::Fatal);
    assert!(error.contains("public.gone"), "{error}");
    let error = refused(source.create_slot(&[public("u")]).await, Class::Fatal);
    assert!(
        error.contains("ALTER PUBLICATION \"one\" ADD TABLE \"public\".\"u\""),
        "{error}"
    );
    source.set_keys(&[(public("t"), vec!["code".to_owned()])]);
    let error = refused(source.create_slot(&[public("t")]).await, Class::Fatal);
    assert!(error.contains("no column \"code\""), "{error}");
    let hidden = "alter table t enable row level security; create role reader login replication; grant select on t to reader";
    database.run(hidden).await;
    let url = database.url.replace("postgres@", "reader@");
    let mut source = database.source_with(Settings {
        url,
        publication: "one".into(),
        ..database.settings()
    });
    source.create_slot(&[public("t")]).await?;
    let error = refused(source.next_chunk().await, Class::Fatal);
    assert!(error.contains("row-level security"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_table_truncated_since_the_snapshot_is_noticed() -> Tested {
    let database = database("create table t (id int primary key); insert into t values (1)").await;
    let mut reader = SnapshotReader::export(&database.url, &database.tasks).await?;
    database.run("truncate t").await;
    let error = reader
        .describe(&public("t"), PUBLICATION)
        .await
        .err()
        .ok_or("it is gone")?;
    assert_eq!(walferry_core::Classify::class(&error), Class::Transient);
    assert!(
        error.to_string().contains("rewritten or truncated"),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn a_partition_truncated_since_the_snapshot_is_noticed() -> Tested {
    let database = database(
        "create table r (id int primary key) partition by range (id);
         create table r1 partition of r for values from (0) to (10);
         create table r2 partition of r for values from (10) to (99) partition by range (id);
         create table r3 partition of r2 for values from (10) to (20);
         insert into r values (1), (11)",
    )
    .await;
    let mut reader = SnapshotReader::export(&database.url, &database.tasks).await?;
    database
        .run("create table r4 partition of r2 for values from (20) to (30)")
        .await;
    reader.describe(&public("r"), PUBLICATION).await?;
    drop(reader);
    let mut reader = SnapshotReader::export(&database.url, &database.tasks).await?;
    database.run("truncate r3").await;
    reader.describe(&public("r1"), PUBLICATION).await?;
    let error = reader
        .describe(&public("r"), PUBLICATION)
        .await
        .err()
        .ok_or("its rows are gone")?;
    assert_eq!(walferry_core::Classify::class(&error), Class::Transient);
    assert!(
        error.to_string().contains("rewritten or truncated"),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn a_table_that_waits_to_be_truncated_ends_the_copy_instead_of_both_waiting_for_good()
-> Tested {
    let database = database(
        "create table a (id int primary key, v text); create table b (id int primary key);
         insert into a select i, repeat('x', 1000) from generate_series(1, 50000) i;
         insert into b values (1)",
    )
    .await;
    let mut source = database.source_with(Settings {
        chunk_rows: 100,
        copy_connections: 1,
        ..database.settings()
    });
    source.create_slot(&[public("a"), public("b")]).await?;
    // Nothing reads the chunks of the first table yet, so the second one is not begun.
    let url = database.url.clone();
    let truncate = database.tasks.spawn(async move {
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio::select! {
            _ = connection => panic!("connection lost"),
            truncated = client.batch_execute("truncate b") => truncated.unwrap(),
        }
    });
    let waiting = "select count(*) from pg_locks where not granted and mode = 'AccessExclusiveLock'
                   and relation = 'b'::regclass and pid <> pg_backend_pid()";
    let count = async || {
        database
            .sql
            .query_one(waiting, &[])
            .await
            .unwrap()
            .get::<_, i64>(0)
    };
    while count().await == 0 {}
    let error = loop {
        match tokio::time::timeout(walferry_harness::PATIENCE, source.next_chunk()).await? {
            Ok(Some(_)) => {}
            Ok(None) => return Err("the copy went past the lock".into()),
            Err(error) => break error,
        }
    };
    assert_eq!(error.class(), Class::Transient, "{error}");
    // Starting over lets it pass.
    source.inspect().await?;
    truncate.await?;
    Ok(())
}

#[tokio::test]
async fn snapshot_stream_and_batch_load_agree_on_generated_columns() -> Tested {
    let database = database(
        "create table t (id int primary key, d int generated always as (id * 2) stored); insert into t values (1)",
    )
    .await;
    let is_published = database.version().await >= 18;
    let publication = if is_published {
        "alter table t add v int generated always as (id * 3) virtual;
         create publication generated for all tables with (publish_generated_columns = stored)"
    } else {
        "create publication generated for all tables"
    };
    database.run(publication).await;
    for (publication, is_carried) in [(PUBLICATION, false), ("generated", is_published)] {
        let mut source = database.source_with(Settings {
            publication: publication.into(),
            ..database.settings()
        });
        source.set_keys(&[(public("t"), vec!["id".to_owned()])]);
        source.create_slot(&[public("t")]).await?;
        let chunk = source.next_chunk().await?.ok_or("a chunk")?;
        let row = if is_carried { "1,2" } else { "1" };
        assert_eq!(cells(&chunk.rows[0]), row);
        source.start().await?;
        database
            .run("delete from t; insert into t values (1)")
            .await;
        let (relation, new) = loop {
            if let SourceEvent::Change {
                change:
                    Change::Row {
                        relation,
                        op: RowOp::Insert { new },
                    },
                ..
            } = next(&mut source).await?
            {
                break (relation, cells(&new));
            }
        };
        assert_eq!((&*relation, new.as_str()), (&*chunk.relation, row));
        let mut reader = SnapshotReader::export(&database.url, &database.tasks).await?;
        let loaded = reader.describe(&public("t"), publication).await?;
        assert_eq!(loaded.relation(), &chunk.relation);
    }
    Ok(())
}
