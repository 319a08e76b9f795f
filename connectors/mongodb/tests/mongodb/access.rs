//! What the views of roles show, and the roles themselves, on a real MongoDB.

use std::collections::BTreeMap;

use bson::{Bson, Decimal128, Document, doc};
use futures_util::TryStreamExt;
use walferry_mongodb::{
    Condition, Fields, Found, Gatekeeper, Grants, Join, Mask, Masked, Parent, Query, Rows, Shown,
    ShownId, Step,
};

use crate::support::{Fixture, Tested};

const OWNER: &str = "slot";
const VIEW: &str = "clerk.sales";

/// A database, and somebody who makes views of it.
struct Office {
    fixture: Fixture,
    keeper: Gatekeeper,
}

// === impl Office ===

impl Office {
    async fn new() -> Self {
        let fixture = Fixture::new().await;
        let keeper = Gatekeeper::connect(fixture.settings.clone(), OWNER).await;
        Self {
            keeper: keeper.unwrap(),
            fixture,
        }
    }

    async fn insert(&self, collection: &str, documents: impl IntoIterator<Item = Document>) {
        let collection = self.fixture.database.collection::<Document>(collection);
        collection.insert_many(documents).await.unwrap();
    }

    /// What a view of these would show.
    async fn shown(&self, rows: Rows, fields: Fields) -> Vec<Document> {
        self.view(rows, fields).await;
        self.fixture.documents(VIEW).await
    }

    async fn view(&self, rows: Rows, fields: Fields) {
        let collection = "sales".to_owned();
        let shown = Shown {
            collection,
            rows,
            fields,
        };
        self.make(&grants([(VIEW, shown.query())])).await;
    }

    /// Makes it so; the steps that it took.
    async fn make(&self, wanted: &Grants) -> Vec<Step> {
        let found = self.keeper.look(wanted).await.unwrap();
        let steps = self.keeper.steps(wanted, &found).unwrap();
        for step in &steps {
            self.keeper.take(step).await.unwrap();
        }
        steps
    }

    /// What a reader of the view gets for a pipeline: the documents, or the server's error.
    async fn asked(&self, pipeline: Vec<Document>) -> Result<Vec<Document>, String> {
        let view = self.fixture.database.collection::<Document>(VIEW);
        let found = view
            .aggregate(pipeline)
            .await
            .map_err(|it| it.to_string())?;
        found.try_collect().await.map_err(|it| it.to_string())
    }

    /// The privileges of a role, as the server tells them.
    async fn privileges(&self, role: &str) -> Option<Vec<Document>> {
        let asked = doc! { "rolesInfo": role, "showPrivileges": true };
        let answer = self.fixture.database.run_command(asked).await.unwrap();
        let told = answer.get_array("roles").unwrap().first()?;
        let privileges = told.as_document()?.get_array("privileges").unwrap();
        Some(
            privileges
                .iter()
                .map(|it| it.as_document().unwrap().clone())
                .collect(),
        )
    }
}

fn grants<const N: usize>(views: [(&str, Query); N]) -> Grants {
    let names = views.iter().map(|(view, _)| (*view).to_owned());
    Grants {
        roles: [("clerk".to_owned(), names.collect())].into(),
        views: views.map(|(view, query)| (view.to_owned(), query)).into(),
    }
}

fn condition(field: &str, values: &[Bson]) -> Condition {
    let (field, values) = (field.to_owned(), values.to_vec());
    Condition { field, values }
}

fn of_store(store: i32) -> Rows {
    Rows {
        conditions: vec![condition("store", &[store.into()])],
        parent: None,
    }
}

/// Sales whose receipt, found by these, is of the store 1.
fn by_receipt(joins: Vec<Join>) -> Rows {
    let parent = Parent {
        collection: "receipts".into(),
        joins,
        rows: of_store(1),
    };
    Rows {
        conditions: Vec::new(),
        parent: Some(parent.into()),
    }
}

fn field(own: &str, parents: &str) -> Join {
    Join::Field {
        own: own.into(),
        parents: parents.into(),
    }
}

/// All of the sales of a store.
fn of_sales(store: i32) -> Query {
    let shown = Shown {
        collection: "sales".into(),
        rows: of_store(store),
        fields: Fields::All,
    };
    shown.query()
}

fn ids(documents: &[Document]) -> Vec<i32> {
    let id = |it: &Document| it.get_i32("_id").unwrap();
    documents.iter().map(id).collect()
}

fn money(text: &str) -> Decimal128 {
    text.parse().unwrap()
}

#[tokio::test]
async fn only_documents_that_have_one_of_the_values_are_shown() -> Tested {
    let office = Office::new().await;
    let sales = [
        doc! { "_id": 1, "store": 1_i64 },
        doc! { "_id": 2, "store": 2 },
        doc! { "_id": 3, "store": Bson::Null },
        doc! { "_id": 4 },
        doc! { "_id": 5, "store": [1] },
        doc! { "_id": 6, "store": money("1.00") },
        doc! { "_id": 7, "store": "1" },
        doc! { "_id": 8, "store": 3 },
    ];
    office.insert("sales", sales).await;
    assert_eq!(ids(&office.shown(of_store(1), Fields::All).await), [1, 6]);
    let both = Rows {
        conditions: vec![condition("store", &[1.into(), 3.into()])],
        parent: None,
    };
    assert_eq!(ids(&office.shown(both, Fields::All).await), [1, 6, 8]);
    let misspelt = Rows {
        conditions: vec![condition("stroe", &[1.into()])],
        parent: None,
    };
    assert!(office.shown(misspelt, Fields::All).await.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_document_is_shown_where_its_parent_would_be() -> Tested {
    let office = Office::new().await;
    let receipts = [
        doc! { "_id": 1, "n": 10, "store": 1 },
        doc! { "_id": 2, "n": 20, "store": 2 },
        doc! { "_id": 3, "n": Bson::Null, "store": 1 },
        doc! { "_id": 4, "store": 1 },
    ];
    office.insert("receipts", receipts).await;
    let sales = [
        doc! { "_id": 1, "receipt": 1_i64, "n": 10, "parents": "kept", "row": 7 },
        doc! { "_id": 2, "receipt": 2, "n": 20 },
        doc! { "_id": 3, "receipt": Bson::Null, "n": Bson::Null },
        doc! { "_id": 4 },
        doc! { "_id": 5, "receipt": 9, "n": [10] },
    ];
    office.insert("sales", sales.clone()).await;
    for joins in [
        vec![field("receipt", "_id")],
        vec![field("n", "n")],
        vec![field("receipt", "_id"), field("n", "n")],
    ] {
        let shown = office.shown(by_receipt(joins.clone()), Fields::All).await;
        assert_eq!(shown, sales[..1], "{joins:?}");
    }
    let both = Rows {
        conditions: vec![condition("n", &[20.into()])],
        ..by_receipt(vec![field("receipt", "_id")])
    };
    assert!(office.shown(both, Fields::All).await.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_parent_has_a_key_of_several_parts_and_a_parent_of_its_own() -> Tested {
    let office = Office::new().await;
    let stock = |store: i32, product: i64, line: i32| {
        doc! { "_id": { "s": store, "p": product }, "s": store, "p": product, "line": line }
    };
    office
        .insert("stock", [stock(1, 7, 1), stock(1, 8, 2), stock(2, 7, 1)])
        .await;
    let lines = [doc! { "_id": 1, "store": 1 }, doc! { "_id": 2, "store": 2 }];
    office.insert("lines", lines).await;
    let sale = |id: i32, store: i32, product: i32| doc! { "_id": id, "a": product, "b": store };
    office
        .insert(
            "sales",
            [sale(1, 1, 7), sale(2, 1, 8), sale(3, 2, 7), sale(4, 7, 1)],
        )
        .await;
    let line = Parent {
        collection: "lines".into(),
        joins: vec![field("line", "_id")],
        rows: of_store(1),
    };
    let parts = [("s", "b"), ("p", "a")].map(|(part, own)| (part.into(), own.into()));
    let rows = |conditions| {
        let stock = Parent {
            collection: "stock".into(),
            joins: vec![Join::Id(parts.clone().into())],
            rows: Rows {
                conditions,
                parent: Some(line.clone().into()),
            },
        };
        Rows {
            conditions: Vec::new(),
            parent: Some(stock.into()),
        }
    };
    assert_eq!(
        ids(&office.shown(rows(Vec::new()), Fields::All).await),
        [1, 3]
    );
    let of_two = vec![condition("s", &[2.into()])];
    assert_eq!(ids(&office.shown(rows(of_two), Fields::All).await), [3]);
    Ok(())
}

#[tokio::test]
async fn masks_stand_in_the_place_of_values_of_every_type() -> Tested {
    let office = Office::new().await;
    let sale = |id: i32, value: Bson| doc! { "_id": id, "v": value };
    let uuid = bson::Uuid::from_bytes([7; 16]);
    let values: [Bson; 9] = [
        "jane@example.com".into(),
        "\"a@b\"@example.com".into(),
        "näher".into(),
        "".into(),
        Bson::Null,
        money("2.30").into(),
        money("2.90").into(),
        uuid.into(),
        vec![1, 2].into(),
    ];
    let sales = (1..).zip(values).map(|(id, value)| sale(id, value));
    office
        .insert("sales", sales.chain([doc! { "_id": 10 }]))
        .await;
    let masked = async |mask| {
        let masked = Masked {
            path: "v".into(),
            field: "v".into(),
            mask,
        };
        let fields = Fields::Listed {
            id: ShownId::Stored,
            fields: vec!["v".into()],
            masked: vec![masked],
        };
        let shown = office.shown(Rows::default(), fields).await;
        let shown = shown.into_iter().map(|mut it| it.remove("v").unwrap());
        shown.collect::<Vec<Bson>>()
    };
    let null = || Bson::Null;
    let hidden = || Bson::from("***");
    assert_eq!(masked(Mask::Redact).await, vec![hidden(); 10]);
    assert_eq!(masked(Mask::Null).await, vec![null(); 10]);
    let first: [Bson; 10] = [
        "j***".into(),
        "\"***".into(),
        "n***".into(),
        hidden(),
        null(),
        hidden(),
        hidden(),
        hidden(),
        hidden(),
        null(),
    ];
    assert_eq!(masked(Mask::First).await, first);
    let mut email = first;
    email[0] = "j***@example.com".into();
    email[1] = "\"***@example.com".into();
    email[2] = hidden();
    assert_eq!(masked(Mask::Email).await, email);
    let hashes = masked(Mask::Hash).await;
    assert_eq!((&hashes[4], &hashes[9]), (&null(), &null()));
    let texts: BTreeMap<_, _> = hashes
        .iter()
        .filter_map(|it| Some((it.as_str()?, 1)))
        .collect();
    assert_eq!(texts.len(), 8, "{hashes:?}");
    assert_eq!(masked(Mask::Hash).await, hashes);
    Ok(())
}

/// Neither in `_id`, nor by a question that the server could ask of the documents themselves.
#[tokio::test]
async fn what_is_masked_or_not_listed_cannot_be_asked_for() -> Tested {
    let office = Office::new().await;
    // Its key has got another column since the view was made.
    let id = doc! { "email": "jane@example.com", "n": 1, "mail": "jane@example.com" };
    let sale =
        doc! { "_id": id, "email": "jane@example.com", "n": 1, "salary": 5_000, "name": "Jane" };
    office.insert("sales", [sale]).await;
    let masked = |path: &str| Masked {
        path: path.into(),
        field: "email".into(),
        mask: Mask::Email,
    };
    let fields = Fields::Listed {
        id: ShownId::Of(vec!["email".into(), "n".into()]),
        fields: vec!["email".into(), "n".into(), "name".into()],
        masked: vec![masked("email"), masked("_id.email")],
    };
    let shown = office.shown(Rows::default(), fields).await;
    let hidden = "j***@example.com";
    let expected = doc! {
        "_id": { "email": hidden, "n": 1 }, "email": hidden, "n": 1, "name": "Jane",
    };
    assert_eq!(shown, [expected]);
    for guess in [
        doc! { "email": "jane@example.com" },
        doc! { "_id.email": "jane@example.com" },
        doc! { "_id": { "email": "jane@example.com", "n": 1 } },
        doc! { "_id.mail": "jane@example.com" },
        doc! { "salary": 5_000 },
        doc! { "salary": { "$exists": true } },
        doc! { "$expr": { "$gt": ["$salary", 1] } },
        doc! { "email": { "$regex": "^jane" } },
    ] {
        let found = office.asked(vec![doc! { "$match": &guess }]).await?;
        assert!(found.is_empty(), "{guess} finds {found:?}");
    }
    let found = office.asked(vec![doc! { "$match": { "email": hidden, "name": "Jane" } }]);
    assert_eq!(found.await?.len(), 1);
    let sorted = vec![
        doc! { "$sort": { "salary": 1 } },
        doc! { "$project": { "s": "$$ROOT.salary" } },
    ];
    assert_eq!(office.asked(sorted).await?[0].get("s"), None);
    Ok(())
}

/// An expression that fails tells what it failed on.
#[tokio::test]
async fn what_a_reader_asks_is_not_asked_of_documents_that_are_not_shown() -> Tested {
    let office = Office::new().await;
    let receipts = [doc! { "_id": 1, "store": 1 }, doc! { "_id": 2, "store": 2 }];
    office.insert("receipts", receipts).await;
    let sales = [
        doc! { "_id": 1, "store": 1, "receipt": 1, "note": "5" },
        doc! { "_id": 2, "store": 2, "receipt": 2, "note": "a secret" },
    ];
    office.insert("sales", sales).await;
    let fails = doc! { "$gt": [{ "$toInt": "$note" }, 0] };
    let asked = doc! { "$expr": &fails };
    let either = doc! { "$or": [&asked, { "$expr": { "$lt": [{ "$toInt": "$note" }, 0] } }] };
    for rows in [of_store(1), by_receipt(vec![field("receipt", "_id")])] {
        office.view(rows, Fields::All).await;
        for question in [&asked, &either] {
            let only = vec![doc! { "$match": question }];
            assert_eq!(ids(&office.asked(only).await?), [1], "{question}");
            let grouped = vec![
                doc! { "$match": question },
                doc! { "$sort": { "_id": 1 } },
                doc! { "$skip": 0 },
                doc! { "$limit": 5 },
            ];
            assert_eq!(ids(&office.asked(grouped).await?), [1]);
        }
        let skipped = office.asked(vec![doc! { "$skip": 1 }]).await?;
        assert!(skipped.is_empty());
    }
    let whole = office.fixture.database.collection::<Document>("sales");
    let refused = whole.find(asked).await.unwrap_err().to_string();
    assert!(refused.contains("a secret"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn making_what_is_there_takes_no_step_and_what_somebody_changed_is_put_right() -> Tested {
    let office = Office::new().await;
    let database = &office.fixture.database;
    office
        .insert("sales", [doc! { "_id": 1, "store": 1 }])
        .await;
    let wanted = grants([(VIEW, of_sales(1)), ("clerk.more", of_sales(2))]);
    assert_eq!(office.make(&wanted).await.len(), 3);
    assert_eq!(office.make(&wanted).await, []);
    let told = office.privileges("clerk").await.unwrap();

    let whole = doc! { "resource": { "db": database.name(), "collection": "" }, "actions": ["find", "insert"] };
    let give = doc! { "grantPrivilegesToRole": "clerk", "privileges": [whole] };
    database.run_command(give).await?;
    let give = doc! { "grantRolesToRole": "clerk", "roles": ["readWrite"] };
    database.run_command(give).await?;
    let show = doc! { "collMod": VIEW, "viewOn": "sales", "pipeline": [] };
    database.run_command(show).await?;
    assert_eq!(office.make(&wanted).await.len(), 2);
    assert_eq!(office.make(&wanted).await, []);
    assert_eq!(office.privileges("clerk").await.unwrap(), told);
    assert_eq!(ids(&office.fixture.documents(VIEW).await), [1]);

    let fewer = grants([(VIEW, of_sales(1))]);
    assert_eq!(office.make(&fewer).await.len(), 2);
    assert_eq!(office.privileges("clerk").await.unwrap().len(), 1);
    assert_eq!(office.make(&Grants::default()).await.len(), 2);
    assert_eq!(office.privileges("clerk").await, None);
    let left = database.list_collection_names().await?;
    assert!(!left.contains(&VIEW.to_owned()), "{left:?}");
    assert_eq!(office.make(&Grants::default()).await, []);
    Ok(())
}

#[tokio::test]
async fn what_was_not_made_here_is_neither_changed_nor_dropped() -> Tested {
    let office = Office::new().await;
    let database = &office.fixture.database;
    let query = Query {
        collection: "sales".into(),
        pipeline: Vec::new(),
    };
    let wanted = grants([(VIEW, query)]);
    let look =
        async || -> Result<Found, walferry_mongodb::Error> { office.keeper.look(&wanted).await };
    office.insert(VIEW, [doc! { "_id": 1 }]).await;
    let refused = office.keeper.steps(&wanted, &look().await?);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("the view clerk.sales"), "{refused}");

    database.collection::<Document>(VIEW).drop().await?;
    let found = look().await?;
    let steps = office.keeper.steps(&wanted, &found)?;
    office.insert(VIEW, [doc! { "_id": 1 }]).await;
    let refused = office.keeper.take(&steps[0]).await.unwrap_err().to_string();
    assert!(refused.contains("the name is taken"), "{refused}");
    let none: [Document; 0] = [];
    let role = doc! { "createRole": "clerk", "privileges": none.to_vec(), "roles": none.to_vec() };
    database.run_command(role).await?;
    let refused = office.keeper.take(&steps[1]).await.unwrap_err().to_string();
    assert!(refused.contains("the role clerk"), "{refused}");

    assert_eq!(office.make(&Grants::default()).await, []);
    assert_eq!(office.privileges("clerk").await, Some(Vec::new()));
    assert_eq!(office.fixture.documents(VIEW).await.len(), 1);
    database.run_command(doc! { "dropRole": "clerk" }).await?;
    database.collection::<Document>(VIEW).drop().await?;
    office.make(&wanted).await;
    let other = Gatekeeper::connect(office.fixture.settings.clone(), "other").await?;
    let refused = other
        .steps(&wanted, &look().await?)
        .unwrap_err()
        .to_string();
    assert!(refused.contains("the slot slot"), "{refused}");
    assert_eq!(other.steps(&Grants::default(), &look().await?)?, []);
    Ok(())
}

/// A process that ends between two steps, or within one.
#[tokio::test]
async fn a_run_that_ended_anywhere_is_gone_on_with() -> Tested {
    let office = Office::new().await;
    let before = grants([(VIEW, of_sales(1)), ("clerk.old", of_sales(2))]);
    let after = grants([(VIEW, of_sales(3)), ("clerk.new", of_sales(4))]);
    office.make(&before).await;
    let found = office.keeper.look(&after).await?;
    let steps = office.keeper.steps(&after, &found)?.len();
    assert_eq!(steps, 5);
    for ended in 0..=steps {
        let found = office.keeper.look(&after).await?;
        let begun = office.keeper.steps(&after, &found)?;
        for step in begun.iter().take(ended) {
            office.keeper.take(step).await?;
            // Another run may be as far.
            office.keeper.take(step).await.ok();
        }
        office.make(&after).await;
        let found = office.keeper.look(&after).await?;
        assert_eq!(office.keeper.steps(&after, &found)?, []);
        office.make(&before).await;
        let found = office.keeper.look(&before).await?;
        assert_eq!(office.keeper.steps(&before, &found)?, []);
    }
    office.make(&Grants::default()).await;
    let names = office.fixture.database.list_collection_names().await?;
    let views = names.iter().filter(|it| it.starts_with("clerk."));
    assert_eq!(views.count(), 0, "{names:?}");
    Ok(())
}
