//! The command line as its user meets it: help, mistakes, exit codes.

use walferry_harness::{PATIENCE, Process, Signal};

use crate::site::{Site, binary, said};

#[tokio::test]
async fn the_help_of_every_command_reads_as_documentation() {
    let commands = [
        "run",
        "trace",
        "backfill",
        "verify",
        "fidelity",
        "preview",
        "status",
        "top",
        "analytics",
        "access",
        "config",
        "completions",
        "man",
        "version",
    ];
    for command in commands {
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
async fn the_configuration_that_is_shown_is_one_that_can_be_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let config = "[source]\nurl_file = \"url\"\nslot = \"s\"\npublication = \"p\"\n\
                  [kafka]\nbrokers = \"h:1\"\nprefix = \"p\"\nretention = \"90m\"\n\
                  properties = { \"client.id\" = \"a \\\"b\\\"\" }\n\
                  [sink]\nurl = \"mongodb://h\"\ndatabase = \"d\"\n\
                  [[table]]\nname = \"public.*\"\nmode = \"batch\"\n\
                  [[role]]\nname = \"r\"\n\
                  [[role.read]]\ntables = [\"t\"]\nfilter = { \"A b\" = [1, true, \"x\"] }\nmasks = { m = \"hash\" }\n\
                  through = { table = \"p\", by = { a = \"b\" }, filter = { f = 0.5 } }\n\
                  [[role]]\nname = \"s\"\n[[role.read]]\ntables = [\"t\"]\n";
    std::fs::write(directory.path().join("walferry.toml"), config).unwrap();
    std::fs::write(directory.path().join("url"), "postgres://u:s3cret@h/db").unwrap();
    let show = async |arguments: &[&str]| {
        let mut command = binary();
        command
            .arg("config")
            .args(arguments)
            .current_dir(&directory);
        command.env("WALFERRY__SINK__GROUP_ROWS", "5000");
        let said = said(command).await;
        assert_eq!(said.code, Some(0), "{}", said.err);
        assert!(!said.out.contains("s3cret"), "{}", said.out);
        said.out
    };
    let shown = show(&[]).await;
    let has = |line: &str, origin: &str| {
        let is_it = |it: &&str| it.starts_with(line) && it.ends_with(&format!("  # {origin}"));
        assert_eq!(shown.lines().filter(is_it).count(), 1, "{line} in\n{shown}");
    };
    has("url = \"postgres://u:***@h/db\"", "url_file url");
    has("group_rows = 5000", "WALFERRY__SINK__GROUP_ROWS");
    has("retention = \"1h 30m\"", "walferry.toml");
    has("partitions = 1", "default");

    let again: String = shown
        .lines()
        .filter(|it| !it.starts_with("url_file"))
        .fold(String::new(), |text, line| text + line + "\n");
    std::fs::write(directory.path().join("again.toml"), again).unwrap();
    let values = async |file: &str| {
        let shown: serde_json::Value =
            serde_json::from_str(&show(&["--json", "--config", file]).await).unwrap();
        let settings = shown["settings"].as_array().unwrap().clone();
        let is_other = |it: &serde_json::Value| it["key"] != "source.url_file";
        let pair = |it: serde_json::Value| (it["key"].to_string(), it["value"].clone());
        settings
            .into_iter()
            .filter(is_other)
            .map(pair)
            .collect::<Vec<_>>()
    };
    assert_eq!(values("again.toml").await, values("walferry.toml").await);
}

#[tokio::test]
async fn each_command_has_a_man_page_and_every_shell_its_completions() {
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("man1");
    let mut man = binary();
    man.arg("man").arg(&pages);
    assert_eq!(said(man).await.code, Some(0));
    let page = |name: &str| std::fs::read_to_string(pages.join(name)).unwrap();
    assert!(page("walferry.1").contains("walferry\\-verify(1)"));
    for command in [
        "run", "trace", "backfill", "verify", "move", "config", "version",
    ] {
        assert!(page(&format!("walferry-{command}.1")).contains("Exit codes:"));
    }
    for shell in ["bash", "zsh", "fish"] {
        let mut completions = binary();
        completions.args(["completions", shell]);
        let said = said(completions).await;
        assert!(said.out.contains("backfill"), "{shell}: {}", said.out);
    }
    let mut unwritable = binary();
    unwritable.args(["man", "/dev/null/man1"]);
    let said = said(unwritable).await;
    assert_eq!(said.code, Some(1));
    assert!(
        said.err
            .contains("writing the man pages into /dev/null/man1")
    );
}

#[tokio::test]
async fn bash_completes_commands_and_options() {
    let script = r#"
        source <("$0" completions bash)
        COMP_WORDS=(walferry ba); COMP_CWORD=1; _walferry walferry ba walferry; echo "${COMPREPLY[@]}"
        COMP_WORDS=(walferry run --new); COMP_CWORD=2; _walferry walferry --new run; echo "${COMPREPLY[@]}"
    "#;
    let mut bash = std::process::Command::new("bash");
    bash.args(["-c", script, env!("CARGO_BIN_EXE_walferry")]);
    let said = said(bash).await;
    assert_eq!(said.out, "backfill\n--new-snapshot\n", "{}", said.err);
}

#[tokio::test]
async fn results_that_nobody_reads_are_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut completions = binary();
    completions.args(["completions", "bash"]).stdout(writer);
    let said = said(completions).await;
    assert_eq!((said.code, said.err.as_str()), (Some(141), ""));
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
    let waiting = Waiting::new("stopped", &["backfill"]).await;
    let status = waiting.process.stop(Signal::TERM, PATIENCE).await;
    assert_eq!(status.unwrap().code(), Some(1));
    assert!(waiting.site.collections().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_stops_what_looks_at_a_table_that_is_locked() {
    for (name, arguments) in [
        ("looking", &["fidelity"][..]),
        ("peeping", &["preview", "t"]),
    ] {
        let waiting = Waiting::new(name, arguments).await;
        let log = waiting.process.log().to_owned();
        let status = waiting.process.stop(Signal::TERM, PATIENCE).await;
        assert_eq!(status.unwrap().code(), Some(1));
        let log = std::fs::read_to_string(log).unwrap();
        assert!(
            log.contains("stopped before everything was looked at"),
            "{log}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_leaves_at_once() {
    let waiting = Waiting::new("twice", &["backfill"]).await;
    walferry_harness::eventually(PATIENCE, "the load to leave", async || {
        waiting.process.signal(Signal::TERM);
        waiting.process.status().map(drop).ok_or("still there")
    })
    .await
    .unwrap();
    assert_eq!(waiting.process.status().unwrap().code(), Some(130));
}

/// A command that waits for a lock on its table.
struct Waiting {
    site: Site,
    process: Process,
    _holder: tokio_postgres::Client,
    _directory: tempfile::TempDir,
}

impl Waiting {
    async fn new(name: &str, arguments: &[&str]) -> Self {
        let table = "create table t (id int primary key)";
        let site = Site::new(name, table, &[("public.*", "batch")]).await;
        let holder = site.database.sql().await.unwrap();
        let lock = "begin; lock table t in access exclusive mode";
        holder.batch_execute(lock).await.unwrap();
        let mut command = binary();
        command.args(arguments).arg("--config").arg(site.config());
        let directory = tempfile::tempdir().unwrap();
        let process = Process::spawn(&command, &directory.path().join("log")).unwrap();
        let waits = "select from pg_locks l join pg_database d on d.oid = l.database
                     where not l.granted and d.datname = current_database()";
        walferry_harness::eventually(PATIENCE, "the command to wait", async || {
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
            process,
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
    walferry_harness::eventually(PATIENCE, "the load to be under way", async || {
        let documents = staging.estimated_document_count().await.unwrap();
        if documents > 0 {
            Ok(())
        } else {
            Err("no document yet")
        }
    })
    .await
    .unwrap();
    let status = load.stop(Signal::INT, PATIENCE).await.unwrap();
    let log = std::fs::read_to_string(load.log()).unwrap();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        log.contains("stopped before public.t was done: load it again"),
        "{log}"
    );
    assert_eq!(site.documents("t").await, before);
    assert_eq!(site.collections().await, ["t"]);
}
