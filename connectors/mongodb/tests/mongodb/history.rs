//! Every version of a row, beside the current one.

use std::collections::BTreeMap;
use std::sync::Arc;

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt as _;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use walferry_core::{Applied, Batch, Checkpoint, Class, RowEvent, Sink, Target};
use walferry_mongodb::{Histories, MongoSink};
use walferry_schema::{Column, TableName};

use crate::support::{Fixture, Tested, at, checkpoint, columns, key, row};

/// A version: the row's key, its values, the ordinals and operations that it begins and ends with.
type Version = (i32, i32, String, (u64, String), Option<(u64, String)>);

/// A test's pipeline, whose table keeps its history.
struct Rig {
    fixture: Fixture,
    sink: MongoSink,
    columns: Arc<[Column]>,
    ordinal: u64,
}

// === impl Rig ===

impl Rig {
    async fn new() -> Self {
        let mut fixture = Fixture::new().await;
        fixture.settings.parks = true;
        fixture.settings.histories = Histories::of(|_| true);
        Self {
            sink: fixture.claimed().await,
            fixture,
            columns: columns(),
            ordinal: 0,
        }
    }

    /// Another process takes over, which keeps the history or not.
    async fn restart(&mut self, is_kept: bool) {
        self.fixture.settings.histories = if is_kept {
            Histories::of(|_| true)
        } else {
            Histories::default()
        };
        self.sink = self.fixture.claimed().await;
    }

    fn checkpoint(&self, generation: u64) -> Checkpoint {
        let mut checkpoint = Checkpoint {
            tables: vec![self.fixture.spec()],
            generation,
            position: Some(at(self.ordinal)),
            committed_at: Some(committed_at(self.ordinal)),
            ..checkpoint(1)
        };
        checkpoint.term.generation = generation;
        checkpoint
    }

    /// Applies events as one group, each with an ordinal of its own from 1 on.
    async fn apply(&mut self, events: Vec<RowEvent<'_>>) -> Applied {
        let mut batch = self.sink.batch();
        for event in events {
            self.ordinal += 1;
            let target = Target {
                committed_at: Some(committed_at(self.ordinal)),
                xid: Some(u32::MAX),
                ..self.fixture.target(self.ordinal)
            };
            batch.push(&target, event).unwrap();
        }
        let checkpoint = self.checkpoint(7);
        self.sink.apply(batch, &checkpoint).await.unwrap()
    }

    /// In the order in which they began.
    async fn documents(&self) -> Vec<Document> {
        let versions = self.fixture.database.collection::<Document>("t_history");
        let found = versions.find(doc! {}).sort(doc! { "_id.ordinal": 1 });
        found.await.unwrap().try_collect().await.unwrap()
    }

    async fn versions(&self) -> Vec<Version> {
        self.documents().await.iter().map(version).collect()
    }
}

fn committed_at(ordinal: u64) -> i64 {
    (1_700_000_000_000 + ordinal.cast_signed()) * 1_000
}

/// Reads a version, whose times are those of its ordinals.
fn version(document: &Document) -> Version {
    let ordinal = |field: &str| {
        let at = document.get_datetime(field).ok()?.timestamp_millis();
        u64::try_from(at - 1_700_000_000_000).ok()
    };
    let closed_by = document.get_document("closed_by").ok();
    let end = closed_by.map(|it| (ordinal("valid_to").unwrap(), text(it, "op")));
    assert_eq!(document.get_bool("is_current").unwrap(), end.is_none());
    assert_eq!(document.get_i64("lsn").unwrap(), 0x100);
    let id = document.get_document("_id").unwrap();
    assert_eq!(id.get("row"), document.get("id"));
    let from = (ordinal("valid_from").unwrap(), text(document, "op"));
    let int = |field: &str| document.get_i32(field).unwrap();
    (int("id"), int("a"), text(document, "b"), from, end)
}

fn text(document: &Document, field: &str) -> String {
    document.get_str(field).unwrap_or_default().to_owned()
}

fn expected(id: i32, a: i32, b: &str, from: (u64, &str), to: Option<(u64, &str)>) -> Version {
    let own = |(at, op): (u64, &str)| (at, op.to_owned());
    (id, a, b.to_owned(), own(from), to.map(own))
}

#[tokio::test]
async fn each_change_begins_a_version_and_ends_the_one_before() -> Tested {
    let mut rig = Rig::new().await;
    let columns = rig.columns.clone();
    rig.apply(vec![
        RowEvent::Insert(row(&columns, 1, 1, Some("x"))),
        RowEvent::Update(row(&columns, 1, 2, Some("y"))),
    ])
    .await;
    rig.apply(vec![
        RowEvent::Update(row(&columns, 1, 3, Some("y"))),
        RowEvent::Delete(key(&columns, 1)),
        RowEvent::Insert(row(&columns, 1, 4, Some("z"))),
    ])
    .await;
    let versions = [
        expected(1, 1, "x", (1, "c"), Some((2, "u"))),
        expected(1, 2, "y", (2, "u"), Some((3, "u"))),
        expected(1, 3, "y", (3, "u"), Some((4, "d"))),
        expected(1, 4, "z", (5, "c"), None),
    ];
    assert_eq!(rig.versions().await, versions);
    let last = rig.documents().await.pop().unwrap();
    let whole = doc! {
        "_id": { "row": 1, "generation": 7_i64, "lsn": 0x100_i64, "ordinal": 5_i64 },
        "id": 1, "a": 4, "b": "z",
        "valid_from": bson::DateTime::from_millis(1_700_000_000_005), "valid_to": Bson::Null, "is_current": true,
        "op": "c", "lsn": 0x100_i64, "xid": i64::from(u32::MAX), "closed_by": Bson::Null,
    };
    assert_eq!(last, whole);
    Ok(())
}

#[tokio::test]
async fn a_row_that_comes_over_a_version_that_a_skipped_delete_left_ends_that_one() -> Tested {
    let mut rig = Rig::new().await;
    let columns = rig.columns.clone();
    let insert = |a| RowEvent::Insert(row(&columns, 1, a, Some("x")));
    rig.apply(vec![insert(1)]).await;
    let documents = rig.fixture.database.collection::<Document>("t");
    documents.delete_one(doc! {}).await?;
    rig.apply(vec![insert(2)]).await;
    let versions = [
        expected(1, 1, "x", (1, "c"), Some((2, "c"))),
        expected(1, 2, "x", (2, "c"), None),
    ];
    assert_eq!(rig.versions().await, versions);
    Ok(())
}

#[tokio::test]
async fn a_history_that_begins_late_or_was_not_kept_for_a_while_begins_with_what_is_there() -> Tested
{
    let mut rig = Rig::new().await;
    let columns = rig.columns.clone();
    let put = |id, a| RowEvent::Insert(row(&columns, id, a, Some("x")));
    let set = |id, a| RowEvent::Update(row(&columns, id, a, Some("x")));
    rig.restart(false).await;
    rig.apply(vec![put(1, 1), put(2, 1), put(3, 1)]).await;
    assert_eq!(rig.versions().await, []);

    rig.restart(true).await;
    rig.apply(vec![set(1, 2)]).await;
    rig.restart(false).await;
    let gone = RowEvent::Delete(key(&columns, 3));
    rig.apply(vec![set(2, 2), gone, put(4, 1)]).await;
    rig.restart(true).await;
    rig.apply(vec![set(4, 2)]).await;
    let mut versions = rig.versions().await;
    versions.sort();
    // What began with the third change, ended with the fourth; what was missed stands as of the last of it, the seventh.
    let after = [
        expected(1, 1, "x", (3, "r"), Some((4, "u"))),
        expected(1, 2, "x", (4, "u"), None),
        expected(2, 1, "x", (3, "r"), Some((7, "r"))),
        expected(2, 2, "x", (7, "r"), None),
        expected(3, 1, "x", (3, "r"), Some((7, "r"))),
        expected(4, 1, "x", (7, "r"), Some((8, "u"))),
        expected(4, 2, "x", (8, "u"), None),
    ];
    assert_eq!(versions, after);

    // Nothing was missed: nothing is added.
    rig.restart(true).await;
    rig.apply(vec![set(1, 3)]).await;
    assert_eq!(rig.versions().await.len(), after.len() + 1);
    Ok(())
}

#[tokio::test]
async fn a_beginning_looks_at_every_row_of_a_large_collection() -> Tested {
    let mut rig = Rig::new().await;
    let columns = rig.columns.clone();
    rig.restart(false).await;
    let put = |id| RowEvent::Insert(row(&columns, id, 0, Some("x")));
    rig.apply((0..2_500).map(put).collect()).await;
    rig.restart(true).await;
    rig.apply(vec![put(9_000)]).await;
    assert_eq!(rig.versions().await.len(), 2_501);
    rig.restart(false).await;
    let gone = |id| RowEvent::Delete(key(&columns, id));
    rig.apply((0..2_400).map(gone).collect()).await;
    rig.restart(true).await;
    rig.apply(vec![put(9_001)]).await;
    let versions = rig.versions().await;
    let current = versions.iter().filter(|it| it.4.is_none());
    assert_eq!((versions.len(), current.count()), (2_502, 102));
    Ok(())
}

#[tokio::test]
async fn nothing_of_a_table_with_a_history_is_parked() -> Tested {
    let mut rig = Rig::new().await;
    let columns = rig.columns.clone();
    let large = "x".repeat(17 << 20);
    let mut batch = rig.sink.batch();
    let target = rig.fixture.target(1);
    let refused = batch.push(&target, RowEvent::Insert(row(&columns, 1, 1, Some(&large))));
    let refused = refused.unwrap_err();
    assert_eq!(refused.class(), Class::Poison, "{refused}");
    assert_eq!(batch.operations(), 0);

    let rule = doc! { "collMod": "t", "validator": { "a": { "$lt": 5 } } };
    let put = |a| RowEvent::Insert(row(&columns, a, a, Some("x")));
    rig.apply(vec![put(1)]).await;
    rig.fixture.database.run_command(rule).await?;
    let mut batch = rig.sink.batch();
    batch.push(&rig.fixture.target(9), put(7))?;
    let refused = rig.sink.apply(batch, &rig.checkpoint(7)).await.unwrap_err();
    assert_eq!(refused.class(), Class::Poison, "{refused}");
    assert_eq!(rig.versions().await.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_history_begins_with_rows_that_are_as_the_source_has_them_alone() -> Tested {
    let mut rig = Rig::new().await;
    let columns = rig.columns.clone();
    let large = "x".repeat(17 << 20);
    rig.restart(false).await;
    let applied = rig
        .apply(vec![RowEvent::Insert(row(&columns, 1, 1, Some(&large)))])
        .await;
    assert_eq!(applied.parked, 1);
    rig.restart(true).await;
    let mut batch = rig.sink.batch();
    let insert = RowEvent::Insert(row(&columns, 2, 2, Some("x")));
    batch.push(&rig.fixture.target(9), insert)?;
    let refused = rig.sink.apply(batch, &rig.checkpoint(7)).await.unwrap_err();
    assert!(refused.to_string().contains("cannot begin"), "{refused}");
    assert_eq!(rig.versions().await, []);
    Ok(())
}

#[tokio::test]
async fn a_history_is_never_another_tables_collection() -> Tested {
    let mut rig = Rig::new().await;
    let other = rig.fixture.database.collection::<Document>("t_history");
    other.insert_one(doc! { "_id": 1 }).await?;
    let mut checkpoint = rig.checkpoint(7);
    let mut spec = rig.fixture.spec();
    spec.name = TableName::new("public", "t_history");
    checkpoint.tables.push(spec);
    let refused = rig.sink.apply(rig.sink.batch(), &checkpoint).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("t_history"), "{refused}");
    assert_eq!(rig.documents().await, [doc! { "_id": 1 }]);
    Ok(())
}

#[tokio::test]
async fn a_history_that_begins_twice_at_one_position_tells_its_versions_apart() -> Tested {
    let mut rig = Rig::new().await;
    let columns = rig.columns.clone();
    rig.restart(false).await;
    rig.apply(vec![RowEvent::Insert(row(&columns, 1, 1, Some("x")))])
        .await;
    let rows = rig.fixture.database.collection::<Document>("t");
    for a in 2..4 {
        rig.restart(true).await;
        rig.apply(Vec::new()).await;
        rig.restart(false).await;
        rig.apply(Vec::new()).await;
        let set = doc! { "$set": { "a": a } };
        rows.update_one(doc! { "_id": 1 }, set).await?;
    }
    rig.restart(true).await;
    rig.apply(Vec::new()).await;
    let a: Vec<_> = rig.versions().await.iter().map(|it| it.1).collect();
    assert_eq!(a.len(), 3, "{a:?}");
    Ok(())
}

#[tokio::test]
async fn a_column_with_the_name_of_a_versions_field_is_refused_by_name() -> Tested {
    let rig = Rig::new().await;
    let mut columns = columns().to_vec();
    columns[1].name = "valid_to".into();
    let mut batch = rig.sink.batch();
    let target = rig.fixture.target(1);
    let refused = batch.push(&target, RowEvent::Insert(row(&columns, 1, 1, Some(""))));
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("column valid_to of public.t"), "{error}");
    assert_eq!(batch.operations(), 0);
    Ok(())
}

/// What a test asks for; made valid against the rows that are there.
#[derive(Clone, Copy, Debug)]
enum Wish {
    /// Insert, or update; without a text that stays as it was.
    Put(i32, i32, Option<u8>),
    Delete(i32),
    Move(i32, i32, Option<u8>),
    Truncate,
    /// The group ends here, and another process may take over.
    Apply(bool),
}

fn wish() -> impl Strategy<Value = Wish> {
    let id = 1..4_i32;
    let text = any::<Option<u8>>();
    prop_oneof![
        8 => (id.clone(), any::<i32>(), text.clone()).prop_map(|(id, a, b)| Wish::Put(id, a, b)),
        3 => id.clone().prop_map(Wish::Delete),
        3 => (id.clone(), id, text).prop_map(|(from, to, b)| Wish::Move(from, to, b)),
        1 => Just(Wish::Truncate),
        3 => any::<bool>().prop_map(Wish::Apply),
    ]
}

/// The rows as PostgreSQL would have them, and their versions.
#[derive(Default)]
struct Model {
    /// Where the current version of a row is.
    rows: BTreeMap<i32, usize>,
    versions: Vec<Version>,
}

// === impl Model ===

impl Model {
    fn begin(&mut self, id: i32, (a, b): (i32, String), from: (u64, &str)) {
        self.rows.insert(id, self.versions.len());
        self.versions.push(expected(id, a, &b, from, None));
    }

    fn end(&mut self, id: i32, to: (u64, &str)) -> Option<(i32, String)> {
        let at = self.rows.remove(&id)?;
        let version = &mut self.versions[at];
        version.4 = Some((to.0, to.1.to_owned()));
        Some((version.1, version.2.clone()))
    }

    /// The event that a wish becomes at an ordinal.
    fn event<'a>(
        &mut self,
        columns: &'a [Column],
        wish: Wish,
        texts: &'a [String],
        at: u64,
    ) -> Option<RowEvent<'a>> {
        let text = |b: Option<u8>| b.map(|b| &*texts[usize::from(b)]);
        Some(match wish {
            Wish::Put(id, a, b) => match self.end(id, (at, "u")) {
                None => {
                    let b = text(Some(b.unwrap_or(0)));
                    self.begin(id, (a, b.unwrap_or_default().to_owned()), (at, "c"));
                    RowEvent::Insert(row(columns, id, a, b))
                }
                Some((_, old)) => {
                    let new = text(b).map_or(old, str::to_owned);
                    self.begin(id, (a, new), (at, "u"));
                    RowEvent::Update(row(columns, id, a, text(b)))
                }
            },
            Wish::Delete(id) => {
                self.end(id, (at, "d"))?;
                RowEvent::Delete(key(columns, id))
            }
            Wish::Move(from, to, b) => {
                if self.rows.contains_key(&to) {
                    return None;
                }
                let (a, old) = self.end(from, (at, "u"))?;
                let new = text(b).map_or(old, str::to_owned);
                self.begin(to, (a, new), (at, "u"));
                let (from, to) = (key(columns, from), row(columns, to, a, text(b)));
                RowEvent::Move { from, to }
            }
            Wish::Truncate => {
                let ids: Vec<_> = self.rows.keys().copied().collect();
                for id in ids {
                    self.end(id, (at, "t"));
                }
                RowEvent::Truncate
            }
            Wish::Apply(_) => return None,
        })
    }
}

async fn check(wishes: Vec<Wish>) {
    let mut rig = Rig::new().await;
    let columns = rig.columns.clone();
    let texts: Vec<_> = (0..=255).map(|it| format!("b{it}")).collect();
    let (mut model, mut group, mut at) = (Model::default(), Vec::new(), 0);
    for wish in wishes.into_iter().chain([Wish::Apply(false)]) {
        if let Some(event) = model.event(&columns, wish, &texts, at + 1) {
            at += 1;
            group.push(event);
        }
        if let Wish::Apply(is_restart) = wish {
            let applied = rig.apply(std::mem::take(&mut group)).await;
            assert_eq!(applied.repaired, 0);
            assert_eq!(rig.versions().await, model.versions);
            if is_restart {
                rig.restart(true).await;
            }
        }
    }
}

#[test]
fn the_versions_are_those_of_the_events_however_they_are_grouped() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let wishes = proptest::collection::vec(wish(), 1..40);
    let tested = TestRunner::new(config).run(&wishes, |wishes| {
        runtime.block_on(check(wishes));
        Ok(())
    });
    tested.unwrap();
}
