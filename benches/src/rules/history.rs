//! The histories that the sales would have left: each sale is a transaction of its own, which took its units from the shelf.
//!
//! - Every 10,000th sale took one unit more than it sold, so that there is something to find.

use bson::{Bson, DateTime, Document, doc};
use mongodb::Database;

use crate::error::Result;
use crate::screen;

/// What each shelf holds before the first sale.
const FULL: i32 = 100_000_000;
/// Of so many sales one takes a unit more.
const ODD: i32 = 10_000;
/// 2024-01-01.
const FIRST_MILLIS: i64 = 1_704_067_200_000;

/// Makes both histories out of the rows.
pub(super) async fn make(target: &Database) -> Result<()> {
    screen::say("rules: the histories of lines and stock");
    write(target, lines(), "transactiondetails_history").await?;
    write(target, stock(), "inventory_history").await
}

async fn write(target: &Database, mut stages: Vec<Document>, history: &str) -> Result<()> {
    stages.push(doc! { "$out": history });
    let lines = target.collection::<Document>("transactiondetails");
    lines.aggregate(stages).allow_disk_use(true).await?;
    Ok(())
}

fn lines() -> Vec<Document> {
    let columns = doc! {
        "transaction_id": "$transaction_id",
        "product_id": "$product_id",
        "quantity": "$quantity",
        "unit_price": "$unit_price",
    };
    let sale = commit("c", "$transaction_id");
    let version = version(Bson::from("$_id"), columns, &sale, &Bson::Null);
    vec![doc! { "$replaceWith": version }]
}

/// For each line the version that it leaves, and for the first of a shelf the one that a snapshot found.
fn stock() -> Vec<Document> {
    let odd = doc! { "$eq": [{ "$mod": ["$transaction_id", ODD] }, 0] };
    let shelf = doc! { "store_id": "$store_id", "product_id": "$product_id" };
    let window = |from: &str, to: Bson| doc! { "documents": [from, to] };
    let of_neighbour = |by: i32| doc! { "$shift": { "output": "$transaction_id", "by": by } };
    let left = doc! { "$subtract": [FULL, "$taken"] };
    let columns = |level: Bson| {
        let mut columns = shelf.clone();
        columns.insert("inventory_level", level);
        columns
    };
    let found = version(
        shelf.clone().into(),
        columns(FULL.into()),
        &found(),
        &"$transaction_id".into(),
    );
    let sold = version(
        shelf.clone().into(),
        columns(left.into()),
        &commit("u", "$transaction_id"),
        &"$next".into(),
    );
    let is_first = doc! { "$eq": ["$before", Bson::Null] };
    vec![
        doc! { "$lookup": {
            "from": "transactions", "localField": "transaction_id", "foreignField": "_id", "as": "sale",
        } },
        doc! { "$project": {
            "transaction_id": 1,
            "product_id": 1,
            "store_id": { "$first": "$sale.store_id" },
            "units": { "$add": ["$quantity", { "$cond": [odd, 1, 0] }] },
        } },
        doc! { "$setWindowFields": {
            "partitionBy": shelf,
            "sortBy": { "transaction_id": 1 },
            "output": {
                "taken": { "$sum": "$units", "window": window("unbounded", "current".into()) },
                "before": of_neighbour(-1),
                "next": of_neighbour(1),
            },
        } },
        doc! { "$project": {
            "versions": { "$cond": [is_first, [&found, &sold], [&sold]] },
        } },
        doc! { "$unwind": "$versions" },
        doc! { "$replaceWith": "$versions" },
    ]
}

/// A version of a row, as walferry writes it: the sale that ended it may be none.
fn version(row: Bson, columns: Document, begun: &Document, ended: &Bson) -> Document {
    let id =
        doc! { "row": row, "generation": FIRST_MILLIS, "lsn": begun.get("lsn"), "ordinal": 1_i64 };
    let is_current = doc! { "$eq": [ended, Bson::Null] };
    let when_ended = |it: Bson| doc! { "$cond": [&is_current, Bson::Null, it] };
    let mut closed_by = commit("u", "$$sale");
    let valid_to = closed_by.remove("valid_from");
    let of_sale = |it: Bson| doc! { "$let": { "vars": { "sale": ended }, "in": it } };
    let mut version = doc! { "_id": id };
    version.extend(columns);
    version.extend(begun.clone());
    version.extend(doc! {
        "valid_to": of_sale(when_ended(valid_to.unwrap_or(Bson::Null)).into()),
        "is_current": &is_current,
        "closed_by": of_sale(when_ended(closed_by.into()).into()),
    });
    version
}

/// The commit of a sale.
fn commit(op: &str, sale: &str) -> Document {
    let number = doc! { "$toLong": sale };
    let after = doc! { "$multiply": [{ "$toLong": sale }, 10] };
    doc! {
        "op": op,
        "lsn": &number,
        "xid": number,
        "valid_from": { "$add": [DateTime::from_millis(FIRST_MILLIS), after] },
    }
}

/// What a snapshot found.
fn found() -> Document {
    let at = DateTime::from_millis(FIRST_MILLIS);
    doc! { "op": "r", "lsn": 0_i64, "xid": Bson::Null, "valid_from": at }
}
