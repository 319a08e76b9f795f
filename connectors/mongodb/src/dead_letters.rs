//! Changes that MongoDB cannot take, kept until they can be applied or are given up.
//!
//! - `_walferry.dead_letters` holds a document for each, written by the transaction that moves the position past the
//!   change; `_walferry.dead_letter_parts` holds what it says, in parts, written before.
//! - What one group holds of a row is one letter: the row's last state, as everything else that a group holds.
//! - What a row was too large with is kept beside it as PostgreSQL's text, piece by piece as it is read.
//! - A part belongs to the claim that wrote it: another process can never have written a part of the same letter.
//! - Letters and parts may be very many: they are read by ranges of `_id`, and only what is needed of them.
//! - Parts that no standing letter refers to are removed at the next claim.

use std::collections::{BTreeSet, HashSet};

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document, RawDocument, RawDocumentBuf, doc};
use futures_util::TryStreamExt as _;
use serde::Serialize;
use walferry_core::{LetterAction, LetterChoice, LetterOrder, Order, ParkedTable};
use walferry_schema::{Columns, Lsn, Modes, Phase, Position, TableName};

use crate::batch::{Elsewhere, Missing, Text};
use crate::bson_value::element;
use crate::document::show_id;
use crate::parked::{Content, ParkedKeys, Standing};
use crate::store::{Store, Written};
use crate::{Error, ExtendedJson, Result, order};

/// The collection of the letters.
pub(crate) const LETTERS: &str = "dead_letters";
const PARTS: &str = "dead_letter_parts";
/// What a part holds at most.
const PART_BYTES: usize = 7 << 20;
/// The same of a text, which is read from a file as it is kept.
const TEXT_PART_BYTES: usize = 4 << 20;
/// How many parts one command removes at most.
const COMMAND_PARTS: usize = 1_000;
/// How many letters one command writes at most.
const COMMAND_LETTERS: usize = 500;
/// How many tables are told of at most.
const SHOWN_TABLES: i32 = 100;
const PARKED: &str = "parked";

const READING: &str = "reading the dead letters";
const WRITING: &str = "writing dead letters";

/// What a change does to its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// The row is this.
    Put,
    /// The row gets these columns.
    Set,
    /// The row goes.
    Delete,
    /// The row gets another key, and these columns.
    Move,
}

/// A change that MongoDB could not take, without what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Letter {
    pub(crate) at: String,
    pub(crate) table: TableName,
    pub(crate) position: Position,
    /// Microseconds since 1970; none in a snapshot.
    pub(crate) committed_at: Option<i64>,
    pub(crate) operation: Operation,
    /// The `_id`: type byte and payload.
    pub(crate) key: Vec<u8>,
    /// The key that the row had before.
    pub(crate) from: Option<Vec<u8>>,
    /// The names of all fields of the document, in order, when the row gets another key, or something is missing.
    pub(crate) fields: Vec<String>,
    pub(crate) missing: Option<Missing>,
    pub(crate) bytes: usize,
    pub(crate) error: String,
    /// Which claim wrote its parts.
    pub(crate) epoch: i64,
}

/// A dead letter as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeadLetter {
    /// Its name: the change's position.
    pub id: String,
    /// The table, as `schema.table`.
    pub table: String,
    /// The row's key, for people.
    pub key: String,
    /// `put` (a whole row), `set` (columns of it), `delete`, or `move` (another key).
    pub operation: String,
    /// `parked`, `retried`, `discarded`, or `obsolete` (the table was emptied or copied anew).
    pub state: String,
    /// When the source committed it, milliseconds since 1970; none in a snapshot.
    pub committed_at: Option<i64>,
    /// When it was parked, milliseconds since 1970.
    pub parked_at: i64,
    /// How large its document is without the key.
    pub bytes: u64,
    /// Why it could not be written.
    pub error: String,
    /// Why it could not be written when that was tried again last.
    pub retry_error: Option<String>,
    /// Where the whole row stands, when it was too large for the log.
    pub reference: Option<String>,
    /// The fields that stand there only.
    pub missing: Vec<String>,
    /// Who had something done about it; none while nobody has.
    pub settled: Option<Order>,
}

/// Something that a dead letter does not say itself, since it was too large to go with it.
#[derive(Debug)]
pub enum Lacking {
    /// A value, which is kept beside it.
    Text(LetterText),
    /// A change's record, which stands on the dead-letter topic.
    Record {
        /// The change, as it would be named as a letter.
        at: String,
        /// Its position.
        position: Position,
    },
}

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

// === impl Operation ===

impl Operation {
    const ALL: [Self; 4] = [Self::Put, Self::Set, Self::Delete, Self::Move];

    fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Set => "set",
            Self::Delete => "delete",
            Self::Move => "move",
        }
    }
}

// === impl Letter ===

impl Letter {
    /// Whether it is meant.
    pub(crate) fn is_of(&self, choice: &LetterChoice) -> bool {
        match choice {
            LetterChoice::All => true,
            LetterChoice::Table(table) => self.table.to_string() == *table,
            LetterChoice::Letter(at) => self.at == *at,
        }
    }

    fn document(&self, pipeline: &str, epoch: i64) -> Document {
        let missing = self.missing.iter();
        let missing: Vec<_> = missing.flat_map(Missing::fields).collect();
        let places = self.missing.iter().flat_map(|it| &it.places);
        doc! {
            "_id": id(pipeline, &self.at),
            "pipeline": pipeline,
            "state": PARKED,
            "schema": &*self.table.schema,
            "table_name": &*self.table.table,
            "table": self.table.to_string(),
            "generation": self.position.generation.cast_signed(),
            "key": binary(&self.key),
            "shown_key": show_id(&self.key),
            "from": self.from.as_deref().map(binary),
            "op": self.operation.name(),
            "committed_at": self.committed_at.map(|at| DateTime::from_millis(at.div_euclid(1_000))),
            "parked_at": DateTime::now(),
            "bytes": i64::try_from(self.bytes).unwrap_or(i64::MAX),
            "fields": &self.fields,
            "missing": missing,
            "reference": self.missing.as_ref().map(Missing::reference),
            "elsewhere": places.map(place_document).collect::<Vec<_>>(),
            "error": &self.error,
            "epoch": epoch,
        }
    }

    /// None when the document is none of walferry's.
    fn of(document: &Document) -> Option<Self> {
        let text = |name| document.get_str(name).ok();
        let texts = |name| texts_of(document, name);
        let at = document.get_document("_id").ok()?.get_str("at").ok()?;
        let operation = text("op")?;
        let places = document.get_array("elsewhere");
        let places = places.map_or(&[][..], Vec::as_slice).iter();
        let places: Option<Vec<_>> = places.map(|it| place_of(it.as_document()?)).collect();
        let mut missing = Missing {
            order: texts("fields"),
            places: places?,
        };
        // As it was written before it said which change has what.
        if let Some(reference) = text("reference").filter(|_| missing.is_empty()) {
            missing.places.push(Elsewhere {
                fields: texts("missing"),
                position: position(at)?,
                bytes: 0,
                reference: reference.to_owned(),
                texts: Vec::new(),
            });
        }
        let committed_at = document.get_datetime("committed_at").ok();
        let bytes = document.get_i64("bytes").ok()?;
        Some(Self {
            at: at.to_owned(),
            table: TableName::new(text("schema")?, text("table_name")?),
            position: position(at)?,
            committed_at: committed_at.map(|at| at.timestamp_millis() * 1_000),
            operation: Operation::ALL
                .into_iter()
                .find(|it| it.name() == operation)?,
            key: bytes_of(document, "key")?,
            from: bytes_of(document, "from"),
            fields: texts("fields"),
            missing: (!missing.is_empty()).then_some(missing),
            bytes: usize::try_from(bytes).ok()?,
            error: text("error").unwrap_or_default().to_owned(),
            epoch: document.get_i64("epoch").ok()?,
        })
    }
}

// === impl DeadLetter ===

impl DeadLetter {
    fn of(document: &Document) -> Option<Self> {
        let text = |name| document.get_str(name).ok().map(str::to_owned);
        let millis = |name| {
            let at = document.get_datetime(name).ok();
            at.map(|at| at.timestamp_millis())
        };
        let at = document.get_document("_id").ok()?.get_str("at").ok()?;
        Some(Self {
            id: at.to_owned(),
            table: text("table")?,
            key: text("shown_key")?,
            operation: text("op")?,
            state: text("state")?,
            committed_at: millis("committed_at"),
            parked_at: millis("parked_at")?,
            bytes: document.get_i64("bytes").ok()?.cast_unsigned(),
            error: text("error")?,
            retry_error: text("retry_error"),
            reference: text("reference"),
            missing: texts_of(document, "missing"),
            settled: document
                .get_document("settled")
                .ok()
                .map(order::of_document),
        })
    }
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

fn texts_of(document: &Document, name: &str) -> Vec<String> {
    let items = document.get_array(name).map_or(&[][..], Vec::as_slice);
    let items = items.iter().filter_map(Bson::as_str).map(str::to_owned);
    items.collect()
}

fn place_document(place: &Elsewhere) -> Document {
    let columns = Columns {
        all: place.texts.iter().map(|text| text.column.clone()).collect(),
        modes: Modes::default(),
    };
    let sizes: Vec<_> = place
        .texts
        .iter()
        .map(|it| it.bytes.cast_signed())
        .collect();
    doc! {
        "at": name(place.position, Operation::Put),
        "fields": &place.fields,
        "bytes": place.bytes.cast_signed(),
        "reference": &place.reference,
        "columns": binary(&columns.to_bytes()),
        "sizes": sizes,
    }
}

/// None when the document is none of walferry's.
fn place_of(document: &Document) -> Option<Elsewhere> {
    let columns = Columns::from_bytes(&bytes_of(document, "columns")?).ok()?;
    let sizes = document.get_array("sizes").ok()?.iter();
    let texts = columns.all.iter().zip(sizes);
    let texts = texts.map(|(column, size)| {
        let bytes = size.as_i64()?.cast_unsigned();
        Some(Text::kept(column.clone(), bytes))
    });
    Some(Elsewhere {
        fields: texts_of(document, "fields"),
        position: position(document.get_str("at").ok()?)?,
        bytes: document.get_i64("bytes").ok()?.cast_unsigned(),
        reference: document.get_str("reference").ok()?.to_owned(),
        texts: texts.collect::<Option<_>>()?,
    })
}

/// What a letter is called: where its change stands. A key change in one record is two changes at one position.
pub(crate) fn name(position: Position, operation: Operation) -> String {
    let generation = position.generation;
    let phase = match position.phase {
        Phase::Stream(lsn) => lsn.to_string(),
        Phase::Snapshot(chunk) => format!("chunk-{chunk}"),
    };
    let ordinal = position.ordinal;
    let rest = match operation {
        Operation::Delete => "/delete",
        Operation::Put | Operation::Set | Operation::Move => "",
    };
    format!("{generation}/{phase}/{ordinal}{rest}")
}

fn position(name: &str) -> Option<Position> {
    let name = name.strip_suffix("/delete").unwrap_or(name);
    let (generation, rest) = name.split_once('/')?;
    let (phase, ordinal) = rest.rsplit_once('/')?;
    Some(Position {
        generation: generation.parse().ok()?,
        phase: match phase.strip_prefix("chunk-") {
            Some(chunk) => Phase::Snapshot(chunk.parse().ok()?),
            None => Phase::Stream(phase.parse::<Lsn>().ok()?),
        },
        ordinal: ordinal.parse().ok()?,
    })
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

// What a transaction does with the letters.

/// The commands that write letters.
pub(crate) fn inserting(pipeline: &str, epoch: i64, letters: &[Letter]) -> Vec<Document> {
    let update = |letter: &Letter| {
        let document = letter.document(pipeline, epoch);
        doc! { "q": { "_id": id(pipeline, &letter.at) }, "u": document, "upsert": true }
    };
    let chunks = letters.chunks(COMMAND_LETTERS);
    chunks
        .map(|some| doc! { "update": LETTERS, "updates": some.iter().map(update).collect::<Vec<_>>() })
        .collect()
}

/// The command that says that a table was emptied.
pub(crate) fn emptied(pipeline: &str, table: &str, generation: u64) -> Document {
    let of = doc! { "pipeline": pipeline, "table": table, "generation": generation.cast_signed() };
    obsolete(of)
}

/// Those of some letters whose rows lack changes: they stand, or were given up.
fn lacking(mut of: Document) -> Document {
    of.insert("$or", [doc! { "state": PARKED }, doc! { "given_up": true }]);
    of
}

fn obsolete(of: Document) -> Document {
    // A letter that was discarded stays so, and its row is no longer of interest.
    let obsolete = doc! { "$cond": [{ "$eq": ["$state", PARKED] }, "obsolete", "$state"] };
    let settled = [
        doc! { "$set": { "state": obsolete, "settled_at": "$$NOW" } },
        doc! { "$unset": "given_up" },
    ];
    doc! { "update": LETTERS, "updates": [{ "q": lacking(of), "u": settled.to_vec(), "multi": true }] }
}

/// The command that says that a row which was given up is whole again, or gone.
pub(crate) fn begun(pipeline: &str, table: &str, generation: u64, key: &[u8]) -> Document {
    let given_up = given_up(pipeline, table, generation, key);
    let update = doc! { "q": given_up, "u": { "$unset": { "given_up": "" } }, "multi": true };
    doc! { "update": LETTERS, "updates": [update] }
}

/// The command that says that a row which was given up has another key.
pub(crate) fn renamed(
    pipeline: &str,
    table: &str,
    generation: u64,
    (from, to): (&[u8], &[u8]),
) -> Document {
    let given_up = given_up(pipeline, table, generation, from);
    let update = doc! { "q": given_up, "u": { "$set": { "key": binary(to) } }, "multi": true };
    doc! { "update": LETTERS, "updates": [update] }
}

fn given_up(pipeline: &str, table: &str, generation: u64, key: &[u8]) -> Document {
    doc! {
        "pipeline": pipeline,
        "table": table,
        "generation": generation.cast_signed(),
        "key": binary(key),
        "given_up": true,
    }
}

/// The command that says what was done about letters.
pub(crate) fn settling(pipeline: &str, letters: &[Letter], order: &LetterOrder) -> Document {
    let state = match order.action {
        LetterAction::Retry => "retried",
        LetterAction::Discard => "discarded",
    };
    let mut settled = doc! {
        "state": state,
        "settled": order::to_document(&order.order),
        "settled_at": DateTime::now(),
    };
    if order.action == LetterAction::Discard {
        settled.insert("given_up", true);
    }
    let all = doc! { "_id": { "$in": ids(pipeline, letters) }, "state": PARKED };
    let update = doc! { "q": all, "u": { "$set": settled }, "multi": true };
    doc! { "update": LETTERS, "updates": [update] }
}

/// The command that says why letters stay.
pub(crate) fn failing(pipeline: &str, letters: &[Letter], why: &str) -> Document {
    let failed = doc! { "retry_error": why, "retried_at": DateTime::now() };
    let all = doc! { "_id": { "$in": ids(pipeline, letters) }, "state": PARKED };
    doc! { "update": LETTERS, "updates": [{ "q": all, "u": { "$set": failed }, "multi": true }] }
}

fn ids(pipeline: &str, letters: &[Letter]) -> Vec<Document> {
    letters.iter().map(|it| id(pipeline, &it.at)).collect()
}

// What is read and written outside of transactions.

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

/// Letters as they are shown, the oldest first.
pub(crate) async fn shown(store: &Store, mut of: Document) -> Result<Vec<DeadLetter>> {
    of.insert("pipeline", &store.settings.pipeline);
    let mut found = find(store, of).await?;
    let place = |it: &Document| {
        let at = it.get_document("_id").ok()?.get_str("at").ok()?;
        position(at)
    };
    found.sort_by_key(place);
    Ok(found.iter().filter_map(DeadLetter::of).collect())
}

/// What a letter of this name says; none of a deleted row, and when it does not stand.
pub(crate) async fn document(store: &Store, at: &str) -> Result<Option<ExtendedJson>> {
    let letter = parked(store, at).await?;
    let Some(letter) = letter.filter(|it| it.operation != Operation::Delete) else {
        return Ok(None);
    };
    let elements = content(store, &letter).await?;
    Ok(Some(ExtendedJson::new(document_of(&elements))))
}

/// What a letter of this name does not say itself; nothing when it does not stand.
pub(crate) async fn lacks(store: &Store, at: &str) -> Result<Vec<Lacking>> {
    let letter = parked(store, at).await?;
    let missing = letter.as_ref().and_then(|it| it.missing.as_ref());
    let places = missing.map_or(&[][..], |missing| &missing.places);
    let lacks = places.iter().flat_map(|place| {
        let position = place.position;
        let at = name(position, Operation::Put);
        let record = place
            .texts
            .is_empty()
            .then_some(Lacking::Record { at, position });
        let text = |text: &Text| LetterText::of(store, letter.as_ref()?, text);
        let texts = place.texts.iter().filter_map(text);
        record
            .into_iter()
            .chain(texts.map(Lacking::Text))
            .collect::<Vec<_>>()
    });
    Ok(lacks.collect())
}

/// The letter of this name, while it stands.
async fn parked(store: &Store, at: &str) -> Result<Option<Letter>> {
    let of = doc! { "_id": id(&store.settings.pipeline, at), "state": PARKED };
    let found = find(store, of).await?;
    Ok(found.first().and_then(Letter::of))
}

/// The rows that have letters: tables and `_id`s.
pub(crate) async fn rows(store: &Store) -> Result<BTreeSet<(String, Vec<u8>)>> {
    let parked = doc! { "pipeline": &store.settings.pipeline, "state": PARKED };
    let mut rows = BTreeSet::new();
    each(store, parked, of_rows(), |letter| {
        if let Some(row) = row_of(letter) {
            let keys = [Some(row.key), row.from].into_iter().flatten();
            rows.extend(keys.map(|key| (row.table.to_string(), key)));
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
            take_over_parts(store, from, &of).await?;
        }
        if let Ok(id) = letter.get_document_mut("_id") {
            id.insert("pipeline", pipeline);
        }
        replace(store, LETTERS, letter).await?;
    }
    Ok(())
}

async fn take_over_parts(store: &Store, from: &str, letter: &Letter) -> Result<()> {
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

/// Keeps what a letter says, where the letter will refer to.
pub(crate) async fn keep(store: &Store, epoch: i64, content: &Content) -> Result<()> {
    let own = own_parts(&store.settings.pipeline, &content.at, epoch);
    let document = document_of(&content.elements);
    for (number, part) in document.chunks(PART_BYTES).enumerate() {
        keep_part(store, own.clone(), number, part.to_vec()).await?;
    }
    for text in &content.texts {
        keep_text(store, &own, text).await?;
    }
    Ok(())
}

/// Keeps a text as it is read: it is never held whole.
async fn keep_text(store: &Store, own: &Document, text: &Text) -> Result<()> {
    let (mut at, mut number) = (0, 0);
    while at < text.bytes {
        let length = (text.bytes - at).min(TEXT_PART_BYTES as u64);
        let mut part = vec![0; usize::try_from(length).unwrap_or_default()];
        let large = text.large().ok_or_else(|| Error::LargeValue {
            column: text.column.name.to_string(),
            source: std::io::ErrorKind::NotFound.into(),
        })?;
        large
            .read_at(at, &mut part)
            .map_err(|source| Error::LargeValue {
                column: text.column.name.to_string(),
                source,
            })?;
        let mut id = own.clone();
        id.insert("column", &*text.column.name);
        keep_part(store, id, number, part).await?;
        (at, number) = (at + length, number + 1);
    }
    Ok(())
}

async fn keep_part(store: &Store, mut id: Document, number: usize, part: Vec<u8>) -> Result<()> {
    id.insert("part", i64::try_from(number).unwrap_or(i64::MAX));
    let subtype = BinarySubtype::Generic;
    let bytes = part;
    let content = Bson::Binary(Binary { subtype, bytes });
    replace(store, PARTS, doc! { "_id": id, "content": content }).await
}

fn document_of(elements: &[u8]) -> Vec<u8> {
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

async fn run(store: &Store, command: Document) -> Result<()> {
    let answer = store.run(&store.own_database(), command, WRITING).await?;
    Written::from_answer(&answer, WRITING)?.accepted(WRITING, LETTERS)
}

fn majority() -> Document {
    doc! { "w": "majority", "j": true }
}

// Orders about letters.

pub(crate) fn order_document(order: &LetterOrder) -> Document {
    let action = match order.action {
        LetterAction::Retry => "retry",
        LetterAction::Discard => "discard",
    };
    let mut document = doc! { "id": &order.id, "action": action };
    match &order.choice {
        LetterChoice::All => {}
        LetterChoice::Table(table) => drop(document.insert("table", table)),
        LetterChoice::Letter(letter) => drop(document.insert("letter", letter)),
    }
    document.extend(order::to_document(&order.order));
    document
}

pub(crate) fn order_of(document: &Document) -> Option<LetterOrder> {
    let text = |name| document.get_str(name).ok().map(str::to_owned);
    let choice = match (text("table"), text("letter")) {
        (Some(table), _) => LetterChoice::Table(table),
        (None, Some(letter)) => LetterChoice::Letter(letter),
        (None, None) => LetterChoice::All,
    };
    Some(LetterOrder {
        id: text("id")?,
        action: match &*text("action")? {
            "retry" => LetterAction::Retry,
            "discard" => LetterAction::Discard,
            _ => return None,
        },
        choice,
        order: order::of_document(document),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letters_name_tells_its_position() {
        let at = |phase| Position {
            generation: 1_731_888_000,
            phase,
            ordinal: 12,
        };
        let stream = at(Phase::Stream(Lsn(0x16_B374_D848)));
        let named = name(stream, Operation::Delete);
        assert_eq!(named, "1731888000/16/B374D848/12/delete");
        assert_eq!(position(&named), Some(stream));
        let snapshot = at(Phase::Snapshot(7));
        assert_eq!(position(&name(snapshot, Operation::Put)), Some(snapshot));
    }
}
