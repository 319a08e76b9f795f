//! `walferry backfill` on real servers.

use bson::doc;
use mongodb::IndexModel;
use walferry_harness::project_root;

use crate::oracle;
use crate::site::Site;

const SHOP: &str = r#"
create table kinds (
    id int primary key, b bool, i2 int2, i8 int8, f4 float4, f8 float8, n numeric, n2 numeric(10,2), t text, c char(4),
    v varchar(20), by bytea, u uuid, d date, ts timestamp, tz timestamptz, j json, jb jsonb
);
insert into kinds values
    (1, true, -7, 9007199254740993, 0.1, '-Infinity', 12.340, 0.10, E'a\tb\\c\nd', 'abcd', '', '\x00ff', '00112233-4455-6677-8899-aabbccddeeff',
     '2024-02-29', '2024-02-29 12:34:56.789', '1969-12-31 23:59:59.999+00', '{"a": [1, 2.5, "x"]}', '{"b": null}'),
    (2, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null);
create table lines (b int, a int, note text not null, primary key (a, b));
insert into lines select i % 7, i, 'note ' || i from generate_series(1, 5000) i;
create table empty (id int primary key);
create schema sales;
create table sales.zones (id text primary key, name char(6));
insert into sales.zones values ('n', 'North'), ('s', null);
create table parted (id int primary key, v text) partition by range (id);
create table parted_1 partition of parted for values from (0) to (10);
create table parted_2 partition of parted for values from (10) to (20);
insert into parted select i, 'v' from generate_series(0, 19) i;
create table streamed (id int primary key);
"#;

const TABLES: [(&str, &str); 3] = [
    ("public.streamed", "stream"),
    ("public.{parted_1,parted_2}", "ignore"),
    ("{public,sales}.*", "batch"),
];

async fn shop(name: &str) -> Site {
    Site::new(name, SHOP, &TABLES).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_batch_table_becomes_its_collection() {
    let site = shop("every").await;
    let (code, summary) = site.json(&["backfill"]).await;
    assert_eq!(code, Some(0), "{summary}");
    assert_eq!(summary["rows"], 2 + 5_000 + 2 + 20);
    assert_eq!(
        site.collections().await,
        ["empty", "kinds", "lines", "parted", "sales.zones"]
    );
    for table in ["kinds", "lines", "empty", "parted"] {
        oracle::compare(&site.sql, &site.mongo, table)
            .await
            .unwrap();
    }
    let zones = [
        doc! { "_id": "n", "id": "n", "name": "North " },
        doc! { "_id": "s", "id": "s", "name": null },
    ];
    assert_eq!(site.documents("sales.zones").await, zones);
    let line = &site.documents("lines").await[0];
    assert_eq!(
        *line,
        doc! { "_id": { "a": 1, "b": 1 }, "b": 1, "a": 1, "note": "note 1" }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_changes_nothing_but_what_has_changed() {
    let site = shop("rerun").await;
    assert_eq!(
        site.run(&["backfill", "lines", "kinds"]).await.code,
        Some(0)
    );
    let before = site.documents("lines").await;
    assert_eq!(
        site.run(&["backfill", "lines", "kinds"]).await.code,
        Some(0)
    );
    assert_eq!(site.documents("lines").await, before);

    site.sql
        .batch_execute("delete from lines where a > 10; update lines set note = 'new' where a = 3")
        .await
        .unwrap();
    assert_eq!(site.run(&["backfill", "public.lines"]).await.code, Some(0));
    assert_eq!(site.documents("lines").await.len(), 10);
    oracle::compare(&site.sql, &site.mongo, "lines")
        .await
        .unwrap();
    assert_eq!(site.collections().await, ["kinds", "lines"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_indexes_of_the_old_collection_are_on_the_new_one() {
    let site = shop("indexes").await;
    assert_eq!(site.run(&["backfill", "lines"]).await.code, Some(0));
    let lines = site.mongo.collection::<bson::Document>("lines");
    lines
        .create_index(IndexModel::builder().keys(doc! { "note": 1 }).build())
        .await
        .unwrap();
    assert_eq!(site.run(&["backfill", "lines"]).await.code, Some(0));
    assert_eq!(lines.list_index_names().await.unwrap(), ["_id_", "note_1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_leaves_the_old_collection_and_the_other_tables_go_on() {
    let site = shop("failure").await;
    site.sql
        .batch_execute(
            "create table big (id int primary key, v text); insert into big values (1, 'x')",
        )
        .await
        .unwrap();
    assert_eq!(site.run(&["backfill"]).await.code, Some(0));
    let before = site.documents("big").await;

    // Larger than any document.
    site.sql
        .batch_execute("update big set v = repeat('x', 17 * 1024 * 1024)")
        .await
        .unwrap();
    site.sql
        .batch_execute("insert into empty values (1)")
        .await
        .unwrap();
    let said = site.run(&["backfill"]).await;
    assert_eq!(said.code, Some(1));
    assert!(
        said.out
            .contains("public.big was not loaded, its collection is as it was: "),
        "{}",
        said.out
    );
    assert_eq!(site.documents("big").await, before);
    assert_eq!(site.documents("empty").await.len(), 1);
    let collections = site.collections().await;
    assert!(
        !collections.iter().any(|name| name.contains(".load")),
        "{collections:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_cannot_be_loaded_are_refused_before_anything_begins() {
    let site = shop("refused").await;
    let said = site.run(&["backfill", "streamed", "nobody", "lines"]).await;
    assert_eq!(said.code, Some(2));
    assert!(
        said.err.contains("public.streamed: is streamed"),
        "{}",
        said.err
    );
    assert!(
        said.err.contains("nobody: the source has no such table"),
        "{}",
        said.err
    );
    assert!(site.collections().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_a_primary_key_is_named_and_the_others_are_loaded() {
    let site = Site::new(
        "keyless",
        "create table a (id int); create table b (id int primary key)",
        &[("public.*", "batch")],
    )
    .await;
    let said = site.run(&["backfill"]).await;
    assert_eq!(said.code, Some(1));
    assert!(
        said.out.contains("public.a has no primary key"),
        "{}",
        said.out
    );
    assert_eq!(site.collections().await, ["b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_may_not_be_read_is_named_and_the_others_are_loaded() {
    let site = Site::new(
        "unreadable",
        "create table a (id int primary key); create table b (id int primary key)",
        &[("public.*", "batch")],
    )
    .await;
    let role = &site.database.name;
    site.sql
        .batch_execute(&format!(
            "create role {role} login; grant select on b to {role}"
        ))
        .await
        .unwrap();
    let mut command = crate::site::binary();
    command.args(["backfill", "--config"]).arg(site.config());
    command.env(
        "WALFERRY__SOURCE__URL",
        site.database
            .postgres_url
            .replace("postgres@", &format!("{role}@")),
    );
    let said = crate::site::said(command).await;
    assert_eq!(said.code, Some(1), "{}{}", said.out, said.err);
    assert!(
        said.out.contains("GRANT SELECT ON public.a"),
        "{}",
        said.out
    );
    assert_eq!(site.collections().await, ["b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_many_ranges_is_loaded_whole() {
    let schema = "create table wide (id int primary key, v text);
                  alter table wide alter v set storage plain;
                  insert into wide select i, repeat('x', 3900) from generate_series(1, 20000) i;
                  delete from wide where id % 3 = 0";
    let site = Site::new("wide", schema, &[("public.*", "batch")]).await;
    let (code, summary) = site.json(&["backfill"]).await;
    assert_eq!(
        (code, &summary["rows"]),
        (Some(0), &13_334.into()),
        "{summary}"
    );
    assert_eq!(site.run(&["verify"]).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_published_retail_data_has_its_sums_after_a_load() {
    let data = project_root().join("../shared/data/walmart");
    if !data.exists() {
        println!("skipped: {} is not there", data.display());
        return;
    }
    let site = Site::new("retail", "", &[("public.*", "batch")]).await;
    let database = walferry_retail::parse_url(&site.database.postgres_url).unwrap();
    walferry_retail::schema::install(&database).await.unwrap();
    walferry_retail::load::load(&database, &data, &mut |_| {})
        .await
        .unwrap();
    let (code, summary) = site.json(&["backfill"]).await;
    assert_eq!(code, Some(0), "{summary}");
    let counts = [
        ("transactions", 5_006),
        ("transactiondetails", 5_011),
        ("inventory", 3_028),
        ("customers", 3_848),
        ("products", 898),
        ("demandforecast", 4_986),
        ("promotionapplications", 813),
        ("stores", 5),
        ("weather", 4),
        ("paymentmethods", 4),
        ("categories", 2),
        ("promotions", 2),
    ];
    for (table, rows) in counts {
        let found = site
            .mongo
            .collection::<bson::Document>(table)
            .count_documents(doc! {})
            .await
            .unwrap();
        assert_eq!(found, rows, "{table}");
    }
    let sums = [
        ("transactions", "transaction_id", "12532525"),
        ("transactiondetails", "quantity", "14940"),
        ("inventory", "inventory_level", "761455"),
        ("customers", "income", "270499849.35"),
        ("products", "unit_price", "900966.73"),
    ];
    for (table, column, sum) in sums {
        let column = format!("${column}");
        assert_eq!(
            site.sum(table, &[], doc! { "$sum": column }).await,
            sum,
            "{table}"
        );
    }
    let with_price = [
        doc! { "$lookup": { "from": "products", "localField": "product_id",
        "foreignField": "_id", "as": "product" } },
        doc! { "$unwind": "$product" },
    ];
    let revenue = doc! { "$sum": { "$multiply": ["$quantity", "$product.unit_price"] } };
    let revenue = site.sum("transactiondetails", &with_price, revenue).await;
    assert_eq!(revenue, "14893604.02");
    assert_eq!(site.run(&["verify"]).await.code, Some(0));
}

impl Site {
    /// What an accumulator gives over a collection, after other stages.
    async fn sum(
        &self,
        table: &str,
        stages: &[bson::Document],
        accumulator: bson::Document,
    ) -> String {
        let group = doc! { "$group": { "_id": null, "sum": accumulator } };
        let stages = stages.iter().cloned().chain([group]);
        let documents = self.mongo.collection::<bson::Document>(table);
        let mut found = documents.aggregate(stages).await.unwrap();
        assert!(found.advance().await.unwrap());
        let found = found.deserialize_current().unwrap();
        found.get("sum").unwrap().to_string()
    }
}
