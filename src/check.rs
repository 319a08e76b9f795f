//! Whether everything is there that a pipeline needs.
//!
//! - Each connector looks at its own server; none changes anything.
//! - A pipeline that has no slot yet is refused while something fails: one that has one goes on with it.

use std::time::Duration;

use serde::Serialize;
use tokio::time::timeout;
use walferry_core::{Class, Classify, Fault, Finding, Tasks, TopicSpec, Verdict};
use walferry_etl::Mode;
use walferry_postgres::{Examined, TableUse};
use walferry_schema::TableName;

use crate::capture::lineage::topic_name;
use crate::config::{Config, Kafka};
use crate::pipeline::connect::{kafka_settings, mongodb_settings, postgres_settings, slot_monitor};

/// How long a start waits for what a look at the source says, and then for one at the others.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// In the way of a change: PostgreSQL, Kafka, MongoDB.
    pub findings: Vec<Finding>,
}

/// How a process begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beginning {
    /// Whether a new snapshot is wanted, whatever is there.
    pub(crate) is_wanted: bool,
    /// Whether it writes to MongoDB itself.
    pub(crate) writes: bool,
}

/// What keeps a pipeline from beginning.
#[derive(Debug, thiserror::Error)]
#[error("{}", listed(.0))]
struct Refused(Vec<Finding>);

impl Classify for Refused {
    fn class(&self) -> Class {
        Class::Fatal
    }
}

// === impl Report ===

impl Report {
    /// The worst of what was found; a pass when there is nothing.
    pub fn worst(&self) -> Verdict {
        let verdicts = self.findings.iter().map(|finding| finding.verdict);
        verdicts.max().unwrap_or(Verdict::Pass)
    }
}

/// Looks at all servers of a configuration.
pub async fn run(config: &Config, tasks: &Tasks) -> Report {
    let Examined {
        mut findings,
        beside,
        tables,
    } = source(config, tasks).await;
    findings.extend(beside);
    let (log, target) = tokio::join!(log(config, &tables), target(config, &tables));
    findings.extend(log.into_iter().chain(target));
    Report { findings }
}

/// Refuses to begin a generation that could not go on. A pipeline that has its slot is not looked at, unless a new
/// snapshot is wanted; nor is a server that does not answer: that is waited for later.
///
/// # Errors
/// All that fails, each with what mends it.
pub(crate) async fn before_a_snapshot(
    config: &Config,
    beginning: Beginning,
    tasks: &Tasks,
) -> Result<(), Fault> {
    let stop = tasks.stop_signal();
    let refused = stop.run_until_cancelled(refuse(config, beginning, tasks));
    refused.await.unwrap_or(Ok(()))
}

async fn refuse(config: &Config, beginning: Beginning, tasks: &Tasks) -> Result<(), Fault> {
    if !beginning.is_wanted {
        let mut slot = slot_monitor(config, tasks)?;
        match timeout(PATIENCE, slot.measure()).await {
            Ok(Ok(report)) if report.slot.is_none() => {}
            _ => return Ok(()),
        }
    }
    let source = timeout(PATIENCE, source(config, tasks)).await;
    let Examined {
        mut findings,
        tables,
        ..
    } = source.unwrap_or_default();
    // Each by itself: one that does not answer says nothing of the other.
    let log = timeout(PATIENCE, log(config, &tables));
    let target = async {
        if beginning.writes {
            let looked = timeout(PATIENCE, target(config, &tables)).await;
            looked.unwrap_or_default()
        } else {
            // The other half may be the only one that can reach it.
            Vec::new()
        }
    };
    let (log, target) = tokio::join!(log, target);
    findings.extend(log.unwrap_or_default().into_iter().chain(target));
    findings.retain(|finding| finding.verdict == Verdict::Fail);
    if findings.is_empty() {
        return Ok(());
    }
    Err(Refused(findings).into())
}

/// Looks at Kafka, where changes go through it.
async fn log(config: &Config, tables: &[(TableName, TableUse)]) -> Vec<Finding> {
    let Some(kafka) = &config.kafka else {
        return Vec::new();
    };
    let settings = kafka_settings(config, kafka);
    walferry_kafka::examine(&settings, &topics(kafka, tables)).await
}

/// Looks at MongoDB.
async fn target(config: &Config, tables: &[(TableName, TableUse)]) -> Vec<Finding> {
    let names: Vec<TableName> = tables.iter().map(|(table, _)| table.clone()).collect();
    walferry_mongodb::examine(&mongodb_settings(config), &names).await
}

async fn source(config: &Config, tasks: &Tasks) -> Examined {
    let settings = postgres_settings(config);
    let use_of = |table: &TableName| match config.tables.mode(table) {
        Mode::Stream => TableUse::Streamed,
        Mode::Batch => TableUse::Loaded,
        Mode::Ignore => TableUse::Ignored,
    };
    walferry_postgres::examine(&settings, &use_of, tasks).await
}

/// The topics that a pipeline over these tables writes.
fn topics(kafka: &Kafka, tables: &[(TableName, TableUse)]) -> Vec<TopicSpec> {
    let topic = |name: String, partitions| TopicSpec {
        name: name.into(),
        partitions,
    };
    let streamed = tables
        .iter()
        .filter(|(_, usage)| *usage == TableUse::Streamed);
    let rows = streamed.map(|(table, _)| topic(topic_name(&kafka.prefix, table), kafka.partitions));
    std::iter::once(topic(format!("{}.commits", kafka.prefix), 1))
        .chain(rows)
        .collect()
}

/// What failed, a line each.
fn listed(failed: &[Finding]) -> String {
    let lines = failed.iter().map(|it| {
        let remedy = it.remedy.as_deref().unwrap_or_default();
        format!("\n  {}: {}\n    {remedy}", it.subject, it.found)
    });
    format!(
        "not everything is ready for a first snapshot (`walferry check` shows more):{}",
        lines.collect::<String>()
    )
}
