//! Whether everything is there that a pipeline needs.
//!
//! - Each connector looks at its own server; none changes anything.
//! - A pipeline that has no slot yet is refused while something fails: one that has one goes on with it.

use std::time::Duration;

use serde::Serialize;
use tokio::time::timeout;
use walferry_core::{
    Class, Classify, Fault, Finding, RecordReader as _, Tasks, TopicSpec, Verdict,
};
use walferry_etl::Mode;
use walferry_postgres::{Examined, TableUse, examine_spool};
use walferry_schema::TableName;

use crate::capture::lineage::topic_name;
use crate::config::{Config, Format, Kafka};
use crate::debezium;
use crate::pipeline::connect::{
    kafka_settings, mongodb_settings, postgres_settings, record_reader, slot_monitor,
};

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
    if let Some(kafka) = &config.kafka
        && kafka.format == Format::Debezium
    {
        return foreign(config, kafka).await;
    }
    let Examined {
        mut findings,
        beside,
        tables,
    } = source(config, tasks).await;
    findings.extend(beside);
    findings.push(examine_spool(&config.source.spool));
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
    findings.push(examine_spool(&config.source.spool));
    findings.extend(log.unwrap_or_default().into_iter().chain(target));
    findings.retain(|finding| finding.verdict == Verdict::Fail);
    if findings.is_empty() {
        return Ok(());
    }
    Err(Refused(findings).into())
}

/// Looks at Kafka and MongoDB for a sink of Debezium's topics: the source's slot is not ours.
async fn foreign(config: &Config, kafka: &Kafka) -> Report {
    let topics = Box::pin(topics_of_debezium(config, kafka));
    let (topics, target) = tokio::join!(topics, target(config, &[]));
    let mut findings = vec![topics];
    findings.extend(target);
    Report { findings }
}

async fn topics_of_debezium(config: &Config, kafka: &Kafka) -> Finding {
    let subject = "Kafka: topics of Debezium";
    let reader = record_reader(config, kafka);
    let topics = match reader {
        Ok(mut reader) => reader.topics().await,
        Err(fault) => Err(fault),
    };
    let topics = match topics {
        Ok(topics) => topics,
        Err(fault) => return Finding::failed(subject, &fault),
    };
    let read = topics
        .iter()
        .filter(|it| debezium::table_of(config, &kafka.prefix, &it.name).is_some());
    let read: Vec<_> = read.collect();
    if read.is_empty() {
        let remedy = format!(
            "start Debezium with topic.prefix={}, or name its tables with mode = \"stream\"",
            kafka.prefix
        );
        return Finding::warn(subject, "none of a streamed table", remedy);
    }
    let several = read.iter().find(|it| it.partitions > 1);
    match several {
        Some(topic) => Finding::warn(
            subject,
            format!("{} has {} partitions", topic.name, topic.partitions),
            "one partition a topic: a TRUNCATE, and a key change that leaves a TOAST value, have no place among several",
        ),
        None => Finding::pass(subject, read.len().to_string()),
    }
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
