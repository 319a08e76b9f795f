//! What `walferry run` would do, and `walferry backfill`: nothing is begun.
//!
//! - Sizes are the catalog's: rows as PostgreSQL last estimated them.

use serde::Serialize;
use walferry_core::{Fault, Tasks};
use walferry_etl::Mode;
use walferry_mongodb::{Naming, Settings};
use walferry_postgres::{ListedTable, SlotMonitor};
use walferry_schema::TableName;

use crate::capture::lineage::topic_name;
use crate::config::Config;
use crate::pipeline::connect::{mongodb_settings, postgres_settings};
use crate::snapshot::Preparation;

/// What a start would do.
#[derive(Clone, Debug, Serialize)]
pub struct RunPlan {
    /// The slot's name.
    pub slot: String,
    /// Whether the slot is there, so that the stream goes on and nothing is copied.
    pub has_slot: bool,
    /// The publication's name.
    pub publication: String,
    /// The commit log's topic; none without Kafka.
    pub commit_log: Option<String>,
    /// The target's database.
    pub database: String,
    /// The tables, in name order; a partition is part of its table.
    pub tables: Vec<PlannedTable>,
}

/// What becomes of one table.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedTable {
    /// The table.
    #[serde(serialize_with = "crate::progress::as_text")]
    pub table: TableName,
    /// What is done with it.
    pub step: Step,
    /// About how many rows it has.
    pub rows: u64,
    /// The bytes of its blocks.
    pub bytes: u64,
    /// Its topic; none where its rows go through no topic.
    pub topic: Option<String>,
    /// Its collection; none when nothing is written.
    pub collection: Option<String>,
    /// Whether that collection is there: a copy takes its place.
    pub is_replaced: bool,
    /// The indexes of that collection, which the copy gets too; that of `_id` goes without saying.
    pub indexes: Vec<String>,
}

/// What is done with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// It is copied, then its changes are followed.
    CopyThenFollow,
    /// Its changes are followed from where they were last.
    Follow,
    /// It is to be followed, and the publication does not hold it.
    NotPublished,
    /// `walferry backfill` loads it.
    Load,
    /// Nothing.
    Ignore,
}

// === impl Step ===

impl Step {
    fn of(table: &ListedTable, mode: Mode, has_slot: bool) -> Self {
        match mode {
            Mode::Stream if !table.is_published => Self::NotPublished,
            Mode::Stream if has_slot => Self::Follow,
            Mode::Stream => Self::CopyThenFollow,
            Mode::Batch => Self::Load,
            Mode::Ignore => Self::Ignore,
        }
    }

    /// Whether documents are written.
    pub fn is_writing(self) -> bool {
        matches!(self, Self::CopyThenFollow | Self::Follow | Self::Load)
    }
}

/// What the commands would do now.
///
/// # Errors
/// When a server cannot be asked, or a table's name cannot be a collection's.
pub async fn run(config: &Config, tasks: &Tasks) -> Result<RunPlan, Fault> {
    let source = postgres_settings(config);
    let slot = SlotMonitor::new(&source, tasks.clone())?.measure().await?;
    let has_slot = slot.slot.is_some();
    let preparation = Preparation::begin(config, tasks).await?;
    let target = mongodb_settings(config);
    let existing = walferry_mongodb::collections(&target).await?;
    let listed = preparation.listed().iter();
    let mut tables = Vec::new();
    for table in listed.filter(|table| !table.is_partition) {
        tables.push(planned(config, table, has_slot, &existing)?);
    }
    index(&mut tables, &target).await?;
    let prefix = config.kafka.as_ref().map(|kafka| &kafka.prefix);
    Ok(RunPlan {
        slot: config.source.slot.clone(),
        has_slot,
        publication: config.source.publication.clone(),
        commit_log: prefix.map(|prefix| format!("{prefix}.commits")),
        database: config.sink.database.clone(),
        tables,
    })
}

/// Notes the indexes of the collections that copies take the place of.
async fn index(tables: &mut [PlannedTable], target: &Settings) -> Result<(), Fault> {
    let replaced = tables.iter_mut().filter(|table| table.is_replaced);
    let (tables, collections): (Vec<_>, Vec<_>) = replaced
        .filter_map(|table| Some((table.collection.clone()?, table)))
        .map(|(collection, table)| (table, collection))
        .unzip();
    let indexes = walferry_mongodb::indexes(target, &collections).await?;
    for (table, indexes) in tables.into_iter().zip(indexes) {
        table.indexes = indexes;
    }
    Ok(())
}

fn planned(
    config: &Config,
    table: &ListedTable,
    has_slot: bool,
    existing: &[String],
) -> Result<PlannedTable, Fault> {
    let step = Step::of(table, config.tables.mode(&table.name), has_slot);
    let is_streamed = matches!(step, Step::CopyThenFollow | Step::Follow);
    let kafka = config.kafka.as_ref().filter(|_| is_streamed);
    let collection = if step.is_writing() {
        Some(Naming.collection(&table.name)?)
    } else {
        None
    };
    let is_there = collection.as_ref().is_some_and(|it| existing.contains(it));
    Ok(PlannedTable {
        table: table.name.clone(),
        step,
        rows: table.rows,
        bytes: table.bytes,
        topic: kafka.map(|kafka| topic_name(&kafka.prefix, &table.name)),
        collection,
        is_replaced: is_there && step != Step::Follow,
        indexes: Vec::new(),
    })
}
