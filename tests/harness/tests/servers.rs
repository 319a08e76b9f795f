//! The harness on its own servers.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use futures_util::StreamExt;
use mongodb::bson::{Document, doc};
use walferry_harness::{
    Error, Kafka, Mongo, PATIENCE, Postgres, PostgresOptions, Process, Signal, Stack, eventually,
    fresh_directory,
};

type Tested = Result<(), Box<dyn std::error::Error>>;

#[tokio::test]
async fn a_shared_stack_serves_every_test_with_its_own_names() -> Tested {
    let stack = Stack::shared().await?;
    let (one, two) = (
        stack.fresh_database("harness").await?,
        stack.fresh_database("harness").await?,
    );
    assert_ne!(one.name, two.name);
    one.sql()
        .await?
        .batch_execute("create table t (id int primary key)")
        .await?;
    two.sql()
        .await?
        .batch_execute("create table t (id int primary key)")
        .await?;
    one.mongo()
        .await?
        .collection("t")
        .insert_one(doc! { "_id": 1 })
        .await?;
    assert_eq!(
        two.mongo()
            .await?
            .collection::<Document>("t")
            .count_documents(doc! {})
            .await?,
        0
    );
    Ok(())
}

#[tokio::test]
async fn a_killed_postgres_comes_back_with_its_data_and_leaves_nothing_behind() -> Tested {
    let root = fresh_directory("harness-test")?;
    let options = PostgresOptions {
        settings: vec![("wal_sender_timeout".into(), "3s".into())],
        ..Default::default()
    };
    let mut postgres = Postgres::start_with(root.path(), options).await?;
    let client = postgres.connect("postgres").await?;
    client
        .batch_execute("create table t (id int); insert into t select generate_series(1, 10)")
        .await?;
    let (port, pid) = (postgres.port(), postgres.pid());
    postgres.kill().await?;
    postgres.restart().await?;
    postgres.restart().await?;
    assert_eq!(postgres.port(), port);
    assert_ne!(postgres.pid(), pid);
    let client = postgres.connect("postgres").await?;
    assert_eq!(
        client
            .query_one("select count(*) from t", &[])
            .await?
            .get::<_, i64>(0),
        10
    );
    assert_eq!(
        client
            .query_one("show wal_sender_timeout", &[])
            .await?
            .get::<_, &str>(0),
        "3s"
    );
    assert_eq!(
        client.query_one("show fsync", &[]).await?.get::<_, &str>(0),
        "off"
    );
    drop(postgres);
    nothing_is_left(root.path())
}

#[tokio::test]
async fn a_password_is_asked_for_where_the_hba_lines_say_so() -> Tested {
    let root = fresh_directory("harness-test")?;
    let hba = vec!["host all secret 127.0.0.1/32 scram-sha-256".to_owned()];
    let postgres = Postgres::start_with(
        root.path(),
        PostgresOptions {
            hba,
            ..Default::default()
        },
    )
    .await?;
    postgres
        .connect("postgres")
        .await?
        .batch_execute("create role secret login password 'right'")
        .await?;
    let connect = async |password: &str| {
        let url = format!(
            "postgres://secret:{password}@127.0.0.1:{}/postgres",
            postgres.port()
        );
        tokio_postgres::connect(&url, tokio_postgres::NoTls)
            .await
            .map(drop)
    };
    assert!(connect("right").await.is_ok());
    assert!(connect("wrong").await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_postgres_starts_below_a_directory_that_only_its_owner_enters() -> Tested {
    let root = fresh_directory("harness-test")?;
    let closed = tempfile::tempdir_in(root.path())?;
    let postgres = Postgres::start(closed.path()).await?;
    let data = postgres.data_directory().to_owned();
    drop(postgres);
    assert!(!data.exists());
    nothing_is_left(closed.path())
}

#[tokio::test]
async fn a_killed_kafka_comes_back_on_its_port_and_leaves_nothing_behind() -> Tested {
    let root = fresh_directory("harness-test")?;
    let mut kafka = Kafka::start(root.path()).await?;
    let brokers = kafka.brokers();
    kafka.kill().await?;
    kafka.restart().await?;
    kafka.restart().await?;
    assert_eq!(kafka.brokers(), brokers);
    drop(kafka);
    nothing_is_left(root.path())
}

#[tokio::test]
async fn a_killed_mongo_comes_back_with_its_data_and_leaves_nothing_behind() -> Tested {
    let root = fresh_directory("harness-test")?;
    let mut mongo = Mongo::start(root.path()).await?;
    mongo
        .client()
        .await?
        .database("d")
        .collection("c")
        .insert_one(doc! { "_id": 7 })
        .await?;
    mongo.kill().await?;
    mongo.restart().await?;
    mongo.restart().await?;
    let collection = mongo
        .client()
        .await?
        .database("d")
        .collection::<Document>("c");
    let found: Vec<_> = collection
        .find(doc! {})
        .await?
        .map(|d| d.map(|d| d.to_string()))
        .collect()
        .await;
    assert_eq!(
        found.into_iter().collect::<Result<Vec<_>, _>>()?,
        [r#"{ "_id": 7 }"#]
    );
    drop(mongo);
    nothing_is_left(root.path())
}

#[tokio::test]
async fn a_process_that_ends_early_tells_its_last_words() -> Tested {
    let root = fresh_directory("harness-test")?;
    let log = root.path().join("log");
    let process = Process::spawn(Command::new("sh").args(["-c", "echo gone; exit 3"]), &log)?;
    assert_eq!(process.wait(PATIENCE).await?.code(), Some(3));
    assert!(matches!(process.check_running(), Err(Error::Exited { tail, .. }) if tail == "gone\n"));
    Ok(())
}

/// Not a test by itself: what [`servers_do_not_outlive_a_killed_process`] starts and kills.
#[tokio::test]
#[ignore = "run by another test, in a process of its own"]
async fn holds_a_stack_until_it_is_killed() -> Tested {
    let root = std::env::var("HARNESS_TEST_ROOT")?;
    let stack = Stack::start(Path::new(&root)).await?;
    let pids = [stack.postgres.pid(), stack.kafka.pid(), stack.mongo.pid()].map(|p| p.to_string());
    std::fs::write(Path::new(&root).join("pids.new"), pids.join(" "))?;
    std::fs::rename(
        Path::new(&root).join("pids.new"),
        Path::new(&root).join("pids"),
    )?;
    tokio::time::sleep(Duration::from_mins(10)).await;
    drop(stack);
    Ok(())
}

#[tokio::test]
async fn servers_do_not_outlive_a_killed_process() -> Tested {
    let root = fresh_directory("harness-test")?;
    let mut holder = Command::new(std::env::current_exe()?);
    holder
        .args(["--exact", "holds_a_stack_until_it_is_killed", "--ignored"])
        .env("HARNESS_TEST_ROOT", root.path());
    let log = root.path().join("holder.log");
    let holder = Process::spawn(&holder, &log)?;
    let pids = eventually(PATIENCE, "the servers' pids", async || {
        holder.check_running().ok()?;
        std::fs::read_to_string(root.path().join("pids")).ok()
    });
    let pids = pids.await?;
    assert!(pids.split(' ').all(is_running), "{pids}");
    // Not the whole group: only the holder itself, as a time limit would.
    holder.stop(Signal::KILL, PATIENCE).await?;
    eventually(PATIENCE, "the servers to be gone", async || {
        !pids.split(' ').any(is_running)
    })
    .await?;
    let data = ["postgres", "kafka", "mongo"].map(|s| root.path().join(s));
    eventually(PATIENCE, "the directories to be gone", async || {
        !data.iter().any(|d| d.exists())
    })
    .await?;
    nothing_is_left(root.path())
}

/// A dead process that nobody has reaped yet has no command line.
fn is_running(pid: &str) -> bool {
    std::fs::read(Path::new("/proc").join(pid).join("cmdline")).is_ok_and(|c| !c.is_empty())
}

/// No process of ours names the directory or works in it, and no server left data in it.
fn nothing_is_left(root: &Path) -> Tested {
    for process in std::fs::read_dir("/proc")?.flatten() {
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        assert!(
            !command.contains(&*root.to_string_lossy()),
            "still running: {command}"
        );
    }
    let left: Vec<_> = std::fs::read_dir(root)?
        .flatten()
        .filter(|e| e.path().is_dir())
        .collect();
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}
