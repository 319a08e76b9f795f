//! Where a history begins, or goes on after it was not kept: the versions become what the collection holds.
//!
//! - Once per table and generation, before the first change of it is written: after a snapshot, and after a start with
//!   `history = true`. Until that is recorded it is done again from the start; what is equal is left alone.
//! - Each step reads so many rows and ends in a fenced transaction.

use std::collections::{HashMap, HashSet};

use bson::{Bson, DateTime, Document, RawDocumentBuf, doc};
use futures_util::TryStreamExt as _;
use mongodb::options::Hint;
use walferry_schema::TableName;
use walferry_schema::envelope::Op;

use super::run::{self, joined, payload};
use super::{History, Moment, name};
use crate::bson_value::element::Elements;
use crate::store::Store;
use crate::versions::table_of;
use crate::{Error, Naming, Policies, Result, identity};

pub(crate) const HISTORIES: &str = "histories";
const READING: &str = "reading which histories have begun";
const LOOKING: &str = "looking through a collection for its history";
/// At most so many rows, and about so many bytes, are looked at in a step.
const ROWS: usize = 1_000;
const BYTES: usize = 4 << 20;

/// The histories that have begun, by table: in which generation.
#[derive(Debug, Default)]
pub(crate) struct Begun {
    tables: HashMap<TableName, u64>,
    /// Those that are not kept any more.
    over: Vec<TableName>,
}

/// How far a table is seen.
#[derive(Debug)]
pub(crate) struct Seen {
    table: TableName,
    collection: String,
    pass: Pass,
    moment: Moment,
    policies: Policies,
}

/// Rows without a version first, then versions without a row.
#[derive(Debug)]
enum Pass {
    Rows { after: Option<Bson> },
    Versions { after: Option<Bson> },
    Done,
}

/// What a step found.
#[derive(Debug)]
pub(crate) enum Found {
    /// What the history lacks, if anything, of so many rows.
    Changes(History, usize),
    /// There is nothing more.
    End,
}

// === impl Begun ===

impl Begun {
    /// Reads which have begun.
    pub(crate) async fn load(store: &Store) -> Result<Self> {
        let histories = store.own_database().collection::<Document>(HISTORIES);
        let find = histories.find(doc! { "_id.pipeline": &store.settings.pipeline });
        let found = store.in_time(find, READING).await?;
        let found = found.try_collect::<Vec<_>>();
        let found = store.in_time(found, READING).await?;
        let begun = found.iter().filter_map(begun_of);
        let is_kept = |(table, _): &(TableName, u64)| store.settings.histories.has(table);
        let (tables, over): (Vec<_>, Vec<_>) = begun.partition(is_kept);
        Ok(Self {
            tables: tables.into_iter().collect(),
            over: over.into_iter().map(|(table, _)| table).collect(),
        })
    }

    pub(crate) fn has(&self, table: &TableName, generation: u64) -> bool {
        self.tables.get(table) == Some(&generation)
    }

    pub(crate) fn insert(&mut self, table: TableName, generation: u64) {
        self.tables.insert(table, generation);
    }

    /// Has it be forgotten of those that are not kept any more that they had begun: they lack what comes now.
    pub(crate) fn end(&mut self, pipeline: &str) -> Vec<Document> {
        let delete = |table: TableName| {
            let query = doc! { "_id": id(pipeline, &table) };
            doc! { "delete": HISTORIES, "deletes": [{ "q": query, "limit": 1 }] }
        };
        self.over.drain(..).map(delete).collect()
    }
}

/// Notes that a history has begun.
pub(crate) fn beginning(pipeline: &str, table: &TableName, generation: u64) -> Document {
    let begun = doc! { "generation": generation.cast_signed(), "begun_at": DateTime::now() };
    let query = doc! { "_id": id(pipeline, table) };
    doc! { "update": HISTORIES, "updates": [{ "q": query, "u": { "$set": begun }, "upsert": true }] }
}

// === impl Seen ===

impl Seen {
    /// Nothing of a table, which stands as of a moment.
    pub(crate) fn none(table: &TableName, moment: Moment, policies: Policies) -> Result<Self> {
        Ok(Self {
            table: table.clone(),
            collection: Naming.collection(table)?,
            pass: Pass::Rows { after: None },
            moment,
            policies,
        })
    }

    /// The collection of its versions.
    pub(crate) fn history(&self) -> String {
        super::collection(&self.collection)
    }

    /// Looks at some more.
    pub(crate) async fn next(&mut self, store: &Store) -> Result<Found> {
        let mut history = History::new(self.table.clone(), &self.collection, self.policies);
        let rows = match std::mem::replace(&mut self.pass, Pass::Done) {
            Pass::Rows { after } => self.rows(store, after, &mut history).await?,
            Pass::Versions { after } => self.versions(store, after, &mut history).await?,
            Pass::Done => return Ok(Found::End),
        };
        Ok(Found::Changes(history, rows))
    }

    /// Begins a version of each row that has none, or another.
    async fn rows(
        &mut self,
        store: &Store,
        after: Option<Bson>,
        history: &mut History,
    ) -> Result<usize> {
        let documents = store
            .database()
            .collection::<RawDocumentBuf>(&self.collection);
        let mut find = documents
            .find(doc! {})
            .hint(Hint::Keys(doc! { "_id": 1 }))
            .sort(doc! { "_id": 1 });
        // A bound of the index: `$gt` finds ids of its own type only. The bound itself comes again.
        if let Some(after) = &after {
            find = find.min(doc! { "_id": after.clone() });
        }
        let (rows, last) = some(store, find.limit(limit())).await?;
        let mut found = HashMap::new();
        for row in &rows {
            let elements = Elements::of_document(row.as_bytes());
            let clash = elements.clone().find(|it| is_own(it.name));
            if let Some(clash) = clash {
                return Err(Error::HistoryClash {
                    table: self.table.clone(),
                    column: String::from_utf8_lossy(clash.name).into_owned(),
                });
            }
            let id = elements.clone().find(|it| it.name == b"_id");
            if let Some(key) = id.and_then(payload) {
                found.insert(key, joined(elements.filter(|it| it.name != b"_id")));
            }
        }
        let known = self.known(store, &found).await?;
        for (key, body) in found {
            let version = known.get(&*identity(&key));
            if version != Some(&body) {
                let of = (Op::Read, self.moment);
                history.put_over(&key, &body, of, version.is_some());
            }
        }
        let is_end = last.is_none() || last == after;
        self.pass = if is_end {
            Pass::Versions { after: None }
        } else {
            Pass::Rows { after: last }
        };
        Ok(rows.len())
    }

    /// The rows that the current versions of some say, by the identities of their keys.
    async fn known(
        &self,
        store: &Store,
        rows: &HashMap<Vec<u8>, Vec<u8>>,
    ) -> Result<HashMap<Vec<u8>, Vec<u8>>> {
        let keys: Vec<_> = rows.keys().map(Vec::as_slice).collect();
        let versions = store.database();
        let versions = versions.collection::<RawDocumentBuf>(&self.history());
        let mut found = store
            .in_time(versions.find(run::current(&keys)?), LOOKING)
            .await?;
        let mut known = HashMap::new();
        while let Some(version) = store.in_time(found.try_next(), LOOKING).await? {
            let elements = Elements::of_document(version.as_bytes());
            if let Some(row) = run::row(elements.clone()) {
                let of_row = elements.filter(|it| it.name != b"_id" && !is_own(it.name));
                known.insert(identity(&row).into_owned(), joined(of_row));
            }
        }
        Ok(known)
    }

    /// Ends the versions whose rows are not there any more.
    async fn versions(
        &mut self,
        store: &Store,
        after: Option<Bson>,
        history: &mut History,
    ) -> Result<usize> {
        let versions = store.database();
        let versions = versions.collection::<RawDocumentBuf>(&self.history());
        let mut find = versions
            .find(doc! { name::IS_CURRENT: true })
            .projection(doc! { "_id": 1 })
            .hint(Hint::Name("walferry_current".to_owned()))
            .sort(doc! { "_id.row": 1 });
        if let Some(after) = &after {
            find = find.min(doc! { "_id.row": after.clone() });
        }
        let (found, _) = some(store, find.limit(limit())).await?;
        let keys = found
            .iter()
            .filter_map(|it| run::row(Elements::of_document(it.as_bytes())));
        let keys: Vec<_> = keys.collect();
        let standing = self.standing(store, &keys).await?;
        for key in keys
            .iter()
            .filter(|key| !standing.contains(&*identity(key)))
        {
            history.gone(key, Op::Read, self.moment);
        }
        let last = found.last().and_then(row_id);
        if last.is_some() && last != after {
            self.pass = Pass::Versions { after: last };
        }
        Ok(0)
    }

    /// Which of some rows are there, by the identities of their keys.
    async fn standing(&self, store: &Store, keys: &[Vec<u8>]) -> Result<HashSet<Vec<u8>>> {
        let ids = keys.iter().map(|key| crate::document::id_filter(key));
        let ids: Vec<Document> = ids.collect::<Result<_>>()?;
        let ids: Vec<Bson> = ids
            .into_iter()
            .filter_map(|mut it| it.remove("_id"))
            .collect();
        let documents = store
            .database()
            .collection::<RawDocumentBuf>(&self.collection);
        let find = documents
            .find(doc! { "_id": { "$in": ids } })
            .projection(doc! { "_id": 1 });
        let mut found = store.in_time(find, LOOKING).await?;
        let mut standing = HashSet::new();
        while let Some(row) = store.in_time(found.try_next(), LOOKING).await? {
            let id = Elements::of_document(row.as_bytes()).find(|it| it.name == b"_id");
            standing.extend(id.and_then(payload).map(|id| identity(&id).into_owned()));
        }
        Ok(standing)
    }
}

/// Documents up to about so many bytes, and the `_id` of the last.
async fn some(
    store: &Store,
    find: impl IntoFuture<Output = mongodb::error::Result<mongodb::Cursor<RawDocumentBuf>>>,
) -> Result<(Vec<RawDocumentBuf>, Option<Bson>)> {
    let mut found = store.in_time(find, LOOKING).await?;
    let (mut documents, mut bytes) = (Vec::new(), 0);
    // The first may be the bound: one more always goes on.
    while bytes < BYTES || documents.len() < 2 {
        let Some(next) = store.in_time(found.try_next(), LOOKING).await? else {
            break;
        };
        bytes += next.as_bytes().len();
        documents.push(next);
    }
    let last = documents.last().and_then(id_of);
    Ok((documents, last))
}

/// Whether a field is a version's own, not its row's.
fn is_own(field: &[u8]) -> bool {
    name::ALL.iter().any(|it| it.as_bytes() == field)
}

fn id_of(document: &RawDocumentBuf) -> Option<Bson> {
    Document::try_from(&**document).ok()?.remove("_id")
}

fn row_id(version: &RawDocumentBuf) -> Option<Bson> {
    match id_of(version)? {
        Bson::Document(mut id) => id.remove("row"),
        _ => None,
    }
}

fn limit() -> i64 {
    i64::try_from(ROWS).unwrap_or(i64::MAX)
}

fn id(pipeline: &str, table: &TableName) -> Document {
    let table = doc! { "schema": &*table.schema, "table": &*table.table };
    doc! { "pipeline": pipeline, "table": table }
}

fn begun_of(document: &Document) -> Option<(TableName, u64)> {
    let table = table_of(document.get_document("_id").ok()?)?;
    Some((table, document.get_i64("generation").ok()?.cast_unsigned()))
}
