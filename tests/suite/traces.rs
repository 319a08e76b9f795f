//! OpenTelemetry traces, as a collector gets them.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::Redirect;
use axum::routing::{any, post};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use walferry_harness::{Authority, Process, ServerTls, Signal, eventually};

use crate::daemon::{PATIENCE, Pipeline};
use crate::site::{Site, binary, said};

const SCHEMA: &str = "create table t (id int primary key); insert into t values (0)";

type Requests = Arc<Mutex<Vec<ExportTraceServiceRequest>>>;

/// A collector that keeps what it gets.
struct Collector {
    address: String,
    requests: Requests,
}

/// Takes callers by TLS; those who do not trust it are none.
struct SafeListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for SafeListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.listener.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Requests::default();
        let router = router(&requests);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, requests }
    }

    /// One that is reached by TLS, by this name.
    async fn start_safe(tls: &ServerTls, name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let listener = SafeListener {
            listener,
            acceptor: acceptor(tls),
        };
        let requests = Requests::default();
        let router = router(&requests);
        tokio::spawn(async move { axum::serve(listener, router).await });
        let address = format!("https://{name}:{port}");
        Self { address, requests }
    }

    fn spans(&self) -> Vec<Span> {
        let requests = self.requests.lock().unwrap();
        let resources = requests.iter().flat_map(|it| &it.resource_spans);
        let spans = resources.flat_map(|it| &it.scope_spans);
        spans.flat_map(|it| it.spans.clone()).collect()
    }

    /// The one value of an attribute that every process sends of itself.
    fn service(&self) -> String {
        let requests = self.requests.lock().unwrap();
        let resource = requests[0].resource_spans[0].resource.clone().unwrap();
        let name = resource
            .attributes
            .iter()
            .find(|it| it.key == "service.name");
        text(name.unwrap().value.clone().and_then(|it| it.value))
    }
}

fn router(requests: &Requests) -> Router {
    let keeping = Router::new().route("/v1/traces", post(keep));
    keeping.with_state(Arc::clone(requests))
}

fn acceptor(tls: &ServerTls) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(&tls.issued.certificate).unwrap();
    let chain = chain.map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&tls.issued.key).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key);
    TlsAcceptor::from(Arc::new(config.unwrap()))
}

async fn keep(State(requests): State<Requests>, body: Bytes) {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    requests.lock().unwrap().push(request);
}

fn text(value: Option<Value>) -> String {
    match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

/// An attribute of a span; empty when it has none of that name.
fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|it| it.key == key);
    found.map_or(String::new(), |it| {
        text(it.value.clone().and_then(|it| it.value))
    })
}

fn has(spans: &[Span], name: &str, attributes: &[(&str, &str)]) -> bool {
    let is_it = |span: &&Span| {
        let is_so = |(key, value): &(&str, &str)| attribute(span, key) == *value;
        span.name == name && attributes.iter().all(is_so)
    };
    spans.iter().any(|span| is_it(&span))
}

/// The daemon, sending its traces somewhere, with its log.
fn start(pipeline: &Pipeline, otlp: &str) -> Process {
    start_with(pipeline, otlp, [])
}

/// The same with more in its environment.
fn start_with<'a>(
    pipeline: &Pipeline,
    otlp: &str,
    more: impl IntoIterator<Item = (&'a str, &'a Path)>,
) -> Process {
    let mut command = pipeline.command(&["run"]);
    command.env_remove("RUST_LOG");
    command.env("WALFERRY__TELEMETRY__OTLP", otlp);
    command.env("WALFERRY__TELEMETRY__LOG", "debug");
    command.env("OTEL_BSP_SCHEDULE_DELAY", "100");
    command.envs(more);
    let log = pipeline.config().with_file_name("walferry.log");
    Process::spawn(&command, &log).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_sees_what_a_daemon_does() {
    let collector = Collector::start().await;
    let pipeline = Pipeline::new("traced", SCHEMA, "public.*").await;
    let daemon = start(&pipeline, &collector.address);
    pipeline.equal(&["t"]).await;
    let three = "insert into t select i from generate_series(1, 3) i";
    pipeline.sql.batch_execute(three).await.unwrap();
    pipeline.equal(&["t"]).await;
    // What was not sent yet is sent at the end.
    let stopped = daemon.stop(Signal::TERM, PATIENCE).await.unwrap();
    assert!(stopped.success(), "{}", pipeline.log());
    let spans = collector.spans();
    assert_eq!(collector.service(), "walferry");
    for (name, attributes) in [
        (
            "connect",
            [("servers", "PostgreSQL"), ("otel.status_code", "")],
        ),
        (
            "connect",
            [("servers", "Kafka, MongoDB"), ("otel.status_code", "")],
        ),
        ("snapshot chunk", [("table", "public.t"), ("rows", "1")]),
        ("apply", [("rows", "3"), ("operations", "3")]),
    ] {
        assert!(
            has(&spans, name, &attributes),
            "{name} {attributes:?} in {spans:#?}"
        );
    }
    let group = spans
        .iter()
        .find(|it| attribute(it, "rows") == "3")
        .unwrap();
    let lsn = |key| {
        attribute(group, key)
            .parse::<walferry_schema::Lsn>()
            .unwrap()
    };
    assert!(lsn("from_lsn") < lsn("to_lsn"), "{group:#?}");
    assert!(
        attribute(group, "committed_at").starts_with("20"),
        "{group:#?}"
    );
    assert!(group.end_time_unix_nano > group.start_time_unix_nano);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_sees_each_table_of_a_load_and_why_a_connection_failed() {
    let collector = Collector::start().await;
    let schema = "create table a (id int primary key); insert into a values (1), (2)";
    let site = Site::new("traced_load", schema, &[("public.*", "batch")]).await;
    let mut load = binary();
    load.args(["backfill", "--config"]).arg(site.config());
    load.env("WALFERRY__TELEMETRY__OTLP", &collector.address);
    assert_eq!(said(load).await.code, Some(0));
    let loaded = [("table", "public.a"), ("rows", "2")];
    let spans = collector.spans();
    assert!(has(&spans, "backfill", &loaded), "{spans:#?}");

    let pipeline = Pipeline::new("traced_away", SCHEMA, "public.*").await;
    let mongo = &pipeline.database.mongo_url;
    let away = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=300";
    pipeline.reconfigure(mongo, away);
    let daemon = start(&pipeline, &collector.address);
    eventually(PATIENCE, "the failed connection", async || {
        let spans = collector.spans();
        let failed = spans
            .iter()
            .find(|it| it.status.as_ref().is_some_and(|it| it.code == 2));
        let message = failed
            .and_then(|it| it.status.clone())
            .unwrap_or_default()
            .message;
        if message.contains("MongoDB") {
            Ok(())
        } else {
            Err(message)
        }
    })
    .await
    .unwrap();
    daemon.stop(Signal::TERM, PATIENCE).await.unwrap();
}

/// The file of the authority that is to be trusted.
const CA_FILE: &str = "WALFERRY__TELEMETRY__CA_FILE";

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_is_reached_by_tls_by_a_named_authority_or_the_systems() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path(), "authority").unwrap();
    let tls = authority.server(&["localhost"]).unwrap();
    // What the system trusts is asked where it says.
    for (name, variable) in [("traced_ca", CA_FILE), ("traced_system", "SSL_CERT_FILE")] {
        let collector = Collector::start_safe(&tls, "localhost").await;
        let pipeline = Pipeline::new(name, SCHEMA, "public.*").await;
        let trusting = [(variable, authority.file())];
        let daemon = start_with(&pipeline, &collector.address, trusting);
        pipeline.equal(&["t"]).await;
        let stopped = daemon.stop(Signal::TERM, PATIENCE).await.unwrap();
        let log = pipeline.log();
        assert!(stopped.success(), "{log}");
        assert!(!log.contains("traces cannot be sent"), "{log}");
        let chunk = [("table", "public.t"), ("rows", "1")];
        let spans = collector.spans();
        assert!(has(&spans, "snapshot chunk", &chunk), "{spans:#?}\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_cannot_be_known_by_its_certificate_costs_one_warning_and_no_change() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path(), "authority").unwrap();
    let stranger = Authority::new(directory.path(), "stranger").unwrap();
    let tls = authority.server(&["localhost"]).unwrap();
    let past = SystemTime::now() - Duration::from_hours(24);
    let expired = authority.server_until(&["localhost"], past).unwrap();
    for (name, tls, host, trusted) in [
        ("stranger", &tls, "localhost", &stranger),
        ("misnamed", &tls, "127.0.0.1", &authority),
        ("expired", &expired, "localhost", &authority),
    ] {
        let collector = Collector::start_safe(tls, host).await;
        let trusting = [(CA_FILE, trusted.file())];
        let log = costs_one_warning(name, &collector.address, &trusting).await;
        let why = "the collector's certificate: ";
        assert!(
            log.contains(why) && log.contains("[telemetry] ca_file"),
            "{log}"
        );
        assert_eq!(collector.spans(), [], "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_silent_or_elsewhere_costs_one_warning_and_no_change() {
    // It takes connections, as far as a kernel does that alone, and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    let elsewhere = pointing_elsewhere().await;
    for (name, otlp) in [
        ("away", "http://127.0.0.1:1"),
        ("silent", &*silent),
        ("elsewhere", &elsewhere),
    ] {
        costs_one_warning(name, otlp, &[]).await;
    }
}

/// The address of a server that sends everybody to a page of its own, as one does where somebody has to sign in.
async fn pointing_elsewhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new()
        .route("/sign-in", any(async || "who are you?"))
        .fallback(any(async || Redirect::to("/sign-in")));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Sees that a daemon whose traces cannot be sent says so once and does everything else; what it logged.
async fn costs_one_warning(name: &str, otlp: &str, more: &[(&str, &Path)]) -> String {
    let pipeline = Pipeline::new(name, SCHEMA, "public.*").await;
    let daemon = start_with(&pipeline, otlp, more.iter().copied());
    pipeline.equal(&["t"]).await;
    for id in 1..20 {
        let insert = format!("insert into t values ({id})");
        pipeline.sql.batch_execute(&insert).await.unwrap();
    }
    pipeline.equal(&["t"]).await;
    let attempts = eventually(PATIENCE, "more than one attempt", async || {
        let log = pipeline.log();
        let attempts = log.matches("traces cannot be sent").count();
        if attempts > 1 { Ok(()) } else { Err(log) }
    });
    attempts.await.unwrap();
    let stopped = daemon.stop(Signal::TERM, PATIENCE).await.unwrap();
    let log = pipeline.log();
    assert!(stopped.success(), "{log}");
    let warnings = log.matches("traces cannot be sent to [telemetry] otlp");
    assert_eq!(warnings.count(), 1, "{log}");
    log
}
