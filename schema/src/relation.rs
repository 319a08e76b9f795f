//! Tables as the write-ahead log describes them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

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

/// How a value's text is read and what it becomes.
///
/// Types without a form of their own travel as PostgreSQL's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// `bool`
    Bool,
    /// `int2`
    Int2,
    /// `int4`
    Int4,
    /// `int8`
    Int8,
    /// `oid`
    Oid,
    /// `float4`
    Float4,
    /// `float8`
    Float8,
    /// `numeric`
    Numeric,
    /// `bytea`
    Bytea,
    /// `uuid`
    Uuid,
    /// `date`
    Date,
    /// `timestamp`, with its declared precision (6 when none is)
    Timestamp(u8),
    /// `timestamptz`, with its declared precision (6 when none is)
    TimestampTz(u8),
    /// `json` or `jsonb`
    Json,
    /// Everything else.
    Text,
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

// === impl Type ===

impl Type {
    /// The type that a name of [`Column::type_name`] stands for.
    pub fn from_name(name: &str) -> Self {
        let (base, modifier) = match name.split_once('(') {
            Some((base, rest)) => (base, rest.strip_suffix(')')),
            None => (name, None),
        };
        let precision = modifier.and_then(|digits| digits.parse().ok()).unwrap_or(6);
        match base {
            "bool" => Self::Bool,
            "int2" => Self::Int2,
            "int4" => Self::Int4,
            "int8" => Self::Int8,
            "oid" => Self::Oid,
            "float4" => Self::Float4,
            "float8" => Self::Float8,
            "numeric" => Self::Numeric,
            "bytea" => Self::Bytea,
            "uuid" => Self::Uuid,
            "date" => Self::Date,
            "timestamp" => Self::Timestamp(precision),
            "timestamptz" => Self::TimestampTz(precision),
            "json" | "jsonb" => Self::Json,
            _ => Self::Text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_known_by_its_name_and_modifier() {
        assert_eq!(Type::from_name("numeric(10,2)"), Type::Numeric);
        assert_eq!(Type::from_name("timestamp(3)"), Type::Timestamp(3));
        assert_eq!(Type::from_name("timestamptz"), Type::TimestampTz(6));
        assert_eq!(Type::from_name("_int4"), Type::Text);
        assert_eq!(Type::from_name("mood"), Type::Text);
    }

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
