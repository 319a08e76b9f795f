//! What dead letters say, in parts.
//!
//! - A part belongs to the claim that wrote it: another process can never have written a part of the same letter.
//! - What a row was too large with is kept as PostgreSQL's text, piece by piece as it is read.
//! - Parts that no standing letter refers to are removed at the next claim.

use std::collections::HashSet;

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, RawDocumentBuf, doc};
use futures_util::TryStreamExt as _;

use super::letter::{Letter, Operation};
use super::{PARKED, READING, bytes_of, each, each_of, id, majority, replace, run};
use crate::batch::Text;
use crate::bson_value::element;
use crate::parked::Content;
use crate::store::Store;
use crate::{Error, Result};

const PARTS: &str = "dead_letter_parts";
/// What a part holds at most.
const PART_BYTES: usize = 7 << 20;
/// The same of a text, which is read from a file as it is kept.
const TEXT_PART_BYTES: usize = 4 << 20;
/// How many parts one command writes or removes at most.
const COMMAND_PARTS: usize = 1_000;

/// A value as PostgreSQL's text, read piece by piece.
#[derive(Debug)]
pub struct LetterText {
    store: Store,
    /// Whose parts, less the number.
    own: Document,
    letter: String,
    column: String,
    part: i64,
    left: u64,
}

/// Parts on their way, as many in a command as it takes.
struct Keeper<'a> {
    store: &'a Store,
    updates: Vec<Document>,
    bytes: usize,
}

// === impl LetterText ===

impl LetterText {
    /// One that is kept; none of one that is not yet.
    pub(crate) fn of(store: &Store, letter: &Letter, text: &Text) -> Option<Self> {
        let mut own = own_parts(&store.settings.pipeline, &letter.at, letter.epoch);
        own.insert("column", &*text.column.name);
        text.large().is_none().then(|| Self {
            store: store.clone(),
            own,
            letter: letter.at.clone(),
            column: text.column.name.to_string(),
            part: 0,
            left: text.bytes,
        })
    }

    /// The column that it is of.
    pub fn column(&self) -> &str {
        &self.column
    }

    /// The next piece; none after the last.
    ///
    /// # Errors
    /// When the server cannot be asked, or the piece is gone.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut id = self.own.clone();
        id.insert("part", self.part);
        let parts = self.store.own_database().collection::<Document>(PARTS);
        let found = parts.find_one(doc! { "_id": id });
        let found = self.store.in_time(found, READING).await?;
        let piece = found.and_then(|it| bytes_of(&it, "content"));
        let piece = piece.filter(|it| !it.is_empty() && it.len() as u64 <= self.left);
        let piece = piece.ok_or_else(|| Error::LetterLost {
            letter: self.letter.clone(),
        })?;
        self.part += 1;
        self.left -= piece.len() as u64;
        Ok(Some(piece))
    }
}

pub(super) async fn take_over_parts(store: &Store, from: &str, letter: &Letter) -> Result<()> {
    let parts = store.own_database().collection::<Document>(PARTS);
    let found = store.in_time(parts.find(parts_of(from, letter)), READING);
    let mut found = found.await?;
    while let Some(mut part) = store.in_time(found.try_next(), READING).await? {
        if let Ok(id) = part.get_document_mut("_id") {
            id.insert("pipeline", &store.settings.pipeline);
        }
        replace(store, PARTS, part).await?;
    }
    Ok(())
}

/// Keeps what letters say, where the letters will refer to.
pub(crate) async fn keep(store: &Store, epoch: i64, contents: &[Content]) -> Result<()> {
    let mut keeper = Keeper {
        store,
        updates: Vec::new(),
        bytes: 0,
    };
    for content in contents {
        let own = own_parts(&store.settings.pipeline, &content.at, epoch);
        let document = document_of(&content.elements);
        for (number, part) in document.chunks(PART_BYTES).enumerate() {
            keeper.add(own.clone(), number, part.to_vec()).await?;
        }
        for text in &content.texts {
            keeper.add_text(&own, text).await?;
        }
    }
    keeper.flush().await
}

// === impl Keeper ===

impl Keeper<'_> {
    /// Adds a text as it is read: it is never held whole.
    async fn add_text(&mut self, own: &Document, text: &Text) -> Result<()> {
        let unread = |source| Error::LargeValue {
            column: text.column.name.to_string(),
            source,
        };
        let large = text.large();
        let large = large.ok_or_else(|| unread(std::io::ErrorKind::NotFound.into()))?;
        let (mut at, mut number) = (0, 0);
        while at < text.bytes {
            let length = (text.bytes - at).min(TEXT_PART_BYTES as u64);
            let mut part = vec![0; usize::try_from(length).unwrap_or_default()];
            large.read_at(at, &mut part).map_err(unread)?;
            let mut id = own.clone();
            id.insert("column", &*text.column.name);
            self.add(id, number, part).await?;
            (at, number) = (at + length, number + 1);
        }
        Ok(())
    }

    async fn add(&mut self, mut id: Document, number: usize, part: Vec<u8>) -> Result<()> {
        if self.bytes + part.len() > PART_BYTES || self.updates.len() >= COMMAND_PARTS {
            self.flush().await?;
        }
        self.bytes += part.len();
        id.insert("part", i64::try_from(number).unwrap_or(i64::MAX));
        let (subtype, bytes) = (BinarySubtype::Generic, part);
        let content = Bson::Binary(Binary { subtype, bytes });
        let query = doc! { "_id": &id };
        let kept = doc! { "_id": id, "content": content };
        let update = doc! { "q": query, "u": kept, "upsert": true };
        self.updates.push(update);
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        let updates = std::mem::take(&mut self.updates);
        self.bytes = 0;
        if updates.is_empty() {
            return Ok(());
        }
        let command = doc! { "update": PARTS, "updates": updates, "writeConcern": majority() };
        run(self.store, command).await
    }
}

pub(super) fn document_of(elements: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(elements.len() + 5);
    let document = element::open(&mut bytes);
    bytes.extend_from_slice(elements);
    element::close(&mut bytes, document);
    bytes
}

/// What a letter says: the elements of its document.
pub(crate) async fn content(store: &Store, letter: &Letter) -> Result<Vec<u8>> {
    if letter.operation == Operation::Delete {
        return Ok(Vec::new());
    }
    let mut document = Vec::with_capacity(letter.bytes + 5);
    let parts = store.own_database().collection::<Document>(PARTS);
    let part = |number: i64| {
        let mut id = own_parts(&store.settings.pipeline, &letter.at, letter.epoch);
        id.insert("part", number);
        id
    };
    // Those of texts come behind: there `part` is not the next field.
    let of = doc! { "_id": { "$gte": part(0), "$lte": part(i64::MAX) } };
    let found = parts.find(of).sort(doc! { "_id": 1 });
    let mut found = store.in_time(found, READING).await?;
    while let Some(part) = store.in_time(found.try_next(), READING).await? {
        document.extend(bytes_of(&part, "content").unwrap_or_default());
    }
    let end = document.len().saturating_sub(1);
    match document.get(4..end) {
        Some(elements) if elements.len() == letter.bytes => Ok(elements.to_vec()),
        _ => Err(Error::LetterLost {
            letter: letter.at.clone(),
        }),
    }
}

/// Forgets what letters said that are settled; what stays is removed at the next claim.
pub(crate) async fn drop_contents(store: &Store, letters: &[Letter]) -> Result<()> {
    for letter in letters {
        let of = parts_of(&store.settings.pipeline, letter);
        run(
            store,
            doc! { "delete": PARTS, "deletes": [{ "q": of, "limit": 0 }] },
        )
        .await?;
    }
    Ok(())
}

/// Removes the parts that no standing letter refers to: of transactions that were not committed, and of letters that
/// are settled.
pub(crate) async fn sweep(store: &Store) -> Result<()> {
    let pipeline = &store.settings.pipeline;
    let parts = store.own_database().collection::<Document>(PARTS);
    let from = doc! { "pipeline": pipeline };
    let to = doc! { "pipeline": pipeline, "at": Bson::MaxKey };
    let own = doc! { "_id": { "$gte": from, "$lt": to } };
    let any = parts.find_one(own.clone()).projection(doc! { "_id": 1 });
    if store.in_time(any, READING).await?.is_none() {
        return Ok(());
    }
    let mut wanted = HashSet::new();
    let of = doc! { "pipeline": pipeline, "state": PARKED };
    each(store, of, doc! { "_id": 1, "epoch": 1 }, |letter| {
        let at = letter.get_document("_id").and_then(|id| id.get_str("at"));
        if let (Ok(at), Ok(epoch)) = (at, letter.get_i64("epoch")) {
            wanted.insert((at.to_owned(), epoch));
        }
        Ok(())
    })
    .await?;
    let mut orphans = Vec::new();
    each_of(store, PARTS, own, doc! { "_id": 1 }, |part| {
        let Some(id) = part.get_document("_id").ok() else {
            return Ok(());
        };
        let is_wanted = match (id.get_str("at"), id.get_i64("epoch")) {
            (Ok(at), Ok(epoch)) => wanted.contains(&(at.to_owned(), epoch)),
            _ => false,
        };
        if !is_wanted {
            orphans.push(id.to_owned());
        }
        Ok(())
    })
    .await?;
    for some in orphans.chunks(COMMAND_PARTS) {
        let delete = doc! { "q": { "_id": { "$in": documents(some) } }, "limit": 0 };
        run(store, doc! { "delete": PARTS, "deletes": [delete] }).await?;
    }
    Ok(())
}

fn documents(raw: &[RawDocumentBuf]) -> Vec<Document> {
    let documents = raw.iter().map(|it| Document::try_from(&**it));
    documents.filter_map(std::result::Result::ok).collect()
}

fn parts_of(pipeline: &str, letter: &Letter) -> Document {
    let (at, epoch) = (&letter.at, letter.epoch);
    let from = own_parts(pipeline, at, epoch);
    doc! { "_id": { "$gte": from, "$lt": own_parts(pipeline, at, epoch + 1) } }
}

/// How the `_id`s begin of the parts that a claim wrote of a letter: those of a letter stand together.
fn own_parts(pipeline: &str, at: &str, epoch: i64) -> Document {
    let mut id = id(pipeline, at);
    id.insert("epoch", epoch);
    id
}
