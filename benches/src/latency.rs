//! From commit to visible, while sales go on at a steady rate.

use std::process::Command;
use std::time::{Duration, Instant};

use bson::{Bson, Document, doc};
use walferry_harness::{Process, eventually, postgres_program};

use crate::error::{Error, Result};
use crate::report::{Bar, Line, Unit};
use crate::rig::{DEADLINE, Engine, Pipeline, Rig, Way, write};

/// Transactions of five row changes each.
const PER_SECOND: u64 = 1_000;
/// What starts and warms up is not measured.
pub(crate) const WARM_UP: Duration = Duration::from_secs(3);
/// Between two looks, so that looking costs mongod little.
const BETWEEN_LOOKS: Duration = Duration::from_micros(300);

/// Where an engine puts the row of `transactions` with this number.
pub(crate) struct Target<'a> {
    pub(crate) collection: &'a str,
    pub(crate) id: fn(i32) -> Bson,
}

/// What the probes saw.
pub(crate) struct Live {
    /// Sorted.
    latencies: Vec<Duration>,
    pub(crate) cores: f64,
    peak_mb: f64,
}

/// The latency of one way.
pub(crate) async fn measure(rig: &Rig, way: Way, seconds: u64) -> Result<Vec<Line>> {
    let pipeline = rig.pipeline("live", way).await?;
    pipeline.settle().await?;
    let engine = pipeline.start(&["run"])?;
    let target = Target {
        collection: "transactions",
        id: Bson::Int32,
    };
    let live = under_load(&pipeline, &engine, &target, seconds).await?;
    let done = eventually(DEADLINE, "the live changes", async || {
        pipeline.check("the live phase").await
    });
    done.await?;
    engine.stop().await?;
    Ok(lines(way, &live))
}

/// The latency of a running engine while pgbench sells.
pub(crate) async fn under_load(
    pipeline: &Pipeline<'_>,
    engine: &Engine,
    target: &Target<'_>,
    seconds: u64,
) -> Result<Live> {
    let load = start_load(pipeline, seconds + WARM_UP.as_secs() + 2)?;
    tokio::time::sleep(WARM_UP).await;
    let live = probe(pipeline, engine, target, Duration::from_secs(seconds)).await?;
    let status = load.wait(DEADLINE).await?;
    if !status.success() {
        let (program, tail) = ("pgbench".to_owned(), load.log_tail());
        return Err(Error::Program { program, tail });
    }
    Ok(live)
}

fn lines(way: Way, live: &Live) -> Vec<Line> {
    let name = way.name();
    let (p50, p99, memory) = match way {
        Way::Kafka => (12.0, 40.0, 130.0),
        Way::Direct => (6.0, 20.0, 40.0),
    };
    let subject = format!("live {name}");
    vec![
        live.visible(&subject, 50).bar(Bar::AtMost(p50)),
        live.visible(&subject, 99).bar(Bar::AtMost(p99)),
        live.visible(&subject, 100),
        Line::new(format!("live {name}: cores used"), live.cores, Unit::Cores)
            .bar(Bar::AtMost(0.3)),
        Line::new(
            format!("live {name}: peak memory"),
            live.peak_mb,
            Unit::Megabytes,
        )
        .bar(Bar::AtMost(memory)),
    ]
}

pub(crate) fn start_load(pipeline: &Pipeline<'_>, seconds: u64) -> Result<Process> {
    let script = pipeline.config.with_extension("sql");
    write(&script, "call sale(2, 2);\n")?;
    let mut pgbench = Command::new(postgres_program("pgbench")?);
    pgbench
        .args(["-n", "-c", "4", "-M", "prepared", "-f"])
        .arg(&script)
        .args(["-R", &PER_SECOND.to_string(), "-T", &seconds.to_string()])
        .arg(pipeline.rig.postgres.url_of(&pipeline.name));
    let log = pipeline.config.with_extension("pgbench.log");
    Ok(Process::spawn(&pgbench, &log)?)
}

/// Commits rows of its own, one after the other at uneven distances, and looks for each.
async fn probe(
    pipeline: &Pipeline<'_>,
    engine: &Engine,
    target: &Target<'_>,
    lasts: Duration,
) -> Result<Live> {
    let transactions = pipeline.target.collection::<Document>(target.collection);
    let insert = "insert into transactions values ($1, now(), 1, 1, 1, false, null, 1, false)";
    let insert = pipeline.sql.prepare(insert).await?;
    let (begun, before) = (Instant::now(), engine.cost()?.cpu_seconds);
    let mut latencies = Vec::new();
    for id in 1.. {
        if begun.elapsed() >= lasts {
            break;
        }
        pipeline.sql.execute(&insert, &[&-id]).await?;
        let committed = Instant::now();
        let filter = doc! { "_id": (target.id)(-id) };
        while transactions.find_one(filter.clone()).await?.is_none() {
            engine.check()?;
            rest().await?;
        }
        latencies.push(committed.elapsed());
        let uneven = u64::try_from(id).unwrap_or_default() * 7_919 % 50;
        tokio::time::sleep(Duration::from_millis(uneven)).await;
    }
    let cpu = engine.cost()?.cpu_seconds - before;
    let cores = cpu / begun.elapsed().as_secs_f64();
    latencies.sort_unstable();
    Ok(Live {
        latencies,
        cores,
        peak_mb: engine.cost()?.peak_mb,
    })
}

/// The runtime's own timer counts whole milliseconds.
async fn rest() -> Result<()> {
    let parked = tokio::task::spawn_blocking(|| std::thread::park_timeout(BETWEEN_LOOKS));
    Ok(parked.await?)
}

// === impl Live ===

impl Live {
    /// The time within which so many of a hundred commits were visible.
    pub(crate) fn visible(&self, subject: &str, percent: usize) -> Line {
        let which = match percent {
            100 => "max".to_owned(),
            _ => format!("p{percent}"),
        };
        let what = format!("{subject}: commit to visible, {which}");
        let milliseconds = self.percentile(percent).as_secs_f64() * 1e3;
        Line::new(what, milliseconds, Unit::Milliseconds)
    }

    fn percentile(&self, percent: usize) -> Duration {
        percentile(&self.latencies, percent)
    }
}

/// Of sorted latencies the one that so many of a hundred did not exceed.
pub(crate) fn percentile(latencies: &[Duration], percent: usize) -> Duration {
    let last = latencies.len().saturating_sub(1);
    let index = (latencies.len() * percent / 100).min(last);
    latencies.get(index).copied().unwrap_or_default()
}
