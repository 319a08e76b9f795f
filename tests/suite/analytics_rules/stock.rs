//! What the rule of stock and sales is held against: triggers that note each change beside the histories.

use std::collections::BTreeSet;

use bson::{Bson, DateTime, Document, doc};
use futures_util::TryStreamExt as _;
use mongodb::Database;
use tokio_postgres::Client;

/// The triggers.
pub(super) const SEEN: &str = include_str!("seen.sql");
/// Changes of stock on both sides of what the rule looks for; the last one is seen in the tables.
pub(super) const SOWN: &str = include_str!("sown_stock.sql");

/// Has SQL know the LSN and the time of each transaction that the histories name, which only the log has.
pub(super) async fn note_commits(sql: &Client, mongo: &Database) {
    let table = "create temp table committed (xid bigint primary key, lsn bigint not null, at timestamp not null)";
    sql.batch_execute(table).await.unwrap();
    let mut commits = BTreeSet::new();
    for history in ["inventory_history", "transactiondetails_history"] {
        let history = mongo.collection::<Document>(history);
        let versions = history.find(doc! {}).await.unwrap();
        let versions: Vec<Document> = versions.try_collect().await.unwrap();
        for version in &versions {
            commits.extend(commit(version, version.get("valid_from")));
            let closed_by = version.get_document("closed_by").ok();
            commits.extend(closed_by.and_then(|it| commit(it, version.get("valid_to"))));
        }
    }
    let insert = "insert into committed values ($1, $2, to_timestamp($3::bigint / 1000.0) at time zone 'UTC')";
    for (xid, lsn, at) in commits {
        sql.execute(insert, &[&xid, &lsn, &at]).await.unwrap();
    }
}

fn commit(by: &Document, at: Option<&Bson>) -> Option<(i64, i64, i64)> {
    let at = at.and_then(Bson::as_datetime)?;
    let xid = by.get_i64("xid").ok()?;
    Some((xid, by.get_i64("lsn").ok()?, at.timestamp_millis()))
}

/// A version of a row, as it stands in a history: its key, its other columns, what began and what ended it.
pub(super) fn version(
    row: &Document,
    columns: Document,
    (generation, begun): (i64, Commit),
    ended: Option<Commit>,
) -> Document {
    let id = doc! { "row": row, "generation": generation, "lsn": begun.lsn, "ordinal": 0_i64 };
    let mut version = doc! { "_id": id };
    version.extend(row.clone());
    version.extend(columns);
    version.extend(doc! {
        "valid_from": begun.at(),
        "valid_to": ended.map_or(Bson::Null, |it| it.at().into()),
        "is_current": ended.is_none(),
    });
    version.extend(begun.by());
    version.insert("closed_by", ended.map_or(Bson::Null, |it| it.by().into()));
    version
}

/// What began or ended a version.
#[derive(Clone, Copy)]
pub(super) struct Commit {
    pub(super) op: &'static str,
    pub(super) lsn: i64,
    pub(super) xid: Option<i64>,
    /// In hours since 1970.
    pub(super) hour: i64,
}

// === impl Commit ===

impl Commit {
    fn at(self) -> DateTime {
        DateTime::from_millis(self.hour * 3_600_000)
    }

    fn by(self) -> Document {
        doc! { "op": self.op, "lsn": self.lsn, "xid": self.xid }
    }
}
