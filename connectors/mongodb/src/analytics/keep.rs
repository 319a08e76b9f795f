//! Keeps an answer in a collection: what is new comes, what is different changes, what no longer holds goes.
//!
//! - The answer stands aside, whole, before the collection is touched.
//! - A rerun over the same data writes nothing: `$merge` leaves out what is equal.
//! - An alert keeps the `detected_at` of when it was first kept.
//! - Only alerts of the same rule go; of a report, all that is not in the answer.
//! - Only a collection that was made here is written, not even an empty one that was there before: it may be a table's.

use std::time::{Duration, Instant};

use bson::raw::cstr;
use bson::{Bson, DateTime, Document, RawDocumentBuf, doc};
use futures_util::{StreamExt, TryStreamExt};
use mongodb::error::{Error as DriverError, ErrorKind};
use mongodb::options::WriteConcern;

use super::records::RECORDING;
use super::row::document_text;
use super::{Analyst, AnalyticsError, AsOf, Query, READING, aside};
use crate::error::DUPLICATE_KEY;
use crate::staging;
use crate::{Error, Result};

/// How many documents are written, or removed, at once.
pub(super) const BLOCK: usize = 1_000;
/// Who asks about a moment that is gone hears so at once; later, it went while the answer was worked out.
const AT_ONCE: Duration = Duration::from_secs(10);
/// So much of a document is shown.
const SHOWN_CHARACTERS: usize = 200;
pub(super) const DETECTED_AT: &str = "detected_at";

pub(super) const KEEPING: &str = "keeping an answer";

/// An answer to keep.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// What is asked.
    pub query: &'a Query,
    /// The collection that keeps it.
    pub output: &'a str,
    /// The rule whose alerts these are; none when they are all that the collection holds.
    pub alerts_of: Option<&'a str>,
    /// The moment that is asked about; none for the newest.
    pub as_of: Option<AsOf>,
}

/// What keeping an answer came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// How many documents the answer has.
    pub rows: u64,
    /// How many of them were not there.
    pub added: u64,
    /// How many of them were different.
    pub changed: u64,
    /// How many others were there and no longer hold.
    pub removed: u64,
}

// === impl Analyst ===

impl Analyst {
    /// Asks, and keeps the answer.
    ///
    /// # Errors
    /// When the query is refused, a document of the answer cannot be kept, or the collection is not one of answers.
    pub async fn keep(&self, answer: Answer<'_>) -> Result<Kept> {
        self.own(answer.output).await?;
        let staging = aside::name();
        let kept = Box::pin(self.keep_by(answer, &staging)).await;
        let dropped = self.drop(&staging).await;
        let kept = kept?;
        dropped?;
        Ok(kept)
    }

    /// Removes the alerts of rules that are not among these: how many, by rule.
    ///
    /// # Errors
    /// When the server refuses or cannot be asked.
    pub async fn forget_others(&self, output: &str, rules: &[&str]) -> Result<Vec<(String, u64)>> {
        let others = doc! { "rule": { "$nin": rules } };
        let group = doc! { "_id": { "$toString": "$rule" }, "n": { "$sum": 1 } };
        let count = vec![
            doc! { "$match": &others },
            doc! { "$group": group },
            doc! { "$sort": { "_id": 1 } },
        ];
        let found = self.documents(output, count).await?;
        if found.is_empty() {
            return Ok(Vec::new());
        }
        self.own(output).await?;
        self.delete(output, others).await?;
        let named = |it: &Document| {
            let rule = it.get_str("_id").unwrap_or_default().to_owned();
            (rule, it.get("n").map_or(0, number))
        };
        Ok(found.iter().map(named).collect())
    }

    async fn keep_by(&self, answer: Answer<'_>, staging: &str) -> Result<Kept> {
        let rows = self.fill(answer, staging).await?;
        let (added, changed) = self.compare(answer.output, staging).await?;
        self.merge(answer, staging).await?;
        self.check_aside(staging, rows).await?;
        let removed = self.remove(answer, staging).await?;
        Ok(Kept {
            rows,
            added,
            changed,
            removed,
        })
    }

    /// Puts the answer aside; how many documents it has.
    async fn fill(&self, answer: Answer<'_>, staging: &str) -> Result<u64> {
        let begun = Instant::now();
        let cursor = match answer.as_of {
            Some(as_of) => match self.ask_as_of(answer.query, as_of, None).await {
                Err(error) if begun.elapsed() >= AT_ONCE => Err(AnalyticsError::of_answer(error)),
                cursor => cursor,
            },
            None => self.ask(answer.query).await,
        }?;
        let mut blocks = cursor.ready_chunks(BLOCK);
        let now = DateTime::now();
        let mut rows = 0;
        while let Some(block) = self
            .store
            .in_time(async { Ok(blocks.next().await) }, READING)
            .await?
        {
            let mut documents = Vec::with_capacity(block.len());
            for document in block {
                let document = document.map_err(Error::server(READING));
                let document = document.map_err(AnalyticsError::of_answer)?;
                documents.push(fit(answer, document, now)?);
            }
            rows += documents.len() as u64;
            let staging = self.store.database().collection::<RawDocumentBuf>(staging);
            let insert = staging
                .insert_many(documents)
                .write_concern(WriteConcern::majority());
            let inserted = async { Ok(insert.await) };
            let inserted = self.store.in_time(inserted, KEEPING).await?;
            inserted.map_err(refused)?;
        }
        Ok(rows)
    }

    /// How many of the documents that stand aside are new, and how many different.
    async fn compare(&self, output: &str, staging: &str) -> Result<(u64, u64)> {
        let without = |of: &str| doc! { "$unsetField": { "field": DETECTED_AT, "input": of } };
        // Numbers of two types may be equal, but not often as large.
        let is_equal = doc! { "$and": [
            { "$eq": [without("$new"), without("$old")] },
            { "$eq": [{ "$bsonSize": without("$new") }, { "$bsonSize": without("$old") }] },
        ] };
        let state = doc! { "$switch": {
            "branches": [
                { "case": { "$eq": [{ "$type": "$old" }, "missing"] }, "then": "added" },
                { "case": is_equal, "then": "same" },
            ],
            "default": "changed",
        } };
        let pipeline = vec![
            doc! { "$project": { "new": "$$ROOT" } },
            doc! { "$lookup": { "from": output, "localField": "_id", "foreignField": "_id", "as": "old" } },
            doc! { "$project": { "new": 1, "old": { "$first": "$old" } } },
            doc! { "$group": { "_id": state, "n": { "$sum": 1 } } },
        ];
        let counts = self.documents(staging, pipeline).await?;
        let count = |state| {
            let found = counts
                .iter()
                .find(|it| it.get_str("_id").ok() == Some(state));
            found.and_then(|it| it.get("n")).map_or(0, number)
        };
        Ok((count("added"), count("changed")))
    }

    async fn merge(&self, answer: Answer<'_>, staging: &str) -> Result<()> {
        let kept = doc! { "$mergeObjects": ["$$new", { DETECTED_AT: format!("${DETECTED_AT}") }] };
        let matched = match answer.alerts_of {
            Some(_) => Bson::from(vec![doc! { "$replaceWith": kept }]),
            None => Bson::from("replace"),
        };
        let merge = doc! { "$merge": {
            "into": answer.output,
            "on": "_id",
            "whenMatched": matched,
            "whenNotMatched": "insert",
        } };
        let staging = self.store.database().collection::<Document>(staging);
        let merged = staging
            .aggregate([merge])
            .write_concern(WriteConcern::majority());
        self.store.in_time(merged, KEEPING).await.map(|_| ())
    }

    /// That all of the answer still stands aside: what it lacks would be removed.
    async fn check_aside(&self, staging: &str, rows: u64) -> Result<()> {
        let count = vec![doc! { "$group": { "_id": Bson::Null, "n": { "$sum": 1 } } }];
        let counted = self.documents(staging, count).await?;
        let counted = counted.first().and_then(|it| it.get("n")).map_or(0, number);
        if counted == rows {
            return Ok(());
        }
        Err(AnalyticsError::AsideLost { rows, counted }.into())
    }

    /// Removes what is not in the answer; how many documents that were.
    async fn remove(&self, answer: Answer<'_>, staging: &str) -> Result<u64> {
        let ours = match answer.alerts_of {
            Some(rule) => doc! { "rule": rule },
            None => doc! {},
        };
        let pipeline = vec![
            doc! { "$match": &ours },
            doc! { "$project": { "_id": 1 } },
            doc! { "$lookup": { "from": staging, "localField": "_id", "foreignField": "_id", "as": "kept" } },
            doc! { "$match": { "kept": [] } },
            doc! { "$project": { "_id": 1 } },
        ];
        let gone = self.documents(answer.output, pipeline).await?;
        let ids: Vec<_> = gone
            .into_iter()
            .filter_map(|mut it| it.remove("_id"))
            .collect();
        let mut removed = 0;
        for block in ids.chunks(BLOCK) {
            let mut filter = ours.clone();
            filter.insert("_id", doc! { "$in": block });
            removed += self.delete(answer.output, filter).await?;
        }
        Ok(removed)
    }

    pub(super) async fn delete(&self, collection: &str, filter: Document) -> Result<u64> {
        let collection = self.store.database().collection::<Document>(collection);
        let deleted = collection
            .delete_many(filter)
            .write_concern(WriteConcern::majority());
        Ok(self.store.in_time(deleted, KEEPING).await?.deleted_count)
    }

    async fn documents(&self, collection: &str, pipeline: Vec<Document>) -> Result<Vec<Document>> {
        let collection = self.store.database().collection::<Document>(collection);
        let asked = collection.aggregate(pipeline).allow_disk_use(true);
        let cursor = self.store.in_time(asked, KEEPING).await?;
        self.store.in_time(cursor.try_collect(), KEEPING).await
    }

    /// Whether answers may be kept in a collection: one of answers, or one that is not there yet.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn may_keep(&self, output: &str) -> Result<bool> {
        let uuid = staging::uuid(&self.store, output).await?;
        let Some(uuid) = uuid else { return Ok(true) };
        self.is_recorded(output, &uuid).await
    }

    /// Sees that a collection is one of answers; one that is not there becomes one.
    ///
    /// # Errors
    /// When it is there, and was not made for answers; when the server refuses or cannot be asked.
    pub async fn own(&self, output: &str) -> Result<()> {
        let is_new = !self.standing().await?.contains_key(output);
        staging::create_like(&self.store, output, output).await?;
        let uuid = staging::uuid(&self.store, output).await?;
        let uuid = uuid.ok_or(Error::Answer {
            doing: RECORDING,
            field: "uuid",
        })?;
        if self.is_recorded(output, &uuid).await? {
            return Ok(());
        }
        if is_new {
            return self.record(output, uuid).await;
        }
        let collection = output.to_owned();
        Err(AnalyticsError::OutputTaken { collection }.into())
    }
}

/// A document as it is kept, when it can be.
pub(super) fn fit(
    answer: Answer<'_>,
    mut document: RawDocumentBuf,
    now: DateTime,
) -> Result<RawDocumentBuf> {
    if !matches!(document.get("_id"), Ok(Some(_))) {
        return unfit("must have an _id, the same at each run".into(), &document);
    }
    let Some(rule) = answer.alerts_of else {
        return Ok(document);
    };
    if document.get_str("rule").ok() != Some(rule) {
        return unfit(format!("must have \"rule\": {rule:?}"), &document);
    }
    if !matches!(document.get(DETECTED_AT), Ok(None)) {
        return unfit(
            format!("must not have {DETECTED_AT}, which is added"),
            &document,
        );
    }
    // Else two rules could have one alert.
    let of = document
        .get_document("_id")
        .and_then(|id| id.get_str("rule"));
    if of.ok() != Some(rule) {
        return unfit(
            format!("must have \"rule\": {rule:?} in its _id"),
            &document,
        );
    }
    document.append(cstr!("detected_at"), now);
    Ok(document)
}

/// A document of an answer that cannot be kept.
pub(super) fn unfit<T>(wanted: String, document: &RawDocumentBuf) -> Result<T> {
    let document = document_text(document);
    let document = document.chars().take(SHOWN_CHARACTERS).collect();
    Err(AnalyticsError::Unfit { wanted, document }.into())
}

/// Two documents with one `_id` are the rule's mistake.
fn refused(error: DriverError) -> Error {
    let message = match error.kind.as_ref() {
        ErrorKind::InsertMany(insert) => {
            let errors = insert.write_errors.iter().flatten();
            let mut twice = errors.filter(|it| it.code == DUPLICATE_KEY);
            twice.next().map(|it| it.message.clone())
        }
        _ => None,
    };
    match message {
        Some(message) => AnalyticsError::Twice { message }.into(),
        None => Error::server(KEEPING)(error),
    }
}

/// A count as the server gives it.
fn number(value: &Bson) -> u64 {
    let number = value.as_i64().or(value.as_i32().map(i64::from));
    number.and_then(|it| u64::try_from(it).ok()).unwrap_or(0)
}
