//! All keys of a collection, read in pieces.

use bson::{RawDocumentBuf, doc};
use futures_util::TryStreamExt;
use mongodb::Cursor;
use walferry_schema::TableName;

use super::{Loader, id_of};
use crate::Result;
use crate::naming::Naming;
use crate::store::Store;

const DOING: &str = "reading keys";

/// The keys of a table's documents, one after another.
#[derive(Debug)]
pub struct KeyScan {
    store: Store,
    cursor: Cursor<RawDocumentBuf>,
}

// === impl Loader ===

impl Loader {
    /// Reads the keys of all documents of a table, in no order.
    ///
    /// # Errors
    /// When the server fails.
    pub async fn scan_keys(&self, table: &TableName) -> Result<KeyScan> {
        let collection = Naming.collection(table)?;
        let collection = self
            .store
            .database()
            .collection::<RawDocumentBuf>(&collection);
        let find = collection.find(doc! {}).projection(doc! { "_id": 1 });
        let cursor = self.store.in_time(find, DOING).await?;
        Ok(KeyScan {
            store: self.store.clone(),
            cursor,
        })
    }
}

// === impl KeyScan ===

impl KeyScan {
    /// The next key, as [`super::DocumentBlock::documents`] gives it; none after the last.
    ///
    /// # Errors
    /// When the server fails.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let document = self.store.in_time(self.cursor.try_next(), DOING).await?;
        Ok(document.and_then(|document| id_of(document.as_bytes())))
    }
}
