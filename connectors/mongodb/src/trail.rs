//! What a change left in MongoDB: the position, and the oplog's entry of the transaction that moved it.
//!
//! - The position's `end_lsn` never goes back within a generation, so the oplog is searched by bisection over time.
//! - It only reads; each question has a time limit.

use std::time::Duration;

use bson::{Bson, Document, RawDocumentBuf, Timestamp, doc};
use futures_util::TryStreamExt;
use mongodb::{Collection, Cursor};
use walferry_core::{Checkpoint, Fault};
use walferry_schema::{Image, Lsn, TableName};

use crate::bson_value::element;
use crate::document::{Encoder, append_id};
use crate::error::code;
use crate::store::Store;
use crate::{Error, Naming, OrderBook, Result, Settings, claim};

const POSITIONS: &str = "_walferry.positions";
const READING: &str = "reading the oplog";
const GRANT: &str = "the user may not read MongoDB's oplog: db.getSiblingDB(\"admin\").grantRolesToUser(\"<the user>\", \
                     [{role: \"read\", db: \"local\"}])";
/// How long the server may look for one entry.
const PATIENCE: Duration = Duration::from_secs(20);
/// How far the clock that numbered a generation may be from MongoDB's.
const CLOCKS: i64 = 60;
/// Entries of one second that are looked at; more than a pipeline writes.
const ENTRIES: i64 = 20_000;

/// Reads what changes left in MongoDB.
#[derive(Clone, Debug)]
pub struct Trail {
    store: Store,
}

/// The position as it is now.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// When it was written last, milliseconds since 1970, by the sink's clock.
    pub updated_at: Option<i64>,
}

/// A write of the position, as the oplog has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// When it took effect, milliseconds since 1970, by MongoDB's clock.
    pub at: i64,
    /// How far the source's log was covered then.
    pub end_lsn: Lsn,
    /// The last transaction of the group; none when the group had none.
    pub commit_lsn: Option<Lsn>,
    /// When that transaction was committed, microseconds since 1970; none when it is not told.
    pub committed_at: Option<i64>,
}

/// What the oplog says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Oplog {
    /// The write that was looked for.
    Found(Written),
    /// There is no such write in what it holds, since this many milliseconds after 1970.
    Gone(i64),
    /// It cannot be read: why, and what would help.
    Unreadable(String),
}

// === impl Trail ===

impl Trail {
    /// Connects.
    ///
    /// # Errors
    /// As [`crate::MongoSink::connect`].
    pub async fn connect(settings: Settings) -> Result<Self, Fault> {
        let store = Box::pin(Store::connect(settings)).await?;
        Ok(Self { store })
    }

    /// What operators ask of the pipeline, over the same connection.
    pub fn order_book(&self) -> OrderBook {
        OrderBook::over(self.store.clone())
    }

    /// The pipeline's position; none before the first write.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn position(&self) -> Result<Option<Recorded>, Fault> {
        Ok(Box::pin(self.read_position()).await?)
    }

    /// The write that first covered `lsn` in a generation.
    ///
    /// # Errors
    /// When MongoDB cannot be asked.
    pub async fn covering(&self, generation: u64, lsn: Lsn) -> Result<Oplog, Fault> {
        let found = Box::pin(self.search(generation, lsn)).await;
        Ok(told(found)?)
    }

    /// The last write of a row that the oplog holds, as the position that it came with.
    ///
    /// # Errors
    /// When MongoDB cannot be asked, or the key has no form in MongoDB.
    pub async fn last_write(&self, table: &TableName, key: &Image<'_>) -> Result<Oplog, Fault> {
        let id = self.id(table, key)?;
        let found = Box::pin(self.search_row(table, id)).await;
        Ok(told(found)?)
    }

    async fn read_position(&self) -> Result<Option<Recorded>> {
        let Some(stored) = claim::read(&self.store).await? else {
            return Ok(None);
        };
        let updated_at = stored.updated_at.map(bson::DateTime::timestamp_millis);
        Ok(stored.checkpoint.map(|checkpoint| Recorded {
            checkpoint,
            updated_at,
        }))
    }

    async fn search(&self, generation: u64, lsn: Lsn) -> Result<Oplog> {
        let first = self.first_second().await?;
        let begun = i64::try_from(generation / 1_000).unwrap_or_default() - CLOCKS;
        let begun = u32::try_from(begun).unwrap_or_default();
        let Some(last) = self.last_second().await? else {
            return Ok(Oplog::Gone(i64::from(first) * 1_000));
        };
        let (mut from, mut to) = (first.max(begun), last.saturating_add(1));
        // Otherwise what comes first there may not have been the first.
        let mut is_known_before = begun >= first;
        while to.saturating_sub(from) > 1 {
            let middle = from + (to - from) / 2;
            match self.first_write(middle, to).await? {
                Some((second, written)) if written.end_lsn < lsn => {
                    from = second;
                    is_known_before = true;
                }
                _ => to = middle,
            }
        }
        let mut cursor = self.writes(from, last.saturating_add(1), ENTRIES).await?;
        while let Some(document) = self.next(&mut cursor).await? {
            let (_, written) = Written::of(&document)?;
            if written.end_lsn < lsn {
                is_known_before = true;
            } else if is_known_before {
                return Ok(Oplog::Found(written));
            } else {
                break;
            }
        }
        Ok(Oplog::Gone(i64::from(first) * 1_000))
    }

    async fn search_row(&self, table: &TableName, id: Bson) -> Result<Oplog> {
        let first = i64::from(self.first_second().await?) * 1_000;
        let collection = Naming.collection(table)?;
        let writes = doc! { "$elemMatch": {
            "ns": format!("{}.{collection}", self.store.settings.database),
            "$or": [{ "o2._id": id.clone() }, { "op": { "$in": ["i", "d"] }, "o._id": id }],
        } };
        let Some(row) = self
            .last(doc! { "o.applyOps": writes }, doc! { "ts": 1 })
            .await?
        else {
            return Ok(Oplog::Gone(first));
        };
        // A large transaction has several entries: the position stands in the first of them.
        let mut query = self.position_writes();
        query.insert("ts", doc! { "$lte": timestamp(&row)? });
        let written = self.last(query, self.projection()).await?;
        let written = written.as_ref().map(Written::of).transpose()?;
        Ok(written.map_or(Oplog::Gone(first), |(_, it)| Oplog::Found(it)))
    }

    /// The second of the oplog's first entry.
    async fn first_second(&self) -> Result<u32> {
        let oplog = self.oplog();
        let find = oplog.find_one(doc! {}).sort(doc! { "$natural": 1 });
        let find = find.projection(doc! { "ts": 1 }).max_time(PATIENCE);
        let first = self.store.in_time(find, READING).await?;
        let first = first.as_ref().map(timestamp).transpose()?;
        Ok(first.map_or(0, |it| it.time))
    }

    /// The second of the oplog's last write of the position.
    async fn last_second(&self) -> Result<Option<u32>> {
        let last = self.last(self.position_writes(), doc! { "ts": 1 }).await?;
        let last = last.as_ref().map(timestamp).transpose()?;
        Ok(last.map(|it| it.time))
    }

    /// The last entry that matches.
    async fn last(&self, query: Document, projection: Document) -> Result<Option<Document>> {
        let oplog = self.oplog();
        let find = oplog.find_one(query).sort(doc! { "$natural": -1 });
        let find = find.projection(projection).max_time(PATIENCE);
        self.store.in_time(find, READING).await
    }

    /// The first write of the position from one second up to another, and its second.
    async fn first_write(&self, from: u32, to: u32) -> Result<Option<(u32, Written)>> {
        let mut cursor = self.writes(from, to, 1).await?;
        let found = self.next(&mut cursor).await?;
        found.as_ref().map(Written::of).transpose()
    }

    /// The writes of the position from one second up to another.
    async fn writes(&self, from: u32, to: u32, limit: i64) -> Result<Cursor<Document>> {
        let at = |time| Timestamp { time, increment: 0 };
        let mut query = self.position_writes();
        query.insert("ts", doc! { "$gte": at(from), "$lt": at(to) });
        let oplog = self.oplog();
        let find = oplog.find(query).sort(doc! { "$natural": 1 });
        let find = find.limit(limit).projection(self.projection());
        self.store.in_time(find.max_time(PATIENCE), READING).await
    }

    async fn next(&self, cursor: &mut Cursor<Document>) -> Result<Option<Document>> {
        self.store.in_time(cursor.try_next(), READING).await
    }

    /// What matches the writes that say how far the source's log is covered; a claim says nothing of that.
    fn position_writes(&self) -> Document {
        let pipeline = &self.store.settings.pipeline;
        // As MongoDB 5 and later write an update, as 4.4 does, and a whole document.
        let places = ["o.diff.u", "o.diff.i", "o.$set", "o"];
        let places = places.map(|it| doc! { format!("{it}.end_lsn"): { "$exists": true } });
        let write = doc! { "ns": POSITIONS, "o2._id": pipeline, "$or": places.to_vec() };
        doc! { "$or": [write.clone(), { "o.applyOps": { "$elemMatch": write } }] }
    }

    /// Of a transaction's writes only the position's.
    fn projection(&self) -> Document {
        let pipeline = &self.store.settings.pipeline;
        let is_ours = doc! { "$and": [
            { "$eq": ["$$write.ns", POSITIONS] },
            { "$eq": ["$$write.o2._id", pipeline] },
        ] };
        let writes = doc! { "$ifNull": ["$o.applyOps", []] };
        let ours = doc! { "$filter": { "input": writes, "as": "write", "cond": is_ours } };
        let write =
            doc! { "$cond": [{ "$eq": ["$ns", POSITIONS] }, "$o", { "$arrayElemAt": [ours, 0] }] };
        doc! { "ts": 1, "wall": 1, "write": write }
    }

    fn oplog(&self) -> Collection<Document> {
        self.store.client.database("local").collection("oplog.rs")
    }

    fn id(&self, table: &TableName, key: &Image<'_>) -> Result<Bson> {
        let (mut id, mut document) = (Vec::new(), Vec::new());
        Encoder::new(table.clone(), self.store.settings.policies).id(&mut id, key)?;
        let start = element::open(&mut document);
        append_id(&mut document, &id);
        element::close(&mut document, start);
        let document = RawDocumentBuf::from_bytes(document).ok();
        let document = document.and_then(|raw| Document::try_from(&*raw).ok());
        let id = document.and_then(|mut it| it.remove("_id"));
        id.ok_or(Error::Answer {
            doing: "making the key's _id",
            field: "_id",
        })
    }
}

// === impl Written ===

impl Written {
    /// The second of an entry, and what it writes.
    fn of(entry: &Document) -> Result<(u32, Self)> {
        let missing = |field| Error::Answer {
            doing: READING,
            field,
        };
        let wall = entry.get_datetime("wall").map_err(|_| missing("wall"))?;
        let write = entry.get_document("write").map_err(|_| missing("o"))?;
        let lsn = |name| find(write, name).and_then(Bson::as_str)?.parse().ok();
        let written = Self {
            at: wall.timestamp_millis(),
            end_lsn: lsn("end_lsn").ok_or_else(|| missing("end_lsn"))?,
            commit_lsn: lsn("commit_lsn"),
            committed_at: find(write, "committed_at").and_then(Bson::as_i64),
        };
        Ok((timestamp(entry)?.time, written))
    }
}

/// The field of this name, however deep the oplog's description of an update puts it.
fn find<'a>(document: &'a Document, name: &str) -> Option<&'a Bson> {
    document.get(name).or_else(|| {
        let mut nested = document.iter().filter_map(|(_, it)| it.as_document());
        nested.find_map(|it| find(it, name))
    })
}

fn timestamp(entry: &Document) -> Result<Timestamp> {
    entry.get_timestamp("ts").map_err(|_| Error::Answer {
        doing: READING,
        field: "ts",
    })
}

/// What an oplog that may not or cannot be read tells: the rest of the answer does without it.
fn told(found: Result<Oplog>) -> Result<Oplog> {
    match found {
        Err(Error::Denied { .. }) => Ok(Oplog::Unreadable(GRANT.to_owned())),
        Err(Error::Server { source, .. }) if code(&source).is_some() => Ok(Oplog::Unreadable(
            format!("MongoDB's oplog cannot be read: {source}"),
        )),
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use bson::DateTime;

    use super::*;

    fn entry(write: Document) -> Document {
        let ts = Timestamp {
            time: 7,
            increment: 1,
        };
        doc! { "ts": ts, "wall": DateTime::from_millis(7_250), "write": write }
    }

    #[test]
    fn a_write_is_read_in_each_form_of_the_oplog() {
        let deep = doc! { "op": "u", "o": { "$v": 2, "diff": {
            "u": { "end_lsn": "0/31", "committed_at": 5_i64 },
            "sposition": { "u": { "commit_lsn": "0/1" } },
        } } };
        let flat = doc! { "$v": 1, "$set": {
            "end_lsn": "0/31", "committed_at": 5_i64, "position": { "commit_lsn": "0/1" },
        } };
        let expected = Written {
            at: 7_250,
            end_lsn: Lsn(0x31),
            commit_lsn: Some(Lsn(1)),
            committed_at: Some(5),
        };
        for write in [deep, flat] {
            assert_eq!(Written::of(&entry(write)).unwrap(), (7, expected.clone()));
        }
    }

    #[test]
    fn a_write_without_a_transaction_is_of_none() {
        let beat = doc! { "$v": 2, "diff": { "u": { "end_lsn": "0/31" } } };
        assert_eq!(Written::of(&entry(beat)).unwrap().1.commit_lsn, None);
    }
}
