//! Rules over what was delivered, with small ones of the test's own.

use std::path::PathBuf;

use bson::{Bson, Decimal128, Document, doc};
use futures_util::TryStreamExt;
use serde_json::{Value, json};
use walferry_harness::{Mongo, MongoOptions, Process, Signal, eventually, fresh_directory};

use crate::daemon::{PATIENCE, Pipeline};
use crate::grants::administrator;
use crate::site::{Said, said};

const SCHEMA: &str = "
    create table sales (id int primary key, customer int, amount numeric(10, 2), at timestamptz);
    create table lines (id int primary key, sale int, product text);
    insert into sales values (1, 7, 10.50, '2024-02-29 12:00Z'), (2, 7, 20.00, '2024-02-29 12:30Z'),
                             (3, 8, 500.10, '2024-03-01 01:00Z');
    insert into lines values (1, 1, 'a'), (2, 3, 'b'), (3, 3, 'a');";

const VIEW: &str = r#"{
  "title": "Sales with lines", "question": "What was sold?", "kind": "view", "input": "v_base",
  "pipeline": [{ "$lookup": { "from": "lines", "localField": "id", "foreignField": "sale", "as": "lines" } }]
}"#;
const BASE: &str = r#"{
  "title": "Sales", "question": "What was sold?", "kind": "view", "input": "sales",
  "pipeline": [{ "$match": { "amount": { "$ne": null } } }]
}"#;
const BIG: &str = r#"{
  "title": "Big sale", "question": "Is a sale big?", "kind": "alerts", "input": "v_sales", "per": "customer",
  "parameters": {
    "least": { "default": { "$numberDecimal": "100" }, "meaning": "big from here on" },
    "since": { "default": { "$date": "2024-01-01T00:00:00Z" }, "meaning": "no sale before" }
  },
  "indexes": [{ "collection": "sales", "keys": { "customer": 1, "at": 1 } },
              { "collection": "fraud_alerts", "keys": { "customer_id": 1 } }],
  "pipeline": [
    { "$match": { "amount": { "$gte": { "$param": "least" } }, "at": { "$gte": { "$param": "since" } } } },
    { "$replaceWith": {
      "_id": { "rule": "f01_big", "entity": "$customer", "ref": "$id" },
      "rule": "f01_big", "severity": "high", "score": 30, "customer_id": "$customer",
      "evidence": { "amount": "$amount", "lines": { "$size": "$lines" } } } }
  ],
  "output": "fraud_alerts"
}"#;
const RISK: &str = r#"{
  "title": "Risk", "question": "Whom to look at?", "kind": "report", "input": "fraud_alerts",
  "indexes": [{ "collection": "sales", "keys": { "customer": 1, "at": 1 } }],
  "pipeline": [{ "$group": { "_id": "$customer_id", "amount": { "$sum": "$evidence.amount" } } }],
  "output": "customer_risk"
}"#;

/// A pipeline with rules beside its configuration.
struct Shop(Pipeline);

// === impl Shop ===

impl Shop {
    /// With its tables delivered, and nothing running.
    async fn new(name: &str) -> Self {
        let shop = Self(Pipeline::new(name, SCHEMA, "public.*").await);
        let daemon = shop.0.start();
        shop.0.equal(&["sales", "lines"]).await;
        assert!(daemon.stop().await.success());
        let section = "[analytics]\nrules = \"rules\"\n";
        shop.configure(section);
        std::fs::create_dir(shop.rules()).unwrap();
        for (name, text) in [
            ("a01_risk", RISK),
            ("f01_big", BIG),
            ("v_base", BASE),
            ("v_sales", VIEW),
        ] {
            shop.write(name, text);
        }
        shop
    }

    fn configure(&self, more: &str) {
        let config = std::fs::read_to_string(self.0.config()).unwrap();
        std::fs::write(self.0.config(), format!("{config}\n{more}")).unwrap();
    }

    fn rules(&self) -> PathBuf {
        self.0.config().with_file_name("rules")
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.rules().join(format!("{name}.json")), text).unwrap();
    }

    /// A rule whose output holds somebody else's document.
    async fn write_taken(&self, name: &str) {
        let taken = self.0.mongo.collection::<Document>("taken");
        taken.insert_one(doc! { "_id": 1 }).await.unwrap();
        let rule = BIG.replace("f01_big", name);
        self.write(name, &rule.replace("\"fraud_alerts\"\n", "\"taken\"\n"));
    }

    async fn run(&self, arguments: &[&str]) -> Said {
        said(self.0.command(&[&["analytics"], arguments].concat())).await
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let said = self.run(&[arguments, &["--json"]].concat()).await;
        assert_eq!(said.code, Some(0), "{said:?}");
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"))
    }

    /// Runs a command that finds mistakes: its exit code and what it said of the files.
    async fn mistakes(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let Said { code, out, err } = self.run(arguments).await;
        (
            code,
            (out + &err).replace(&format!("{}/", self.rules().display()), ""),
        )
    }

    async fn execute(&self, sql: &str) {
        self.0.sql.batch_execute(sql).await.unwrap();
    }

    /// Delivers a change.
    async fn deliver(&self, sql: &str) {
        let daemon = self.0.start();
        self.execute(sql).await;
        self.0.equal(&["sales", "lines"]).await;
        assert!(daemon.stop().await.success());
    }

    async fn documents(&self, collection: &str) -> Vec<Document> {
        let collection = self.0.mongo.collection::<Document>(collection);
        let found = collection.find(doc! {}).sort(doc! { "_id": 1 }).await;
        found.unwrap().try_collect().await.unwrap()
    }

    async fn names(&self) -> Vec<String> {
        let mut names = self.0.mongo.list_collection_names().await.unwrap();
        // The server's list of views, which stays when the last one goes.
        names.retain(|it| it != "system.views");
        names.sort();
        names
    }
}

fn decimal(text: &str) -> Bson {
    text.parse::<Decimal128>().unwrap().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_listed_checked_and_asked_without_anything_that_lasts() {
    let shop = Shop::new("asked").await;
    let before = shop.names().await;
    let listed = shop.run(&["list"]).await;
    for part in [
        "f01_big   alerts  by command  fraud_alerts",
        "least=100, since=2024-01-01T00:00:00Z",
        "v_base    view    when read",
    ] {
        assert!(listed.out.contains(part), "{}", listed.out);
    }
    let listed = shop.json(&["list"]).await;
    let parameter = &listed["rules"][1]["parameters"][0];
    assert_eq!(
        parameter["default"],
        json!({ "$numberDecimal": "100" }),
        "{listed}"
    );

    let checked = shop.run(&["check"]).await;
    assert_eq!(
        (checked.code, &*checked.out),
        (Some(0), "4 rules, no mistake\n"),
        "{checked:?}"
    );

    let answered = shop.json(&["run", "F01"]).await;
    let rule = &answered["rules"][0];
    assert_eq!(
        (&rule["rule"], &rule["title"]),
        (&"f01_big".into(), &"Big sale".into())
    );
    let evidence = json!({ "amount": { "$numberDecimal": "500.10" }, "lines": 2 });
    assert_eq!(rule["rows"][0]["evidence"], evidence, "{answered}");
    assert_eq!(rule["rows"].as_array().unwrap().len(), 1);
    assert_eq!(shop.names().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_a_table_or_comma_separated_and_takes_parameters_of_their_types() {
    let shop = Shop::new("shown").await;
    let table = shop.run(&["run", "f01", "a01"]).await;
    let expected = "f01_big: Big sale (1)\n\
                    severity  score  customer_id  evidence\n\
                    high      30     8            {amount: 500.10, lines: 2}\n\
                    \n\
                    a01_risk: Risk (0)\n";
    assert_eq!((table.code, &*table.out), (Some(0), expected), "{table:?}");
    let csv = shop
        .run(&["run", "f01", "--param", "least=20", "--csv"])
        .await;
    let expected = "_id.rule,_id.entity,_id.ref,rule,severity,score,customer_id,evidence.amount,evidence.lines\n\
                    f01_big,7,2,f01_big,high,30,7,20.00,0\n\
                    f01_big,8,3,f01_big,high,30,8,500.10,2\n";
    assert_eq!((csv.code, &*csv.out), (Some(0), expected), "{csv:?}");
    let since = shop
        .json(&[
            "run",
            "f01",
            "--param",
            "least=0",
            "--param",
            "since=2024-03-01",
        ])
        .await;
    assert_eq!(
        since["rules"][0]["rows"].as_array().unwrap().len(),
        1,
        "{since}"
    );
    for (arguments, expected) in [
        (
            &["run", "f01", "--param", "least=much"][..],
            "least of f01_big must be a decimal number",
        ),
        (
            &["run", "f01", "--param", "most=1"],
            "there is no parameter most: f01_big has least, since",
        ),
        (&["run", "f01", "--param", "most"], "write name=value"),
        (&["run", "f99"], "there is no rule f99"),
        (&["run", "v"], "v_base, v_sales"),
        (&["run", "f01", "a01", "--csv"], "the answer of one rule"),
        (&["run", "f01", "--csv", "--json"], "cannot be used with"),
        (&["run"], "required"),
    ] {
        let said = shop.run(arguments).await;
        assert!(
            said.code == Some(2) && said.err.contains(expected),
            "{arguments:?}: {said:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_refresh_changes_nothing_and_what_no_longer_holds_goes() {
    let shop = Shop::new("refreshed").await;
    let first = shop.json(&["run", "--all"]).await;
    assert_eq!(first["views"], json!(["v_base", "v_sales"]), "{first}");
    assert_eq!(first["indexes"], 2, "{first}");
    let turns: Vec<_> = first["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["rule"])
        .collect();
    assert_eq!(
        turns,
        ["f01_big", "a01_risk"],
        "a report comes after what it reads"
    );
    let alerts = shop.documents("fraud_alerts").await;
    let evidence = alerts[0].get_document("evidence").unwrap();
    assert_eq!(evidence.get("amount"), Some(&decimal("500.10")));
    assert!(alerts[0].get_datetime("detected_at").is_ok(), "{alerts:?}");
    let risk = shop.documents("customer_risk").await;
    assert_eq!(risk, [doc! { "_id": 8, "amount": decimal("500.10") }]);

    let names = shop.names().await;
    let second = shop.run(&["run", "--all"]).await;
    let expected = "rule      rows  added  changed  removed         output\n\
                    f01_big      1      0        0        0   fraud_alerts\n\
                    a01_risk     1      0        0        0  customer_risk\n";
    assert_eq!(
        (second.code, &*second.out),
        (Some(0), expected),
        "{second:?}"
    );
    assert_eq!(shop.documents("fraud_alerts").await, alerts);
    assert_eq!(shop.documents("customer_risk").await, risk);
    assert_eq!(shop.names().await, names);

    shop.deliver(
        "update sales set amount = 100 where id = 2; update sales set amount = 5 where id = 3",
    )
    .await;
    let third = shop.run(&["run", "--all", "--csv"]).await;
    let expected = "rule,rows,added,changed,removed,output,error,not_asked\n\
                    f01_big,1,1,0,1,fraud_alerts,,\n\
                    a01_risk,1,1,0,1,customer_risk,,\n";
    assert_eq!((third.code, &*third.out), (Some(0), expected), "{third:?}");

    std::fs::remove_file(shop.rules().join("f01_big.json")).unwrap();
    shop.write("f02_big", &BIG.replace("f01_big", "f02_big"));
    let renamed = shop.json(&["run", "--all"]).await;
    let last = renamed["rules"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["rule"], &last["removed"]),
        (&"f01_big".into(), &1.into()),
        "{renamed}"
    );
    let left = shop.documents("fraud_alerts").await;
    assert_eq!(left[0].get_str("rule").unwrap(), "f02_big", "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_is_told_with_its_file_line_and_column() {
    let shop = Shop::new("mistaken").await;
    shop.write("b_syntax", "{\n  \"title\": Big\n}");
    shop.write("b_unknown", &BASE.replace("\"kind\"", "\"knid\""));
    shop.write(
        "b_parameter",
        &BASE.replace("null", "{ \"$param\": \"p\" }"),
    );
    shop.write("c_one", &BASE.replace("\"sales\"", "\"c_two\""));
    shop.write("c_two", &BASE.replace("\"sales\"", "\"c_one\""));
    let (code, found) = shop.mistakes(&["check"]).await;
    for expected in [
        "b_syntax.json:2:12: not JSON",
        "b_unknown.json:2:51: no such field \"knid\"",
        "b_parameter.json:3:61: there is no parameter \"p\"",
        "c_one.json:2:76: c_one reads c_two reads c_one",
        "MongoDB was not asked yet",
    ] {
        assert!(found.contains(expected), "{expected} in\n{found}");
    }
    assert_eq!(code, Some(1));
    let (code, found) = shop.mistakes(&["run", "f01"]).await;
    assert!(
        code == Some(2) && found.contains("b_syntax.json:2:12:"),
        "{found}"
    );

    for name in ["b_syntax", "b_unknown", "b_parameter", "c_one", "c_two"] {
        std::fs::remove_file(shop.rules().join(format!("{name}.json"))).unwrap();
    }
    shop.write(
        "b_stage",
        &BIG.replace("\"$size\": \"$lines\"", "\"$sise\": \"$lines\""),
    );
    shop.write("b_input", &BASE.replace("\"sales\"", "\"sails\""));
    shop.write("v_wrong", &BASE.replace("\"$ne\"", "\"$nee\""));
    shop.write("w_reader", &BASE.replace("\"sales\"", "\"v_wrong\""));
    shop.write("lines", BASE);
    shop.write_taken("g_taken").await;
    let before = shop.names().await;
    let (code, found) = shop.mistakes(&["check"]).await;
    let lines: Vec<_> = found.lines().collect();
    for (line, expected) in lines.iter().zip([
        "b_input.json:2:76: there is no collection sails",
        "b_stage.json:11:5: MongoDB says: ",
        "g_taken.json:16:13: taken was not made for the answers of rules",
        "lines.json:1:1: a collection has the view's name",
        "v_wrong.json:3:16: MongoDB says: unknown operator: $nee",
        "10 rules, mistakes: 5",
    ]) {
        assert!(line.starts_with(expected), "{expected} in\n{found}");
    }
    assert_eq!((code, lines.len()), (Some(1), 6), "{found}");
    let said = shop.run(&["run", "b_stage"]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("asking b_stage:"), "{said:?}");
    assert_eq!(shop.names().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_fails_leaves_its_answer_and_the_others_go_on() {
    let shop = Shop::new("failing").await;
    shop.json(&["run", "--all"]).await;
    shop.write(
        "f00_twice",
        &BIG.replace("f01_big", "f00_twice")
            .replace("\"$id\"", "1")
            .replace("100", "1")
            .replace("\"$customer\", \"ref\"", "1, \"ref\""),
    );
    shop.write_taken("f09_taken").await;
    let said = shop.run(&["run", "--all"]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.out
            .contains("f09_taken failed: taken was not made for the answers of rules"),
        "{said:?}"
    );
    assert_eq!(shop.documents("taken").await, [doc! { "_id": 1 }]);
    assert!(
        said.out
            .contains("f00_twice failed: two documents of the answer have the same _id"),
        "{said:?}"
    );
    assert!(said.out.contains("f01_big      1      0"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_rules_it_is_said_what_to_add() {
    let shop = Shop::new("without").await;
    std::fs::remove_dir_all(shop.rules()).unwrap();
    let (code, text) = shop.mistakes(&["list"]).await;
    assert!(
        code == Some(2) && text.contains("analytics.rules names the directory"),
        "{text}"
    );
    std::fs::create_dir(shop.rules()).unwrap();
    let (code, text) = shop.mistakes(&["check"]).await;
    assert!(
        code == Some(2) && text.contains("there are no rules in"),
        "{text}"
    );
    shop.0.configure("public.*", true);
    let (code, text) = shop.mistakes(&["run", "--all"]).await;
    assert!(
        code == Some(2) && text.contains("[analytics]\n  rules = \"etl/analytics\""),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_each_change_in_a_pipe() {
    let shop = Shop::new("watched").await;
    let log = shop.rules().join("watch.log");
    let command = shop
        .0
        .command(&["analytics", "watch", "f01", "--every", "100ms"]);
    let watch = Process::spawn(&command, &log).unwrap();
    let daemon = shop.0.start();
    let said = async |text: &str| {
        let seen = async || {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            if said.contains(text) {
                Ok(())
            } else {
                Err(said)
            }
        };
        eventually(PATIENCE, "the watch to tell", seen)
            .await
            .unwrap();
    };
    said("+ f01_big {\"_id\":{\"rule\":\"f01_big\",\"entity\":8,\"ref\":3}").await;
    shop.execute("update sales set amount = 600 where id = 3")
        .await;
    said("~ f01_big").await;
    shop.execute("delete from sales where id = 3").await;
    said("- f01_big").await;
    assert!(watch.stop(Signal::INT, PATIENCE).await.unwrap().success());
    assert!(daemon.stop().await.success());
    let left = shop.names().await;
    assert!(
        !left.iter().any(|it| it.starts_with("_walferry")),
        "{left:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_make_views_is_told_so() {
    let shop = Shop::new("denied").await;
    let root = fresh_directory("denied").unwrap();
    let options = MongoOptions {
        has_users: true,
        ..MongoOptions::default()
    };
    let mongo = Mongo::start_with(root.path(), options).await.unwrap();
    let admin = administrator(&mongo).await;
    let name = &shop.0.database.name;
    let sales = admin.client().database(name);
    for collection in ["sales", "lines"] {
        sales.create_collection(collection).await.unwrap();
    }
    let reader =
        doc! { "createUser": "reader", "pwd": "secret", "roles": [{ "role": "read", "db": name }] };
    admin.run_command(reader).await.unwrap();
    let mut command = shop.0.command(&["analytics", "run", "f01"]);
    let url = mongo.url().replace("127.0.0.1", "reader:secret@127.0.0.1");
    command.env("WALFERRY__SINK__URL", format!("{url}&authSource=admin"));
    let said = said(command).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("making the view v_base"), "{said:?}");
    assert!(
        said.err
            .contains("grant walferry's user the roles readWrite and dbAdmin"),
        "{said:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_refreshes_on_schedule_and_a_rule_that_fails_stops_nothing() {
    let shop = Shop::new("scheduled").await;
    shop.0.reconfigure("rules = ", "refresh = \"1s\"\nrules = ");
    shop.write("f00_wrong", &BIG.replace("\"$size\": ", "\"$sise\": "));
    let daemon = shop.0.start();
    let alerts = async |count: usize| {
        let seen = async || match shop.documents("fraud_alerts").await.len() {
            found if found == count => Ok(()),
            found => Err(format!("{found} alerts\n{}", shop.0.log())),
        };
        let seen = eventually(PATIENCE, "the alerts", seen).await;
        seen.unwrap_or_else(|error| panic!("{error}"));
    };
    alerts(1).await;
    shop.execute("insert into sales values (4, 9, 900, '2024-03-02')")
        .await;
    alerts(2).await;
    shop.execute("delete from sales").await;
    alerts(0).await;
    let log = shop.0.log();
    assert!(
        log.contains("a rule failed") && log.contains("f00_wrong"),
        "{log}"
    );
    assert!(daemon.stop().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_over_a_history_that_nobody_keeps_is_not_asked_and_says_what_it_wants() {
    let shop = Shop::new("unkept").await;
    let versions = BASE.replace("\"sales\"", "\"sales_history\"");
    shop.write("v_versions", &versions.replace("\"amount\"", "\"xid\""));
    let changed = RISK.replace("fraud_alerts", "v_versions");
    let changed = changed.replace("customer_id", "_id.row");
    let changed = changed.replace("$evidence.amount", "$amount");
    shop.write(
        "r_changed",
        &changed.replace("customer_risk", "report_changed"),
    );
    let wanted = "there is no collection sales_history in the database";
    let remedy = "with `history = true` in the [[table]] of sales the next start";

    let listed = shop.run(&["list"]).await;
    let told = "r_changed wants `history = true` in the [[table]] of sales\n";
    assert!(listed.out.contains(told), "{}", listed.out);
    let listed = shop.json(&["list"]).await;
    assert_eq!(
        listed["rules"][2]["histories"],
        json!(["sales"]),
        "{listed}"
    );
    assert_eq!(listed["rules"][0]["histories"], json!([]), "{listed}");
    let (code, found) = shop.mistakes(&["check"]).await;
    let note = format!("note: v_versions.json:2:76: {wanted}");
    assert!(code == Some(0) && found.starts_with(&note), "{found}");
    assert!(found.contains(remedy), "{found}");
    assert!(found.ends_with("6 rules, no mistake\n"), "{found}");
    let said = shop.run(&["run", "r_changed"]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("r_changed is not asked: "), "{said:?}");
    assert!(said.err.contains(remedy), "{said:?}");

    let refreshed = shop.json(&["run", "--all"]).await;
    let of = |rule: &str| {
        let rules = refreshed["rules"].as_array().unwrap().iter();
        let mut found = rules.filter(|it| it["rule"] == rule);
        found.next().unwrap()
    };
    assert_eq!(of("f01_big")["added"], 1, "{refreshed}");
    let unasked = of("r_changed");
    assert_eq!(unasked["error"], Value::Null, "{refreshed}");
    let why = unasked["not_asked"].as_str().unwrap();
    assert!(why.contains(wanted) && why.contains(remedy), "{why}");
    let said = shop.run(&["run", "--all"]).await;
    assert!(said.out.contains("r_changed is not asked: "), "{said:?}");

    // A history of what is not there either is a failure: nothing was delivered.
    shop.write(
        "r_nothing",
        &RISK
            .replace("fraud_alerts", "sails_history")
            .replace("customer_risk", "report_nothing"),
    );
    let said = shop.run(&["run", "--all"]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.out.contains("r_nothing failed: "), "{said:?}");
    let said = shop.run(&["run", "r_nothing"]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.err
            .contains("r_nothing is not asked: there is no collection"),
        "{said:?}"
    );
    std::fs::remove_file(shop.rules().join("r_nothing.json")).unwrap();

    shop.0
        .reconfigure("mode = \"stream\"", "mode = \"stream\"\nhistory = true");
    shop.deliver("update sales set amount = 11 where id = 1")
        .await;
    let refreshed = shop.json(&["run", "--all"]).await;
    let rows = shop.documents("report_changed").await;
    assert_eq!(
        rows,
        [doc! { "_id": 1, "amount": decimal("11.00") }],
        "{refreshed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_tells_once_of_a_rule_that_is_not_asked_and_counts_no_failure() {
    let shop = Shop::new("unkept_on_schedule").await;
    shop.0.reconfigure("rules = ", "refresh = \"1s\"\nrules = ");
    let versions = RISK.replace("\"fraud_alerts\"", "\"sales_history\"");
    shop.write(
        "r_versions",
        &versions.replace("customer_risk", "report_versions"),
    );
    let daemon = shop.0.start();
    // Two refreshes that see something new, so that a second one could have told it again.
    for (sale, count) in [(4, 2), (5, 3)] {
        shop.execute(&format!(
            "insert into sales values ({sale}, 9, 900, '2024-03-02')"
        ))
        .await;
        let seen = async || match shop.documents("fraud_alerts").await.len() {
            found if found == count => Ok(()),
            found => Err(format!("{found} alerts\n{}", shop.0.log())),
        };
        let seen = eventually(PATIENCE, "the alerts", seen).await;
        seen.unwrap_or_else(|error| panic!("{error}"));
    }
    assert!(daemon.stop().await.success());
    let log = shop.0.log();
    assert_eq!(log.matches("a rule is not asked").count(), 1, "{log}");
    assert!(log.contains("history = true"), "{log}");
    assert!(!log.contains("a rule failed"), "{log}");
}
