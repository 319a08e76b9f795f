//! Writes versions as part of a transaction.

use std::collections::HashMap;

use bson::{Bson, Document, RawDocumentBuf, doc};
use mongodb::{ClientSession, SessionCursor};

use super::plan::{End, Plan, Step, Stored};
use super::{History, name};
use crate::bson_value::element::{self, Element, Elements};
use crate::command::{Command, Kind};
use crate::document::{append_id_as, id_filter};
use crate::error::DUPLICATE_KEY;
use crate::stop::Stop;
use crate::store::{Store, Written};
use crate::writes::{self, Mode};
use crate::{Error, Result, identity};

const READING: &str = "reading the current versions of rows";
const CLOSING: &str = "ending versions of rows";
const INSERTING: &str = "inserting versions of rows";
/// So many rows are asked for at once.
const ROWS: usize = 1_000;
/// What a statement that ends a version has around its key.
const CLOSE_BYTES: usize = 256;

/// Makes the indexes that a history needs; the one of the current versions says, too, that a row has at most one.
pub(crate) async fn make_indexes(store: &Store, collection: &str) -> Result<()> {
    let command = doc! {
        "createIndexes": collection,
        "indexes": [
            {
                "key": { "_id.row": 1 },
                "name": "walferry_current",
                "unique": true,
                "partialFilterExpression": { name::IS_CURRENT: true },
            },
            { "key": { "_id.row": 1, name::VALID_FROM: 1 }, "name": "walferry_versions" },
        ],
    };
    let database = store.database();
    // Building takes as long as it takes: no time limit.
    let made = database.run_command(command).await;
    made.map(|_| ())
        .map_err(Error::server("creating the indexes of a history"))
}

/// Writes what a table's changes come to.
pub(crate) async fn write(
    store: &Store,
    session: &mut ClientSession,
    history: &History,
    mode: Mode,
) -> Result<(), Stop> {
    let stored = read(store, session, history).await?;
    let plan = history.plan(&stored, mode == Mode::Repair)?;
    let mut run = Run {
        store,
        session,
        collection: &history.collection,
        mode,
    };
    run.steps(&plan).await?;
    run.versions(&plan).await
}

/// The current versions that the changes go on from.
async fn read(store: &Store, session: &mut ClientSession, history: &History) -> Result<Stored> {
    let wanted: Vec<_> = history.wanted().into_iter().collect();
    let mut stored = HashMap::new();
    let versions = store.database();
    let versions = versions.collection::<RawDocumentBuf>(&history.collection);
    for keys in wanted.chunks(ROWS) {
        let find = versions.find(current(keys)?);
        let find = find.session(&mut *session).into_future();
        let mut found = store.in_time(find, READING).await?;
        while let Some(version) = next(store, &mut found, session).await? {
            let elements = Elements::of_document(version.as_bytes());
            if let Some(row) = row(elements.clone()) {
                stored.insert(
                    identity(&row).into_owned(),
                    joined(elements.filter(|it| it.name != b"_id")),
                );
            }
        }
    }
    Ok(stored)
}

async fn next(
    store: &Store,
    found: &mut SessionCursor<RawDocumentBuf>,
    session: &mut ClientSession,
) -> Result<Option<RawDocumentBuf>> {
    let next = async { found.next(session).await.transpose() };
    store.in_time(next, READING).await
}

/// The query of rows' current versions.
pub(crate) fn current(keys: &[&[u8]]) -> Result<Document> {
    let keys = keys.iter().map(|key| Ok(id_filter(key)?.remove("_id")));
    let keys: Vec<Bson> = keys
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect();
    Ok(doc! { "_id.row": { "$in": keys }, name::IS_CURRENT: true })
}

/// The key of a version's row, type byte and payload.
pub(crate) fn row(mut version: Elements<'_>) -> Option<Vec<u8>> {
    let id = version.find(|it| it.name == b"_id")?;
    let id = payload(id)?;
    let row = Elements::of_document(&id[1..]).find(|it| it.name == b"row")?;
    payload(row)
}

/// The type byte and payload of an element.
pub(crate) fn payload(element: Element<'_>) -> Option<Vec<u8>> {
    let kind = element.bytes.first()?;
    let payload = element.bytes.get(element.name.len() + 2..)?;
    Some([&[*kind], payload].concat())
}

/// Elements one after another.
pub(crate) fn joined<'a>(elements: impl Iterator<Item = Element<'a>>) -> Vec<u8> {
    let mut out = Vec::new();
    elements.for_each(|element| out.extend_from_slice(element.bytes));
    out
}

struct Run<'a> {
    store: &'a Store,
    session: &'a mut ClientSession,
    collection: &'a str,
    mode: Mode,
}

// === impl Run ===

impl Run<'_> {
    /// Ends versions that stand; those of this group are not there yet.
    async fn steps(&mut self, plan: &Plan<'_>) -> Result<(), Stop> {
        let mut command = Command::new(Kind::Update, self.collection);
        for step in &plan.steps {
            match step {
                Step::Close(row, end) => {
                    if command.is_full(self.store.limits(), row.len() + CLOSE_BYTES) {
                        let next = Command::new(Kind::Update, self.collection);
                        self.send(std::mem::replace(&mut command, next), CLOSING)
                            .await?;
                    }
                    command.add(|out| close_statement(out, row, end));
                }
                Step::Empty(end) => {
                    command.add(|out| empty_statement(out, end));
                }
            }
        }
        self.send(command, CLOSING).await
    }

    async fn versions(&mut self, plan: &Plan<'_>) -> Result<(), Stop> {
        let mut command = Command::new(Kind::Insert, self.collection);
        for version in &plan.versions {
            if command.is_full(self.store.limits(), version.bytes()) {
                let next = Command::new(Kind::Insert, self.collection);
                self.send(std::mem::replace(&mut command, next), INSERTING)
                    .await?;
            }
            command.add(|out| version.append(out));
        }
        self.send(command, INSERTING).await
    }

    async fn send(&mut self, command: Command, doing: &'static str) -> Result<(), Stop> {
        if command.statements() == 0 {
            return Ok(());
        }
        let command = command.finish()?;
        let session = Some(&mut *self.session);
        let written: Written = writes::checked(self.store.write(session, command, doing).await)?;
        let is_duplicate = |it: &crate::store::WriteError| it.code == DUPLICATE_KEY;
        // A row that is new has a current version: one that a skipped delete left.
        if self.mode == Mode::Plain && written.errors.iter().any(is_duplicate) {
            return Err(Stop::Mismatch);
        }
        Ok(written.accepted(doing, self.collection)?)
    }
}

/// `{q: {_id.row, is_current: true}, u: {$set: {…}}}`
fn close_statement(out: &mut Vec<u8>, row: &[u8], end: &End) {
    let query = element::open_document(out, "q");
    append_id_as(out, "_id.row", row);
    element::boolean(out, name::IS_CURRENT, true);
    element::close(out, query);
    update(out, end);
}

/// `{q: {is_current: true}, u: {$set: {…}}, multi: true}`
fn empty_statement(out: &mut Vec<u8>, end: &End) {
    let query = element::open_document(out, "q");
    element::boolean(out, name::IS_CURRENT, true);
    element::close(out, query);
    update(out, end);
    element::boolean(out, "multi", true);
}

fn update(out: &mut Vec<u8>, end: &End) {
    let update = element::open_document(out, "u");
    end.append_set(out);
    element::close(out, update);
}
