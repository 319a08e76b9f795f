//! The tables of a snapshot's database.

use tokio_postgres::types::Type;
use walferry_schema::{Lsn, TableName};

use super::{SnapshotReader, SnapshotTable};
use crate::error::{Error, Result};
use crate::key::Keys;

/// Ordinary and partitioned tables; a partitioned table is as big as its leaves.
const TABLES: &str = "
select n.nspname::text, c.relname::text, s.bytes, s.rows, c.relispartition, p.tablename is not null,
       pg_catalog.has_table_privilege(c.oid, 'SELECT') and pg_catalog.has_schema_privilege(n.oid, 'USAGE')
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
left join pg_catalog.pg_publication_tables p
    on p.pubname = $1 and p.schemaname = n.nspname and p.tablename = c.relname
cross join lateral (
    select coalesce(sum(pg_catalog.pg_relation_size(l.oid)), 0)::int8 as bytes,
           coalesce(sum(greatest(l.reltuples, 0)), 0)::int8 as rows
    from pg_catalog.pg_class l
    where l.oid = c.oid or c.relkind = 'p' and l.oid in (select relid from pg_catalog.pg_partition_tree(c.oid))
) s
where c.relkind in ('r', 'p') and c.relpersistence <> 't'
  and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
order by 1, 2";

/// A table that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedTable {
    /// The table.
    pub name: TableName,
    /// The bytes of its blocks.
    pub bytes: u64,
    /// About how many rows it has; 0 when it was never analysed.
    pub rows: u64,
    /// Whether its rows are rows of a partitioned table too.
    pub is_partition: bool,
    /// Whether the publication holds it.
    pub is_published: bool,
    /// Whether we may read it.
    pub is_readable: bool,
}

// === impl SnapshotReader ===

impl SnapshotReader {
    /// All tables of the database but the server's own, in name order, and whether `publication` holds them.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn list(&self, publication: &str) -> Result<Vec<ListedTable>> {
        let rows = self
            .client
            .query_typed(TABLES, &[(&publication, Type::TEXT)])
            .await;
        let number = |row: &tokio_postgres::Row, column| {
            u64::try_from(row.get::<_, i64>(column)).unwrap_or_default()
        };
        let table = |row: &tokio_postgres::Row| ListedTable {
            name: TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1)),
            bytes: number(row, 2),
            rows: number(row, 3),
            is_partition: row.get(4),
            is_published: row.get(5),
            is_readable: row.get(6),
        };
        Ok(rows
            .map_err(Error::sql("listing the tables"))?
            .iter()
            .map(table)
            .collect())
    }

    /// The table as [`describe`](Self::describe) gives it, but only the columns and rows that a publication publishes.
    ///
    /// # Errors
    /// As [`describe`](Self::describe); fatal when the publication does not hold the table.
    pub async fn describe_in(
        &mut self,
        name: &TableName,
        publication: &str,
    ) -> Result<SnapshotTable> {
        self.describe_published(name, publication, &Keys::default(), Lsn::ZERO)
            .await
    }
}
