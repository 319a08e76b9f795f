//! From a sale's commit to its alert, while sales go on at a steady rate and the retail rules are kept fresh.

use std::time::{Duration, Instant};

use bson::{Document, doc};
use walferry_harness::{eventually, project_root};

use crate::error::Result;
use crate::latency::{WARM_UP, percentile, start_load};
use crate::report::{Bar, Line, Unit};
use crate::rig::{DEADLINE, Engine, Pipeline, Rig, Way, write};

/// Between two probes.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two looks for an alert.
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);
/// How long a single alert may take before something is wrong.
const PATIENCE: Duration = Duration::from_mins(2);
/// No customer of the load has such a number.
const FIRST_CUSTOMER: i32 = 1_000_000;
const RULE: &str = "f01_velocity_burst";

/// The latency of one way.
pub(crate) async fn measure(rig: &Rig, way: Way, seconds: u64) -> Result<Vec<Line>> {
    let pipeline = rig.pipeline("alerts", way).await?;
    master_tables(&pipeline).await?;
    let config = std::fs::read_to_string(&pipeline.config)
        .map_err(crate::error::Error::io("reading the configuration"))?;
    let rules = project_root().join("etl/analytics");
    let rules = rules.display();
    let section = format!("[analytics]\nrules = \"{rules}\"\nrefresh = \"30s\"\n");
    write(&pipeline.config, &format!("{config}{section}"))?;
    let engine = pipeline.start(&["run"])?;
    first_refresh(&pipeline).await?;
    let load = start_load(&pipeline, seconds + WARM_UP.as_secs() + 2)?;
    tokio::time::sleep(WARM_UP).await;
    let before = engine.cost()?.cpu_seconds;
    let begun = Instant::now();
    let latencies = probe(&pipeline, &engine, Duration::from_secs(seconds)).await?;
    let cores = (engine.cost()?.cpu_seconds - before) / begun.elapsed().as_secs_f64();
    load.wait(DEADLINE).await?;
    let peak_mb = engine.cost()?.peak_mb;
    engine.stop().await?;
    Ok(lines(way, &latencies, cores, peak_mb))
}

fn lines(way: Way, latencies: &[Duration], cores: f64, peak_mb: f64) -> Vec<Line> {
    let name = format!("alerts {}", way.name());
    let line = |which: &str, percent| {
        let milliseconds = percentile(latencies, percent).as_secs_f64() * 1e3;
        let what = format!("{name}: commit to alert, {which}");
        Line::new(what, milliseconds, Unit::Milliseconds)
    };
    vec![
        line("p50", 50).bar(Bar::AtMost(1_000.0)),
        line("p90", 90),
        line("max", 100),
        Line::new(format!("{name}: cores used"), cores, Unit::Cores),
        Line::new(format!("{name}: peak memory"), peak_mb, Unit::Megabytes),
    ]
}

/// The tables that the rules read and no sale changes.
async fn master_tables(pipeline: &Pipeline<'_>) -> Result<()> {
    let insert = async |name: &str, documents: Vec<Document>| {
        let collection = pipeline.target.collection::<Document>(name);
        collection.insert_many(documents).await.map(|_| ())
    };
    let product = |id: i32| {
        doc! { "_id": id, "product_id": id, "product_name": format!("p{id}"), "category_id": 1, "supplier_id": 1,
        "unit_price": id % 500, "reorder_point": 10, "reorder_quantity": 50 }
    };
    insert("products", (1..=1_000).map(product).collect()).await?;
    let customer = |id: i32| doc! { "_id": id, "customer_id": id, "income": 50_000 };
    insert("customers", (0..3_848).map(customer).collect()).await?;
    let store = |id: i32| doc! { "_id": id, "store_id": id, "location": format!("s{id}") };
    insert("stores", (1..=5).map(store).collect()).await?;
    let method = |id: i32| doc! { "_id": id, "method_id": id, "method_name": format!("m{id}") };
    insert("paymentmethods", (1..=4).map(method).collect()).await?;
    for name in [
        "promotionapplications",
        "promotions",
        "suppliers",
        "demandforecast",
    ] {
        insert(name, vec![doc! { "_id": 0 }]).await?;
    }
    Ok(())
}

/// Waits until every rule had its first turn: the last one's answer is kept.
async fn first_refresh(pipeline: &Pipeline<'_>) -> Result<()> {
    let refreshed = async || {
        let last = pipeline
            .target
            .collection::<Document>("report_inventory_value");
        last.find_one(doc! {}).await.is_ok_and(|it| it.is_some())
    };
    Ok(eventually(DEADLINE, "the first refresh", refreshed).await?)
}

/// Sells twice to customers of its own, one after the other, and looks for the alert of each second sale.
async fn probe(pipeline: &Pipeline<'_>, engine: &Engine, lasts: Duration) -> Result<Vec<Duration>> {
    let alerts = pipeline.target.collection::<Document>("fraud_alerts");
    let insert = "insert into transactions values ($1, now(), $2, 1, 1, false, null, 1, false)";
    let insert = pipeline.sql.prepare(insert).await?;
    let begun = Instant::now();
    let mut latencies = Vec::new();
    for at in 1.. {
        if begun.elapsed() >= lasts {
            break;
        }
        let (customer, sale) = (FIRST_CUSTOMER + at, -2 * at);
        pipeline.sql.execute(&insert, &[&sale, &customer]).await?;
        let second = sale - 1;
        pipeline.sql.execute(&insert, &[&second, &customer]).await?;
        let committed = Instant::now();
        // Of two sales in one moment the number tells which came second.
        let filter = doc! { "rule": RULE, "customer_id": customer };
        while alerts.find_one(filter.clone()).await?.is_none() {
            engine.check()?;
            if committed.elapsed() > PATIENCE {
                return Err(crate::error::Error::Different {
                    after: "a sale".to_owned(),
                    difference: format!("no alert of customer {customer}"),
                });
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        latencies.push(committed.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    latencies.sort_unstable();
    Ok(latencies)
}
