use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::SystemTime;

use tokio::sync::watch;

use super::metrics::{self, METRICS};
use crate::apply::ApplyStatus;
use crate::capture::CaptureStatus;
use crate::status::{Board, Parts, State, Trouble};

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");

fn board(sink: ApplyStatus, trouble: Option<Trouble>) -> Board {
    let reader = CaptureStatus::default();
    Board::new(Parts {
        pipeline: "slot/\"odd\"".to_owned(),
        role: "both",
        has_kafka: true,
        reader: Some(watch::Sender::new(reader).subscribe()),
        sink: Some(watch::Sender::new(sink).subscribe()),
        log: None,
        trouble: watch::Sender::new(trouble).subscribe(),
    })
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
        "_total", "_seconds", "_bytes", "_info", "_state", "_retries", "_up", "_active", "_skips",
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
