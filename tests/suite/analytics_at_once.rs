//! Answers that are kept fresh between two refreshes, with small rules of the test's own.

use std::collections::BTreeMap;

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use walferry_etl::analytics::{Kind, Names, Rule, RuleFile, RuleSet};
use walferry_harness::eventually;

use crate::admin::{append, listening, status};
use crate::daemon::{Daemon, PATIENCE, Pipeline, Route};
use crate::site::said;

const SCHEMA: &str = "
    create table sales (id int primary key, customer int, shop int, noted boolean);
    create table lines (sale int, product int, price int, primary key (sale, product));
    create table people (id int primary key, limit_of int);
    create table products (id int primary key, bonus int);
    insert into people select n, 100 from generate_series(1, 9) n;
    insert into products select n, 0 from generate_series(1, 5) n;
    insert into sales values (1, 7, 1, false), (2, 7, 1, false), (3, 8, 2, false);
    insert into lines values (1, 1, 10), (2, 1, 20), (3, 1, 500), (3, 2, 7);";

const VIEW: &str = r#"{
  "title": "Sales", "question": "What came of each sale?", "kind": "view", "input": "sales",
  "indexes": [{ "collection": "lines", "keys": { "sale": 1 } },
              { "collection": "sales", "keys": { "customer": 1 } },
              { "collection": "sales", "keys": { "shop": 1 } }],
  "pipeline": [
    { "$lookup": { "from": "lines", "localField": "_id", "foreignField": "sale", "as": "lines" } },
    { "$match": { "lines": { "$ne": [] } } },
    { "$lookup": { "from": "products", "localField": "lines.product", "foreignField": "_id", "as": "products" } },
    { "$project": { "id": 1, "customer": 1, "shop": 1,
                    "amount": { "$add": [{ "$sum": "$lines.price" }, { "$sum": "$products.bonus" }] } } }]
}"#;
const BIG: &str = r#"{
  "title": "Big", "question": "Is a sale above the customer's limit?", "kind": "alerts", "input": "v_sales",
  "per": "customer",
  "pipeline": [
    { "$lookup": { "from": "people", "localField": "customer", "foreignField": "_id", "as": "who" } },
    { "$match": { "$expr": { "$gt": ["$amount", { "$first": "$who.limit_of" }] } } },
    { "$replaceWith": { "_id": { "rule": "f01_big", "ref": "$id" }, "rule": "f01_big", "score": 30,
                        "who": "$customer", "evidence": { "amount": "$amount" } } }],
  "output": "alerts"
}"#;
const OFTEN: &str = r#"{
  "title": "Often", "question": "Who buys often?", "kind": "alerts", "input": "sales", "per": "customer",
  "pipeline": [
    { "$setWindowFields": { "partitionBy": "$customer", "sortBy": { "id": 1 },
                            "output": { "nth": { "$sum": 1, "window": { "documents": ["unbounded", "current"] } } } } },
    { "$match": { "nth": { "$gte": 3 } } },
    { "$replaceWith": { "_id": { "rule": "f02_often", "entity": "$customer", "nth": "$nth" }, "rule": "f02_often",
                        "score": 5, "who": "$customer", "evidence": { "id": "$id" } } }],
  "output": "alerts"
}"#;
const SHOPS: &str = r#"{
  "title": "Shops", "question": "What does a shop take?", "kind": "report", "input": "v_sales", "per": "shop",
  "pipeline": [{ "$group": { "_id": "$shop", "amount": { "$sum": "$amount" }, "sales": { "$sum": 1 } } }],
  "output": "shops"
}"#;
const PAIRS: &str = r#"{
  "title": "Pairs", "question": "Who buys where?", "kind": "report", "input": "sales", "per": "customer",
  "pipeline": [{ "$group": { "_id": { "customer": "$customer", "shop": "$shop" }, "sales": { "$sum": 1 } } }],
  "output": "pairs"
}"#;
const RISK: &str = r#"{
  "title": "Risk", "question": "Whom to look at?", "kind": "report", "input": "alerts", "per": "who",
  "indexes": [{ "collection": "alerts", "keys": { "who": 1 } }],
  "pipeline": [{ "$group": { "_id": "$who", "score": { "$sum": "$score" } } }],
  "output": "risk"
}"#;
const ALL: &str = r#"{
  "title": "All", "question": "How many sales are there?", "kind": "report", "input": "sales",
  "pipeline": [{ "$group": { "_id": "all", "sales": { "$sum": 1 } } }],
  "output": "everything"
}"#;
const RULES: [(&str, &str); 7] = [
    ("v_sales", VIEW),
    ("f01_big", BIG),
    ("f02_often", OFTEN),
    ("r01_shops", SHOPS),
    ("r02_risk", RISK),
    ("r03_all", ALL),
    ("r04_pairs", PAIRS),
];
const TABLES: [&str; 4] = ["sales", "lines", "people", "products"];

/// A daemon that refreshes all answers at its start, and then at once those of which something was touched.
struct Shop {
    pipeline: Pipeline,
    port: u16,
    daemon: Daemon,
    rules: RuleSet,
}

// === impl Shop ===

impl Shop {
    async fn open(name: &str) -> Self {
        let (pipeline, port) = listening(name).await;
        if pipeline.route == Route::Split {
            pipeline.configure("public.*", true);
        }
        pipeline.sql.batch_execute(SCHEMA).await.unwrap();
        let directory = pipeline.config().with_file_name("rules");
        std::fs::create_dir(&directory).unwrap();
        let mut files = Vec::new();
        for (name, text) in RULES {
            let path = directory.join(format!("{name}.json"));
            std::fs::write(&path, text).unwrap();
            let (path, text) = (path.display().to_string(), text.to_owned());
            files.push(RuleFile { path, text });
        }
        append(
            &pipeline,
            "[analytics]\nrules = \"rules\"\nrefresh = \"1h\"\n",
        );
        let daemon = pipeline.start();
        let shop = Self {
            pipeline,
            port,
            daemon,
            rules: RuleSet::read(&files).unwrap(),
        };
        shop.refreshed(30).await;
        shop
    }

    /// Waits until every rule had its turn in the first refresh; `score` is what customer 8 has.
    async fn refreshed(&self, score: i32) {
        let refreshed = async || {
            let risk = self
                .documents("risk", doc! { "_id": 8, "score": score })
                .await;
            let others = ["shops", "everything"].map(|it| self.documents(it, doc! {}));
            let [shops, all] = others;
            if risk.is_empty() || shops.await.is_empty() || all.await.is_empty() {
                return Err(format!("{risk:?}\n{}", self.pipeline.log()));
            }
            Ok(())
        };
        let refreshed = eventually(PATIENCE, "the first refresh", refreshed).await;
        refreshed.unwrap_or_else(|error| panic!("{error}"));
    }

    /// What the status says of what is asked at once; of two processes with one file none listens.
    async fn at_once(&self) -> Option<Value> {
        if self.pipeline.route == Route::Split {
            return None;
        }
        let status = status(self.port).await.unwrap();
        Some(status["analytics"]["incremental"].clone())
    }

    async fn execute(&self, sql: &str) {
        self.pipeline.sql.batch_execute(sql).await.unwrap();
    }

    async fn documents(&self, collection: &str, filter: Document) -> Vec<Document> {
        let collection = self.pipeline.mongo.collection::<Document>(collection);
        let found = collection.find(filter).sort(doc! { "_id": 1 }).await;
        found.unwrap().try_collect().await.unwrap()
    }

    /// Waits until the rule's alerts are of these customers and amounts.
    async fn big(&self, expected: &[(i32, i32)]) {
        let seen = async || {
            let alerts = self.documents("alerts", doc! { "rule": "f01_big" }).await;
            let pair = |it: &Document| {
                let evidence = it.get_document("evidence").unwrap();
                (
                    it.get_i32("who").unwrap(),
                    evidence.get_i32("amount").unwrap(),
                )
            };
            let found: Vec<_> = alerts.iter().map(pair).collect();
            if found == expected {
                Ok(())
            } else {
                Err(format!("{found:?}\n{}", self.pipeline.log()))
            }
        };
        let seen = eventually(PATIENCE, &format!("{expected:?}"), seen).await;
        seen.unwrap_or_else(|error| panic!("{error}"));
    }

    /// What a rule's answer is over the data as they are, by `_id`.
    async fn whole(&self, rule: &Rule) -> BTreeMap<String, Document> {
        let input = self.pipeline.mongo.collection::<Document>(&rule.input.name);
        let stages = rule.pipeline.bound(&rule.defaults(), &Names::new());
        let found = input.aggregate(stages).await.unwrap();
        by_id(found.try_collect().await.unwrap())
    }

    async fn kept(&self, rule: &Rule) -> BTreeMap<String, Document> {
        let filter = match rule.kind {
            Kind::Alerts => doc! { "rule": &rule.name },
            Kind::View | Kind::Report => doc! {},
        };
        by_id(self.documents(&rule.output, filter).await)
    }

    /// Waits until what is kept of the rules that are asked at once is what their whole answers are.
    async fn settled(&self) {
        self.pipeline.equal(&TABLES).await;
        let seen = async || {
            for rule in self.rules.rules().iter().filter(|it| it.per.is_some()) {
                let (kept, whole) = (self.kept(rule).await, self.whole(rule).await);
                if kept != whole {
                    let log = self.pipeline.log();
                    return Err(format!("{}: {kept:#?}\nnot {whole:#?}\n{log}", rule.name));
                }
            }
            Ok(())
        };
        let seen = eventually(PATIENCE, "the answers to be whole", seen).await;
        seen.unwrap_or_else(|error| panic!("{error}"));
    }

    async fn sales_of_refresh(&self) -> i32 {
        let all = self.documents("everything", doc! {}).await;
        all[0].get_i32("sales").unwrap()
    }

    /// A command of the analytics, as JSON.
    async fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [&["analytics"], arguments, &["--json"]].concat();
        let said = said(self.pipeline.command(&arguments)).await;
        assert_eq!(said.code, Some(0), "{said:?}");
        serde_json::from_str(&said.out).unwrap()
    }

    async fn stop(self) {
        assert!(self.daemon.stop().await.success());
    }
}

/// Documents by their `_id`, without when they were first kept.
pub(crate) fn by_id(documents: Vec<Document>) -> BTreeMap<String, Document> {
    let mut by_id = BTreeMap::new();
    for mut document in documents {
        document.remove("detected_at");
        by_id.insert(document.get("_id").unwrap().to_string(), document);
    }
    by_id
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_comes_moves_and_goes_with_what_was_touched_and_no_refresh() {
    let shop = Shop::open("at_once").await;
    shop.big(&[(8, 507)]).await;
    // A new row, with rows that belong to it.
    shop.execute(
        "begin; insert into sales values (4, 7, 1); insert into lines values (4, 1, 300); commit",
    )
    .await;
    shop.big(&[(8, 507), (7, 300)]).await;
    shop.settled().await;
    let risk = shop.documents("risk", doc! { "_id": 7 }).await;
    assert_eq!(risk[0].get_i32("score").unwrap(), 35, "{risk:?}");
    // A row of another table, which has no customer itself.
    shop.execute("update lines set price = 3 where sale = 4")
        .await;
    shop.big(&[(8, 507)]).await;
    shop.execute("update lines set price = 200 where sale = 4")
        .await;
    shop.big(&[(8, 507), (7, 200)]).await;
    // A row of a table that the value itself leads to.
    shop.execute("update people set limit_of = 1000 where id = 8")
        .await;
    shop.big(&[(7, 200)]).await;
    // A row that moves from one value to another: nobody says which one it had.
    shop.execute("update sales set customer = 9 where id = 4")
        .await;
    shop.big(&[(9, 200)]).await;
    shop.settled().await;
    assert_eq!(shop.documents("risk", doc! { "_id": 7 }).await, []);
    // A row that gets another key, and those that go with what led to them.
    shop.execute("begin; update sales set id = 40 where id = 4; update lines set sale = 40 where sale = 4; commit")
        .await;
    shop.settled().await;
    shop.execute(
        "begin; delete from lines where sale = 40; delete from sales where id = 40; commit",
    )
    .await;
    shop.big(&[]).await;
    shop.settled().await;
    assert_eq!(
        shop.sales_of_refresh().await,
        3,
        "nothing was refreshed meanwhile"
    );
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_answers_for_its_own_time_where_nothing_is_asked_at_once() {
    let (pipeline, port) = listening("own_time").await;
    if pipeline.route == Route::Split {
        return;
    }
    pipeline.sql.batch_execute(SCHEMA).await.unwrap();
    let directory = pipeline.config().with_file_name("rules");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("r03_all.json"), ALL).unwrap();
    append(
        &pipeline,
        "[analytics]\nrules = \"rules\"\nrefresh = \"1s\"\n",
    );
    let daemon = pipeline.start();
    // Two later ones: the first may have begun before.
    let refreshes = async |count: u64| {
        let at = async || {
            let at = status(port).await?["analytics"]["refreshed_at"].as_u64();
            at.ok_or_else(|| "never".to_owned())
        };
        let first = eventually(PATIENCE, "a refresh", at).await.unwrap();
        let later = async || match at().await? {
            now if now > first + count => Ok(()),
            now => Err(now.to_string()),
        };
        eventually(PATIENCE, "later refreshes", later)
            .await
            .unwrap();
    };
    refreshes(0).await;
    // By a hand, so that nobody tells of it.
    let sales = pipeline.mongo.collection::<Document>("sales");
    sales.insert_one(doc! { "_id": 99 }).await.unwrap();
    refreshes(3).await;
    let all = pipeline.mongo.collection::<Document>("everything");
    let all = all.find_one(doc! {}).await.unwrap().unwrap();
    assert_eq!(all.get_i32("sales").unwrap(), 4);
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_what_is_kept_at_once_is_the_whole_answer_in_the_end() {
    let shop = Shop::open("in_the_end").await;
    for seed in 0..3 {
        let mut chance = ChaCha8Rng::seed_from_u64(seed);
        for _ in 0..150 {
            let sql = change(&mut chance);
            shop.execute(&sql).await;
        }
        shop.settled().await;
    }
    let before: Vec<_> = [shop.documents("alerts", doc! {}).await].concat();
    let again = shop.json(&["run", "--all"]).await;
    for rule in again["rules"].as_array().unwrap() {
        let counts = ["added", "changed", "removed"].map(|it| rule[it].as_u64().unwrap());
        let is_at_once = rule["rule"] != "r03_all";
        assert!(!is_at_once || counts == [0, 0, 0], "{rule}");
    }
    assert!(!before.is_empty(), "nothing to compare");
    assert_eq!(shop.documents("alerts", doc! {}).await, before);
    shop.stop().await;
}

/// A change of whatever kind.
fn change(chance: &mut ChaCha8Rng) -> String {
    let sale = chance.random_range(1..40);
    let (customer, shop) = (chance.random_range(1..9), chance.random_range(1..4));
    let (product, price) = (chance.random_range(1..5), chance.random_range(1..150));
    match chance.random_range(0..12) {
        0..=3 => format!(
            "begin; insert into sales values ({sale}, {customer}, {shop}) on conflict do nothing; \
             insert into lines values ({sale}, {product}, {price}) on conflict do nothing; commit"
        ),
        4 => format!("update sales set customer = {customer} where id = {sale}"),
        5 => format!(
            "update sales set shop = {shop}, customer = {customer} where id % 7 = {product}"
        ),
        6 => format!("update lines set price = {price} where sale = {sale}"),
        7 => format!(
            "update lines set sale = {sale} where sale = {customer} and product = {product} \
                      and not exists (select from lines l where l.sale = {sale} and l.product = {product})"
        ),
        8 => format!(
            "begin; delete from sales where id = {sale}; delete from lines where sale = {sale}; commit"
        ),
        9 => format!("update people set limit_of = {price} where id = {customer}"),
        10 => format!("delete from lines where sale = {sale} and product = {product}"),
        _ => format!(
            "update sales set id = {sale} + 100 where id = {sale} and not exists \
                      (select from sales where id = {sale} + 100)"
        ),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_followed_is_asked_as_a_whole() {
    let shop = Shop::open("unfollowed").await;
    // More rows than are noted one by one.
    shop.execute(
        "begin; insert into sales select n, n, 1 from generate_series(1000, 22000) n; \
         insert into lines values (1000, 2, 900); insert into people values (1000, 100); commit",
    )
    .await;
    shop.big(&[(8, 507), (1000, 900)]).await;
    shop.settled().await;
    shop.execute("truncate lines").await;
    shop.big(&[]).await;
    shop.settled().await;
    // What is read without a way back waits for the schedule.
    shop.execute(
        "insert into lines values (1, 1, 60); update products set bonus = 70 where id = 1",
    )
    .await;
    shop.pipeline.equal(&TABLES).await;
    shop.execute("update sales set noted = true where id = 1")
        .await;
    shop.big(&[(7, 130)]).await;
    assert_eq!(
        shop.sales_of_refresh().await,
        3,
        "nothing was refreshed meanwhile"
    );
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_says_what_is_refreshed_at_once_and_what_by_schedule() {
    let shop = Shop::open("listed_at_once").await;
    let listed = shop.json(&["list"]).await;
    let rules = listed["rules"].as_array().unwrap();
    let rule = |name: &str| rules.iter().find(|it| it["rule"] == name).unwrap();
    let big = rule("f01_big");
    assert_eq!(big["refreshed"], "at once per customer", "{big}");
    assert_eq!(
        big["follows"],
        serde_json::json!(["lines", "people", "sales"])
    );
    assert_eq!(big["on_schedule"], serde_json::json!(["products"]));
    assert_eq!(rule("r02_risk")["follows"], serde_json::json!(["alerts"]));
    let all = rule("r03_all");
    assert_eq!(all["refreshed"], "on schedule", "{all}");
    assert_eq!(all["because"], "its file names no field that it is per");
    let at_once = shop.at_once().await;
    assert!(at_once.is_none_or(|it| it["rules"] == 5));
    shop.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_whose_part_fails_waits_for_the_schedule_and_stops_no_other() {
    let shop = Shop::open("failing_at_once").await;
    // A division that the data of the first refresh do not show.
    let broken = BIG.replace(
        "\"score\": 30",
        "\"score\": { \"$divide\": [30, { \"$subtract\": [\"$id\", 6] }] }",
    );
    let file = shop
        .pipeline
        .config()
        .with_file_name("rules")
        .join("f01_big.json");
    std::fs::write(file, broken).unwrap();
    let config = std::fs::read_to_string(shop.pipeline.config()).unwrap();
    assert!(config.contains("1h"));
    let Shop {
        pipeline,
        port,
        daemon,
        rules,
    } = shop;
    assert!(daemon.stop().await.success());
    let daemon = pipeline.start();
    let shop = Shop {
        pipeline,
        port,
        daemon,
        rules,
    };
    // 30 / (3 - 6)
    shop.refreshed(-10).await;
    shop.execute("begin; insert into sales values (6, 7, 1), (5, 7, 1); insert into lines values (6, 1, 300); commit")
        .await;
    let told = async || {
        let log = shop.pipeline.log();
        let often = shop.documents("alerts", doc! { "rule": "f02_often" }).await;
        let times = log.matches("was not asked about").count();
        match (times, often.len()) {
            (1, 2) if log.contains("f01_big") => Ok(()),
            found => Err(format!("{found:?}\n{log}")),
        }
    };
    let told = eventually(PATIENCE, "the trouble and the other's alerts", told).await;
    told.unwrap_or_else(|error| panic!("{error}"));
    let at_once = shop.at_once().await;
    assert!(at_once.is_none_or(|it| it["failures"].as_u64() >= Some(1)));
    shop.execute("insert into sales values (90, 3, 3); insert into lines values (90, 1, 1)")
        .await;
    shop.pipeline.equal(&["sales", "lines"]).await;
    let big = shop.documents("alerts", doc! { "rule": "f01_big" }).await;
    assert_eq!(big.len(), 1, "its answer stays as it was: {big:?}");
    assert_eq!(big[0].get("who"), Some(&Bson::Int32(8)));
    shop.stop().await;
}
