//! The command line as its user meets it: help, mistakes, exit codes.

use std::time::Duration;

use walferry_harness::{Process, Signal};

use crate::site::{Site, binary, said};

#[tokio::test]
async fn the_help_of_every_command_reads_as_documentation() {
    for command in ["run", "backfill", "verify", "version"] {
        let mut help = binary();
        help.args([command, "--help"]);
        let said = said(help).await;
        assert_eq!(said.code, Some(0));
        for part in [
            "Usage: walferry",
            "Examples:",
            "Exit codes:",
            "--config <FILE>",
            "WALFERRY_CONFIG",
        ] {
            assert!(
                said.out.contains(part),
                "{command} lacks {part}:\n{}",
                said.out
            );
        }
        assert!(!said.out.contains('\x1b'), "no colours in a pipe");
    }
}

#[tokio::test]
async fn the_version_is_shown_as_text_and_as_json() {
    let mut version = binary();
    version.arg("version");
    let text = said(version).await;
    assert_eq!(
        text.out,
        format!("walferry {} (format 1)\n", env!("CARGO_PKG_VERSION"))
    );
    let mut version = binary();
    version.args(["--json", "version"]);
    let object: serde_json::Value = serde_json::from_str(&said(version).await.out).unwrap();
    assert_eq!(object["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn a_mistaken_command_line_or_configuration_is_exit_code_2() {
    let mut unknown = binary();
    unknown.arg("fly");
    assert_eq!(said(unknown).await.code, Some(2));

    let directory = tempfile::tempdir().unwrap();
    let mut missing = binary();
    missing
        .args(["run", "--config", "nowhere.toml"])
        .current_dir(&directory);
    let missing = said(missing).await;
    assert_eq!(missing.code, Some(2));
    assert!(
        missing
            .err
            .contains("reading the configuration nowhere.toml"),
        "{}",
        missing.err
    );
}

#[tokio::test]
async fn all_mistakes_of_a_configuration_are_told_at_once_and_no_secret_is() {
    let directory = tempfile::tempdir().unwrap();
    let config = "[source]\nurl = \"postgres://u:s3cret@h/db\"\nslot = \"A\"\nspeed = 9\n\
                  [kafka]\nbrokers = \"h:1\"\nprefix = \"p\"\nretention = \"soon\"\n\
                  [sink]\nurl = \"mongodb://u:s3cret@h\"\n\
                  [[table]]\nname = \"orders\"\nmode = \"batch\"\n";
    std::fs::write(directory.path().join("walferry.toml"), config).unwrap();
    let mut run = binary();
    run.arg("run")
        .current_dir(&directory)
        .env("WALFERRY__SINK__GROUP_ROWS", "s3cret");
    let said = said(run).await;
    assert_eq!(said.code, Some(2));
    let keys = [
        "source.slot",
        "source.publication",
        "source.speed",
        "kafka.retention",
        "sink.database",
        "sink.group_rows",
        "table[0].name",
    ];
    for key in keys {
        assert!(
            said.err.contains(&format!("\n  {key}: ")),
            "{key} in {}",
            said.err
        );
    }
    assert!(said.err.contains("has 7 mistakes"), "{}", said.err);
    assert!(!format!("{}{}", said.out, said.err).contains("s3cret"));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_exit_code_1_with_its_cause_and_no_secret() {
    let site = Site::new(
        "absent",
        "create table t (id int primary key)",
        &[("public.*", "batch")],
    )
    .await;
    let mut command = binary();
    command.args(["backfill", "--config"]).arg(site.config());
    command.env(
        "WALFERRY__SOURCE__URL",
        "postgres://u:s3cret@127.0.0.1:1/db",
    );
    let said = said(command).await;
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(
        said.err.contains("error: ") && said.err.contains("to do: "),
        "{}",
        said.err
    );
    assert!(!said.err.contains("s3cret"), "{}", said.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_stops_a_load_that_waits_and_leaves_nothing() {
    let waiting = Waiting::new("stopped").await;
    let status = waiting
        .load
        .stop(Signal::TERM, Duration::from_secs(20))
        .await;
    assert_eq!(status.unwrap().code(), Some(1));
    assert!(waiting.site.collections().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_leaves_at_once() {
    let waiting = Waiting::new("twice").await;
    let patience = Duration::from_secs(20);
    walferry_harness::eventually(patience, "the load to leave", async || {
        waiting.load.signal(Signal::TERM);
        waiting.load.status().map(drop).ok_or("still there")
    })
    .await
    .unwrap();
    assert_eq!(waiting.load.status().unwrap().code(), Some(130));
}

/// A load that waits for a lock on its table.
struct Waiting {
    site: Site,
    load: Process,
    _holder: tokio_postgres::Client,
    _directory: tempfile::TempDir,
}

impl Waiting {
    async fn new(name: &str) -> Self {
        let table = "create table t (id int primary key)";
        let site = Site::new(name, table, &[("public.*", "batch")]).await;
        let holder = site.database.sql().await.unwrap();
        let lock = "begin; lock table t in access exclusive mode";
        holder.batch_execute(lock).await.unwrap();
        let mut command = binary();
        command.args(["backfill", "--config"]).arg(site.config());
        let directory = tempfile::tempdir().unwrap();
        let load = Process::spawn(&command, &directory.path().join("log")).unwrap();
        let waits = "select from pg_locks l join pg_database d on d.oid = l.database
                     where not l.granted and d.datname = current_database()";
        let patience = Duration::from_secs(30);
        walferry_harness::eventually(patience, "the load to wait", async || {
            let waiting = site.sql.query(waits, &[]).await.unwrap();
            if waiting.is_empty() {
                Err("nobody waits")
            } else {
                Ok(())
            }
        })
        .await
        .unwrap();
        Self {
            site,
            load,
            _holder: holder,
            _directory: directory,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_in_the_middle_of_a_load_leaves_the_old_collection() {
    let schema = "create table t (id int primary key, v text); insert into t values (1, 'old')";
    let site = Site::new("middle", schema, &[("public.*", "batch")]).await;
    assert_eq!(site.run(&["backfill"]).await.code, Some(0));
    let before = site.documents("t").await;
    let more = "insert into t select i, repeat('x', 500) from generate_series(2, 300000) i";
    site.sql.batch_execute(more).await.unwrap();

    let mut command = binary();
    command.args(["backfill", "--config"]).arg(site.config());
    let directory = tempfile::tempdir().unwrap();
    let load = Process::spawn(&command, &directory.path().join("log")).unwrap();
    let staging = site.mongo.collection::<bson::Document>("t.load");
    walferry_harness::eventually(
        Duration::from_secs(30),
        "the load to be under way",
        async || {
            let documents = staging.estimated_document_count().await.unwrap();
            if documents > 0 {
                Ok(())
            } else {
                Err("no document yet")
            }
        },
    )
    .await
    .unwrap();
    let status = load
        .stop(Signal::INT, Duration::from_secs(20))
        .await
        .unwrap();
    let log = std::fs::read_to_string(load.log()).unwrap();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        log.contains("stopped before public.t was done: load it again"),
        "{log}"
    );
    assert_eq!(site.documents("t").await, before);
    assert_eq!(site.collections().await, ["t"]);
}
