//! What mongod alone does with the engine's own writes: the limit that a drain is held against.
//!
//! - The groups are the transactions that mongod's oplog recorded: the same operations, borders and order.
//! - Every command is encoded before the clock starts; nothing but the driver and mongod is measured.

use std::time::{Duration, Instant};

use bson::{Bson, Document, RawDocumentBuf, Timestamp, doc};
use futures_util::TryStreamExt;
use mongodb::options::{ReadConcern, WriteConcern};
use mongodb::{ClientSession, Database};

use crate::error::{Error, Result};
use crate::rig::{Pipeline, Rig};
use crate::screen;

/// The engine's own database, in which it keeps its position.
const OWN_DATABASE: &str = "_walferry";
/// MongoDB takes 100,000 operations and 48 MB in one command.
const MAX_STATEMENTS: usize = 100_000;
const MAX_BYTES: usize = 40_000_000;

/// The commands of a drain, ready to be sent.
pub(crate) struct Replay {
    target: Database,
    groups: Vec<Vec<RawDocumentBuf>>,
    /// Operations on rows; those on the position do not count.
    pub(crate) operations: u64,
}

/// A write as the oplog has it.
struct Write {
    collection: String,
    kind: Kind,
    statement: Document,
    is_row: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Insert,
    Update,
    Delete,
}

/// Where the oplog ends.
pub(crate) async fn now(rig: &Rig) -> Result<Timestamp> {
    let hello = rig
        .client
        .database("admin")
        .run_command(doc! { "hello": 1 })
        .await?;
    let stamp = hello
        .get_document("lastWrite")
        .and_then(|write| write.get_document("opTime"))
        .and_then(|time| time.get_timestamp("ts"));
    stamp.map_err(|_| Error::Answer {
        what: "hello",
        field: "lastWrite.opTime.ts",
    })
}

/// Copies the collections as they are before the drain: what is replayed must find what it updates.
pub(crate) async fn copy_state(pipeline: &Pipeline<'_>) -> Result<Database> {
    let target = pipeline.fresh_database("replay");
    let own = pipeline.rig.client.database(OWN_DATABASE);
    for from in [&pipeline.target, &own] {
        for name in from.list_collection_names().await? {
            let out = doc! { "$out": { "db": target.name(), "coll": &name } };
            let collection = from.collection::<Document>(&name);
            collection.aggregate([out]).await?;
        }
    }
    // An empty source makes no collection, and a transaction is no place to make one.
    let there = target.list_collection_names().await?;
    for name in pipeline.target.list_collection_names().await? {
        if !there.contains(&name) {
            target.create_collection(&name).await?;
        }
    }
    Ok(target)
}

// === impl Replay ===

impl Replay {
    /// Reads what the pipeline wrote after `since`.
    pub(crate) async fn read(
        pipeline: &Pipeline<'_>,
        target: Database,
        since: Timestamp,
    ) -> Result<Self> {
        let oplog = pipeline.rig.client.database("local");
        let filter = doc! { "ts": { "$gt": since }, "o.applyOps": { "$exists": true } };
        let mut cursor = oplog
            .collection::<Document>("oplog.rs")
            .find(filter)
            .sort(doc! { "$natural": 1 })
            .await?;
        let mut replay = Self {
            target,
            groups: Vec::new(),
            operations: 0,
        };
        let mut group = Vec::new();
        while let Some(mut entry) = cursor.try_next().await? {
            let object = entry.get_document_mut("o").ok();
            let Some(object) = object else { continue };
            group.extend(writes(object, pipeline.target.name()));
            // A transaction beyond 16 MB has several entries; all but the last say so.
            if !object.get_bool("partialTxn").unwrap_or(false) {
                replay.add(std::mem::take(&mut group))?;
            }
        }
        screen::say(format_args!(
            "{}: {} groups to replay",
            pipeline.name,
            replay.groups()
        ));
        Ok(replay)
    }

    pub(crate) fn groups(&self) -> usize {
        self.groups.len()
    }

    fn add(&mut self, writes: Vec<Write>) -> Result<()> {
        let rows = writes.iter().filter(|write| write.is_row).count();
        if rows > 0 {
            self.operations += rows as u64;
            self.groups.push(commands(writes)?);
        }
        Ok(())
    }

    /// Sends every group as one transaction, one after the other, as the engine does.
    pub(crate) async fn run(&self) -> Result<Duration> {
        let mut session = self.target.client().start_session().await?;
        let begun = Instant::now();
        for group in &self.groups {
            self.send(&mut session, group).await?;
        }
        Ok(begun.elapsed())
    }

    async fn send(&self, session: &mut ClientSession, group: &[RawDocumentBuf]) -> Result<()> {
        session
            .start_transaction()
            .read_concern(ReadConcern::local())
            .write_concern(WriteConcern::majority())
            .await?;
        for command in group {
            let command = self.target.run_raw_command(command.clone());
            let answer = command.session(&mut *session).await?;
            if answer.contains_key("writeErrors") {
                let after = "the replay".to_owned();
                let difference = format!("a write was refused: {answer}");
                return Err(Error::Different { after, difference });
            }
        }
        session.commit_transaction().await?;
        Ok(())
    }
}

/// The writes of an oplog entry that belong to the pipeline.
fn writes(object: &mut Document, database: &str) -> Vec<Write> {
    let Ok(operations) = object.get_array_mut("applyOps") else {
        return Vec::new();
    };
    let operations = std::mem::take(operations);
    operations
        .into_iter()
        .filter_map(|operation| match operation {
            Bson::Document(operation) => write(operation, database),
            _ => None,
        })
        .collect()
}

fn write(mut operation: Document, database: &str) -> Option<Write> {
    let (from, collection) = operation.get_str("ns").ok()?.split_once('.')?;
    let is_row = from == database;
    if !is_row && from != OWN_DATABASE {
        return None;
    }
    let collection = collection.to_owned();
    let kind = operation.get_str("op").ok()?.to_owned();
    let object = operation.get_document_mut("o").map(std::mem::take).ok()?;
    let key = operation.get_document_mut("o2").map(std::mem::take);
    let (kind, statement) = match kind.as_str() {
        "i" => (Kind::Insert, object),
        "d" => (Kind::Delete, doc! { "q": object, "limit": 1 }),
        "u" => (
            Kind::Update,
            doc! { "q": key.ok()?, "u": update_of(object) },
        ),
        _ => return None,
    };
    Some(Write {
        collection,
        kind,
        statement,
        is_row,
    })
}

/// The update that the oplog's second form of a difference stands for; another object replaces.
fn update_of(object: Document) -> Document {
    let Ok(diff) = object.get_document("diff") else {
        return object;
    };
    let (mut set, mut unset) = (Document::new(), Document::new());
    spread(diff, "", &mut set, &mut unset);
    let mut update = Document::new();
    for (name, fields) in [("$set", set), ("$unset", unset)] {
        if !fields.is_empty() {
            update.insert(name, fields);
        }
    }
    update
}

/// Fields inserted, updated and deleted, and the same inside of documents. Changes inside of arrays are passed over:
/// the workload has none.
fn spread(diff: &Document, path: &str, set: &mut Document, unset: &mut Document) {
    for (name, change) in diff {
        let Bson::Document(fields) = change else {
            continue;
        };
        match name.as_str() {
            "i" | "u" => {
                let fields = fields.iter();
                set.extend(fields.map(|(field, value)| (format!("{path}{field}"), value.clone())));
            }
            "d" => unset.extend(
                fields
                    .keys()
                    .map(|field| (format!("{path}{field}"), true.into())),
            ),
            inner => {
                if let Some(field) = inner.strip_prefix('s') {
                    spread(fields, &format!("{path}{field}."), set, unset);
                }
            }
        }
    }
}

/// Neighbours of one kind in one collection go into one command: in this order the engine sent them.
fn commands(writes: Vec<Write>) -> Result<Vec<RawDocumentBuf>> {
    let mut commands = Vec::new();
    let mut open: Option<(String, Kind, Vec<Bson>, usize)> = None;
    for write in writes {
        let statement = RawDocumentBuf::try_from(&write.statement)?;
        let bytes = statement.as_bytes().len();
        let fits = open.as_ref().is_some_and(|(collection, kind, all, size)| {
            (collection.as_str(), *kind) == (&write.collection, write.kind)
                && all.len() < MAX_STATEMENTS
                && size + bytes < MAX_BYTES
        });
        if !fits {
            commands.extend(open.take().map(command).transpose()?);
        }
        let (_, _, all, size) =
            open.get_or_insert_with(|| (write.collection, write.kind, Vec::new(), 0));
        all.push(write.statement.into());
        *size += bytes;
    }
    commands.extend(open.map(command).transpose()?);
    Ok(commands)
}

fn command(
    (collection, kind, statements, _): (String, Kind, Vec<Bson>, usize),
) -> Result<RawDocumentBuf> {
    let command = match kind {
        Kind::Insert => doc! { "insert": collection, "documents": statements },
        Kind::Update => doc! { "update": collection, "updates": statements },
        Kind::Delete => doc! { "delete": collection, "deletes": statements },
    };
    Ok(RawDocumentBuf::try_from(&command)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_becomes_the_update_that_made_it() {
        let object = doc! { "$v": 2, "diff": {
            "d": { "gone": false }, "u": { "a": 1 }, "i": { "b": 2 }, "sinner": { "u": { "c": 3 } },
        } };
        let update = doc! { "$set": { "a": 1, "b": 2, "inner.c": 3 }, "$unset": { "gone": true } };
        assert_eq!(update_of(object), update);
    }

    #[test]
    fn neighbours_of_one_kind_are_one_command() {
        let operation = |ns: &str, op: &str| {
            Bson::Document(doc! { "ns": ns, "op": op, "o": { "_id": 1 }, "o2": { "_id": 1 } })
        };
        let mut object = doc! { "applyOps": [
            operation("_walferry.positions", "u"), operation("d.t", "i"), operation("d.t", "i"),
            operation("d.u", "i"), operation("other.t", "i"), operation("d.u", "d"),
        ] };
        let writes = writes(&mut object, "d");
        assert_eq!(writes.iter().filter(|write| write.is_row).count(), 4);
        assert_eq!(commands(writes).expect("they can be encoded").len(), 4);
    }
}
