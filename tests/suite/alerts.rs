//! The alert rules and the dashboard, held against what a daemon really shows.
//!
//! - A metric that is renamed, and a label or a value of one that is, is an error here.
//! - Where promtool is, the rules are evaluated over series that begin as the real ones.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde::Deserialize;
use serde_json::{Value, json};
use walferry_harness::{eventually, free_port, project_root};

use crate::admin::{get, listening, status};
use crate::daemon::{PATIENCE, Route};
use crate::deployment::text;
use crate::to_do::Troubled;

/// What Prometheus itself adds to each series.
const OF_PROMETHEUS: [&str; 2] = ["instance", "job"];
/// Metrics that no test's servers have a reason to show.
const UNSEEN: &str = "walferry_source_spare_wal_bytes";

/// What these tests look at in a file of rules.
#[derive(Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    alert: String,
    expr: String,
    annotations: BTreeMap<String, String>,
}

/// An expression with the texts that name its labels.
struct Asked {
    from: String,
    expr: String,
    templates: String,
}

/// A series of the exposition, or what an expression selects.
#[derive(Debug, Default, PartialEq)]
struct Series {
    name: String,
    /// In an expression a value may be several, with `|` between them.
    labels: BTreeMap<String, String>,
    value: String,
}

/// Everything that alerts and dashboard ask for.
fn asked() -> Vec<Asked> {
    let rules: Rules = serde_saphyr::from_str(&text("docs/deploy/alerts.yml")).unwrap();
    let rules = rules.groups.into_iter().flat_map(|it| it.rules);
    let alerts = rules.map(|rule| Asked {
        from: rule.alert,
        expr: rule.expr,
        templates: rule.annotations.into_values().collect(),
    });
    let dashboard: Value = serde_json::from_str(&text("docs/deploy/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().clone();
    let panels = panels.into_iter().flat_map(|panel| {
        let targets = panel["targets"].as_array().unwrap().clone();
        let word = |value: &Value| value.as_str().unwrap().to_owned();
        let of_target = move |target: Value| Asked {
            from: word(&panel["title"]),
            expr: word(&target["expr"]),
            templates: word(&target["legendFormat"]),
        };
        targets.into_iter().map(of_target)
    });
    alerts.chain(panels).collect()
}

/// The series of an exposition.
fn exposed(metrics: &str) -> Vec<Series> {
    let samples = metrics.lines().filter(|line| !line.starts_with('#'));
    let series = samples.map(|line| {
        let (series, value) = line.rsplit_once(' ').expect(line);
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        Series {
            name: name.to_owned(),
            labels: matchers(labels.strip_suffix('}').expect(line)),
            value: value.to_owned(),
        }
    });
    series.collect()
}

/// The labels in `a="1",b=~"2|3"`; no value here has a comma.
fn matchers(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(',').filter(|it| !it.is_empty());
    let pairs = pairs.map(|pair| {
        let (label, value) = pair.split_once('=').expect(pair);
        let value = value.trim_start_matches('~').trim_matches('"');
        (label.trim().to_owned(), value.to_owned())
    });
    pairs.collect()
}

/// The metrics of an expression with their matchers, and the labels that it groups by.
fn parsed(expr: &str) -> (Vec<Series>, BTreeSet<String>) {
    let (mut metrics, mut grouping) = (Vec::new(), BTreeSet::new());
    let mut rest = expr;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic()) {
        rest = &rest[start..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let (word, behind) = rest.split_at(end.unwrap_or(rest.len()));
        rest = behind.trim_start();
        match (word, rest.chars().next()) {
            ("by" | "on", _) => {
                let labels = rest.strip_prefix('(').and_then(|it| it.split_once(')'));
                let (labels, behind) = labels.expect(expr);
                grouping.extend(labels.split(',').map(|it| it.trim().to_owned()));
                rest = behind;
            }
            // An operator, a function, what it takes a range of, the end of 10e9.
            ("and" | "or" | "sum" | "m" | "e9", _) | (_, Some('(')) => {}
            (name, Some('{')) => {
                let (labels, behind) = rest[1..].split_once('}').expect(expr);
                metrics.push(Series {
                    name: name.to_owned(),
                    labels: matchers(labels),
                    ..Series::default()
                });
                rest = behind;
            }
            (name, _) => metrics.push(Series {
                name: name.to_owned(),
                ..Series::default()
            }),
        }
    }
    (metrics, grouping)
}

/// The labels that a text is filled with: `{{state}}`, `{{ $labels.state }}`.
fn filled_in(templates: &str) -> BTreeSet<String> {
    let places = templates.split("{{").skip(1);
    let places = places.filter_map(|it| it.split_once("}}")).map(|it| it.0);
    let labels = places.map(|place| place.trim().trim_start_matches("$labels."));
    let is_label = |it: &&str| !it.starts_with("$value");
    labels.filter(is_label).map(str::to_owned).collect()
}

/// What the document says of a metric; of a histogram's part what it says of the histogram.
fn meaning(name: &str) -> Option<String> {
    let base = name.strip_suffix("_bucket").unwrap_or(name);
    let document = text("docs/metrics.md");
    let row = document
        .lines()
        .find(|line| line.starts_with(&format!("| `{base}` |")));
    row.map(str::to_owned)
}

/// Whether a value of a label is one that these series have, or that the document says they may have.
fn is_possible(series: &[&Series], label: &str, value: &str) -> bool {
    let has_label = |it: &&&Series| it.labels.contains_key(label);
    let Some(one) = series.first().filter(has_label) else {
        return false;
    };
    let said = meaning(&one.name).unwrap_or_default();
    let mut words = said.split(|c: char| !c.is_alphanumeric());
    series.iter().any(|it| it.labels[label] == value) || words.any(|it| it == value)
}

/// What is wrong with an expression beside these series.
fn mistakes(asked: &Asked, shown: &[Series]) -> Vec<String> {
    let (metrics, grouping) = parsed(&asked.expr);
    let mut mistakes = Vec::new();
    let mut labels: BTreeSet<&str> = OF_PROMETHEUS.into();
    for metric in metrics.iter().filter(|it| it.name != "up") {
        let series: Vec<_> = shown.iter().filter(|it| it.name == metric.name).collect();
        if meaning(&metric.name).is_none() || series.is_empty() && metric.name != UNSEEN {
            mistakes.push(format!("nothing shows {}", metric.name));
        }
        labels.extend(
            series
                .iter()
                .flat_map(|it| it.labels.keys().map(|it| &**it)),
        );
        for (label, values) in &metric.labels {
            for value in values.split('|') {
                if !is_possible(&series, label, value) {
                    mistakes.push(format!("{} has no {label}=\"{value}\"", metric.name));
                }
            }
        }
    }
    let named = grouping.into_iter().chain(filled_in(&asked.templates));
    let unknown = named.filter(|it| !labels.contains(&**it));
    mistakes.extend(unknown.map(|it| format!("no series has the label {it}")));
    let from = &asked.from;
    mistakes.iter().map(|it| format!("{from}: {it}")).collect()
}

/// Has promtool say which alerts fire when the metrics stay as they are for two hours: these, and no others.
fn assert_fires(metrics: &str, alerts: &[&str]) {
    let promtool = project_root().join(".tools/promtool/promtool");
    if !promtool.exists() {
        return;
    }
    let mut series = vec![json!({ "series": "up{job=\"walferry\"}", "values": "1x120" })];
    series.extend(
        metrics
            .lines()
            .filter(|it| !it.starts_with('#'))
            .map(|line| {
                let (name, value) = line.rsplit_once(' ').expect(line);
                json!({ "series": name, "values": format!("{value}x120") })
            }),
    );
    let fire = alerts
        .iter()
        .map(|it| json!({ "labels": format!("{{alertname=\"{it}\"}}"), "value": 1 }));
    let test = json!({
        "rule_files": [project_root().join("docs/deploy/alerts.yml")],
        "evaluation_interval": "1m",
        "tests": [{
            "interval": "1m",
            "input_series": series,
            "promql_expr_test": [{
                "expr": "count by (alertname) (ALERTS{alertstate=\"firing\"})",
                "eval_time": "110m",
                "exp_samples": fire.collect::<Vec<_>>(),
            }],
        }],
    });
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("test.yml");
    std::fs::write(&file, test.to_string()).unwrap();
    let tried = Command::new(promtool)
        .args(["test", "rules"])
        .arg(file)
        .output();
    let tried = tried.unwrap();
    let said = String::from_utf8_lossy(&[tried.stdout, tried.stderr].concat()).into_owned();
    assert!(tried.status.success(), "{said}\n{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_and_dashboard_ask_for_what_a_daemon_shows_and_fire_on_its_trouble_alone() {
    let troubled = Troubled::begin("alerts").await;
    let metrics = get(troubled.port, "/metrics").await.unwrap().body;
    let shown = exposed(&metrics);
    let asked = asked();
    assert!(asked.len() > 20, "{}", asked.len());
    if Route::chosen() == Route::Kafka {
        let mistakes: Vec<_> = asked.iter().flat_map(|it| mistakes(it, &shown)).collect();
        assert!(mistakes.is_empty(), "{mistakes:#?}\n{metrics}");
    }
    assert_fires(&troubled.healthy, &[]);
    assert_fires(&metrics, &["WalferryDeadLetters", "WalferryDrifted"]);
    assert!(troubled.daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_whose_mongodb_is_away_has_the_alert_fire_that_says_so() {
    let (pipeline, port) = listening("alert_away").await;
    let closed = free_port().unwrap();
    let away = format!("mongodb://127.0.0.1:{closed}/?serverSelectionTimeoutMS=300");
    pipeline.reconfigure(&pipeline.database.mongo_url, &away);
    let daemon = pipeline.start();
    let attempt = async || match status(port).await? {
        status if status["state"] == "retrying" && status["source"].is_object() => Ok(()),
        status => Err(status.to_string()),
    };
    eventually(PATIENCE, "retrying", attempt).await.unwrap();
    let metrics = get(port, "/metrics").await.unwrap().body;
    assert_fires(&metrics, &["WalferryNotWorking"]);
    daemon.kill().await;
}

#[test]
fn an_expression_that_asks_for_what_is_not_there_is_noticed() {
    let shown = exposed(
        "# HELP walferry_pipeline_state 1\nwalferry_pipeline_state{state=\"live\"} 1\n\
         walferry_sink_dead_letters{table=\"public.t\"} 3\nwalferry_pipeline_lag_seconds 0\n",
    );
    let mistakes = |expr: &str, templates: &str| {
        let asked = Asked {
            from: "x".to_owned(),
            expr: expr.to_owned(),
            templates: templates.to_owned(),
        };
        mistakes(&asked, &shown)
    };
    for (expr, templates) in [
        (
            "walferry_pipeline_state{state=~\"starting|live\"} == 1",
            "{{instance}} {{state}}",
        ),
        (
            "sum by (table) (rate(walferry_sink_dead_letters[1m])) > 10e9",
            "{{ $labels.table }} {{ $value | humanize }}",
        ),
        (
            "up{job=\"walferry\"} == 0 or absent(walferry_pipeline_lag_seconds)",
            "",
        ),
        (
            "walferry_pipeline_lag_seconds and on(instance) walferry_pipeline_state",
            "",
        ),
    ] {
        assert_eq!(mistakes(expr, templates), [""; 0], "{expr}");
    }
    for (expr, templates, mistake) in [
        ("walferry_lag > 1", "", "x: nothing shows walferry_lag"),
        (
            "walferry_sink_rows_total > 1",
            "",
            "x: nothing shows walferry_sink_rows_total",
        ),
        (
            "walferry_pipeline_state{state=\"alive\"}",
            "",
            "x: walferry_pipeline_state has no state=\"alive\"",
        ),
        (
            "walferry_sink_dead_letters{of=\"t\"}",
            "",
            "x: walferry_sink_dead_letters has no of=\"t\"",
        ),
        (
            "sum by (of) (walferry_sink_dead_letters)",
            "",
            "x: no series has the label of",
        ),
        (
            "walferry_pipeline_lag_seconds",
            "{{table}}",
            "x: no series has the label table",
        ),
    ] {
        assert_eq!(mistakes(expr, templates), [mistake], "{expr}");
    }
}

#[test]
fn the_made_up_series_are_of_metrics_that_exist() {
    let tests = text("tests/alerts.yml");
    let series = tests.split("series: '").skip(1);
    let names: BTreeSet<_> = series
        .filter_map(|it| it.split(['{', '\'']).next())
        .filter(|it| *it != "up")
        .collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        assert!(meaning(name).is_some(), "{name}");
    }
}
