//! `walferry verify` on real servers.

use bson::{Document, doc};
use serde_json::json;

use crate::site::Site;

const SCHEMA: &str = "
create table lines (a int, b int, note text, price numeric(10,2), primary key (a, b));
insert into lines select i, i % 3, 'note ' || i, i from generate_series(1, 3000) i;
create table streamed (id int primary key, v int);
insert into streamed values (1, 1);";
const TABLES: [(&str, &str); 2] = [("public.streamed", "stream"), ("public.lines", "batch")];

/// A site whose two tables are in MongoDB.
async fn loaded(name: &str) -> Site {
    let site = Site::new(name, SCHEMA, &[("public.*", "batch")]).await;
    assert_eq!(site.run(&["backfill"]).await.code, Some(0));
    site.configure(&TABLES);
    site
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_sides_are_exit_code_0() {
    let site = loaded("equal").await;
    let (code, report) = site.json(&["verify"]).await;
    assert_eq!(code, Some(0), "{report}");
    let table = |name: &str, rows: u64| json!({ "table": name, "rows": rows, "documents": rows, "different": 0, "missing": 0, "extra": 0, "parked": 0, "error": null });
    assert_eq!(
        report["tables"],
        json!([table("public.lines", 3_000), table("public.streamed", 1)])
    );
    let said = site.run(&["verify"]).await;
    assert!(said.out.ends_with("\nequal\n"), "{}", said.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_a_missing_and_an_extra_document_are_found() {
    let site = loaded("different").await;
    let lines = site.mongo.collection::<Document>("lines");
    let id = |a: i32| doc! { "_id": { "a": a, "b": a % 3 } };
    // The same number in another scale, another type, and a field that no column has.
    let price = bson::Bson::Decimal128("7".parse().unwrap());
    lines
        .update_one(id(7), doc! { "$set": { "price": price } })
        .await
        .unwrap();
    lines
        .update_one(id(8), doc! { "$set": { "note": 8, "more": true } })
        .await
        .unwrap();
    lines.delete_one(id(9)).await.unwrap();
    lines
        .insert_one(doc! { "_id": { "a": 5_000, "b": 0 }, "a": 5_000 })
        .await
        .unwrap();

    let (code, report) = site.json(&["verify"]).await;
    assert_eq!(code, Some(3), "{report}");
    let table = json!({
        "table": "public.lines", "rows": 3_000, "documents": 3_000, "different": 2, "missing": 1, "extra": 1, "parked": 0, "error": null
    });
    assert_eq!(report["tables"][0], table);
    let examples = report["examples"].as_array().unwrap();
    let kinds: Vec<_> = examples
        .iter()
        .map(|example| (&example["kind"], &example["column"]))
        .collect();
    let null = json!(null);
    let (different, missing, extra) = (json!("different"), json!("missing"), json!("extra"));
    let columns = ["price", "more", "note"].map(|column| json!(column));
    let expected = [
        (&different, &columns[0]),
        (&different, &columns[1]),
        (&different, &columns[2]),
        (&missing, &null),
        (&extra, &null),
    ];
    assert_eq!(kinds, expected, "{examples:#?}");

    let said = site.run(&["verify"]).await;
    assert_eq!(said.code, Some(3));
    assert!(
        said.out
            .contains("price should be 7.00 (Decimal128), is 7 (Decimal128)"),
        "{}",
        said.out
    );
    assert!(
        said.out
            .contains("note should be \"note 8\" (String), is 8 (Int32)"),
        "{}",
        said.out
    );
    assert!(
        said.out.contains("no document") && said.out.contains("no row"),
        "{}",
        said.out
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_table_is_compared_and_one_that_is_not_selected_is_refused() {
    let site = loaded("streamed").await;
    site.sql
        .batch_execute("create table other (id int primary key)")
        .await
        .unwrap();
    site.sql
        .batch_execute("update streamed set v = 2")
        .await
        .unwrap();
    let said = site.run(&["verify", "streamed"]).await;
    assert_eq!(said.code, Some(3), "{}{}", said.out, said.err);
    assert!(
        said.out.contains("v should be 2 (Int32), is 1 (Int32)"),
        "{}",
        said.out
    );
    assert_eq!(site.run(&["verify", "lines"]).await.code, Some(0));
    let said = site.run(&["verify", "other"]).await;
    assert_eq!(said.code, Some(2));
    assert!(
        said.err.contains("public.other: is not selected"),
        "{}",
        said.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_ten_examples_are_shown() {
    let site = loaded("many").await;
    site.mongo
        .collection::<Document>("lines")
        .drop()
        .await
        .unwrap();
    let (code, report) = site.json(&["verify"]).await;
    assert_eq!(code, Some(3));
    assert_eq!(report["tables"][0]["missing"], 3_000);
    assert_eq!(report["examples"].as_array().unwrap().len(), 10);
}
