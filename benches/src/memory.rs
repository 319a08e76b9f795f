//! The engine's peak memory under a giant transaction and under large rows.

use std::time::Instant;

use walferry_harness::eventually;

use crate::error::Result;
use crate::report::{Bar, Line, Unit};
use crate::rig::{DEADLINE, Pipeline, Rig, Way};
use crate::screen;

const LARGE_ROW_BYTES: u64 = 64 * 1024;
/// Large rows a transaction.
const LARGE_ROWS: u64 = 20;

/// Both shapes, through one way.
pub(crate) async fn measure(rig: &Rig, way: Way, rows: u64) -> Result<Vec<Line>> {
    let mut lines = giant(rig, way, rows).await?;
    lines.extend(large(rig, way, (rows / 1_000).max(20)).await?);
    Ok(lines)
}

/// One transaction of so many rows.
async fn giant(rig: &Rig, way: Way, rows: u64) -> Result<Vec<Line>> {
    let pipeline = rig.pipeline("giant", way).await?;
    pipeline.settle().await?;
    screen::say(format_args!(
        "{}: {rows} rows in one transaction",
        pipeline.name
    ));
    let insert = format!(
        "insert into transactiondetails select 1000000 + i, i % 1000, 1 + i % 5 from generate_series(1, {rows}) i"
    );
    pipeline.sql.batch_execute(&insert).await?;
    let what = format!("memory {}: {rows} rows in a transaction", way.name());
    let most = (way == Way::Kafka).then_some(130.0);
    follow(&pipeline, what, "transactiondetails", rows + 4, most).await
}

/// Rows of 64 KiB that do not compress into nothing.
async fn large(rig: &Rig, way: Way, rows: u64) -> Result<Vec<Line>> {
    let pipeline = rig.pipeline("large", way).await?;
    pipeline.settle().await?;
    screen::say(format_args!("{}: {rows} rows of 64 KiB", pipeline.name));
    let pieces = LARGE_ROW_BYTES / 32;
    for first in (1..=rows).step_by(usize::try_from(LARGE_ROWS).unwrap_or(1)) {
        let last = rows.min(first + LARGE_ROWS - 1);
        let insert = format!(
            "insert into wide select i, (select string_agg(md5(i::text || '-' || p::text), '') \
             from generate_series(1, {pieces}) p) from generate_series({first}, {last}) i"
        );
        pipeline.sql.batch_execute(&insert).await?;
    }
    let what = format!("memory {}: rows of 64 KiB", way.name());
    let most = (way == Way::Kafka).then_some(300.0);
    follow(&pipeline, what, "wide", rows, most).await
}

/// Runs the engine until everything is there.
async fn follow(
    pipeline: &Pipeline<'_>,
    what: String,
    collection: &str,
    documents: u64,
    most: Option<f64>,
) -> Result<Vec<Line>> {
    let begun = Instant::now();
    let engine = pipeline.start(&["run"])?;
    pipeline.await_count(&engine, collection, documents).await?;
    let elapsed = begun.elapsed().as_secs_f64();
    eventually(DEADLINE, "the last piece", async || {
        pipeline.check(&what).await
    })
    .await?;
    let peak = engine.cost()?.peak_mb;
    engine.stop().await?;
    let rate = documents as f64 / elapsed;
    let memory = Line::new(what.clone(), peak, Unit::Megabytes);
    Ok(vec![
        match most {
            Some(most) => memory.bar(Bar::AtMost(most)),
            None => memory,
        },
        Line::new(format!("{what}, with the start"), rate, Unit::PerSecond),
    ])
}
