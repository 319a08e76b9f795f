//! A reader of MongoDB that must never see anything but a prefix of the source's history.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::error::Result;
use mongodb::{ClientSession, Database};

use super::writer::Progress;
use super::{PER_PRODUCT, PRODUCTS, WRITERS};

/// One reader and the states that it saw.
pub(super) struct Reader {
    mongo: Database,
    progress: Arc<Progress>,
    states: Mutex<BTreeSet<BTreeMap<i32, i64>>>,
    is_over: AtomicBool,
}

/// All collections at one moment.
struct State {
    left: BTreeMap<i32, i64>,
    sold: BTreeMap<i32, i64>,
    lines: BTreeMap<i64, i64>,
    details: BTreeMap<i64, i64>,
    /// Rows and last row by writer.
    histories: BTreeMap<i32, (i64, i64)>,
}

// === impl Reader ===

impl Reader {
    pub(super) fn new(mongo: Database, progress: Arc<Progress>) -> Self {
        Self {
            mongo,
            progress,
            states: Mutex::default(),
            is_over: AtomicBool::new(false),
        }
    }

    /// How many different states were seen.
    pub(super) fn states(&self) -> usize {
        self.states.lock().unwrap().len()
    }

    pub(super) fn stop(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Reads again and again. A server that is away says nothing about what it holds.
    pub(super) async fn run(self: Arc<Self>) {
        let mut last = BTreeMap::new();
        while !self.is_over.load(Ordering::Relaxed) {
            let Ok(state) = self.read().await else {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let reached = state.check();
            for writer in WRITERS {
                let (before, now) = (last.get(&writer), reached.get(&writer));
                assert!(
                    before <= now,
                    "writer {writer} went back: {before:?}, {now:?}"
                );
            }
            last.clone_from(&reached);
            self.progress.saw(reached.clone());
            self.states.lock().unwrap().insert(reached);
        }
    }

    /// The last history row by writer, at this moment.
    pub(super) async fn last_histories(&self) -> BTreeMap<i32, i64> {
        let history = self.mongo.collection::<Document>("history");
        let last = doc! { "$group": { "_id": "$writer", "last": { "$max": "$n" } } };
        let found = history.aggregate([last]).await.unwrap();
        let last = found.map_ok(|it| (small(&it, "_id"), number(&it, "last")));
        last.try_collect().await.unwrap()
    }

    async fn read(&self) -> Result<State> {
        let mut session = self.mongo.client().start_session().snapshot(true).await?;
        let session = &mut session;
        let count = |id: &str| doc! { "$group": { "_id": id, "n": { "$sum": 1 } } };
        let last = doc! { "$group": {
            "_id": "$writer", "n": { "$sum": 1 }, "last": { "$max": "$n" }
        } };
        Ok(State {
            left: self.pairs(session, "stock", vec![], "left").await?,
            details: self
                .pairs(session, "details", vec![count("$header")], "n")
                .await?,
            histories: self
                .documents(session, "history", vec![last])
                .await?
                .iter()
                .map(|it| (small(it, "_id"), (number(it, "n"), number(it, "last"))))
                .collect(),
            sold: self.pairs(session, "sold", vec![], "quantity").await?,
            lines: self.pairs(session, "headers", vec![], "lines").await?,
        })
    }

    async fn pairs<K: TryFrom<i64, Error: std::fmt::Debug> + Ord>(
        &self,
        session: &mut ClientSession,
        collection: &str,
        stages: Vec<Document>,
        field: &str,
    ) -> Result<BTreeMap<K, i64>> {
        let documents = self.documents(session, collection, stages).await?;
        let pair = |it: &Document| (number(it, "_id").try_into().unwrap(), number(it, field));
        Ok(documents.iter().map(pair).collect())
    }

    async fn documents(
        &self,
        session: &mut ClientSession,
        collection: &str,
        stages: Vec<Document>,
    ) -> Result<Vec<Document>> {
        let collection = self.mongo.collection::<Document>(collection);
        let aggregate = collection.aggregate(stages).session(&mut *session);
        let mut cursor = aggregate.await?;
        cursor.stream(session).try_collect().await
    }
}

// === impl State ===

impl State {
    /// The history that was reached, when nothing of a half is seen.
    fn check(self) -> BTreeMap<i32, i64> {
        let products: Vec<_> = (1..=PRODUCTS).collect();
        assert!(self.left.keys().eq(&products), "stock: {:?}", self.left);
        assert!(self.sold.keys().eq(&products), "sold: {:?}", self.sold);
        for (product, left) in &self.left {
            assert_eq!(left + self.sold[product], PER_PRODUCT, "product {product}");
        }
        assert_eq!(self.lines, self.details, "lines by header and details");
        let reached = self.histories.into_iter().map(|(writer, (count, last))| {
            assert_eq!(count, last, "writer {writer}: a gap in its history");
            (writer, last)
        });
        reached.collect()
    }
}

pub(super) fn number(document: &Document, field: &str) -> i64 {
    let value = document.get(field);
    let number = value.and_then(|it| it.as_i64().or(it.as_i32().map(i64::from)));
    number.unwrap_or_else(|| panic!("{field} of {document}"))
}

fn small(document: &Document, field: &str) -> i32 {
    number(document, field).try_into().unwrap()
}
