//! The life of a slot.

use std::time::Duration;

use walferry_core::{Class, Source, SourceEvent};
use walferry_harness::{PATIENCE, Postgres, PostgresOptions, fresh_directory};
use walferry_postgres::Settings;
use walferry_schema::Lsn;

use crate::support::{Tested, database, database_on, next, public, refused, transactions};

#[tokio::test]
async fn a_slot_is_made_used_left_and_made_anew() -> Tested {
    let database = database("create table t (id int primary key)").await;
    let mut source = database.source();
    let state = source.inspect().await?;
    assert!(state.slot.is_none());
    assert!(
        state.flush_lsn > Lsn::ZERO
            && state.server.timeline == 1
            && state.server.system_id.len() > 10
    );
    let first = source.create_slot(&[public("t")]).await?;
    assert!(first.taken_at > 1_700_000_000_000_000);
    let started = source.start().await?;
    assert_eq!(started, first.consistent_lsn);
    database.run("insert into t values (1)").await;
    assert_eq!(transactions(&mut source, 1).await, [["0 insert t 1"]]);
    source.stop().await?;
    // The slot is free at once.
    let slot = source.inspect().await?.slot.ok_or("it is there")?;
    assert!(!slot.is_active && !slot.is_lost);
    assert_eq!(slot.confirmed_lsn, started);
    // Nothing was confirmed: all comes again.
    source.start().await?;
    assert_eq!(transactions(&mut source, 1).await, [["0 insert t 1"]]);
    source.stop().await?;
    let second = source.create_slot(&[public("t")]).await?;
    assert!(second.consistent_lsn > first.consistent_lsn);
    assert_eq!(source.start().await?, second.consistent_lsn);
    Ok(())
}

#[tokio::test]
async fn a_slot_that_is_active_elsewhere_is_a_fatal_error_that_names_the_process() -> Tested {
    let database = database("").await;
    let owner = database.streaming().await;
    let slot_wait = Duration::from_millis(200);
    let mut other = database.source_with(Settings {
        slot_wait,
        ..database.settings()
    });
    assert!(other.inspect().await?.slot.ok_or("it is there")?.is_active);
    let active = "select active_pid from pg_replication_slots where slot_name = $1";
    let pid: i32 = database
        .sql
        .query_one(active, &[&database.name])
        .await?
        .get(0);
    for error in [
        refused(other.start().await, Class::Fatal),
        refused(other.create_slot(&[]).await, Class::Fatal),
    ] {
        assert!(
            error.contains(&database.name)
                && error.contains(&format!("pg_terminate_backend({pid})")),
            "{error}"
        );
    }
    drop(owner);
    Ok(())
}

#[tokio::test]
async fn a_slot_whose_owner_is_just_going_is_waited_for() -> Tested {
    let database = database("").await;
    let mut owner = database.streaming().await;
    let mut other = database.source();
    let leave = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        owner.stop().await
    };
    let (left, started) = tokio::join!(leave, other.start());
    left?;
    started?;
    Ok(())
}

#[tokio::test]
async fn what_is_missing_or_foreign_is_named() -> Tested {
    let database = database("create table t (id int primary key)").await;
    let mut source = database.source();
    assert!(
        refused(source.start().await, Class::Fatal)
            .contains("does not exist: begin a new generation")
    );
    database
        .run(&format!(
            "select pg_create_logical_replication_slot('{}', 'test_decoding')",
            database.name
        ))
        .await;
    let error = refused(source.inspect().await, Class::Fatal);
    assert!(
        error.contains("test_decoding") && error.contains("pg_drop_replication_slot"),
        "{error}"
    );
    source.create_slot(&[public("t")]).await?;
    let mut unpublished = database.source_with(Settings {
        publication: "no\"ne".into(),
        ..database.settings()
    });
    let error = refused(unpublished.tables().await, Class::Fatal);
    assert!(error.contains("CREATE PUBLICATION \"no\"\"ne\""), "{error}");
    drop(source);
    let error = refused(unpublished.start().await, Class::Fatal);
    assert!(error.contains("CREATE PUBLICATION \"no\"\"ne\""), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_publication_younger_than_the_slot_is_named() -> Tested {
    let database = database("create table t (id int primary key)").await;
    let mut source = database.streaming().await;
    source.stop().await?;
    database
        .run("insert into t values (1); create publication young for all tables")
        .await;
    let mut young = database.source_with(Settings {
        publication: "young".into(),
        ..database.settings()
    });
    young.start().await?;
    let error = refused(next(&mut young).await, Class::Fatal);
    assert!(
        error.contains("did not exist yet where the slot"),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn a_confirmed_position_moves_the_slot_and_never_falls() -> Tested {
    let database = database("create table t (id int primary key)").await;
    let mut source = database.streaming().await;
    let before = database.confirmed().await;
    database.run("insert into t values (1)").await;
    let end = loop {
        if let SourceEvent::Commit { end_lsn, .. } = next(&mut source).await? {
            break end_lsn;
        }
    };
    source.confirm(end).await?;
    source.confirm(before).await?;
    source.confirm(Lsn::ZERO).await?;
    source.stop().await?;
    assert_eq!(database.confirmed().await, end);
    assert_eq!(source.start().await?, end);
    Ok(())
}

#[tokio::test]
async fn an_idle_slot_moves_with_its_keepalives() -> Tested {
    let server = fresh_directory("postgres-tests")?;
    let settings = vec![("wal_sender_timeout".to_owned(), "1s".to_owned())];
    let server = Postgres::start_with(
        server.path(),
        PostgresOptions {
            settings,
            ..Default::default()
        },
    )
    .await?;
    let database = database_on(&server, "create table t (id int primary key)").await;
    let elsewhere = database_on(&server, "create table t (id int)").await;
    let mut source = database.streaming().await;
    elsewhere
        .run("insert into t select generate_series(1, 1000)")
        .await;
    let written: &str = &elsewhere
        .sql
        .query_one("select pg_current_wal_lsn()::text", &[])
        .await?
        .get::<_, String>(0);
    let written: Lsn = written.parse()?;
    let idle = async {
        loop {
            if let SourceEvent::Keepalive { lsn, .. } = source.next().await? {
                source.confirm(lsn).await?;
                if lsn >= written {
                    return Ok::<_, walferry_core::Fault>(());
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, idle).await??;
    source.stop().await?;
    assert!(database.confirmed().await >= written);
    Ok(())
}

#[tokio::test]
async fn a_server_that_stops_or_dies_is_a_passing_error_and_the_stream_goes_on_after() -> Tested {
    let root = fresh_directory("postgres-tests")?;
    let mut server = Postgres::start(root.path()).await?;
    let mut database = database_on(&server, "create table t (id int primary key)").await;
    let mut source = database.streaming().await;
    database.run("insert into t values (1)").await;
    assert_eq!(transactions(&mut source, 1).await, [["0 insert t 1"]]);
    let until_it_fails = async |source: &mut walferry_postgres::ReplicationSource| loop {
        match source.next().await {
            // A server that is shutting down waits for this.
            Ok(SourceEvent::Keepalive { lsn, .. }) => drop(source.confirm(lsn).await),
            Ok(_) => {}
            Err(fault) => break fault,
        }
    };
    let (stopped, fault) = tokio::join!(server.stop(), until_it_fails(&mut source));
    stopped?;
    assert_eq!(fault.class(), Class::Transient, "{fault}");
    refused(source.inspect().await, Class::Transient);
    server.restart().await?;
    database.sql = server.connect(&database.name).await?;
    database.run("insert into t values (2)").await;
    source.inspect().await?;
    source.start().await?;
    // What was not confirmed comes again, and what was confirmed may: a slot's position is not written at once.
    while transactions(&mut source, 1).await != [["0 insert t 2"]] {}
    server.kill().await?;
    let fault = until_it_fails(&mut source).await;
    assert_eq!(fault.class(), Class::Transient, "{fault}");
    Ok(())
}

#[tokio::test]
async fn a_slot_whose_log_is_gone_is_lost() -> Tested {
    let root = fresh_directory("postgres-tests")?;
    let limits = [
        ("max_slot_wal_keep_size", "1MB"),
        ("max_wal_size", "32MB"),
        ("min_wal_size", "32MB"),
    ];
    let settings = limits
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
    let server = Postgres::start_with(
        root.path(),
        PostgresOptions {
            settings,
            ..Default::default()
        },
    )
    .await?;
    let database = database_on(&server, "create table t (id int primary key)").await;
    let mut source = database.streaming().await;
    source.stop().await?;
    for id in 0..6 {
        database
            .run(&format!(
                "insert into t values ({id}); select pg_switch_wal(); checkpoint"
            ))
            .await;
    }
    assert!(source.inspect().await?.slot.ok_or("it is listed")?.is_lost);
    let error = refused(source.start().await, Class::Fatal);
    assert!(error.contains("55000"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_slot_is_made_or_becomes_one_that_outlives_a_failover() -> Tested {
    let database = database("create table t (id int primary key)").await;
    let has_failover = async || {
        let sql = "select failover from pg_replication_slots where slot_name = $1";
        let row = database.sql.query_one(sql, &[&database.name]).await;
        row.unwrap().get::<_, bool>(0)
    };
    let mut plain = database.streaming().await;
    plain.stop().await?;
    drop(plain);
    let mut source = database.source_with(Settings {
        failover: true,
        ..database.settings()
    });
    if database.version().await < 17 {
        let confirmed = database.confirmed().await;
        let error = refused(source.create_slot(&[]).await, Class::Fatal);
        assert!(error.contains("needs PostgreSQL 17"), "{error}");
        let error = refused(source.start().await, Class::Fatal);
        assert!(error.contains("needs PostgreSQL 17"), "{error}");
        assert_eq!(database.confirmed().await, confirmed);
        return Ok(());
    }
    assert!(!has_failover().await);
    source.start().await?;
    assert!(has_failover().await);
    source.create_slot(&[]).await?;
    assert!(has_failover().await);
    Ok(())
}
