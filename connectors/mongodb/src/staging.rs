//! Collections that are filled aside and then renamed over their targets (protocol rule 18).
//!
//! - Every step can be repeated: what exists is kept, what was renamed is known by its UUID.
//! - Nothing is dropped or renamed that this pipeline has not recorded as its own, by name and UUID: not
//!   a collection with a name like it, nor one that an overtaken writer made too late.

use bson::{Binary, Bson, Document, doc};
use futures_util::TryStreamExt;
use tracing::info;
use walferry_core::{Checkpoint, PipelineState};
use walferry_schema::TableSpec;

use crate::error::{NAMESPACE_EXISTS, NAMESPACE_NOT_FOUND};
use crate::naming::Naming;
use crate::position::Staged;
use crate::store::Store;
use crate::{Error, Result};

/// Options of a collection that bound its content or belong to views.
const LEFT_OUT_OPTIONS: [&str; 6] = ["capped", "size", "max", "autoIndexId", "viewOn", "pipeline"];

/// The staging collections of a pipeline.
pub(crate) struct Staging<'a> {
    pub(crate) store: &'a Store,
    /// Those that the position document names.
    pub(crate) recorded: Vec<Staged>,
}

// === impl Staging ===

impl Staging<'_> {
    /// Makes the staging collections of a generation, drops those of older ones: what is to be
    /// recorded before anything is written there.
    pub(crate) async fn make(&self, generation: u64, tables: &[TableSpec]) -> Result<Vec<Staged>> {
        Naming.check(tables.iter().map(|table| &table.name))?;
        let names = tables
            .iter()
            .map(|table| Naming.staging(&table.name, generation));
        let names: Vec<_> = names.collect::<Result<_>>()?;
        self.drop_older(&names).await?;
        let mut made = Vec::with_capacity(tables.len());
        for (table, staging) in tables.iter().zip(names) {
            let collection = Naming.collection(&table.name)?;
            if self.is_taken(&staging).await? {
                return Err(Error::StagingTaken { staging });
            }
            create_like(self.store, &staging, &collection).await?;
            copy_indexes(self.store, &collection, &staging).await?;
            let Some(uuid) = uuid(self.store, &staging).await? else {
                return Err(Error::StagingLost { staging });
            };
            made.push(Staged {
                name: staging,
                uuid,
            });
        }
        Ok(made)
    }

    /// Sees that the collections are there that the checkpoint counts on.
    pub(crate) async fn check(&self, checkpoint: &Checkpoint) -> Result<()> {
        let tables = &checkpoint.tables;
        match checkpoint.state {
            PipelineState::Snapshot => self.check_staging(checkpoint.generation, tables).await,
            PipelineState::Swapping => Ok(()),
            PipelineState::Live => self.check_live(tables).await,
        }
    }

    /// Renames the staging collections of a generation over their targets.
    pub(crate) async fn swap(&self, generation: u64, tables: &[TableSpec]) -> Result<()> {
        for table in tables {
            let collection = Naming.collection(&table.name)?;
            let staging = Naming.staging(&table.name, generation)?;
            if self.is_recorded(&staging, &staging).await?
                && rename_over(self.store, &staging, &collection).await?
            {
                info!(collection, generation, "swapped in");
            } else if !self.is_recorded(&staging, &collection).await? {
                return Err(Error::StagingLost { staging });
            }
        }
        Ok(())
    }

    /// Only what this pipeline made goes, whatever else has a name like it.
    async fn drop_older(&self, kept: &[String]) -> Result<()> {
        for older in &self.recorded {
            let is_kept = kept.contains(&older.name);
            if is_kept || !self.is_recorded(&older.name, &older.name).await? {
                continue;
            }
            drop_collection(self.store, &older.name).await?;
            info!(
                collection = older.name,
                "dropped the staging collection of an older generation"
            );
        }
        Ok(())
    }

    /// Whether a collection has documents without being recorded.
    async fn is_taken(&self, staging: &str) -> Result<bool> {
        if self.is_recorded(staging, staging).await? {
            return Ok(false);
        }
        let database = self.store.database();
        let collection = database.collection::<Document>(staging);
        let find = collection.find_one(doc! {});
        let found = self.store.in_time(find, "reading a collection").await?;
        Ok(found.is_some())
    }

    /// Whether `name` is the collection that was recorded as `staging`, under that name or renamed.
    async fn is_recorded(&self, staging: &str, name: &str) -> Result<bool> {
        let recorded = self.recorded.iter().find(|staged| staged.name == staging);
        let Some(recorded) = recorded else {
            return Ok(false);
        };
        Ok(uuid(self.store, name).await?.as_ref() == Some(&recorded.uuid))
    }

    async fn check_staging(&self, generation: u64, tables: &[TableSpec]) -> Result<()> {
        for table in tables {
            let staging = Naming.staging(&table.name, generation)?;
            if !self.is_recorded(&staging, &staging).await? {
                return Err(Error::StagingLost { staging });
            }
        }
        Ok(())
    }

    async fn check_live(&self, tables: &[TableSpec]) -> Result<()> {
        let database = self.store.database();
        let list = database.list_collection_names();
        let names = self.store.in_time(list, "listing collections").await?;
        for table in tables {
            let collection = Naming.collection(&table.name)?;
            if !names.contains(&collection) {
                let database = self.store.settings.database.clone();
                return Err(Error::CollectionLost {
                    collection,
                    database,
                });
            }
        }
        Ok(())
    }
}

/// Makes a collection with the options of another, when that is there; keeps one that exists.
pub(crate) async fn create_like(store: &Store, name: &str, model: &str) -> Result<()> {
    let mut command = doc! { "create": name };
    if let Some(info) = collection_info(store, model).await? {
        let kind = info.get_str("type").unwrap_or("collection");
        if kind != "collection" {
            let (collection, kind) = (model.to_owned(), kind.to_owned());
            return Err(Error::NotACollection { collection, kind });
        }
        let options = info.get_document("options").cloned().unwrap_or_default();
        let is_kept = |option: &String| !LEFT_OUT_OPTIONS.contains(&option.as_str());
        command.extend(options.into_iter().filter(|(option, _)| is_kept(option)));
    }
    command.insert("writeConcern", doc! { "w": "majority" });
    let created = store
        .run(&store.database(), command, "creating a collection")
        .await;
    unless(created, NAMESPACE_EXISTS).map(|_| ())
}

/// Gives a collection the indexes of another; those that it has are kept.
pub(crate) async fn copy_indexes(store: &Store, from: &str, to: &str) -> Result<()> {
    let database = store.database();
    let list = doc! { "listIndexes": from, "cursor": {} };
    let cursor = store
        .in_time(database.run_cursor_command(list), "listing indexes")
        .await;
    let Some(cursor) = unless(cursor, NAMESPACE_NOT_FOUND)? else {
        return Ok(());
    };
    let indexes: Vec<Document> = store
        .in_time(cursor.try_collect(), "listing indexes")
        .await?;
    let is_own = |index: &Document| index.get_str("name").is_ok_and(|name| name != "_id_");
    let indexes: Vec<_> = indexes
        .into_iter()
        .filter(is_own)
        .map(without_namespace)
        .collect();
    if indexes.is_empty() {
        return Ok(());
    }
    let create = doc! { "createIndexes": to, "indexes": indexes };
    // Building takes as long as it takes: no time limit.
    let created = database.run_command(create).await;
    created
        .map(|_| ())
        .map_err(Error::server("creating indexes"))
}

/// Renames a collection over another: false when it is not there.
pub(crate) async fn rename_over(store: &Store, from: &str, to: &str) -> Result<bool> {
    let full = |name: &str| format!("{}.{name}", store.settings.database);
    let command = doc! {
        "renameCollection": full(from),
        "to": full(to),
        "dropTarget": true,
        "writeConcern": { "w": "majority", "j": true },
    };
    let renamed = store
        .run(&store.admin(), command, "renaming a collection")
        .await;
    Ok(unless(renamed, NAMESPACE_NOT_FOUND)?.is_some())
}

pub(crate) async fn drop_collection(store: &Store, name: &str) -> Result<()> {
    let command = doc! { "drop": name, "writeConcern": { "w": "majority" } };
    let dropped = store
        .run(&store.database(), command, "dropping a collection")
        .await;
    unless(dropped, NAMESPACE_NOT_FOUND).map(|_| ())
}

/// The server's identity of a collection; none when it is not there.
pub(crate) async fn uuid(store: &Store, name: &str) -> Result<Option<Binary>> {
    let Some(info) = collection_info(store, name).await? else {
        return Ok(None);
    };
    let uuid = listed_uuid(&info).ok_or(Error::Answer {
        doing: "listing collections",
        field: "info.uuid",
    });
    uuid.map(Some)
}

/// The same of an item of `listCollections`; none where it has none.
pub(crate) fn listed_uuid(item: &Document) -> Option<Binary> {
    match item.get_document("info").ok()?.get("uuid")? {
        Bson::Binary(uuid) => Some(uuid.clone()),
        _ => None,
    }
}

async fn collection_info(store: &Store, name: &str) -> Result<Option<Document>> {
    let command = doc! { "listCollections": 1, "filter": { "name": name } };
    let doing = "listing collections";
    let answer = store.run(&store.database(), command, doing).await?;
    let cursor = answer.get_document("cursor");
    let batch = cursor.and_then(|cursor| cursor.get_array("firstBatch"));
    let batch = batch.map_err(|_| Error::Answer {
        doing,
        field: "cursor.firstBatch",
    })?;
    Ok(batch.first().and_then(bson::Bson::as_document).cloned())
}

fn without_namespace(mut index: Document) -> Document {
    index.remove("ns");
    index
}

/// None instead of the server's error with this code.
pub(crate) fn unless<T>(result: Result<T>, expected: i32) -> Result<Option<T>> {
    match result {
        Err(error) if error.has_code(expected) => Ok(None),
        result => result.map(Some),
    }
}
