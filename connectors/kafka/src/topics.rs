//! Making topics, and looking at those that are there.
//!
//! - A topic that exists is never changed.
//! - Another number of partitions, or compaction, is an error; weaker settings are a warning.
//! - Retention counts from a record's arrival, so that old record timestamps delete nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::RDKafkaErrorCode as Code;
use tracing::{info, warn};
use walferry_core::{Fault, Finding, TopicSpec};

use crate::client::{ANSWER, Admin, Context, blocking, drop_beside};
use crate::diagnosis::unanswered;
use crate::error::is_denied;
use crate::settings::{BATCH_OVERHEAD_BYTES, create};
use crate::{Error, Settings, access};

const READY: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);

/// The `max.message.bytes` of topics, where that is known.
pub(crate) type Limits = BTreeMap<Arc<str>, usize>;

/// The brokers and the topics that are there.
pub(crate) struct Cluster {
    pub(crate) brokers: usize,
    topics: BTreeMap<String, Found>,
}

/// How many partitions a topic has, and whether all have leaders.
#[derive(Clone, Copy)]
struct Found {
    partitions: usize,
    has_leaders: bool,
}

/// What a topic's settings say.
struct Judged {
    /// Its `max.message.bytes`, where that is known.
    limit: Option<usize>,
    findings: Vec<Finding>,
}

/// Makes the topics that are missing; the limits of them all.
pub(crate) async fn ensure(settings: &Settings, wanted: &[TopicSpec]) -> Result<Limits, Error> {
    let admin = admin(settings).await?;
    let ensured = ensure_with(&admin, settings, wanted).await;
    drop_beside(admin);
    ensured
}

/// A client that asks about topics; to be dropped by [`drop_beside`].
pub(crate) async fn admin(settings: &Settings) -> Result<Arc<Admin>, Error> {
    let config = settings.admin()?;
    let admin = blocking(move || create::<_, Admin>(&config, Context::new("admin"))).await?;
    Ok(Arc::new(admin))
}

async fn ensure_with(
    admin: &Arc<Admin>,
    settings: &Settings,
    wanted: &[TopicSpec],
) -> Result<Limits, Error> {
    let found = list(admin, settings).await?;
    let (there, missing): (Vec<_>, Vec<_>) = wanted.iter().partition(|topic| found.has(topic));
    for topic in &there {
        found.check_partitions(topic)?;
    }
    let mut limits = inspect(admin, settings, &there).await?;
    if missing.is_empty() {
        return Ok(limits);
    }
    make(admin, settings, &missing).await?;
    wait_until_ready(admin, settings, &missing).await?;
    let made = settings.max_record_bytes + BATCH_OVERHEAD_BYTES;
    limits.extend(missing.iter().map(|topic| (topic.name.clone(), made)));
    Ok(limits)
}

/// All topics of the cluster. To ask for one by name would make it where brokers do that.
pub(crate) async fn list(admin: &Arc<Admin>, settings: &Settings) -> Result<Cluster, Error> {
    let (admin, settings) = (admin.clone(), settings.clone());
    let metadata = blocking(move || {
        let metadata = admin.inner().fetch_metadata(None, ANSWER);
        metadata.map_err(|error| unanswered(&settings, "its topics".to_owned(), error))
    });
    let metadata = metadata.await?;
    let topics = metadata
        .topics()
        .iter()
        .filter(|topic| topic.error().is_none());
    let found = topics.map(|topic| {
        let partitions = topic.partitions();
        let has_leaders = partitions.iter().all(|partition| partition.leader() >= 0);
        (
            topic.name().to_owned(),
            Found {
                partitions: partitions.len(),
                has_leaders,
            },
        )
    });
    Ok(Cluster {
        brokers: metadata.brokers().len(),
        topics: found.collect(),
    })
}

// === impl Cluster ===

impl Cluster {
    /// All topics with their partitions.
    pub(crate) fn specs(&self) -> Vec<TopicSpec> {
        let spec = |(name, found): (&String, &Found)| TopicSpec {
            name: name.as_str().into(),
            partitions: i32::try_from(found.partitions).unwrap_or(i32::MAX),
        };
        self.topics.iter().map(spec).collect()
    }

    pub(crate) fn has(&self, topic: &TopicSpec) -> bool {
        self.topics.contains_key(&*topic.name)
    }

    pub(crate) fn check_partitions(&self, topic: &TopicSpec) -> Result<(), Error> {
        match self.topics.get(&*topic.name) {
            Some(&Found { partitions, .. }) if !is_count(partitions, topic) => {
                Err(Error::Partitions {
                    topic: topic.name.to_string(),
                    found: partitions,
                    expected: topic.partitions,
                })
            }
            _ => Ok(()),
        }
    }

    fn is_ready(&self, topic: &TopicSpec) -> bool {
        let found = self.topics.get(&*topic.name);
        found.is_some_and(|found| found.has_leaders)
    }
}

fn is_count(partitions: usize, topic: &TopicSpec) -> bool {
    i32::try_from(partitions) == Ok(topic.partitions)
}

/// Refuses topics whose settings lose records, and warns of what is weaker than configured.
async fn inspect(
    admin: &Admin,
    settings: &Settings,
    topics: &[&TopicSpec],
) -> Result<Limits, Error> {
    let mut limits = Limits::new();
    for (topic, judged) in compare_all(admin, settings, topics).await? {
        let judged = judged?;
        for Finding { subject, found, .. } in judged.findings {
            warn!(subject, found, "weaker than configured");
        }
        limits.extend(judged.limit.map(|limit| (topic.name.clone(), limit)));
    }
    Ok(limits)
}

/// What the settings of topics that exist are to be told for.
pub(crate) async fn judge(
    admin: &Admin,
    settings: &Settings,
    topics: &[&TopicSpec],
) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for (topic, judged) in compare_all(admin, settings, topics).await? {
        match judged {
            Ok(judged) => findings.extend(judged.findings),
            Err(error) => findings.push(Finding::failed(subject(topic), &Fault::from(error))),
        }
    }
    Ok(findings)
}

fn subject(topic: &TopicSpec) -> String {
    format!("Kafka: topic {}", topic.name)
}

/// Compares the settings of topics that exist with ours.
async fn compare_all<'a>(
    admin: &Admin,
    settings: &Settings,
    topics: &[&'a TopicSpec],
) -> Result<Vec<(&'a TopicSpec, Result<Judged, Error>)>, Error> {
    let asked: Vec<_> = topics
        .iter()
        .map(|topic| ResourceSpecifier::Topic(&topic.name))
        .collect();
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let options = AdminOptions::new().request_timeout(Some(ANSWER));
    let answers = admin.describe_configs(&asked, &options).await;
    let answers = answers.map_err(|error| Error::ask("the settings of topics", error))?;
    let compared = topics.iter().zip(answers).map(|(topic, answer)| {
        let judged = match answer {
            // The client passes over why a topic's settings do not come.
            Ok(config) if config.entries.is_empty() => Ok(unknown(topic, "not shown", settings)),
            Ok(config) => compare(topic, &config, settings),
            Err(error) => Ok(unknown(topic, error, settings)),
        };
        (*topic, judged)
    });
    Ok(compared.collect())
}

/// Not being allowed to look is no reason not to write.
fn unknown(topic: &TopicSpec, why: impl fmt::Display, settings: &Settings) -> Judged {
    let found = format!("its settings are unknown: {why}");
    let remedy = access::allow(settings, "DescribeConfigs");
    Judged {
        limit: None,
        findings: vec![Finding::warn(subject(topic), found, remedy)],
    }
}

/// Refuses what loses records, and finds what is weaker.
fn compare(
    topic: &TopicSpec,
    config: &ConfigResource,
    settings: &Settings,
) -> Result<Judged, Error> {
    let value = |name: &str| config.get(name).and_then(|entry| entry.value.as_deref());
    let number = |name: &str| value(name).and_then(|value| value.parse::<i64>().ok());
    if let Some(policy) = value("cleanup.policy").filter(|policy| policy.contains("compact")) {
        return Err(Error::Compacted {
            topic: topic.name.to_string(),
            policy: policy.to_owned(),
        });
    }
    let (retention, replicas) = (number("retention.ms"), number("min.insync.replicas"));
    let limit = number("max.message.bytes").and_then(|limit| usize::try_from(limit).ok());
    let mut findings = Vec::new();
    let mut weaker = |setting: &str, found: String, wanted: String| {
        let remedy = format!(
            "kafka-configs.sh --alter --entity-type topics --entity-name {} --add-config {setting}={wanted}",
            topic.name
        );
        findings.push(Finding::warn(
            subject(topic),
            format!("{setting} is {found}, less than configured"),
            remedy,
        ));
    };
    let wanted = retention_millis(settings, topic);
    let is_shorter = |found: &i64| *found >= 0 && (wanted < 0 || *found < wanted);
    if let Some(found) = retention.filter(is_shorter) {
        weaker("retention.ms", found.to_string(), wanted.to_string());
    }
    if let (Some(found), Some(wanted)) = (replicas, settings.min_insync_replicas)
        && found < wanted.into()
    {
        weaker("min.insync.replicas", found.to_string(), wanted.to_string());
    }
    if let Some(found) = limit.filter(|limit| *limit < settings.max_record_bytes) {
        let wanted = settings.max_record_bytes + BATCH_OVERHEAD_BYTES;
        weaker("max.message.bytes", found.to_string(), wanted.to_string());
    }
    Ok(Judged { limit, findings })
}

async fn make(admin: &Admin, settings: &Settings, topics: &[&TopicSpec]) -> Result<(), Error> {
    let replication = settings.replication.unwrap_or(-1);
    let largest = (settings.max_record_bytes + BATCH_OVERHEAD_BYTES).to_string();
    let replicas = settings
        .min_insync_replicas
        .map(|replicas| replicas.to_string());
    let retentions: Vec<_> = topics
        .iter()
        .map(|topic| retention_millis(settings, topic).to_string())
        .collect();
    let new: Vec<_> = topics
        .iter()
        .zip(&retentions)
        .map(|(topic, retention)| {
            let replication = TopicReplication::Fixed(replication);
            let new = NewTopic::new(&topic.name, topic.partitions, replication)
                .set("cleanup.policy", "delete")
                .set("message.timestamp.type", "LogAppendTime")
                .set("max.message.bytes", &largest)
                .set("retention.ms", retention);
            match &replicas {
                Some(replicas) => new.set("min.insync.replicas", replicas),
                None => new,
            }
        })
        .collect();
    let options = AdminOptions::new()
        .request_timeout(Some(ANSWER))
        .operation_timeout(Some(ANSWER));
    let answers = admin.create_topics(&new, &options).await;
    for answer in answers.map_err(|error| Error::ask("new topics", error))? {
        match answer {
            Ok(topic) => info!(topic, "made a topic"),
            // Another reader was faster; what it made is checked with the rest.
            Err((_, Code::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(not_made(topic, code)),
        }
    }
    Ok(())
}

fn not_made(topic: String, source: Code) -> Error {
    let reason = match source {
        Code::InvalidReplicationFactor => "fewer brokers than replicas: lower kafka.replication",
        Code::InvalidTopic => "Kafka allows letters, digits and . _ - up to 249 of them",
        Code::PolicyViolation => "the cluster's policy forbids it: make it by hand",
        code if is_denied(code) => {
            return Error::Denied {
                what: format!("new topic {topic}"),
                source,
            };
        }
        Code::RequestTimedOut | Code::OperationTimedOut | Code::NotController => {
            return Error::NotReady { topic };
        }
        _ => "make it by hand, or change the settings",
    };
    Error::CreateTopic {
        topic,
        reason,
        source,
    }
}

/// A new topic takes records once each partition has a leader.
async fn wait_until_ready(
    admin: &Arc<Admin>,
    settings: &Settings,
    topics: &[&TopicSpec],
) -> Result<(), Error> {
    let deadline = Instant::now() + READY;
    loop {
        let found = list(admin, settings).await?;
        for topic in topics {
            found.check_partitions(topic)?;
        }
        let Some(topic) = topics.iter().find(|topic| !found.is_ready(topic)) else {
            return Ok(());
        };
        if Instant::now() > deadline {
            return Err(Error::NotReady {
                topic: topic.name.to_string(),
            });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// How long a topic keeps its records; -1 for good, of those that nobody has dealt with.
fn retention_millis(settings: &Settings, topic: &TopicSpec) -> i64 {
    if *topic.name == *settings.dead_letter() {
        return -1;
    }
    i64::try_from(settings.retention.as_millis()).unwrap_or(i64::MAX)
}
