//! The generated retail system, of any size, in MongoDB.

use walferry_harness::project_root;
use walferry_retail::{generate, load, schema};

use crate::error::{Error, Result};
use crate::rig::{Pipeline, Rig, write};
use crate::screen;

const NAME: &str = "rules";
const SEED: u64 = 1;

/// Generates so many sales, loads them into PostgreSQL, and has walferry load them into MongoDB.
pub(super) async fn open(rig: &Rig, sales: u64) -> Result<Pipeline<'_>> {
    let create = format!("create database {NAME}");
    let postgres = rig.postgres.connect("postgres").await?;
    postgres.batch_execute(&create).await?;
    let pipeline = Pipeline {
        rig,
        name: NAME.to_owned(),
        sql: rig.postgres.connect(NAME).await?,
        target: rig.client.database(NAME),
        config: rig.directory.path().join(format!("{NAME}.toml")),
    };
    write(&pipeline.config, &config(rig))?;
    screen::say(format_args!("{NAME}: {sales} sales to generate and load"));
    fill(&pipeline, sales).await?;
    pipeline.start(&["backfill"])?.finish().await?;
    let loaded = pipeline.count("transactions").await?;
    if loaded == sales {
        return Ok(pipeline);
    }
    Err(Error::Different {
        after: "the load of the retail system".to_owned(),
        difference: format!("{sales} sales, {loaded} documents"),
    })
}

async fn fill(pipeline: &Pipeline<'_>, sales: u64) -> Result<()> {
    let data = pipeline.rig.directory.path().join(NAME);
    let sales = u32::try_from(sales).unwrap_or(u32::MAX);
    let plan = generate::Plan { sales, seed: SEED };
    generate::generate(plan, &data, |_| {})?;
    let url = walferry_retail::parse_url(&pipeline.rig.postgres.url_of(NAME))?;
    Box::pin(schema::install(&url)).await?;
    Box::pin(load::load(&url, &data, &mut |_| {})).await?;
    std::fs::remove_dir_all(&data).map_err(Error::io(format!("removing {}", data.display())))
}

fn config(rig: &Rig) -> String {
    format!(
        r#"[source]
url = "{source}"
slot = "{NAME}"
publication = "walmart_publication"
[sink]
url = "{sink}"
database = "{NAME}"
[analytics]
rules = "{rules}"
[[table]]
name = "public.*"
mode = "batch"
"#,
        source = rig.postgres.url_of(NAME),
        sink = rig.mongo.url(),
        rules = project_root().join("etl/analytics").display(),
    )
}
