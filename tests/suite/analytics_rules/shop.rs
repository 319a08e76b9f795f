//! A retail system that is delivered, and the rules over it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use serde_json::Value;
use walferry_etl::analytics::{Kind, Names, Rule, RuleFile, RuleSet};
use walferry_harness::{Scans, Stack, eventually, project_root};
use walferry_retail::{load, schema, story};

use super::{rows, stock};
use crate::admin::append;
use crate::analytics_at_once::by_id;
use crate::daemon::{PATIENCE, Pipeline};
use crate::site::said;

const STREAMED: [&str; 3] = ["transactions", "transactiondetails", "inventory"];
/// The streamed tables that have a history.
const KEPT: &str = "public.{transactiondetails,inventory}";
const PRELUDE: &str = include_str!("prelude.sql");

/// The rules that are asked at once where these are streamed.
const AT_ONCE: [&str; 15] = [
    "f01", "f02", "f03", "f04", "f05", "f06", "f07", "f08", "f09", "f10", "f12", "r01", "r08",
    "r10", "r12",
];

/// What an alert is compared by: rule, severity, sale.
pub(super) type Alert = (String, String, Option<i32>);

/// A retail system that is delivered, and the rules over it.
pub(super) struct Shop {
    pub(super) pipeline: Pipeline,
    pub(super) rules: RuleSet,
}

// === impl Shop ===

impl Shop {
    /// Loads the data into PostgreSQL, then lets walferry deliver it: master tables by backfill, the others streamed.
    pub(super) async fn open(name: &str, data: &Path, more: &str) -> Self {
        let stack = Stack::shared().await.unwrap();
        let database = stack.fresh_database(name).await.unwrap();
        let url = walferry_retail::parse_url(&database.postgres_url).unwrap();
        Box::pin(schema::install(&url)).await.unwrap();
        Box::pin(load::load(&url, data, &mut |_| {})).await.unwrap();
        let shop = Self::over(Pipeline::over_existing(database, more, KEPT).await);
        let loaded = said(shop.pipeline.command(&["backfill"])).await;
        assert_eq!(loaded.code, Some(0), "{loaded:?}");
        shop.deliver(async || {}).await;
        shop.execute(stock::SEEN).await;
        shop
    }

    /// The rules over what the test itself puts into MongoDB.
    pub(super) async fn bare(name: &str) -> Self {
        let stack = Stack::shared().await.unwrap();
        let database = stack.fresh_database(name).await.unwrap();
        Self::over(Pipeline::over_existing(database, "", KEPT).await)
    }

    fn over(pipeline: Pipeline) -> Self {
        pipeline.reconfigure("mode = \"stream\"", "mode = \"stream\"\nhistory = true");
        let rest = format!(
            "[[table]]\nname = \"public.transactions\"\nmode = \"stream\"\n\
             [[table]]\nname = \"public.*\"\nmode = \"batch\"\n[analytics]\nrules = \"{}\"\n",
            directory().display()
        );
        append(&pipeline, &rest);
        Self {
            pipeline,
            rules: rules(),
        }
    }

    async fn execute(&self, sql: &str) {
        self.pipeline.sql.batch_execute(sql).await.unwrap();
    }

    /// Delivers changes of stock on both sides of what the rule about them looks for.
    pub(super) async fn change_stock(&self) {
        self.deliver(async || self.execute(stock::SOWN).await).await;
    }

    /// Has the daemon run until what is done has arrived.
    async fn deliver(&self, done: impl AsyncFnOnce()) {
        let daemon = self.pipeline.start();
        done().await;
        self.pipeline.equal(&STREAMED).await;
        assert!(daemon.stop().await.success());
    }

    /// Runs `walferry analytics … --json` and reads what it says.
    pub(super) async fn run(&self, arguments: &[&str]) -> Value {
        let arguments = [&["analytics"], arguments, &["--json"]].concat();
        let said = said(self.pipeline.command(&arguments)).await;
        assert_eq!(said.code, Some(0), "{arguments:?}: {said:?}");
        serde_json::from_str(&said.out).unwrap()
    }

    pub(super) async fn refresh(&self) -> Value {
        self.run(&["run", "--all"]).await
    }

    /// What is kept of a rule's answer, or what its view shows.
    pub(super) async fn answer(&self, rule: &str) -> Vec<Document> {
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

    pub(super) async fn expect_groups(&self, rule: &str, field: &str, expected: &[u64]) {
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
    pub(super) async fn expect_sql(&self) {
        let sql = self.pipeline.database.sql().await.unwrap();
        sql.batch_execute(PRELUDE).await.unwrap();
        let alert = "create temp table alert (rule text, customer_id integer, score integer)";
        sql.batch_execute(alert).await.unwrap();
        stock::note_commits(&sql, &self.pipeline.mongo).await;
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

    pub(super) async fn expect_rerun_to_change_nothing(&self) {
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
    pub(super) async fn expect_per(&self, rule: &Rule) {
        let Some(per) = &rule.per else { return };
        let field = self.field(rule, per);
        let field = &*field;
        let whole = self.answer(&rule.name).await;
        let chosen = whole.iter().step_by(whole.len().div_ceil(7));
        let chosen: Vec<Bson> = chosen.map(|it| it.get(field).unwrap().clone()).collect();
        let stages = narrowed(rule, per, &chosen);
        let mongo = &self.pipeline.mongo;
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
        assert_eq!(found, expected, "{} per {per}", rule.name);
    }

    /// Where the documents of an answer have the value of the field that a rule is per.
    fn field(&self, rule: &Rule, per: &str) -> String {
        let reach = self.rules.reach(rule);
        reach.map_or_else(|_| per.to_owned(), |it| it.field)
    }

    /// That an index finds what a rule looks up, and all that is asked about some values. The whole answer reads what
    /// the rule begins with, all of it.
    pub(super) async fn expect_indexes(&self, rule: &Rule) {
        let stages = rule.pipeline.bound(&rule.defaults(), &Names::new());
        let whole = self.scans(rule, &stages).await;
        assert!(whole.lookups.is_empty(), "{}: {whole:?}", rule.name);
        let Some(per) = &rule.per else { return };
        let field = self.field(rule, per);
        let answer = self.answer(&rule.name).await;
        let values = answer.first().and_then(|it| it.get(&field));
        let values: Vec<Bson> = values.cloned().into_iter().collect();
        assert!(!values.is_empty(), "{} has no {field}", rule.name);
        let some = self.scans(rule, &narrowed(rule, per, &values)).await;
        assert_eq!(some, Scans::default(), "{} per {per}", rule.name);
    }

    /// That whatever is read whole is seen, so that nothing seen means that nothing was.
    pub(super) async fn expect_scans_to_be_seen(&self) {
        let planned = doc! { "from": "customers", "localField": "location", "foreignField": "city", "as": "found" };
        let mut asked = planned.clone();
        asked.insert("pipeline", [doc! { "$limit": 1 }]);
        for lookup in [planned, asked] {
            let stages = [doc! { "$lookup": lookup }];
            let scans = Scans::of(&self.pipeline.mongo, "stores", &stages).await;
            let Scans { inputs, lookups } = scans.unwrap();
            assert!(inputs.iter().eq(["stores"]), "{stages:?}: {inputs:?}");
            assert!(lookups.iter().eq(["customers"]), "{stages:?}: {lookups:?}");
        }
    }

    async fn scans(&self, rule: &Rule, stages: &[Document]) -> Scans {
        let mongo = &self.pipeline.mongo;
        let scans = Scans::of(mongo, &rule.input.name, stages).await;
        scans.unwrap()
    }

    /// Tells the story and holds the new alerts against those that it names.
    pub(super) async fn expect_story(&self) {
        let before = self.alerts().await;
        let mut told = None;
        self.deliver(async || told = Some(self.tell().await)).await;
        self.refresh().await;
        let after = self.alerts().await;
        let new: BTreeSet<_> = after.difference(&before).cloned().collect();
        assert_eq!(new, named(&told.unwrap()));
        // Large sales move the norm of their store, so one that stood out barely may no longer do so.
        let gone: Vec<_> = before.difference(&after).collect();
        assert!(gone.iter().all(|(rule, ..)| rule == "f04"), "{gone:?}");
    }

    /// The same while a daemon runs that refreshes nothing on schedule: of the rules that are asked at once.
    pub(super) async fn expect_story_at_once(&self) {
        append(&self.pipeline, "refresh = \"1h\"\n");
        let daemon = self.pipeline.start();
        self.settled().await;
        let before = self.alerts().await;
        let told = self.tell().await;
        self.pipeline.equal(&STREAMED).await;
        self.settled().await;
        let after = self.alerts().await;
        let new: BTreeSet<_> = after.difference(&before).cloned().collect();
        let named = named(&told);
        let at_once = named.into_iter().filter(|(rule, ..)| {
            let rule = self.rules.find(rule).unwrap();
            self.is_at_once(rule)
        });
        assert_eq!(new, at_once.collect());
        let again = self.refresh().await;
        for rule in again["rules"].as_array().unwrap() {
            let is_at_once =
                self.is_at_once(self.rules.find(rule["rule"].as_str().unwrap()).unwrap());
            let counts = ["added", "changed", "removed"].map(|it| rule[it].as_u64().unwrap());
            assert!(!is_at_once || counts == [0, 0, 0], "{rule}");
        }
        assert!(daemon.stop().await.success());
    }

    async fn tell(&self) -> story::Told {
        let plan = story::Plan {
            database: walferry_retail::parse_url(&self.pipeline.database.postgres_url).unwrap(),
            pause: Duration::ZERO,
        };
        Box::pin(story::tell(&plan, &mut |_| {})).await.unwrap()
    }

    /// Whether every change of a streamed table that the rule reads is followed.
    fn is_at_once(&self, rule: &Rule) -> bool {
        let reach = self.rules.reach(rule);
        reach.is_ok_and(|it| !it.unfollowed.iter().any(|it| STREAMED.contains(&&**it)))
    }

    /// Waits until what is kept of the rules that are asked at once is what their whole answers are.
    async fn settled(&self) {
        let rules = self.rules.in_order().filter(|it| self.is_at_once(it));
        let rules: Vec<_> = rules.collect();
        let named: BTreeSet<_> = rules.iter().map(|it| &it.name[..3]).collect();
        assert!(named.iter().eq(&AT_ONCE), "{named:?}");
        let seen = async || {
            for rule in &rules {
                let input = self.pipeline.mongo.collection::<Document>(&rule.input.name);
                let stages = rule.pipeline.bound(&rule.defaults(), &Names::new());
                let whole = input.aggregate(stages).await.unwrap();
                let whole = by_id(whole.try_collect().await.unwrap());
                if by_id(self.answer(&rule.name).await) != whole {
                    return Err(format!("{}\n{}", rule.name, self.pipeline.log()));
                }
            }
            Ok(())
        };
        let seen = eventually(6 * PATIENCE, "the answers to be whole", seen).await;
        seen.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Rule, severity and sale of each alert.
    async fn alerts(&self) -> BTreeSet<Alert> {
        let alerts = self.documents("fraud_alerts", doc! {}).await;
        let alert = |it: &Document| {
            let rule = it.get_str("rule").unwrap().split('_').next().unwrap();
            let severity = it.get_str("severity").unwrap();
            let sale = it.get("transaction_id").unwrap().as_i32();
            (rule.to_owned(), severity.to_owned(), sale)
        };
        alerts.iter().map(alert).collect()
    }
}

/// The alerts that a story says it raises. That of a repeated basket names the first sale of the group.
fn named(told: &story::Told) -> BTreeSet<Alert> {
    let mut named = BTreeSet::new();
    for event in &told.events {
        for alert in &event.alerts {
            let (rule, severity) = alert.split_once(' ').unwrap();
            let sale = match rule {
                "F03" => told.events[0].transaction_id,
                _ => event.transaction_id,
            };
            named.insert((rule.to_lowercase(), severity.to_owned(), sale));
        }
    }
    named
}

/// What a rule asks about some values of the field that its answer is per.
fn narrowed(rule: &Rule, field: &str, values: &[Bson]) -> Vec<Document> {
    let mut stages = vec![doc! { "$match": { field: { "$in": values } } }];
    stages.extend(rule.pipeline.bound(&rule.defaults(), &Names::new()));
    stages
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
