//! From a sale's commit to its alerts, while sales go on at a steady rate and the retail rules are kept fresh.
//!
//! - Two rules are waited for: one reads the sales alone, the other what each of them came to.

use std::time::{Duration, Instant};

use bson::{Document, doc};
use futures_util::TryStreamExt;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{MissedTickBehavior, interval, sleep};
use walferry_harness::{eventually, project_root};

use crate::cost::Cost;
use crate::error::{Error, Result};
use crate::latency::{percentile, start_load};
use crate::report::{Bar, Line, Unit};
use crate::rig::{DEADLINE, Engine, Pipeline, Rig, Way, write};

/// Sales go on for so long before the first probe, so that each rule was asked about some of them.
const WARM_UP: Duration = Duration::from_secs(10);
/// Between two probes.
const PAUSE: Duration = Duration::from_millis(250);
/// Between two looks for alerts.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
/// How long a single alert may take before something is wrong.
const PATIENCE: Duration = Duration::from_mins(2);
/// A few of those that are sold; more wait at the till.
const QUEUE: usize = 64;
/// No customer of the load has such a number.
const FIRST_CUSTOMER: i32 = 1_000_000;
/// There are so many of these, more than there are probes.
const CUSTOMERS: i32 = 5_000;
const RULES: [&str; 2] = ["f01_velocity_burst", "f05_income_mismatch"];
/// An ordinary shop's sales, of which hardly any is suspicious: a customer comes back after two weeks, to the same store. Each
/// has bought once before.
const SHOP: &str = include_str!("../sql/shop.sql");
const SALE: &str = "with sold as (insert into transactions values ($1, now(), $2, 1, 1, false, null, 1, false)) \
                    insert into transactiondetails values ($1, 1, 1)";

/// Each rule's latencies.
type Latencies = [Vec<Duration>; RULES.len()];

/// A sale whose alerts are looked for.
struct Sale {
    id: i32,
    committed: Instant,
    /// How long each took.
    waited: [Option<Duration>; RULES.len()],
}

/// The latency of one way.
pub(crate) async fn measure(rig: &Rig, way: Way, seconds: u64) -> Result<Vec<Line>> {
    let pipeline = rig.pipeline("alerts", way).await?;
    master_tables(&pipeline).await?;
    pipeline.sql.batch_execute(SHOP).await?;
    let config = std::fs::read_to_string(&pipeline.config)
        .map_err(Error::io("reading the configuration"))?;
    let rules = project_root().join("etl/analytics");
    let rules = rules.display();
    let section = format!("[analytics]\nrules = \"{rules}\"\nrefresh = \"30s\"\n");
    write(&pipeline.config, &format!("{config}{section}"))?;
    let engine = pipeline.start(&["run"])?;
    first_refresh(&pipeline).await?;
    let load = start_load(&pipeline, seconds + WARM_UP.as_secs() + 2)?;
    sleep(WARM_UP).await;
    let mongod = || Cost::of(rig.mongo.pid()).map(|it| it.cpu_seconds);
    let before = (engine.cost()?.cpu_seconds, mongod()?);
    let begun = Instant::now();
    let latencies = probe(&pipeline, &engine, Duration::from_secs(seconds)).await?;
    let lasted = begun.elapsed().as_secs_f64();
    let cores = (engine.cost()?.cpu_seconds - before.0) / lasted;
    let mongod_cores = (mongod()? - before.1) / lasted;
    load.wait(DEADLINE).await?;
    let peak_mb = engine.cost()?.peak_mb;
    engine.stop().await?;
    let name = format!("alerts {}", way.name());
    let mut lines: Vec<_> = RULES
        .iter()
        .zip(&latencies)
        .flat_map(|(rule, of)| waits(&name, rule, of))
        .collect();
    lines.extend([
        Line::new(format!("{name}: cores used"), cores, Unit::Cores),
        Line::new(format!("{name}: mongod's cores"), mongod_cores, Unit::Cores),
        Line::new(format!("{name}: peak memory"), peak_mb, Unit::Megabytes),
    ]);
    Ok(lines)
}

fn waits(name: &str, rule: &str, latencies: &[Duration]) -> [Line; 3] {
    let line = |which: &str, percent| {
        let milliseconds = percentile(latencies, percent).as_secs_f64() * 1e3;
        let what = format!("{name}: commit to {rule}, {which}");
        Line::new(what, milliseconds, Unit::Milliseconds)
    };
    let bar = Bar::AtMost(1_000.0);
    [line("p50", 50), line("p99", 99).bar(bar), line("max", 100)]
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
    let customer = |id, income: i32| doc! { "_id": id, "customer_id": id, "income": income };
    let usual = (0..20_000).map(|id| customer(id, 50_000));
    let poor = (1..=CUSTOMERS).map(|at| customer(FIRST_CUSTOMER + at, 1));
    insert("customers", usual.chain(poor).collect()).await?;
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

/// Sells twice to customers of its own, again and again, and looks for the alerts of each second sale. A probe waits for no other.
async fn probe(pipeline: &Pipeline<'_>, engine: &Engine, lasts: Duration) -> Result<Latencies> {
    let probes = i32::try_from(lasts.as_millis() / PAUSE.as_millis()).unwrap_or(CUSTOMERS);
    let probes = probes.min(CUSTOMERS);
    let (sold, sales) = channel(QUEUE);
    let ((), mut latencies) = tokio::try_join!(
        sell(pipeline, probes, sold),
        await_alerts(pipeline, engine, sales)
    )?;
    for latencies in &mut latencies {
        latencies.sort_unstable();
    }
    Ok(latencies)
}

/// Sells twice to each of so many customers, and tells when it was done.
async fn sell(pipeline: &Pipeline<'_>, probes: i32, sold: Sender<Sale>) -> Result<()> {
    let sell = pipeline.sql.prepare(SALE).await?;
    let mut times = interval(PAUSE);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for at in 1..=probes {
        times.tick().await;
        let (customer, second) = (FIRST_CUSTOMER + at, -2 * at);
        // Of two sales in one moment the number tells which came second.
        for sale in [second - 1, second] {
            pipeline.sql.execute(&sell, &[&sale, &customer]).await?;
        }
        let sale = Sale {
            id: second,
            committed: Instant::now(),
            waited: [None; RULES.len()],
        };
        // Whoever looks for it ends only with an error.
        let _ = sold.send(sale).await;
    }
    Ok(())
}

/// How long the alerts of all sales take. One question asks for all that are missing.
async fn await_alerts(
    pipeline: &Pipeline<'_>,
    engine: &Engine,
    mut sales: Receiver<Sale>,
) -> Result<Latencies> {
    let mut latencies = Latencies::default();
    let mut missing = Vec::new();
    loop {
        let are_more = loop {
            match sales.try_recv() {
                Ok(sale) => missing.push(sale),
                Err(TryRecvError::Empty) => break true,
                Err(TryRecvError::Disconnected) => break false,
            }
        };
        if missing.is_empty() && !are_more {
            return Ok(latencies);
        }
        engine.check()?;
        sleep(BETWEEN_LOOKS).await;
        look(pipeline, &mut missing).await?;
        for sale in missing.extract_if(.., |it| !it.waited.contains(&None)) {
            let waited = sale.waited.into_iter().flatten();
            let both = latencies.iter_mut().zip(waited);
            both.for_each(|(latencies, waited)| latencies.push(waited));
        }
        if let Some(sale) = missing.iter().find(|it| it.committed.elapsed() > PATIENCE) {
            let difference = format!("of {RULES:?} not all tell of sale {}", sale.id);
            return Err(Error::Different {
                after: "a sale".to_owned(),
                difference,
            });
        }
    }
}

/// Notes which alerts stand by now.
async fn look(pipeline: &Pipeline<'_>, missing: &mut [Sale]) -> Result<()> {
    let ids: Vec<_> = missing.iter().map(|it| it.id).collect();
    let filter = doc! { "rule": { "$in": RULES.to_vec() }, "transaction_id": { "$in": ids } };
    let alerts = pipeline.target.collection::<Document>("fraud_alerts");
    let found: Vec<_> = alerts.find(filter).await?.try_collect().await?;
    for alert in found {
        let (rule, id) = (
            alert.get_str("rule").ok(),
            alert.get_i32("transaction_id").ok(),
        );
        let rule = RULES.iter().position(|it| rule == Some(it));
        let sale = missing.iter_mut().find(|it| id == Some(it.id));
        if let (Some(rule), Some(sale)) = (rule, sale) {
            sale.waited[rule].get_or_insert(sale.committed.elapsed());
        }
    }
    Ok(())
}
