//! Whole records in parts, found from the time of their changes on, and what the target refused.

use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, OwnedMessage};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use walferry_core::{Archive, Record, RefusedChange, TopicSpec};
use walferry_kafka::{KafkaDeadLetters, KafkaLog, Settings};
use walferry_schema::header::{COLUMNS, ERROR, LETTER, PART, POSITION, TABLE};

use crate::rig::{PATIENCE, Tested, admin, begun, drained, send_record, settings, stamp};

const HOUR: i64 = 3_600_000;
const NOON: i64 = 1_700_000_000_000;

/// The topic, on which the test says when records arrive.
async fn topic(settings: &Settings) -> TopicSpec {
    let name = settings.dead_letter();
    let new = NewTopic::new(&name, 1, TopicReplication::Fixed(1))
        .set("message.timestamp.type", "CreateTime")
        .set("retention.ms", "-1");
    let made = admin(settings)
        .create_topics(&[new], &AdminOptions::new())
        .await;
    assert!(made.expect("a topic is made")[0].is_ok());
    TopicSpec {
        name: name.into(),
        partitions: 1,
    }
}

/// Sends a record in two parts, which arrive at a time.
async fn send(log: &mut KafkaLog, topic: &TopicSpec, ordinal: u64, timestamp: i64) {
    let position = stamp(ordinal).to_string();
    for (part, value) in [("1/2", "one "), ("2/2", "record")] {
        let headers: [(&str, &[u8]); 3] = [
            (POSITION, position.as_bytes()),
            (COLUMNS, b"columns"),
            (PART, part.as_bytes()),
        ];
        let record = Record {
            topic,
            key: None,
            value: Some(value.as_bytes()),
            timestamp,
            headers: &headers,
        };
        send_record(log, ordinal, &record).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_found_from_the_time_of_its_change_on_and_before_it_where_a_clock_was_wrong()
-> Tested {
    let settings = settings().await;
    let topic = topic(&settings).await;
    let mut log = begun(&settings, &[]).await;
    for (ordinal, hours) in [(1, -9), (2, -3), (3, 0)] {
        send(&mut log, &topic, ordinal, NOON + hours * HOUR).await;
    }
    drained(&mut log).await;
    let committed_at = |hours: i64| Some(NOON + hours * HOUR);
    let offsets = |first: i64| Some(vec![first, first + 1]);
    // Each asks first of a topic that nobody has read.
    for (ordinal, committed_at, found, from) in [
        (3, committed_at(0), offsets(4), 4),
        (2, committed_at(-3), offsets(2), 2),
        (1, None, offsets(0), 0),
        // The change says that it was later than its parts.
        (1, committed_at(0), offsets(0), 0),
        (2, committed_at(99), offsets(2), 0),
        (4, committed_at(0), None, 0),
    ] {
        let letters = KafkaDeadLetters::new(settings.clone());
        let of = stamp(ordinal).position();
        assert_eq!(letters.find(of, committed_at).await?, found, "{ordinal}");
        let looked_through = format!("looked_through: Some({from}..6)");
        let shown = format!("{letters:?}");
        assert!(shown.contains(&looked_through), "{ordinal}: {shown}");
    }
    // What comes later is found by one that has looked before, and so is what stands before that.
    let letters = KafkaDeadLetters::new(settings.clone());
    assert_eq!(
        letters.find(stamp(5).position(), committed_at(0)).await?,
        None
    );
    send(&mut log, &topic, 5, NOON + HOUR).await;
    drained(&mut log).await;
    for ordinal in [5, 1] {
        let record = letters
            .record(stamp(ordinal).position(), committed_at(0))
            .await?;
        assert_eq!(record.map(|it| it.value), Some("one record".into()));
    }
    Ok(())
}

/// The first records of a topic, as any consumer reads them.
fn raw(settings: &Settings, topic: &str, count: usize) -> Vec<OwnedMessage> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &settings.brokers);
    config.set("group.id", "test");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    assignment
        .add_partition_offset(topic, 0, Offset::Beginning)
        .expect("an offset");
    consumer.assign(&assignment).expect("it is assigned");
    let next = || Some(consumer.poll(PATIENCE)?.expect("a record").detach());
    std::iter::from_fn(next).take(count).collect()
}

fn header<'a>(record: &'a OwnedMessage, name: &str) -> &'a str {
    let mut headers = record.headers().expect("headers").iter();
    let header = headers.find(|it| it.key == name).expect("the header");
    std::str::from_utf8(header.value.expect("a value")).expect("text")
}

/// A change that the target refused, with so large a document.
fn refused(bytes: usize, error: &str) -> RefusedChange {
    RefusedChange {
        letter: "7/0/9/1".to_owned(),
        table: "public.t".to_owned(),
        error: error.to_owned(),
        key: b"{\"_id\":1}".to_vec(),
        value: vec![b'x'; bytes],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_target_refused_goes_in_parts_and_is_no_record_to_fetch() -> Tested {
    let settings = settings().await;
    let letters = KafkaDeadLetters::new(settings.clone());
    let long = "é".repeat(5_000);
    for (bytes, error) in [(3, "no"), (1 << 20, "no"), (3, &*long)] {
        letters.publish(refused(bytes, error)).await?;
    }
    let read = raw(&settings, &settings.dead_letter(), 4);
    let [whole, first, second, cut] = &read[..] else {
        panic!("{} records", read.len());
    };
    for (record, part) in [
        (whole, "1/1"),
        (first, "1/2"),
        (second, "2/2"),
        (cut, "1/1"),
    ] {
        assert_eq!(record.key(), Some(&b"{\"_id\":1}"[..]));
        assert_eq!(header(record, PART), part);
        assert_eq!(header(record, LETTER), "7/0/9/1");
        assert_eq!(header(record, TABLE), "public.t");
    }
    let length = |record: &OwnedMessage| record.payload().map_or(0, <[u8]>::len);
    assert_eq!(length(whole), 3);
    assert_eq!(length(first) + length(second), 1 << 20);
    assert_eq!(header(whole, ERROR), "no");
    assert_eq!(header(cut, ERROR).chars().count(), 4_000);
    assert_eq!(letters.find(stamp(1).position(), None).await?, None);
    Ok(())
}
