//! What is known of answers, in a collection of walferry's own database.
//!
//! - A collection of answers has a document with its UUID, a view that was made here one that says so.
//! - Whoever keeps answers by hand notes it, so that a daemon that keeps them too works them out again.

use std::time::Duration;

use bson::oid::ObjectId;
use bson::{Binary, Document, doc};
use mongodb::Collection;

use super::Analyst;
use crate::Result;

/// What is known, by an `_id` of database and collection.
const ANALYTICS: &str = "analytics";
/// No collection has this name.
const BY_HAND: &str = "";
/// Its fields: one differs each time.
const AT: &str = "at";
const IS_OVER: &str = "is_over";
/// What is not over after so long never will be: its process was killed.
const GIVEN_UP: Duration = Duration::from_hours(6);

pub(super) const RECORDING: &str = "recording a collection of answers";

/// When answers were kept by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByHand {
    at: ObjectId,
    is_over: bool,
}

// === impl ByHand ===

impl ByHand {
    /// Whether that may still go on.
    pub fn may_go_on(self) -> bool {
        let begun = self.at.timestamp().to_system_time();
        !self.is_over && begun.elapsed().is_ok_and(|it| it < GIVEN_UP)
    }
}

// === impl Analyst ===

impl Analyst {
    /// Notes that answers are kept by hand, or that this is over.
    ///
    /// # Errors
    /// When the server refuses or cannot be asked.
    pub async fn note_by_hand(&self, is_over: bool) -> Result<()> {
        let note = doc! { AT: ObjectId::new(), IS_OVER: is_over };
        self.note(BY_HAND, note).await
    }

    /// When answers were kept by hand last; none when they never were.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn by_hand(&self) -> Result<Option<ByHand>> {
        let noted = self.find_note(doc! { "_id": self.id_of(BY_HAND) }).await?;
        let by_hand = |it: Document| {
            let is_over = it.get_bool(IS_OVER).unwrap_or_default();
            let at = it.get_object_id(AT).ok()?;
            Some(ByHand { at, is_over })
        };
        Ok(noted.and_then(by_hand))
    }

    pub(super) async fn is_recorded(&self, output: &str, uuid: &Binary) -> Result<bool> {
        let filter = doc! { "_id": self.id_of(output), "uuid": uuid };
        Ok(self.find_note(filter).await?.is_some())
    }

    pub(super) async fn record(&self, output: &str, uuid: Binary) -> Result<()> {
        self.note(output, doc! { "uuid": uuid }).await
    }

    /// Whether a view was made here.
    pub(super) async fn is_own_view(&self, view: &str) -> Result<bool> {
        let filter = doc! { "_id": self.id_of(view), "is_view": true };
        Ok(self.find_note(filter).await?.is_some())
    }

    /// Notes that a view was made here.
    pub(super) async fn record_view(&self, view: &str) -> Result<()> {
        self.note(view, doc! { "is_view": true }).await
    }

    async fn find_note(&self, filter: Document) -> Result<Option<Document>> {
        self.store
            .in_time(self.notes().find_one(filter), RECORDING)
            .await
    }

    async fn note(&self, name: &str, said: Document) -> Result<()> {
        let mut note = doc! { "_id": self.id_of(name) };
        note.extend(said);
        let notes = self.notes();
        let noted = notes.replace_one(doc! { "_id": self.id_of(name) }, note);
        self.store
            .in_time(noted.upsert(true), RECORDING)
            .await
            .map(|_| ())
    }

    fn notes(&self) -> Collection<Document> {
        self.store.own_database().collection(ANALYTICS)
    }

    fn id_of(&self, name: &str) -> Document {
        doc! { "database": self.database(), "collection": name }
    }
}
