//! Questions to what was delivered: views, indexes, and answers that are shown or kept.
//!
//! - An answer is read as of one moment (read concern `snapshot`): no transaction of the source is seen half.
//! - A kept answer changes by `$merge`: readers never see an emptied collection, and a document that says the same is
//!   not written.
//! - Only a collection that was made for answers is written, known by name and UUID.

mod as_of;
mod aside;
mod error;
mod keep;
mod part;
mod records;
mod row;
mod values;

use std::collections::BTreeMap;
use std::time::Duration;

use bson::{Binary, Bson, Document, RawDocumentBuf, doc};
use futures_util::TryStreamExt;
use mongodb::Cursor;
use mongodb::options::ReadConcern;

use crate::error::{NAMESPACE_EXISTS, NAMESPACE_NOT_FOUND};
use crate::staging::{listed_uuid, unless};
use crate::store::Store;
use crate::{Error, Result, Settings};

pub use as_of::AsOf;
pub use aside::Aside;
pub use error::AnalyticsError;
pub use keep::{Answer, Kept};
pub use part::Part;
pub use records::ByHand;
pub use row::Row;
pub use values::{FoundValues, Holders, ValueSet};

/// The index is there under another name.
const INDEX_EXISTS: i32 = 85;
/// What the server says while the newest moment is before a collection's or an index's making.
const SNAPSHOT_UNAVAILABLE: i32 = 246;
/// What it says of a moment that it keeps no longer.
const SNAPSHOT_TOO_OLD: i32 = 239;
/// How often that is asked again, and when: the next write of a majority moves the moment on.
const ATTEMPTS: u32 = 50;
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// All that a rule asks about may be read before its first document comes: that is longer than any command of the sink.
const ANSWERING: Duration = Duration::from_mins(10);

const READING: &str = "reading an answer";
const LISTING: &str = "listing collections";
const EXPLAINING: &str = "having a pipeline explained";
const INDEXING: &str = "making an index for the analytics";

/// A MongoDB that is asked, and that keeps the answers.
#[derive(Clone, Debug)]
pub struct Analyst {
    pub(crate) store: Store,
}

/// A pipeline over a collection or view.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// The collection or view.
    pub collection: String,
    /// What is done with its documents.
    pub pipeline: Vec<Document>,
}

/// What stands under a name in the database.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// A collection with documents of its own, or something else than a view; with what tells it from another of its name,
    /// where it has that.
    Collection(Option<Binary>),
    /// A view of this.
    View(Query),
}

/// What the server says of a pipeline that it does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its message.
    pub message: String,
}

// === impl Analyst ===

impl Analyst {
    /// Connects.
    ///
    /// # Errors
    /// As [`crate::MongoSink::connect`].
    pub async fn connect(settings: Settings) -> Result<Self> {
        let mut store = Store::connect(settings).await?;
        let limit = &mut store.settings.command_timeout;
        *limit = (*limit).max(ANSWERING);
        Ok(Self { store })
    }

    /// The database that is asked.
    pub fn database(&self) -> &str {
        &self.store.settings.database
    }

    /// What stands in the database, by name.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn standing(&self) -> Result<BTreeMap<String, Standing>> {
        let database = self.store.database();
        let list = doc! { "listCollections": 1, "cursor": {} };
        let cursor = self
            .store
            .in_time(database.run_cursor_command(list), LISTING);
        let listed = cursor.await?.try_collect::<Vec<Document>>();
        let listed = self.store.in_time(listed, LISTING).await?;
        Ok(listed.iter().filter_map(standing).collect())
    }

    /// Makes a view, or gives one that was made here another definition; whether there was something to do.
    ///
    /// # Errors
    /// When a collection or another's view has the name, the user may not, or the server refuses the pipeline.
    pub async fn make_view(
        &self,
        name: &str,
        query: &Query,
        standing: Option<&Standing>,
    ) -> Result<bool> {
        let command = match standing {
            Some(Standing::View(found)) if found == query => {
                if !self.is_own_view(name).await? {
                    self.record_view(name).await?;
                }
                return Ok(false);
            }
            Some(Standing::View(_)) if self.is_own_view(name).await? => "collMod",
            Some(_) => return Err(AnalyticsError::view_taken(name).into()),
            None => "create",
        };
        let made = self.write_view(command, name, query).await;
        match made {
            Ok(()) => self.record_view(name).await.map(|()| true),
            Err(error) if error.has_code(NAMESPACE_EXISTS) => {
                Err(AnalyticsError::view_taken(name).into())
            }
            Err(error) => Err(AnalyticsError::of_view(name, error)),
        }
    }

    /// Makes an index, where there is none like it; whether there was none.
    ///
    /// # Errors
    /// When the server refuses or cannot be asked.
    pub async fn make_index(&self, collection: &str, keys: &Document) -> Result<bool> {
        let part = |(field, kind): (&String, &Bson)| match kind.as_str() {
            Some(kind) => format!("{field}_{kind}"),
            None => format!("{field}_{kind}"),
        };
        let name: Vec<_> = keys.iter().map(part).collect();
        let index = doc! { "key": keys, "name": name.join("_") };
        let command = doc! { "createIndexes": collection, "indexes": [index] };
        // Building takes as long as it takes: no time limit.
        let made = self.store.database().run_command(command).await;
        let made = unless(made.map_err(Error::server(INDEXING)), INDEX_EXISTS);
        let made = made.map_err(|error| AnalyticsError::of_index(collection, &name, error))?;
        let count = |name| made.as_ref().and_then(|it| it.get_i32(name).ok());
        Ok(count("numIndexesBefore") != count("numIndexesAfter"))
    }

    /// The answer to a query, as of one moment.
    ///
    /// # Errors
    /// When the server refuses the query or cannot be asked.
    pub async fn rows(&self, query: &Query) -> Result<Vec<Row>> {
        let cursor = self.ask(query).await?;
        let rows = cursor.map_ok(Row::new).try_collect();
        let rows = self.store.in_time(rows, READING).await;
        rows.map_err(AnalyticsError::of_answer)
    }

    /// Has the server look at a query without answering it; none when it would take it.
    ///
    /// # Errors
    /// When the server cannot be asked, or the user may not read.
    pub async fn explain(&self, query: &Query) -> Result<Option<Refused>> {
        let asked =
            doc! { "aggregate": &query.collection, "pipeline": &query.pipeline, "cursor": {} };
        let command = doc! { "explain": asked, "verbosity": "queryPlanner" };
        match self.command(command, EXPLAINING).await {
            Ok(_) => Ok(None),
            Err(error) => match error::refusal(&error) {
                Some(message) => Ok(Some(Refused { message })),
                None => Err(error),
            },
        }
    }

    async fn ask(&self, query: &Query) -> Result<Cursor<RawDocumentBuf>> {
        let database = self.store.database();
        let collection = database.collection::<Document>(&query.collection);
        for _ in 0..ATTEMPTS {
            let asked = collection
                .aggregate(query.pipeline.clone())
                .read_concern(ReadConcern::snapshot())
                .allow_disk_use(true)
                .with_type::<RawDocumentBuf>();
            match self.store.in_time(asked, READING).await {
                Err(error) if error.has_code(SNAPSHOT_UNAVAILABLE) => {
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                answer => return answer.map_err(AnalyticsError::of_answer),
            }
        }
        Err(Error::NoAnswer { doing: READING })
    }

    /// Makes a view (`create`), or gives one another definition (`collMod`).
    pub(crate) async fn write_view(&self, command: &str, name: &str, query: &Query) -> Result<()> {
        let written = doc! {
            command: name,
            "viewOn": &query.collection,
            "pipeline": &query.pipeline,
            "writeConcern": { "w": "majority" },
        };
        self.command(written, "making a view").await.map(|_| ())
    }

    /// Has the database run a command.
    pub(crate) async fn command(&self, command: Document, doing: &'static str) -> Result<Document> {
        self.store.run(&self.store.database(), command, doing).await
    }

    /// Drops a collection or view; one that is gone is as good.
    pub(crate) async fn drop(&self, name: &str) -> Result<()> {
        let command = doc! { "drop": name, "writeConcern": { "w": "majority" } };
        let dropped = self.command(command, "dropping what stood aside").await;
        unless(dropped, NAMESPACE_NOT_FOUND).map(|_| ())
    }
}

/// What an item of `listCollections` tells of.
fn standing(item: &Document) -> Option<(String, Standing)> {
    let name = item.get_str("name").ok()?.to_owned();
    if item.get_str("type").ok() != Some("view") {
        return Some((name, Standing::Collection(listed_uuid(item))));
    }
    let options = item.get_document("options").ok()?;
    let pipeline = options.get_array("pipeline").map_or(&[][..], Vec::as_slice);
    let stages = pipeline.iter().filter_map(Bson::as_document).cloned();
    let query = Query {
        collection: options.get_str("viewOn").ok()?.to_owned(),
        pipeline: stages.collect(),
    };
    Some((name, Standing::View(query)))
}
