//! The same drain by the incumbent: Debezium's PostgreSQL source and MongoDB's own sink in Kafka Connect.
//!
//! - It names collections after topics, and makes the key a document: only counts and the stock are compared.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use bson::{Document, bson, doc};
use walferry_harness::{free_port, project_root};

use crate::error::{Error, Result};
use crate::latency::{self, Target};
use crate::report::{Bar, Line, Unit};
use crate::rig::{Engine, Pipeline, Rig, Way, write};
use crate::{drain, screen};

const FILES: [(&str, &str); 3] = [
    ("worker", include_str!("../incumbent/worker.properties")),
    ("source", include_str!("../incumbent/source.properties")),
    ("sink", include_str!("../incumbent/sink.properties")),
];

/// The incumbent's drain and its latency, and beside them ours through Kafka.
pub(crate) async fn measure(rig: &Rig, rows: u64, seconds: u64) -> Result<Vec<Line>> {
    let pipeline = rig.pipeline("incumbent", Way::Kafka).await?;
    let incumbent = Incumbent::new(&pipeline)?;
    let (theirs, mut lines) = incumbent.drain(rows).await?;
    lines.extend(incumbent.live(seconds).await?);
    let ours = drain::measure(rig, Way::Kafka, rows).await?;
    let rate = ours.iter().find(|line| line.what.ends_with("row changes"));
    if let Some(rate) = rate.map(|line| line.value) {
        let what = "drain kafka, beside the incumbent's";
        let line = Line::new(what, rate, Unit::PerSecond).beside("the incumbent", theirs);
        lines.push(line.bar(Bar::OfLimit(6.0)));
    }
    lines.extend(ours);
    lines.extend(latency::measure(rig, Way::Kafka, seconds).await?);
    Ok(lines)
}

struct Incumbent<'a> {
    pipeline: &'a Pipeline<'a>,
    files: Vec<PathBuf>,
}

// === impl Incumbent ===

impl<'a> Incumbent<'a> {
    fn new(pipeline: &'a Pipeline<'a>) -> Result<Self> {
        let (rig, name) = (pipeline.rig, &pipeline.name);
        let directory = rig.directory.path();
        let rest = free_port()?.to_string();
        let mut files = Vec::new();
        for (file, text) in FILES {
            let text = text
                .replace("{brokers}", &rig.kafka.brokers())
                .replace("{rest}", &rest)
                .replace("{directory}", &directory.display().to_string())
                .replace("{postgres}", &rig.postgres.port().to_string())
                .replace("{mongo}", &rig.mongo.url())
                .replace("{name}", name);
            let path = directory.join(format!("{file}.properties"));
            write(&path, &text)?;
            files.push(path);
        }
        Ok(Self { pipeline, files })
    }

    fn start(&self) -> Result<Engine> {
        let jars = project_root().join(".tools/incumbent");
        let mut java = Command::new("java");
        java.env("CLASSPATH", jars.join("*"));
        java.args([
            "-Xms512m",
            "-Xmx2g",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        ]);
        java.arg("org.apache.kafka.connect.cli.ConnectStandalone");
        Engine::spawn(java.args(&self.files), &self.pipeline.config)
    }

    fn collection(&self, table: &str) -> String {
        format!("{}.public.{table}", self.pipeline.name)
    }

    /// Copies what is there, then drains a backlog: the rate in row changes per second, and all figures.
    async fn drain(&self, rows: u64) -> Result<(f64, Vec<Line>)> {
        screen::say("the incumbent copies what is there");
        let (pipeline, headers) = (self.pipeline, self.collection("transactions"));
        let engine = self.start()?;
        let stock = self.collection("inventory");
        pipeline.await_count(&engine, &stock, 5_000).await?;
        pipeline.sql.batch_execute("call sale(4, 5)").await?;
        self.await_equal(&engine).await?;
        engine.stop().await?;
        pipeline.backlog(rows).await?;
        let before = pipeline.count(&headers).await?;
        let begun = Instant::now();
        let engine = self.start()?;
        pipeline.await_count(&engine, &headers, before + 1).await?;
        let first = begun.elapsed().as_secs_f64();
        self.await_equal(&engine).await?;
        let (took, cost) = (begun.elapsed().as_secs_f64(), engine.cost()?);
        engine.stop().await?;
        let rate = rows as f64 / took;
        let line = |what: &str, value, unit| Line::new(format!("incumbent: {what}"), value, unit);
        let per_million = cost.cpu_seconds * 1e6 / rows as f64;
        let lines = vec![
            line("row changes", rate, Unit::PerSecond),
            line("engine CPU per million", per_million, Unit::Seconds),
            line("peak memory", cost.peak_mb, Unit::Megabytes),
            line("start to first change", first, Unit::Seconds),
        ];
        Ok((rate, lines))
    }

    /// From commit to visible, under the load that ours is measured with.
    async fn live(&self, seconds: u64) -> Result<Vec<Line>> {
        let engine = self.start()?;
        self.pipeline.sql.batch_execute("call sale(4, 5)").await?;
        self.await_equal(&engine).await?;
        let target = Target {
            collection: &self.collection("transactions"),
            id: |id| bson!({ "transaction_id": id }),
        };
        let live = latency::under_load(self.pipeline, &engine, &target, seconds).await?;
        self.await_equal(&engine).await?;
        engine.stop().await?;
        let subject = "incumbent, live";
        let mut lines: Vec<Line> = [50, 99, 100].map(|p| live.visible(subject, p)).into();
        let cores = format!("{subject}: cores used");
        lines.push(Line::new(cores, live.cores, Unit::Cores));
        Ok(lines)
    }

    /// Waits until the counts, and the stock that every sale changes, are PostgreSQL's.
    async fn await_equal(&self, engine: &Engine) -> Result<()> {
        let query =
            "select (select count(*) from transactions), (select count(*) from transactiondetails),
            (select sum(inventory_level)::int8 from inventory)";
        let row = self.pipeline.sql.query_one(query, &[]).await?;
        let wanted: (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
        let done = engine.until("the incumbent's tables", async || {
            match self.totals().await {
                Ok(found) if found == wanted => Ok(()),
                Ok(found) => Err(format!("{found:?} instead of {wanted:?}")),
                Err(error) => Err(error.to_string()),
            }
        });
        done.await
    }

    async fn totals(&self) -> Result<(i64, i64, i64)> {
        let count = async |table| {
            let count = self.pipeline.count(&self.collection(table)).await?;
            Ok::<_, Error>(i64::try_from(count).unwrap_or(i64::MAX))
        };
        let stock = self.collection("inventory");
        let stock = self.pipeline.target.collection::<Document>(&stock);
        let sum =
            doc! { "$group": { "_id": null, "n": { "$sum": { "$toLong": "$inventory_level" } } } };
        let mut sums = stock.aggregate([sum]).await?;
        let level = if sums.advance().await? {
            sums.deserialize_current()?.get_i64("n").unwrap_or_default()
        } else {
            0
        };
        Ok((
            count("transactions").await?,
            count("transactiondetails").await?,
            level,
        ))
    }
}
