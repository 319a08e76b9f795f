//! What PostgreSQL's catalog says of a table today.

use tokio_postgres::Client;

use crate::error::{Error, Result};
use crate::render::Kind;

const COLUMNS: &str = "
select a.attname, t.typname, coalesce(array_position(i.indkey::int2[], a.attnum), -1)::int
from pg_attribute a
join pg_type t on t.oid = a.atttypid
left join pg_index i on i.indrelid = a.attrelid and i.indisprimary
where a.attrelid = $1::text::regclass and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
order by a.attnum";

/// A column and how its values are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

/// The columns of a table.
#[derive(Debug)]
pub(crate) struct Columns {
    /// All of them, in table order.
    pub(crate) all: Vec<Column>,
    /// Those of the primary key, by their place in `all`, in key order.
    pub(crate) key: Vec<usize>,
}

impl Columns {
    pub(crate) async fn of(postgres: &Client, table: &str) -> Result<Self> {
        let rows = postgres
            .query(COLUMNS, &[&format!("public.\"{table}\"")])
            .await?;
        let mut all = Vec::with_capacity(rows.len());
        let mut key = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            let (name, kind, place): (String, String, i32) = (row.get(0), row.get(1), row.get(2));
            let unknown = || Error::UnknownType {
                column: format!("{table}.{name}"),
                kind: kind.clone(),
            };
            all.push(Column {
                kind: Kind::of(&kind).ok_or_else(unknown)?,
                name,
            });
            if place >= 0 {
                key.push((place, index));
            }
        }
        key.sort_unstable();
        Ok(Self {
            all,
            key: key.into_iter().map(|(_, index)| index).collect(),
        })
    }

    /// The statement that reads every column as text.
    pub(crate) fn select(&self, table: &str) -> String {
        let texts: Vec<_> = self
            .all
            .iter()
            .map(|column| column.kind.as_text(&column.name))
            .collect();
        format!("select {} from public.\"{table}\"", texts.join(", "))
    }
}
