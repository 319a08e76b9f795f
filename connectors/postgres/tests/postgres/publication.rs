//! What the publication says of its tables.

use walferry_core::{Class, Source};
use walferry_postgres::Settings;

use crate::support::{Database, PUBLICATION, Tested, database, public, refused, transactions};

async fn tables(
    database: &Database,
) -> Result<Vec<walferry_core::SourceTable>, walferry_core::Fault> {
    database.source().tables().await
}

#[tokio::test]
async fn a_deferrable_primary_key_is_no_key_and_is_named() -> Tested {
    let database = database(
        "create table a (id int primary key); create table d (id int primary key deferrable);
         create table i (id int constraint own primary key deferrable initially deferred, code int not null unique);
         alter table d replica identity full; alter table i replica identity using index i_code_key;
         create table p (id int primary key deferrable) partition by range (id);
         create table p1 partition of p for values from (0) to (9)",
    )
    .await;
    let tables = tables(&database).await?;
    let shown: Vec<_> = tables
        .iter()
        .map(|table| {
            (
                &*table.name.table,
                table.key.join(","),
                table.deferrable_key.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("a", "id".to_owned(), None),
            ("d", String::new(), Some("d_pkey")),
            ("i", "code".to_owned(), None),
            ("p1", String::new(), Some("p1_pkey")),
        ]
    );
    Ok(())
}

#[tokio::test]
async fn a_table_made_anew_under_its_name_has_another_oid() -> Tested {
    let database = database("create table t (id int primary key)").await;
    let oid = async || {
        let sql = "select 't'::regclass::oid";
        database
            .sql
            .query_one(sql, &[])
            .await
            .unwrap()
            .get::<_, u32>(0)
    };
    let first = oid().await;
    assert_eq!(tables(&database).await?[0].oid, first);
    database
        .run("drop table t; create table t (id int primary key)")
        .await;
    assert_ne!(oid().await, first);
    assert_eq!(tables(&database).await?[0].oid, oid().await);
    Ok(())
}

#[tokio::test]
async fn a_publication_that_leaves_out_operations_is_refused_until_it_has_all() -> Tested {
    let database = database("create table t (id int primary key)").await;
    for (published, missing) in [
        ("insert", "update, delete, truncate"),
        ("insert, update, delete", "truncate"),
        ("update, truncate", "insert, delete"),
    ] {
        database
            .run(&format!(
                "alter publication {PUBLICATION} set (publish = '{published}')"
            ))
            .await;
        let error = refused(tables(&database).await, Class::Fatal);
        assert!(
            error.contains(&format!("does not publish {missing},"))
                && error.contains(
                    "ALTER PUBLICATION \"pub\" SET (publish = 'insert, update, delete, truncate')"
                ),
            "{error}"
        );
    }
    database
        .run("alter publication pub set (publish = 'insert, update, delete, truncate')")
        .await;
    assert_eq!(tables(&database).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_table_that_left_the_publication_is_not_listed_any_more() -> Tested {
    let database = database(
        "create table t (id int primary key); create table u (id int primary key); create publication two for table t, u",
    )
    .await;
    let mut source = database.source_with(Settings {
        publication: "two".into(),
        ..database.settings()
    });
    assert_eq!(source.tables().await?.len(), 2);
    database.run("alter publication two drop table u").await;
    let left = source.tables().await?;
    assert_eq!((left.len(), &*left[0].name.table), (1, "t"));
    Ok(())
}

#[tokio::test]
async fn an_update_over_the_edge_of_a_row_filter_is_a_delete_or_an_insert() -> Tested {
    let database = database(
        "create table t (id int primary key, v int); alter table t replica identity full;
         create publication part for table t where (v > 10)",
    )
    .await;
    let mut source = database.source_with(Settings {
        publication: "part".into(),
        ..database.settings()
    });
    source.set_keys(&[(public("t"), vec!["id".to_owned()])]);
    source.create_slot(&[]).await?;
    source.start().await?;
    database
        .run("begin; insert into t values (1, 5), (2, 50); update t set v = 60 where id = 2; update t set v = 11 where id = 1; update t set v = 0 where id = 2; commit")
        .await;
    assert_eq!(
        transactions(&mut source, 1).await,
        [[
            "0 insert t 2,50",
            "2 update t 2,50 -> 2,60",
            "4 insert t 1,11",
            "6 delete t 2,60"
        ]]
    );
    Ok(())
}
