//! The columns of a table that its rows do not have in a snapshot.

use walferry_schema::Column;

use super::{SnapshotReader, SnapshotTable};
use crate::catalog;
use crate::error::Result;

/// A column that neither a copy nor the stream has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOutColumn {
    /// The column; outside the key.
    pub column: Column,
    /// Whether it is generated; else the publication's list of columns leaves it out.
    pub is_generated: bool,
}

// === impl SnapshotReader ===

impl SnapshotReader {
    /// The columns that a table has and its [`relation`](SnapshotTable::relation) has not, in table order.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn left_out(&mut self, table: &SnapshotTable) -> Result<Vec<LeftOutColumn>> {
        let relation = table.relation();
        let all = catalog::all_columns(&self.client, &mut self.catalog, relation.oid).await?;
        let is_there = |column: &Column| relation.columns.iter().any(|it| it.name == column.name);
        let left_out = all.into_iter().filter(|(column, _)| !is_there(column));
        let described = |(column, is_generated)| LeftOutColumn {
            column,
            is_generated,
        };
        Ok(left_out.map(described).collect())
    }
}
