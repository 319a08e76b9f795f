//! What operators ask of a pipeline, in `_walferry.orders`, and what was passed over for them.
//!
//! - An order stands until it is taken back, or until the pipeline is past what it names.
//! - `_walferry.skipped` holds a document for each transaction that was passed over, and
//!   `_walferry.skipped_changes` one for each of its changes. Nothing of walferry deletes them.

use std::collections::{BTreeMap, BTreeSet};

use bson::oid::ObjectId;
use bson::{Bson, DateTime, Document, doc};
use futures_util::TryStreamExt as _;
use walferry_core::{
    Checkpoint, Fault, LetterAction, LetterChoice, LetterOrder, Order, OrderReader, Orders,
    Skipped, SkippedChange, Unverified,
};
use walferry_schema::{CommitId, TableName};

use crate::store::{Store, Written};
use crate::{
    DeadLetter, Error, ExtendedJson, Lacking, Result, Settings, claim, dead_letters, order,
    versions,
};

const ORDERS: &str = "orders";
const SKIPPED: &str = "skipped";
const CHANGES: &str = "skipped_changes";
/// A change beyond this is kept without its content: a document takes 16 MiB.
const LARGEST_BYTES: usize = 15 << 20;
/// What one command inserts at most.
const COMMAND_BYTES: usize = 16 << 20;
const COMMAND_CHANGES: usize = 1_000;
/// How many unverified transactions are shown at most.
const SHOWN: i64 = 100;

const READING: &str = "reading the orders";
const WRITING: &str = "writing an order";

/// Where operators leave what they ask of a pipeline.
#[derive(Clone, Debug)]
pub struct OrderBook {
    store: Store,
}

// === impl OrderBook ===

impl OrderBook {
    /// Connects.
    ///
    /// # Errors
    /// As [`crate::MongoSink::connect`].
    pub async fn connect(settings: Settings) -> Result<Self> {
        Ok(Self::over(Store::connect(settings).await?))
    }

    pub(crate) fn over(store: Store) -> Self {
        Self { store }
    }

    /// Where the pipeline stands; none before it has applied anything.
    ///
    /// # Errors
    /// When the server cannot be asked, or the position is not to be read.
    pub async fn position(&self) -> Result<Option<Checkpoint>> {
        let stored = claim::read(&self.store).await?;
        Ok(stored.and_then(|stored| stored.checkpoint))
    }

    /// Takes over what another pipeline knows of its tables' columns, in place of what was known here.
    ///
    /// # Errors
    /// When the server refuses or cannot be asked.
    pub async fn take_over_tables(&self, from: &str) -> Result<()> {
        versions::take_over(&self.store, from).await
    }

    /// Takes over another pipeline's dead letters.
    ///
    /// # Errors
    /// When the server refuses or cannot be asked.
    pub async fn take_over_letters(&self, from: &str) -> Result<()> {
        dead_letters::take_over(&self.store, from).await
    }

    /// What is asked of the pipeline.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn orders(&self) -> Result<Orders> {
        read(&self.store).await
    }

    /// Asks the pipeline to apply nothing more; an earlier pause stays as it is. Whether there was none.
    ///
    /// # Errors
    /// When the server refuses or cannot be asked.
    pub async fn pause(&self, order: &Order) -> Result<bool> {
        if self.orders().await?.pause.is_some() {
            return Ok(false);
        }
        let paused = doc! { "$set": { "pause": order::to_document(order) } };
        self.change(doc! {}, paused).await?;
        Ok(true)
    }

    /// Takes the pause back; whether there was one.
    ///
    /// # Errors
    /// When the server refuses or cannot be asked.
    pub async fn resume(&self) -> Result<bool> {
        if self.orders().await?.pause.is_none() {
            return Ok(false);
        }
        self.change(doc! {}, doc! { "$unset": { "pause": "" } })
            .await?;
        Ok(true)
    }

    /// Asks the pipeline to pass over a transaction when it comes to it; an earlier order stays as it is.
    /// Whether there was none.
    ///
    /// # Errors
    /// When the server refuses or cannot be asked.
    pub async fn skip(&self, commit: CommitId, order: &Order) -> Result<bool> {
        if self.orders().await?.skips.contains_key(&commit) {
            return Ok(false);
        }
        let mut skip = commit_document(commit);
        skip.extend(order::to_document(order));
        self.change(doc! {}, doc! { "$push": { "skips": skip } })
            .await?;
        Ok(true)
    }

    /// Takes back an order to pass over a transaction; whether there was one.
    ///
    /// # Errors
    /// When the server refuses or cannot be asked.
    pub async fn withdraw(&self, commit: CommitId) -> Result<bool> {
        if !self.orders().await?.skips.contains_key(&commit) {
            return Ok(false);
        }
        let skip = commit_document(commit);
        self.change(doc! {}, doc! { "$pull": { "skips": skip } })
            .await?;
        Ok(true)
    }

    /// Who had a transaction passed over; none when nobody had.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn passed_over(&self, commit: CommitId) -> Result<Option<Order>> {
        let skipped = self.store.own_database().collection::<Document>(SKIPPED);
        let find = skipped.find_one(doc! { "_id": id(&self.store.settings.pipeline, commit) });
        let found = self.store.in_time(find, READING).await?;
        Ok(found.as_ref().map(order::of_document))
    }

    /// The server's clock, which tells when something was passed over: milliseconds since 1970.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn now(&self) -> Result<i64> {
        let hello = doc! { "hello": 1 };
        let hello = self.store.run(&self.store.admin(), hello, READING).await?;
        match hello.get_datetime("localTime") {
            Ok(now) => Ok(now.timestamp_millis()),
            Err(_) => Err(Error::Answer {
                doing: READING,
                field: "localTime",
            }),
        }
    }

    /// Notes that a table was found equal to its source by a comparison that began at `since`: what was
    /// passed over before then, or drifted, is no longer missing in it. How many transactions and drifts this is news for.
    ///
    /// # Errors
    /// When the server refuses or cannot be asked.
    pub async fn verified(&self, name: &TableName, since: i64) -> Result<usize> {
        let table = name.to_string();
        let query = doc! {
            "pipeline": &self.store.settings.pipeline,
            "unverified": &table,
            "skipped_at": { "$lt": DateTime::from_millis(since) },
        };
        let pulled = doc! { "$pull": { "unverified": table } };
        let settled = self
            .update(SKIPPED, doc! { "q": query, "u": pulled, "multi": true })
            .await?;
        let since = DateTime::from_millis(since);
        let drift = versions::verified(&self.store.settings.pipeline, name, since);
        Ok(settled + self.update(versions::TABLES, drift).await?)
    }

    /// Asks the pipeline to do something about its dead letters.
    ///
    /// # Errors
    /// When the server refuses or cannot be asked.
    pub async fn ask_for(
        &self,
        action: LetterAction,
        choice: LetterChoice,
        order: &Order,
    ) -> Result<()> {
        let order = &LetterOrder {
            id: ObjectId::new().to_hex(),
            action,
            choice,
            order: order.clone(),
        };
        let asked = doc! { "$push": { "letters": dead_letters::order_document(order) } };
        self.change(doc! {}, asked).await
    }

    /// Whether that is still asked.
    pub(crate) async fn asks_for(&self, order: &LetterOrder) -> Result<bool> {
        Ok(self
            .orders()
            .await?
            .letters
            .iter()
            .any(|it| it.id == order.id))
    }

    /// Takes an order back that was carried out.
    pub(crate) async fn done_with(&self, order: &LetterOrder) -> Result<()> {
        let done = doc! { "$pull": { "letters": { "id": &order.id } } };
        self.change(doc! {}, done).await
    }

    /// The dead letters, the oldest first; also those that are settled, where `with_settled`.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn dead_letters(&self, with_settled: bool) -> Result<Vec<DeadLetter>> {
        let of = if with_settled {
            doc! {}
        } else {
            doc! { "state": "parked" }
        };
        dead_letters::shown(&self.store, of).await
    }

    /// What a dead letter says; none of a deleted row, and when it stands no more.
    ///
    /// # Errors
    /// When the server cannot be asked, or it is lost.
    pub async fn dead_letter_content(&self, id: &str) -> Result<Option<ExtendedJson>> {
        dead_letters::document(&self.store, id).await
    }

    /// The dead letter of this name, settled or not.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn dead_letter(&self, id: &str) -> Result<Option<DeadLetter>> {
        let of = doc! { "_id": { "pipeline": &self.store.settings.pipeline, "at": id } };
        Ok(dead_letters::shown(&self.store, of).await?.pop())
    }

    /// What a dead letter was too large to say itself, in order; nothing when it stands no more.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn dead_letter_lacks(&self, id: &str) -> Result<Vec<Lacking>> {
        dead_letters::lacks(&self.store, id).await
    }

    /// The rows that have dead letters: tables, as `schema.table`, and the [identities](crate::identity) of `_id`s.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn parked_rows(&self) -> Result<BTreeSet<(String, Vec<u8>)>> {
        dead_letters::rows(&self.store).await
    }

    /// Changes the pipeline's document, which comes into being with it.
    async fn change(&self, query: Document, change: Document) -> Result<()> {
        let mut own = doc! { "_id": &self.store.settings.pipeline };
        own.extend(query);
        self.update(ORDERS, doc! { "q": own, "u": change, "upsert": true })
            .await?;
        Ok(())
    }

    async fn update(&self, collection: &str, update: Document) -> Result<usize> {
        let command = doc! {
            "update": collection,
            "updates": [update],
            "writeConcern": { "w": "majority", "j": true },
        };
        let database = self.store.own_database();
        let answer = self.store.run(&database, command, WRITING).await?;
        let written = Written::from_answer(&answer, WRITING)?;
        written.accepted(WRITING, collection)?;
        Ok(written.n)
    }
}

impl OrderReader for OrderBook {
    async fn read(&mut self) -> Result<Orders, Fault> {
        Ok(self.orders().await?)
    }
}

/// What is asked of the pipeline.
pub(crate) async fn read(store: &Store) -> Result<Orders> {
    let pipeline = &store.settings.pipeline;
    let orders = store.own_database().collection::<Document>(ORDERS);
    let find = orders.find_one(doc! { "_id": pipeline });
    let drifted = versions::drifted(store).await?;
    let parked = dead_letters::counted(store).await?;
    let Some(asked) = store.in_time(find, READING).await? else {
        return Ok(Orders {
            drifted,
            parked,
            ..Orders::default()
        });
    };
    let listed = asked.get_array("skips").map_or(&[][..], Vec::as_slice);
    let listed = listed.iter().filter_map(Bson::as_document);
    let letters = asked.get_array("letters").map_or(&[][..], Vec::as_slice);
    let letters = letters.iter().filter_map(Bson::as_document);
    let skips: BTreeMap<_, _> = listed
        .filter_map(|skip| Some((commit_of(skip)?, order::of_document(skip))))
        .collect();
    Ok(Orders {
        pause: asked.get_document("pause").ok().map(order::of_document),
        skips,
        unverified: unverified(store).await?,
        drifted,
        letters: letters.filter_map(dead_letters::order_of).collect(),
        parked,
    })
}

async fn unverified(store: &Store) -> Result<Vec<Unverified>> {
    let skipped = store.own_database().collection::<Document>(SKIPPED);
    let open = doc! { "pipeline": &store.settings.pipeline, "unverified.0": { "$exists": true } };
    let find = skipped.find(open).sort(doc! { "_id": 1 }).limit(SHOWN);
    let found = store.in_time(find, READING).await?;
    let found: Vec<_> = store
        .in_time(found.try_collect::<Vec<_>>(), READING)
        .await?;
    Ok(found.iter().filter_map(unverified_of).collect())
}

/// The commands that keep a transaction, or a piece of one, in the order in which they run.
pub(crate) fn keeping(pipeline: &str, skipped: &Skipped) -> Vec<(&'static str, Document)> {
    let tables: BTreeSet<_> = skipped
        .changes
        .iter()
        .map(|it| it.table.to_string())
        .collect();
    let tables: Vec<_> = tables.into_iter().collect();
    let mut found = doc! {
        "pipeline": pipeline,
        "committed_at": skipped.committed_at.map(|micros| DateTime::from_millis(micros.div_euclid(1_000))),
    };
    found.extend(order::to_document(&skipped.order));
    let update = doc! {
        "$setOnInsert": found,
        "$currentDate": { "skipped_at": true },
        "$inc": { "changes": i64::try_from(skipped.changes.len()).unwrap_or(i64::MAX) },
        "$addToSet": { "tables": { "$each": &tables }, "unverified": { "$each": tables } },
    };
    let of = id(pipeline, skipped.commit);
    // Taken back meanwhile, it must not be passed over: then this matches nothing.
    let stands =
        doc! { "_id": pipeline, "skips": { "$elemMatch": commit_document(skipped.commit) } };
    let met = doc! { "$currentDate": { "met_at": true } };
    let mut commands = vec![(
        ORDERS,
        doc! { "update": ORDERS, "updates": [{ "q": stands, "u": met }] },
    )];
    commands.push((
        SKIPPED,
        doc! { "update": SKIPPED, "updates": [{ "q": { "_id": &of }, "u": update, "upsert": true }] },
    ));
    let (mut documents, mut bytes) = (Vec::new(), 0);
    for change in &skipped.changes {
        let size = change.change.len();
        if documents.len() >= COMMAND_CHANGES || bytes + size > COMMAND_BYTES {
            commands.push((CHANGES, insert(std::mem::take(&mut documents))));
            bytes = 0;
        }
        documents.push(change_document(&of, change));
        bytes += size.min(LARGEST_BYTES);
    }
    if !documents.is_empty() {
        commands.push((CHANGES, insert(documents)));
    }
    commands
}

fn insert(documents: Vec<Document>) -> Document {
    doc! { "insert": CHANGES, "documents": documents }
}

fn change_document(of: &Document, change: &SkippedChange) -> Document {
    let mut id = of.clone();
    id.insert("ordinal", change.ordinal.cast_signed());
    let size = change.change.len();
    let mut document = doc! { "_id": id, "table": change.table.to_string() };
    if size > LARGEST_BYTES {
        document.insert("left_out_bytes", i64::try_from(size).unwrap_or(i64::MAX));
    } else {
        document.insert("change", &change.change);
    }
    document
}

/// The `_id` of what is kept of a transaction.
fn id(pipeline: &str, commit: CommitId) -> Document {
    let mut id = doc! { "pipeline": pipeline };
    id.extend(commit_document(commit));
    id
}

fn commit_document(commit: CommitId) -> Document {
    doc! { "generation": commit.generation.cast_signed(), "commit_lsn": commit.lsn.to_string() }
}

fn commit_of(document: &Document) -> Option<CommitId> {
    Some(CommitId {
        generation: document.get_i64("generation").ok()?.cast_unsigned(),
        lsn: document.get_str("commit_lsn").ok()?.parse().ok()?,
    })
}

fn unverified_of(document: &Document) -> Option<Unverified> {
    let tables = document.get_array("unverified").ok()?;
    let tables = tables.iter().filter_map(Bson::as_str);
    Some(Unverified {
        commit: commit_of(document.get_document("_id").ok()?)?,
        order: order::of_document(document),
        changes: document.get_i64("changes").ok()?.cast_unsigned(),
        tables: tables.map(str::to_owned).collect(),
    })
}
