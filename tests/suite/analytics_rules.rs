//! The retail rules of `etl/analytics`, over what walferry itself delivered.
//!
//! Each question is asked a second time in SQL (`analytics_rules/<rule>.sql`), written without a look at the
//! pipeline, and PostgreSQL's answer is held against the one that is kept, row for row and value for value.

mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use serde_json::Value;
use walferry_etl::analytics::{Kind, Names, Rule, RuleFile, RuleSet};
use walferry_harness::{Stack, project_root};
use walferry_retail::{generate, load, schema, story};

use crate::daemon::Pipeline;
use crate::site::said;

const STREAMED: [&str; 3] = ["transactions", "transactiondetails", "inventory"];
const PATTERN: &str = "public.{transactions,transactiondetails,inventory}";
const PRELUDE: &str = include_str!("analytics_rules/prelude.sql");
const SOWN: &str = include_str!("analytics_rules/sown.sql");

/// How many rows each answer has on the published data.
const EXPECTED: [(&str, usize); 22] = [
    ("f01_velocity_burst", 4),
    ("f02_impossible_travel", 10),
    ("f03_duplicate_basket", 1),
    ("f04_store_amount_outlier", 14),
    ("f05_income_mismatch", 29),
    ("f06_off_hours_high_value", 62),
    ("f07_promo_flag_mismatch", 1_794 + 780 + 4),
    ("f08_serial_promo_user", 27),
    ("f09_cash_structuring", 26),
    ("f10_payment_hopping", 3),
    ("f12_customer_risk_score", 149),
    ("r01_low_stock_reorder", 591),
    ("r02_oversold", 31),
    ("r03_days_of_cover", 10),
    ("r04_top_products", 5),
    ("r05_store_dashboard", 5),
    ("r06_admin_dashboard", 5),
    ("r07_store_share", 5),
    ("r08_forecast_accuracy", 5),
    ("r09_promotion_effect", 6),
    ("r10_customer_360", 3_848),
    ("r12_inventory_value", 5),
];

/// A retail system that is delivered, and the rules over it.
struct Shop {
    pipeline: Pipeline,
    rules: RuleSet,
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_published_data_every_answer_has_the_expected_rows() {
    let data = project_root().join("../shared/data/walmart");
    if !data.exists() {
        println!("skipped: {} is not there", data.display());
        return;
    }
    let shop = Shop::open("published", &data, "").await;
    shop.refresh().await;
    for (rule, rows) in EXPECTED {
        assert_eq!(shop.answer(rule).await.len(), rows, "{rule}");
    }
    assert_eq!(shop.answer("v_sales").await.len(), 5_006);
    assert_eq!(shop.answer("v_sales_lines").await.len(), 5_011);
    shop.expect_groups("f07_promo_flag_mismatch", "evidence.kind", &[4, 780, 1_794])
        .await;
    shop.expect_groups("f09_cash_structuring", "store_id", &[3, 5, 5, 6, 7])
        .await;
    shop.expect_groups("r10_customer_360", "tier", &[308, 1_101, 1_184, 1_255])
        .await;
    let alerts = doc! { "score": { "$gt": 0 } };
    let scored = shop.pipeline.mongo.collection::<Document>("fraud_alerts");
    assert_eq!(scored.count_documents(alerts).await.unwrap(), 176);
    shop.expect_story().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_that_of_the_same_question_in_sql() {
    let data = generated(2_000, 11);
    let shop = Shop::open("asked_in_sql", data.path(), SOWN).await;
    shop.refresh().await;
    shop.expect_sql().await;
    shop.expect_rerun_to_change_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_for_some_values_is_a_part_of_the_whole_and_an_index_finds_it() {
    let data = generated(2_000, 14);
    let shop = Shop::open("in_parts", data.path(), SOWN).await;
    shop.refresh().await;
    for rule in shop.rules.rules() {
        shop.expect_per(rule).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_story_raises_exactly_the_alerts_that_it_names() {
    let data = generated(3_000, 12);
    let shop = Shop::open("told", data.path(), "").await;
    shop.refresh().await;
    shop.expect_story().await;
    shop.expect_sql().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_retail_rules_have_no_mistake_and_can_be_asked_one_by_one() {
    let data = generated(300, 13);
    let shop = Shop::open("checked", data.path(), "").await;
    let checked = shop.run(&["check"]).await;
    assert_eq!(checked["mistakes"], serde_json::json!([]), "{checked}");
    let every = ["--param", "window_minutes=1000000"];
    let asked = shop.run(&[&["run", "F01"], &every[..]].concat()).await;
    let rows = asked["rules"][0]["rows"].as_array().unwrap();
    assert!(!rows.is_empty(), "{asked}");
}

// === impl Shop ===

impl Shop {
    /// Loads the data into PostgreSQL, then lets walferry deliver it: master tables by backfill, the others streamed.
    async fn open(name: &str, data: &Path, more: &str) -> Self {
        let stack = Stack::shared().await.unwrap();
        let database = stack.fresh_database(name).await.unwrap();
        let url = walferry_retail::parse_url(&database.postgres_url).unwrap();
        Box::pin(schema::install(&url)).await.unwrap();
        Box::pin(load::load(&url, data, &mut |_| {})).await.unwrap();
        let pipeline = Pipeline::over_existing(database, more, PATTERN).await;
        let mut config = std::fs::read_to_string(pipeline.config()).unwrap();
        write!(
            config,
            "[[table]]\nname = \"public.*\"\nmode = \"batch\"\n[analytics]\nrules = \"{}\"\n",
            directory().display()
        )
        .unwrap();
        std::fs::write(pipeline.config(), config).unwrap();
        let loaded = said(pipeline.command(&["backfill"])).await;
        assert_eq!(loaded.code, Some(0), "{loaded:?}");
        let shop = Self {
            pipeline,
            rules: rules(),
        };
        shop.deliver(async || {}).await;
        shop
    }

    /// Has the daemon run until what is done has arrived.
    async fn deliver(&self, done: impl AsyncFnOnce()) {
        let daemon = self.pipeline.start();
        done().await;
        self.pipeline.equal(&STREAMED).await;
        assert!(daemon.stop().await.success());
    }

    /// Runs `walferry analytics … --json` and reads what it says.
    async fn run(&self, arguments: &[&str]) -> Value {
        let arguments = [&["analytics"], arguments, &["--json"]].concat();
        let said = said(self.pipeline.command(&arguments)).await;
        assert_eq!(said.code, Some(0), "{arguments:?}: {said:?}");
        serde_json::from_str(&said.out).unwrap()
    }

    async fn refresh(&self) -> Value {
        self.run(&["run", "--all"]).await
    }

    /// What is kept of a rule's answer, or what its view shows.
    async fn answer(&self, rule: &str) -> Vec<Document> {
        let rule = self.rules.find(rule).unwrap();
        let filter = match rule.kind {
            Kind::Alerts => doc! { "rule": &rule.name },
            Kind::View | Kind::Report => doc! {},
        };
        self.documents(&rule.output, filter).await
    }

    async fn documents(&self, collection: &str, filter: Document) -> Vec<Document> {
        let collection = self.pipeline.mongo.collection(collection);
        let found = collection.find(filter).sort(doc! { "_id": 1 }).await;
        found.unwrap().try_collect().await.unwrap()
    }

    /// All that is kept, by collection.
    async fn kept(&self) -> BTreeMap<&str, Vec<Document>> {
        let mut kept = BTreeMap::new();
        for rule in self.rules.rules() {
            if rule.kind != Kind::View {
                let documents = self.documents(&rule.output, doc! {}).await;
                kept.insert(&*rule.output, documents);
            }
        }
        kept
    }

    async fn expect_groups(&self, rule: &str, field: &str, expected: &[u64]) {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for document in self.answer(rule).await {
            let row = rows::of_document(&document);
            *counts.entry(row[field].clone()).or_default() += 1;
        }
        let mut found: Vec<_> = counts.into_values().collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{rule} by {field}");
    }

    /// Holds each answer against that of PostgreSQL, which reads its own tables now.
    async fn expect_sql(&self) {
        let sql = self.pipeline.database.sql().await.unwrap();
        sql.batch_execute(PRELUDE).await.unwrap();
        let alert = "create temp table alert (rule text, customer_id integer, score integer)";
        sql.batch_execute(alert).await.unwrap();
        // Alerts first, since the score of a customer is worked out from them.
        for rule in self.rules.rules() {
            let file = format!("tests/suite/analytics_rules/{}.sql", rule.name);
            let question = std::fs::read_to_string(project_root().join(file)).unwrap();
            if rule.kind == Kind::Alerts {
                let found = format!(
                    "insert into alert select '{}', customer_id, score from ({question}) found",
                    rule.name
                );
                sql.batch_execute(&found).await.unwrap();
            }
            let mut expected = rows::of_question(&sql, &question).await;
            for row in expected.iter_mut().filter(|_| rule.kind == Kind::Alerts) {
                row.insert("_id.rule".to_owned(), format!("text {}", rule.name));
                row.insert("rule".to_owned(), format!("text {}", rule.name));
            }
            let found = self.answer(&rule.name).await;
            assert!(!found.is_empty(), "{} has nothing to compare", rule.name);
            rows::compare(&rule.name, &expected, &found);
        }
    }

    async fn expect_rerun_to_change_nothing(&self) {
        let before = self.kept().await;
        let again = self.refresh().await;
        for rule in again["rules"].as_array().unwrap() {
            let counts = ["added", "changed", "removed"].map(|it| rule[it].as_u64().unwrap());
            assert_eq!(counts, [0, 0, 0], "{rule}");
        }
        assert_eq!(again["views"], serde_json::json!([]));
        assert!(self.kept().await == before, "documents changed");
    }

    /// The answer for some values of the field is what the whole answer says of them.
    async fn expect_per(&self, rule: &Rule) {
        let Some(field) = &rule.per else { return };
        let whole = self.answer(&rule.name).await;
        let chosen = whole.iter().step_by(whole.len().div_ceil(7));
        let chosen: Vec<Bson> = chosen.map(|it| it.get(field).unwrap().clone()).collect();
        let mut stages = vec![doc! { "$match": { field: { "$in": &chosen } } }];
        stages.extend(rule.pipeline.bound(&rule.defaults(), &Names::new()));
        let mongo = &self.pipeline.mongo;
        let asked = doc! { "aggregate": &rule.input.name, "pipeline": &stages, "cursor": {} };
        let explained = mongo.run_command(doc! { "explain": asked }).await;
        let explained = explained.unwrap().to_string();
        let is_scan = explained.contains("COLLSCAN");
        assert!(!is_scan, "{}: {explained}", rule.name);
        let input: mongodb::Collection<Document> = mongo.collection(&rule.input.name);
        let found = input.aggregate(stages).await.unwrap();
        let mut found: Vec<Document> = found.try_collect().await.unwrap();
        let mut expected = whole;
        expected.retain(|it| chosen.contains(it.get(field).unwrap()));
        for document in &mut expected {
            document.remove("detected_at");
        }
        found.sort_by_key(|it| it.get("_id").unwrap().to_string());
        expected.sort_by_key(|it| it.get("_id").unwrap().to_string());
        assert_eq!(found, expected, "{} per {field}", rule.name);
    }

    /// Tells the story and holds the new alerts against those that it names.
    async fn expect_story(&self) {
        let before = self.alerts().await;
        let plan = story::Plan {
            database: walferry_retail::parse_url(&self.pipeline.database.postgres_url).unwrap(),
            pause: Duration::ZERO,
        };
        let mut told = None;
        self.deliver(async || {
            told = Some(Box::pin(story::tell(&plan, &mut |_| {})).await.unwrap());
        })
        .await;
        self.refresh().await;
        let after = self.alerts().await;
        let new: BTreeSet<_> = after.difference(&before).cloned().collect();
        assert_eq!(new, named(&told.unwrap()));
        // Large sales move the norm of their store, so one that stood out barely may no longer do so.
        let gone: Vec<_> = before.difference(&after).collect();
        assert!(gone.iter().all(|(rule, ..)| rule == "f04"), "{gone:?}");
    }

    /// Rule, severity and sale of each alert.
    async fn alerts(&self) -> BTreeSet<(String, String, i32)> {
        let alerts = self.documents("fraud_alerts", doc! {}).await;
        let alert = |it: &Document| {
            let rule = it.get_str("rule").unwrap().split('_').next().unwrap();
            let severity = it.get_str("severity").unwrap();
            let sale = it.get_i32("transaction_id").unwrap();
            (rule.to_owned(), severity.to_owned(), sale)
        };
        alerts.iter().map(alert).collect()
    }
}

/// The alerts that a story says it raises. That of a repeated basket names the first sale of the group.
fn named(told: &story::Told) -> BTreeSet<(String, String, i32)> {
    let mut named = BTreeSet::new();
    for event in &told.events {
        for alert in &event.alerts {
            let (rule, severity) = alert.split_once(' ').unwrap();
            let sale = match rule {
                "F03" => told.events[0].transaction_id,
                _ => event.transaction_id,
            };
            named.insert((rule.to_lowercase(), severity.to_owned(), sale.unwrap()));
        }
    }
    named
}

fn directory() -> PathBuf {
    project_root().join("etl/analytics")
}

fn rules() -> RuleSet {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|it| it == "json") {
            let text = std::fs::read_to_string(&path).unwrap();
            let path = path.display().to_string();
            files.push(RuleFile { path, text });
        }
    }
    RuleSet::read(&files).unwrap()
}

fn generated(sales: u32, seed: u64) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    generate::generate(generate::Plan { sales, seed }, directory.path(), |_| {}).unwrap();
    directory
}
