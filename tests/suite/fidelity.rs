//! `walferry fidelity` and `walferry preview` on real servers: what they say is what a load stores.

use std::collections::BTreeMap;

use bson::{Bson, Document};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use walferry_mongodb::ExtendedJson;

use crate::site::{Said, Site, binary, said};
use crate::types;

const KEEP: (&str, &str) = ("WALFERRY__SINK__MICROSECONDS", "keep");
const REFUSE: (&str, &str) = ("WALFERRY__SINK__NUMERIC_OVERFLOW", "error");
/// No MongoDB listens there.
const NOWHERE: (&str, &str) = ("WALFERRY__SINK__URL", "mongodb://127.0.0.1:1");

/// A row of every type each, in a batch table.
async fn every(name: &str, rows: i32) -> Site {
    let site = Site::new(name, &types::EVERY.schema(), &[("public.*", "batch")]).await;
    let mut random = ChaCha8Rng::seed_from_u64(7);
    for id in 1..=rows {
        let insert = types::EVERY.insert(&mut random, id);
        site.sql.batch_execute(&insert).await.unwrap();
    }
    site
}

async fn run(site: &Site, arguments: &[&str], environment: &[(&str, &str)]) -> Said {
    let mut command = binary();
    command.args(arguments).arg("--config").arg(site.config());
    command.envs(environment.iter().copied());
    said(command).await
}

/// The columns of a table in the report of `fidelity`, by name.
async fn columns(
    site: &Site,
    table: &str,
    environment: &[(&str, &str)],
) -> BTreeMap<String, Value> {
    let said = run(site, &["fidelity", table, "--json"], environment).await;
    let report: Value = serde_json::from_str(&said.out).unwrap();
    let columns = report["tables"][0]["columns"].as_array().unwrap().clone();
    let named = |column: Value| (column["column"].as_str().unwrap().to_owned(), column);
    columns.into_iter().map(named).collect()
}

/// How `fidelity` calls a value's type.
fn bson_type(value: &Bson) -> &'static str {
    match value {
        Bson::Boolean(_) => "Boolean",
        Bson::Int32(_) => "Int32",
        Bson::Int64(_) => "Int64",
        Bson::Double(_) => "Double",
        Bson::Decimal128(_) => "Decimal128",
        Bson::String(_) => "String",
        Bson::Binary(_) => "Binary",
        Bson::DateTime(_) => "Date",
        Bson::Document(_) => "Document",
        Bson::Array(_) => "Array",
        other => panic!("{other:?}"),
    }
}

fn remedies(column: &Value) -> Vec<&str> {
    let notes = column["notes"].as_array().unwrap();
    let remedies = notes.iter().filter_map(|note| note["remedy"].as_str());
    remedies.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_has_a_line_with_the_bson_type_that_a_load_stores() {
    let site = every("fidelity", 40).await;
    let columns = columns(&site, "every", &[]).await;
    assert_eq!(columns.len(), 1 + types::EVERY.cases.len());
    assert_eq!(site.run(&["backfill"]).await.code, Some(0));
    let documents = site.documents("every").await;
    for (at, case) in types::EVERY.cases.iter().enumerate() {
        let name = format!("c{at}");
        let column = &columns[&name];
        let (bson, fidelity) = (&column["bson"], &column["fidelity"]);
        let expected = bson.as_str().unwrap().split(' ').next().unwrap();
        let notes = column["notes"].to_string();
        let values = documents.iter().map(|it| it.get(&name).unwrap());
        let values: Vec<_> = values.filter(|it| **it != Bson::Null).collect();
        let typed = values.iter().filter(|it| bson_type(it) == expected).count();
        assert!(typed > 0, "{}: no {bson}", case.name);
        if typed < values.len() {
            assert!(notes.contains("String"), "{}: {column}", case.name);
            assert_ne!(fidelity, "exact", "{}: {column}", case.name);
        }
    }
    let said = site.run(&["fidelity"]).await;
    let lines = |name: &String| {
        let begin = format!("{name} ");
        said.out.lines().filter(|it| it.starts_with(&begin)).count()
    };
    assert!(columns.keys().all(|name| lines(name) == 1), "{}", said.out);
}

const LOSSES: &str = r#"
create type visit as (at timestamptz, place text);
create table t (
    id int primary key, small int2, name varchar(20), price numeric(10,2), at3 timestamptz(3),
    at timestamptz, at4 timestamp(4), n numeric, wide numeric(35,0), v visit, times timestamp(6)[], list int4[],
    span tstzrange, j json, jb jsonb, "a.b" int, g int generated always as (id * 2) stored
);
create table fine (id int primary key, price numeric(10,2), at timestamptz(3), note text);
create table keyless (v int);
create table keyed (at timestamptz, list int[], primary key (at, list));
create table clash (id int primary key, at timestamp, at_us int8);
create table part (id int primary key, hidden text);
"#;

async fn losses(name: &str) -> Site {
    let tables = [("public.part", "stream"), ("public.*", "batch")];
    let site = Site::new(name, LOSSES, &tables).await;
    let publication = "drop publication p; create publication p for table part (id) where (id > 7)";
    site.sql.batch_execute(publication).await.unwrap();
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn each_loss_is_named_with_the_option_that_avoids_it() {
    let site = losses("losses").await;
    let columns_of_t = columns(&site, "t", &[]).await;
    let expected = [
        ("small", "Int32", "exact", ""),
        ("name", "String", "exact", ""),
        ("price", "Decimal128", "exact", ""),
        ("at3", "Date", "other_form", ""),
        ("at", "Date", "lossy", "microseconds = \"keep\""),
        ("at4", "Date", "lossy", "microseconds = \"keep\""),
        (
            "n",
            "Decimal128",
            "other_form",
            "numeric_overflow = \"error\"",
        ),
        (
            "wide",
            "Decimal128",
            "other_form",
            "a precision of 34 digits",
        ),
        (
            "v",
            "Document {at: Date, place: String}",
            "lossy",
            "a column of its own",
        ),
        ("times", "Array of Date", "lossy", "a precision of 3 digits"),
        ("list", "Array of Int32", "lossy", ""),
        (
            "span",
            "Document {lower, upper: Date, ...}",
            "lossy",
            "a column of its own",
        ),
        ("j", "Document, Array or scalar", "lossy", "jsonb"),
        ("jb", "Document, Array or scalar", "other_form", ""),
        ("a.b", "Int32", "exact", ""),
    ];
    for (name, bson, fidelity, remedy) in expected {
        let column = &columns_of_t[name];
        assert_eq!(column["bson"], bson, "{column}");
        assert_eq!(column["fidelity"], fidelity, "{column}");
        let remedies = remedies(column).join("\n");
        assert!(remedies.contains(remedy), "{column}");
        assert!(!remedy.is_empty() || remedies.is_empty(), "{column}");
    }
    let generated = &columns_of_t["g"];
    assert_eq!(
        (&generated["bson"], &generated["type"]),
        (&json!(null), &json!("int4"))
    );
    assert!(generated["notes"].to_string().contains("generated"));
    assert_eq!(columns_of_t["times"]["type"], "timestamp(6)[]");

    let policies = [KEEP, REFUSE, NOWHERE];
    let kept = columns(&site, "t", &policies).await;
    assert_eq!(kept["at"]["bson"], "Date, Int64 at_us");
    assert_eq!(kept["at"]["fidelity"], "other_form");
    assert_eq!(kept["times"]["fidelity"], "lossy");
    assert_eq!(kept["n"]["fidelity"], "refused");
    let clash = columns(&site, "clash", &policies).await;
    assert_eq!(clash["at"]["fidelity"], "refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_records_lose_is_named_for_streamed_tables() {
    let schema = "create table t (id int primary key, n numeric, m numeric(9,2)[], at timestamp, ts timestamp(3),
                                  t time, i interval, z timetz);
                  create table keyed (i interval primary key)";
    let site = Site::new("lost", schema, &[("public.*", "stream")]).await;
    let plain = std::fs::read_to_string(site.config()).unwrap();
    let lost = async |modes: &str| {
        let config = plain.replace("[kafka]\n", &format!("[kafka]\n{modes}\n"));
        std::fs::write(site.config(), config).unwrap();
        let mut lost = Vec::new();
        for table in ["t", "keyed"] {
            for (name, column) in columns(&site, table, &[]).await {
                if column["notes"].to_string().contains("records") {
                    lost.push((name, remedies(&column).join("\n")));
                }
            }
        }
        lost
    };
    let names = |lost: Vec<(String, String)>, remedy: &str| {
        let named = lost.into_iter().filter(|(_, said)| said.contains(remedy));
        named.map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(lost("").await, []);
    assert_eq!(
        names(lost("decimal = \"double\"").await, "kafka.decimal"),
        ["m", "n"]
    );
    let connect = lost("time_precision = \"connect\"").await;
    assert_eq!(names(connect, "kafka.time_precision"), ["at", "t"]);
    let debezium = lost("compatibility = \"debezium\"").await;
    assert_eq!(names(debezium.clone(), "kafka.interval"), ["i"]);
    assert_eq!(names(debezium, "kafka.compatibility"), ["z"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_says_whether_anything_may_be_lost() {
    let site = losses("fidelity_codes").await;
    for (table, code) in [
        ("fine", 0),
        ("keyed", 0),
        ("t", 3),
        ("keyless", 3),
        ("part", 3),
    ] {
        let said = site.run(&["fidelity", table]).await;
        assert_eq!(said.code, Some(code), "{table}: {}{}", said.out, said.err);
    }
    let keyless = site.run(&["fidelity", "keyless"]).await;
    assert!(
        keyless.out.contains("REFUSED: no primary key"),
        "{}",
        keyless.out
    );
    let part = site.run(&["fidelity", "part"]).await;
    for says in [
        "(id > 7)",
        "the publication leaves it out",
        "public.part (stream)",
    ] {
        assert!(part.out.contains(says), "{}", part.out);
    }
    let unknown = site.run(&["fidelity", "nobody"]).await;
    assert_eq!(unknown.code, Some(2));
    assert!(
        unknown.err.contains("nobody: the source has no such table"),
        "{}",
        unknown.err
    );

    let role =
        "do $$ begin create role blind login; exception when duplicate_object then null; end $$";
    site.sql.batch_execute(role).await.unwrap();
    let url = site.database.postgres_url.replace("postgres@", "blind@");
    let blind = run(
        &site,
        &["fidelity", "fine"],
        &[("WALFERRY__SOURCE__URL", &url)],
    )
    .await;
    assert_eq!(blind.code, Some(1), "{}{}", blind.out, blind.err);
    assert!(
        blind.out.contains("GRANT SELECT ON public.fine"),
        "{}",
        blind.out
    );
}

/// What `preview` shows of documents, in no order.
fn lines(documents: &[Document]) -> Vec<String> {
    let line = |document: &Document| {
        let json = ExtendedJson::new(document.to_vec().unwrap());
        serde_json::to_string(&json).unwrap()
    };
    let mut lines: Vec<_> = documents.iter().map(line).collect();
    lines.sort();
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn the_previewed_documents_are_those_that_a_load_then_stores() {
    let site = every("preview", 120).await;
    for environment in [&[NOWHERE][..], &[NOWHERE, KEEP]] {
        let said = run(&site, &["preview", "every", "--rows", "1000"], environment).await;
        assert_eq!(said.code, Some(0), "{}", said.err);
        assert!(site.collections().await.is_empty());
        let mut previewed: Vec<_> = said.out.lines().map(str::to_owned).collect();
        previewed.sort();

        let backfill = run(&site, &["backfill"], &environment[1..]).await;
        assert_eq!(backfill.code, Some(0), "{}", backfill.err);
        let stored = site.documents("every").await;
        assert_eq!(stored.len(), 120);
        assert_eq!(previewed, lines(&stored));
        site.mongo.drop().await.unwrap();
    }
}

const ROWS: &str = "
create table orders (id int primary key, n numeric, at timestamp, note text);
insert into orders values (1, 1.50, '2024-02-29 12:34:56.123456', 'one'), (2, repeat('7', 35)::numeric, null, 'two'),
    (3, 3, null, repeat('x', 17000000)), (4, 4, null, null);
create table other (id int primary key);";

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cannot_be_carried_is_shown_with_its_error() {
    let site = Site::new("refused", ROWS, &[("public.orders", "stream")]).await;
    let said = run(&site, &["preview", "orders"], &[REFUSE, NOWHERE]).await;
    assert_eq!(said.code, Some(3), "{}", said.err);
    let rows: Vec<Value> = said
        .out
        .lines()
        .map(|it| serde_json::from_str(it).unwrap())
        .collect();
    assert_eq!(rows[0]["note"], "one");
    assert!(
        rows[1]["error"]
            .to_string()
            .contains("more digits than Decimal128 holds")
    );
    assert!(
        rows[2]["error"]
            .to_string()
            .contains("is a document of 17000")
    );
    assert_eq!((rows.len(), &rows[3]["_id"]), (4, &json!(4)));

    let (code, object) = site.json(&["preview", "orders", "--rows", "2"]).await;
    assert_eq!(code, Some(0), "{object}");
    let at = json!({ "$date": "2024-02-29T12:34:56.123Z" });
    let documents = json!([
        { "row": 1, "document": { "_id": 1, "id": 1, "n": { "$numberDecimal": "1.50" }, "at": at, "note": "one" } },
        { "row": 2, "document": { "_id": 2, "id": 2, "n": "7".repeat(35), "at": null, "note": "two" } },
    ]);
    let expected = json!({ "table": "public.orders", "rows": documents, "truncated": { "at": 1 } });
    assert_eq!(object, expected);
    let said = site.run(&["preview", "orders", "--rows", "1"]).await;
    assert_eq!(said.out.lines().count(), 1);
    assert!(
        said.err
            .contains("at: the microseconds of 1 values are cut off"),
        "{}",
        said.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_of_what_is_not_there_or_of_too_many_rows_is_a_mistake() {
    let site = Site::new("mistaken", ROWS, &[("public.orders", "stream")]).await;
    for (arguments, says) in [
        (&["preview", "nobody"][..], "no such table"),
        (&["preview", "other"], "is not selected"),
        (&["preview", "orders", "--rows", "0"], "1..=1000"),
        (&["preview", "orders", "--rows", "1001"], "1..=1000"),
    ] {
        let said = site.run(arguments).await;
        assert_eq!(said.code, Some(2), "{arguments:?}");
        assert!(said.err.contains(says), "{}", said.err);
    }
}
