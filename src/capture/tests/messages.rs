//! Logical messages beside the rows.

use serde_json::Value;
use walferry_core::PartitionOffset;
use walferry_core::fakes::{FakeChange, FakeServer, Place};

use super::{CaptureOptions, ExtraTopics, Rig, Term, insert, options, pass, settle};

/// A reader that forwards messages and marks transactions.
fn start(rig: &Rig) -> Term {
    let options = CaptureOptions {
        extra_topics: ExtraTopics {
            transaction: true,
            message: true,
        },
        ..options()
    };
    let mut capture = rig.capture_as(options, false);
    rig.tasks.spawn(async move { capture.run_term().await })
}

fn partition(topic: &str) -> PartitionOffset {
    PartitionOffset {
        topic: topic.into(),
        partition: 0,
    }
}

/// The values of a topic's one partition.
fn values(rig: &Rig, topic: &str) -> Vec<Value> {
    let rows = rig.kafka.rows(&partition(topic));
    let value = |bytes: &bytes::Bytes| serde_json::from_slice(bytes).expect("JSON");
    rows.iter().flat_map(|row| &row.value).map(value).collect()
}

#[tokio::test(start_paused = true)]
async fn rule_2_a_logical_message_owns_no_ordinal_and_no_commit_counts_it() {
    let rig = Rig::streaming().await;
    let _term = start(&rig);
    rig.server
        .commit(&[insert(1), FakeChange::Message("one"), insert(2)]);
    settle().await;
    let counts = &rig.commits()[0].records;
    assert!(
        counts.iter().all(|it| &*it.topic == "p.public.a"),
        "{counts:?}"
    );
    assert_eq!(counts.iter().map(|it| it.count).sum::<u64>(), 2);
    let rows = [0, 1].map(|partition| {
        rig.kafka.rows(&PartitionOffset {
            topic: "p.public.a".into(),
            partition,
        })
    });
    let mut ordinals: Vec<_> = rows.iter().flatten().map(|row| row.stamp.ordinal).collect();
    ordinals.sort_unstable();
    assert_eq!(ordinals, [1, 3]);
    let [message] = &*values(&rig, "p.message") else {
        panic!("one message")
    };
    assert_eq!(message["message"]["prefix"], "one");
    assert_eq!(message["message"]["content"], "T05F");
    assert_eq!(message["transaction"]["total_order"], 2);
    let [_, end] = &*values(&rig, "p.transaction") else {
        panic!("a BEGIN and an END")
    };
    assert_eq!(end["event_count"], 3);
    let collections = end["data_collections"].to_string();
    assert_eq!(
        collections,
        r#"[{"data_collection":"public.a","event_count":2},{"data_collection":"LOGICAL_DECODING_MESSAGE","event_count":1}]"#
    );
}

#[tokio::test(start_paused = true)]
async fn a_transaction_of_messages_only_is_marked_and_writes_no_commit() {
    let rig = Rig::streaming().await;
    let _term = start(&rig);
    rig.server.commit(&[FakeChange::Message("one")]);
    settle().await;
    let status: Vec<_> = values(&rig, "p.transaction")
        .iter()
        .map(|it| it["status"].clone())
        .collect();
    assert_eq!(status, ["BEGIN", "END"]);
    assert!(rig.commits().is_empty());
}

#[tokio::test(start_paused = true)]
async fn rule_7_a_message_alone_is_confirmed_when_kafka_has_it() {
    let rig = Rig::streaming().await;
    let _term = start(&rig);
    settle().await;
    let start = rig.confirmed();
    rig.kafka.hold();
    rig.server.emit("alone");
    let end = FakeServer::end_of(rig.server.commit(&[FakeChange::Message("inside")]));
    pass(10).await;
    let messages = Place::Rows(partition("p.message"));
    let markers = Place::Rows(partition("p.transaction"));
    for place in [Place::Log, markers.clone(), markers] {
        rig.kafka.release(&place, 1);
        pass(10).await;
    }
    assert_eq!(rig.heartbeats().last(), Some(&end));
    rig.kafka.release(&messages, 1);
    pass(10).await;
    assert_eq!(rig.confirmed(), start);
    rig.kafka.release(&messages, 1);
    pass(10).await;
    assert_eq!(rig.confirmed(), end);
    let alone = &values(&rig, "p.message")[0];
    assert_eq!(
        (&alone["transaction"], &alone["source"]["txId"]),
        (&Value::Null, &Value::Null)
    );
}
