//! Whether a MongoDB can be the target of a pipeline: everything that is wrong with it at once.
//!
//! - It only looks.

use std::time::SystemTime;

use bson::{Bson, DateTime, Document, doc};
use futures_util::TryStreamExt;
use walferry_core::{Checkpoint, Fault, Finding, Orders};
use walferry_schema::TableName;

use crate::store::Store;
use crate::{Naming, Result, Settings, claim, orders};

const EXAMINING: &str = "examining the target";
/// What the sink and the batch load do in both databases.
const ACTIONS: [&str; 9] = [
    "find",
    "insert",
    "update",
    "remove",
    "createCollection",
    "createIndex",
    "dropCollection",
    "listCollections",
    "renameCollectionSameDB",
];

/// What MongoDB keeps of a pipeline.
#[derive(Clone, Debug)]
pub struct KeptPosition {
    /// What was applied; none when the pipeline was claimed and nothing was.
    pub checkpoint: Option<Checkpoint>,
    /// When it was written, by the clock of who wrote it.
    pub updated_at: Option<SystemTime>,
    /// What is asked of the pipeline, and what is left to mend in its documents.
    pub orders: Orders,
}

/// Looks at everything that writing the collections of these tables needs.
pub async fn examine(settings: &Settings, tables: &[TableName]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let examined = match Store::connect(settings.clone()).await {
        Ok(store) => look(&mut findings, &store, tables).await,
        Err(error) => Err(error),
    };
    if let Err(error) = examined {
        findings.push(Finding::failed("MongoDB", &Fault::from(error)));
    }
    findings
}

/// The names of the collections of the target's database, sorted.
///
/// # Errors
/// When the server cannot be asked.
pub async fn collections(settings: &Settings) -> Result<Vec<String>> {
    let store = Store::connect(settings.clone()).await?;
    let database = store.database();
    let listed = store.in_time(database.list_collection_names(), EXAMINING);
    let mut names = listed.await?;
    names.sort();
    Ok(names)
}

/// The names of the indexes of collections that are there, but for that of `_id`, in the order of the collections.
///
/// # Errors
/// When the server cannot be reached.
pub async fn indexes(settings: &Settings, collections: &[String]) -> Result<Vec<Vec<String>>> {
    let store = Store::connect(settings.clone()).await?;
    let mut indexes = Vec::new();
    for name in collections {
        let collection = store.database().collection::<Document>(name);
        let listed = store.in_time(collection.list_index_names(), EXAMINING);
        // A view has none, nor has what is gone by now.
        let mut names = listed.await.unwrap_or_default();
        names.retain(|it| it != "_id_");
        names.sort();
        indexes.push(names);
    }
    Ok(indexes)
}

/// Where the pipeline of these settings stands; none before it was first claimed. It takes nothing over.
///
/// # Errors
/// When the server cannot be asked, or the position is of another format.
pub async fn position(settings: &Settings) -> Result<Option<KeptPosition>> {
    let store = Store::connect(settings.clone()).await?;
    let Some(stored) = claim::read(&store).await? else {
        return Ok(None);
    };
    Ok(Some(KeptPosition {
        checkpoint: stored.checkpoint,
        updated_at: stored.updated_at.map(DateTime::to_system_time),
        orders: orders::read(&store).await?,
    }))
}

async fn look(findings: &mut Vec<Finding>, store: &Store, tables: &[TableName]) -> Result<()> {
    findings.push(server(store).await?);
    findings.push(clock(store).await?);
    findings.push(privileges(store).await?);
    findings.push(standing(store).await);
    if let Err(error) = Naming.check(tables) {
        findings.push(Finding::failed("MongoDB: names", &Fault::from(error)));
        return Ok(());
    }
    for table in tables {
        findings.extend(unique_indexes(store, table).await?);
    }
    Ok(())
}

async fn server(store: &Store) -> Result<Finding> {
    let asked = doc! { "buildInfo": 1 };
    let info = store.run(&store.admin(), asked, EXAMINING).await?;
    let version = info.get_str("version").unwrap_or("unknown");
    let found = format!("{version}, with transactions");
    Ok(Finding::pass("MongoDB: version", found))
}

async fn clock(store: &Store) -> Result<Finding> {
    let asked = doc! { "hello": 1 };
    let hello = store.run(&store.admin(), asked, EXAMINING).await?;
    let shown = hello.get_datetime("localTime").copied();
    #[expect(
        clippy::cast_precision_loss,
        reason = "milliseconds since 1970 fit for another 280,000 years"
    )]
    let seconds = shown.map_or(f64::NAN, |it| it.timestamp_millis() as f64 / 1e3);
    Ok(Finding::clock("MongoDB", seconds))
}

/// Whether the user may do what the sink does.
async fn privileges(store: &Store) -> Result<Finding> {
    let subject = "MongoDB: privileges";
    let asked = doc! { "connectionStatus": 1, "showPrivileges": true };
    let answer = store.run(&store.admin(), asked, EXAMINING).await?;
    let info = answer.get_document("authInfo").cloned().unwrap_or_default();
    let users = info.get_array("authenticatedUsers");
    if users.is_ok_and(Vec::is_empty) {
        return Ok(Finding::pass(subject, "nobody has to log in"));
    }
    let granted = info.get_array("authenticatedUserPrivileges");
    let granted = granted.cloned().unwrap_or_default();
    let mut missing = Vec::new();
    for database in [&*store.settings.database, store.own_database().name()] {
        let lacks = |action: &&&str| !granted.iter().any(|it| grants(it, database, action));
        let lacking: Vec<_> = ACTIONS.iter().filter(lacks).copied().collect();
        if !lacking.is_empty() {
            missing.push(format!("{} on {database}", lacking.join(", ")));
        }
    }
    if missing.is_empty() {
        return Ok(Finding::pass(subject, "as needed"));
    }
    let found = format!("the user may not {}", missing.join("; nor "));
    let remedy = format!(
        "db.getSiblingDB(\"admin\").grantRolesToUser(\"<the user>\", [{{role: \"readWrite\", db: \"{}\"}}, {{role: \
         \"readWrite\", db: \"{}\"}}])",
        store.settings.database,
        store.own_database().name()
    );
    Ok(Finding::fail(subject, found, remedy))
}

/// Whether a privilege allows an action on every collection of a database.
fn grants(privilege: &Bson, database: &str, action: &str) -> bool {
    let Some(privilege) = privilege.as_document() else {
        return false;
    };
    let empty = Document::new();
    let resource = privilege.get_document("resource").unwrap_or(&empty);
    let is_any = resource.get_bool("anyResource").unwrap_or_default();
    let of = resource.get_str("db");
    let is_whole = resource.get_str("collection").is_ok_and(str::is_empty);
    let covers = is_any || is_whole && of.is_ok_and(|of| of.is_empty() || of == database);
    let actions = privilege.get_array("actions");
    covers && actions.is_ok_and(|all| all.iter().any(|it| it.as_str() == Some(action)))
}

/// Where the pipeline stands.
async fn standing(store: &Store) -> Finding {
    let subject = format!("MongoDB: position of {}", store.settings.pipeline);
    match claim::read(store).await {
        Ok(None) => Finding::pass(subject, "none yet: the tables will be copied"),
        Ok(Some(stored)) => {
            let checkpoint = stored.checkpoint;
            let found = checkpoint.map_or("claimed, nothing applied".to_owned(), |it| {
                format!("generation {}, applied up to {}", it.generation, it.end_lsn)
            });
            Finding::pass(subject, found)
        }
        Err(error) => Finding::failed(subject, &Fault::from(error)),
    }
}

/// Unique indexes that MongoDB checks row by row where PostgreSQL may wait for the end of a statement or transaction.
async fn unique_indexes(store: &Store, table: &TableName) -> Result<Vec<Finding>> {
    let name = Naming.collection(table)?;
    let collection = store.database().collection::<Document>(&name);
    let listed = store.in_time(collection.list_indexes(), EXAMINING).await;
    let Ok(listed) = listed else {
        // There is no such collection yet.
        return Ok(Vec::new());
    };
    let indexes: Vec<_> = store
        .in_time(listed.try_collect::<Vec<_>>(), EXAMINING)
        .await?;
    let unique = indexes.into_iter().filter(|index| {
        let options = index.options.as_ref();
        options.and_then(|it| it.unique) == Some(true) && index.keys != doc! { "_id": 1 }
    });
    Ok(unique
        .map(|index| {
            let named = index.options.and_then(|it| it.name).unwrap_or_default();
            let found = format!(
                "the unique index {named}: values that two rows exchange, or a duplicate that PostgreSQL allows, are refused \
                 (dead letters, or the end of the sink with on_poison = \"stop\")"
            );
            let remedy = format!("db.{name}.dropIndex(\"{named}\"), and make it again without `unique`");
            Finding::warn(format!("MongoDB: collection {name}"), found, remedy)
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_privilege_counts_when_it_covers_the_whole_database() {
        let of =
            |resource| Bson::Document(doc! { "resource": resource, "actions": ["find", "insert"] });
        let whole = of(doc! { "db": "shop", "collection": "" });
        assert!(grants(&whole, "shop", "find"));
        assert!(!grants(&whole, "shop", "remove"));
        assert!(!grants(&whole, "_walferry", "find"));
        assert!(!grants(
            &of(doc! { "db": "shop", "collection": "one" }),
            "shop",
            "find"
        ));
        assert!(grants(
            &of(doc! { "db": "", "collection": "" }),
            "shop",
            "find"
        ));
        assert!(grants(&of(doc! { "anyResource": true }), "shop", "find"));
    }
}
