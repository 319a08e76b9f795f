//! Transactions that are larger than what a daemon keeps in memory, sent at their commit or in progress.

use std::path::PathBuf;
use std::time::Duration;

use bson::{Document, doc};
use futures_util::TryStreamExt;
use walferry_harness::{Process, Stack, eventually, fresh_directory};

use crate::daemon::{Daemon, PATIENCE, Pipeline};

// The row shows that the snapshot is live: no collection at all equals an empty table.
const SCHEMA: &str = "create table t (id int primary key, v text); insert into t values (0)";
/// `WALFERRY_GIANT_ROWS` asks for another size.
const ROWS: i64 = 200_000;
/// The text of `ROWS` rows alone is 128 MB.
const PEAK_KIB: u64 = 128 * 1024;
/// The MongoDB of the tests has a small cache.
const PIECE: &str = "[sink]\nwhole_rows = 20000\n";
const GIANT_PATIENCE: Duration = Duration::from_mins(30);

impl Pipeline {
    /// Has transactions sent in progress, in pieces of 64 kB, and kept in a directory of the test's.
    async fn stream_in_progress(&self) {
        let sql = format!(
            "alter database {} set logical_decoding_work_mem = '64kB'",
            self.database.name
        );
        self.sql.batch_execute(&sql).await.unwrap();
        std::fs::create_dir(self.spool()).unwrap();
        let keys = "[source]\nstreaming = true\nspool = \"spool\"\n";
        self.reconfigure("[source]\n", keys);
        self.reconfigure("[kafka]\n", "[kafka]\nmessage_topic = false\n");
    }

    fn spool(&self) -> PathBuf {
        self.config().with_file_name("spool")
    }

    /// Waits until the reader keeps something of a transaction in progress.
    async fn until_kept(&self, daemon: &Daemon) {
        let spool = self.spool();
        let is_kept = async || kept_bytes(&daemon.0[0], &spool) > 0;
        eventually(PATIENCE, "a transaction in progress to be kept", is_kept)
            .await
            .unwrap();
        let named = std::fs::read_dir(&spool).unwrap().count();
        assert_eq!(named, 0, "files that would outlive the daemon");
    }

    /// How many documents there are, and the sum of their keys.
    async fn sum(&self) -> (i64, i64) {
        let group = doc! { "$group": { "_id": null, "count": { "$sum": 1 }, "sum": { "$sum": { "$toLong": "$_id" } } } };
        let collection = self.mongo.collection::<Document>("t");
        let found = collection.aggregate([group]);
        let found: Vec<_> = found.await.unwrap().try_collect().await.unwrap();
        found.first().map_or((0, 0), |it| {
            let number = |key| {
                it.get(key)
                    .and_then(|it| it.as_i64().or(it.as_i32().map(i64::from)))
            };
            (number("count").unwrap(), number("sum").unwrap())
        })
    }
}

/// What the files without a name in a directory take, that a process has open.
fn kept_bytes(process: &Process, directory: &std::path::Path) -> u64 {
    let Ok(files) = std::fs::read_dir(format!("/proc/{}/fd", process.pid())) else {
        return 0;
    };
    let paths = files.flatten().map(|it| it.path());
    let ours = paths.filter(|it| std::fs::read_link(it).is_ok_and(|it| it.starts_with(directory)));
    ours.flat_map(std::fs::metadata).map(|it| it.len()).sum()
}

/// The most memory that each process of the daemon has used, in KiB.
fn peaks(daemon: &Daemon) -> Vec<u64> {
    let peak = |process: &Process| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
        let line = status.lines().find_map(|it| it.strip_prefix("VmHWM:"));
        let number = line.and_then(|it| it.split_ascii_whitespace().next());
        number.and_then(|it| it.parse().ok()).unwrap()
    };
    daemon.0.iter().map(peak).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_with_a_transaction_in_progress_loses_and_repeats_nothing() {
    // An open transaction would hold up the slots of other tests.
    let root = fresh_directory("in_progress").unwrap();
    let stack = Stack::start(root.path()).await.unwrap();
    let database = stack.fresh_database("in_progress").await.unwrap();
    let pipeline = Pipeline::over(database, SCHEMA, "public.*").await;
    pipeline.stream_in_progress().await;
    let daemon = pipeline.start();
    pipeline.equal(&["t"]).await;
    let open = pipeline.database.sql().await.unwrap();
    let rows = |from: i32| {
        format!(
            "insert into t select i, repeat('v', 300) from generate_series({from}, {from} + 4999) i;"
        )
    };
    let begun = format!("begin; {} savepoint s; {}", rows(1), rows(10_000));
    open.batch_execute(&begun).await.unwrap();
    pipeline.until_kept(&daemon).await;
    pipeline
        .sql
        .batch_execute("insert into t values (-1)")
        .await
        .unwrap();
    pipeline.one(-1).await;
    daemon.kill().await;
    let daemon = pipeline.start();
    pipeline.until_kept(&daemon).await;
    let rest = format!(
        "rollback to s; {} update t set v = 'w' where id = 20001",
        rows(20_000)
    );
    open.batch_execute(&rest).await.unwrap();
    daemon.kill().await;
    open.batch_execute("commit").await.unwrap();
    let daemon = pipeline.start();
    pipeline.until_kept(&daemon).await;
    daemon.kill().await;
    let daemon = pipeline.start();
    pipeline.equal(&["t"]).await;
    assert_eq!(pipeline.sum().await.0, 10_002);
    assert!(daemon.stop().await.success());
}

async fn ferry_giant(name: &str, is_in_progress: bool) {
    let stated = std::env::var("WALFERRY_GIANT_ROWS").ok();
    let rows = stated.map_or(ROWS, |it| it.parse().unwrap());
    let pipeline = Pipeline::new(name, SCHEMA, "public.*").await;
    if is_in_progress {
        pipeline.stream_in_progress().await;
    }
    pipeline.reconfigure("[sink]\n", PIECE);
    let daemon = pipeline.start();
    pipeline.equal(&["t"]).await;
    let began = std::time::Instant::now();
    let insert = format!(
        "insert into t select i, repeat(md5(i::text), 20) from generate_series(1, {rows}) i"
    );
    pipeline.sql.batch_execute(&insert).await.unwrap();
    let written = began.elapsed();
    let documents = pipeline.mongo.collection::<Document>("t");
    let wanted = rows.unsigned_abs() + 1;
    let is_there = async || documents.estimated_document_count().await.unwrap() == wanted;
    if let Err(error) = eventually(GIANT_PATIENCE, "all rows to arrive", is_there).await {
        panic!("{error}\n{}", pipeline.log());
    }
    let arrived = began.elapsed();
    assert_eq!(pipeline.sum().await, (rows + 1, rows * (rows + 1) / 2));
    let peaks = peaks(&daemon);
    eprintln!(
        "{rows} rows, in progress {is_in_progress}: {peaks:?} KiB at most; written in {written:?}, there after {arrived:?}"
    );
    assert!(peaks.iter().all(|peak| *peak < PEAK_KIB), "{peaks:?}");
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_giant_transaction_is_ferried_in_bounded_memory() {
    ferry_giant("giant", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_giant_transaction_in_progress_is_ferried_in_bounded_memory() {
    ferry_giant("giant_in_progress", true).await;
}
