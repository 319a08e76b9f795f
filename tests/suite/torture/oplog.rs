//! What MongoDB's oplog says about how often, and in which order, things were applied.
//!
//! - `seq` of the position document rises by one with each checkpoint, under every epoch.
//! - The position never goes back, and stays where it is when `seq` does.
//! - Each history row is inserted once, after the one before it, and in a transaction that also
//!   writes the position.

use std::collections::{BTreeMap, BTreeSet};

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;

/// Generation, phase (whether it is the stream, and its commit LSN or chunk) and ordinal.
type Place = (u64, (bool, u64), u64);

/// What was applied since the beginning.
#[derive(Default)]
pub(super) struct Applied {
    /// The last history row by writer.
    pub(super) histories: BTreeMap<i32, i64>,
    /// Writes of the position that raised `seq`.
    pub(super) positions: i64,
    /// Claims.
    pub(super) epochs: i64,
    position: Document,
    /// Transactions that wrote a position.
    checkpoints: BTreeSet<String>,
    /// Transactions that wrote history.
    writes: BTreeSet<String>,
}

/// Reads the oplog of a server that has known one pipeline only.
pub(super) async fn read(mongo: &mongodb::Database) -> Applied {
    let oplog = mongo.client().database("local").collection("oplog.rs");
    let history = format!("{}.history", mongo.name());
    let mut applied = Applied::default();
    let mut cursor = oplog
        .find(doc! {})
        .sort(doc! { "$natural": 1 })
        .await
        .unwrap();
    while let Some(entry) = cursor.try_next().await.unwrap() {
        let entry: Document = entry;
        let transaction = format!("{:?} {:?}", entry.get("lsid"), entry.get("txnNumber"));
        let operations = entry.get_document("o").unwrap().get_array("applyOps");
        match operations {
            Ok(operations) => {
                for operation in operations {
                    applied.take(operation.as_document().unwrap(), &history, &transaction);
                }
            }
            Err(_) => applied.take(&entry, &history, &transaction),
        }
    }
    let lonely: Vec<_> = applied.writes.difference(&applied.checkpoints).collect();
    assert!(lonely.is_empty(), "rows without their position: {lonely:?}");
    applied
}

// === impl Applied ===

impl Applied {
    fn take(&mut self, operation: &Document, history: &str, transaction: &str) {
        let namespace = operation.get_str("ns").unwrap();
        let object = operation.get_document("o").unwrap();
        let kind = operation.get_str("op").unwrap();
        if namespace == "_walferry.positions" {
            self.checkpoints.insert(transaction.to_owned());
            self.write_position(kind, object);
        } else if namespace == history {
            assert_eq!(kind, "i", "history is only inserted into: {operation}");
            self.writes.insert(transaction.to_owned());
            let writer = object.get_i32("writer").unwrap();
            let last = self.histories.entry(writer).or_default();
            assert_eq!(object.get_i64("n").unwrap(), *last + 1, "writer {writer}");
            *last += 1;
        }
    }

    fn write_position(&mut self, kind: &str, object: &Document) {
        let before = self.position.clone();
        match (kind, object.get_document("diff")) {
            ("u", Ok(diff)) if !before.is_empty() => apply(&mut self.position, diff),
            ("u", _) if before.is_empty() => {
                panic!("the oplog has lost its beginning: it needs more room")
            }
            ("i" | "u", _) => self.position = object.clone(),
            _ => panic!("the position was removed: {object}"),
        }
        let after = &self.position;
        let epochs = epoch(after) - epoch(&before);
        let written = after.get_i64("seq").unwrap() - before.get_i64("seq").unwrap_or(0);
        assert!((0..=1).contains(&epochs), "epochs: {before}, {after}");
        assert!((0..=1).contains(&written), "sequence: {before}, {after}");
        assert!(
            place(&before) <= place(after),
            "went back: {before}, {after}"
        );
        if written == 0 {
            assert_eq!(place(&before), place(after), "without a sequence");
        }
        self.positions += written;
        self.epochs += epochs;
    }
}

fn epoch(position: &Document) -> i64 {
    position.get_i64("epoch").unwrap_or(0)
}

fn place(position: &Document) -> Option<Place> {
    let place = position.get_document("position").ok()?;
    let number = |field| place.get_i64(field).map(i64::cast_unsigned);
    let phase = match place.get_str("commit_lsn") {
        Ok(lsn) => {
            let (high, low) = lsn.split_once('/').unwrap();
            let half = |text| u64::from_str_radix(text, 16).unwrap();
            (true, (half(high) << 32) | half(low))
        }
        Err(_) => (false, number("chunk").unwrap()),
    };
    let generation = number("generation").unwrap();
    Some((generation, phase, number("ordinal").unwrap()))
}

/// Applies an update of the oplog's second form: inserted, updated and deleted fields, and changes
/// inside of documents. Changes inside of arrays are passed over: no array is looked at.
fn apply(document: &mut Document, diff: &Document) {
    for (name, change) in diff {
        match (name.as_str(), change) {
            ("i" | "u", Bson::Document(fields)) => document.extend(fields.clone()),
            ("d", Bson::Document(fields)) => {
                for field in fields.keys() {
                    document.remove(field);
                }
            }
            (field, Bson::Document(inner)) if !inner.contains_key("a") => {
                let field = field.strip_prefix('s').expect("a change inside of a field");
                if let Some(Bson::Document(within)) = document.get_mut(field) {
                    apply(within, inner);
                }
            }
            _ => {}
        }
    }
}
