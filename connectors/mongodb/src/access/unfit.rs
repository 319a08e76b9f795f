//! What a role asks for and a table does not have.

use walferry_schema::TableName;

/// What a role asks for and a table does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// A column that is not there.
    #[error("{table} has no column {column}; its documents have {known}")]
    NoColumn {
        /// The table.
        table: TableName,
        /// The column.
        column: String,
        /// Those that there are.
        known: String,
    },
    /// A column that is not compared.
    #[error(
        "{column} of {table} is of type {type_name}, whose documents do not compare as rows do; a column can be a boolean, \
         a number, a text, a uuid or a date"
    )]
    NotComparable {
        /// The table.
        table: TableName,
        /// The column.
        column: String,
        /// Its type.
        type_name: String,
    },
    /// A value that the column cannot have.
    #[error("{column} of {table} is of type {type_name}, which {value} is not")]
    NotOfType {
        /// The table.
        table: TableName,
        /// The column.
        column: String,
        /// Its type.
        type_name: String,
        /// The value.
        value: String,
    },
    /// Two columns that are never equal.
    #[error("{own} and {parents} are of different types: no row would have a parent")]
    NoPair {
        /// The column of the one.
        own: String,
        /// That of the other.
        parents: String,
    },
}
