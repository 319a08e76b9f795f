//! A private Apache Kafka server: one node, broker and KRaft controller in one process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::directory::Directory;
use crate::process::{self, Process, Signal};
use crate::{Error, Result, eventually, free_port, run_directory, tools};

const READY: Duration = Duration::from_mins(2);
const STOPPED: Duration = Duration::from_mins(1);
const CLUSTER_ID: &str = "d2FsZmVycnktdGVzdHMtMQ";
/// Where the server's own start is logged; everything else only from warnings on.
const LOGGED: &str = "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info";
const STARTED: &str = "Kafka Server started";

/// How a [`Kafka`] differs from the default one.
#[derive(Debug, Clone, Copy, Default)]
pub struct KafkaOptions {
    /// Java as a real server runs it, with both compilers; by default it is made to start fast.
    pub is_for_load: bool,
}

/// A private Kafka server; topics are not created by themselves.
#[derive(Debug)]
pub struct Kafka {
    process: Process,
    port: u16,
    jars: PathBuf,
    config: PathBuf,
    options: KafkaOptions,
    log: PathBuf,
    _directory: Directory,
}

impl Kafka {
    /// Starts a server below `root/kafka`.
    ///
    /// # Errors
    /// When Kafka is not installed or does not come up.
    pub async fn start(root: &Path) -> Result<Self> {
        Self::start_with(root, KafkaOptions::default()).await
    }

    /// Starts a server that differs from the default one.
    ///
    /// # Errors
    /// When Kafka is not installed or does not come up.
    pub async fn start_with(root: &Path, options: KafkaOptions) -> Result<Self> {
        let jars = tools::kafka_jars()?;
        let directory = Directory::create(&root.join("kafka"))?;
        let (port, config, log) = (
            free_port()?,
            directory.path().join("server.properties"),
            directory.path().join("kafka.log"),
        );
        let data = directory.path().join("data");
        write_config(&config, port, &data)?;
        format_storage(&jars, &config, &data).await?;
        let process = spawn(&jars, &config, options, &log)?;
        let server = Self {
            process,
            port,
            jars,
            config,
            options,
            log,
            _directory: directory,
        };
        server.ready(0).await?;
        Ok(server)
    }

    /// What a client calls `bootstrap.servers`.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The server's log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Stops the server in order, keeping its data.
    ///
    /// # Errors
    /// When it still runs after a minute.
    pub async fn stop(&self) -> Result<()> {
        self.process.stop(Signal::TERM, STOPPED).await.map(drop)
    }

    /// Kills the server at once, keeping its data.
    ///
    /// # Errors
    /// When it still runs afterwards.
    pub async fn kill(&self) -> Result<()> {
        self.process.kill();
        self.process.wait(STOPPED).await.map(drop)
    }

    /// Starts a stopped or killed server again, on the same port with the same data; a running one is stopped first.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        let already_logged = self.starts_logged();
        self.process = spawn(&self.jars, &self.config, self.options, &self.log)?;
        self.ready(already_logged).await
    }

    async fn ready(&self, already_logged: usize) -> Result<()> {
        eventually(READY, "Kafka to answer", async || {
            if let Err(exited) = self.process.check_running() {
                return Ok(Err(exited));
            }
            if self.starts_logged() == already_logged {
                return Err("it has not logged its start".to_owned());
            }
            answers(self.port).await.map(Ok).map_err(|e| e.to_string())
        })
        .await?
    }

    fn starts_logged(&self) -> usize {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log).matches(STARTED).count()
    }
}

fn spawn(jars: &Path, config: &Path, options: KafkaOptions, log: &Path) -> Result<Process> {
    let mut java = java(jars);
    if options.is_for_load {
        java.args(["-Xms1g", "-Xmx1g"]);
    } else {
        // It starts faster and takes less of two cores with the first compiler alone and a serial collector.
        java.args([
            "-Xms256m",
            "-Xmx512m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
        ]);
    }
    java.args([
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        LOGGED,
    ]);
    Process::spawn(java.arg("kafka.Kafka").arg(config), log)
}

fn java(jars: &Path) -> Command {
    let mut java = Command::new("java");
    // Not `-cp`, so that options may still follow.
    java.env("CLASSPATH", jars.join("*"));
    java
}

fn write_config(path: &Path, port: u16, data: &Path) -> Result<()> {
    let controller = free_port()?;
    let data = data.display();
    let text = format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
num.partitions=1
log.cleaner.dedupe.buffer.size=16777216
"
    );
    std::fs::write(path, text).map_err(Error::io(format!("writing {}", path.display())))
}

/// Formatted storage, copied from a template that the first start makes: it saves a start of Java. Nothing in it
/// depends on ports or paths.
async fn format_storage(jars: &Path, config: &Path, data: &Path) -> Result<()> {
    let template = run_directory().join("template-kafka");
    if !template.exists() {
        let mut format = java(jars);
        format
            .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"])
            .arg(config);
        process::run(None, &format).await?;
        let making = run_directory().join(format!("template-kafka-{}", crate::unique("new")));
        let created = std::fs::create_dir_all(run_directory());
        created.map_err(Error::io("creating the directory of templates"))?;
        process::run(
            None,
            Command::new("cp")
                .arg("-a")
                .arg("--")
                .arg(data)
                .arg(&making),
        )
        .await?;
        // Another process may have been faster: then ours goes.
        if std::fs::rename(&making, &template).is_err() {
            let _ = std::fs::remove_dir_all(&making);
        }
        return Ok(());
    }
    process::run(
        None,
        Command::new("cp")
            .arg("-a")
            .arg("--")
            .arg(template)
            .arg(data),
    )
    .await
}

/// Asks for the API versions, the one request that every broker answers: length, API key 18, version 0, correlation 1,
/// no client id.
async fn answers(port: u16) -> std::io::Result<()> {
    let request = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff];
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(&request).await?;
    let mut header = [0; 8];
    stream.read_exact(&mut header).await.map(drop)
}
