//! A private MongoDB server: one mongod that is the primary of the replica set `rs0`.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mongodb::bson::{Document, doc};
use mongodb::options::ClientOptions;

use crate::directory::Directory;
use crate::process::{Process, Signal};
use crate::{Error, PATIENCE, Result, ServerTls, eventually, free_port, tools};

/// The oplog is read from its beginning after long runs; what it does not hold takes no room.
const OPLOG_MB: &str = "8192";

/// How a [`Mongo`] differs from the default one.
#[derive(Debug, Clone)]
pub struct MongoOptions {
    /// The size of the storage engine's cache, in MB.
    pub cache_mb: u32,
    /// Whether who has not logged in may do nothing; until there is a user, anybody may make the first.
    pub has_users: bool,
    /// Whether it takes MongoDB's own test commands: `configureFailPoint` holds a command where a test
    /// wants it, and `waitForFailPoint` tells when it is there.
    pub has_fail_points: bool,
    /// With what it does TLS, for those who ask for it: they need a certificate then. Not at all by default.
    pub tls: Option<ServerTls>,
}

/// A private mongod with transactions (a replica set of one).
#[derive(Debug)]
pub struct Mongo {
    process: Process,
    port: u16,
    mongod: PathBuf,
    data: PathBuf,
    options: MongoOptions,
    log: PathBuf,
    _directory: Directory,
}

impl Default for MongoOptions {
    fn default() -> Self {
        Self {
            cache_mb: 512,
            has_users: false,
            has_fail_points: false,
            tls: None,
        }
    }
}

impl Mongo {
    /// Starts a server below `root/mongo` and makes it primary.
    ///
    /// # Errors
    /// When mongod is not installed or does not come up.
    pub async fn start(root: &Path) -> Result<Self> {
        Self::start_with(root, MongoOptions::default()).await
    }

    /// Starts a server that differs from the default one.
    ///
    /// # Errors
    /// When mongod is not installed or does not come up.
    pub async fn start_with(root: &Path, options: MongoOptions) -> Result<Self> {
        let mongod = tools::mongod()?;
        let directory = Directory::create(&root.join("mongo"))?;
        let (data, log, port) = (
            directory.path().join("data"),
            directory.path().join("mongo.log"),
            free_port()?,
        );
        std::fs::create_dir(&data).map_err(Error::io(format!("creating {}", data.display())))?;
        if options.has_users {
            write_key(&key_beside(&data))?;
        }
        let process = spawn(&mongod, &data, port, &options, &log)?;
        let server = Self {
            process,
            port,
            mongod,
            data,
            options,
            log,
            _directory: directory,
        };
        server.initiate().await?;
        server.ready().await?;
        Ok(server)
    }

    /// The connection URL.
    pub fn url(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?replicaSet=rs0", self.port)
    }

    /// The port of 127.0.0.1 it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The server's log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// A new client; it belongs to the runtime that asks for it.
    ///
    /// # Errors
    /// When the driver refuses the URL.
    pub async fn client(&self) -> Result<mongodb::Client> {
        Ok(mongodb::Client::with_uri_str(self.url()).await?)
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
        self.process = spawn(
            &self.mongod,
            &self.data,
            self.port,
            &self.options,
            &self.log,
        )?;
        self.ready().await
    }

    async fn initiate(&self) -> Result<()> {
        // Clients connect to the name that the set knows: with TLS it must be that of a certificate.
        let name = if self.options.tls.is_some() {
            "localhost"
        } else {
            "127.0.0.1"
        };
        let host = format!("{name}:{}", self.port);
        let members = doc! { "_id": "rs0", "members": [{ "_id": 0, "host": host }] };
        self.until(
            "mongod to accept its configuration",
            doc! { "replSetInitiate": members },
            |_| true,
        )
        .await
    }

    async fn ready(&self) -> Result<()> {
        let is_primary = |hello: &Document| hello.get_bool("isWritablePrimary").unwrap_or_default();
        self.until("mongod to be primary", doc! { "hello": 1 }, is_primary)
            .await
    }

    /// Repeats a command until its answer is as wanted.
    async fn until(
        &self,
        what: &str,
        command: Document,
        wanted: impl Fn(&Document) -> bool,
    ) -> Result<()> {
        let mut options = ClientOptions::parse(format!(
            "mongodb://127.0.0.1:{}/?directConnection=true",
            self.port
        ))
        .await?;
        options.server_selection_timeout = Some(Duration::from_millis(500));
        let admin = mongodb::Client::with_options(options)?.database("admin");
        eventually(PATIENCE, what, async || {
            if let Err(exited) = self.process.check_running() {
                return Ok(Err(exited));
            }
            let answer = admin
                .run_command(command.clone())
                .await
                .map_err(|e| e.to_string())?;
            if wanted(&answer) {
                Ok(Ok(()))
            } else {
                Err(answer.to_string())
            }
        })
        .await?
    }
}

fn spawn(
    mongod: &Path,
    data: &Path,
    port: u16,
    options: &MongoOptions,
    log: &Path,
) -> Result<Process> {
    let mut command = Command::new(mongod);
    command.arg("--dbpath").arg(data).args([
        "--port",
        &port.to_string(),
        "--bind_ip",
        "127.0.0.1",
        "--nounixsocket",
    ]);
    command.args([
        "--replSet",
        "rs0",
        "--oplogSize",
        OPLOG_MB,
        "--wiredTigerCacheSizeGB",
        &format!("{:.3}", f64::from(options.cache_mb) / 1024.0),
    ]);
    command.args(["--setParameter", "diagnosticDataCollectionEnabled=false"]);
    // A set of one has nobody to hand over to.
    command.args([
        "--setParameter",
        "shutdownTimeoutMillisForSignaledShutdown=0",
    ]);
    if options.has_users {
        command.arg("--keyFile").arg(key_beside(data));
    }
    if options.has_fail_points {
        command.args(["--setParameter", "enableTestCommands=1"]);
    }
    if let Some(ServerTls { issued, authority }) = &options.tls {
        command.args(["--tlsMode", "preferTLS", "--tlsCertificateKeyFile"]);
        command.arg(&issued.both).arg("--tlsCAFile").arg(authority);
    }
    Process::spawn(&command, log)
}

/// What the members of the set know each other by; it switches users on.
fn key_beside(data: &Path) -> PathBuf {
    data.with_extension("key")
}

/// mongod refuses a key that others may read.
fn write_key(key: &Path) -> Result<()> {
    let io = || Error::io(format!("writing {}", key.display()));
    std::fs::write(key, "onlyofthistest").map_err(io())?;
    std::fs::set_permissions(key, Permissions::from_mode(0o400)).map_err(io())
}
