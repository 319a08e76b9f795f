//! Whether a Kafka can carry a pipeline: everything that is wrong with it at once.
//!
//! - It only looks.

use std::sync::Arc;

use walferry_core::{Fault, Finding, TopicSpec};

use crate::client::{Admin, drop_beside};
use crate::topics::{self, Cluster};
use crate::{Error, Settings, access};

/// Looks at the brokers, and at those of the topics that are there.
pub async fn examine(settings: &Settings, topics: &[TopicSpec]) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(error) = look(&mut findings, settings, topics).await {
        findings.push(Finding::failed("Kafka", &Fault::from(error)));
    }
    findings
}

async fn look(
    findings: &mut Vec<Finding>,
    settings: &Settings,
    topics: &[TopicSpec],
) -> Result<(), Error> {
    let admin = topics::admin(settings).await?;
    let examined = look_with(findings, &admin, settings, topics).await;
    drop_beside(admin);
    examined
}

async fn look_with(
    findings: &mut Vec<Finding>,
    admin: &Arc<Admin>,
    settings: &Settings,
    topics: &[TopicSpec],
) -> Result<(), Error> {
    let cluster = topics::list(admin, settings).await?;
    findings.push(brokers(&cluster, settings));
    let there = topics.iter().filter(|topic| cluster.has(topic));
    let there: Vec<_> = there.collect();
    let found = format!("{} of {} are there", there.len(), topics.len());
    findings.push(Finding::pass("Kafka: topics", found));
    for topic in &there {
        if let Err(error) = cluster.check_partitions(topic) {
            let subject = format!("Kafka: topic {}", topic.name);
            findings.push(Finding::failed(subject, &Fault::from(error)));
        }
    }
    findings.extend(topics::judge(admin, settings, &there).await?);
    findings.extend(access::examine(admin, settings, topics, &there).await?);
    Ok(())
}

fn brokers(cluster: &Cluster, settings: &Settings) -> Finding {
    let subject = "Kafka: brokers";
    let found = cluster.brokers.to_string();
    let wanted = settings
        .replication
        .map_or(0, |it| usize::try_from(it).unwrap_or_default());
    if cluster.brokers < wanted {
        let remedy = format!("lower kafka.replication, now {wanted}, or add brokers");
        return Finding::fail(subject, found, remedy);
    }
    if cluster.brokers == 1 {
        let remedy = "three brokers and min_insync_replicas = 2: what one broker acknowledged is lost with its disk";
        return Finding::warn(subject, found, remedy);
    }
    Finding::pass(subject, found)
}
