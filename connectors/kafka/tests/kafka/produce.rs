use std::time::{Duration, Instant};

use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use walferry_core::{Accepted, Class, Log, LogReader, LogTail, Pace, Record};
use walferry_harness::{Kafka, fresh_directory};
use walferry_kafka::{KafkaLog, KafkaLogReader};
use walferry_schema::header::POSITION;

use crate::rig::{
    PATIENCE, Tested, admin, begun, delete_before, drained, fresh, heartbeat, lsn, send,
    send_entry, send_record, settings, stamp, topic,
};

#[tokio::test]
async fn the_oldest_entry_rises_as_acknowledgements_come_in_order() -> Tested {
    let settings = settings().await;
    let topic = topic(&settings, "t", 3);
    let mut log = begun(&settings, std::slice::from_ref(&topic)).await;
    assert_eq!(log.outstanding(), None);
    for entry in 1..=50 {
        send(&mut log, entry, &topic, entry).await;
        send_entry(&mut log, entry, &heartbeat(entry)).await;
    }
    let mut seen = 0;
    while let Some(oldest) = log.outstanding() {
        assert!(oldest >= seen, "{oldest} after {seen}");
        seen = oldest;
        tokio::time::timeout(PATIENCE, log.progress()).await??;
    }
    assert_eq!(log.bounds().await?, LogTail { first: 0, end: 50 });
    Ok(())
}

#[tokio::test]
async fn append_gives_the_offset_and_the_log_reads_back() -> Tested {
    let settings = settings().await;
    let mut log = begun(&settings, &[]).await;
    assert_eq!(log.bounds().await?, LogTail { first: 0, end: 0 });
    assert!(log.read(0, 10).await?.is_empty());
    for n in 0..10 {
        assert_eq!(log.append(&heartbeat(100 + n)).await?, n as i64);
    }
    assert_eq!(log.bounds().await?, LogTail { first: 0, end: 10 });
    let pages = [
        (0, 4, 100..104),
        (4, 4, 104..108),
        (8, 4, 108..110),
        (3, 1, 103..104),
        (10, 5, 0..0),
        (99, 5, 0..0),
    ];
    for (from, limit, expected) in pages {
        let read: Vec<u64> = log.read(from, limit).await?.iter().map(lsn).collect();
        assert_eq!(read, expected.collect::<Vec<_>>(), "from {from}");
    }
    log.append(&heartbeat(110)).await?;
    assert_eq!(
        log.read(10, 5).await?.iter().map(lsn).collect::<Vec<_>>(),
        [110]
    );
    Ok(())
}

#[tokio::test]
async fn the_order_is_kept_over_changes_of_the_pace() -> Tested {
    let settings = settings().await;
    let mut log = begun(&settings, &[]).await;
    for (entry, pace) in (0..).zip([Pace::Bulk, Pace::Prompt, Pace::Bulk]) {
        log.pace(pace).await?;
        for n in 0..100 {
            send_entry(&mut log, entry, &heartbeat(100 * entry + n)).await;
        }
        let refused = log.pace(pace).await.err().map(|fault| fault.to_string());
        assert_eq!(
            refused.as_deref(),
            Some("changing the pace while records are in flight")
        );
        drained(&mut log).await;
    }
    let read: Vec<u64> = log.read(0, 1_000).await?.iter().map(lsn).collect();
    assert_eq!(read, (0..300).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn reading_on_finds_what_was_appended_after_the_log_had_ended() -> Tested {
    let settings = settings().await;
    let mut log = begun(&settings, &[]).await;
    for n in 0..4 {
        log.append(&heartbeat(n)).await?;
    }
    for n in 4..8 {
        // As many as are there: the place is kept, and the end is met behind it.
        let from = if n == 4 { 0 } else { n as i64 - 1 };
        let limit = usize::try_from(n as i64 - from)?;
        assert_eq!(log.read(from, limit).await?.len(), limit, "before {n}");
        tokio::time::sleep(Duration::from_millis(300)).await;
        log.append(&heartbeat(n)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn reading_from_below_the_first_offset_begins_at_the_first_that_is_left() -> Tested {
    let settings = settings().await;
    let mut log = begun(&settings, &[]).await;
    for n in 0..10 {
        log.append(&heartbeat(n)).await?;
    }
    delete_before(&settings, &settings.commit_log(), 6).await;
    assert_eq!(log.bounds().await?, LogTail { first: 6, end: 10 });
    let read = log.read(0, 3).await?;
    assert_eq!(
        read.iter().map(|entry| entry.offset).collect::<Vec<_>>(),
        [6, 7, 8]
    );
    Ok(())
}

#[tokio::test]
async fn a_record_that_is_too_large_is_poison_and_the_largest_goes_through() -> Tested {
    let mut settings = settings().await;
    settings.max_record_bytes = 100_000;
    let topic = topic(&settings, "t", 1);
    let mut log = begun(&settings, std::slice::from_ref(&topic)).await;
    // Random enough that compression does not make it small.
    let noise: Vec<u8> = (0..100_001_u64)
        .map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8)
        .collect();
    let record = |value| Record {
        topic: &topic,
        key: None,
        value: Some(value),
        timestamp: 0,
        headers: &[],
    };
    let fault = log
        .send_row(1, &record(&noise))
        .expect_err("it is too large");
    assert_eq!(fault.class(), Class::Poison);
    let message = fault.to_string();
    assert!(
        message.contains("record of 100001 bytes") && message.contains(&*topic.name),
        "{message}"
    );
    assert!(
        message.contains("limit of 100000") && message.contains("max_record_bytes"),
        "{message}"
    );
    assert_eq!(log.outstanding(), None);
    log.send_row(1, &record(&noise[1..]))?;
    drained(&mut log).await;
    Ok(())
}

#[tokio::test]
async fn a_record_is_too_large_where_its_topic_takes_less_than_the_settings() -> Tested {
    let mut settings = settings().await;
    let (small, other) = (topic(&settings, "small", 1), topic(&settings, "other", 1));
    settings.max_record_bytes = 50_000;
    begun(&settings, std::slice::from_ref(&small)).await;
    settings.max_record_bytes = 500_000;
    let log = begun(&settings, &[small.clone(), other.clone()]).await;
    assert_eq!(log.largest_record_bytes(&small), 50_000);
    assert_eq!(log.largest_record_bytes(&other), 500_000);
    let value = vec![7; 50_001];
    let record = |topic| Record {
        topic,
        key: None,
        value: Some(&value),
        timestamp: 0,
        headers: &[],
    };
    log.check_row(&record(&other))?;
    let fault = log.check_row(&record(&small)).expect_err("it is too large");
    assert_eq!(fault.class(), Class::Poison);
    assert!(fault.to_string().contains("limit of 50000"), "{fault}");
    Ok(())
}

#[tokio::test]
async fn a_record_that_the_broker_refuses_ends_the_term_as_poison() -> Tested {
    let mut settings = settings().await;
    let topic = topic(&settings, "t", 1);
    settings.max_record_bytes = 50_000;
    let mut log = begun(&settings, std::slice::from_ref(&topic)).await;
    settings.max_record_bytes = 500_000;
    settings.compression = walferry_kafka::Compression::None;
    let mut larger = KafkaLog::new(settings.clone());
    // It does not know what the topic takes.
    larger.begin().await?;
    let value = vec![7; 400_000];
    larger.send_row(
        1,
        &Record {
            topic: &topic,
            key: None,
            value: Some(&value),
            timestamp: 0,
            headers: &[],
        },
    )?;
    let fault = loop {
        match tokio::time::timeout(PATIENCE, larger.progress()).await? {
            Ok(()) => assert!(larger.outstanding().is_some()),
            Err(fault) => break fault,
        }
    };
    assert_eq!(fault.class(), Class::Poison, "{fault}");
    assert!(fault.to_string().contains("400000 bytes"), "{fault}");
    assert_eq!(larger.outstanding(), Some(1));
    assert!(larger.send_log(2, b"{}").is_err());
    // The next term is sound.
    larger.begin().await?;
    assert_eq!(larger.outstanding(), None);
    assert_eq!(larger.append(&heartbeat(1)).await?, 0);
    assert_eq!(log.append(&heartbeat(2)).await?, 1);
    Ok(())
}

#[tokio::test]
async fn batches_fit_a_small_topic_that_is_found_after_the_term_began() -> Tested {
    let mut settings = settings().await;
    settings.compression = walferry_kafka::Compression::None;
    let (small, other) = (topic(&settings, "small", 1), topic(&settings, "other", 1));
    let new = NewTopic::new(&small.name, 1, TopicReplication::Fixed(1));
    let new = new.set("max.message.bytes", "20000");
    admin(&settings)
        .create_topics(&[new], &AdminOptions::new())
        .await?;
    let mut log = KafkaLog::new(settings.clone());
    log.begin().await?;
    log.ensure_topics(&[]).await?;
    assert_eq!(log.append(&heartbeat(0)).await?, 0);
    log.ensure_topics(std::slice::from_ref(&small)).await?;
    let value = [7; 1_000];
    let record = Record {
        topic: &small,
        key: None,
        value: Some(&value),
        timestamp: 0,
        headers: &[],
    };
    for entry in 0..500 {
        send_record(&mut log, entry, &record).await;
    }
    drained(&mut log).await;
    // The next term knows of it although another topic was asked for last.
    log.ensure_topics(&[other]).await?;
    log.begin().await?;
    for entry in 0..500 {
        send_record(&mut log, entry, &record).await;
    }
    drained(&mut log).await;
    assert_eq!(log.append(&heartbeat(1)).await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_full_queue_pushes_back_and_goes_on() -> Tested {
    let mut settings = settings().await;
    settings
        .extra
        .insert("queue.buffering.max.messages".into(), "100".into());
    let topic = topic(&settings, "t", 2);
    let mut log = begun(&settings, std::slice::from_ref(&topic)).await;
    let position = stamp(0).to_string();
    let headers: [(&str, &[u8]); 1] = [(POSITION, position.as_bytes())];
    let (mut sent, mut full) = (0, 0);
    while sent < 5_000_u64 {
        let key = sent.to_string();
        let record = Record {
            topic: &topic,
            key: Some(key.as_bytes()),
            value: None,
            timestamp: 0,
            headers: &headers,
        };
        match log.send_row(sent, &record)? {
            Accepted::Partition(_) => sent += 1,
            Accepted::Full => {
                full += 1;
                tokio::time::timeout(PATIENCE, log.progress()).await??;
            }
        }
    }
    drained(&mut log).await;
    assert!(full > 0);
    let mut reader = KafkaLogReader::new(settings);
    let mut held = 0;
    for partition in 0..2 {
        held += reader
            .bounds(&crate::rig::name(&topic, partition))
            .await?
            .end;
    }
    assert_eq!(held, 5_000);
    Ok(())
}

#[tokio::test]
async fn begin_drops_what_the_old_producer_still_holds() -> Tested {
    let root = fresh_directory("kafka-test")?;
    let mut kafka = Kafka::start(root.path()).await?;
    let settings = fresh(&kafka);
    let topic = topic(&settings, "t", 1);
    let mut log = begun(&settings, std::slice::from_ref(&topic)).await;
    send(&mut log, 1, &topic, 1).await;
    drained(&mut log).await;
    kafka.kill().await?;
    for entry in 2..500 {
        send(&mut log, entry, &topic, entry).await;
    }
    assert_eq!(log.outstanding(), Some(2));
    let started = Instant::now();
    log.begin().await?;
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(log.outstanding(), None);
    send(&mut log, 900, &topic, 900).await;
    kafka.restart().await?;
    drained(&mut log).await;
    let mut reader = KafkaLogReader::new(settings.clone());
    reader
        .assign(0, &[(crate::rig::name(&topic, 0), 0)].into())
        .await?;
    let partition = reader.partition(&crate::rig::name(&topic, 0)).await?;
    let ordinals = [
        crate::rig::pull(&mut reader, partition).await.stamp.ordinal,
        crate::rig::pull(&mut reader, partition).await.stamp.ordinal,
    ];
    assert_eq!(ordinals, [1, 900]);
    assert_eq!(reader.bounds(&crate::rig::name(&topic, 0)).await?.end, 2);
    Ok(())
}

#[tokio::test]
async fn unacknowledged_records_survive_a_broker_that_dies_and_comes_back() -> Tested {
    let root = fresh_directory("kafka-test")?;
    let mut kafka = Kafka::start(root.path()).await?;
    let settings = fresh(&kafka);
    let topic = topic(&settings, "t", 1);
    let mut log = begun(&settings, std::slice::from_ref(&topic)).await;
    for entry in 0..2_000 {
        send(&mut log, entry, &topic, entry).await;
    }
    kafka.kill().await?;
    for entry in 2_000..4_000 {
        send(&mut log, entry, &topic, entry).await;
    }
    kafka.restart().await?;
    drained(&mut log).await;
    let mut reader = KafkaLogReader::new(settings.clone());
    reader
        .assign(0, &[(crate::rig::name(&topic, 0), 0)].into())
        .await?;
    let partition = reader.partition(&crate::rig::name(&topic, 0)).await?;
    for ordinal in 0..4_000 {
        assert_eq!(
            crate::rig::pull(&mut reader, partition).await.stamp.ordinal,
            ordinal
        );
    }
    Ok(())
}

#[tokio::test]
async fn sending_before_a_term_has_begun_is_an_error() {
    let mut log = KafkaLog::new(walferry_kafka::Settings::new("127.0.0.1:1", "p"));
    assert_eq!(
        log.append(&heartbeat(1))
            .await
            .expect_err("no term")
            .class(),
        Class::Fatal
    );
}

#[tokio::test]
#[ignore = "measures; run alone, with --nocapture"]
async fn a_term_acknowledges_its_first_record_well_within_half_a_second() -> Tested {
    let settings = settings().await;
    let topic = topic(&settings, "t", 1);
    let mut log = KafkaLog::new(settings.clone());
    log.ensure_topics(std::slice::from_ref(&topic)).await?;
    let started = Instant::now();
    log.begin().await?;
    log.append(&heartbeat(1)).await?;
    let opened = started.elapsed();
    send(&mut log, 1, &topic, 1).await;
    drained(&mut log).await;
    println!(
        "begin and append took {opened:?}, the first row {:?}",
        started.elapsed() - opened
    );
    assert!(
        started.elapsed() < Duration::from_millis(1_000),
        "{:?}",
        started.elapsed()
    );
    Ok(())
}
