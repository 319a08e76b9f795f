//! Changes that MongoDB cannot take, kept until they can be applied or are given up.
//!
//! - `_walferry.dead_letters` holds a document for each, written by the transaction that moves the position past the
//!   change; `_walferry.dead_letter_parts` holds what it says, in parts, written before.
//! - What one group holds of a row is one letter: the row's last state, as everything else that a group holds.
//! - Letters and parts may be very many: they are read by ranges of `_id`, and only what is needed of them.

mod commands;
mod letter;
mod orders;
mod parts;
mod refused;
mod shown;

use std::collections::BTreeSet;

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, RawDocument, RawDocumentBuf, doc};
use futures_util::TryStreamExt as _;
use walferry_core::{LetterChoice, ParkedTable};
use walferry_schema::TableName;

use crate::parked::{ParkedKeys, Standing};
use crate::store::{Store, Written};
use crate::{Error, Result, identity};
use commands::{lacking, obsolete};

pub(crate) use commands::{begun, emptied, failing, inserting, renamed, settling};
pub(crate) use letter::{Letter, Operation, name};
pub(crate) use orders::{order_document, order_of};
pub use parts::LetterText;
pub(crate) use parts::{content, drop_contents, keep, sweep};
pub(crate) use refused::refused;
pub use shown::{DeadLetter, Lacking};
pub(crate) use shown::{document, lacks, shown};

/// The collection of the letters.
pub(crate) const LETTERS: &str = "dead_letters";
/// How many tables are told of at most.
const SHOWN_TABLES: i32 = 100;
const PARKED: &str = "parked";

const READING: &str = "reading the dead letters";
const WRITING: &str = "writing dead letters";

fn texts_of(document: &Document, name: &str) -> Vec<String> {
    let items = document.get_array(name).map_or(&[][..], Vec::as_slice);
    let items = items.iter().filter_map(Bson::as_str).map(str::to_owned);
    items.collect()
}

fn id(pipeline: &str, at: &str) -> Document {
    doc! { "pipeline": pipeline, "at": at }
}

fn binary(bytes: &[u8]) -> Bson {
    Bson::Binary(Binary {
        subtype: BinarySubtype::Generic,
        bytes: bytes.to_vec(),
    })
}

fn bytes_of(document: &Document, name: &str) -> Option<Vec<u8>> {
    document.get_binary_generic(name).ok().cloned()
}

/// What of letters tells whose they are.
fn of_rows() -> Document {
    doc! {
        "_id": 0, "state": 1, "schema": 1, "table_name": 1, "generation": 1, "key": 1, "from": 1, "op": 1,
    }
}

/// The rows that have dead letters, or were given up.
pub(crate) async fn keys(store: &Store) -> Result<ParkedKeys> {
    let of = lacking(doc! { "pipeline": &store.settings.pipeline });
    let mut keys = ParkedKeys::default();
    // What is parked of a row after it was given up counts more.
    let mut parked = Vec::new();
    each(store, of, of_rows(), |letter| {
        let row = row_of(letter).ok_or(Error::Answer {
            doing: READING,
            field: "key, or another that a dead letter has",
        })?;
        if letter.get_str("state").is_ok_and(|it| it == PARKED) {
            parked.push(row);
        } else {
            keys.insert(&row.table, row.generation, &row.key, Standing::GivenUp);
        }
        Ok(())
    })
    .await?;
    for row in parked {
        for key in [Some(&row.key), row.moved_from.as_ref()]
            .into_iter()
            .flatten()
        {
            keys.insert(&row.table, row.generation, key, Standing::Parked);
        }
    }
    Ok(keys)
}

/// Whose a letter is.
struct Row {
    table: TableName,
    generation: u64,
    key: Vec<u8>,
    from: Option<Vec<u8>>,
    /// The key that it waits for, too.
    moved_from: Option<Vec<u8>>,
}

fn row_of(letter: &RawDocument) -> Option<Row> {
    let text = |name| letter.get_str(name).ok();
    let bytes = |name| Some(letter.get_binary(name).ok()?.bytes.to_vec());
    let from = bytes("from");
    let is_moved = text("op")? == Operation::Move.name();
    Some(Row {
        table: TableName::new(text("schema")?, text("table_name")?),
        generation: letter.get_i64("generation").ok()?.cast_unsigned(),
        key: bytes("key")?,
        moved_from: from.clone().filter(|_| is_moved),
        from,
    })
}

/// The letters that stand in a generation, of these and of all whose rows theirs may be.
pub(crate) async fn standing(
    store: &Store,
    generation: u64,
    choice: &LetterChoice,
) -> Result<Vec<Letter>> {
    let pipeline = &store.settings.pipeline;
    let mut parked = doc! {
        "pipeline": pipeline,
        "state": PARKED,
        "generation": generation.cast_signed(),
    };
    match choice {
        LetterChoice::All => {}
        LetterChoice::Table(table) => drop(parked.insert("table", table)),
        LetterChoice::Letter(at) => {
            let of = doc! { "_id": id(pipeline, at) };
            let Some(letter) = find(store, of).await?.into_iter().next() else {
                return Ok(Vec::new());
            };
            parked.insert("table", letter.get("table"));
        }
    }
    let mut letters = Vec::new();
    // For people: there may be very many.
    let all_but = doc! { "error": 0, "retry_error": 0, "shown_key": 0 };
    each(store, parked, all_but, |letter| {
        letters.extend(
            Document::try_from(letter)
                .ok()
                .as_ref()
                .and_then(Letter::of),
        );
        Ok(())
    })
    .await?;
    Ok(letters)
}

/// The rows that have letters: tables, and the identities of `_id`s.
pub(crate) async fn rows(store: &Store) -> Result<BTreeSet<(String, Vec<u8>)>> {
    let parked = doc! { "pipeline": &store.settings.pipeline, "state": PARKED };
    let mut rows = BTreeSet::new();
    each(store, parked, of_rows(), |letter| {
        if let Some(row) = row_of(letter) {
            let keys = [Some(row.key), row.from].into_iter().flatten();
            rows.extend(keys.map(|key| (row.table.to_string(), identity(&key).into_owned())));
        }
        Ok(())
    })
    .await?;
    Ok(rows)
}

/// Takes over another pipeline's letters that stand, and the rows that were given up.
pub(crate) async fn take_over(store: &Store, from: &str) -> Result<()> {
    // Those of an earlier time here: the other pipeline knows what became of them.
    let mut own = obsolete(doc! { "pipeline": &store.settings.pipeline });
    own.insert("writeConcern", majority());
    run(store, own).await?;
    for mut letter in find(store, lacking(doc! { "pipeline": from })).await? {
        let pipeline = &store.settings.pipeline;
        letter.insert("pipeline", pipeline);
        if let Some(of) = Letter::of(&letter) {
            parts::take_over_parts(store, from, &of).await?;
        }
        if let Ok(id) = letter.get_document_mut("_id") {
            id.insert("pipeline", pipeline);
        }
        replace(store, LETTERS, letter).await?;
    }
    Ok(())
}

async fn replace(store: &Store, collection: &str, document: Document) -> Result<()> {
    let id = document.get("_id").cloned();
    let update = doc! { "q": { "_id": id }, "u": document, "upsert": true };
    run(
        store,
        doc! { "update": collection, "updates": [update], "writeConcern": majority() },
    )
    .await
}

/// How many letters the tables have.
pub(crate) async fn counted(store: &Store) -> Result<Vec<ParkedTable>> {
    let letters = store.own_database().collection::<Document>(LETTERS);
    let pipeline = [
        doc! { "$match": { "pipeline": &store.settings.pipeline, "state": PARKED } },
        doc! { "$group": {
            "_id": "$table", "letters": { "$sum": 1_i64 }, "since": { "$min": "$parked_at" },
        } },
        doc! { "$sort": { "_id": 1 } },
        doc! { "$limit": SHOWN_TABLES },
    ];
    let counted = letters.aggregate(pipeline);
    let counted = store.in_time(counted, READING).await?;
    let counted: Vec<_> = store
        .in_time(counted.try_collect::<Vec<Document>>(), READING)
        .await?;
    let table = |it: &Document| {
        Some(ParkedTable {
            table: it.get_str("_id").ok()?.to_owned(),
            letters: it.get_i64("letters").ok()?.cast_unsigned(),
            since: it.get_datetime("since").ok()?.timestamp_millis(),
        })
    };
    Ok(counted.iter().filter_map(table).collect())
}

async fn find(store: &Store, of: Document) -> Result<Vec<Document>> {
    let letters = store.own_database().collection::<Document>(LETTERS);
    let found = store.in_time(letters.find(of), READING).await?;
    store.in_time(found.try_collect(), READING).await
}

/// Looks at some fields of letters, one letter after another.
async fn each(
    store: &Store,
    of: Document,
    fields: Document,
    see: impl FnMut(&RawDocument) -> Result<()>,
) -> Result<()> {
    each_of(store, LETTERS, of, fields, see).await
}

async fn each_of(
    store: &Store,
    collection: &str,
    of: Document,
    fields: Document,
    mut see: impl FnMut(&RawDocument) -> Result<()>,
) -> Result<()> {
    let documents = store
        .own_database()
        .collection::<RawDocumentBuf>(collection);
    let found = documents.find(of).projection(fields);
    let mut found = store.in_time(found, READING).await?;
    while let Some(document) = store.in_time(found.try_next(), READING).await? {
        see(&document)?;
    }
    Ok(())
}

/// Has the letters of a generation's tables, and of all before it, told by their state.
pub(crate) async fn make_indexes(store: &Store) -> Result<()> {
    // All that is counted again and again.
    let key = doc! { "pipeline": 1, "state": 1, "table": 1, "parked_at": 1 };
    let index = doc! { "key": key, "name": "parked" };
    let given_up = doc! {
        "key": { "pipeline": 1, "given_up": 1 },
        "name": "given_up",
        "partialFilterExpression": { "given_up": true },
    };
    let command = doc! { "createIndexes": LETTERS, "indexes": [index, given_up] };
    store.run(&store.own_database(), command, WRITING).await?;
    Ok(())
}

/// Settles what was parked before a generation, which copied its tables anew.
pub(crate) async fn forget(store: &Store, generation: u64) -> Result<()> {
    let pipeline = &store.settings.pipeline;
    let old = doc! { "pipeline": pipeline, "generation": { "$lt": generation.cast_signed() } };
    let mut command = obsolete(old);
    command.insert("writeConcern", majority());
    run(store, command).await
}

async fn run(store: &Store, command: Document) -> Result<()> {
    let answer = store.run(&store.own_database(), command, WRITING).await?;
    Written::from_answer(&answer, WRITING)?.accepted(WRITING, LETTERS)
}

fn majority() -> Document {
    doc! { "w": "majority", "j": true }
}

// Orders about letters.
