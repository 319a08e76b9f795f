use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use walferry_core::{Bounds, Class, Log, LogReader, PartitionOffset, Record};
use walferry_harness::{Kafka, eventually, fresh_directory};
use walferry_kafka::KafkaLogReader;
use walferry_schema::header::{COLUMNS, NEW_KEY, OLD_KEY, POSITION, UNCHANGED};

use crate::rig::{
    PATIENCE, Tested, begun, delete_before, drained, fresh, heartbeat, lsn, name, next_log, pull,
    send, send_entry, send_record, settings, stamp, topic,
};

#[tokio::test]
async fn records_come_back_as_they_were_sent() -> Tested {
    let settings = settings().await;
    let topic = topic(&settings, "t", 1);
    let mut log = begun(&settings, std::slice::from_ref(&topic)).await;
    let stamps = [0, 1, 2, 3].map(|ordinal| stamp(ordinal).to_string());
    let full: [(&str, &[u8]); 5] = [
        (POSITION, stamps[0].as_bytes()),
        (COLUMNS, b"one"),
        (UNCHANGED, br#"["b"]"#),
        (OLD_KEY, br#"{"id":0}"#),
        ("else", b""),
    ];
    let tombstone: [(&str, &[u8]); 3] = [
        (POSITION, stamps[1].as_bytes()),
        (COLUMNS, b"one"),
        (NEW_KEY, b"{}"),
    ];
    let keyless: [(&str, &[u8]); 2] = [(POSITION, stamps[2].as_bytes()), (COLUMNS, b"two")];
    let empty: [(&str, &[u8]); 1] = [(POSITION, stamps[3].as_bytes())];
    let record = |key, value, headers| Record {
        topic: &topic,
        key,
        value,
        timestamp: 5,
        headers,
    };
    send_record(&mut log, 1, &record(Some(b"k"), Some(b"v"), &full)).await;
    send_record(&mut log, 1, &record(Some(b"k"), None, &tombstone)).await;
    send_record(&mut log, 1, &record(None, Some(b"w"), &keyless)).await;
    send_record(&mut log, 1, &record(Some(b""), Some(b""), &empty)).await;
    drained(&mut log).await;

    let mut reader = KafkaLogReader::new(settings.clone());
    reader
        .assign(0, &BTreeMap::from([(name(&topic, 0), 0)]))
        .await?;
    let partition = reader.partition(&name(&topic, 0)).await?;
    assert_eq!(reader.offset(partition), 0);
    let one = pull(&mut reader, partition).await;
    assert_eq!((one.offset, one.stamp), (0, stamp(0)));
    assert_eq!(
        (one.key.as_deref(), one.value.as_deref()),
        (Some(&b"k"[..]), Some(&b"v"[..]))
    );
    assert_eq!(one.columns, "one");
    assert_eq!(one.unchanged.as_deref(), Some(&br#"["b"]"#[..]));
    assert_eq!(
        (one.old_key.as_deref(), one.has_new_key),
        (Some(&br#"{"id":0}"#[..]), false)
    );
    let two = pull(&mut reader, partition).await;
    assert_eq!((two.offset, two.stamp), (1, stamp(1)));
    assert_eq!(
        (two.value, two.unchanged, two.old_key, two.has_new_key),
        (None, None, None, true)
    );
    assert_eq!(two.columns.as_ptr(), one.columns.as_ptr());
    let three = pull(&mut reader, partition).await;
    assert_eq!((three.key, three.value.as_deref()), (None, Some(&b"w"[..])));
    assert_eq!(three.columns, "two");
    let four = pull(&mut reader, partition).await;
    assert_eq!(
        (four.key.as_deref(), four.value.as_deref()),
        (Some(&b""[..]), Some(&b""[..]))
    );
    assert_eq!(four.columns, "");
    assert_eq!(reader.offset(partition), 4);
    assert!(reader.peek(partition)?.is_none());
    assert!(reader.take(partition).is_none());
    Ok(())
}

#[tokio::test]
async fn a_record_that_walferry_did_not_write_is_named() -> Tested {
    let settings = settings().await;
    let topic = topic(&settings, "t", 1);
    let mut log = begun(&settings, std::slice::from_ref(&topic)).await;
    let wrong: [(&str, &[u8]); 1] = [(POSITION, b"12/nonsense")];
    let record = |headers| Record {
        topic: &topic,
        key: None,
        value: None,
        timestamp: 0,
        headers,
    };
    send_record(&mut log, 1, &record(&[])).await;
    send_record(&mut log, 1, &record(&wrong)).await;
    drained(&mut log).await;
    for (offset, expected) in [
        (0, "offset 0 has no header walferry.position"),
        (1, "offset 1: not a record position: \"12/nonsense\""),
    ] {
        let mut reader = KafkaLogReader::new(settings.clone());
        reader
            .assign(0, &BTreeMap::from([(name(&topic, 0), offset)]))
            .await?;
        let partition = reader.partition(&name(&topic, 0)).await?;
        let fault = tokio::time::timeout(PATIENCE, async {
            loop {
                match reader.peek(partition) {
                    Err(fault) => return fault,
                    Ok(found) => assert!(found.is_none()),
                }
                reader.arrived().await.expect("waiting works");
            }
        });
        let fault = fault.await?;
        assert_eq!(fault.class(), Class::Fatal);
        assert!(fault.to_string().contains(expected), "{fault}");
        assert!(fault.to_string().contains(&*topic.name), "{fault}");
    }
    Ok(())
}

#[tokio::test]
async fn reading_begins_at_the_assigned_offsets_and_a_new_topic_at_its_first_record() -> Tested {
    let settings = settings().await;
    let (old, new) = (topic(&settings, "old", 2), topic(&settings, "new", 1));
    let mut log = begun(&settings, &[old.clone(), new.clone()]).await;
    let mut partitions = [0, 0];
    for n in 0..40 {
        partitions[send(&mut log, n, &old, n).await as usize] += 1;
        send(&mut log, n, &new, n).await;
        log.append(&heartbeat(n)).await?;
    }
    drained(&mut log).await;
    assert!(partitions.iter().all(|held| *held > 5), "{partitions:?}");
    delete_before(&settings, &new.name, 7).await;

    let mut reader = KafkaLogReader::new(settings.clone());
    let at = BTreeMap::from([(name(&old, 0), 3), (name(&old, 1), partitions[1])]);
    reader.assign(38, &at).await?;
    assert_eq!(lsn(&next_log(&mut reader).await), 38);
    let (zero, one) = (
        reader.partition(&name(&old, 0)).await?,
        reader.partition(&name(&old, 1)).await?,
    );
    assert_ne!(zero, one);
    assert_eq!(zero, reader.partition(&name(&old, 0)).await?);
    assert_eq!(pull(&mut reader, zero).await.offset, 3);
    let fresh = reader.partition(&name(&new, 0)).await?;
    assert_eq!(reader.offset(fresh), 7);
    let first = pull(&mut reader, fresh).await;
    assert_eq!((first.offset, first.stamp.ordinal), (7, 7));
    assert_eq!(lsn(&next_log(&mut reader).await), 39);
    assert!(reader.peek(one)?.is_none());
    assert_eq!(
        reader.bounds(&name(&new, 0)).await?,
        Bounds { first: 7, end: 40 }
    );
    assert_eq!(reader.log_bounds().await?, Bounds { first: 0, end: 40 });
    let ahead = reader.look_ahead(5, 3).await?;
    assert_eq!(ahead.iter().map(lsn).collect::<Vec<_>>(), [5, 6, 7]);
    // What comes later wakes the reader.
    log.append(&heartbeat(40)).await?;
    assert_eq!(lsn(&next_log(&mut reader).await), 40);
    Ok(())
}

#[tokio::test]
async fn an_offset_that_kafka_does_not_hold_is_a_named_error() -> Tested {
    let settings = settings().await;
    let topic = topic(&settings, "t", 1);
    let mut log = begun(&settings, std::slice::from_ref(&topic)).await;
    for n in 0..10 {
        send(&mut log, n, &topic, n).await;
        log.append(&heartbeat(n)).await?;
    }
    drained(&mut log).await;
    delete_before(&settings, &topic.name, 6).await;
    delete_before(&settings, &settings.commit_log(), 6).await;
    for offset in [5, 11] {
        let mut reader = KafkaLogReader::new(settings.clone());
        reader
            .assign(10, &BTreeMap::from([(name(&topic, 0), offset)]))
            .await?;
        let partition = reader.partition(&name(&topic, 0)).await?;
        let fault = tokio::time::timeout(PATIENCE, async {
            loop {
                match reader.peek(partition) {
                    Err(fault) => return fault,
                    Ok(found) => assert!(found.is_none(), "{found:?}"),
                }
                reader.arrived().await.expect("waiting works");
            }
        });
        let fault = fault.await?;
        assert_eq!(fault.class(), Class::Fatal);
        let expected = format!(
            "topic {}, partition 0 does not hold offset {offset}",
            topic.name
        );
        assert!(fault.to_string().contains(&expected), "{fault}");
        assert!(
            fault.to_string().contains("Begin a new generation"),
            "{fault}"
        );
        let mut reader = KafkaLogReader::new(settings.clone());
        reader.assign(offset, &BTreeMap::new()).await?;
        let fault = tokio::time::timeout(PATIENCE, reader.next_log())
            .await?
            .expect_err("it is gone");
        assert_eq!(fault.class(), Class::Fatal);
        assert!(fault.to_string().contains("commits"), "{fault}");
    }
    Ok(())
}

#[tokio::test]
async fn a_missing_commit_log_is_waited_for_and_a_missing_row_topic_is_fatal() -> Tested {
    let settings = settings().await;
    let mut reader = KafkaLogReader::new(settings.clone());
    assert_eq!(
        reader.log_bounds().await.expect_err("none yet").class(),
        Class::Transient
    );
    let fault = reader
        .bounds(&name(&topic(&settings, "t", 1), 0))
        .await
        .expect_err("none");
    assert_eq!(fault.class(), Class::Fatal);
    Ok(())
}

#[tokio::test]
async fn after_a_seek_no_stale_record_appears() -> Tested {
    let settings = settings().await;
    let mut log = begun(&settings, &[]).await;
    for n in 0..200 {
        send_entry(&mut log, n, &heartbeat(n)).await;
    }
    drained(&mut log).await;
    let mut reader = KafkaLogReader::new(settings.clone());
    reader.assign(0, &BTreeMap::new()).await?;
    reader.seek_log(100).await?;
    assert_eq!(lsn(&next_log(&mut reader).await), 100);
    assert_eq!(lsn(&next_log(&mut reader).await), 101);
    for to in [3, 150, 149, 0, 199, 20, 60] {
        reader.seek_log(to).await?;
        for n in to..(to + 5).min(200) {
            let entry = next_log(&mut reader).await;
            assert_eq!(
                (entry.offset, lsn(&entry)),
                (n, n as u64),
                "after a seek to {to}"
            );
        }
    }
    reader.seek_log(200).await?;
    assert!(reader.buffered_log()?.is_none());
    log.append(&heartbeat(200)).await?;
    assert_eq!(lsn(&next_log(&mut reader).await), 200);
    Ok(())
}

#[tokio::test]
async fn thousands_of_records_are_pulled_in_counts_from_three_topics() -> Tested {
    let settings = settings().await;
    let topics = [
        topic(&settings, "a", 1),
        topic(&settings, "b", 2),
        topic(&settings, "c", 1),
    ];
    let mut log = begun(&settings, &topics).await;
    // What each transaction sent to each partition.
    let mut sent: Vec<BTreeMap<PartitionOffset, Vec<u64>>> = Vec::new();
    for transaction in 0..300 {
        let mut counts: BTreeMap<PartitionOffset, Vec<u64>> = BTreeMap::new();
        for n in 0..30 {
            let (topic, ordinal) = (
                &topics[(transaction + n) as usize % 3],
                transaction * 30 + n,
            );
            let partition = send(&mut log, transaction, topic, ordinal).await;
            counts
                .entry(name(topic, partition))
                .or_default()
                .push(ordinal);
        }
        send_entry(&mut log, transaction, &heartbeat(transaction)).await;
        sent.push(counts);
    }
    drained(&mut log).await;
    let mut reader = KafkaLogReader::new(settings.clone());
    let started = Instant::now();
    reader.assign(0, &BTreeMap::new()).await?;
    for counts in &sent {
        next_log(&mut reader).await;
        for (name, ordinals) in counts {
            let partition = reader.partition(name).await?;
            for ordinal in ordinals {
                assert_eq!(pull(&mut reader, partition).await.stamp.ordinal, *ordinal);
            }
        }
    }
    let took = started.elapsed();
    println!("9,000 records in 300 transactions took {took:?}");
    Ok(())
}

#[tokio::test]
async fn partitions_that_outgrow_the_budget_are_read_on_without_loss_or_repetition() -> Tested {
    const TOPICS: usize = 24;
    const RECORDS: u64 = 120;
    let mut settings = settings().await;
    // Shares shrink from the second row partition on: 512, 256, 128 and 64 KiB.
    settings.fetch_budget_bytes = 1 << 20;
    let topics: Vec<_> = (0..TOPICS)
        .map(|n| topic(&settings, &format!("t{n}"), 1))
        .collect();
    let mut log = begun(&settings, &topics).await;
    for n in 0..RECORDS {
        for topic in &topics {
            send(&mut log, n, topic, n).await;
        }
        send_entry(&mut log, n, &heartbeat(n)).await;
    }
    drained(&mut log).await;
    let mut reader = KafkaLogReader::new(settings.clone());
    reader.assign(0, &BTreeMap::new()).await?;
    let mut partitions: Vec<(walferry_core::Partition, u64)> = Vec::new();
    let (mut entries, mut slowest) = (0, Duration::ZERO);
    for topic in &topics {
        // Whichever is read has more records here, and one that was looked at and left.
        for (partition, next) in &mut partitions {
            for _ in 0..3 {
                assert_eq!(pull(&mut reader, *partition).await.stamp.ordinal, *next);
                *next += 1;
            }
            while reader.peek(*partition)?.is_none() {
                tokio::time::timeout(PATIENCE, reader.arrived()).await??;
            }
        }
        for _ in 0..2 {
            assert_eq!(lsn(&next_log(&mut reader).await), entries);
            entries += 1;
        }
        let started = Instant::now();
        let number = reader.partition(&name(topic, 0)).await?;
        partitions.push((number, 0));
        slowest = slowest.max(started.elapsed());
        for (at, (partition, next)) in partitions.iter().enumerate() {
            assert_eq!(reader.partition(&name(&topics[at], 0)).await?, *partition);
            assert_eq!(reader.offset(*partition), *next as i64);
        }
    }
    println!("adding a partition took {slowest:?} at most");
    for (partition, next) in partitions {
        for ordinal in next..RECORDS {
            assert_eq!(pull(&mut reader, partition).await.stamp.ordinal, ordinal);
        }
        assert!(reader.peek(partition)?.is_none());
    }
    for n in entries..RECORDS {
        assert_eq!(lsn(&next_log(&mut reader).await), n);
    }
    assert!(reader.buffered_log()?.is_none());
    Ok(())
}

#[tokio::test]
async fn reading_goes_on_after_the_broker_dies_without_loss_or_repetition() -> Tested {
    let root = fresh_directory("kafka-test")?;
    let mut kafka = Kafka::start(root.path()).await?;
    let settings = fresh(&kafka);
    let topic = topic(&settings, "t", 1);
    let mut log = begun(&settings, std::slice::from_ref(&topic)).await;
    let mut reader = KafkaLogReader::new(settings.clone());
    reader
        .assign(0, &BTreeMap::from([(name(&topic, 0), 0)]))
        .await?;
    let partition = reader.partition(&name(&topic, 0)).await?;
    let mut next = 0;
    for round in 0..3_u64 {
        for n in round * 1_000..(round + 1) * 1_000 {
            send(&mut log, n, &topic, n).await;
        }
        log.append(&heartbeat(round)).await?;
        drained(&mut log).await;
        for _ in 0..500 {
            assert_eq!(pull(&mut reader, partition).await.stamp.ordinal, next);
            next += 1;
        }
        kafka.kill().await?;
        // Waiting while there is no broker is no error.
        for _ in 0..5 {
            let _ = tokio::time::timeout(Duration::from_millis(100), reader.arrived()).await;
        }
        kafka.restart().await?;
        assert_eq!(lsn(&next_log(&mut reader).await), round);
    }
    for n in 3_000..3_100 {
        send(&mut log, n, &topic, n).await;
    }
    drained(&mut log).await;
    while next < 3_100 {
        assert_eq!(pull(&mut reader, partition).await.stamp.ordinal, next);
        next += 1;
    }
    assert!(reader.peek(partition)?.is_none());
    Ok(())
}

#[tokio::test]
async fn dropping_the_wait_for_a_record_loses_none() -> Tested {
    let settings = settings().await;
    let topic = topic(&settings, "t", 1);
    let mut log = begun(&settings, std::slice::from_ref(&topic)).await;
    let mut reader = KafkaLogReader::new(settings.clone());
    reader
        .assign(0, &BTreeMap::from([(name(&topic, 0), 0)]))
        .await?;
    let partition = reader.partition(&name(&topic, 0)).await?;
    let (mut seen, mut rows, mut dropped) = (0, 0, 0);
    for n in 0..500_u64 {
        send_entry(&mut log, n, &heartbeat(n)).await;
        send(&mut log, n, &topic, n).await;
        tokio::select! {
            biased;
            () = tokio::time::sleep(Duration::from_micros(n % 7 * 100)) => dropped += 1,
            entry = reader.next_log() => {
                assert_eq!(lsn(&entry?), seen);
                seen += 1;
            }
        }
        let _ = tokio::time::timeout(Duration::from_micros(n % 3 * 100), reader.arrived()).await;
        if reader.peek(partition)?.is_some() {
            assert_eq!(
                reader.take(partition).map(|row| row.stamp.ordinal),
                Some(rows)
            );
            rows += 1;
        }
    }
    assert!(dropped > 10, "{dropped}");
    while seen < 500 {
        assert_eq!(lsn(&next_log(&mut reader).await), seen);
        seen += 1;
    }
    while rows < 500 {
        assert_eq!(pull(&mut reader, partition).await.stamp.ordinal, rows);
        rows += 1;
    }
    Ok(())
}

#[tokio::test]
async fn lag_tools_see_the_published_offsets() -> Tested {
    let settings = settings().await;
    let topic = topic(&settings, "t", 1);
    let mut log = begun(&settings, std::slice::from_ref(&topic)).await;
    for n in 0..9 {
        send(&mut log, n, &topic, n).await;
        log.append(&heartbeat(n)).await?;
    }
    drained(&mut log).await;
    let mut reader = KafkaLogReader::new(settings.clone());
    reader
        .assign(0, &BTreeMap::from([(name(&topic, 0), 0)]))
        .await?;
    reader.publish_offsets(2, &BTreeMap::from([(name(&topic, 0), 3)]));
    reader.publish_offsets(4, &BTreeMap::from([(name(&topic, 0), 7)]));

    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &settings.brokers)
        .set("group.id", &settings.group);
    let tool = std::sync::Arc::new(config.create::<BaseConsumer>()?);
    let seen = eventually(PATIENCE, "the offsets to be committed", async || {
        let (tool, commits, rows) = (tool.clone(), settings.commit_log(), topic.name.clone());
        let committed = tokio::task::spawn_blocking(move || {
            let mut asked = TopicPartitionList::new();
            asked.add_partition(&commits, 0);
            asked.add_partition(&rows, 0);
            let found = tool.committed_offsets(asked, Duration::from_secs(5)).ok()?;
            let at = |topic: &str| found.find_partition(topic, 0).map(|found| found.offset());
            Some((at(&commits)?, at(&rows)?))
        });
        committed.await.ok().flatten() == Some((Offset::Offset(4), Offset::Offset(7)))
    });
    // What is due later is published while the reader is waited for.
    let reading = async { while reader.arrived().await.is_ok() {} };
    tokio::select! {
        seen = seen => seen?,
        () = reading => return Err("the reader failed".into()),
    }
    Ok(())
}

#[tokio::test]
async fn a_large_record_passes_a_small_budget() -> Tested {
    let mut settings = settings().await;
    settings.fetch_budget_bytes = 64 << 10;
    let topic = topic(&settings, "t", 1);
    let mut log = begun(&settings, std::slice::from_ref(&topic)).await;
    let noise: Vec<u8> = (0..900_000_u64)
        .map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8)
        .collect();
    for n in 0..5 {
        let position = stamp(n).to_string();
        let headers: [(&str, &[u8]); 1] = [(POSITION, position.as_bytes())];
        send_record(
            &mut log,
            n,
            &Record {
                topic: &topic,
                key: None,
                value: Some(&noise),
                timestamp: 0,
                headers: &headers,
            },
        )
        .await;
    }
    drained(&mut log).await;
    let mut reader = KafkaLogReader::new(settings.clone());
    reader
        .assign(0, &BTreeMap::from([(name(&topic, 0), 0)]))
        .await?;
    let partition = reader.partition(&name(&topic, 0)).await?;
    for n in 0..5 {
        let record = pull(&mut reader, partition).await;
        assert_eq!(
            (record.stamp.ordinal, record.value.as_deref()),
            (n, Some(&noise[..]))
        );
    }
    Ok(())
}

#[tokio::test]
#[ignore = "measures; run alone, with --nocapture"]
async fn the_first_record_comes_well_within_half_a_second_and_dropping_does_not_block() -> Tested {
    let settings = settings().await;
    let topic = topic(&settings, "t", 1);
    let mut log = begun(&settings, std::slice::from_ref(&topic)).await;
    for n in 0..1_000 {
        send(&mut log, n, &topic, n).await;
    }
    log.append(&heartbeat(0)).await?;
    drained(&mut log).await;
    let mut reader = KafkaLogReader::new(settings.clone());
    let started = Instant::now();
    reader.log_bounds().await?;
    let asked = started.elapsed();
    reader.look_ahead(0, 1).await?;
    let looked = started.elapsed();
    reader
        .assign(0, &BTreeMap::from([(name(&topic, 0), 0)]))
        .await?;
    let partition = reader.partition(&name(&topic, 0)).await?;
    next_log(&mut reader).await;
    pull(&mut reader, partition).await;
    let first = started.elapsed();
    drop(reader);
    let dropped = started.elapsed() - first;
    println!("bounds {asked:?}, look ahead {looked:?}, first records {first:?}, drop {dropped:?}");
    assert!(first < Duration::from_secs(1), "{first:?}");
    assert!(dropped < Duration::from_millis(20), "{dropped:?}");
    Ok(())
}
