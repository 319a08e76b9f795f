//! The reader alone: into Kafka, and into a log that keeps nothing, beside PostgreSQL's own client.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio_util::sync::CancellationToken;
use walferry::capture::{Capture, CaptureOptions, ExtraTopics};
use walferry_core::Tasks;
use walferry_harness::{Process, eventually, postgres_program};
use walferry_postgres::{ReplicationSource, Settings};
use walferry_schema::Modes;

use crate::cost::Cost;
use crate::error::{Error, Result};
use crate::null_log::NullLog;
use crate::report::{Bar, Line, Unit};
use crate::rig::{DEADLINE, Pipeline, Rig, Way};

const ASKING: Duration = Duration::from_secs(5);
const LIMIT_SLOT: &str = "pg_recvlogical_limit";

/// Both readers over one backlog each, with PostgreSQL's client over the same.
pub(crate) async fn measure(rig: &Rig, rows: u64) -> Result<Vec<Line>> {
    let mut lines = into_kafka(rig, rows).await?;
    lines.extend(into_nothing(rig, rows).await?);
    Ok(lines)
}

async fn into_kafka(rig: &Rig, rows: u64) -> Result<Vec<Line>> {
    let pipeline = rig.pipeline("reader", Way::Kafka).await?;
    let reader = pipeline.start(&["run", "--role", "reader"])?;
    let topic = format!("{}.public.transactions", pipeline.name);
    // The snapshot is in Kafka when the stream behind it arrives there.
    eventually(DEADLINE, "the reader's topics", async || {
        reader.check().is_err() || end(rig, &topic).is_ok()
    })
    .await?;
    pipeline.sql.batch_execute("call sale(4, 5)").await?;
    await_end(rig, &topic, 1).await?;
    reader.stop().await?;
    let slot = limit_slot(&pipeline).await?;
    pipeline.backlog(rows).await?;
    let limit = receive(&pipeline, &slot, rows).await?;
    let from = end(rig, &topic)?;
    // Its start counts, as PostgreSQL's own client's does.
    let begun = Instant::now();
    let reader = pipeline.start(&["run", "--role", "reader"])?;
    await_end(rig, &topic, from + 1).await?;
    let first = begun.elapsed();
    await_end(rig, &topic, from + rows as i64 / 10).await?;
    let rows = rows as f64;
    let rate = rows / begun.elapsed().as_secs_f64();
    let cpu = reader.cost()?.cpu_seconds;
    let peak = reader.cost()?.peak_mb;
    reader.stop().await?;
    Ok(vec![
        Line::new("reader into kafka: row changes", rate, Unit::PerSecond)
            .beside("pg_recvlogical to /dev/null", limit)
            .bar(Bar::OfLimit(0.8)),
        Line::new(
            "reader into kafka: CPU per million",
            cpu * 1e6 / rows,
            Unit::Seconds,
        ),
        Line::new("reader into kafka: peak memory", peak, Unit::Megabytes),
        Line::new(
            "reader into kafka: start to first record",
            first.as_secs_f64(),
            Unit::Seconds,
        ),
    ])
}

/// The engine's own capture in this process; its term writes into a [`NullLog`].
async fn into_nothing(rig: &Rig, rows: u64) -> Result<Vec<Line>> {
    let pipeline = rig.pipeline("null", Way::Direct).await?;
    let log = NullLog::default();
    let (stop, first) = capture(&pipeline, &log)?;
    log.await_open().await;
    let behind_snapshot = log.len() + 1;
    pipeline.sql.batch_execute("call sale(4, 5)").await?;
    log.await_len(behind_snapshot).await;
    stop.cancel();
    first.await??;
    let slot = limit_slot(&pipeline).await?;
    pipeline.backlog(rows).await?;
    let limit = receive(&pipeline, &slot, rows).await?;
    // Its start counts, as PostgreSQL's own client's does.
    let (begun, cpu) = (Instant::now(), Cost::of(std::process::id())?.cpu_seconds);
    // The term's `open` is not yet a transaction.
    let from = log.len() + 1;
    let (stop, second) = capture(&pipeline, &log)?;
    let transactions = usize::try_from(rows / 10).unwrap_or_default();
    log.await_len(from + transactions).await;
    let elapsed = begun.elapsed().as_secs_f64();
    let cpu = Cost::of(std::process::id())?.cpu_seconds - cpu;
    stop.cancel();
    second.await??;
    let rows = rows as f64;
    Ok(vec![
        Line::new(
            "reader into a null log: row changes",
            rows / elapsed,
            Unit::PerSecond,
        )
        .beside("pg_recvlogical to /dev/null", limit)
        .bar(Bar::OfLimit(0.9)),
        Line::new(
            "reader into a null log: CPU per million",
            cpu * 1e6 / rows,
            Unit::Seconds,
        ),
    ])
}

type Term = tokio::task::JoinHandle<Result<(), walferry::capture::CaptureError>>;

fn capture(pipeline: &Pipeline<'_>, log: &NullLog) -> Result<(CancellationToken, Term)> {
    let tasks = Tasks::default();
    let url = pipeline.rig.postgres.url_of(&pipeline.name);
    let settings = Settings::new(&url, &pipeline.name, "bench");
    let source = ReplicationSource::new(settings, tasks.clone());
    let source = source.map_err(|source| Error::Io {
        doing: "connecting a source".into(),
        source: std::io::Error::other(source),
    })?;
    let options = CaptureOptions {
        slot: pipeline.name.clone(),
        publication: "bench".into(),
        prefix: pipeline.name.clone(),
        partitions: 1,
        tombstones: false,
        extra_topics: ExtraTopics::default(),
        modes: Modes::default(),
        max_row_bytes: 32 << 20,
        heartbeat: Duration::from_secs(5),
        is_alone: false,
        longest_term: Duration::from_hours(24),
        selects: Arc::new(|_| true),
        clock: Arc::new(SystemTime::now),
    };
    let stop = CancellationToken::new();
    let mut capture = Capture::new(source, log.clone(), options, stop.clone(), false);
    let term = tasks.spawn(async move { Box::pin(capture.run_term()).await });
    Ok((stop, term))
}

/// A slot over the backlog to come, for PostgreSQL's own client.
async fn limit_slot(pipeline: &Pipeline<'_>) -> Result<String> {
    let slot = format!("{}_{LIMIT_SLOT}", pipeline.name);
    let make = format!("select pg_create_logical_replication_slot('{slot}', 'pgoutput')");
    pipeline.sql.query_one(&make, &[]).await?;
    Ok(slot)
}

/// Row changes per second that `pg_recvlogical` takes from the same slot position on.
async fn receive(pipeline: &Pipeline<'_>, slot: &str, rows: u64) -> Result<f64> {
    let end = "select pg_current_wal_insert_lsn()::text";
    let end: String = pipeline.sql.query_one(end, &[]).await?.get(0);
    let mut command = Command::new(postgres_program("pg_recvlogical")?);
    let url = pipeline.rig.postgres.url_of(&pipeline.name);
    command
        .args([
            "-d",
            &url,
            "-S",
            slot,
            "--start",
            "-f",
            "/dev/null",
            "-E",
            &end,
        ])
        .args(["-o", "proto_version=1", "-o", "publication_names=bench"]);
    let log = pipeline.config.with_extension("recvlogical.log");
    let begun = Instant::now();
    let receiver = Process::spawn(&command, &log)?;
    let status = receiver.wait(DEADLINE).await?;
    let rate = rows as f64 / begun.elapsed().as_secs_f64();
    if !status.success() {
        let (program, tail) = ("pg_recvlogical".to_owned(), receiver.log_tail());
        return Err(Error::Program { program, tail });
    }
    let drop = format!("select pg_drop_replication_slot('{slot}')");
    pipeline.sql.query_one(&drop, &[]).await?;
    Ok(rate)
}

/// The offset after a topic's last record.
fn end(rig: &Rig, topic: &str) -> Result<i64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", rig.kafka.brokers())
        .create()?;
    tokio::task::block_in_place(|| Ok(consumer.fetch_watermarks(topic, 0, ASKING)?.1))
}

async fn await_end(rig: &Rig, topic: &str, offset: i64) -> Result<()> {
    let what = format!("offset {offset} of {topic}");
    Ok(eventually(DEADLINE, &what, async || {
        end(rig, topic).is_ok_and(|it| it >= offset)
    })
    .await?)
}
