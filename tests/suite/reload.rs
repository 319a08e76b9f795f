//! SIGHUP: the configuration is read again while the daemon runs.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use walferry_harness::{Process, Signal, eventually};

use crate::admin::{append, listening, said, status};
use crate::daemon::{PATIENCE, Pipeline};

/// A daemon that follows changes, with the configuration that it was started with.
struct Running {
    pipeline: Pipeline,
    port: u16,
    daemon: Process,
    config: String,
    rows: i32,
}

impl Running {
    async fn new(name: &str) -> Self {
        let (pipeline, port) = listening(name).await;
        let config = std::fs::read_to_string(pipeline.config()).unwrap();
        let mut command = pipeline.command(&["run"]);
        command.env_remove("RUST_LOG");
        let log = pipeline.config().with_file_name("walferry.log");
        let daemon = Process::spawn(&command, &log).unwrap();
        let mut running = Self {
            pipeline,
            port,
            daemon,
            config,
            rows: 0,
        };
        running.carries_a_change().await;
        running
    }

    async fn carries_a_change(&mut self) {
        self.rows += 1;
        let insert = format!("insert into t values ({}, 'x')", self.rows);
        self.pipeline.sql.batch_execute(&insert).await.unwrap();
        self.pipeline.equal(&["t"]).await;
    }

    /// Has the daemon read a configuration, and waits until it says what came of it.
    async fn reload(&self, config: &str, expected: Value) {
        std::fs::write(self.pipeline.config(), config).unwrap();
        self.daemon.signal(Signal::HUP);
        self.has_reloaded(expected).await;
    }

    async fn has_reloaded(&self, expected: Value) {
        let shown = eventually(PATIENCE, "the configuration to be read", async || {
            let reloaded = status(self.port).await?["reloaded"].take();
            let is_told = |key| expected[key] == reloaded[key];
            let error = reloaded["error"].as_str().unwrap_or_default();
            let is_refused = expected["error"]
                .as_str()
                .is_some_and(|it| error.contains(it));
            let has_error = is_refused || expected["error"] == reloaded["error"];
            if is_told("taken") && is_told("waiting") && has_error {
                Ok(reloaded)
            } else {
                Err(reloaded.to_string())
            }
        });
        let shown = shown.await;
        let shown = shown.unwrap_or_else(|error| panic!("{error}\n{}", self.pipeline.log()));
        assert!(shown["at"].as_u64().unwrap() > 0);
    }

    async fn stop(self) {
        let stopped = self.daemon.stop(Signal::TERM, PATIENCE).await;
        assert!(stopped.unwrap().success(), "{}", self.pipeline.log());
        assert!(!self.pipeline.log().contains("s3cret"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_level_and_group_sizes_change_at_once_and_a_url_waits_for_a_restart() {
    let mut running = Running::new("reload").await;
    let log = running.pipeline.log();
    assert!(log.contains(" INFO ") && !log.contains("DEBUG"), "{log}");
    let url = &running.pipeline.database.postgres_url;
    assert!(url.contains("postgres@"), "{url}");
    let config = running.config.replace("postgres@", "postgres:s3cret@");
    let config = config.replace("[sink]\n", "[sink]\ngroup_rows = 77\n");
    let config = format!("{config}[telemetry]\nlog = \"debug\"\n");
    let taken = ["sink.group_rows", "telemetry.log"];
    let expected = json!({ "taken": taken, "waiting": ["source.url"], "error": null });
    running.reload(&config, expected).await;
    running.carries_a_change().await;
    let applied = eventually(PATIENCE, "the group to be logged", async || {
        let log = running.pipeline.log();
        let is_logged = log.contains("DEBUG walferry::apply: applied");
        if is_logged { Ok(log) } else { Err(log) }
    });
    let log = applied.await.unwrap();
    let warned = "changed: a restart makes it take effect key=\"source.url\"";
    assert!(log.contains(warned), "{log}");
    let people = said(&running.pipeline, &["status"]).await.out;
    assert!(
        people.contains(": sink.group_rows, telemetry.log\n  waits for a restart: source.url\n"),
        "{people}"
    );

    // Another password, which looks the same; then everything as it was.
    let other = config.replace("s3cret", "s3cret2");
    let expected = json!({ "taken": [], "waiting": ["source.url"], "error": null });
    running.reload(&other, expected).await;
    let expected = json!({ "taken": taken, "waiting": [], "error": null });
    running.reload(&running.config, expected).await;
    let length = running.pipeline.log().len();
    running.carries_a_change().await;
    let more = running.pipeline.log().split_off(length);
    assert!(!more.contains("DEBUG"), "{more}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_cannot_be_used_changes_nothing_and_says_why() {
    let mut running = Running::new("broken").await;
    let mistaken = running
        .config
        .replace("[sink]\n", "[sink]\ngroup_rows = \"s3cret\"\n");
    let mistaken = format!("{mistaken}[telemetry]\nlog = \"loud\"\n");
    let error = "has 2 mistakes:\n  sink.group_rows: must be ";
    let expected = json!({ "taken": [], "waiting": [], "error": error });
    running.reload(&mistaken, expected).await;
    let log = running.pipeline.log();
    assert!(log.contains("nothing has changed error="), "{log}");
    assert!(log.contains("telemetry.log: must be off, error,"), "{log}");
    let error = "as TOML";
    let expected = json!({ "taken": [], "waiting": [], "error": error });
    running
        .reload("[source\nurl = \"postgres://u:s3cret@h\"", expected)
        .await;
    running.carries_a_change().await;
    std::fs::remove_file(running.pipeline.config()).unwrap();
    running.daemon.signal(Signal::HUP);
    let missing = "No such file";
    let expected = json!({ "taken": [], "waiting": [], "error": missing });
    running.has_reloaded(expected).await;
    let expected = json!({ "taken": [], "waiting": [], "error": null });
    running.reload(&running.config, expected).await;
    running.carries_a_change().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_table_is_taken_and_a_streamed_one_waits_for_a_restart() {
    let running = Running::new("tables").await;
    let batch = "[[table]]\nname = \"other.*\"\nmode = \"batch\"\n";
    let config = format!("{}{batch}", running.config);
    let expected = json!({ "taken": ["table[1]"], "waiting": [], "error": null });
    running.reload(&config, expected).await;
    let streamed = config.replace("\"batch\"", "\"stream\"");
    let expected = json!({ "taken": [], "waiting": ["table[1].mode"], "error": null });
    running.reload(&streamed, expected).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_hears_of_a_reload_and_what_waits_for_a_restart() {
    let (pipeline, _) = listening("managed").await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut command = pipeline.command(&["run"]);
    command.env("NOTIFY_SOCKET", &path);
    let daemon = Process::spawn(&command, &directory.path().join("log")).unwrap();
    let (socket, _) = told_until(socket, "STATUS=live").await;
    append(&pipeline, "[kafka.properties]\n\"client.id\" = \"other\"\n");
    daemon.signal(Signal::HUP);
    let waits = "STATUS=live; waits for a restart: kafka.properties.\"client.id\"";
    let (_socket, told) = told_until(socket, waits).await;
    let (begun, since) = told[0].split_once('\n').unwrap();
    assert_eq!(begun, "RELOADING=1");
    assert!(since.starts_with("MONOTONIC_USEC="), "{told:?}");
    assert_eq!(told[1], "READY=1");
    daemon.stop(Signal::TERM, PATIENCE).await.unwrap();
}

/// A process in a terminal, which only its own id reaches.
struct InTerminal(String);

impl InTerminal {
    fn is_there(&self) -> bool {
        Path::new("/proc").join(&self.0).exists()
    }
}

impl Drop for InTerminal {
    fn drop(&mut self) {
        if self.is_there() {
            let _ = Command::new("kill").args(["-KILL", &self.0]).status();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_whose_terminal_is_closed_stops() {
    let (pipeline, port) = listening("terminal").await;
    let id = pipeline.config().with_file_name("id");
    let (id_file, config) = (id.display(), pipeline.config());
    let daemon = env!("CARGO_BIN_EXE_walferry");
    let daemon = format!(
        "echo $$ > '{id_file}'; exec '{daemon}' run --config '{}'",
        config.display()
    );
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--command", &daemon, "/dev/null"]);
    let log = pipeline.config().with_file_name("terminal.log");
    let terminal = Process::spawn(&terminal, &log).unwrap();
    let state = async || Ok::<_, String>(status(port).await?["state"].to_string());
    let live = eventually(PATIENCE, "the daemon to follow", async || {
        state().await.and_then(|state| {
            let is_live = state == "\"live\"";
            if is_live { Ok(()) } else { Err(state) }
        })
    });
    live.await.unwrap();
    let id = std::fs::read_to_string(&id).unwrap();
    let daemon = InTerminal(id.trim().to_owned());
    assert!(daemon.is_there());
    terminal.kill();
    let ended = eventually(PATIENCE, "the daemon to stop", async || {
        if daemon.is_there() {
            Err("it is there")
        } else {
            Ok(())
        }
    });
    ended.await.unwrap();
}

/// What the service manager is told up to a message.
pub(crate) async fn told_until(socket: UnixDatagram, last: &str) -> (UnixDatagram, Vec<String>) {
    let last = last.to_owned();
    let told = tokio::task::spawn_blocking(move || {
        let mut told = Vec::new();
        let mut buffer = [0; 1_000];
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        while told.last() != Some(&last) {
            let length = socket.recv(&mut buffer).unwrap();
            told.push(String::from_utf8_lossy(&buffer[..length]).trim().to_owned());
        }
        (socket, told)
    });
    told.await.unwrap()
}
