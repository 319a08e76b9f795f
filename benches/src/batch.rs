//! The batch load, beside raw inserts by the same driver.

use std::time::{Duration, Instant};

use bson::{Document, RawDocumentBuf, doc, rawdoc};
use futures_util::{StreamExt, TryStreamExt, stream};
use mongodb::Database;

use crate::cost::Cost;
use crate::error::{Error, Result};
use crate::report::{Bar, Line, Unit};
use crate::rig::{Pipeline, Rig, Way};
use crate::screen;

/// As many as the loader puts into one command.
const DOCUMENTS: usize = 2_000;
/// More do not make mongod faster on two cores.
const IN_FLIGHT: usize = 4;
const TABLE: &str = "sales_archive";

/// `walferry backfill` of so many rows.
pub(crate) async fn measure(rig: &Rig, rows: u64) -> Result<Vec<Line>> {
    let pipeline = rig.pipeline("batch", Way::Direct).await?;
    fill(&pipeline, rows).await?;
    let begun = Instant::now();
    let load = pipeline.start(&["backfill"])?;
    let mut cost = load.cost()?;
    // A process that has ended has no memory any more, and soon no cost at all.
    let ended = loop {
        tokio::select! {
            ended = load.finish() => break ended,
            () = tokio::time::sleep(Duration::from_millis(50)) => {
                let now = load.cost().unwrap_or(cost);
                cost = Cost { peak_mb: now.peak_mb.max(cost.peak_mb), ..now };
            }
        }
    };
    ended?;
    let elapsed = begun.elapsed();
    let loaded = pipeline.count(TABLE).await?;
    if loaded != rows {
        return Err(Error::Different {
            after: "the batch load".into(),
            difference: format!("{rows} rows, {loaded} documents"),
        });
    }
    let limit = rows as f64 / raw_inserts(&pipeline).await?.as_secs_f64();
    let rate = rows as f64 / elapsed.as_secs_f64();
    let per_million = cost.cpu_seconds * 1e6 / rows as f64;
    Ok(vec![
        Line::new("batch load: rows", rate, Unit::PerSecond)
            .beside("raw inserts, pipelined", limit)
            .bar(Bar::OfLimit(0.9)),
        Line::new("batch load: CPU per million", per_million, Unit::Seconds),
        Line::new("batch load: peak memory", cost.peak_mb, Unit::Megabytes),
    ])
}

async fn fill(pipeline: &Pipeline<'_>, rows: u64) -> Result<()> {
    screen::say(format_args!("{}: {rows} rows to load", pipeline.name));
    pipeline
        .sql
        .batch_execute(&format!(
            "create table {TABLE} (like transactions including all);
             insert into {TABLE} select i, timestamp '2023-01-01' + i * interval '1 second', i % 3848, 1 + i % 5,
                 1 + i % 4, i % 2 = 0, case when i % 4 = 0 then 1 end, 1 + i % 4, false
             from generate_series(1, {rows}) i;
             analyze {TABLE}"
        ))
        .await?;
    Ok(())
}

/// The loaded documents once more, encoded beforehand, into a fresh collection.
async fn raw_inserts(pipeline: &Pipeline<'_>) -> Result<Duration> {
    let commands = commands(pipeline).await?;
    let target = pipeline.fresh_database("raw");
    target.create_collection(TABLE).await?;
    let begun = Instant::now();
    let inserts = commands.into_iter().map(|command| insert(&target, command));
    stream::iter(inserts)
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<()>()
        .await?;
    Ok(begun.elapsed())
}

async fn commands(pipeline: &Pipeline<'_>) -> Result<Vec<RawDocumentBuf>> {
    let collection = pipeline.target.collection::<RawDocumentBuf>(TABLE);
    let documents = collection.find(doc! {}).await?;
    let mut blocks = documents.try_chunks(DOCUMENTS);
    let mut commands = Vec::new();
    while let Some(block) = blocks.next().await {
        let block = block.map_err(|failed| failed.1)?;
        let mut documents = bson::RawArrayBuf::new();
        for document in block {
            documents.push(document);
        }
        commands.push(rawdoc! { "insert": TABLE, "documents": documents, "ordered": false });
    }
    Ok(commands)
}

async fn insert(target: &Database, command: RawDocumentBuf) -> Result<()> {
    let answer: Document = target.run_raw_command(command).await?;
    if answer.contains_key("writeErrors") {
        let after = "raw inserts".to_owned();
        let difference = format!("a write was refused: {answer}");
        return Err(Error::Different { after, difference });
    }
    Ok(())
}
