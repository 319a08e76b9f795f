//! Dead letters as they are shown to operators.

use bson::{Document, doc};
use serde::Serialize;
use walferry_core::Order;
use walferry_schema::Position;

use super::letter::{self, Letter, Operation};
use super::parts::{self, LetterText};
use super::{PARKED, find, id, texts_of};
use crate::batch::Text;
use crate::store::Store;
use crate::{ExtendedJson, Result, order};

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
    Text(Box<LetterText>),
    /// A change's record, which stands on the dead-letter topic.
    Record {
        /// The change, as it would be named as a letter.
        at: String,
        /// Its position.
        position: Position,
    },
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

/// Letters as they are shown, the oldest first.
pub(crate) async fn shown(store: &Store, mut of: Document) -> Result<Vec<DeadLetter>> {
    of.insert("pipeline", &store.settings.pipeline);
    let mut found = find(store, of).await?;
    let place = |it: &Document| {
        let at = it.get_document("_id").ok()?.get_str("at").ok()?;
        letter::position(at)
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
    let elements = parts::content(store, &letter).await?;
    Ok(Some(ExtendedJson::new(parts::document_of(&elements))))
}

/// What a letter of this name does not say itself; nothing when it does not stand.
pub(crate) async fn lacks(store: &Store, at: &str) -> Result<Vec<Lacking>> {
    let letter = parked(store, at).await?;
    let missing = letter.as_ref().and_then(|it| it.missing.as_ref());
    let places = missing.map_or(&[][..], |missing| &missing.places);
    let lacks = places.iter().flat_map(|place| {
        let position = place.position;
        let at = letter::name(position, Operation::Put);
        let record = place
            .texts
            .is_empty()
            .then_some(Lacking::Record { at, position });
        let text = |text: &Text| LetterText::of(store, letter.as_ref()?, text);
        let texts = place.texts.iter().filter_map(text);
        record
            .into_iter()
            .chain(texts.map(|text| Lacking::Text(Box::new(text))))
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
