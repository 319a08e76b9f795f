//! All three connections with TLS, to servers of a private authority, and what an operator reads when one is not right.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use bson::{Document, doc};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use walferry_harness::{
    Authority, Issued, Kafka, KafkaOptions, KafkaTls, Mongo, MongoOptions, PATIENCE, Postgres,
    PostgresOptions, Process, Signal, Stack, eventually, fresh_directory, unique,
};

use crate::site::{Said, binary, said};

const USER: &str = "ferry";
/// Of all three servers; nothing that is written anywhere may hold it.
const PASSWORD: &str = "s3nt1nel";
/// A client of a server that asks for a certificate and a password.
const HBA: [&str; 2] = [
    "hostssl all ferry 127.0.0.1/32 scram-sha-256 clientcert=verify-full",
    "host all ferry 127.0.0.1/32 reject",
];

/// Servers that speak TLS as `localhost`, and the files of their clients.
struct Servers {
    postgres: Postgres,
    kafka: Kafka,
    mongo: Mongo,
    authority: Authority,
    /// An authority that issued nothing.
    stranger: PathBuf,
    client: Issued,
}

/// A database of its own with a configuration whose connections can be changed one at a time.
struct Ferry<'a> {
    servers: &'a Servers,
    name: String,
    sql: tokio_postgres::Client,
    documents: mongodb::Collection<Document>,
    directory: TempDir,
    /// `url` of `[source]`
    source: String,
    /// `brokers` of `[kafka]`
    brokers: String,
    /// `properties` of `[kafka]`
    properties: Vec<(&'static str, String)>,
    /// `url` of `[sink]`
    sink: String,
}

// === impl Servers ===

impl Servers {
    async fn shared() -> &'static Self {
        static SHARED: OnceCell<Servers> = OnceCell::const_new();
        SHARED
            .get_or_init(async || Self::start().await.unwrap())
            .await
    }

    async fn start() -> walferry_harness::Result<Self> {
        let root = fresh_directory("tls")?.keep();
        let authority = Authority::new(&root, "authority")?;
        let tls = authority.server(&["localhost"])?;
        let postgres = PostgresOptions {
            hba: HBA.map(ToOwned::to_owned).to_vec(),
            tls: Some(tls.clone()),
            ..PostgresOptions::default()
        };
        let kafka = kafka_options(KafkaTls {
            server: tls.clone(),
            user: USER.into(),
            password: PASSWORD.into(),
        });
        let mongo = MongoOptions {
            tls: Some(tls),
            ..MongoOptions::default()
        };
        let (postgres, kafka, mongo) = tokio::try_join!(
            Box::pin(Postgres::start_with(&root, postgres)),
            Box::pin(Kafka::start_with(&root, kafka)),
            Box::pin(Mongo::start_with(&root, mongo)),
        )?;
        let role = format!("create role {USER} superuser login password '{PASSWORD}'");
        postgres
            .connect("postgres")
            .await?
            .batch_execute(&role)
            .await?;
        let user = doc! { "createUser": USER, "pwd": PASSWORD, "roles": ["root"] };
        mongo
            .client()
            .await?
            .database("admin")
            .run_command(user)
            .await?;
        Ok(Self {
            postgres,
            kafka,
            mongo,
            stranger: Authority::new(&root, "stranger")?.file().to_owned(),
            client: authority.client(USER)?,
            authority,
        })
    }
}

fn kafka_options(tls: KafkaTls) -> KafkaOptions {
    KafkaOptions {
        tls: Some(tls),
        ..KafkaOptions::default()
    }
}

// === impl Ferry ===

impl<'a> Ferry<'a> {
    async fn new(name: &str) -> Ferry<'a> {
        let servers = Servers::shared().await;
        let name = unique(name);
        let everywhere = servers.postgres.connect("postgres").await.unwrap();
        everywhere
            .batch_execute(&format!("create database {name}"))
            .await
            .unwrap();
        let sql = servers.postgres.connect(&name).await.unwrap();
        let schema = "create table t (id int primary key); create publication p for all tables";
        sql.batch_execute(schema).await.unwrap();
        let mongo = servers.mongo.client().await.unwrap().database(&name);
        let mut ferry = Self {
            servers,
            sql,
            documents: mongo.collection("t"),
            directory: tempfile::tempdir().unwrap(),
            source: String::new(),
            brokers: servers.kafka.tls_brokers(),
            properties: Vec::new(),
            sink: String::new(),
            name,
        };
        ferry.source_at("localhost", servers.authority.file());
        ferry.sink_at("localhost", servers.authority.file());
        ferry.certified(servers.authority.file());
        ferry
    }

    /// PostgreSQL by this name, trusting this authority.
    fn source_at(&mut self, host: &str, authority: &Path) {
        let Issued {
            certificate, key, ..
        } = &self.servers.client;
        self.source = format!(
            "postgres://{USER}:{PASSWORD}@{host}:{}/{}?sslmode=verify-full&sslrootcert={}&sslcert={}&sslkey={}",
            self.servers.postgres.port(),
            self.name,
            authority.display(),
            certificate.display(),
            key.display(),
        );
    }

    /// MongoDB by this name, trusting this authority.
    fn sink_at(&mut self, host: &str, authority: &Path) {
        self.sink = format!(
            "mongodb://{USER}:{PASSWORD}@{host}:{}/?directConnection=true&serverSelectionTimeoutMS=2000\
             &tls=true&tlsCAFile={}&tlsCertificateKeyFile={}",
            self.servers.mongo.port(),
            authority.display(),
            self.servers.client.both.display(),
        );
    }

    /// Kafka by a certificate.
    fn certified(&mut self, authority: &Path) {
        let Issued {
            certificate, key, ..
        } = &self.servers.client;
        self.properties = vec![
            ("security.protocol", "SSL".into()),
            ("ssl.ca.location", authority.display().to_string()),
            (
                "ssl.certificate.location",
                certificate.display().to_string(),
            ),
            ("ssl.key.location", key.display().to_string()),
        ];
    }

    /// Kafka by user and password; the password comes from the environment.
    fn by_password(&mut self, mechanism: &str) {
        self.brokers = self.servers.kafka.sasl_brokers();
        let authority = self.servers.authority.file().display().to_string();
        self.properties = vec![
            ("security.protocol", "SASL_SSL".into()),
            ("ssl.ca.location", authority),
            ("sasl.mechanism", mechanism.into()),
            ("sasl.username", USER.into()),
        ];
    }

    /// The binary with the configuration of this moment.
    fn command(&self, mode: &str, arguments: &[&str]) -> Command {
        let Self {
            name,
            source,
            brokers,
            sink,
            ..
        } = self;
        let mut config = format!(
            "[source]\nurl = {source:?}\nslot = {name:?}\npublication = \"p\"\n\
             [sink]\nurl = {sink:?}\ndatabase = {name:?}\n\
             [kafka]\nbrokers = {brokers:?}\nprefix = {name:?}\n[kafka.properties]\n"
        );
        for (property, value) in &self.properties {
            writeln!(config, "{property:?} = {value:?}").unwrap();
        }
        writeln!(config, "[[table]]\nname = \"public.*\"\nmode = {mode:?}").unwrap();
        let file = self.directory.path().join("walferry.toml");
        std::fs::write(&file, config).unwrap();
        let mut command = binary();
        command.args(arguments).arg("--config").arg(file);
        command
    }

    /// Runs the daemon, with all that it can log, until a new row is in MongoDB: what it wrote.
    async fn ferry_a_row(&self, id: i32, variables: &[(&str, &str)], arguments: &[&str]) -> String {
        let log = self.directory.path().join(unique("log"));
        let mut command = self.command("stream", &[&["run", "-vv"], arguments].concat());
        command
            .env("RUST_LOG", "trace")
            .envs(variables.iter().copied());
        let daemon = Process::spawn(&command, &log).unwrap();
        let insert = format!("insert into t values ({id})");
        self.sql.batch_execute(&insert).await.unwrap();
        let arrived = eventually(PATIENCE, "the row to arrive", async || {
            if let Err(ended) = daemon.check_running() {
                return Ok(Err(ended));
            }
            let found = self.documents.find_one(doc! { "_id": id }).await;
            found
                .map_err(|error| error.to_string())?
                .map(|_| Ok(()))
                .ok_or("not there".to_owned())
        });
        if let Err(error) = arrived.await.and_then(|ended| ended) {
            panic!("{error}\n{}", daemon.log_tail());
        }
        daemon.stop(Signal::TERM, PATIENCE).await.unwrap();
        std::fs::read_to_string(&log).unwrap()
    }

    /// What a batch load says that must not succeed; it needs PostgreSQL and MongoDB, no Kafka.
    async fn refused_load(&self) -> String {
        refused(self.command("batch", &["backfill"])).await
    }

    /// Starts the daemon and waits until it says all this; whether it goes on trying.
    async fn says_while_running(&self, parts: &[&str]) -> bool {
        let log = self.directory.path().join(unique("log"));
        let daemon = Process::spawn(&self.command("stream", &["run"]), &log).unwrap();
        let said = || std::fs::read_to_string(&log).unwrap();
        let told = eventually(PATIENCE, "it to say what is wrong", async || {
            let said = said();
            let missing = parts.iter().find(|part| !said.contains(**part));
            missing.map_or(Ok(()), |part| Err(format!("{part:?} is not in:\n{said}")))
        });
        told.await.unwrap();
        assert!(!said().contains(PASSWORD), "{}", said());
        // Whoever ends does so right after.
        tokio::time::sleep(Duration::from_secs(1)).await;
        daemon.status().is_none()
    }
}

/// What a command says that must end with exit code 1.
async fn refused(command: Command) -> String {
    let Said { code, err, .. } = tokio::time::timeout(PATIENCE, said(command))
        .await
        .expect("it to end");
    assert_eq!(code, Some(1), "{err}");
    assert!(!err.contains(PASSWORD), "{err}");
    err
}

#[track_caller]
fn says(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in:\n{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_goes_the_whole_way_over_tls_by_certificate_and_by_password() {
    let mut ferry = Ferry::new("way").await;
    ferry.ferry_a_row(1, &[], &[]).await;
    let password = [("WALFERRY__KAFKA__PROPERTIES__SASL_PASSWORD", PASSWORD)];
    for (id, mechanism) in [(2, "SCRAM-SHA-256"), (3, "PLAIN")] {
        ferry.by_password(mechanism);
        ferry.ferry_a_row(id, &password, &[]).await;
    }
    let file = ferry.directory.path().join("password");
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    let file = file.display().to_string();
    let password = [("WALFERRY__KAFKA__SASL_PASSWORD_FILE", &*file)];
    let log = ferry.ferry_a_row(4, &password, &[]).await;
    assert!(!log.contains(PASSWORD));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_being_renewed_is_waited_for_and_a_start_with_half_of_it_ends() {
    let mut ferry = Ferry::new("renewed").await;
    let servers = ferry.servers;
    let (client, renewed) = (
        &servers.client,
        servers.authority.client_again(USER).unwrap(),
    );
    let place = |file: &Path| file.display().to_string();
    let own = |name: &str| {
        let file = |kind| ferry.directory.path().join(format!("{name}-{kind}.pem"));
        let (certificate, key) = (file("certificate"), file("key"));
        std::fs::copy(&client.certificate, &certificate).unwrap();
        std::fs::copy(&client.key, &key).unwrap();
        (certificate, key)
    };
    let (source, log) = (own("source"), own("log"));
    ferry.source = ferry
        .source
        .replace(&place(&client.certificate), &place(&source.0))
        .replace(&place(&client.key), &place(&source.1));
    ferry.properties.truncate(2);
    ferry.properties.extend([
        ("ssl.certificate.location", place(&log.0)),
        ("ssl.key.location", place(&log.1)),
    ]);

    let written = ferry.directory.path().join("log");
    let daemon = Process::spawn(&ferry.command("stream", &["run"]), &written).unwrap();
    let arrives = async |id: i32| {
        let insert = format!("insert into t values ({id})");
        ferry.sql.batch_execute(&insert).await.unwrap();
        let arrived = eventually(PATIENCE, "the row to arrive", async || {
            let found = ferry.documents.find_one(doc! { "_id": id }).await;
            found.unwrap().map(drop).ok_or("not there")
        });
        arrived
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", daemon.log_tail()));
    };
    arrives(1).await;
    for (id, (certificate, key), wrong) in [
        (2, source, "sslcert and sslkey of the source's URL"),
        (3, log, "key values mismatch"),
    ] {
        std::fs::copy(&renewed.key, &key).unwrap();
        // A new term: both connections are made anew.
        let connections = "select pg_terminate_backend(pid) from pg_stat_activity
                           where usename = $1 and datname = current_database()";
        ferry.sql.execute(connections, &[&USER]).await.unwrap();
        let tried = eventually(PATIENCE, "it to try again", async || {
            let said = std::fs::read_to_string(&written).unwrap();
            let is_tried = |it: &str| it.contains("trying again") && it.contains(wrong);
            let is_there = said.lines().any(is_tried);
            if is_there { Ok(()) } else { Err(said) }
        });
        tried.await.unwrap();
        let another = refused(ferry.command("stream", &["run"])).await;
        says(&another, &[wrong]);
        std::fs::copy(&renewed.certificate, &certificate).unwrap();
        arrives(id).await;
    }
    let stopped = daemon.stop(Signal::TERM, PATIENCE).await.unwrap();
    assert!(stopped.success(), "{}", daemon.log_tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsafe_source_is_refused_with_what_to_do() {
    let mut ferry = Ferry::new("unsafe_source").await;
    let servers = ferry.servers;
    ferry.source_at("127.0.0.1", servers.authority.file());
    let wrong_name = [
        "securing the connection to PostgreSQL at 127.0.0.1",
        "is for localhost, not for 127.0.0.1",
    ];
    says(&ferry.refused_load().await, &wrong_name);
    ferry.source_at("localhost", &servers.stranger);
    says(
        &ferry.refused_load().await,
        &["is not trusted", "sslrootcert"],
    );
    ferry.source = Stack::shared().await.unwrap().postgres.url() + "?sslmode=require";
    says(
        &ferry.refused_load().await,
        &["offers no TLS, as sslmode=require asks", "ssl = on"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsafe_target_is_refused_with_what_to_do() {
    let mut ferry = Ferry::new("unsafe_target").await;
    let servers = ferry.servers;
    let authority = servers.authority.file();
    ferry.sink_at("127.0.0.1", authority);
    let wrong_name = [
        "not valid for name \"127.0.0.1\"",
        "DnsName(\"localhost\")",
        "tlsCAFile",
    ];
    says(&ferry.refused_load().await, &wrong_name);
    ferry.sink_at("localhost", &servers.stranger);
    says(
        &ferry.refused_load().await,
        &["is not trusted (UnknownIssuer)", "tlsCAFile"],
    );
    ferry.sink_at("localhost", Path::new("/nowhere.pem"));
    says(
        &ferry.refused_load().await,
        &["tlsCAFile must be a PEM file", "/nowhere.pem"],
    );
    ferry.sink_at("localhost", authority);
    let (without_identity, _) = ferry.sink.split_once("&tlsCertificateKeyFile").unwrap();
    ferry.sink = without_identity.to_owned();
    says(
        &ferry.refused_load().await,
        &[
            "closes the connection where TLS begins",
            "tlsCertificateKeyFile",
        ],
    );
    let plain = Stack::shared().await.unwrap().mongo.port();
    ferry.sink = format!("mongodb://127.0.0.1:{plain}/?tls=true&serverSelectionTimeoutMS=2000");
    says(
        &ferry.refused_load().await,
        &[
            "closes the connection where TLS begins",
            "leave out tls=true",
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsafe_log_is_waited_for_and_a_wrong_password_is_not() {
    let servers = Servers::shared().await;
    let mut wrong_name = Ferry::new("log_name").await;
    wrong_name.brokers = servers
        .kafka
        .tls_brokers()
        .replace("localhost", "127.0.0.1");
    let mut stranger = Ferry::new("log_stranger").await;
    stranger.certified(&servers.stranger);
    let mut anonymous = Ferry::new("log_anonymous").await;
    anonymous.properties.truncate(2);
    let mut plain = Ferry::new("log_plain").await;
    plain.brokers = servers.kafka.brokers();
    let mut password = Ferry::new("log_password").await;
    password.by_password("SCRAM-SHA-256");
    password.properties.push(("sasl.password", "wr0ng".into()));

    let unverified = [
        "TLS fails: ",
        "broker certificate could not be verified",
        "ssl.ca.location",
    ];
    let unknown = ["TLS fails: ", "bad certificate", "ssl.certificate.location"];
    let without = ["TLS fails: ", "connecting to a PLAINTEXT broker listener?"];
    let denied = [
        "error: kafka refuses access",
        "check the credentials (sasl.username",
    ];
    let go_on = tokio::join!(
        wrong_name.says_while_running(&unverified),
        stranger.says_while_running(&unverified),
        anonymous.says_while_running(&unknown),
        plain.says_while_running(&without),
        password.says_while_running(&denied),
    );
    assert_eq!(go_on, (true, true, true, true, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_certificates_are_waited_for() {
    let servers = Servers::shared().await;
    let root = fresh_directory("tls-expired").unwrap();
    // Not earlier than they have started: mongod does not start with a certificate that has expired.
    let started_by = SystemTime::now() + Duration::from_secs(40);
    let old = servers
        .authority
        .server_until(&["localhost"], started_by)
        .unwrap();
    let kafka = kafka_options(KafkaTls {
        server: old.clone(),
        user: USER.into(),
        password: PASSWORD.into(),
    });
    let postgres = PostgresOptions {
        tls: Some(old.clone()),
        ..PostgresOptions::default()
    };
    let mongo = MongoOptions {
        tls: Some(old),
        ..MongoOptions::default()
    };
    let (postgres, kafka, mongo) = tokio::try_join!(
        Box::pin(Postgres::start_with(root.path(), postgres)),
        Box::pin(Kafka::start_with(root.path(), kafka)),
        Box::pin(Mongo::start_with(root.path(), mongo)),
    )
    .unwrap();
    let left = started_by
        .duration_since(SystemTime::now())
        .unwrap_or_default();
    tokio::time::sleep(left + Duration::from_secs(1)).await;
    let elsewhere = |url: &str, from: u16, to: u16| url.replace(&from.to_string(), &to.to_string());
    let mut source = Ferry::new("expired_source").await;
    source.source = elsewhere(&source.source, servers.postgres.port(), postgres.port());
    let mut log = Ferry::new("expired_log").await;
    log.brokers = kafka.tls_brokers();
    let mut target = Ferry::new("expired_target").await;
    target.sink = elsewhere(&target.sink, servers.mongo.port(), mongo.port());
    let go_on = tokio::join!(
        source.says_while_running(&["trying again", "has expired: renew it there"]),
        log.says_while_running(&["trying again", "TLS fails: ", "must be valid now"]),
        target.says_while_running(&["trying again", "is not trusted (certificate expired"]),
    );
    assert_eq!(go_on, (true, true, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_ever_writes_a_secret() {
    let mut ferry = Ferry::new("secrets").await;
    let password = [("WALFERRY__KAFKA__PROPERTIES__SASL_PASSWORD", PASSWORD)];
    ferry.by_password("SCRAM-SHA-256");
    // librdkafka tells all it has.
    ferry.properties.push(("debug", "all".into()));
    let mut written = vec![
        ferry.ferry_a_row(1, &password, &[]).await,
        ferry
            .ferry_a_row(2, &password, &["--log-format", "json"])
            .await,
    ];
    for arguments in [&["version"][..], &["backfill"], &["verify"], &["run"]] {
        for more in [&[][..], &["--json"], &["--log-format", "json"]] {
            // Whatever works, and whatever does not: a password that is the wrong one is still a secret.
            for (right, wrong) in [
                ("", ""),
                ("@localhost", "x@localhost"),
                ("//ferry", "//nobody"),
            ] {
                let arguments = [arguments, more, &["-vv"]].concat();
                if arguments[0] == "run" && right.is_empty() {
                    continue;
                }
                let mut command = ferry.command("batch", &arguments);
                let urls = [("SOURCE", &ferry.source), ("SINK", &ferry.sink)];
                for (section, url) in urls {
                    command.env(
                        format!("WALFERRY__{section}__URL"),
                        url.replace(right, wrong),
                    );
                }
                command.env("RUST_LOG", "trace").envs(password);
                let Said { out, err, .. } = said(command).await;
                written.push(out + &err);
            }
        }
    }
    for text in written {
        let line = text.lines().find(|line| line.contains(PASSWORD));
        assert_eq!(line, None);
    }
}

#[tokio::test]
async fn a_configuration_that_is_no_good_is_told_without_its_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let config = "[source]\nurl_file = \"url\"\nslot = \"s\"\npublication = \"p\"\n\
                  [sink]\nurl = \"mongodb://u@h\"\ndatabase = \"d\"\n\
                  [[table]]\nname = \"public.*\"\nmode = \"batch\"\n";
    std::fs::write(directory.path().join("walferry.toml"), config).unwrap();
    for url in [
        format!("postgres://u:{PASSWORD}@h:port/d"),
        format!("postgres://u:{PASSWORD}@h/d?sslmode=safe"),
        format!("postgres://u@h/d?sslmode=require&pasword={PASSWORD}"),
        format!("postgres://u@h/d?connect_timeout={PASSWORD}"),
        format!("postgres://:{PASSWORD}@/d"),
        PASSWORD.to_owned(),
    ] {
        std::fs::write(directory.path().join("url"), &url).unwrap();
        let mut backfill = binary();
        backfill
            .args(["backfill", "-vv"])
            .current_dir(&directory)
            .env("RUST_LOG", "trace");
        let Said { code, out, err } = said(backfill).await;
        assert!(matches!(code, Some(1 | 2)), "{url}: {err}");
        assert!(!(out + &err).contains(PASSWORD), "{url}: {err}");
    }
}
