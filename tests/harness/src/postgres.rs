//! A private PostgreSQL server.
//!
//! - It listens on 127.0.0.1 only, without a Unix socket, and trusts everyone unless the options say otherwise.
//! - Started by root, it runs as the user `postgres`, since PostgreSQL refuses to run as root.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tokio_postgres::{Client, NoTls};

use crate::directory::Directory;
use crate::process::{self, Process, Signal};
use crate::{Error, PATIENCE, Result, ServerTls, eventually, free_port, run_directory, tools};

/// Its TLS, with the files that [`install`] puts into the data directory.
const TLS: [&str; 4] = [
    "ssl=on",
    "ssl_cert_file=server.pem",
    "ssl_key_file=server-key.pem",
    "ssl_ca_file=authority.pem",
];

/// How a [`Postgres`] differs from the default one.
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    /// The directory of its programs; by default that of the tests' PostgreSQL.
    pub bin: Option<PathBuf>,
    /// Whether commits reach the disk; `false` by default, for speed (a killed server loses nothing either way, only a
    /// killed machine does).
    pub fsync: bool,
    /// Lines of `pg_hba.conf` that come before `trust` for everyone.
    pub hba: Vec<String>,
    /// With what it does TLS; not at all by default. `hba` says who must.
    pub tls: Option<ServerTls>,
    /// Settings on top of the harness's own, as `("wal_sender_timeout", "2s")`.
    pub settings: Vec<(String, String)>,
}

/// A private PostgreSQL server with `wal_level = logical` and superuser `postgres`.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    port: u16,
    bin: PathBuf,
    log: PathBuf,
    data: PathBuf,
    settings: Vec<String>,
    _directory: Directory,
    _elsewhere: Option<Directory>,
}

impl Postgres {
    /// Starts a server with the default options below `root/postgres`.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or does not come up.
    pub async fn start(root: &Path) -> Result<Self> {
        Self::start_with(root, PostgresOptions::default()).await
    }

    /// Starts a server that has the extension `vector` below `root/postgres`; none where there is no such PostgreSQL.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or does not come up.
    pub async fn start_with_vectors(root: &Path) -> Result<Option<Self>> {
        let options = PostgresOptions {
            bin: tools::pgvector_bin(),
            ..PostgresOptions::default()
        };
        let server = Self::start_with(root, options).await?;
        let sql = "select 1 from pg_available_extensions where name = 'vector'";
        let found = server.connect("postgres").await?.query(sql, &[]).await?;
        Ok((!found.is_empty()).then_some(server))
    }

    /// Starts a server below `root/postgres`.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or does not come up.
    pub async fn start_with(root: &Path, options: PostgresOptions) -> Result<Self> {
        let bin = options.bin.clone().map_or_else(tools::postgres_bin, Ok)?;
        let bin = enterable(bin).await?;
        let directory = Directory::create(&root.join("postgres"))?;
        let elsewhere = if is_enterable(directory.path()) {
            None
        } else {
            Some(directory_for_postgres()?)
        };
        let data = elsewhere.as_ref().unwrap_or(&directory).path().join("data");
        create_cluster(&bin, &data).await?;
        write_hba(&data, &options.hba)?;
        if let Some(tls) = &options.tls {
            install(tls, &data).await?;
        }
        let port = free_port()?;
        let mut settings = settings(port, &options);
        // Means nothing to the server; whoever looks for what a run left behind sees whose it is.
        settings.push(format!("harness.directory={}", directory.path().display()));
        let log = directory.path().join("postgres.log");
        let process = spawn(&bin, &data, &settings, &log)?;
        let server = Self {
            process,
            port,
            bin,
            log,
            data,
            settings,
            _directory: directory,
            _elsewhere: elsewhere,
        };
        server.ready().await?;
        Ok(server)
    }

    /// The superuser's connection URL of the database `postgres`.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The superuser's connection URL of a database.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The port of 127.0.0.1 it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The postmaster's process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The server's log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The data directory.
    pub fn data_directory(&self) -> &Path {
        &self.data
    }

    /// A new superuser connection to a database; it lives until the client is dropped.
    ///
    /// # Errors
    /// When the server refuses it.
    pub async fn connect(&self, database: &str) -> Result<Client> {
        connect(&self.url_of(database)).await
    }

    /// Stops the server in order (`fast`: open sessions are ended), keeping its data.
    ///
    /// # Errors
    /// When it still runs after 30 seconds.
    pub async fn stop(&self) -> Result<()> {
        self.process.stop(Signal::INT, PATIENCE).await.map(drop)
    }

    /// Kills the server at once, all its processes, keeping its data.
    ///
    /// # Errors
    /// When something still listens on its port after 30 seconds.
    pub async fn kill(&self) -> Result<()> {
        self.process.kill();
        let gone = async || !self.data.join("postmaster.pid").exists() || self.orphans_are_gone();
        eventually(PATIENCE, "PostgreSQL's processes to be gone", gone).await
    }

    /// Starts a stopped or killed server again, on the same port with the same data; a running one is stopped first.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.process = spawn(&self.bin, &self.data, &self.settings, &self.log)?;
        self.ready().await
    }

    async fn ready(&self) -> Result<()> {
        eventually(PATIENCE, "PostgreSQL to accept connections", async || {
            if let Err(exited) = self.process.check_running() {
                return Ok(Err(exited));
            }
            self.connect("postgres").await.map(|_| Ok(()))
        })
        .await?
    }

    /// The backends leave by themselves when the postmaster is gone; a new one refuses to start before that, since
    /// they still hold its shared memory.
    fn orphans_are_gone(&self) -> bool {
        !process::any_with_working_directory(&self.data)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Immediate shutdown: unlike SIGKILL it leaves no shared memory behind.
        self.process.end_now(Signal::QUIT);
    }
}

pub(crate) async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    #[allow(
        clippy::disallowed_methods,
        reason = "a test's connection ends with its client; there is nothing to drain"
    )]
    tokio::spawn(connection);
    Ok(client)
}

/// The user that PostgreSQL runs as, when it cannot be ours.
fn user() -> Option<&'static str> {
    rustix::process::geteuid().is_root().then_some("postgres")
}

fn settings(port: u16, options: &PostgresOptions) -> Vec<String> {
    let on_off = |on: bool| if on { "on" } else { "off" };
    let ours = [
        ("port", port.to_string()),
        ("listen_addresses", "127.0.0.1".into()),
        ("unix_socket_directories", String::new()),
        ("wal_level", "logical".into()),
        ("max_wal_senders", "100".into()),
        ("max_replication_slots", "200".into()),
        ("max_connections", "300".into()),
        ("shared_buffers", "128MB".into()),
        // A killed server leaves nothing in /dev/shm.
        ("dynamic_shared_memory_type", "mmap".into()),
        ("log_line_prefix", "%m [%p] %d %a ".into()),
        ("fsync", on_off(options.fsync).into()),
        ("full_page_writes", on_off(options.fsync).into()),
    ];
    let ours = ours
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"));
    let tls = options.tls.is_some().then_some(TLS).into_iter().flatten();
    ours.chain(tls.map(ToString::to_string))
        .chain(
            options
                .settings
                .iter()
                .map(|(key, value)| format!("{key}={value}")),
        )
        .collect()
}

fn spawn(bin: &Path, data: &Path, settings: &[String], log: &Path) -> Result<Process> {
    let mut command = Command::new(bin.join("postgres"));
    command
        .arg("-D")
        .arg(data)
        .args(settings.iter().flat_map(|s| ["-c", s.as_str()]));
    Process::spawn_postgres(user(), &command, log)
}

/// The programs where the user that PostgreSQL runs as can reach them: copied when root fetched them into its own home.
async fn enterable(bin: PathBuf) -> Result<PathBuf> {
    let bin = bin.canonicalize().unwrap_or(bin);
    let Some(home) = bin.parent().filter(|home| !is_enterable(home)) else {
        return Ok(bin);
    };
    let name = home.file_name().unwrap_or_default().to_string_lossy();
    let run = Some(run_directory()).filter(|run| is_enterable(run));
    let place = run.unwrap_or_else(std::env::temp_dir);
    let copy = place.join(format!("walferry-{name}"));
    if !copy.exists() {
        let making = place.join(crate::unique(&format!("walferry-{name}-new")));
        copy_tree(home, &making).await?;
        rename_unless_there(&making, &copy);
    }
    Ok(copy.join("bin"))
}

/// A new cluster, copied from a template that the first start of this version makes: ten times faster than initdb.
async fn create_cluster(bin: &Path, data: &Path) -> Result<()> {
    let templates = run_directory();
    if !is_enterable(&templates) {
        return initdb(bin, data).await;
    }
    let version = bin
        .parent()
        .and_then(Path::file_name)
        .unwrap_or_default()
        .to_string_lossy();
    let template = templates.join(format!("template-postgres-{version}"));
    if !template.exists() {
        let making = templates.join(format!(
            "template-postgres-{version}-{}",
            crate::unique("new")
        ));
        initdb(bin, &making).await?;
        rename_unless_there(&making, &template);
    }
    copy_tree(&template, data).await
}

async fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let mut copy = Command::new("cp");
    process::run(None, copy.arg("-a").arg("--").arg(from).arg(to)).await
}

/// Another process may have been faster: then what we made goes.
fn rename_unless_there(made: &Path, name: &Path) {
    if std::fs::rename(made, name).is_err() {
        let _ = std::fs::remove_dir_all(made);
    }
}

async fn initdb(bin: &Path, data: &Path) -> Result<()> {
    std::fs::create_dir_all(data).map_err(Error::io(format!("creating {}", data.display())))?;
    if let Some(user) = user() {
        process::run(
            None,
            Command::new("chown").arg(format!("{user}:")).arg(data),
        )
        .await?;
    }
    let mut initdb = Command::new(bin.join("initdb"));
    initdb
        .args([
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-locale",
            "--no-sync",
            "-D",
        ])
        .arg(data);
    process::run(user(), &initdb).await
}

fn write_hba(data: &Path, lines: &[String]) -> Result<()> {
    let trust = [
        "host all all 127.0.0.1/32 trust",
        "host replication all 127.0.0.1/32 trust",
    ];
    let lines: Vec<_> = lines.iter().map(String::as_str).chain(trust).collect();
    let hba = data.join("pg_hba.conf");
    std::fs::write(&hba, lines.join("\n") + "\n")
        .map_err(Error::io(format!("writing {}", hba.display())))
}

/// Copies what TLS needs into the data directory: PostgreSQL takes only a key that is its user's alone.
async fn install(tls: &ServerTls, data: &Path) -> Result<()> {
    let files = [
        (&tls.issued.certificate, "server.pem"),
        (&tls.issued.key, "server-key.pem"),
        (&tls.authority, "authority.pem"),
    ];
    for (file, name) in files {
        let mut install = Command::new("install");
        install.args(["-m", "600"]);
        if let Some(user) = user() {
            install.args(["-o", user]);
        }
        process::run(None, install.arg(file).arg(data.join(name))).await?;
    }
    Ok(())
}

/// Whether the user that PostgreSQL runs as can reach a directory: a clone below `/root` it cannot.
fn is_enterable(directory: &Path) -> bool {
    let enters = |d: &Path| std::fs::metadata(d).is_ok_and(|m| m.permissions().mode() & 0o001 != 0);
    user().is_none() || directory.ancestors().all(enters)
}

fn directory_for_postgres() -> Result<Directory> {
    Directory::create(&std::env::temp_dir().join(crate::unique("walferry-postgres")))
}
