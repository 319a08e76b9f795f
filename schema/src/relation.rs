//! Tables as the write-ahead log describes them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Type;

/// A table's qualified name, unquoted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableName {
    /// The schema, `public` for most.
    pub schema: Arc<str>,
    /// The table within the schema.
    pub table: Arc<str>,
}

/// What PostgreSQL writes of a row before an update or delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaIdentity {
    /// The primary key's columns.
    Default,
    /// Nothing: updates and deletes cannot be replicated.
    Nothing,
    /// The whole old row.
    Full,
    /// The columns of a chosen unique index.
    Index,
}

/// One version of a table: what a Relation message of pgoutput says, completed by the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// PostgreSQL's object id of the table.
    pub oid: u32,
    /// The qualified name.
    pub name: TableName,
    /// What old rows carry.
    pub identity: ReplicaIdentity,
    /// The columns in table order.
    pub columns: Arc<[Column]>,
}

/// A column of one version of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The column's name.
    pub name: Arc<str>,
    /// PostgreSQL's name of the type with its modifier: `int4`, `numeric(10,2)`, `_text`.
    pub type_name: Arc<str>,
    /// How the column's text is read.
    pub kind: Type,
    /// The column's place in the key, from 1; 0 for a column outside it.
    pub key: u16,
}

// === impl TableName ===

impl TableName {
    /// The name from its two parts.
    pub fn new(schema: impl Into<Arc<str>>, table: impl Into<Arc<str>>) -> Self {
        Self {
            schema: schema.into(),
            table: table.into(),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

// === impl Relation ===

impl Relation {
    /// The indexes of the key's columns, in key order; empty for a table without a key.
    pub fn key_columns(&self) -> Vec<usize> {
        key_columns(&self.columns)
    }
}

/// The indexes of the key's columns among `columns`, in key order.
pub(crate) fn key_columns(columns: &[Column]) -> Vec<usize> {
    let mut key: Vec<usize> = (0..columns.len()).filter(|&i| columns[i].key > 0).collect();
    key.sort_by_key(|&i| columns[i].key);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_columns_come_in_key_order() {
        let column = |name: &str, key| Column {
            name: name.into(),
            type_name: "int4".into(),
            kind: Type::Int4,
            key,
        };
        let columns = [column("b", 2), column("v", 0), column("a", 1)];
        assert_eq!(key_columns(&columns), [2, 0]);
    }
}
