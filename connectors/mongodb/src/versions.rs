//! The columns of each table as they were applied last, in `_walferry.tables`: what DDL changed without sending it.
//!
//! - A table's document changes in the transaction of the first rows that have other columns.
//! - A table is drifted from then on until it is verified, or copied again in another generation.
//! - A dropped column is unset in what is there until it comes again, between groups and fenced as they are.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bson::{Bson, DateTime, Document, doc};
use futures_util::TryStreamExt as _;
use walferry_core::Drifted;
use walferry_schema::{Column, TableName, Type};

use crate::bson_value::{Microseconds, Policies, is_finer_than_dates, microseconds_name};
use crate::document::field_name;
use crate::store::Store;
use crate::{Error, Result};

pub(crate) const TABLES: &str = "tables";
const READING: &str = "reading the tables' columns";

/// A table of a generation.
pub(crate) type TableId = (u64, TableName);

/// Columns in table order: name and PostgreSQL's name of the type.
type Columns = Vec<(Arc<str>, Arc<str>)>;

/// The versions of tables that a batch meets, in order.
#[derive(Debug, Default)]
pub(crate) struct Met {
    tables: HashMap<TableId, Vec<Columns>>,
}

/// What was applied last.
#[derive(Debug, Default)]
pub(crate) struct Versions {
    known: HashMap<TableId, Known>,
}

/// A table as it was applied last.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Known {
    columns: Columns,
    /// Fields of columns that were dropped, which documents may still have.
    unset: BTreeSet<String>,
}

/// A table that has other columns than before.
#[derive(Clone, Debug)]
pub(crate) struct Redefined {
    pub(crate) table: TableId,
    pub(crate) now: Known,
    /// What documents that do not change do not show, in words.
    pub(crate) drift: Vec<String>,
}

// === impl Met ===

impl Met {
    /// Notes the columns of a row.
    pub(crate) fn note(&mut self, generation: u64, table: &TableName, columns: &[Column]) {
        let columns: Columns = columns
            .iter()
            .map(|it| (it.name.clone(), it.type_name.clone()))
            .collect();
        let met = self.tables.entry((generation, table.clone())).or_default();
        if met.last() != Some(&columns) {
            met.push(columns);
        }
    }
}

// === impl Versions ===

impl Versions {
    /// Reads what the pipeline applied last.
    pub(crate) async fn load(store: &Store) -> Result<Self> {
        let tables = store.own_database().collection::<Document>(TABLES);
        let find = tables.find(doc! { "_id.pipeline": &store.settings.pipeline });
        let found = store.in_time(find, READING).await?;
        let found: Vec<_> = store
            .in_time(found.try_collect::<Vec<_>>(), READING)
            .await?;
        let known = found.iter().map(|it| known_of(it).ok_or_else(unreadable));
        Ok(Self {
            known: known.collect::<Result<_>>()?,
        })
    }

    /// The tables that have other columns in a batch than before.
    pub(crate) fn redefined(&self, met: Met, policies: Policies) -> Vec<Redefined> {
        let redefined = |(table, versions): (TableId, Vec<Columns>)| {
            let before = self.known.get(&table);
            let mut versions = versions.into_iter();
            let mut now = match before {
                Some(known) => known.clone(),
                None => Known {
                    columns: versions.next()?,
                    unset: BTreeSet::new(),
                },
            };
            let mut drift = Vec::new();
            versions.for_each(|next| now.become_next(next, policies, &mut drift));
            (before != Some(&now) || !drift.is_empty()).then_some(Redefined { table, now, drift })
        };
        met.tables.into_iter().filter_map(redefined).collect()
    }

    /// Notes what was written.
    pub(crate) fn learn(&mut self, redefined: Vec<Redefined>) {
        let known = redefined.into_iter().map(|it| (it.table, it.now));
        self.known.extend(known);
    }

    /// The fields that the documents of a table have now; none where that is not known.
    pub(crate) fn fields(&self, table: &TableId, policies: Policies) -> Option<HashSet<String>> {
        let columns = self.known.get(table)?.columns.iter();
        Some(columns.flat_map(|it| fields_of(it, policies)).collect())
    }

    /// A table of a generation with fields to unset, and these.
    pub(crate) fn to_unset(&self, generation: u64) -> Option<(&TableId, &Known)> {
        let has_fields =
            |(table, known): &(&TableId, &Known)| table.0 == generation && !known.unset.is_empty();
        self.known.iter().find(has_fields)
    }

    /// Forgets the generations before one.
    pub(crate) async fn forget(&mut self, store: &Store, generation: u64) -> Result<()> {
        self.known.retain(|table, _| table.0 >= generation);
        let old = doc! {
            "_id.pipeline": &store.settings.pipeline,
            "_id.generation": { "$lt": generation.cast_signed() },
        };
        let command = doc! { "delete": TABLES, "deletes": [{ "q": old, "limit": 0 }] };
        let doing = "forgetting old tables' columns";
        store.run(&store.own_database(), command, doing).await?;
        Ok(())
    }
}

// === impl Known ===

impl Known {
    /// The fields that documents may still have of dropped columns.
    pub(crate) fn unset(&self) -> &BTreeSet<String> {
        &self.unset
    }

    /// The same when no document has them any more.
    pub(crate) fn cleaned(&self) -> Self {
        Self {
            columns: self.columns.clone(),
            unset: BTreeSet::new(),
        }
    }

    fn become_next(&mut self, next: Columns, policies: Policies, drift: &mut Vec<String>) {
        let before: HashMap<_, _> = self.columns.iter().map(|(n, t)| (n, t)).collect();
        let names: HashSet<_> = next.iter().map(|(name, _)| name).collect();
        for (name, kind) in &next {
            match before.get(name) {
                None => drift.push(format!("column {name} of type {kind} was added")),
                Some(old) if !is_alike(old, kind) => {
                    drift.push(format!("column {name} was {old} and became {kind}"));
                }
                Some(_) => {}
            }
        }
        let is_common =
            |(name, _): &&(Arc<str>, Arc<str>)| names.contains(name) && before.contains_key(name);
        let order = |columns: &Columns| -> Vec<Arc<str>> {
            let common = columns.iter().filter(is_common);
            common.map(|(name, _)| name.clone()).collect()
        };
        let (old_order, new_order) = (order(&self.columns), order(&next));
        for (old, new) in old_order.iter().zip(&new_order) {
            if old != new {
                drift.push(format!("column {old} was dropped and added again"));
                break;
            }
        }
        let before = self.columns.iter().flat_map(|it| fields_of(it, policies));
        self.unset.extend(before);
        for field in next.iter().flat_map(|it| fields_of(it, policies)) {
            self.unset.remove(&field);
        }
        self.columns = next;
    }

    /// The table's document, but for its `_id` and what drifted.
    fn document(&self) -> Document {
        let column =
            |(name, kind): &(Arc<str>, Arc<str>)| doc! { "name": &**name, "type": &**kind };
        let columns: Vec<_> = self.columns.iter().map(column).collect();
        let unset: Vec<_> = self.unset.iter().cloned().collect();
        doc! { "columns": columns, "unset": unset }
    }
}

// === impl Redefined ===

impl Redefined {
    /// The command that writes it.
    pub(crate) fn command(&self, pipeline: &str) -> Document {
        let mut change = doc! { "$set": self.now.document() };
        if !self.drift.is_empty() {
            change.insert("$addToSet", doc! { "drift": { "$each": &self.drift } });
            change.insert("$currentDate", doc! { "drifted_at": true });
        }
        let (generation, table) = &self.table;
        let id = doc! {
            "pipeline": pipeline,
            "generation": generation.cast_signed(),
            "table": { "schema": &*table.schema, "table": &*table.table },
        };
        doc! { "update": TABLES, "updates": [{ "q": { "_id": id }, "u": change, "upsert": true }] }
    }
}

/// The tables of a pipeline that are drifted.
pub(crate) async fn drifted(store: &Store) -> Result<Vec<Drifted>> {
    let tables = store.own_database().collection::<Document>(TABLES);
    let open = doc! { "_id.pipeline": &store.settings.pipeline, "drift.0": { "$exists": true } };
    let find = tables.find(open).sort(doc! { "_id": 1 });
    let found = store.in_time(find, READING).await?;
    let found: Vec<_> = store
        .in_time(found.try_collect::<Vec<_>>(), READING)
        .await?;
    Ok(found.iter().filter_map(drifted_of).collect())
}

/// Copies the tables of another pipeline in place of this one's.
pub(crate) async fn take_over(store: &Store, from: &str) -> Result<()> {
    let doing = "taking over the tables' columns";
    let pipeline = &store.settings.pipeline;
    let tables = store.own_database().collection::<Document>(TABLES);
    let find = tables.find(doc! { "_id.pipeline": from });
    let found = store.in_time(find, doing).await?;
    let mut found: Vec<_> = store.in_time(found.try_collect::<Vec<_>>(), doing).await?;
    for table in &mut found {
        if let Ok(id) = table.get_document_mut("_id") {
            id.insert("pipeline", pipeline);
        }
    }
    let delete = tables.delete_many(doc! { "_id.pipeline": pipeline });
    store.in_time(delete, doing).await?;
    if !found.is_empty() {
        store.in_time(tables.insert_many(found), doing).await?;
    }
    Ok(())
}

/// The update that notes a table as equal to its source, as of a comparison that began at `since`.
pub(crate) fn verified(pipeline: &str, table: &TableName, since: DateTime) -> Document {
    let query = doc! {
        "_id.pipeline": pipeline,
        "_id.table": { "schema": &*table.schema, "table": &*table.table },
        "drifted_at": { "$lt": since },
    };
    doc! { "q": query, "u": { "$unset": { "drift": "", "drifted_at": "" } }, "multi": true }
}

/// The fields that a column may have in documents.
fn fields_of((name, kind): &(Arc<str>, Arc<str>), policies: Policies) -> Vec<String> {
    let name = field_name(name).into_owned();
    let mut fields = vec![name.clone()];
    if policies.microseconds == Microseconds::Keep && is_finer_than_dates(&Type::from_name(kind)) {
        fields.push(microseconds_name(&name));
    }
    fields
}

/// Whether a value of one type is the same document's field when its column takes the other type.
fn is_alike(old: &str, new: &str) -> bool {
    let is_text = |kind: &str| kind == "text" || kind.split('(').next() == Some("varchar");
    let scale = |kind: &str| {
        let modifier = kind.strip_prefix("numeric(")?.strip_suffix(')')?;
        modifier.split_once(',').map(|(_, scale)| scale.to_owned())
    };
    let has_same_scale = scale(old).is_some_and(|old| scale(new) == Some(old));
    old == new || (is_text(old) && is_text(new)) || has_same_scale
}

fn known_of(document: &Document) -> Option<(TableId, Known)> {
    let id = document.get_document("_id").ok()?;
    let generation = id.get_i64("generation").ok()?.cast_unsigned();
    let column = |it: &Bson| {
        let column = it.as_document()?;
        let text = |name| Some(Arc::from(column.get_str(name).ok()?));
        Some((text("name")?, text("type")?))
    };
    let columns = document.get_array("columns").ok()?.iter().map(column);
    let unset = document.get_array("unset").ok()?.iter();
    let known = Known {
        columns: columns.collect::<Option<_>>()?,
        unset: unset.filter_map(Bson::as_str).map(str::to_owned).collect(),
    };
    Some(((generation, table_of(id)?), known))
}

fn drifted_of(document: &Document) -> Option<Drifted> {
    let drift = document.get_array("drift").ok()?.iter();
    Some(Drifted {
        table: table_of(document.get_document("_id").ok()?)?,
        since: document.get_datetime("drifted_at").ok()?.timestamp_millis(),
        differences: drift.filter_map(Bson::as_str).map(str::to_owned).collect(),
    })
}

/// The table that an `_id` names.
pub(crate) fn table_of(id: &Document) -> Option<TableName> {
    let table = id.get_document("table").ok()?;
    Some(TableName::new(
        table.get_str("schema").ok()?,
        table.get_str("table").ok()?,
    ))
}

fn unreadable() -> Error {
    Error::Answer {
        doing: READING,
        field: "columns",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(text: &str) -> Columns {
        let column = |it: &str| {
            let (name, kind) = it.split_once(' ').expect("name and type");
            (name.into(), kind.into())
        };
        text.split(", ").map(column).collect()
    }

    /// What is drifted and what is to be unset after these versions.
    fn after(versions: &[&str]) -> (Vec<String>, Vec<String>) {
        let table = (7, TableName::new("public", "t"));
        let mut met = Met::default();
        let versions = versions.iter().map(|it| columns(it)).collect();
        met.tables.insert(table, versions);
        let policies = Policies {
            microseconds: Microseconds::Keep,
            ..Policies::default()
        };
        let redefined = Versions::default().redefined(met, policies);
        let [redefined] = &redefined[..] else {
            panic!("one table")
        };
        let unset = redefined.now.unset.iter().cloned().collect();
        (redefined.drift.clone(), unset)
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn added_and_retyped_columns_are_drift_and_dropped_ones_are_unset() {
        let (drift, unset) = after(&["id int4, a text, t timestamp", "id int8, b text"]);
        let expected = [
            "column id was int4 and became int8",
            "column b of type text was added",
        ];
        assert_eq!(
            (drift, unset),
            (texts(&expected), texts(&["a", "t", "t_us"]))
        );
    }

    #[test]
    fn a_column_that_comes_again_is_drift_and_not_unset() {
        let (drift, unset) = after(&[
            "id int4, a text, b text",
            "id int4, b text",
            "id int4, b text, a text",
        ]);
        assert_eq!(
            (drift, unset),
            (texts(&["column a of type text was added"]), texts(&[]))
        );
        let (drift, _) = after(&["id int4, a text, b text", "id int4, b text, a text"]);
        assert_eq!(drift, ["column a was dropped and added again"]);
    }

    #[test]
    fn a_type_that_keeps_its_values_is_no_drift() {
        for (old, new) in [
            ("varchar(10)", "varchar(20)"),
            ("varchar", "text"),
            ("numeric(8,2)", "numeric(10,2)"),
        ] {
            assert!(is_alike(old, new) && is_alike(new, old), "{old} {new}");
        }
        for (old, new) in [
            ("numeric(8,2)", "numeric(8,3)"),
            ("numeric(8,2)", "numeric"),
            ("bpchar(3)", "text"),
            ("timestamp(0)", "timestamp"),
        ] {
            assert!(!is_alike(old, new), "{old} {new}");
        }
    }
}
