//! One pass over a collection for the fields of dropped columns: what is written meanwhile has none.
//!
//! - Each step reads so many documents by their index, whether they have such fields or not, so that none takes longer
//!   than another, and leaves nothing open on the server.

use std::collections::BTreeSet;

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt as _;
use walferry_schema::TableName;

use crate::Result;
use crate::batch::Unset;
use crate::naming::Naming;
use crate::store::Store;

const DOING: &str = "looking for dropped columns";
/// How many documents are looked at in a step.
const DOCUMENTS: usize = 1_000;

/// A pass over a collection.
#[derive(Debug)]
pub(crate) struct Sweep {
    collection: String,
    fields: Vec<String>,
    /// The last document that was seen.
    after: Option<Bson>,
}

// === impl Sweep ===

impl Sweep {
    pub(crate) fn new(table: &TableName, fields: &BTreeSet<String>) -> Result<Self> {
        Ok(Self {
            collection: Naming.collection(table)?,
            fields: fields.iter().cloned().collect(),
            after: None,
        })
    }

    /// The next documents; none when all were seen.
    pub(crate) async fn next(&mut self, store: &Store) -> Result<Unset> {
        let documents = store.database().collection::<Document>(&self.collection);
        let mut find = documents
            .find(doc! {})
            .projection(doc! { "_id": 1 })
            .hint(mongodb::options::Hint::Keys(doc! { "_id": 1 }))
            .sort(doc! { "_id": 1 });
        // A bound of the index, which all types of `_id` have their place in: `$gt` finds those of its own type only.
        if let Some(after) = &self.after {
            find = find.min(doc! { "_id": after.clone() });
        }
        // The bound itself comes again.
        let limit = i64::try_from(DOCUMENTS).unwrap_or(i64::MAX);
        let found = store.in_time(find.limit(limit.saturating_add(1)), DOING);
        let found = store.in_time(found.await?.try_collect::<Vec<_>>(), DOING);
        let ids = found.await?.into_iter();
        let ids: Vec<_> = ids
            .filter_map(|mut document| document.remove("_id"))
            .filter(|id| Some(id) != self.after.as_ref())
            .collect();
        if let Some(last) = ids.last() {
            self.after = Some(last.clone());
        }
        Ok(Unset {
            collection: self.collection.clone(),
            ids,
            fields: self.fields.clone(),
        })
    }
}
