use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, advance, timeout};
use walferry_core::{
    Drifted, Order, Orders, ParkedTable, PipelineState, Spooled, Tasks, Unverified,
};
use walferry_schema::{CommitId, TableName};

use super::Admin;
use super::metrics::{self, METRICS};
use super::server::CONNECTIONS;
use crate::analytics::{Freshness, Incremental};
use crate::apply::ApplyStatus;
use crate::capture::CaptureStatus;
use crate::cli::Cli;
use crate::status::{Board, Parts, Stage, State, Trouble};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");

fn board(sink: ApplyStatus, trouble: Option<Trouble>) -> Board {
    Board::new(parts(sink, trouble))
}

fn parts(sink: ApplyStatus, trouble: Option<Trouble>) -> Parts {
    let reader = CaptureStatus::default();
    let freshness = Freshness {
        failures: 0,
        refreshed_at: Some(1_709_208_000),
        refresh_seconds: Some(2.5),
        incremental: Some(Incremental {
            rules: 3,
            runs: 40,
            waiting_since: Some(1_709_208_000.0),
            ..Incremental::default()
        }),
    };
    Parts {
        pipeline: "slot/\"odd\"".to_owned(),
        role: "both",
        has_kafka: true,
        reader: Some(watch::Sender::new(reader).subscribe()),
        sink: Some(watch::Sender::new(sink).subscribe()),
        log: None,
        trouble: watch::Sender::new(trouble).subscribe(),
        reloaded: watch::Sender::default().subscribe(),
        analytics: Some(watch::Sender::new(freshness).subscribe()),
    }
}

/// docs/metrics.md, as the table of metrics says it.
fn document() -> String {
    let mut text = "# Metrics\n\nWhat `/metrics` shows on the port of `[admin] listen`, in Prometheus's text format. \
                    What is not known is left out.\n\n| metric | kind | meaning |\n|---|---|---|\n"
        .to_owned();
    for metric in &METRICS {
        let (name, kind, help) = (metric.name, metric.kind.name(), metric.help);
        writeln!(text, "| `{name}` | {kind} | {help} |").unwrap();
    }
    text.push_str("\nAlerts over them: [deploy/alerts.yml](deploy/alerts.yml); a Grafana dashboard: [deploy/dashboard.json](deploy/dashboard.json).\n");
    text
}

#[test]
fn the_document_names_every_metric_as_the_code_does() {
    if std::env::var_os("WALFERRY_WRITE_DOCS").is_some() {
        std::fs::write(DOCUMENT, document()).unwrap();
    }
    let written = std::fs::read_to_string(DOCUMENT).unwrap();
    assert!(
        written == document(),
        "docs/metrics.md is not what the code says; WALFERRY_WRITE_DOCS=1 cargo test writes it anew"
    );
}

#[test]
fn every_name_says_what_it_counts_and_in_which_unit() {
    let units = [
        "_total",
        "_seconds",
        "_bytes",
        "_info",
        "_state",
        "_retries",
        "_up",
        "_active",
        "_skips",
        "_tables",
        "_letters",
        "_transactions",
    ];
    for metric in &METRICS {
        let name = metric.name;
        assert!(units.iter().any(|unit| name.ends_with(unit)), "{name}");
        assert_eq!(
            name.ends_with("_total"),
            metric.kind == metrics::Kind::Counter,
            "{name}"
        );
    }
    let names: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), METRICS.len());
}

#[test]
fn what_is_kept_of_transactions_in_progress_is_told_where_it_is_kept_here() {
    let text = |spooled| {
        let read = crate::capture::ReadProgress {
            spooled,
            ..Default::default()
        };
        let reader = CaptureStatus {
            read,
            ..CaptureStatus::default()
        };
        let reader = Some(watch::Sender::new(reader).subscribe());
        let parts = parts(ApplyStatus::default(), None);
        metrics::text(&Board::new(Parts { reader, ..parts }).status())
    };
    let spooled = Spooled {
        transactions: 2,
        bytes: 7_000,
    };
    let (kept, not_kept) = (text(Some(spooled)), text(None));
    assert!(
        kept.contains("walferry_reader_spooled_transactions 2\n"),
        "{kept}"
    );
    assert!(
        kept.contains("walferry_reader_spooled_bytes 7000\n"),
        "{kept}"
    );
    assert!(!not_kept.contains("spooled"), "{not_kept}");
}

#[test]
fn a_label_is_escaped_and_what_is_not_known_is_left_out() {
    let text = metrics::text(&board(ApplyStatus::default(), None).status());
    assert!(
        text.contains(r#"walferry_info{pipeline="slot/\"odd\"","#),
        "{text}"
    );
    assert!(
        !text.contains("walferry_source_retained_wal_bytes"),
        "{text}"
    );
    assert!(
        text.contains("walferry_pipeline_state{state=\"starting\"} 1\n"),
        "{text}"
    );
}

#[test]
fn every_metric_that_an_alert_or_the_dashboard_asks_for_exists() {
    let known: BTreeSet<_> = METRICS.iter().map(|metric| metric.name).collect();
    for file in ["alerts.yml", "dashboard.json"] {
        let path = format!("{}/docs/deploy/{file}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let asked: BTreeSet<_> = words.filter(|word| word.starts_with("walferry_")).collect();
        assert!(asked.len() > 5, "{file}");
        for name in asked {
            let base = name.strip_suffix("_bucket").unwrap_or(name);
            assert!(known.contains(base), "{file}: {name}");
        }
    }
}

#[test]
fn every_alert_has_its_line_in_the_operations_page() {
    let file = |path| {
        std::fs::read_to_string(format!("{}/docs/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    };
    let (alerts, page) = (file("deploy/alerts.yml"), file("operations.md"));
    let names: Vec<_> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(names.len() > 5, "{names:?}");
    for name in names {
        assert!(page.contains(&format!("| `{name}` |")), "{name}");
    }
}

#[test]
fn a_part_that_failed_lately_is_retrying() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let trouble = |at| Trouble {
        part: "sink".to_owned(),
        error: "connecting to MongoDB".to_owned(),
        remedy: String::new(),
        attempts: 3,
        at,
        is_fenced: false,
    };
    let away = board(
        ApplyStatus::default(),
        Some(trouble(now.unwrap().as_secs())),
    );
    assert_eq!(away.state(), State::Retrying);
    assert!(!away.state().is_working());
    let long_ago = board(ApplyStatus::default(), Some(trouble(1)));
    assert_eq!(long_ago.state(), State::Starting);
}

#[test]
fn a_pipeline_with_drift_is_drifted_where_nothing_keeps_it_from_following() {
    let drifted = Drifted {
        table: TableName::new("public", "t"),
        since: 1_000,
        differences: vec!["column c of type int4 was added".to_owned()],
    };
    let sink = ApplyStatus {
        is_applying: true,
        is_live: true,
        state: Some(PipelineState::Live),
        orders: Orders {
            drifted: vec![drifted],
            ..Orders::default()
        },
        ..ApplyStatus::default()
    };
    let sink = watch::Sender::new(sink);
    let lone = Board::new(Parts {
        role: "sink",
        reader: None,
        sink: Some(sink.subscribe()),
        ..parts(ApplyStatus::default(), None)
    });
    assert_eq!(lone.state(), State::Drifted);
    assert!(lone.state().is_working());
    let metrics = metrics::text(&lone.status());
    for line in [
        "walferry_pipeline_state{state=\"drifted\"} 1\n",
        "walferry_pipeline_state{state=\"live\"} 0\n",
        "walferry_sink_drifted_tables 1\n",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    let pause = Order {
        by: "ann@db1".to_owned(),
        at: 0,
        reason: None,
    };
    sink.send_modify(|it| it.orders.pause = Some(pause));
    assert_eq!(lone.state(), State::Paused);
    assert_eq!(lone.status().to_do().len(), 2);
    sink.send_modify(|it| {
        it.orders.pause = None;
        it.state = Some(PipelineState::Swapping);
    });
    assert_eq!(lone.state(), State::Swapping);
}

#[test]
fn whatever_waits_for_the_operator_comes_with_commands_that_can_be_given() {
    let asked = |reason: &str| Order {
        by: "ann@db1".to_owned(),
        at: 1_795_199_030_000,
        reason: Some(reason.to_owned()),
    };
    let table = TableName::new("public", "t");
    let commit: CommitId = "7/0/10".parse().unwrap();
    let orders = Orders {
        pause: Some(asked("an index")),
        skips: [(commit, asked("too large"))].into(),
        unverified: vec![Unverified {
            commit,
            order: asked("too large"),
            changes: 3,
            tables: vec!["public.t".to_owned(), "public.u".to_owned()],
        }],
        drifted: vec![Drifted {
            table: table.clone(),
            since: 1_795_199_030_000,
            differences: vec!["column c of type int4 was added".to_owned()],
        }],
        parked: vec![ParkedTable {
            table: table.to_string(),
            letters: 2,
            since: 1_795_199_030_000,
        }],
        letters: Vec::new(),
    };
    let sink = ApplyStatus {
        orders,
        ..ApplyStatus::default()
    };
    let status = board(sink, None).status();
    let to_do = status.to_do();
    let at = "2026-11-20T18:23:50Z";
    let what: Vec<_> = to_do.iter().map(|it| &*it.what).collect();
    assert_eq!(
        what,
        [
            format!("paused by ann@db1, {at}: an index"),
            format!("to be passed over: 7/0/10, by ann@db1, {at}: too large"),
            format!("passed over: 7/0/10 with 3 changes, by ann@db1, {at}: too large"),
            format!("drifted: public.t since {at}: column c of type int4 was added"),
            format!("dead letters: 2 of public.t since {at}"),
        ]
    );
    let remedies: Vec<_> = to_do.iter().filter_map(|it| it.remedy.as_deref()).collect();
    let pieces = remedies
        .iter()
        .flat_map(|it| it.split("; "))
        .flat_map(|it| it.split(", "));
    let pieces = pieces.map(|it| it.trim_start_matches("or ").trim_start_matches("then "));
    let commands: Vec<_> = pieces.filter(|it| it.starts_with("walferry ")).collect();
    for command in &commands {
        let parsed = Cli::try_parse_from(command.split(' '));
        assert!(parsed.is_ok(), "{command}");
    }
    assert_eq!((remedies.len(), commands.len()), (4, 6), "{remedies:?}");
    let json = serde_json::to_value(status.shown()).unwrap();
    assert_eq!(json["to_do"].as_array().map(Vec::len), Some(5), "{json}");
    assert_eq!(json["pipeline"], "slot/\"odd\"", "{json}");
}

#[test]
fn a_pipeline_that_was_lost_is_fenced_until_the_process_ends() {
    let lost = Trouble {
        part: "sink".to_owned(),
        error: "another walferry has taken over the pipeline".to_owned(),
        remedy: String::new(),
        attempts: 0,
        at: 1,
        is_fenced: true,
    };
    let board = board(ApplyStatus::default(), Some(lost));
    assert!(!board.state().is_working());
    let status = serde_json::to_value(board.status()).unwrap();
    assert_eq!(status["state"], "fenced");
    let metrics = metrics::text(&board.status());
    let line = "walferry_pipeline_state{state=\"fenced\"} 1\n";
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn a_lone_sink_that_follows_changes_names_the_reader_it_hears_nothing_of() {
    let sink = ApplyStatus {
        is_applying: true,
        is_live: true,
        state: Some(PipelineState::Live),
        quiet_since: Some(Instant::now()),
        ..ApplyStatus::default()
    };
    let sink = watch::Sender::new(sink);
    let lone = Board::new(Parts {
        role: "sink",
        reader: None,
        sink: Some(sink.subscribe()),
        ..parts(ApplyStatus::default(), None)
    });
    advance(Duration::from_secs(15)).await;
    assert_eq!(lone.status().lag.stage, None);
    advance(Duration::from_secs(10)).await;
    let lag = lone.status().lag;
    assert_eq!((lag.seconds, lag.stage), (Some(25.0), Some(Stage::Reader)));
    sink.send_modify(|sink| sink.state = Some(PipelineState::Snapshot));
    assert_eq!(
        lone.status().lag.stage,
        None,
        "a reader that copies is silent"
    );
}

#[test]
fn the_metrics_name_every_state() {
    let state = METRICS
        .iter()
        .find(|it| it.name == "walferry_pipeline_state");
    let states = State::ALL.map(|it| it.to_string()).join(", ");
    assert!(state.unwrap().help.contains(&states), "{states}");
}

#[test]
fn every_state_is_explained_in_the_operations_page() {
    let page = format!("{}/docs/operations.md", env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(page).unwrap();
    for state in State::ALL {
        assert!(page.contains(&format!("| `{state}` |")), "{state}");
    }
}

/// A server on a free port of an address, until the tasks are dropped; its port is asked at 127.0.0.1.
async fn serving(address: &str, tasks: &Tasks) -> SocketAddr {
    let admin = Admin::bind(address.parse().unwrap()).await.unwrap();
    let port = admin.listener.local_addr().unwrap().port();
    let board = board(ApplyStatus::default(), None);
    admin.serve(Arc::new(board), None, tasks);
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Asks over a connection; the first line of the answer.
async fn ask(stream: &mut TcpStream, headers: &str) -> String {
    let request = format!("GET /live HTTP/1.1\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(4).any(|it| it == b"\r\n\r\n") {
        let read = stream.read_buf(&mut answer).await.unwrap();
        assert!(
            read > 0,
            "hung up after {}",
            String::from_utf8_lossy(&answer)
        );
    }
    let answer = String::from_utf8_lossy(&answer);
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_caller_beyond_the_limit_waits_until_another_has_left() {
    let tasks = Tasks::default();
    let address = serving("127.0.0.1:0", &tasks).await;
    let mut callers = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut caller = TcpStream::connect(address).await.unwrap();
        assert!(
            ask(&mut caller, "Host: localhost\r\n")
                .await
                .contains(" 200 ")
        );
        callers.push(caller);
    }
    let mut late = TcpStream::connect(address).await.unwrap();
    let mut late = tasks.spawn(async move { ask(&mut late, "Host: localhost\r\n").await });
    for caller in &mut callers {
        ask(caller, "Host: localhost\r\n").await;
    }
    assert!(!late.is_finished(), "there is no limit");
    callers.pop();
    let answered = timeout(Duration::from_mins(1), &mut late).await;
    assert!(answered.unwrap().unwrap().contains(" 200 "));
    tasks.stop();
    tasks.finished().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_nothing_is_hung_up_on() {
    let tasks = Tasks::default();
    let address = serving("127.0.0.1:0", &tasks).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut polite = TcpStream::connect(address).await.unwrap();
    ask(&mut polite, "Host: localhost\r\n").await;
    for caller in [&mut silent, &mut polite] {
        let mut rest = Vec::new();
        let ended = timeout(Duration::from_mins(10), caller.read_to_end(&mut rest)).await;
        ended.expect("it is hung up on").unwrap();
    }
    tasks.stop();
}

#[tokio::test]
async fn a_loopback_address_answers_to_no_other_name() {
    let tasks = Tasks::default();
    for (listen, named) in [("127.0.0.1:0", " 421 "), ("0.0.0.0:0", " 200 ")] {
        let address = serving(listen, &tasks).await;
        let answer = async |headers: &str| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            ask(&mut stream, headers).await
        };
        let refused = answer("Host: evil.example\r\n").await;
        assert!(refused.contains(named), "{listen}: {refused}");
        let both = answer("Host: localhost\r\nHost: evil.example\r\n").await;
        assert!(both.contains(named), "{listen}: {both}");
        for headers in ["Host: localhost:9187\r\n", "Host: 127.0.0.1\r\n", ""] {
            let allowed = answer(headers).await;
            assert!(allowed.contains(" 200 "), "{listen}, {headers}: {allowed}");
        }
    }
    tasks.stop();
}
