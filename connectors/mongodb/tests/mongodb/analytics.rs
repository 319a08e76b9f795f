//! Questions to a real MongoDB, and answers that are kept there.

use std::cell::Cell;

use bson::{Bson, DateTime, Decimal128, Document, doc};
use walferry_mongodb::{Analyst, Answer, Aside, Kept, Query, Row, Standing};

use crate::support::{Fixture, Tested};

const OUTPUT: &str = "alerts";

/// A database with sales, and somebody who asks about them.
struct Office {
    fixture: Fixture,
    analyst: Analyst,
}

// === impl Office ===

impl Office {
    async fn new() -> Self {
        let fixture = Fixture::new().await;
        let analyst = Analyst::connect(fixture.settings.clone()).await.unwrap();
        let office = Self { fixture, analyst };
        let sale = |id: i32, amount: &str| doc! { "_id": id, "amount": money(amount) };
        office
            .insert("sales", [sale(1, "9.50"), sale(2, "20"), sale(3, "30.00")])
            .await;
        office
    }

    async fn insert(&self, collection: &str, documents: impl IntoIterator<Item = Document>) {
        let collection = self.fixture.database.collection::<Document>(collection);
        collection.insert_many(documents).await.unwrap();
    }

    async fn set(&self, id: i32, amount: &str) {
        let sales = self.fixture.database.collection::<Document>("sales");
        let set = doc! { "$set": { "amount": money(amount) } };
        sales.update_one(doc! { "_id": id }, set).await.unwrap();
    }

    async fn keep(&self, query: &Query, rule: Option<&str>) -> walferry_mongodb::Result<Kept> {
        let answer = Answer {
            query,
            output: OUTPUT,
            alerts_of: rule,
            as_of: None,
        };
        self.analyst.keep(answer).await
    }
}

fn money(text: &str) -> Decimal128 {
    text.parse().unwrap()
}

/// Alerts of the sales from an amount on.
fn alerts(rule: &str, least: &str) -> Query {
    let alert = doc! {
        "_id": { "rule": rule, "entity": Bson::Null, "ref": "$_id" },
        "rule": rule,
        "evidence": { "amount": "$amount" },
    };
    Query {
        collection: "sales".into(),
        pipeline: vec![
            doc! { "$match": { "amount": { "$gte": money(least) } } },
            doc! { "$replaceWith": alert },
        ],
    }
}

fn kept(rows: u64, added: u64, changed: u64, removed: u64) -> Kept {
    Kept {
        rows,
        added,
        changed,
        removed,
    }
}

#[tokio::test]
async fn an_answer_that_outlasts_its_moment_says_what_to_do() -> Tested {
    let office = Office::new().await;
    let query = alerts("f", "10");
    for command in ["aggregate", "getMore"] {
        // More than a first batch has.
        let more = (10..300).map(|id| doc! { "_id": id, "amount": money("50") });
        if command == "getMore" {
            office.insert("sales", more).await;
        }
        let data = doc! { "failCommands": [command], "errorCode": 239 };
        let failing = office.fixture.fail(1, data.clone()).await;
        let asked = office.analyst.rows(&query).await.unwrap_err();
        assert!(asked.to_string().contains("minSnapshotHistoryWindow"));
        drop(failing);
        let failing = office.fixture.fail(1, data).await;
        let kept = office.keep(&query, Some("f")).await.unwrap_err();
        assert!(kept.to_string().contains("minSnapshotHistoryWindow"));
        drop(failing);
        office.keep(&query, Some("f")).await?;
    }
    // A named moment may have been gone before, which the server says at once. Where the sink writes tells the newest.
    office.fixture.claimed().await;
    let answer = Answer {
        query: &query,
        output: OUTPUT,
        alerts_of: Some("f"),
        as_of: Some(office.analyst.newest().await?),
    };
    for (milliseconds, is_gone) in [(0, true), (10_000, false)] {
        let failing = doc! {
            "failCommands": ["aggregate"],
            "errorCode": 239,
            "blockConnection": milliseconds > 0,
            "blockTimeMS": milliseconds,
        };
        let failing = office.fixture.fail(1, failing).await;
        let error = office.analyst.keep(answer).await.unwrap_err();
        assert_eq!(error.is_moment_gone(), is_gone, "{error}");
        drop(failing);
    }
    Ok(())
}

#[tokio::test]
async fn keeping_alerts_again_changes_nothing_and_keeps_when_they_were_found() -> Tested {
    let office = Office::new().await;
    let query = alerts("f", "10");
    let before = DateTime::now();
    assert_eq!(office.keep(&query, Some("f")).await?, kept(2, 2, 0, 0));
    let first = office.fixture.documents(OUTPUT).await;
    assert!(
        first
            .iter()
            .all(|it| *it.get_datetime("detected_at").unwrap() >= before)
    );
    let evidence = first[0].get_document("evidence")?;
    assert_eq!(evidence.get("amount"), Some(&money("20").into()));

    assert_eq!(office.keep(&query, Some("f")).await?, kept(2, 0, 0, 0));
    assert_eq!(office.fixture.documents(OUTPUT).await, first);

    office.set(2, "25").await;
    assert_eq!(office.keep(&query, Some("f")).await?, kept(2, 0, 1, 0));
    let changed = office.fixture.documents(OUTPUT).await;
    assert_eq!(changed[0].get("detected_at"), first[0].get("detected_at"));
    assert_ne!(changed[0], first[0]);
    assert_eq!(changed[1], first[1]);
    Ok(())
}

#[tokio::test]
async fn what_no_longer_holds_goes_and_alerts_of_other_rules_stay() -> Tested {
    let office = Office::new().await;
    office.keep(&alerts("f", "10"), Some("f")).await?;
    assert_eq!(
        office.keep(&alerts("g", "0"), Some("g")).await?,
        kept(3, 3, 0, 0)
    );
    office.set(3, "1").await;
    assert_eq!(
        office.keep(&alerts("f", "10"), Some("f")).await?,
        kept(1, 0, 0, 1)
    );
    assert_eq!(office.fixture.documents(OUTPUT).await.len(), 4);
    assert_eq!(
        office.keep(&alerts("f", "100"), Some("f")).await?,
        kept(0, 0, 0, 1)
    );
    let forgotten = office.analyst.forget_others(OUTPUT, &["f"]).await?;
    assert_eq!(forgotten, [("g".to_owned(), 3)]);
    assert!(office.fixture.documents(OUTPUT).await.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_report_is_all_that_its_collection_holds() -> Tested {
    let office = Office::new().await;
    let query = Query {
        collection: "sales".into(),
        pipeline: vec![doc! { "$match": { "amount": { "$gte": 10 } } }],
    };
    assert_eq!(office.keep(&query, None).await?, kept(2, 2, 0, 0));
    let first = office.fixture.documents(OUTPUT).await;
    assert_eq!(office.keep(&query, None).await?, kept(2, 0, 0, 0));
    assert_eq!(office.fixture.documents(OUTPUT).await, first);
    office.set(1, "11.00").await;
    office.set(2, "1").await;
    office.set(3, "31").await;
    assert_eq!(office.keep(&query, None).await?, kept(2, 1, 1, 1));
    let expected = [
        doc! { "_id": 1, "amount": money("11.00") },
        doc! { "_id": 3, "amount": money("31") },
    ];
    assert_eq!(office.fixture.documents(OUTPUT).await, expected);
    Ok(())
}

#[tokio::test]
async fn readers_never_see_fewer_alerts_than_hold_while_an_answer_is_kept() -> Tested {
    let office = Office::new().await;
    let many = (10..3_010).map(|id| doc! { "_id": id, "amount": money("50") });
    office.insert("sales", many).await;
    let query = alerts("f", "50");
    office.keep(&query, Some("f")).await?;
    let alerts = office.fixture.database.collection::<Document>(OUTPUT);
    let is_kept = Cell::new(false);
    let keeping = async {
        let kept = office.keep(&query, Some("f")).await;
        is_kept.set(true);
        kept
    };
    let reading = async {
        let mut least = u64::MAX;
        while !is_kept.get() {
            least = least.min(alerts.count_documents(doc! {}).await.unwrap());
        }
        least
    };
    let (kept_again, least) = tokio::join!(keeping, reading);
    assert_eq!((kept_again?, least), (kept(3_000, 0, 0, 0), 3_000));
    Ok(())
}

#[tokio::test]
async fn a_collection_that_holds_other_documents_is_not_written() -> Tested {
    let office = Office::new().await;
    office.insert(OUTPUT, [doc! { "_id": 1 }]).await;
    let refused = office
        .keep(&alerts("f", "10"), Some("f"))
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("not made for the answers"),
        "{refused}"
    );
    assert_eq!(office.fixture.documents(OUTPUT).await, [doc! { "_id": 1 }]);
    Ok(())
}

/// A table that has no rows, or that was just truncated.
#[tokio::test]
async fn an_empty_collection_of_another_is_not_taken_either() -> Tested {
    let office = Office::new().await;
    office.insert(OUTPUT, [doc! { "_id": 1 }]).await;
    let output = office.fixture.database.collection::<Document>(OUTPUT);
    output.delete_many(doc! {}).await?;
    assert!(!office.analyst.may_keep(OUTPUT).await?);
    let refused = office.keep(&alerts("f", "10"), Some("f")).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("not made for the answers"), "{refused}");
    assert!(office.fixture.documents(OUTPUT).await.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_document_that_cannot_be_told_from_others_is_refused_and_nothing_changes() -> Tested {
    let office = Office::new().await;
    office.keep(&alerts("f", "10"), Some("f")).await?;
    let before = office.fixture.documents(OUTPUT).await;
    let without_id = doc! { "$project": { "_id": 0, "rule": "f" } };
    let same_id = doc! { "$replaceWith": { "_id": { "rule": "f" }, "rule": "f" } };
    let others_id = doc! { "$replaceWith": { "_id": "$_id", "rule": "f" } };
    let other_rule = doc! { "$replaceWith": { "_id": "$_id", "rule": "g" } };
    let own_time = doc! { "$replaceWith": { "_id": "$_id", "rule": "f", "detected_at": 1 } };
    for (stage, expected) in [
        (without_id, "must have an _id"),
        (same_id, "the same _id"),
        (other_rule, "must have \"rule\": \"f\""),
        (own_time, "must not have detected_at"),
        (others_id, "must have \"rule\": \"f\" in its _id"),
    ] {
        let query = Query {
            collection: "sales".into(),
            pipeline: vec![stage],
        };
        let refused = office
            .keep(&query, Some("f"))
            .await
            .unwrap_err()
            .to_string();
        assert!(refused.contains(expected), "{refused}");
    }
    assert_eq!(office.fixture.documents(OUTPUT).await, before);
    let names = office.analyst.standing().await?;
    assert!(
        !names.keys().any(|it| it.starts_with("_walferry")),
        "{names:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_view_is_made_once_and_again_when_its_definition_is_another() -> Tested {
    let office = Office::new().await;
    let view = |least: i32| Query {
        collection: "sales".into(),
        pipeline: vec![doc! { "$match": { "amount": { "$gte": least } } }],
    };
    let make = async |least: i32| {
        let standing = office.analyst.standing().await?;
        let query = view(least);
        office
            .analyst
            .make_view("v", &query, standing.get("v"))
            .await
    };
    assert!(make(10).await?);
    assert!(!make(10).await?);
    assert!(make(25).await?);
    let standing = office.analyst.standing().await?;
    assert_eq!(standing.get("v"), Some(&Standing::View(view(25))));
    let whole = Query {
        collection: "v".into(),
        pipeline: Vec::new(),
    };
    assert_eq!(office.analyst.rows(&whole).await?.len(), 1);
    let create = doc! { "create": "theirs", "viewOn": "sales", "pipeline": [] };
    office.fixture.database.run_command(create).await?;
    let theirs = office.analyst.standing().await?;
    let taken = office
        .analyst
        .make_view("theirs", &view(1), theirs.get("theirs"))
        .await;
    let taken = taken.unwrap_err().to_string();
    assert!(taken.contains("a view that no rule made"), "{taken}");
    let sales = standing.get("sales");
    let taken = office
        .analyst
        .make_view("sales", &view(1), sales)
        .await
        .unwrap_err();
    assert!(
        taken.to_string().contains("a collection of that name"),
        "{taken}"
    );
    Ok(())
}

#[tokio::test]
async fn what_stands_aside_goes_and_an_index_is_made_once() -> Tested {
    let office = Office::new().await;
    let whole = Query {
        collection: "sales".into(),
        pipeline: Vec::new(),
    };
    let mut aside = Aside::default();
    let name = aside.view(&office.analyst, "v", &whole).await?;
    let view = Query {
        collection: name.clone(),
        pipeline: Vec::new(),
    };
    assert_eq!(office.analyst.rows(&view).await?.len(), 3);
    office.analyst.sweep().await?;
    assert!(office.analyst.standing().await?.contains_key(&name));
    aside.drop(&office.analyst).await;
    assert!(!office.analyst.standing().await?.contains_key(&name));

    let keys = doc! { "amount": 1, "at": -1 };
    assert!(office.analyst.make_index("sales", &keys).await?);
    assert!(!office.analyst.make_index("sales", &keys).await?);
    let other =
        doc! { "createIndexes": "sales", "indexes": [{ "key": { "x": 1 }, "name": "mine" }] };
    office.fixture.database.run_command(other).await?;
    assert!(!office.analyst.make_index("sales", &doc! { "x": 1 }).await?);
    Ok(())
}

#[tokio::test]
async fn an_answer_is_json_with_its_types() -> Tested {
    let office = Office::new().await;
    let query = Query {
        collection: "sales".into(),
        pipeline: vec![
            doc! { "$match": { "_id": 1 } },
            doc! { "$set": { "at": DateTime::from_millis(0), "n": 5_i64 } },
        ],
    };
    let rows = office.analyst.rows(&query).await?;
    let expected = r#"[{"_id":1,"amount":{"$numberDecimal":"9.50"},"at":{"$date":"1970-01-01T00:00:00Z"},"n":5}]"#;
    assert_eq!(serde_json::to_string(&rows)?, expected);
    Ok(())
}

#[tokio::test]
async fn a_pipeline_that_the_server_does_not_take_is_refused_with_its_reason() -> Tested {
    let office = Office::new().await;
    let query = |stage: Document| Query {
        collection: "sales".into(),
        pipeline: vec![stage],
    };
    let fine = query(doc! { "$match": { "amount": 1 } });
    assert_eq!(office.analyst.explain(&fine).await?, None);
    let wrong = query(doc! { "$set": { "a": { "$nonsense": 1 } } });
    let refused = office.analyst.explain(&wrong).await?.unwrap();
    assert!(refused.message.contains("$nonsense"), "{refused:?}");
    Ok(())
}

/// The second batch is held until all documents are others.
#[tokio::test]
async fn an_answer_is_as_of_one_moment_however_long_it_is_read() -> Tested {
    let office = Office::new().await;
    let many = (0..500).map(|id| doc! { "_id": id, "n": 0 });
    office.insert("many", many).await;
    let query = Query {
        collection: "many".into(),
        pipeline: vec![doc! { "$match": { "n": { "$gte": 0 } } }],
    };
    let held = doc! { "failCommands": ["getMore"], "blockConnection": true, "blockTimeMS": 3_000 };
    let failing = office.fixture.fail(1, held).await;
    let change = async {
        office.fixture.until_met(&failing).await;
        let many = office.fixture.database.collection::<Document>("many");
        let all = doc! { "$set": { "n": 1 } };
        many.update_many(doc! {}, all).await.unwrap().modified_count
    };
    let (rows, changed) = tokio::join!(office.analyst.rows(&query), change);
    let rows = rows?;
    let is_old = |row: &Row| row.cells().contains(&("n".to_owned(), "0".to_owned()));
    assert_eq!((rows.len(), changed), (500, 500));
    assert!(rows.iter().all(is_old), "{:?}", rows.last());
    Ok(())
}
