//! What a record's way costs; run by hand, one at a time:
//! `cargo test --release -p walferry-kafka --test kafka -- --ignored --nocapture --test-threads 1`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use walferry_core::{Accepted, Log, LogReader, Record, TopicSpec};
use walferry_kafka::{KafkaLog, KafkaLogReader, Settings};
use walferry_schema::header::{COLUMNS, NEW_KEY, OLD_KEY, POSITION};

use crate::rig::{
    Tested, begun, drained, heartbeat, name, next_log, pull, send, send_entry, settings, stamp,
    topic,
};

/// Topics `t0`, `t1`, ... of one partition, and a log in a term.
async fn several(settings: &Settings, count: usize) -> (Vec<TopicSpec>, KafkaLog) {
    let named = |n| topic(settings, &format!("t{n}"), 1);
    let topics: Vec<_> = (0..count).map(named).collect();
    let log = begun(settings, &topics).await;
    (topics, log)
}

/// A reader of all topics from their first record.
async fn reading(settings: &Settings, topics: &[TopicSpec]) -> KafkaLogReader {
    let mut reader = KafkaLogReader::new(settings.clone());
    let rows: BTreeMap<_, _> = topics.iter().map(|topic| (name(topic, 0), 0)).collect();
    reader.assign(0, &rows).await.expect("it is assigned");
    reader
}

fn report(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |share: usize| took[(took.len() - 1) * share / 100];
    println!(
        "{what}: p50 {:?}, p90 {:?}, p99 {:?}, most {:?}",
        at(50),
        at(90),
        at(99),
        at(100)
    );
}

#[tokio::test]
#[ignore = "measures"]
async fn how_long_one_record_at_a_time_takes() -> Tested {
    let settings = settings().await;
    let (topics, mut log) = several(&settings, 4).await;
    let mut reader = reading(&settings, &topics).await;
    let (mut rows, mut entries, mut acknowledged) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..600_u64 {
        // Out of step with any timer.
        tokio::time::sleep(Duration::from_millis(5 + n * 7 % 31)).await;
        let topic = &topics[n as usize % topics.len()];
        let partition = reader.partition(&name(topic, 0)).await?;
        let started = Instant::now();
        send(&mut log, n, topic, n).await;
        send_entry(&mut log, n, &heartbeat(n)).await;
        next_log(&mut reader).await;
        entries.push(started.elapsed());
        pull(&mut reader, partition).await;
        rows.push(started.elapsed());
        drained(&mut log).await;
        acknowledged.push(started.elapsed());
    }
    report("to the commit log's record", entries.split_off(100));
    report("to the row's record", rows.split_off(100));
    report("to the acknowledgement", acknowledged.split_off(100));
    Ok(())
}

#[tokio::test]
#[ignore = "measures"]
async fn how_fast_one_busy_partition_is_read_beside_idle_ones() -> Tested {
    const RECORDS: u64 = 100_000;
    for budget in [16 << 20, 1 << 20] {
        let mut settings = settings().await;
        settings.fetch_budget_bytes = budget;
        let (topics, mut log) = several(&settings, 16).await;
        for n in 0..RECORDS {
            send(&mut log, n, &topics[3], n).await;
        }
        drained(&mut log).await;
        let mut reader = reading(&settings, &topics).await;
        let partition = reader.partition(&name(&topics[3], 0)).await?;
        pull(&mut reader, partition).await;
        let started = Instant::now();
        for _ in 1..RECORDS {
            pull(&mut reader, partition).await;
        }
        let took = started.elapsed();
        println!(
            "budget {budget}: {:.0} records/s",
            RECORDS as f64 / took.as_secs_f64()
        );
    }
    Ok(())
}

#[tokio::test]
#[ignore = "measures"]
async fn what_an_idle_reader_costs() -> Tested {
    let settings = settings().await;
    let (topics, log) = several(&settings, 16).await;
    drop(log);
    let mut reader = reading(&settings, &topics).await;
    let wait = Duration::from_secs(10);
    let _ = tokio::time::timeout(Duration::from_secs(1), reader.next_log()).await;
    let cpu = cpu_time();
    let _ = tokio::time::timeout(wait, reader.next_log()).await;
    let used = (cpu_time() - cpu).as_secs_f64() / wait.as_secs_f64();
    println!("idle: {:.2} % of a core in the process", used * 100.0);
    Ok(())
}

#[tokio::test]
#[ignore = "measures"]
async fn how_many_records_pass_in_a_second() -> Tested {
    const RECORDS: u64 = 1_000_000;
    let settings = settings().await;
    let (topics, mut log) = several(&settings, 4).await;
    let (value, columns) = ([b'v'; 120], [b'c'; 150]);
    let (begun, cpu) = (Instant::now(), cpu_time());
    let mut sending = Duration::ZERO;
    for n in 0..RECORDS {
        let (position, key) = (stamp(n).to_string(), n.to_string());
        let headers: [(&str, &[u8]); 4] = [
            (POSITION, position.as_bytes()),
            (COLUMNS, &columns),
            (OLD_KEY, b"{\"id\":1}"),
            (NEW_KEY, b"{\"id\":2}"),
        ];
        let record = Record {
            topic: &topics[n as usize % topics.len()],
            key: Some(key.as_bytes()),
            value: Some(&value),
            timestamp: 1_000,
            headers: &headers,
        };
        loop {
            let started = Instant::now();
            let sent = log.send_row(n / 10, &record)?;
            sending += started.elapsed();
            match sent {
                Accepted::Partition(_) => break,
                Accepted::Full => log.progress().await?,
            }
        }
    }
    drained(&mut log).await;
    tell("sent", RECORDS, begun.elapsed(), cpu_time() - cpu, sending);

    let mut reader = reading(&settings, &topics).await;
    let mut partitions = Vec::new();
    for topic in &topics {
        partitions.push(reader.partition(&name(topic, 0)).await?);
    }
    let (begun, cpu) = (Instant::now(), cpu_time());
    let mut reading = Duration::ZERO;
    let mut left = RECORDS;
    while left > 0 {
        let (started, before) = (Instant::now(), left);
        for partition in &partitions {
            while left > 0 && reader.peek(*partition)?.is_some() {
                reader.take(*partition);
                left -= 1;
            }
        }
        reading += started.elapsed();
        if left == before {
            reader.arrived().await?;
        }
    }
    tell("read", RECORDS, begun.elapsed(), cpu_time() - cpu, reading);
    Ok(())
}

fn tell(what: &str, records: u64, took: Duration, cpu: Duration, own: Duration) {
    println!(
        "{what} {:.0} records/s; per million {cpu:?} of CPU in the process, {own:?} in our calls",
        records as f64 / took.as_secs_f64()
    );
}

/// What this process has used so far; Kafka is another one.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.split(' ').collect();
    let ticks: u64 = [13, 14]
        .iter()
        .filter_map(|at| fields[*at].parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10)
}

#[tokio::test]
#[ignore = "measures"]
async fn how_long_a_new_term_takes_to_write_its_first_record() -> Tested {
    let settings = settings().await;
    let (_, mut log) = several(&settings, 4).await;
    let mut took = Vec::new();
    for n in 0..40_u64 {
        // As a process that starts: nothing is left of the connections before.
        let started = Instant::now();
        log.begin().await?;
        log.append(&heartbeat(n)).await?;
        took.push(started.elapsed());
    }
    report("to the first record of a term", took);
    Ok(())
}
