//! Collections that are filled aside and then renamed over their targets (protocol rule 18).
//!
//! - Every step can be repeated: what exists is kept, what is gone was done.

use bson::{Document, doc};
use futures_util::TryStreamExt;
use tracing::info;
use walferry_schema::TableSpec;

use crate::error::code;
use crate::naming::{Naming, staged_generation};
use crate::store::Store;
use crate::{Error, Result};

const NAMESPACE_NOT_FOUND: i32 = 26;
const NAMESPACE_EXISTS: i32 = 48;
/// Options of a collection that bound its content or belong to views.
const LEFT_OUT_OPTIONS: [&str; 6] = ["capped", "size", "max", "autoIndexId", "viewOn", "pipeline"];

/// Makes the staging collections of a generation, drops those of older ones.
pub(crate) async fn stage(store: &Store, generation: u64, tables: &[TableSpec]) -> Result<()> {
    Naming.check(tables.iter().map(|table| &table.name))?;
    let database = store.database();
    let names = store
        .in_time(database.list_collection_names(), "listing collections")
        .await?;
    for table in tables {
        let collection = Naming.collection(&table.name)?;
        let is_older = |name: &&String| {
            staged_generation(&collection, name).is_some_and(|other| other < generation)
        };
        for older in names.iter().filter(is_older) {
            drop_collection(store, older).await?;
            info!(
                collection = older,
                "dropped the staging collection of an older generation"
            );
        }
        let staging = Naming.staging(&table.name, generation)?;
        create_like(store, &staging, &collection).await?;
        copy_indexes(store, &collection, &staging).await?;
    }
    Ok(())
}

/// Renames the staging collections of a generation over their targets.
pub(crate) async fn swap(store: &Store, generation: u64, tables: &[TableSpec]) -> Result<()> {
    for table in tables {
        let collection = Naming.collection(&table.name)?;
        let staging = Naming.staging(&table.name, generation)?;
        if rename_over(store, &staging, &collection).await? {
            info!(collection, generation, "swapped in");
        } else if !exists(store, &collection).await? {
            return Err(Error::StagingLost { staging });
        }
    }
    Ok(())
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

async fn exists(store: &Store, name: &str) -> Result<bool> {
    Ok(collection_info(store, name).await?.is_some())
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
fn unless<T>(result: Result<T>, expected: i32) -> Result<Option<T>> {
    match result {
        Err(Error::Server { source, .. }) if code(&source) == Some(expected) => Ok(None),
        result => result.map(Some),
    }
}
