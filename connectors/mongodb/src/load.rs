//! The batch load: a collection filled aside by many connections, then renamed over its target.
//!
//! - Readers see the old documents until all new ones are there, indexed, counted, and journaled on
//!   a majority.
//! - A load that fails leaves the old collection as it was, and nothing beside it.

mod scan;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use bson::{DateTime, RawDocumentBuf, doc};
use futures_util::TryStreamExt;
use tracing::{info, warn};
use walferry_schema::{Image, TableName};

use crate::bson_value::element::{self, Elements};
use crate::command::{Command, Kind};
use crate::document::{
    DOCUMENT_OVERHEAD, Encoder, MAX_DOCUMENT_BYTES, Span, Truncated, append_id, show_id,
};
use crate::naming::Naming;
use crate::staging;
use crate::store::Store;
use crate::{Error, Policies, Result, Settings, identity};

pub use scan::KeyScan;

/// The collection that records loads.
const LOADS: &str = "loads";
/// A block of so many documents, or bytes, is best sent.
const BLOCK_DOCUMENTS: usize = 2_000;
const BLOCK_BYTES: usize = 4 * 1024 * 1024;

/// Loads tables, and reads back what was loaded.
#[derive(Clone, Debug)]
pub struct Loader {
    store: Store,
}

/// One table's load.
#[derive(Debug)]
pub struct LoadTarget {
    store: Store,
    staging: String,
    collection: String,
    sent: AtomicU64,
}

/// Documents of one table that are sent together.
#[derive(Debug)]
pub struct DocumentBlock {
    encoder: Encoder,
    command: Command,
    scratch: Vec<u8>,
    keys: Vec<Span>,
}

// === impl Loader ===

impl Loader {
    /// Connects to MongoDB.
    ///
    /// # Errors
    /// As [`crate::MongoSink::connect`].
    pub async fn connect(settings: Settings) -> Result<Self> {
        let store = Store::connect(settings).await?;
        Ok(Self { store })
    }

    /// Makes an empty staging collection for a table; one that an earlier load left is dropped.
    ///
    /// # Errors
    /// When the table's collection is none, or the server refuses.
    pub async fn begin(&self, table: &TableName) -> Result<LoadTarget> {
        let (collection, staging) = (Naming.collection(table)?, Naming.load(table)?);
        staging::drop_collection(&self.store, &staging).await?;
        staging::create_like(&self.store, &staging, &collection).await?;
        Ok(LoadTarget {
            store: self.store.clone(),
            staging,
            collection,
            sent: AtomicU64::new(0),
        })
    }

    /// An empty block of a table's documents.
    ///
    /// # Errors
    /// When the table has no valid collection name.
    pub fn block(&self, table: &TableName) -> Result<DocumentBlock> {
        DocumentBlock::new(table, self.store.settings.policies)
    }

    /// About how many documents a collection has, at once.
    ///
    /// # Errors
    /// When the server fails.
    pub async fn estimated_count(&self, collection: &str) -> Result<u64> {
        estimated_count(&self.store, collection).await
    }

    /// How many documents a collection has; reads all of its index, however long that takes.
    ///
    /// # Errors
    /// When the server fails.
    pub async fn count(&self, collection: &str) -> Result<u64> {
        count(&self.store, collection).await
    }

    /// The documents of a table with these keys, by the keys' [identities](identity); those that are not there are left
    /// out.
    ///
    /// A key is an `_id` as [`DocumentBlock::documents`] gives it.
    ///
    /// # Errors
    /// When the server fails.
    pub async fn fetch(
        &self,
        table: &TableName,
        ids: &[Vec<u8>],
    ) -> Result<HashMap<Vec<u8>, RawDocumentBuf>> {
        let collection = Naming.collection(table)?;
        let doing = "reading documents";
        let find = find_command(&collection, ids)?;
        let database = self.store.database();
        let cursor = database.run_raw_cursor_command(find);
        let cursor = self.store.in_time(cursor, doing).await?;
        let cursor = cursor.with_type::<RawDocumentBuf>();
        let documents: Vec<_> = self.store.in_time(cursor.try_collect(), doing).await?;
        let by_id = documents.into_iter().filter_map(|document| {
            let id = id_of(document.as_bytes())?;
            Some((identity(&id).into_owned(), document))
        });
        Ok(by_id.collect())
    }
}

// === impl LoadTarget ===

impl LoadTarget {
    /// Inserts a block; many tasks may do so at once.
    ///
    /// # Errors
    /// Fatal when a document is refused, as a second one with the same key. After any error the load
    /// has to be abandoned: what of the block was inserted is not known.
    pub async fn insert(&self, block: DocumentBlock) -> Result<()> {
        let sent = block.len();
        if sent == 0 {
            return Ok(());
        }
        let command = block.into_command(&self.staging)?;
        let written = Box::pin(self.store.write(None, command, "loading documents")).await?;
        if let Some(error) = written.errors.first() {
            return Err(Error::LoadRefused {
                collection: self.collection.clone(),
                refused: written.errors.len(),
                code: error.code,
                message: error.message.clone(),
            });
        }
        self.sent.fetch_add(written.n as u64, Ordering::Relaxed);
        Ok(())
    }

    /// How many documents were inserted so far.
    pub fn inserted(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// How many documents are in the staging collection; reads all of its index.
    ///
    /// # Errors
    /// When the server fails.
    pub async fn count(&self) -> Result<u64> {
        count(&self.store, &self.staging).await
    }

    /// Waits until what was inserted is journaled on a majority. Call it when the last insert has
    /// returned, and before anything that takes its time.
    ///
    /// # Errors
    /// When the server fails, also when it was killed since the last insert.
    pub async fn settle(&self) -> Result<()> {
        self.await_majority(self.inserted()).await
    }

    /// Makes the indexes of the table's collection, sees that every document is there, and renames the
    /// staging collection over the table's: how many documents it has.
    ///
    /// # Errors
    /// When a step fails; then the staging collection is dropped and the old one is as it was.
    pub async fn finish(self) -> Result<u64> {
        let finished = Box::pin(self.try_finish()).await;
        if finished.is_err()
            && let Err(error) = self.abandon().await
        {
            warn!(%error, "a failed load left its staging collection");
        }
        finished
    }

    /// Drops what was loaded.
    ///
    /// # Errors
    /// When the server fails.
    pub async fn abandon(self) -> Result<()> {
        Box::pin(staging::drop_collection(&self.store, &self.staging)).await
    }

    async fn try_finish(&self) -> Result<u64> {
        staging::copy_indexes(&self.store, &self.collection, &self.staging).await?;
        let sent = self.inserted();
        let found = self.certain_count(sent).await?;
        if sent != found {
            let collection = self.collection.clone();
            return Err(Error::LoadCount {
                collection,
                sent,
                found,
            });
        }
        if !staging::rename_over(&self.store, &self.staging, &self.collection).await? {
            let staging = self.staging.clone();
            return Err(Error::StagingLost { staging });
        }
        info!(collection = self.collection, documents = found, "loaded");
        Ok(found)
    }

    /// How many documents there are. The server keeps a count of each collection, which only its kill
    /// makes wrong, and that would have failed an insert or [`settle`](Self::settle). One that is not as
    /// expected is no proof either: then all are counted.
    async fn certain_count(&self, expected: u64) -> Result<u64> {
        let kept = estimated_count(&self.store, &self.staging).await?;
        if kept == expected {
            Ok(kept)
        } else {
            self.count().await
        }
    }

    /// Inserts were acknowledged by the primary alone; a journaled majority write after them covers
    /// them all.
    async fn await_majority(&self, documents: u64) -> Result<()> {
        let id = format!("{}.{}", self.store.settings.database, self.collection);
        let record = doc! {
            "documents": documents.cast_signed(),
            "loaded_at": DateTime::now(),
        };
        let command = doc! {
            "update": LOADS,
            "updates": [{ "q": { "_id": id }, "u": { "$set": record }, "upsert": true }],
            "writeConcern": { "w": "majority", "j": true },
        };
        let doing = "waiting for a majority";
        let answer = self
            .store
            .run(&self.store.own_database(), command, doing)
            .await?;
        if answer.contains_key("writeConcernError") {
            return Err(Error::NoAnswer { doing });
        }
        Ok(())
    }
}

// === impl DocumentBlock ===

impl DocumentBlock {
    /// An empty block.
    ///
    /// # Errors
    /// When the table has no valid collection name.
    pub fn new(table: &TableName, policies: Policies) -> Result<Self> {
        let staging = Naming.load(table)?;
        Ok(Self {
            encoder: Encoder::new(table.clone(), policies),
            command: Command::with_options(Kind::Insert, &staging, |out| {
                element::boolean(out, "ordered", false);
                let concern = element::open_document(out, "writeConcern");
                element::int32(out, "w", 1);
                element::close(out, concern);
            }),
            scratch: Vec::new(),
            keys: Vec::new(),
        })
    }

    /// Adds a row, in the form that the stream gives it too.
    ///
    /// # Errors
    /// Poison when a value has no form in MongoDB, or the document is too large; the block is as
    /// before.
    pub fn push(&mut self, image: &Image<'_>) -> Result<()> {
        self.scratch.clear();
        self.keys.clear();
        self.encoder.id(&mut self.scratch, image)?;
        let id_len = self.scratch.len();
        if !self
            .encoder
            .body(&mut self.scratch, &mut self.keys, image)?
        {
            return Err(self.encoder.absent(image));
        }
        let (id, body) = self.scratch.split_at(id_len);
        let bytes = self.scratch.len() + DOCUMENT_OVERHEAD;
        if bytes > MAX_DOCUMENT_BYTES {
            return Err(Error::DocumentTooLarge {
                table: self.encoder.table.clone(),
                key: show_id(id),
                position: None,
                bytes,
            });
        }
        self.command.add(|out| {
            append_id(out, id);
            out.extend_from_slice(body);
        });
        Ok(())
    }

    /// How many documents the block has.
    pub fn len(&self) -> usize {
        self.command.statements()
    }

    /// Whether the block has no document.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes the block takes.
    pub fn bytes(&self) -> usize {
        self.command.bytes()
    }

    /// Whether the block is best sent now.
    pub fn is_full(&self) -> bool {
        self.len() >= BLOCK_DOCUMENTS || self.bytes() >= BLOCK_BYTES
    }

    /// How many values lost their microseconds, by column.
    pub fn truncated(&self) -> &Truncated {
        &self.encoder.truncated
    }

    /// The documents with their `_id`s, to be held against what [`Loader::fetch`] finds.
    pub fn documents(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let documents = Elements::new(self.command.statement_bytes());
        let documents =
            documents.map(|document| document.bytes[document.name.len() + 2..].to_vec());
        documents
            .filter_map(|document| Some((id_of(&document)?, document)))
            .collect()
    }

    fn into_command(self, staging: &str) -> Result<RawDocumentBuf> {
        debug_assert!(
            Naming
                .load(&self.encoder.table)
                .is_ok_and(|name| name == staging)
        );
        self.command.finish()
    }
}

async fn estimated_count(store: &Store, collection: &str) -> Result<u64> {
    let collection = store.database().collection::<RawDocumentBuf>(collection);
    let count = collection.estimated_document_count();
    store.in_time(count, "counting documents").await
}

async fn count(store: &Store, collection: &str) -> Result<u64> {
    let collection = store.database().collection::<RawDocumentBuf>(collection);
    // No time limit: a large collection takes minutes.
    let count = Box::pin(collection.count_documents(doc! {}).into_future());
    count.await.map_err(Error::server("counting documents"))
}

/// `{find, filter: {_id: {$in: […]}}}`
fn find_command(collection: &str, ids: &[Vec<u8>]) -> Result<RawDocumentBuf> {
    let mut bytes = Vec::new();
    let command = element::open(&mut bytes);
    element::string(&mut bytes, "find", collection);
    let filter = element::open_document(&mut bytes, "filter");
    let id = element::open_document(&mut bytes, "_id");
    element::header(&mut bytes, element::kind::ARRAY, "$in");
    let array = element::open(&mut bytes);
    for (index, id) in ids.iter().enumerate() {
        crate::document::append_id_as(&mut bytes, &index.to_string(), id);
    }
    for at in [array, id, filter, command] {
        element::close(&mut bytes, at);
    }
    let invalid = |_| Error::Answer {
        doing: "encoding a command",
        field: "length",
    };
    RawDocumentBuf::from_bytes(bytes).map_err(invalid)
}

/// The `_id` of a document: its type byte and payload.
fn id_of(document: &[u8]) -> Option<Vec<u8>> {
    let id = Elements::of_document(document).find(|element| element.name == b"_id")?;
    let (kind, rest) = id.bytes.split_first()?;
    let payload = rest.get(id.name.len() + 1..)?;
    Some([&[*kind], payload].concat())
}
