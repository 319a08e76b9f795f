//! Connections that are slow, break, or are taken away.

use std::time::Duration;

use walferry_core::{Class, Fault, Source, SourceEvent};
use walferry_harness::{PATIENCE, Postgres, PostgresOptions, fresh_directory};
use walferry_postgres::{ReplicationSource, Settings};
use walferry_schema::{Change, Lsn};

use crate::proxy::Proxy;
use crate::support::{
    Database, Failure, Tested, database, database_on, public, refused, shared, transactions,
};

const SHORT: Duration = Duration::from_millis(300);

fn hasty(database: &Database, url: &str) -> ReplicationSource {
    database.source_with(Settings {
        url: url.to_owned(),
        slot_wait: SHORT,
        ..database.settings()
    })
}

async fn begin(source: &mut ReplicationSource) -> Result<Lsn, Fault> {
    source.inspect().await?;
    source.start().await
}

/// Ends the sessions that the condition picks.
async fn terminate(database: &Database, condition: &str) -> u64 {
    let sql = format!(
        "select pg_terminate_backend(pid, 10000) from pg_stat_activity
         where datname = current_database() and application_name = 'walferry' and ({condition})"
    );
    database.sql.execute(&sql, &[]).await.unwrap()
}

const HOLDS_THE_LOCK: &str = "pid in (select pid from pg_locks where locktype = 'advisory')";

#[tokio::test]
async fn a_slot_that_our_own_broken_connection_still_owns_is_a_passing_error() -> Tested {
    let database = database("create table t (id int primary key)").await;
    let proxy = Proxy::start(shared().await.port(), &database.tasks).await;
    let mut source = hasty(&database, &proxy.url_of(&database));
    source.inspect().await?;
    source.create_slot(&[]).await?;
    source.start().await?;
    proxy.cut();
    while source.next().await.is_ok() {}
    // First the session with the lock is in the way, then the one with the slot.
    let error = refused(source.inspect().await, Class::Transient);
    assert!(error.contains("is active for process"), "{error}");
    proxy.release(|number| number != 0);
    source.inspect().await?;
    for error in [
        refused(source.start().await, Class::Transient),
        refused(source.create_slot(&[]).await, Class::Transient),
    ] {
        assert!(error.contains("is active for process"), "{error}");
    }
    proxy.release(|_| true);
    begin(&mut source).await?;
    database.run("insert into t values (1)").await;
    assert_eq!(transactions(&mut source, 1).await, [["0 insert t 1"]]);
    Ok(())
}

#[tokio::test]
async fn a_slot_that_was_being_made_when_the_connection_broke_is_a_passing_error() -> Tested {
    let database = database("create table t (id int primary key)").await;
    let proxy = Proxy::start(shared().await.port(), &database.tasks).await;
    let mut source = hasty(&database, &proxy.url_of(&database));
    source.inspect().await?;
    // Making a slot waits for it.
    database.run("begin; insert into t values (1)").await;
    let cut = async {
        tokio::time::sleep(SHORT).await;
        proxy.cut();
    };
    let (made, ()) = tokio::join!(source.create_slot(&[]), cut);
    refused(made, Class::Transient);
    proxy.release(|number| number != 0);
    source.inspect().await?;
    let error = refused(source.create_slot(&[]).await, Class::Transient);
    assert!(error.contains("is active for process"), "{error}");
    database.run("commit").await;
    proxy.release(|_| true);
    source.create_slot(&[]).await?;
    source.start().await?;
    Ok(())
}

#[tokio::test]
async fn a_slot_in_use_at_the_first_start_is_fatal_although_the_lock_is_ours() -> Tested {
    let database = database("").await;
    // Knows no lock.
    let owner = database.streaming().await;
    let mut source = hasty(&database, &database.url);
    source.inspect().await?;
    refused(source.start().await, Class::Fatal);
    drop(owner);
    Ok(())
}

#[tokio::test]
async fn losing_the_lock_ends_the_term_and_the_next_takes_it_again() -> Tested {
    let database = database("").await;
    let mut source = hasty(&database, &database.url);
    source.inspect().await?;
    source.create_slot(&[]).await?;
    source.start().await?;
    source.confirm(Lsn::ZERO).await?;
    assert_eq!(terminate(&database, HOLDS_THE_LOCK).await, 1);
    let lost = async {
        loop {
            if let Err(fault) = source.confirm(Lsn::ZERO).await {
                return fault;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let error = tokio::time::timeout(PATIENCE, lost).await?;
    let error = refused::<()>(Err(error), Class::Transient);
    assert!(error.contains("lost the lock on the name"), "{error}");
    begin(&mut source).await?;
    source.confirm(Lsn::ZERO).await?;
    assert_eq!(terminate(&database, HOLDS_THE_LOCK).await, 1);
    Ok(())
}

#[tokio::test]
async fn losing_the_lock_ends_the_snapshot_too() -> Tested {
    let database = database("create table t (id int primary key); insert into t values (1)").await;
    let mut source = hasty(&database, &database.url);
    source.inspect().await?;
    source.create_slot(&[public("t")]).await?;
    source.next_chunk().await?.ok_or("a chunk")?;
    terminate(&database, HOLDS_THE_LOCK).await;
    let lost = async {
        while source.next_chunk().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, lost).await?;
    for error in [
        refused(source.start().await, Class::Transient),
        refused(source.create_slot(&[]).await, Class::Transient),
    ] {
        assert!(error.contains("lost the lock on the name"), "{error}");
    }
    begin(&mut source).await?;
    Ok(())
}

#[tokio::test]
async fn a_reader_that_took_the_lost_lock_is_a_fatal_error() -> Tested {
    let database = database("").await;
    let mut source = hasty(&database, &database.url);
    source.inspect().await?;
    terminate(&database, HOLDS_THE_LOCK).await;
    let mut other = database.source();
    other.inspect().await?;
    while source.inspect().await.is_ok() {}
    refused(source.inspect().await, Class::Fatal);
    Ok(())
}

#[tokio::test]
async fn a_stopped_reader_keeps_the_lock_until_it_is_dropped() -> Tested {
    let database = database("").await;
    let mut source = hasty(&database, &database.url);
    source.inspect().await?;
    source.create_slot(&[]).await?;
    source.start().await?;
    source.stop().await?;
    let mut other = hasty(&database, &database.url);
    let error = refused(other.inspect().await, Class::Fatal);
    assert!(error.contains("stop the other reader"), "{error}");
    drop(source);
    begin(&mut other).await?;
    Ok(())
}

/// The next row's type names, each call dropped after a short time.
async fn types_in_haste(source: &mut ReplicationSource) -> Result<Vec<String>, Failure> {
    let row = async {
        loop {
            let event = tokio::time::timeout(Duration::from_millis(50), source.next()).await;
            let Ok(event) = event else { continue };
            if let SourceEvent::Change {
                change: Change::Row { relation, .. },
                ..
            } = event?
            {
                let names = relation.columns.iter().map(|column| &*column.type_name);
                return Ok(names.map(ToOwned::to_owned).collect());
            }
        }
    };
    tokio::time::timeout(PATIENCE, row).await?
}

#[tokio::test]
async fn a_slow_question_to_the_catalog_goes_on_when_its_call_is_dropped() -> Tested {
    let database = database(
        "create type mood as enum ('ok'); create type size as enum ('xl');
         create table t (id int primary key, v mood); create table u (id int primary key, v size)",
    )
    .await;
    let proxy = Proxy::start(shared().await.port(), &database.tasks).await;
    let mut source = hasty(&database, &proxy.url_of(&database));
    source.inspect().await?;
    let key = || vec!["id".to_owned()];
    source.set_keys(&[(public("t"), key()), (public("u"), key())]);
    source.create_slot(&[]).await?;
    source.start().await?;
    proxy.delay(SHORT);
    database.run("insert into t values (1, 'ok')").await;
    assert_eq!(types_in_haste(&mut source).await?, ["int4", "mood"]);
    // The same when it must connect first.
    let sql_session = format!("backend_type = 'client backend' and not {HOLDS_THE_LOCK}");
    assert_eq!(terminate(&database, &sql_session).await, 1);
    database.run("insert into u values (1, 'xl')").await;
    assert_eq!(types_in_haste(&mut source).await?, ["int4", "size"]);
    Ok(())
}

/// After how long each connection of ours that is idle is probed by the server, and by us.
#[cfg(target_os = "linux")]
async fn keepalive_timers(database: &Database, server: &Postgres) -> (Vec<u64>, Vec<u64>) {
    const TICKS_PER_SECOND: u64 = 100;
    let sql = "select client_port from pg_stat_activity where application_name = 'walferry'";
    let rows = database.sql.query(sql, &[]).await.unwrap();
    let ours: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let sockets: Vec<Vec<_>> = sockets
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect())
        .collect();
    let port = |address: &str| i32::from_str_radix(&address[address.len() - 4..], 16).unwrap();
    let timers = |server_end: usize, client_end: usize| {
        let is_ours = |socket: &&Vec<&str>| {
            port(socket[server_end]) == i32::from(server.port())
                && ours.contains(&port(socket[client_end]))
        };
        let after = |socket: &Vec<&str>| {
            let ticks = u64::from_str_radix(socket[5].strip_prefix("02:")?, 16).unwrap();
            Some(ticks / TICKS_PER_SECOND)
        };
        sockets.iter().filter(is_ours).filter_map(after).collect()
    };
    (timers(1, 2), timers(2, 1))
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_host_that_is_gone_is_noticed_within_half_a_minute_by_either_side() -> Tested {
    let root = fresh_directory("postgres-tests")?;
    let server = Postgres::start_with(root.path(), PostgresOptions::default()).await?;
    let database = database_on(&server, "").await;
    let mut source = database.source();
    source.inspect().await?;
    source.create_slot(&[]).await?;
    source.start().await?;
    // Until nothing is under way.
    tokio::time::sleep(SHORT).await;
    let (by_server, by_us) = keepalive_timers(&database, &server).await;
    assert!(
        by_server.iter().chain(&by_us).all(|seconds| *seconds <= 10),
        "{by_server:?} {by_us:?}"
    );
    // The stream, the lock and the queries; silence of the stream is noticed by its reader.
    assert_eq!((by_server.len(), by_us.len()), (3, 2));
    Ok(())
}
