//! What the roles of docs/access.md see in MongoDB, held against what the same stores' roles see in PostgreSQL.

use std::process::Command;

use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::error::ErrorKind;
use serde_json::Value;
use tempfile::TempDir;
use walferry_harness::{Database, Mongo, MongoOptions, Stack, fresh_directory};

use crate::daemon::Pipeline;
use crate::deployment::{blocks, text};
use crate::grants::{administrator, user_of};
use crate::oracle;
use crate::site::{Said, said};

const TABLES: [&str; 13] = [
    "transactions",
    "transactiondetails",
    "inventory",
    "promotionapplications",
    "demandforecast",
    "stores",
    "categories",
    "suppliers",
    "products",
    "paymentmethods",
    "promotions",
    "weather",
    "customers",
];
const PAGE: &str = "docs/access.md";
const DENIED: i32 = 13;

/// Three sales of store 1 and one of store 2, of which the second is of two products, and the fourth with a promotion as
/// the first.
const SALES: &str = "
    insert into categories (category_name) values ('Electronics');
    insert into suppliers values (1, 3);
    insert into products values (1, 'TV', 1, 1, 100.50, 5, 50), (2, 'Laptop', 1, 1, 900.00, 5, 50);
    insert into stores values (1, 'Miami, FL'), (2, 'Dallas, TX'), (3, 'Nowhere');
    insert into customers values (1, 30, 'Other', 50000, 'Gold'), (2, 40, 'Other', 60000, 'Silver');
    insert into paymentmethods (method_name) values ('Cash');
    insert into promotions (promotion_type) values ('BOGO');
    insert into weather (weather_conditions) values ('Sunny');
    insert into inventory values (1, 1, 50), (1, 2, 50), (2, 1, 50), (3, 2, 7);
    insert into demandforecast values ('2024-01-01', 1, 1, 100, 90), ('2024-01-01', 2, 1, 100, null);
    call insert_transaction('2024-01-01', 1, 1, 1, true, 1, 1, false, '{1}', '{1}');
    call insert_transaction('2024-01-02', 2, 1, 1, false, null, 1, false, '{1,2}', '{1,2}');
    call insert_transaction('2024-01-03', 1, 1, 1, false, null, null, false, '{2}', '{3}');
    call insert_transaction('2024-01-04', 2, 2, 1, true, 1, 1, false, '{1}', '{1}');
    call create_store_roles();";

/// Rows of each of the tenants' tables get another tenant: by a column, by the key, and by their parent.
const MOVES: &str = "
    update transactions set store_id = 2 where transaction_id = 1;
    update inventory set store_id = 2 where store_id = 1 and product_id = 2;
    update demandforecast set store_id = 1, product_id = 2 where store_id = 2;
    update transactiondetails set transaction_id = 4 where transaction_id = 2 and product_id = 2;
    update transactions set store_id = 1 where transaction_id = 4;
    update transactions set store_id = 3 where transaction_id = 3;";

/// A chain of stores, its daemon's MongoDB with users, and a configuration with roles.
struct Chain {
    pipeline: Pipeline,
    mongo: Mongo,
    /// The database `admin`, as its administrator.
    admin: mongodb::Database,
    _root: TempDir,
}

// === impl Chain ===

impl Chain {
    async fn new() -> Self {
        let root = fresh_directory("access").unwrap();
        let options = MongoOptions {
            has_users: true,
            ..MongoOptions::default()
        };
        let mongo = Mongo::start_with(root.path(), options).await.unwrap();
        let admin = administrator(&mongo).await;
        let stack = Stack::shared().await.unwrap();
        let mut database = stack.fresh_database("access").await.unwrap();
        database.mongo_url = url(&mongo, "root", "root");
        let postgres = walferry_retail::parse_url(&database.postgres_url).unwrap();
        Box::pin(walferry_retail::schema::install(&postgres))
            .await
            .unwrap();
        let pipeline = Pipeline::over_existing(database, SALES, "public.*").await;
        let chain = Self {
            pipeline,
            mongo,
            admin,
            _root: root,
        };
        let [roles] = &blocks(&text(PAGE), "toml")[..] else {
            panic!("one block of TOML");
        };
        chain.configure(&(roles.clone() + &of_store_2(roles)));
        let [_, changer] = &blocks(&text(PAGE), "js")[..] else {
            panic!("two users");
        };
        chain.make_user(changer).await;
        chain
    }

    /// The roles, and a user of each.
    async fn apply(&self) {
        self.run("apply", 0).await;
        let clerk = &blocks(&text(PAGE), "js")[0];
        self.make_user(clerk).await;
        self.make_user(&of_store_2(clerk)).await;
    }

    /// Puts roles behind the rest of the configuration.
    fn configure(&self, roles: &str) {
        let config = std::fs::read_to_string(self.pipeline.config()).unwrap();
        let (config, _) = config.split_once("[[role]]").unwrap_or((&config, ""));
        std::fs::write(self.pipeline.config(), format!("{config}{roles}")).unwrap();
    }

    async fn make_user(&self, block: &str) {
        let name = &self.pipeline.database.name;
        let command = user_of(&block.replace("walmart_realtime", name));
        self.admin.run_command(command).await.unwrap();
    }

    /// `walferry access`, as the user that the page makes for it.
    fn access(&self, command: &str) -> Command {
        let mut access = self.pipeline.command(&["access", command]);
        let url = url(&self.mongo, "walferry_access", "change-me");
        access.env("WALFERRY__SINK__URL", url);
        access
    }

    async fn run(&self, command: &str, code: i32) -> Said {
        let said = said(self.access(command)).await;
        assert_eq!(said.code, Some(code), "{command}\n{}{}", said.out, said.err);
        said
    }

    async fn json(&self, command: &str, code: i32) -> Value {
        let mut access = self.access(command);
        access.arg("--json");
        let said = said(access).await;
        assert_eq!(said.code, Some(code), "{command}\n{}{}", said.out, said.err);
        serde_json::from_str(&said.out).unwrap()
    }

    /// The database as a store's user of MongoDB sees it.
    async fn store(&self, store: i32) -> mongodb::Database {
        let user = if store == 1 { "clerk" } else { "clerk_2" };
        let url = url(&self.mongo, user, "change-me");
        let client = mongodb::Client::with_uri_str(url).await.unwrap();
        client.database(&self.pipeline.database.name)
    }

    /// Holds what a store's role sees in MongoDB against what it sees in PostgreSQL; how many rows of each table.
    async fn compare(&self, store: i32) -> Vec<i64> {
        let user = format!("store_user_{store}@");
        let url = &self.pipeline.database.postgres_url;
        let postgres_url = url.replace("postgres@", &user);
        assert_ne!(*url, postgres_url);
        let database = Database {
            postgres_url,
            ..self.pipeline.database.clone()
        };
        let (sql, mongo) = (database.sql().await.unwrap(), self.store(store).await);
        let mut counts = Vec::new();
        for table in TABLES {
            let view = format!("store_{store}.{table}");
            let count = sql
                .query_one(&format!("select count(*) from {table}"), &[])
                .await;
            let Ok(count) = count else {
                assert_eq!(table, "customers");
                assert_denied(&mongo, doc! { "find": view }).await;
                continue;
            };
            let compared = oracle::compare_as(&sql, &mongo, table, &view).await;
            compared.unwrap_or_else(|error| panic!("store {store}: {error}"));
            counts.push(count.get(0));
        }
        counts
    }
}

fn url(mongo: &Mongo, user: &str, password: &str) -> String {
    let port = mongo.port();
    format!("mongodb://{user}:{password}@127.0.0.1:{port}/?replicaSet=rs0")
}

/// The page's store 1 as another.
fn of_store_2(block: &str) -> String {
    let block = block.replace("store_1", "store_2");
    block
        .replace("store_id = 1", "store_id = 2")
        .replace("clerk", "clerk_2")
}

async fn assert_denied(database: &mongodb::Database, command: Document) {
    let shown = command.to_string();
    let answer = database.run_command(command).await;
    let code = match answer.map_err(|error| *error.kind) {
        Err(ErrorKind::Command(error)) => error.code,
        other => panic!("{shown}: {other:?}"),
    };
    assert_eq!(code, DENIED, "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stores_role_sees_in_mongodb_what_it_sees_in_postgresql() {
    let chain = Chain::new().await;
    let daemon = chain.pipeline.start();
    chain.pipeline.equal(&TABLES).await;
    chain.run("plan", 3).await;
    chain.apply().await;
    // Lines, of which the second sale has two, stand behind sales.
    let of_all = [3, 1, 1, 2, 1, 1, 1];
    let of_store = |own: [i64; 5]| [&own[..], &of_all[..]].concat();
    assert_eq!(chain.compare(1).await, of_store([3, 4, 2, 1, 1]));
    assert_eq!(chain.compare(2).await, of_store([1, 1, 1, 1, 1]));

    chain.pipeline.sql.batch_execute(MOVES).await.unwrap();
    chain.pipeline.equal(&TABLES).await;
    assert_eq!(chain.compare(1).await, of_store([2, 3, 1, 1, 2]));
    assert_eq!(chain.compare(2).await, of_store([1, 1, 2, 1, 0]));

    let update =
        "update transactiondetails set quantity = 9; delete from inventory where store_id = 2";
    chain.pipeline.sql.batch_execute(update).await.unwrap();
    chain.pipeline.equal(&TABLES).await;
    assert_eq!(chain.compare(1).await, of_store([2, 3, 1, 1, 2]));
    assert_eq!(chain.compare(2).await, of_store([1, 1, 0, 1, 0]));
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_but_its_own_views_is_closed_to_a_role() {
    let chain = Chain::new().await;
    let daemon = chain.pipeline.start();
    chain.pipeline.equal(&TABLES).await;
    chain.apply().await;
    let store = chain.store(1).await;
    let view = "store_1.transactions";
    let aggregate = |stage: Document| doc! { "aggregate": view, "pipeline": [stage], "cursor": {} };
    for command in [
        doc! { "find": "transactions" },
        doc! { "find": "customers" },
        doc! { "find": "store_2.transactions" },
        doc! { "find": "system.views" },
        doc! { "count": "transactions" },
        doc! { "distinct": "transactions", "key": "store_id" },
        doc! { "listIndexes": "transactions" },
        doc! { "collStats": "transactions" },
        doc! { "listCollections": 1 },
        doc! { "insert": view, "documents": [{ "_id": 1 }] },
        doc! { "collMod": view, "viewOn": "transactions", "pipeline": [] },
        doc! { "create": "mine", "viewOn": "transactions", "pipeline": [] },
        aggregate(doc! { "$lookup": { "from": "transactions", "pipeline": [], "as": "all" } }),
        aggregate(doc! { "$unionWith": "customers" }),
        aggregate(doc! { "$graphLookup": {
            "from": "transactions", "startWith": 1, "connectFromField": "a", "connectToField": "b", "as": "all",
        } }),
        aggregate(doc! { "$out": "mine" }),
        aggregate(doc! { "$merge": "transactions" }),
        aggregate(doc! { "$indexStats": {} }),
    ] {
        assert_denied(&store, command).await;
    }
    let own = store.client().database("_walferry");
    for collection in ["positions", "access"] {
        assert_denied(&own, doc! { "find": collection }).await;
    }
    let names = store.list_collection_names().authorized_collections(true);
    let mut names = names.await.unwrap();
    names.sort();
    let mut expected: Vec<_> = TABLES[..12]
        .iter()
        .map(|it| format!("store_1.{it}"))
        .collect();
    expected.sort();
    assert_eq!(names, expected);
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_planned_applied_and_dropped_and_only_by_who_may() {
    let chain = Chain::new().await;
    let mongo = &chain.pipeline.mongo;
    let planned = chain.json("plan", 3).await;
    assert_eq!(planned["steps"].as_array().unwrap().len(), 26);
    assert_eq!(planned["is_done"], false);
    let notes = planned["notes"].to_string();
    assert!(
        notes.contains("there is no collection transactions"),
        "{notes}"
    );
    assert!(mongo.list_collection_names().await.unwrap().is_empty());

    let mut lesser = chain.access("apply");
    let lesser_user = doc! { "createUser": "lesser", "pwd": "lesser", "roles": [
        { "role": "readWrite", "db": mongo.name() }, { "role": "readWrite", "db": "_walferry" },
    ] };
    chain.admin.run_command(lesser_user).await.unwrap();
    lesser.env("WALFERRY__SINK__URL", url(&chain.mongo, "lesser", "lesser"));
    let refused = said(lesser).await;
    assert_eq!(refused.code, Some(1), "{}", refused.out);
    assert!(
        refused.err.contains("{role: \"dbOwner\", db: "),
        "{}",
        refused.err
    );

    let applied = chain.json("apply", 0).await;
    assert_eq!(applied["steps"], planned["steps"]);
    chain.apply().await;
    let again = chain.run("plan", 0).await;
    assert!(again.out.contains("nothing to do"), "{}", again.out);
    assert_eq!(chain.json("apply", 0).await["steps"], serde_json::json!([]));

    let [roles] = &blocks(&text(PAGE), "toml")[..] else {
        panic!("one block of TOML");
    };
    chain.configure(&roles.replace(
        "filter = { store_id = 1 }",
        "filter = { store_id = [1, 3] }",
    ));
    let narrowed = chain.json("apply", 0).await;
    let kinds: Vec<_> = narrowed["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["step"].as_str().unwrap())
        .collect();
    let count = |kind| kinds.iter().filter(|it| **it == kind).count();
    assert_eq!(
        (count("drop_role"), count("drop_view"), count("change_view")),
        (1, 12, 5),
        "{kinds:?}"
    );
    assert_eq!(kinds.len(), 18);
    assert_denied(&chain.store(2).await, doc! { "find": "store_2.stores" }).await;

    chain.run("drop", 0).await;
    assert_denied(&chain.store(1).await, doc! { "find": "store_1.stores" }).await;
    let left = mongo.list_collection_names().await.unwrap();
    assert_eq!(left, ["system.views"]);
    let known = mongo
        .client()
        .database("_walferry")
        .collection::<Document>("access");
    assert_eq!(known.count_documents(doc! {}).await.unwrap(), 0);
    chain.run("drop", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_cannot_be_meant_is_told_with_its_key_before_anything_is_made() {
    let chain = Chain::new().await;
    chain.configure(
        "[[role]]\nname = \"clerk\"\n\
         [[role.read]]\ntables = [\"transactions\"]\nfilter = { stroe_id = 1 }\n\
         [[role.read]]\ntables = [\"inventory\"]\nfilter = { store_id = \"1\" }\ncolumns = [\"level\"]\n\
         [[role.read]]\ntables = [\"transactiondetails\"]\n\
         through = { table = \"transactions\", by = { transaction_id = \"id\" }, filter = { transaction_date = \"2024\" } }\n\
         [[role.read]]\ntables = [\"orders\"]\n\
         [[role.read]]\ntables = [\"stores\", \"public.stores\"]\nmasks = { city = \"hash\" }\n\
         [[role]]\nname = \"products\"\n\
         [[role.read]]\ntables = [\"weather\"]\n",
    );
    let said = chain.run("apply", 2).await;
    for expected in [
        "role[0].read[0].filter: public.transactions has no column stroe_id; its documents have transaction_id, ",
        "role[0].read[1].columns: public.inventory has no column level",
        "role[0].read[1].filter: store_id of public.inventory is of type int4, which \"1\" is not",
        "role[0].read[2].through.by: public.transactions has no column id",
        "role[0].read[2].through.filter: transaction_date of public.transactions is of type timestamp",
        "role[0].read[3].tables: orders: the source has no such table",
        "role[0].read[4].columns: public.stores has no column city",
        "role[1].name: is the name of a table",
    ] {
        assert!(said.err.contains(expected), "{expected} in\n{}", said.err);
    }
    assert!(
        chain
            .pipeline
            .mongo
            .list_collection_names()
            .await
            .unwrap()
            .is_empty()
    );
}

/// The page's other role, then one that lists no columns, and one of a collection that is no table's.
#[tokio::test(flavor = "multi_thread")]
async fn masked_columns_are_hidden_and_a_new_one_is_not_shown() {
    let chain = Chain::new().await;
    let daemon = chain.pipeline.start();
    chain.pipeline.equal(&TABLES).await;
    let [marketing] = &blocks(&text(PAGE), "text")[..] else {
        panic!("one block of text");
    };
    let mongo = &chain.pipeline.mongo;
    let read = async |view: &str| {
        let view = mongo.collection::<Document>(view);
        let found = view.find(doc! {}).await.unwrap();
        found.try_collect::<Vec<_>>().await.unwrap()
    };
    chain.configure(marketing);
    chain.run("apply", 0).await;
    for customer in read("marketing.customers").await {
        let fields: Vec<_> = customer.keys().map(String::as_str).collect();
        assert_eq!(fields, ["customer_id", "income", "loyalty_level", "_id"]);
        assert_eq!(customer.get_str("income").unwrap(), "***");
        let hashed = customer.get_str("customer_id").unwrap();
        assert!(hashed.len() > 5, "{customer}");
        assert_eq!(customer.get_str("_id").unwrap(), hashed);
    }

    let answers = mongo.collection::<Document>("answers");
    let answer = |store: i32| doc! { "_id": store, "store_id": store };
    answers.insert_many([answer(1), answer(2)]).await.unwrap();
    chain.configure(
        "[[role]]\nname = \"some\"\n\
         [[role.read]]\ntables = [\"customers\"]\nfilter = { loyalty_level = [\"Gold\"] }\nmasks = { age = \"null\" }\n\
         [[role.read]]\ncollections = [\"answers\"]\nfilter = { store_id = 1, stroe = 1 }\n",
    );
    let planned = chain.run("plan", 3).await;
    assert!(
        planned.err.contains("has no field stroe"),
        "{}",
        planned.err
    );
    chain.run("apply", 0).await;
    assert!(read("some.answers").await.is_empty());
    assert_eq!(read("some.customers").await.len(), 1);
    chain.configure("[[role]]\nname = \"some\"\n[[role.read]]\ntables = [\"customers\"]\nmasks = { age = \"null\" }\n\
                     [[role.read]]\ncollections = [\"answers\"]\nfilter = { store_id = 1 }\n");
    chain.run("apply", 0).await;
    assert_eq!(read("some.answers").await, [answer(1)]);

    let add = "alter table customers add phone text; update customers set phone = '555', loyalty_level = 'None'";
    chain.pipeline.sql.batch_execute(add).await.unwrap();
    chain.pipeline.equal(&["customers"]).await;
    let customers = read("some.customers").await;
    assert_eq!(customers.len(), 2);
    for customer in customers {
        assert_eq!(customer.get_str("loyalty_level").unwrap(), "None");
        assert_eq!(customer.get("age"), Some(&bson::Bson::Null));
        assert!(!customer.contains_key("phone"), "{customer}");
    }
    let planned = chain.json("plan", 3).await;
    assert_eq!(planned["steps"][0]["view"], "some.customers");
    assert!(
        planned["steps"][0]["pipeline"]
            .to_string()
            .contains("phone")
    );
    assert!(daemon.stop().await.success());
}
