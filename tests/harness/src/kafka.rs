//! A private Apache Kafka server: one node, broker and KRaft controller in one process.

use std::path::{Path, PathBuf};
use std::process::Command;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::directory::Directory;
use crate::process::{self, Process, Signal};
use crate::{Error, PATIENCE, Result, ServerTls, eventually, free_port, run_directory, tools};

const CLUSTER_ID: &str = "d2FsZmVycnktdGVzdHMtMQ";
/// Where the server's own start is logged; everything else only from warnings on.
const LOGGED: &str = "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info";
/// The controller's listener is plain as well.
const ACLS: &str = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
";
const STARTED: &str = "Kafka Server started";

/// How a [`Kafka`] differs from the default one.
#[derive(Debug, Clone, Default)]
pub struct KafkaOptions {
    /// Java as a real server runs it, with both compilers; by default it is made to start fast.
    pub is_for_load: bool,
    /// More listeners, with TLS; none by default.
    pub tls: Option<KafkaTls>,
    /// Whether users may only do what ACLs allow; whoever comes by the plain listener may do everything.
    pub has_acls: bool,
}

/// Two listeners beside the plain one: with TLS and a client's certificate, and with TLS and SASL.
#[derive(Debug, Clone)]
pub struct KafkaTls {
    /// With what the server does TLS.
    pub server: ServerTls,
    /// The user of SASL, by `SCRAM-SHA-256` and by `PLAIN`.
    pub user: String,
    /// Its password.
    pub password: String,
}

/// The ports of a server's listeners.
#[derive(Debug, Clone, Copy)]
struct Ports {
    controller: u16,
    plain: u16,
    tls: u16,
    sasl: u16,
}

/// A private Kafka server; topics are not created by themselves.
#[derive(Debug)]
pub struct Kafka {
    process: Process,
    ports: Ports,
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
        let (ports, config, log) = (
            Ports::free()?,
            directory.path().join("server.properties"),
            directory.path().join("kafka.log"),
        );
        let data = directory.path().join("data");
        write_config(&config, ports, &options, &data)?;
        match &options.tls {
            None => copy_storage(&jars, &config, &data).await?,
            Some(tls) => format_storage(&jars, &config, &tls.scram()).await?,
        }
        let process = spawn(&jars, &config, &options, &log)?;
        let server = Self {
            process,
            ports,
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
        format!("127.0.0.1:{}", self.ports.plain)
    }

    /// The same of the listener with TLS that asks for a certificate.
    pub fn tls_brokers(&self) -> String {
        format!("localhost:{}", self.ports.tls)
    }

    /// The same of the listener with TLS and SASL.
    pub fn sasl_brokers(&self) -> String {
        format!("localhost:{}", self.ports.sasl)
    }

    /// What `kafka-acls.sh` runs, without arguments.
    ///
    /// # Errors
    /// When it is not installed.
    pub fn acls(&self) -> Result<Command> {
        let mut acls = java(&self.jars);
        let class_path = [tools::kafka_acls()?.join("*"), self.jars.join("*")];
        let class_path = class_path.map(|it| it.display().to_string()).join(":");
        acls.env("CLASSPATH", class_path);
        acls.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]);
        acls.arg("org.apache.kafka.tools.AclCommand");
        Ok(acls)
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
    /// When it still runs after [`PATIENCE`].
    pub async fn stop(&self) -> Result<()> {
        self.process.stop(Signal::TERM, PATIENCE).await.map(drop)
    }

    /// Kills the server at once, keeping its data.
    ///
    /// # Errors
    /// When it still runs afterwards.
    pub async fn kill(&self) -> Result<()> {
        self.process.kill();
        self.process.wait(PATIENCE).await.map(drop)
    }

    /// Starts a stopped or killed server again, on the same port with the same data; a running one is stopped first.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        let already_logged = self.starts_logged();
        self.process = spawn(&self.jars, &self.config, &self.options, &self.log)?;
        self.ready(already_logged).await
    }

    async fn ready(&self, already_logged: usize) -> Result<()> {
        eventually(PATIENCE, "Kafka to answer", async || {
            if let Err(exited) = self.process.check_running() {
                return Ok(Err(exited));
            }
            if self.starts_logged() == already_logged {
                return Err("it has not logged its start".to_owned());
            }
            answers(self.ports.plain)
                .await
                .map(Ok)
                .map_err(|e| e.to_string())
        })
        .await?
    }

    fn starts_logged(&self) -> usize {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log).matches(STARTED).count()
    }
}

// === impl Ports ===

impl Ports {
    fn free() -> Result<Self> {
        Ok(Self {
            controller: free_port()?,
            plain: free_port()?,
            tls: free_port()?,
            sasl: free_port()?,
        })
    }
}

// === impl KafkaTls ===

impl KafkaTls {
    /// The user of SCRAM, whom the storage holds from its start.
    fn scram(&self) -> [String; 2] {
        let Self { user, password, .. } = self;
        let credentials = format!("SCRAM-SHA-256=[name={user},password={password}]");
        ["--add-scram".to_owned(), credentials]
    }

    fn config(&self) -> String {
        let Self {
            server: ServerTls { issued, authority },
            user,
            password,
        } = self;
        let (both, authority) = (issued.both.display(), authority.display());
        let module = "org.apache.kafka.common.security";
        let listener = "listener.name.sasl_ssl";
        format!(
            "ssl.keystore.type=PEM
ssl.keystore.location={both}
ssl.truststore.type=PEM
ssl.truststore.location={authority}
listener.name.ssl.ssl.client.auth=required
sasl.enabled.mechanisms=SCRAM-SHA-256,PLAIN
{listener}.scram-sha-256.sasl.jaas.config={module}.scram.ScramLoginModule required;
{listener}.plain.sasl.jaas.config={module}.plain.PlainLoginModule required user_{user}=\"{password}\";
"
        )
    }
}

fn spawn(jars: &Path, config: &Path, options: &KafkaOptions, log: &Path) -> Result<Process> {
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

fn write_config(path: &Path, ports: Ports, options: &KafkaOptions, data: &Path) -> Result<()> {
    let Ports {
        controller,
        plain,
        tls,
        sasl,
    } = ports;
    let (mut listeners, mut advertised, mut more) = (
        format!("PLAINTEXT://127.0.0.1:{plain},CONTROLLER://127.0.0.1:{controller}"),
        format!("PLAINTEXT://127.0.0.1:{plain}"),
        String::new(),
    );
    if let Some(options) = &options.tls {
        listeners = format!("{listeners},SSL://127.0.0.1:{tls},SASL_SSL://127.0.0.1:{sasl}");
        advertised = format!("{advertised},SSL://localhost:{tls},SASL_SSL://localhost:{sasl}");
        more = options.config();
    }
    if options.has_acls {
        more.push_str(ACLS);
    }
    let data = data.display();
    let text = format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners={listeners}
advertised.listeners={advertised}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL
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
{more}"
    );
    std::fs::write(path, text).map_err(Error::io(format!("writing {}", path.display())))
}

/// Formatted storage, copied from a template that the first start makes: it saves a start of Java. Nothing in it
/// depends on ports or paths.
async fn copy_storage(jars: &Path, config: &Path, data: &Path) -> Result<()> {
    let template = run_directory().join("template-kafka");
    if template.exists() {
        return copy(&template, data).await;
    }
    format_storage(jars, config, &[]).await?;
    let making = run_directory().join(format!("template-kafka-{}", crate::unique("new")));
    let created = std::fs::create_dir_all(run_directory());
    created.map_err(Error::io("creating the directory of templates"))?;
    copy(data, &making).await?;
    // Another process may have been faster: then ours goes.
    if std::fs::rename(&making, &template).is_err() {
        let _ = std::fs::remove_dir_all(&making);
    }
    Ok(())
}

async fn format_storage(jars: &Path, config: &Path, more: &[String]) -> Result<()> {
    let mut format = java(jars);
    format
        .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"])
        .arg(config)
        .args(more);
    process::run(None, &format).await
}

async fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut copy = Command::new("cp");
    process::run(None, copy.args(["-a", "--"]).arg(from).arg(to)).await
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
