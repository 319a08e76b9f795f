//! Keeps the part of an answer that belongs to some values.
//!
//! - The part is read as of one moment, and held against what is kept of these values: only what differs is written.
//! - Documents of other values are left alone.
//! - A document of the part has one of the values: else it would stay where a later part does not look.

use std::collections::BTreeMap;
use std::time::Duration;

use bson::{Bson, DateTime, Document, RawDocument, RawDocumentBuf, doc};
use futures_util::StreamExt;

use super::keep::{BLOCK, DETECTED_AT, KEEPING, fit, unfit};
use super::{Analyst, AnalyticsError, Answer, AsOf, Kept, Query, READING};
use crate::bson_value::element::{Elements, kind};
use crate::touched::{Changes, Touched};
use crate::{Error, Result, staging};

/// More than that is no part: the whole is worked out aside.
const MOST_BYTES: usize = 32 << 20;
/// So much is written at once; MongoDB takes 48 MB.
const MOST_WRITTEN: usize = 16 << 20;

/// Some values of a field.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The field of the input.
    pub per: &'a str,
    /// The field of the answer's documents that has the value.
    pub field: &'a str,
    /// The values.
    pub values: &'a [Bson],
    /// When.
    pub as_of: AsOf,
    /// How long MongoDB may take for it, where it may not take as long as it likes.
    pub limit: Option<Duration>,
}

/// Documents by their `_id`.
type Documents = BTreeMap<Vec<u8>, RawDocumentBuf>;

/// What is to be done so that a part is kept.
#[derive(Debug, Default)]
struct Difference {
    written: Vec<RawDocumentBuf>,
    removed: Vec<Bson>,
    /// All of them.
    ids: Vec<Bson>,
    kept: Kept,
}

// === impl Analyst ===

impl Analyst {
    /// Asks about some values, and keeps that part of the answer; none when it is too large for a part.
    ///
    /// # Errors
    /// As [`Analyst::keep`], when the moment is gone, and when it takes longer than it may.
    pub async fn keep_part(
        &self,
        answer: Answer<'_>,
        part: Part<'_>,
        touched: &Touched,
    ) -> Result<Option<Kept>> {
        let (found, standing) =
            tokio::try_join!(self.part(answer, part), self.standing_part(answer, part))?;
        let (Some(found), Some(standing)) = (found, standing) else {
            return Ok(None);
        };
        let found = by_id(found)?;
        check_values(&found, part)?;
        let difference = difference(answer, found, &by_id(standing)?)?;
        self.write_difference(answer, &difference, touched).await?;
        Ok(Some(difference.kept))
    }

    /// The part of the answer, as of its moment.
    async fn part(
        &self,
        answer: Answer<'_>,
        part: Part<'_>,
    ) -> Result<Option<Vec<RawDocumentBuf>>> {
        let mut pipeline = vec![doc! { "$match": { part.per: { "$in": part.values } } }];
        pipeline.extend(answer.query.pipeline.iter().cloned());
        let query = Query {
            collection: answer.query.collection.clone(),
            pipeline,
        };
        let cursor = self.ask_as_of(&query, part.as_of, part.limit).await?;
        self.collect(cursor).await
    }

    /// What is kept of it.
    async fn standing_part(
        &self,
        answer: Answer<'_>,
        part: Part<'_>,
    ) -> Result<Option<Vec<RawDocumentBuf>>> {
        let mut filter = ours(answer);
        filter.insert(part.field, doc! { "$in": part.values });
        let output = self.store.database();
        let output = output.collection::<RawDocumentBuf>(answer.output);
        let standing = self.store.in_time(output.find(filter), READING).await?;
        self.collect(standing).await
    }

    /// Makes the index by which the part of an answer is found that is kept of some values.
    ///
    /// # Errors
    /// When the collection is not one of answers, or the server refuses or cannot be asked.
    pub async fn make_part_index(&self, output: &str, is_alerts: bool, field: &str) -> Result<()> {
        let keys = match (is_alerts, field) {
            (true, _) => doc! { "rule": 1, field: 1 },
            (false, "_id") => return Ok(()),
            (false, _) => doc! { field: 1 },
        };
        // The index would make it, and nobody would know whose it is.
        self.see_own(output).await?;
        self.make_index(output, &keys).await.map(|_| ())
    }

    /// Sees that a collection is one of answers, without making it so where it is.
    async fn see_own(&self, output: &str) -> Result<()> {
        match staging::uuid(&self.store, output).await? {
            Some(uuid) if self.is_recorded(output, &uuid).await? => Ok(()),
            _ => self.own(output).await,
        }
    }

    /// All documents of a cursor; none when they are too large.
    async fn collect(
        &self,
        mut cursor: mongodb::Cursor<RawDocumentBuf>,
    ) -> Result<Option<Vec<RawDocumentBuf>>> {
        let (mut documents, mut bytes) = (Vec::new(), 0);
        while let Some(document) = self
            .store
            .in_time(async { cursor.next().await.transpose() }, READING)
            .await?
        {
            bytes += document.as_bytes().len();
            if bytes > MOST_BYTES {
                return Ok(None);
            }
            documents.push(document);
        }
        Ok(Some(documents))
    }

    async fn write_difference(
        &self,
        answer: Answer<'_>,
        difference: &Difference,
        touched: &Touched,
    ) -> Result<()> {
        if difference.ids.is_empty() {
            return Ok(());
        }
        self.see_own(answer.output).await?;
        let ids = difference.ids.iter().cloned();
        let opened = touched.open(Changes::of(answer.output, ids));
        let written = Box::pin(self.write_all(answer, difference)).await;
        // What failed is asked again, and writes then what this did not.
        opened.close();
        written
    }

    async fn write_all(&self, answer: Answer<'_>, difference: &Difference) -> Result<()> {
        let (mut updates, mut bytes) = (Vec::new(), 0);
        for document in &difference.written {
            if updates.len() == BLOCK || bytes > MOST_WRITTEN {
                self.update(answer.output, std::mem::take(&mut updates))
                    .await?;
                bytes = 0;
            }
            bytes += document.as_bytes().len();
            let document = Document::try_from(&**document).map_err(unreadable)?;
            let id = document.get("_id").cloned();
            updates.push(doc! { "q": { "_id": id }, "u": document, "upsert": true });
        }
        self.update(answer.output, updates).await?;
        for block in difference.removed.chunks(BLOCK) {
            let mut filter = ours(answer);
            filter.insert("_id", doc! { "$in": block });
            self.delete(answer.output, filter).await?;
        }
        Ok(())
    }

    async fn update(&self, output: &str, updates: Vec<Document>) -> Result<()> {
        if updates.is_empty() {
            return Ok(());
        }
        let command = doc! {
            "update": output,
            "updates": updates,
            "writeConcern": { "w": "majority" },
        };
        let answer = self.command(command, KEEPING).await?;
        crate::store::Written::from_answer(&answer, KEEPING)?.accepted(KEEPING, output)
    }
}

/// What of a collection belongs to an answer.
fn ours(answer: Answer<'_>) -> Document {
    match answer.alerts_of {
        Some(rule) => doc! { "rule": rule },
        None => doc! {},
    }
}

fn by_id(documents: Vec<RawDocumentBuf>) -> Result<Documents> {
    let mut by_id = Documents::new();
    for document in documents {
        let mut elements = Elements::of_document(document.as_bytes());
        let id = elements.find(|it| it.name == b"_id");
        // A whole answer is merged, which takes no null either.
        let Some(id) = id.filter(|it| it.bytes.first() != Some(&kind::NULL)) else {
            return unfit("must have an _id, the same at each run".into(), &document);
        };
        let id = id.bytes.to_vec();
        if let Some(other) = by_id.insert(id, document) {
            let message = super::row::document_text(&other);
            return Err(AnalyticsError::Twice { message }.into());
        }
    }
    Ok(by_id)
}

fn check_values(found: &Documents, part: Part<'_>) -> Result<()> {
    let mut values = super::ValueSet::default();
    values.add(part.values.iter().cloned(), None);
    for document in found.values() {
        if !values.has(&value_at(document, part.field)?) {
            let wanted = format!(
                "must have in {:?} the value of {:?} that it belongs to, since the rule is per {:?}",
                part.field, part.per, part.per
            );
            return unfit(wanted, document);
        }
    }
    Ok(())
}

/// The value at a path; null where there is none, and where it is one of many.
fn value_at(document: &RawDocument, path: &str) -> Result<Bson> {
    let (parents, field) = path.rsplit_once('.').unwrap_or(("", path));
    let parents = parents.split('.').filter(|it| !it.is_empty());
    let mut of = document;
    for parent in parents {
        match of.get_document(parent) {
            Ok(inner) => of = inner,
            Err(_) => return Ok(Bson::Null),
        }
    }
    match of.get(field) {
        Ok(Some(value)) => Bson::try_from(value).map_err(unreadable),
        _ => Ok(Bson::Null),
    }
}

fn difference(answer: Answer<'_>, found: Documents, standing: &Documents) -> Result<Difference> {
    let now = DateTime::now();
    let mut difference = Difference::default();
    difference.kept.rows = found.len() as u64;
    for (id, old) in standing {
        if !found.contains_key(id) {
            difference.kept.removed += 1;
            difference.removed.push(id_value(old)?);
        }
    }
    for (id, new) in found {
        let old = standing.get(&id);
        let since = old.and_then(|it| it.get_datetime(DETECTED_AT).ok());
        let new = fit(answer, new, since.unwrap_or(now))?;
        match old {
            Some(old) if is_same(old, &new) => continue,
            Some(_) => difference.kept.changed += 1,
            None => difference.kept.added += 1,
        }
        difference.ids.push(id_value(&new)?);
        difference.written.push(new);
    }
    difference.ids.extend(difference.removed.iter().cloned());
    Ok(difference)
}

/// Whether two documents of one `_id` say the same. MongoDB puts the `_id` first, wherever it stood.
fn is_same(one: &RawDocumentBuf, other: &RawDocumentBuf) -> bool {
    let [one, other] = [one, other].map(|it| {
        let elements = Elements::of_document(it.as_bytes());
        elements.filter(|it| it.name != b"_id")
    });
    one.eq(other)
}

fn id_value(document: &RawDocumentBuf) -> Result<Bson> {
    let id = document.get("_id").ok().flatten();
    let id = id.map(Bson::try_from).transpose().map_err(unreadable)?;
    Ok(id.unwrap_or(Bson::Null))
}

fn unreadable(_: impl std::error::Error) -> Error {
    Error::Answer {
        doing: READING,
        field: "_id",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_belongs_to_values_that_may_lie_within_another_field() {
        let document = doc! { "_id": { "customer": 7, "shops": [1] }, "n": 1 };
        let document = RawDocumentBuf::try_from(&document).unwrap();
        let at = |path| value_at(&document, path).unwrap();
        assert_eq!(at("n"), Bson::Int32(1));
        assert_eq!(at("_id.customer"), Bson::Int32(7));
        for path in ["customer", "n.customer", "_id.shops.shop", "_id.customer.x"] {
            assert_eq!(at(path), Bson::Null, "{path}");
        }
    }
}
