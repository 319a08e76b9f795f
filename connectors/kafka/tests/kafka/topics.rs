use rdkafka::admin::{AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use std::time::Duration;
use walferry_core::{Class, Log};
use walferry_kafka::KafkaLog;

use crate::rig::{PATIENCE, Tested, admin, begun, settings, topic};

#[tokio::test]
async fn missing_topics_are_made_as_stated() -> Tested {
    let mut settings = settings().await;
    settings.replication = Some(1);
    settings.min_insync_replicas = Some(1);
    settings.retention = Duration::from_hours(24);
    settings.max_record_bytes = 2 << 20;
    let (one, three) = (topic(&settings, "one", 1), topic(&settings, "three", 3));
    let mut log = KafkaLog::new(settings.clone());
    log.ensure_topics(&[one.clone(), three.clone()]).await?;
    log.ensure_topics(&[one.clone(), three.clone()]).await?;

    let admin = admin(&settings);
    let metadata = admin.inner().fetch_metadata(None, PATIENCE)?;
    let commits = settings.commit_log();
    for (name, partitions) in [(&*one.name, 1), (&*three.name, 3), (&*commits, 1)] {
        let made = metadata
            .topics()
            .iter()
            .find(|t| t.name() == name)
            .expect("it was made");
        assert_eq!(made.partitions().len(), partitions, "{name}");
        let asked = [ResourceSpecifier::Topic(name)];
        let config = admin
            .describe_configs(&asked, &AdminOptions::new())
            .await?
            .remove(0)?;
        let value = |key: &str| config.get(key).and_then(|entry| entry.value.clone());
        assert_eq!(value("retention.ms").as_deref(), Some("86400000"));
        assert_eq!(value("min.insync.replicas").as_deref(), Some("1"));
        assert_eq!(value("cleanup.policy").as_deref(), Some("delete"));
        assert_eq!(
            value("message.timestamp.type").as_deref(),
            Some("LogAppendTime")
        );
        assert_eq!(value("max.message.bytes").as_deref(), Some("2098176"));
    }
    Ok(())
}

#[tokio::test]
async fn a_topic_with_another_number_of_partitions_is_a_fatal_error_that_says_what_to_do() -> Tested
{
    let settings = settings().await;
    begun(&settings, &[topic(&settings, "t", 2)]).await;
    let mut log = KafkaLog::new(settings.clone());
    let fault = log
        .ensure_topics(&[topic(&settings, "t", 4)])
        .await
        .expect_err("they differ");
    assert_eq!(fault.class(), Class::Fatal);
    let message = fault.to_string();
    assert!(message.contains("has 2 partitions and not 4"), "{message}");
    assert!(
        message.contains("set the table's partitions to 2"),
        "{message}"
    );
    Ok(())
}

#[tokio::test]
async fn a_compacted_topic_is_refused() -> Tested {
    let settings = settings().await;
    let topic = topic(&settings, "t", 1);
    let new = NewTopic::new(&topic.name, 1, TopicReplication::Fixed(1));
    let new = new.set("cleanup.policy", "compact");
    admin(&settings)
        .create_topics(&[new], &AdminOptions::new())
        .await?;
    let mut log = KafkaLog::new(settings);
    let fault = log
        .ensure_topics(&[topic])
        .await
        .expect_err("it loses records");
    assert_eq!(fault.class(), Class::Fatal);
    Ok(())
}

#[tokio::test]
async fn more_replicas_than_brokers_is_a_fatal_error_that_says_what_to_do() -> Tested {
    let mut settings = settings().await;
    settings.replication = Some(3);
    let fault = KafkaLog::new(settings)
        .ensure_topics(&[])
        .await
        .expect_err("one broker");
    assert_eq!(fault.class(), Class::Fatal);
    assert!(
        fault.to_string().contains("lower kafka.replication"),
        "{fault}"
    );
    Ok(())
}
