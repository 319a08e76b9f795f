//! What a running daemon shows: status, metrics, the page, and the command that asks for them.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;
use walferry_harness::{
    Database, Kafka, Process, Signal, Stack, eventually, free_port, fresh_directory, project_root,
};

use crate::daemon::{PATIENCE, Pipeline, Route};

/// Debian's name for Chromium.
const BROWSER: &str = "chromium";
const SCHEMA: &str = "create table t (id int primary key, v text)";

/// An answer: the status code, the headers' text and the body.
pub(crate) struct Answer {
    pub(crate) code: u16,
    policy: String,
    pub(crate) body: String,
}

/// A pipeline that listens, and where.
pub(crate) async fn listening(name: &str) -> (Pipeline, u16) {
    let pipeline = Pipeline::new(name, SCHEMA, "public.*").await;
    let port = listen(&pipeline);
    (pipeline, port)
}

fn listen(pipeline: &Pipeline) -> u16 {
    let port = free_port().unwrap();
    let section = format!("[admin]\nlisten = \"127.0.0.1:{port}\"\n");
    append(pipeline, &section);
    port
}

pub(crate) fn append(pipeline: &Pipeline, text: &str) {
    let file = std::fs::OpenOptions::new()
        .append(true)
        .open(pipeline.config());
    file.unwrap().write_all(text.as_bytes()).unwrap();
}

pub(crate) async fn get(port: u16, path: &str) -> Result<Answer, String> {
    let url = format!("http://127.0.0.1:{port}{path}");
    let asked = tokio::task::spawn_blocking(move || {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .build()
            .new_agent();
        let mut answer = agent.get(url).call().map_err(|error| error.to_string())?;
        let policy = answer.headers().get("content-security-policy");
        Ok(Answer {
            code: answer.status().as_u16(),
            policy: policy
                .map(|it| it.to_str().unwrap().to_owned())
                .unwrap_or_default(),
            body: answer
                .body_mut()
                .read_to_string()
                .map_err(|error| error.to_string())?,
        })
    });
    asked.await.unwrap()
}

pub(crate) async fn status(port: u16) -> Result<Value, String> {
    let answer = get(port, "/status").await?;
    serde_json::from_str(&answer.body).map_err(|error| error.to_string())
}

/// What Prometheus's own check has against an exposition; nothing where that is not installed.
fn complaints(metrics: &str) -> String {
    let Ok(checked) = Command::new(project_root().join(".tools/promtool/promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    else {
        return String::new();
    };
    checked
        .stdin
        .as_ref()
        .unwrap()
        .write_all(metrics.as_bytes())
        .unwrap();
    let said = checked.wait_with_output().unwrap();
    String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned()
}

pub(crate) async fn said(pipeline: &Pipeline, arguments: &[&str]) -> crate::site::Said {
    crate::site::said(pipeline.command(arguments)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_says_what_it_does_to_people_to_scripts_and_to_prometheus() {
    let (pipeline, port) = listening("shown").await;
    let daemon = pipeline.start();
    pipeline
        .sql
        .batch_execute("insert into t select i, 'x' from generate_series(1, 7) i")
        .await
        .unwrap();
    pipeline.equal(&["t"]).await;
    pipeline
        .sql
        .batch_execute("update t set v = 'y' where id < 4")
        .await
        .unwrap();
    pipeline.equal(&["t"]).await;
    // What the slot keeps is measured beside the stream, and rates take a second.
    eventually(
        PATIENCE,
        "everything to be applied and measured",
        async || {
            let status = status(port).await?;
            let is_owned = status["source"]["is_active"] == true;
            let is_done = status["state"] == "live" && status["lag"]["seconds"] == 0.0 && is_owned;
            if is_done {
                Ok(())
            } else {
                Err(status.to_string())
            }
        },
    )
    .await
    .unwrap();

    let shown = status(port).await.unwrap();
    assert_eq!(shown["sink"]["tables"][0]["table"], "public.t", "{shown}");
    assert!(
        shown["sink"]["tables"][0]["rows"].as_u64().unwrap() >= 3,
        "{shown}"
    );
    assert!(shown["source"]["is_active"].as_bool().unwrap(), "{shown}");
    assert!(
        shown["reader"]["transactions"].as_u64().unwrap() >= 1,
        "{shown}"
    );

    let asked = said(&pipeline, &["status", "--json"]).await;
    assert_eq!(asked.code, Some(0), "{}", asked.err);
    let asked: Value = serde_json::from_str(&asked.out).unwrap();
    assert_eq!(asked["sink"]["rows"], shown["sink"]["rows"]);
    let people = said(&pipeline, &["status"]).await;
    assert!(people.out.contains(": live, up "), "{}", people.out);
    assert!(people.out.contains("public.t"), "{}", people.out);
    let visible = "from commit to visible: half of the groups within ";
    assert!(people.out.contains(visible), "{}", people.out);
    assert!(!people.out.contains('\x1b'), "{}", people.out);

    let metrics = get(port, "/metrics").await.unwrap().body;
    let rows = shown["sink"]["rows"].as_u64().unwrap();
    for line in [
        format!("walferry_sink_table_rows_total{{table=\"public.t\"}} {rows}\n"),
        "walferry_pipeline_state{state=\"live\"} 1\n".to_owned(),
        "walferry_pipeline_lag_seconds 0\n".to_owned(),
        "# TYPE walferry_sink_latency_seconds histogram\n".to_owned(),
    ] {
        assert!(metrics.contains(&line), "{line} in\n{metrics}");
    }
    assert_eq!(complaints(&metrics), "");

    for (path, code) in [("/live", 200), ("/ready", 200), ("/nothing", 404)] {
        assert_eq!(get(port, path).await.unwrap().code, code, "{path}");
    }
    let page = get(port, "/").await.unwrap();
    assert!(
        page.body.contains("<title>walferry</title>"),
        "{}",
        page.body
    );
    assert!(
        page.policy.starts_with("default-src 'none'"),
        "{}",
        page.policy
    );
    assert!(
        !page.body.contains("http"),
        "the page loads something from elsewhere"
    );

    assert!(daemon.stop().await.success());
    let gone = said(&pipeline, &["status"]).await;
    assert_eq!(gone.code, Some(1));
    assert!(
        gone.err.contains("see that `walferry run` is running"),
        "{}",
        gone.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_the_pipeline_in_a_browser() {
    if !has_browser() {
        return;
    }
    let (pipeline, port) = listening("page").await;
    let daemon = pipeline.start();
    pipeline
        .sql
        .batch_execute("insert into t select i, 'x' from generate_series(1, 1234) i")
        .await
        .unwrap();
    pipeline.equal(&["t"]).await;
    let shown = in_browser(port).await;
    for text in [
        ">live<",
        ">public.t<",
        ">1,234<",
        ">PostgreSQL<",
        ">Kafka<",
        ">MongoDB<",
        "id=\"to-do\" hidden",
    ] {
        assert!(shown.contains(text), "{text} in\n{shown}");
    }
    assert!(daemon.stop().await.success());
}

pub(crate) fn has_browser() -> bool {
    let is_here = Command::new(BROWSER).arg("--version").output().is_ok();
    if !is_here {
        let is_ci = std::env::var_os("CI").is_some();
        assert!(!is_ci, "{BROWSER} is missing: `make test` installs it");
        eprintln!("skipped: {BROWSER} is not installed");
    }
    is_here
}

/// The document that a browser has made of the page, its script and the status after a few seconds.
pub(crate) async fn in_browser(port: u16) -> String {
    let profile = tempfile::tempdir().unwrap();
    let mut browser = Command::new(BROWSER);
    browser
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--virtual-time-budget=3000",
            "--dump-dom",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("http://127.0.0.1:{port}/"));
    crate::site::said(browser).await.out
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_sink_whose_reader_is_gone_says_so_until_it_is_back() {
    if Route::chosen() == Route::Direct {
        return;
    }
    let (pipeline, port) = listening("readerless").await;
    let reader = || {
        let mut reader = pipeline.command(&["run", "--role", "reader"]);
        reader.env("WALFERRY__ADMIN__LISTEN", "127.0.0.1:0");
        let log = pipeline.config().with_file_name("reader.log");
        Process::spawn(&reader, &log).unwrap()
    };
    let first = reader();
    let sink = pipeline.spawn("sink.log", &["run", "--role", "sink"]);
    let insert = "insert into t select coalesce(max(id), 0) + 1, 'x' from t";
    pipeline.sql.batch_execute(insert).await.unwrap();
    pipeline.equal(&["t"]).await;
    first.kill();
    let lags = async |stage: Value, least: f64| {
        let attempt = async || match status(port).await? {
            status if status["lag"]["stage"] != stage => Err(status.to_string()),
            status if status["lag"]["seconds"].as_f64().unwrap_or(0.0) < least => {
                Err(status.to_string())
            }
            status => Ok(status["lag"]["seconds"].as_f64()),
        };
        eventually(PATIENCE, "the lag", attempt).await.unwrap()
    };
    let at_first = lags("reader".into(), 20.0).await.unwrap();
    lags("reader".into(), at_first + 1.0).await;
    let people = said(&pipeline, &["status"]).await;
    assert_eq!(people.code, Some(0), "{}", people.err);
    for part in ["; the reader is what is waited for", "nothing comes"] {
        assert!(people.out.contains(part), "{part} in {}", people.out);
    }
    if has_browser() {
        let shown = in_browser(port).await;
        assert!(shown.contains("not even a heartbeat"), "{shown}");
    }
    let second = reader();
    assert_eq!(lags(Value::Null, 0.0).await, None);
    for process in [second, sink] {
        let ended = process.stop(Signal::TERM, PATIENCE).await.unwrap();
        assert!(ended.success(), "{}", process.log_tail());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_cannot_reach_mongodb_is_alive_not_ready_and_says_why() {
    let (pipeline, port) = listening("unready").await;
    let closed = free_port().unwrap();
    let text = std::fs::read_to_string(pipeline.config()).unwrap();
    let away = format!("mongodb://127.0.0.1:{closed}/?serverSelectionTimeoutMS=300");
    std::fs::write(
        pipeline.config(),
        text.replace(&pipeline.database.mongo_url, &away),
    )
    .unwrap();
    let daemon = pipeline.start();
    eventually(
        PATIENCE,
        "the daemon to say that MongoDB is away",
        async || {
            let status = status(port).await?;
            let error = status["last_error"]["error"].as_str().unwrap_or_default();
            let is_said = status["state"] == "retrying" && error.contains("MongoDB");
            if is_said {
                Ok(())
            } else {
                Err(status.to_string())
            }
        },
    )
    .await
    .unwrap();
    assert_eq!(get(port, "/live").await.unwrap().code, 200);
    let ready = get(port, "/ready").await.unwrap();
    assert_eq!((ready.code, &*ready.body), (503, "retrying\n"));
    let asked = said(&pipeline, &["status"]).await;
    assert_eq!(asked.code, Some(1), "{}", asked.out);
    assert!(asked.out.contains("last error, "), "{}", asked.out);
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_a_named_error_before_anything_is_begun() {
    let (pipeline, port) = listening("taken").await;
    let _held = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let said = said(&pipeline, &["run"]).await;
    assert_eq!(said.code, Some(1), "{}", said.err);
    let named = format!("listening on 127.0.0.1:{port} for status and metrics: choose another");
    assert!(said.err.contains(&named), "{}", said.err);
    let slots = "select count(*) from pg_replication_slots where slot_name = $1";
    let slots = pipeline
        .sql
        .query_one(slots, &[&pipeline.database.name])
        .await
        .unwrap();
    assert_eq!(slots.get::<_, i64>(0), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_without_a_port_says_how_to_get_one() {
    let pipeline = Pipeline::new("silent", SCHEMA, "public.*").await;
    let said = said(&pipeline, &["status"]).await;
    assert_eq!(said.code, Some(1));
    assert!(
        said.err.contains("listen = \"127.0.0.1:9187\""),
        "{}",
        said.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_program_at_the_port_is_named_and_not_followed_elsewhere() {
    let (pipeline, port) = listening("foreign").await;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await;
    let away = axum::response::Redirect::temporary("https://localhost:1/status");
    let router = axum::Router::new().fallback(async move || away.clone());
    tokio::spawn(async move { axum::serve(listener.unwrap(), router).await });
    let said = said(&pipeline, &["status"]).await;
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(
        said.err.contains("another program listens there"),
        "{}",
        said.err
    );
    assert!(!said.err.contains("panicked"), "{}", said.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_hears_of_the_start_the_state_and_the_stop() {
    let pipeline = Pipeline::new("notified", SCHEMA, "public.*").await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let mut command = pipeline.command(&["run"]);
    command.env("NOTIFY_SOCKET", &path);
    let log = directory.path().join("walferry.log");
    let daemon = Process::spawn(&command, &log).unwrap();
    let (socket, told) = crate::reload::told_until(socket, "STATUS=live").await;
    assert_eq!(told[0], "READY=1");
    daemon.stop(Signal::TERM, PATIENCE).await.unwrap();
    let mut buffer = [0; 1_000];
    let length = socket.recv(&mut buffer).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&buffer[..length]).trim(),
        "STOPPING=1"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_that_is_away_shows_until_it_is_back() {
    let root = fresh_directory("kafka_away").unwrap();
    let mut kafka = Kafka::start(root.path()).await.unwrap();
    let stack = Stack::shared().await.unwrap();
    let database = Database {
        brokers: kafka.brokers(),
        ..stack.fresh_database("kafka_away").await.unwrap()
    };
    let pipeline = Pipeline::over(database, SCHEMA, "public.*").await;
    let port = listen(&pipeline);
    let daemon = pipeline.start();
    pipeline
        .sql
        .batch_execute("insert into t values (1, 'x')")
        .await
        .unwrap();
    pipeline.equal(&["t"]).await;
    let until = async |wanted: &str| {
        let attempt = async || match status(port).await {
            Ok(shown) if shown["state"] == wanted => Ok(shown),
            other => Err(format!("{other:?}")),
        };
        eventually(PATIENCE, wanted, attempt).await.unwrap()
    };
    until("live").await;
    kafka.kill().await.unwrap();
    let shown = until("retrying").await;
    let error = shown["last_error"]["error"].as_str().unwrap();
    assert!(error.contains("Kafka has acknowledged nothing"), "{shown}");
    assert_eq!(get(port, "/ready").await.unwrap().code, 503);
    kafka.restart().await.unwrap();
    until("live").await;
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_watches_outlives_a_daemon_that_restarts_and_hears_of_it_once() {
    let (pipeline, port) = listening("watched").await;
    let daemon = pipeline.start();
    let watcher = pipeline.spawn("watch.log", &["status", "--watch"]);
    let says = async |text: &str| {
        let said = || std::fs::read_to_string(watcher.log()).unwrap();
        let attempt = async || said().contains(text).then_some(()).ok_or_else(said);
        let what = format!("the watcher to say {text}");
        eventually(PATIENCE, &what, attempt).await.unwrap();
        said()
    };
    says(": live, up ").await;
    assert!(daemon.stop().await.success());
    let nobody = format!("no daemon answers on 127.0.0.1:{port}, since ");
    says(&nobody).await;
    refuse(port, 3).await;
    std::fs::write(watcher.log(), "").unwrap();
    let daemon = pipeline.start();
    let said = says(": live, up ").await;
    assert!(!said.contains(&nobody), "{said}");
    let ended = watcher.stop(Signal::INT, PATIENCE).await;
    assert_eq!(ended.unwrap().code(), Some(0));
    assert!(daemon.stop().await.success());
}

/// Hangs up on so many callers.
async fn refuse(port: u16, callers: usize) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await;
    let listener = listener.unwrap();
    for _ in 0..callers {
        let call = tokio::time::timeout(PATIENCE, listener.accept()).await;
        drop(call.expect("somebody calls").unwrap());
    }
}
