//! The programs of the demo: `retail` and `walferry`, as a user would call them.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use walferry_harness::{Process, Signal, project_root};

use crate::error::{Error, Result};
use crate::screen;

/// The source database.
pub(crate) const DATABASE: &str = "walmart";
/// The replication slot.
pub(crate) const SLOT: &str = "walmart_slot";
/// The target database.
pub(crate) const TARGET: &str = "walmart_realtime";
/// The tables that come through Kafka; all others are loaded in batches.
pub(crate) const STREAMED: [&str; 3] = ["transactions", "transactiondetails", "inventory"];
/// Those of them whose versions are all kept, for the rule about stock that no sale explains.
const KEPT: [&str; 2] = ["transactiondetails", "inventory"];

const GRACE: Duration = Duration::from_mins(1);

/// Where the servers of one demo are.
#[derive(Debug)]
pub(crate) struct Servers {
    /// PostgreSQL as the superuser, for the retail system and for looking.
    pub(crate) postgres: String,
    /// PostgreSQL as the role that replicates.
    pub(crate) source: String,
    /// Kafka; `None` is the engine's direct mode.
    pub(crate) brokers: Option<String>,
    /// MongoDB, without a database.
    pub(crate) mongo: String,
    /// The port of walferry's page.
    pub(crate) page: u16,
}

/// Where the programs and their files are.
#[derive(Debug)]
pub(crate) struct Programs {
    binaries: PathBuf,
    directory: PathBuf,
    config: PathBuf,
}

// === impl Programs ===

impl Programs {
    /// The programs beside this one; their files go into `directory`.
    pub(crate) fn new(directory: &Path) -> Result<Self> {
        let this = std::env::current_exe().map_err(Error::io("finding the demo's own program"))?;
        let binaries = this.parent().unwrap_or(Path::new(".")).to_owned();
        Ok(Self {
            binaries,
            directory: directory.to_owned(),
            config: directory.join("walferry.toml"),
        })
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> &Path {
        &self.config
    }

    /// Writes the configuration of `walferry`.
    pub(crate) fn write_config(&self, servers: &Servers) -> Result<()> {
        let text = config(servers);
        std::fs::write(&self.config, text)
            .map_err(Error::io(format!("writing {}", self.config.display())))?;
        Ok(())
    }

    /// Runs `retail` to its end.
    pub(crate) async fn retail(&self, arguments: &[&str]) -> Result<()> {
        self.run("retail", arguments).await
    }

    /// Runs `walferry backfill` to its end; its progress goes to the terminal.
    pub(crate) async fn backfill(&self) -> Result<()> {
        self.run(
            "walferry",
            &["backfill", "--config", &self.config.to_string_lossy()],
        )
        .await
    }

    /// Starts `walferry run`.
    pub(crate) fn start_walferry(&self) -> Result<Process> {
        self.start(
            "walferry",
            &["run", "--config", &self.config.to_string_lossy()],
        )
    }

    /// Starts `retail sell`.
    pub(crate) fn start_selling(&self, url: &str, rate: u32) -> Result<Process> {
        self.start(
            "retail",
            &["sell", "--url", url, "--rate", &rate.to_string()],
        )
    }

    fn start(&self, program: &str, arguments: &[&str]) -> Result<Process> {
        let mut command = std::process::Command::new(self.binaries.join(program));
        command.args(arguments).current_dir(&self.directory);
        Ok(Process::spawn(
            &command,
            &self.directory.join(format!("{program}.log")),
        )?)
    }

    async fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let command = format!("{program} {}", arguments.join(" "));
        screen::say(&command);
        let mut child = Command::new(self.binaries.join(program));
        let status = child
            .args(arguments)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .status();
        let status = status
            .await
            .map_err(Error::io(format!("starting {command}")))?;
        if status.success() {
            Ok(())
        } else {
            Err(Error::Step { command, status })
        }
    }
}

/// Ends a program that sells or ferries, in order, and kills it when it will not.
pub(crate) async fn stop(process: &Process, signal: Signal) {
    if process.stop(signal, GRACE).await.is_err() {
        screen::say(format_args!(
            "{} did not stop within {GRACE:?}: killing it",
            process.log().display()
        ));
        process.kill();
    }
}

fn config(servers: &Servers) -> String {
    let kafka = servers
        .brokers
        .as_ref()
        .map(|brokers| format!("[kafka]\nbrokers = \"{brokers}\"\nprefix = \"walmartdb\"\n\n"));
    format!(
        r#"[source]
url = "{source}"
slot = "{SLOT}"
publication = "walmart_publication"

{kafka}[sink]
url = "{mongo}"
database = "{TARGET}"

[admin]
listen = "127.0.0.1:{page}"

[analytics]
rules = "{rules}"

[[table]]
name = "public.{{{kept}}}"
mode = "stream"
history = true

[[table]]
name = "public.{{{streamed}}}"
mode = "stream"

[[table]]
name = "public.*"
mode = "batch"
"#,
        source = servers.source,
        kafka = kafka.unwrap_or_default(),
        mongo = servers.mongo,
        page = servers.page,
        rules = project_root().join("etl/analytics").display(),
        kept = KEPT.join(","),
        streamed = STREAMED.join(","),
    )
}
