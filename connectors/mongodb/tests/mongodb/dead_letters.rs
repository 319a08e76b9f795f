//! Changes that MongoDB cannot take: what becomes of them and of those behind them.

use std::sync::Arc;

use bson::{Document, doc};
use walferry_core::{
    Applied, Batch, Class, LetterAction, LetterChoice, Order, PipelineState, RowEvent, Sink, Target,
};
use walferry_mongodb::{DeadLetter, Lacking, MongoSink, OrderBook};
use walferry_schema::{Column, Field, Image, Oversize, Row, Value};

use crate::support::{Fixture, Tested, checkpoint, column, columns, document, key, row};

/// A test's pipeline, and how far its source has come.
pub(crate) struct Rig {
    pub(crate) fixture: Fixture,
    sink: MongoSink,
    book: OrderBook,
    pub(crate) columns: Arc<[Column]>,
    ordinal: u64,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        let mut fixture = Fixture::new().await;
        fixture.settings.parks = true;
        let book = OrderBook::connect(fixture.settings.clone()).await.unwrap();
        Self {
            sink: fixture.claimed().await,
            book,
            fixture,
            columns: columns(),
            ordinal: 0,
        }
    }

    /// Applies events as one group.
    pub(crate) async fn apply(&mut self, events: Vec<RowEvent<'_>>) -> Applied {
        let mut batch = self.sink.batch();
        for event in events {
            self.ordinal += 1;
            let target = Target {
                committed_at: Some(1_700_000_000_000_000),
                ..self.fixture.target(self.ordinal)
            };
            batch.push(&target, event).unwrap();
        }
        self.sink.apply(batch, &checkpoint(1)).await.unwrap()
    }

    /// Applies events as one group; of those that are marked the column `b` stands elsewhere.
    async fn apply_marked(&mut self, events: Vec<(RowEvent<'_>, bool)>) -> Applied {
        let oversize = Oversize {
            columns: vec!["b".into()],
            before: Vec::new(),
            bytes: 2 << 20,
            parts: 7,
            error: "too large".to_owned(),
        };
        let mut batch = self.sink.batch();
        for (event, is_marked) in events {
            self.ordinal += 1;
            let target = Target {
                oversize: is_marked.then_some(&oversize),
                ..self.fixture.target(self.ordinal)
            };
            batch.push(&target, event).unwrap();
        }
        self.sink.apply(batch, &checkpoint(1)).await.unwrap()
    }

    /// Applies one group: a row of which the source keeps `b`, and events behind it.
    async fn apply_kept(&mut self, b: &str, (id, a): (i32, i32), behind: Vec<RowEvent<'_>>) {
        let (key, number) = (id.to_string(), a.to_string());
        let whole = Row::from_texts(&[Some(&key), Some(&number), Some(b)]);
        let whole = whole.with_large(|at| at == 2);
        let oversize = Oversize {
            columns: vec!["b".into()],
            bytes: b.len() as u64,
            error: "too large".to_owned(),
            ..Oversize::default()
        };
        let columns = self.columns.clone();
        let mut batch = self.sink.batch();
        self.ordinal += 1;
        let target = Target {
            oversize: Some(&oversize),
            whole: Some(&whole),
            ..self.fixture.target(self.ordinal)
        };
        batch
            .push(&target, RowEvent::Insert(row(&columns, id, a, None)))
            .unwrap();
        assert!(batch.bytes() >= b.len());
        for event in behind {
            self.ordinal += 1;
            let target = self.fixture.target(self.ordinal);
            batch.push(&target, event).unwrap();
        }
        self.sink.apply(batch, &checkpoint(1)).await.unwrap();
    }

    /// Another process takes over.
    pub(crate) async fn restart(&mut self) {
        self.sink = self.fixture.claimed().await;
    }

    /// Has all dead letters retried or discarded.
    pub(crate) async fn order(&mut self, action: LetterAction) {
        let order = Order {
            by: "ann@db1".into(),
            at: 1_700_000_000_123,
            reason: Some("a test".into()),
        };
        self.book
            .ask_for(action, LetterChoice::All, &order)
            .await
            .unwrap();
        let mut batch = self.sink.batch();
        for order in self.book.orders().await.unwrap().letters {
            batch.carry_out(order);
        }
        self.sink.apply(batch, &checkpoint(1)).await.unwrap();
        assert_eq!(self.book.orders().await.unwrap().letters, []);
    }

    pub(crate) async fn letters(&self) -> Vec<DeadLetter> {
        self.book.dead_letters(false).await.unwrap()
    }

    pub(crate) async fn documents(&self) -> Vec<Document> {
        self.fixture.documents("t").await
    }

    async fn parts(&self) -> u64 {
        let own = self.fixture.database.client().database("_walferry");
        let of = doc! { "_id.pipeline": &self.fixture.settings.pipeline };
        let parts = own.collection::<Document>("dead_letter_parts");
        parts.count_documents(of).await.unwrap()
    }
}

pub(crate) fn too_large() -> String {
    "x".repeat(17 << 20)
}

/// Fits in a document, and not beside another of its kind.
fn half() -> String {
    "x".repeat(9 << 20)
}

fn two_texts() -> Arc<[Column]> {
    vec![
        column("id", "int4", 1),
        column("b", "text", 0),
        column("c", "text", 0),
    ]
    .into()
}

fn texts<'a>(columns: &'a [Column], id: i32, b: Option<&'a str>, c: Option<&'a str>) -> Image<'a> {
    let text =
        |it: Option<&'a str>| it.map_or(Field::Absent, |it| Field::Present(Value::Text(it.into())));
    let fields = vec![Field::Present(Value::Int4(id)), text(b), text(c)];
    Image { columns, fields }
}

#[tokio::test]
async fn a_document_above_16_mib_is_parked_and_the_rows_around_it_are_written() -> Tested {
    let mut rig = Rig::new().await;
    let (columns, large) = (rig.columns.clone(), too_large());
    let applied = rig
        .apply(vec![
            RowEvent::Insert(row(&columns, 1, 1, Some("a"))),
            RowEvent::Insert(row(&columns, 2, 2, Some(&large))),
            RowEvent::Insert(row(&columns, 3, 3, Some("c"))),
        ])
        .await;
    assert_eq!((applied.parked, applied.dropped), (1, 0));
    assert_eq!(
        rig.documents().await,
        [document(1, 1, "a"), document(3, 3, "c")]
    );
    let letters = rig.letters().await;
    let [letter] = &letters[..] else {
        panic!("{letters:?}");
    };
    assert_eq!((&*letter.id, &*letter.table), ("7/0/100/2", "public.t"));
    assert_eq!((&*letter.key, &*letter.operation), ("2", "put"));
    assert!(
        letter.error.contains("MongoDB takes 16777216"),
        "{letter:?}"
    );
    assert_eq!(letter.committed_at, Some(1_700_000_000_000));
    assert!(letter.bytes > 17 << 20);
    assert_eq!(rig.parts().await, 3);
    let content = rig.book.dead_letter_content(&letter.id).await?;
    let content = serde_json::to_string(&content.unwrap())?;
    assert!(content.contains(&large) && content.contains("\"a\":2"));
    Ok(())
}

#[tokio::test]
async fn a_later_change_of_a_parked_row_is_never_applied_past_it_over_restarts_too() -> Tested {
    let mut rig = Rig::new().await;
    let (columns, large) = (rig.columns.clone(), too_large());
    rig.apply(vec![RowEvent::Insert(row(&columns, 2, 1, Some("a")))])
        .await;
    rig.apply(vec![RowEvent::Update(row(&columns, 2, 2, Some(&large)))])
        .await;
    rig.apply(vec![RowEvent::Update(row(&columns, 2, 3, Some("b")))])
        .await;
    rig.restart().await;
    let parked = rig
        .apply(vec![
            RowEvent::Update(row(&columns, 2, 4, None)),
            RowEvent::Insert(row(&columns, 3, 3, Some("c"))),
        ])
        .await;
    assert_eq!(parked.parked, 1);
    assert_eq!(
        rig.documents().await,
        [document(2, 1, "a"), document(3, 3, "c")]
    );
    let operations: Vec<_> = rig
        .letters()
        .await
        .into_iter()
        .map(|it| it.operation)
        .collect();
    assert_eq!(operations, ["put", "put", "set"]);
    rig.order(LetterAction::Retry).await;
    assert_eq!(
        rig.documents().await,
        [document(2, 4, "b"), document(3, 3, "c")]
    );
    assert_eq!(rig.letters().await, []);
    assert_eq!(rig.parts().await, 0);
    let settled = rig.book.dead_letters(true).await?;
    assert!(
        settled.iter().all(|it| it.state == "retried"),
        "{settled:?}"
    );
    assert_eq!(
        settled[0].settled.as_ref().map(|it| &*it.by),
        Some("ann@db1")
    );
    // It is an ordinary row again.
    let applied = rig
        .apply(vec![RowEvent::Update(row(&columns, 2, 5, None))])
        .await;
    assert_eq!(applied, Applied::default());
    assert_eq!(rig.documents().await[0], document(2, 5, "b"));
    Ok(())
}

#[tokio::test]
async fn what_still_cannot_be_written_stays_and_says_why() -> Tested {
    let mut rig = Rig::new().await;
    let (columns, large) = (rig.columns.clone(), too_large());
    rig.apply(vec![RowEvent::Insert(row(&columns, 2, 2, Some(&large)))])
        .await;
    rig.order(LetterAction::Retry).await;
    let letters = rig.letters().await;
    let why = letters[0].retry_error.as_deref().unwrap_or_default();
    assert!(why.contains("MongoDB takes 16777216"), "{letters:?}");
    assert_eq!(rig.documents().await, []);
    // What comes later is still parked.
    let applied = rig.apply(vec![RowEvent::Delete(key(&columns, 2))]).await;
    assert_eq!(applied.parked, 1);
    rig.order(LetterAction::Retry).await;
    assert_eq!(
        (rig.letters().await, rig.documents().await),
        (vec![], vec![])
    );
    Ok(())
}

#[tokio::test]
async fn a_set_that_lets_a_document_grow_too_large_is_found_among_many_others() -> Tested {
    let mut rig = Rig::new().await;
    let (columns, half) = (two_texts(), half());
    let small = |id| RowEvent::Insert(texts(&columns, id, Some("b"), Some("c")));
    let mut inserts: Vec<_> = (1..=20).map(small).collect();
    inserts.push(RowEvent::Insert(texts(&columns, 21, Some(&half), Some(""))));
    rig.apply(inserts).await;
    let mut updates: Vec<_> = (1..=20)
        .map(|id| RowEvent::Update(texts(&columns, id, None, Some("d"))))
        .collect();
    updates.push(RowEvent::Update(texts(&columns, 21, None, Some(&half))));
    let applied = rig.apply(updates).await;
    assert_eq!((applied.parked, applied.repaired), (1, 0));
    let found = rig.documents().await;
    assert_eq!(found[0].get_str("c")?, "d");
    assert_eq!(found[19].get_str("c")?, "d");
    assert_eq!(found[20].get_str("c")?, "");
    let letters = rig.letters().await;
    assert_eq!(
        (letters[0].key.as_str(), letters[0].operation.as_str()),
        ("21", "set")
    );
    rig.apply(vec![RowEvent::Update(texts(&columns, 21, Some("e"), None))])
        .await;
    rig.order(LetterAction::Retry).await;
    let found = rig.documents().await.pop().unwrap();
    assert_eq!(
        (found.get_str("b")?, found.get_str("c")?.len()),
        ("e", half.len())
    );
    Ok(())
}

#[tokio::test]
async fn what_is_refused_without_saying_which_is_found_by_halves() -> Tested {
    let mut rig = Rig::new().await;
    let columns = rig.columns.clone();
    let all = |a, b| (1..=300).map(move |id| (id, a, b));
    let inserts = all(1, Some("a")).map(|(id, a, b)| RowEvent::Insert(row(&columns, id, a, b)));
    rig.apply(inserts.collect()).await;
    // So many halves are 300, 150, 75, 38, 19, 10, 5, 3, 2 and 1: each is refused as a whole.
    let namespace = format!("{}.t", rig.fixture.database.name());
    let failing = doc! { "failCommands": ["update"], "errorCode": 10_334, "namespace": namespace };
    let failing = rig.fixture.fail(10, failing).await;
    let updates = all(2, None).map(|(id, a, b)| RowEvent::Update(row(&columns, id, a, b)));
    let applied = rig.apply(updates.collect()).await;
    drop(failing);
    assert_eq!((applied.parked, applied.repaired), (1, 0));
    assert_eq!(rig.letters().await[0].key, "1");
    let documents = rig.documents().await;
    assert_eq!(documents[0], document(1, 1, "a"));
    assert!(
        documents[1..]
            .iter()
            .all(|it| it.get_i32("a").is_ok_and(|a| a == 2))
    );
    Ok(())
}

#[tokio::test]
async fn a_document_that_a_rule_of_the_collection_refuses_is_parked_until_the_rule_is_gone()
-> Tested {
    let mut rig = Rig::new().await;
    let columns = rig.columns.clone();
    rig.apply(vec![RowEvent::Insert(row(&columns, 1, 1, Some("a")))])
        .await;
    let index = doc! { "key": { "b": 1 }, "name": "b", "unique": true };
    let indexes = doc! { "createIndexes": "t", "indexes": [index] };
    rig.fixture.database.run_command(indexes).await?;
    let applied = rig
        .apply(vec![
            RowEvent::Insert(row(&columns, 2, 2, Some("b"))),
            RowEvent::Insert(row(&columns, 3, 3, Some("a"))),
            RowEvent::Insert(row(&columns, 4, 4, Some("c"))),
        ])
        .await;
    assert_eq!((applied.parked, rig.documents().await.len()), (1, 3));
    rig.order(LetterAction::Retry).await;
    let letters = rig.letters().await;
    let why = letters[0].retry_error.as_deref().unwrap_or_default();
    assert!(
        letters[0].key == "3" && why.contains("duplicate key"),
        "{letters:?}"
    );
    rig.fixture
        .database
        .run_command(doc! { "dropIndexes": "t", "index": "b" })
        .await?;
    rig.order(LetterAction::Retry).await;
    assert_eq!(rig.documents().await[2], document(3, 3, "a"));
    Ok(())
}

#[tokio::test]
async fn a_rule_that_refuses_everything_is_not_about_single_rows() -> Tested {
    let mut rig = Rig::new().await;
    let columns = rig.columns.clone();
    let refusing = doc! { "create": "t", "validator": { "a": { "$lt": 0 } } };
    rig.fixture.database.run_command(refusing).await?;
    let mut batch = rig.sink.batch();
    for id in 0..200 {
        let event = RowEvent::Insert(row(&columns, id, 1, Some("")));
        batch.push(&rig.fixture.target(1), event)?;
    }
    let error = rig.sink.apply(batch, &checkpoint(1)).await.unwrap_err();
    assert_eq!(error.class(), Class::Poison);
    assert!(error.to_string().contains("more than 100 rows"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_row_takes_its_dead_letters_to_its_new_key() -> Tested {
    let mut rig = Rig::new().await;
    let (columns, large) = (rig.columns.clone(), too_large());
    let moved = |a, b| RowEvent::Move {
        from: key(&columns, 2),
        to: row(&columns, 3, a, b),
    };
    rig.apply(vec![RowEvent::Insert(row(&columns, 2, 1, Some("a")))])
        .await;
    rig.apply(vec![RowEvent::Update(row(&columns, 2, 2, Some(&large)))])
        .await;
    // The column that it does not carry stands in a dead letter only.
    rig.apply(vec![moved(3, None)]).await;
    rig.restart().await;
    rig.apply(vec![RowEvent::Update(row(&columns, 3, 4, Some("b")))])
        .await;
    assert_eq!(rig.documents().await, [document(2, 1, "a")]);
    let operations: Vec<_> = rig
        .letters()
        .await
        .into_iter()
        .map(|it| it.operation)
        .collect();
    assert_eq!(operations, ["put", "move", "put"]);
    rig.order(LetterAction::Retry).await;
    assert_eq!(rig.documents().await, [document(3, 4, "b")]);

    // One that carries all of the row.
    rig.apply(vec![RowEvent::Insert(row(&columns, 2, 2, Some(&large)))])
        .await;
    rig.apply(vec![RowEvent::Delete(key(&columns, 3))]).await;
    let applied = rig.apply(vec![moved(5, Some("c"))]).await;
    assert_eq!(applied.parked, 2);
    assert_eq!(rig.documents().await, []);
    rig.order(LetterAction::Retry).await;
    assert_eq!(rig.documents().await, [document(3, 5, "c")]);
    assert_eq!(rig.letters().await, []);
    Ok(())
}

#[tokio::test]
async fn a_row_that_was_given_up_is_written_again_when_a_change_has_all_of_it() -> Tested {
    let mut rig = Rig::new().await;
    let (columns, large) = (rig.columns.clone(), too_large());
    let insert = || RowEvent::Insert(row(&columns, 2, 2, Some(&large)));
    rig.apply(vec![insert()]).await;
    rig.order(LetterAction::Discard).await;
    assert_eq!((rig.letters().await, rig.parts().await), (vec![], 0));
    rig.restart().await;
    let applied = rig
        .apply(vec![RowEvent::Update(row(&columns, 2, 3, None))])
        .await;
    assert_eq!((applied.parked, applied.dropped), (0, 1));
    assert_eq!(rig.documents().await, []);
    rig.apply(vec![RowEvent::Update(row(&columns, 2, 4, Some("b")))])
        .await;
    assert_eq!(rig.documents().await, [document(2, 4, "b")]);
    rig.restart().await;
    let applied = rig
        .apply(vec![RowEvent::Update(row(&columns, 2, 5, None))])
        .await;
    assert_eq!(applied, Applied::default());
    assert_eq!(rig.documents().await, [document(2, 5, "b")]);

    // A delete ends it as well.
    rig.apply(vec![RowEvent::Update(row(&columns, 2, 2, Some(&large)))])
        .await;
    rig.order(LetterAction::Discard).await;
    rig.apply(vec![RowEvent::Delete(key(&columns, 2))]).await;
    assert_eq!(rig.documents().await, []);
    let applied = rig
        .apply(vec![RowEvent::Insert(row(&columns, 2, 6, Some("d")))])
        .await;
    assert_eq!(applied, Applied::default());
    Ok(())
}

#[tokio::test]
async fn many_rows_are_retried_by_few_transactions_and_one_that_is_refused_holds_no_other_back()
-> Tested {
    const ROWS: i32 = 40;
    let mut rig = Rig::new().await;
    let columns = rig.columns.clone();
    let index = doc! { "key": { "b": 1 }, "name": "b", "unique": true };
    let indexes = doc! { "createIndexes": "t", "indexes": [index] };
    rig.apply(vec![RowEvent::Insert(row(&columns, 0, 0, Some("b7")))])
        .await;
    rig.fixture.database.run_command(indexes).await?;
    let grown = (1..=ROWS).map(|id| (RowEvent::Insert(row(&columns, id, 1, None)), true));
    rig.apply_marked(grown.collect()).await;
    let texts: Vec<_> = (1..=ROWS).map(|id| format!("b{id}")).collect();
    let small = (1..).zip(&texts);
    let small = small.map(|(id, b)| RowEvent::Update(row(&columns, id, 2, Some(b))));
    assert_eq!(rig.apply(small.collect()).await.parked, 40);
    let seq = async |rig: &Rig| rig.fixture.position().await.get_i64("seq").unwrap();
    let before = seq(&rig).await;
    rig.order(LetterAction::Retry).await;
    let mut left: Vec<_> = rig.letters().await;
    assert_eq!(rig.documents().await.len(), 40);
    assert!(left.iter().all(|it| it.key == "7"), "{left:?}");
    let why = left.remove(0).retry_error.unwrap_or_default();
    assert!(why.contains("duplicate key"), "{why}");
    let transactions = seq(&rig).await - before;
    assert!(transactions < 10, "{transactions}");
    Ok(())
}

#[tokio::test]
async fn a_row_that_went_behind_its_dead_letter_goes_when_that_is_given_up() -> Tested {
    let mut rig = Rig::new().await;
    let (columns, large) = (rig.columns.clone(), too_large());
    let inserts = [1, 2, 3].map(|id| RowEvent::Insert(row(&columns, id, 1, Some("a"))));
    rig.apply(inserts.into()).await;
    let grown = [1, 2, 3].map(|id| RowEvent::Update(row(&columns, id, 2, Some(&large))));
    rig.apply(grown.into()).await;
    // One goes, one gets another key and another row gets its own, one stays.
    let moved = RowEvent::Move {
        from: key(&columns, 2),
        to: row(&columns, 4, 3, None),
    };
    rig.apply(vec![RowEvent::Delete(key(&columns, 1)), moved])
        .await;
    let applied = rig
        .apply(vec![RowEvent::Insert(row(&columns, 2, 4, Some("b")))])
        .await;
    assert_eq!((applied.parked, rig.letters().await.len()), (1, 6));
    rig.order(LetterAction::Discard).await;
    assert_eq!(rig.documents().await, [document(3, 1, "a")]);
    assert_eq!((rig.letters().await, rig.parts().await), (vec![], 0));
    let own = rig.fixture.database.client().database("_walferry");
    let of = doc! { "pipeline": &rig.fixture.settings.pipeline, "given_up": true };
    let letters = own.collection::<Document>("dead_letters");
    assert_eq!(letters.count_documents(of).await?, 4, "not those of 1");
    for is_known_anew in [false, true] {
        if is_known_anew {
            rig.restart().await;
        }
        // The row that went lacks nothing when it comes again, what is there does.
        let applied = rig
            .apply(vec![
                RowEvent::Insert(row(&columns, 1, 5, Some("c"))),
                RowEvent::Update(row(&columns, 2, 5, None)),
                RowEvent::Update(row(&columns, 3, 5, None)),
                RowEvent::Update(row(&columns, 4, 5, None)),
            ])
            .await;
        assert_eq!((applied.parked, applied.dropped), (0, 3));
        assert_eq!(applied.repaired, 0);
        let expected = [document(1, 5, "c"), document(3, 1, "a")];
        assert_eq!(rig.documents().await, expected);
        rig.apply(vec![RowEvent::Delete(key(&columns, 1))]).await;
    }
    Ok(())
}

#[tokio::test]
async fn an_emptied_table_has_no_dead_letters() -> Tested {
    let mut rig = Rig::new().await;
    let (columns, large) = (rig.columns.clone(), too_large());
    rig.apply(vec![RowEvent::Insert(row(&columns, 2, 2, Some(&large)))])
        .await;
    rig.apply(vec![
        RowEvent::Insert(row(&columns, 3, 2, Some(&large))),
        RowEvent::Truncate,
        RowEvent::Insert(row(&columns, 2, 3, Some("a"))),
        RowEvent::Insert(row(&columns, 4, 3, Some(&large))),
    ])
    .await;
    assert_eq!(rig.documents().await, [document(2, 3, "a")]);
    let letters = rig.book.dead_letters(true).await?;
    let states: Vec<_> = letters.iter().map(|it| (&*it.key, &*it.state)).collect();
    assert_eq!(
        states,
        [("2", "obsolete"), ("3", "obsolete"), ("4", "parked")]
    );
    rig.restart().await;
    let applied = rig
        .apply(vec![RowEvent::Update(row(&columns, 2, 4, None))])
        .await;
    assert_eq!(applied, Applied::default());
    assert_eq!(rig.parts().await, 3, "those of 4");
    Ok(())
}

#[tokio::test]
async fn a_new_copy_of_the_tables_makes_earlier_dead_letters_obsolete() -> Tested {
    let mut rig = Rig::new().await;
    let (columns, large) = (rig.columns.clone(), too_large());
    rig.apply(vec![RowEvent::Insert(row(&columns, 2, 2, Some(&large)))])
        .await;
    let in_state = |state| {
        let mut next = checkpoint(2);
        (next.generation, next.state, next.position) = (8, state, None);
        next.tables = vec![rig.fixture.spec()];
        next
    };
    let snapshot = in_state(PipelineState::Snapshot);
    let batch = rig.sink.batch();
    rig.sink.apply(batch, &snapshot).await?;
    rig.sink.stage(8, &snapshot.tables).await?;
    let mut batch = rig.sink.batch();
    for (id, text) in [(2_i32, "a"), (3, &*large)] {
        let mut target = rig.fixture.target(id.unsigned_abs().into());
        (target.staging, target.position.generation) = (Some(8), 8);
        batch.push(&target, RowEvent::Insert(row(&columns, id, 2, Some(text))))?;
    }
    let applied = rig.sink.apply(batch, &snapshot).await?;
    assert_eq!(applied.parked, 1);
    let batch = rig.sink.batch();
    rig.sink
        .apply(batch, &in_state(PipelineState::Swapping))
        .await?;
    rig.sink.swap(8, &snapshot.tables).await?;
    let letters = rig.book.dead_letters(true).await?;
    let states: Vec<_> = letters.iter().map(|it| (&*it.key, &*it.state)).collect();
    assert_eq!(states, [("2", "obsolete"), ("3", "parked")]);
    assert_eq!(rig.documents().await, [document(2, 2, "a")]);
    Ok(())
}

#[tokio::test]
async fn what_stands_elsewhere_is_referred_to_until_a_later_change_brings_it() -> Tested {
    let mut rig = Rig::new().await;
    let columns = rig.columns.clone();
    let applied = rig
        .apply_marked(vec![
            (RowEvent::Insert(row(&columns, 1, 1, Some("a"))), false),
            (RowEvent::Insert(row(&columns, 2, 1, None)), true),
            (RowEvent::Insert(row(&columns, 3, 1, None)), true),
            // Within one group nothing is left of what could not be carried.
            (RowEvent::Update(row(&columns, 3, 2, Some("c"))), false),
        ])
        .await;
    assert_eq!(applied.parked, 1);
    assert_eq!(
        rig.documents().await,
        [document(1, 1, "a"), document(3, 2, "c")]
    );
    let letters = rig.letters().await;
    assert_eq!(
        letters[0].reference.as_deref(),
        Some("7 parts on the dead-letter topic: too large")
    );
    rig.order(LetterAction::Retry).await;
    let letters = rig.letters().await;
    let why = letters[0].retry_error.as_deref().unwrap_or_default();
    assert!(
        why.contains("7 parts on the dead-letter topic: too large"),
        "{letters:?}"
    );
    rig.apply(vec![RowEvent::Update(row(&columns, 2, 3, Some("b")))])
        .await;
    rig.order(LetterAction::Retry).await;
    assert_eq!(rig.documents().await[1], document(2, 3, "b"));
    Ok(())
}

#[tokio::test]
async fn a_key_change_behind_what_stands_elsewhere_carries_no_older_value_over() -> Tested {
    let mut rig = Rig::new().await;
    let columns = rig.columns.clone();
    let moved = |from, to| RowEvent::Move {
        from: key(&columns, from),
        to: row(&columns, to, 1, None),
    };
    let applied = rig
        .apply_marked(vec![
            (RowEvent::Insert(row(&columns, 1, 1, Some("old"))), false),
            (RowEvent::Update(row(&columns, 1, 1, None)), true),
            (moved(1, 4), false),
        ])
        .await;
    assert_eq!(applied.parked, 2);
    assert_eq!(rig.documents().await, []);
    rig.apply(vec![RowEvent::Update(row(&columns, 4, 2, Some("new")))])
        .await;
    rig.order(LetterAction::Retry).await;
    assert_eq!(rig.documents().await, [document(4, 2, "new")]);
    Ok(())
}

#[tokio::test]
async fn a_row_that_was_given_up_takes_nothing_stale_to_its_new_key() -> Tested {
    let mut rig = Rig::new().await;
    let columns = rig.columns.clone();
    rig.apply(vec![RowEvent::Insert(row(&columns, 1, 1, Some("stale")))])
        .await;
    rig.apply_marked(vec![(RowEvent::Update(row(&columns, 1, 2, None)), true)])
        .await;
    rig.order(LetterAction::Discard).await;
    let moved = RowEvent::Move {
        from: key(&columns, 1),
        to: row(&columns, 4, 2, None),
    };
    let applied = rig.apply_marked(vec![(moved, true)]).await;
    assert_eq!((applied.parked, applied.dropped), (0, 1));
    rig.apply(vec![RowEvent::Update(row(&columns, 4, 3, None))])
        .await;
    assert_eq!(rig.documents().await, []);
    // In one group it comes and goes.
    rig.apply(vec![
        RowEvent::Insert(row(&columns, 4, 4, Some("new"))),
        RowEvent::Delete(key(&columns, 4)),
    ])
    .await;
    rig.apply(vec![RowEvent::Insert(row(&columns, 4, 5, Some("new")))])
        .await;
    assert_eq!(rig.documents().await, [document(4, 5, "new")]);
    Ok(())
}

#[tokio::test]
async fn what_a_row_was_too_large_with_is_kept_and_applied_when_that_is_tried_again() -> Tested {
    let mut rig = Rig::new().await;
    let (columns, half) = (rig.columns.clone(), half());
    // The letter is of the last change of the row, the value of the one before.
    let behind = vec![RowEvent::Update(row(&columns, 2, 3, None))];
    rig.apply_kept(&half, (2, 1), behind).await;
    rig.apply(vec![RowEvent::Update(row(&columns, 2, 4, None))])
        .await;
    assert_eq!(rig.documents().await, []);
    let letters = rig.letters().await;
    assert_eq!(letters[0].missing, ["b"]);
    let reference = letters[0].reference.as_deref().unwrap_or_default();
    assert!(reference.starts_with("_walferry.dead_letter_parts: too large"));
    rig.restart().await;
    assert_eq!(rig.parts().await, 5, "two letters, three of the value");
    rig.order(LetterAction::Retry).await;
    assert_eq!(rig.documents().await, [document(2, 4, &half)]);
    assert_eq!((rig.letters().await, rig.parts().await), (vec![], 0));
    Ok(())
}

#[tokio::test]
async fn what_is_kept_and_too_large_for_a_document_stays_and_is_read_piece_by_piece() -> Tested {
    let mut rig = Rig::new().await;
    let (columns, large) = (rig.columns.clone(), too_large());
    rig.apply_kept(&large, (2, 1), Vec::new()).await;
    rig.order(LetterAction::Retry).await;
    let letters = rig.letters().await;
    let why = letters[0].retry_error.as_deref().unwrap_or_default();
    assert!(why.contains("MongoDB takes 16777216"), "{letters:?}");
    let mut lacks = rig.book.dead_letter_lacks(&letters[0].id).await?;
    let Some(Lacking::Text(text)) = lacks.first_mut() else {
        panic!("{lacks:?}");
    };
    assert_eq!(text.column(), "b");
    let mut read = Vec::new();
    while let Some(piece) = text.next().await? {
        assert!(piece.len() < 8 << 20);
        read.extend(piece);
    }
    assert!(read == large.as_bytes());
    // A later change brings another one, and what is kept is not needed any more.
    rig.apply(vec![RowEvent::Update(row(&columns, 2, 2, Some("b")))])
        .await;
    rig.order(LetterAction::Retry).await;
    assert_eq!(rig.documents().await, [document(2, 2, "b")]);
    assert_eq!(rig.parts().await, 0);
    Ok(())
}

#[tokio::test]
async fn a_column_that_was_dropped_while_its_row_was_parked_does_not_come_back() -> Tested {
    let mut rig = Rig::new().await;
    let (columns, large) = (two_texts(), too_large());
    let insert = texts(&columns, 2, Some("b"), Some(&large));
    rig.apply(vec![RowEvent::Insert(insert)]).await;
    let small = texts(&columns, 2, None, Some("c"));
    rig.apply(vec![RowEvent::Update(small)]).await;
    // Without `b`, of which a row that comes later tells.
    let columns: Arc<[Column]> = vec![columns[0].clone(), columns[2].clone()].into();
    let fields = vec![
        Field::Present(Value::Int4(3)),
        Field::Present(Value::Text("d".into())),
    ];
    let columns = &*columns;
    let insert = RowEvent::Insert(Image { columns, fields });
    rig.apply(vec![insert]).await;
    rig.order(LetterAction::Retry).await;
    let expected = [
        doc! { "_id": 2, "id": 2, "c": "c" },
        doc! { "_id": 3, "id": 3, "c": "d" },
    ];
    assert_eq!(rig.documents().await, expected);
    Ok(())
}

#[tokio::test]
async fn the_indexes_of_dead_letters_are_made_once_in_a_process() -> Tested {
    let mut rig = Rig::new().await;
    let (columns, large) = (rig.columns.clone(), too_large());
    let insert = |id| RowEvent::Insert(row(&columns, id, 2, Some(&large)));
    rig.apply(vec![insert(1)]).await;
    let own = rig.fixture.database.client().database("_walferry");
    let letters = own.collection::<Document>("dead_letters");
    assert!(
        letters
            .list_index_names()
            .await?
            .contains(&"parked".to_owned())
    );
    let mut seen = rig.sink.batch();
    let target = rig.fixture.target(50);
    seen.push(&target, insert(2))?;
    let failing = doc! { "failCommands": ["createIndexes"], "errorCode": 13 };
    let failing = rig.fixture.fail(1, failing).await;
    rig.sink.apply(seen, &checkpoint(1)).await?;
    assert_eq!(rig.letters().await.len(), 2);
    rig.fixture.off(failing).await;
    Ok(())
}

#[tokio::test]
async fn a_part_that_no_letter_refers_to_is_removed_at_the_next_claim() -> Tested {
    let mut rig = Rig::new().await;
    let (columns, large) = (rig.columns.clone(), too_large());
    rig.apply(vec![RowEvent::Insert(row(&columns, 2, 2, Some(&large)))])
        .await;
    let mut other = rig.fixture.sink().await;
    // It takes over while a group is on its way: what that one keeps is nobody's.
    let mut batch = rig.sink.batch();
    let event = RowEvent::Insert(row(&columns, 3, 2, Some(&large)));
    batch.push(&rig.fixture.target(9), event)?;
    other.claim().await?;
    let error = rig.sink.apply(batch, &checkpoint(1)).await.unwrap_err();
    assert_eq!(error.class(), Class::Fenced);
    assert_eq!((rig.letters().await.len(), rig.parts().await), (1, 6));
    rig.restart().await;
    assert_eq!(rig.parts().await, 3);
    Ok(())
}
