//! How fast a backlog gets into MongoDB, beside what mongod alone does with the same writes.

use std::time::{Duration, Instant};

use crate::cost::Cost;
use crate::error::Result;
use crate::replay::{self, Replay};
use crate::report::{Bar, Line, Unit};
use crate::rig::{Engine, Pipeline, Rig, Way};

/// What draining a backlog took, the engine's start included: what is already in flight when the first change is seen
/// was not free, and rates that leave it out go beyond what mongod can do.
pub(crate) struct Drain {
    rows: u64,
    /// From the start of the engine to the first change that is visible.
    first: Duration,
    /// From there to the last.
    rest: Duration,
    /// The engine's CPU, in seconds.
    cpu_seconds: f64,
    /// The same of mongod, meanwhile.
    mongod_seconds: f64,
    peak_mb: f64,
}

// === impl Drain ===

impl Drain {
    /// Starts the engine over a backlog of the workload and waits until MongoDB equals PostgreSQL.
    async fn run(pipeline: &Pipeline<'_>, rows: u64) -> Result<Self> {
        let before = pipeline.count("transactions").await?;
        let mongod = mongod_seconds(pipeline.rig)?;
        let begun = Instant::now();
        let engine = pipeline.start(&["run"])?;
        await_more(pipeline, &engine, before).await?;
        let first = Instant::now();
        // Whole transactions in commit order: the last one's first row comes with everything else.
        let all = before + rows / 10;
        pipeline.await_count(&engine, "transactions", all).await?;
        let (rest, cost) = (first.elapsed(), engine.cost()?);
        let drain = Self {
            rows,
            first: first - begun,
            rest,
            cpu_seconds: cost.cpu_seconds,
            mongod_seconds: mongod_seconds(pipeline.rig)? - mongod,
            peak_mb: cost.peak_mb,
        };
        engine.stop().await?;
        pipeline.check("the drain").await?;
        Ok(drain)
    }

    /// Row changes per second.
    fn rate(&self) -> f64 {
        self.rows as f64 / (self.first + self.rest).as_secs_f64()
    }

    /// A cost for each million of them.
    fn per_million(&self, seconds: f64) -> f64 {
        seconds * 1e6 / self.rows.max(1) as f64
    }
}

/// A drain through `way` and the replay of what it wrote.
pub(crate) async fn measure(rig: &Rig, way: Way, rows: u64) -> Result<Vec<Line>> {
    let pipeline = rig.pipeline("drain", way).await?;
    pipeline.settle().await?;
    let target = replay::copy_state(&pipeline).await?;
    let since = replay::now(rig).await?;
    pipeline.backlog(rows).await?;
    let drain = Drain::run(&pipeline, rows).await?;
    let replay = Replay::read(&pipeline, target, since).await?;
    let limit = replay.run().await?;
    Ok(lines(
        way,
        &drain,
        &replay,
        rows as f64 / limit.as_secs_f64(),
    ))
}

fn lines(way: Way, drain: &Drain, replay: &Replay, limit: f64) -> Vec<Line> {
    let way_name = way.name();
    let line =
        |what: &str, value, unit| Line::new(format!("drain {way_name}: {what}"), value, unit);
    let (memory, of_limit) = match way {
        Way::Kafka => (130.0, 0.8),
        Way::Direct => (40.0, 0.95),
    };
    let folded = 1.0 - replay.operations as f64 / drain.rows as f64;
    vec![
        line("row changes", drain.rate(), Unit::PerSecond)
            .beside("mongod alone, the same groups", limit)
            .bar(Bar::OfLimit(of_limit)),
        line(
            "engine CPU per million",
            drain.per_million(drain.cpu_seconds),
            Unit::Seconds,
        )
        .bar(Bar::AtMost(7.0)),
        line(
            "mongod CPU per million",
            drain.per_million(drain.mongod_seconds),
            Unit::Seconds,
        ),
        line("peak memory", drain.peak_mb, Unit::Megabytes).bar(Bar::AtMost(memory)),
        line(
            "start to first change",
            drain.first.as_secs_f64(),
            Unit::Seconds,
        )
        .bar(Bar::AtMost(0.5)),
        line(
            "row changes a group",
            drain.rows as f64 / replay.groups() as f64,
            Unit::Count,
        ),
        line(
            "operations that folding removed",
            folded * 100.0,
            Unit::Percent,
        ),
    ]
}

/// Looks more often than other waits do: half a second is the bar.
async fn await_more(pipeline: &Pipeline<'_>, engine: &Engine, before: u64) -> Result<()> {
    loop {
        engine.check()?;
        if pipeline.count("transactions").await? > before {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn mongod_seconds(rig: &Rig) -> Result<f64> {
    Ok(Cost::of(rig.mongo.pid())?.cpu_seconds)
}
