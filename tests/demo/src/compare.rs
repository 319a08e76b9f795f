//! MongoDB against PostgreSQL, column for column, without walferry's own decoder.
//!
//! - Every row of every table is compared, with its key, its columns' order and their BSON types.

use std::collections::HashMap;

use futures_util::TryStreamExt;
use mongodb::bson::{Bson, Document, doc};
use tokio_postgres::{Client, Row};

use crate::columns::{Column, Columns};
use crate::error::Result;

/// How many differences are told one by one.
pub(crate) const TOLD: usize = 10;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    /// Rows compared, of all tables.
    pub(crate) rows: u64,
    /// How many rows differ, are missing or should not be there.
    pub(crate) differing: u64,
    /// The first [`TOLD`] of them.
    pub(crate) told: Vec<String>,
}

// === impl Comparison ===

impl Comparison {
    /// Compares all tables.
    pub(crate) async fn of(
        postgres: &Client,
        mongo: &mongodb::Database,
        tables: &[String],
    ) -> Result<Self> {
        let mut comparison = Self::default();
        // One moment for all tables; and the server's own text forms.
        postgres
            .batch_execute(
                "begin isolation level repeatable read read only; set local datestyle = 'ISO'",
            )
            .await?;
        for table in tables {
            comparison.compare_table(postgres, mongo, table).await?;
        }
        postgres.batch_execute("commit").await?;
        Ok(comparison)
    }

    pub(crate) fn is_equal(&self) -> bool {
        self.differing == 0
    }

    async fn compare_table(
        &mut self,
        postgres: &Client,
        mongo: &mongodb::Database,
        table: &str,
    ) -> Result<()> {
        let columns = Columns::of(postgres, table).await?;
        let mut documents: HashMap<Vec<Option<String>>, Document> = HashMap::new();
        let mut found = mongo.collection::<Document>(table).find(doc! {}).await?;
        while let Some(document) = found.try_next().await? {
            let key = key_of_document(&columns, &document);
            if let Some(other) = documents.insert(key, document) {
                self.tell(|| format!("{table}: two documents of one key; one is {other}"));
            }
        }
        let rows = postgres
            .query_raw(&columns.select(table), std::iter::empty::<i32>())
            .await?;
        let mut rows = std::pin::pin!(rows);
        while let Some(row) = rows.try_next().await? {
            self.rows += 1;
            let values = texts(&row);
            let key: Vec<_> = columns
                .key
                .iter()
                .filter_map(|index| values.get(*index).cloned())
                .collect();
            match documents.remove(&key) {
                Some(document) => self.compare_row(table, &columns, &values, &document),
                None => self.tell(|| format!("{table}: {} is missing in MongoDB", show_key(&key))),
            }
        }
        for document in documents.into_values() {
            self.tell(|| format!("{table}: {document} is not in PostgreSQL"));
        }
        Ok(())
    }

    fn compare_row(
        &mut self,
        table: &str,
        columns: &Columns,
        values: &[Option<String>],
        document: &Document,
    ) {
        let differences = differences(columns, values, document);
        if !differences.is_empty() {
            self.tell(|| {
                format!(
                    "{table}: {}: {}",
                    document.get("_id").unwrap_or(&Bson::Null),
                    differences.join("; ")
                )
            });
        }
    }

    fn tell(&mut self, difference: impl FnOnce() -> String) {
        self.differing += 1;
        if self.told.len() < TOLD {
            self.told.push(difference());
        }
    }
}

fn texts(row: &Row) -> Vec<Option<String>> {
    (0..row.len()).map(|index| row.get(index)).collect()
}

/// The key that `_id` stands for: a value, or a sub-document in key order.
fn key_of_document(columns: &Columns, document: &Document) -> Vec<Option<String>> {
    let key: Vec<&Column> = columns
        .key
        .iter()
        .filter_map(|index| columns.all.get(*index))
        .collect();
    match (document.get("_id"), key.as_slice()) {
        (Some(value), [column]) => vec![column.kind.render(value)],
        (Some(Bson::Document(fields)), columns)
            if fields.keys().eq(columns.iter().map(|c| &c.name)) =>
        {
            fields
                .values()
                .zip(columns)
                .map(|(value, column)| column.kind.render(value))
                .collect()
        }
        (other, _) => vec![Some(format!("\u{0}{other:?}"))],
    }
}

fn differences(columns: &Columns, values: &[Option<String>], document: &Document) -> Vec<String> {
    let mut differences = Vec::new();
    let expected = std::iter::once("_id").chain(columns.all.iter().map(|c| c.name.as_str()));
    if !document.keys().map(String::as_str).eq(expected) {
        differences.push(format!(
            "the fields are {:?}",
            document.keys().collect::<Vec<_>>()
        ));
    }
    for (column, wanted) in columns.all.iter().zip(values) {
        let Some(value) = document.get(&column.name) else {
            continue;
        };
        let found = column.kind.render(value);
        if found != *wanted {
            differences.push(format!(
                "{} is {} in PostgreSQL and {} in MongoDB",
                column.name,
                show(wanted.as_ref()),
                show(found.as_ref())
            ));
        }
    }
    differences
}

fn show(text: Option<&String>) -> String {
    text.map_or_else(
        || "NULL".to_owned(),
        |t| t.trim_start_matches('\u{0}').to_owned(),
    )
}

fn show_key(key: &[Option<String>]) -> String {
    let parts: Vec<_> = key.iter().map(|part| show(part.as_ref())).collect();
    format!("({})", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::Kind;

    fn columns() -> Columns {
        let column = |name: &str, kind| Column {
            name: name.to_owned(),
            kind,
        };
        let all = vec![
            column("store_id", Kind::Int32),
            column("product_id", Kind::Int32),
            column("level", Kind::Int32),
        ];
        Columns {
            all,
            key: vec![0, 1],
        }
    }

    fn row(values: [Option<&str>; 3]) -> Vec<Option<String>> {
        values.map(|v| v.map(str::to_owned)).to_vec()
    }

    #[test]
    fn a_document_of_the_design_equals_its_row() {
        let document = doc! { "_id": { "store_id": 1, "product_id": 2 }, "store_id": 1, "product_id": 2, "level": Bson::Null };
        let wanted = row([Some("1"), Some("2"), None]);
        assert!(differences(&columns(), &wanted, &document).is_empty());
        assert_eq!(
            key_of_document(&columns(), &document),
            [Some("1".to_owned()), Some("2".to_owned())]
        );
    }

    #[test]
    fn another_value_type_order_or_field_differs() {
        let wanted = row([Some("1"), Some("2"), Some("3")]);
        let id = doc! { "store_id": 1, "product_id": 2 };
        for document in [
            doc! { "_id": &id, "store_id": 1, "product_id": 2, "level": 4 },
            doc! { "_id": &id, "store_id": 1, "product_id": 2, "level": 3_i64 },
            doc! { "_id": &id, "store_id": 1, "product_id": 2, "level": Bson::Null },
            doc! { "_id": &id, "product_id": 2, "store_id": 1, "level": 3 },
            doc! { "_id": &id, "store_id": 1, "product_id": 2 },
            doc! { "_id": &id, "store_id": 1, "product_id": 2, "level": 3, "more": 1 },
        ] {
            assert_eq!(
                differences(&columns(), &wanted, &document).len(),
                1,
                "{document}"
            );
        }
    }

    #[test]
    fn an_id_in_another_order_is_another_key() {
        let document = doc! { "_id": { "product_id": 2, "store_id": 1 } };
        assert_ne!(
            key_of_document(&columns(), &document),
            [Some("1".to_owned()), Some("2".to_owned())]
        );
    }
}
