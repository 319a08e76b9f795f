//! Tables as of one moment, read by COPY over several connections.
//!
//! - Every connection sees the same snapshot, whatever is written meanwhile.
//! - A described table stays locked against being rewritten or truncated: its block ranges cover every row once.
//! - Rows have the columns and the texts that the stream has.

pub(crate) mod chunks;
mod copier;
mod left_out;
mod listing;

use std::sync::Arc;

use tokio_postgres::Client;
use walferry_core::Tasks;
use walferry_schema::{Lsn, Relation, TableName};

use crate::catalog::{self, Catalog, Description, Extent};
use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::identifier::{quoted, table};
use crate::key::{self, Keys};
use crate::large::LargeRows;
use crate::sql;

pub use copier::Copier;
pub use left_out::LeftOutColumn;
pub use listing::ListedTable;

/// Repeatable read: one snapshot for all statements.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// A snapshot of a database that any number of [`Copier`]s can read at the same time.
///
/// Ends when it is dropped; copiers made before keep their view.
///
/// ```no_run
/// # async fn example(tasks: walferry_core::Tasks) -> walferry_postgres::Result<()> {
/// # use walferry_postgres::SnapshotReader;
/// # use walferry_schema::TableName;
/// let mut reader = SnapshotReader::export("postgres://walferry@localhost/shop", &tasks).await?;
/// let orders = reader.describe(&TableName::new("public", "orders"), "shop_publication").await?;
/// for range in orders.ranges(32 << 20) {
///     // Each of these can run in a task of its own.
///     let mut copier = reader.copier().await?;
///     copier.start(&orders, range).await?;
///     while let Some(rows) = copier.next_rows(5_000, 2 << 20).await? {
///         drop(rows);
///     }
/// }
/// # Ok(()) }
/// ```
pub struct SnapshotReader {
    endpoint: Endpoint,
    client: Client,
    server_version: u32,
    snapshot: String,
    taken_at: i64,
    catalog: Catalog,
    /// Which rows its copiers put into files; none where every row is wanted whole.
    large_rows: Option<LargeRows>,
}

/// A table of a snapshot, ready to be copied.
#[derive(Clone, Debug)]
pub struct SnapshotTable {
    relation: Arc<Relation>,
    filter: Option<String>,
    is_ordinary: bool,
    bytes: u64,
    block_bytes: u64,
}

/// Some blocks of a table's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRange {
    /// The first block.
    pub first: u32,
    /// The block after the last one; none for the rest of the table.
    pub end: Option<u32>,
}

// === impl SnapshotReader ===

impl SnapshotReader {
    /// Takes a snapshot of the database as it is now.
    ///
    /// # Errors
    /// Transient when the server cannot be reached; fatal when it refuses us.
    pub async fn export(url: &str, tasks: &Tasks) -> Result<Self> {
        let endpoint = Endpoint::parse(url)?;
        Self::begin(endpoint, tasks, None).await
    }

    /// Joins a snapshot that another connection exported and still holds; large rows are spooled.
    pub(crate) async fn import(
        endpoint: Endpoint,
        tasks: &Tasks,
        snapshot: &str,
        large_rows: LargeRows,
    ) -> Result<Self> {
        let joined = Self::begin(endpoint, tasks, Some(snapshot)).await?;
        Ok(Self {
            large_rows: Some(large_rows),
            ..joined
        })
    }

    async fn begin(endpoint: Endpoint, tasks: &Tasks, snapshot: Option<&str>) -> Result<Self> {
        const DOING: &str = "taking a snapshot";
        let sql::Connected {
            client,
            server_version,
        } = sql::connect(&endpoint, tasks).await?;
        client
            .batch_execute(BEGIN)
            .await
            .map_err(Error::sql(DOING))?;
        if let Some(snapshot) = snapshot {
            client
                .batch_execute(&joining(snapshot))
                .await
                .map_err(Error::sql(DOING))?;
        }
        // An imported snapshot can be exported again, which keeps it open for more connections.
        let exported = "select pg_catalog.pg_export_snapshot(),
                        (extract(epoch from pg_catalog.clock_timestamp()) * 1000000)::int8";
        let row = client
            .query_typed_one(exported, &[])
            .await
            .map_err(Error::sql(DOING))?;
        let (snapshot, taken_at) = (row.get(0), row.get(1));
        let catalog = Catalog::default();
        Ok(Self {
            endpoint,
            client,
            server_version,
            snapshot,
            taken_at,
            catalog,
            large_rows: None,
        })
    }

    /// When the snapshot was taken by the server's clock, microseconds since 1970.
    pub fn taken_at(&self) -> i64 {
        self.taken_at
    }

    /// The table as of the snapshot, its primary key numbered (or the index chosen as replica identity); locks it.
    /// Generated columns are there when the publication's streams carry them, from PostgreSQL 18 on, and otherwise left
    /// out as those leave them out.
    ///
    /// # Errors
    /// Fatal when it does not exist or may not be read; transient when it was rewritten since the snapshot.
    pub async fn describe(&mut self, name: &TableName, publication: &str) -> Result<SnapshotTable> {
        let mut described = self.description(name, Extent::Whole(publication)).await?;
        let key = std::mem::take(&mut described.key);
        snapshot_table(described, name, &key, Lsn::ZERO)
    }

    /// The table as far as a publication publishes it, with the recorded key if there is one.
    pub(crate) async fn describe_published(
        &mut self,
        name: &TableName,
        publication: &str,
        keys: &Keys,
        lsn: Lsn,
    ) -> Result<SnapshotTable> {
        let mut described = self
            .description(name, Extent::Published(publication))
            .await?;
        let own_key = std::mem::take(&mut described.key);
        snapshot_table(described, name, keys.get(name).unwrap_or(&own_key), lsn)
    }

    /// How many rows the table has in the snapshot, as many as its copiers give.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn count(&self, table: &SnapshotTable) -> Result<u64> {
        let sql = format!("select count(*) {}", table.source(BlockRange::WHOLE));
        let row = self.client.query_typed_one(&sql, &[]).await;
        let row = row.map_err(Error::sql("counting the rows of a table"))?;
        Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or_default())
    }

    /// A new connection that reads this snapshot.
    ///
    /// # Errors
    /// Transient when the server cannot be reached or has no room.
    pub async fn copier(&self) -> Result<Copier> {
        Copier::connect(&self.endpoint, &self.snapshot, self.large_rows.clone()).await
    }

    async fn description(&mut self, name: &TableName, extent: Extent<'_>) -> Result<Description> {
        let lock = format!("LOCK TABLE {} IN ACCESS SHARE MODE", table(name));
        let locked = self.client.batch_execute(&lock).await;
        locked.map_err(Error::sql(format!("locking the table {name}")))?;
        catalog::describe(
            &self.client,
            self.server_version,
            &mut self.catalog,
            name,
            extent,
        )
        .await
    }
}

// === impl SnapshotTable ===

impl SnapshotTable {
    /// The table's version: the columns of its rows.
    pub fn relation(&self) -> &Arc<Relation> {
        &self.relation
    }

    /// The publication's condition on rows; those for which it is not true are not in the snapshot.
    pub fn filter(&self) -> Option<&str> {
        self.filter.as_deref()
    }

    /// The bytes of the table's blocks; 0 where they are unknown.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Ranges of about `range_bytes` each that cover the table: one at least.
    pub fn ranges(&self, range_bytes: u64) -> Vec<BlockRange> {
        if !self.is_ordinary {
            return vec![BlockRange::WHOLE];
        }
        let block_bytes = self.block_bytes.max(1);
        let blocks = self.bytes.div_ceil(block_bytes);
        let step = (range_bytes / block_bytes).max(1);
        let block = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let starts = (0..blocks.max(1)).step_by(usize::try_from(step).unwrap_or(usize::MAX));
        let range = |first: u64| {
            let end = first + step;
            BlockRange {
                first: block(first),
                end: (end < blocks).then(|| block(end)),
            }
        };
        starts.map(range).collect()
    }

    /// The query of a range's rows.
    fn select(&self, range: BlockRange) -> String {
        let columns: Vec<_> = self
            .relation
            .columns
            .iter()
            .map(|column| quoted(&column.name))
            .collect();
        format!("SELECT {} {}", columns.join(", "), self.source(range))
    }

    fn source(&self, range: BlockRange) -> String {
        // The children of an inheritance parent are tables of their own; a partitioned table has only its partitions.
        let only = if self.is_ordinary { "ONLY " } else { "" };
        let first = (range.first > 0).then(|| format!("ctid >= '({},0)'::tid", range.first));
        let end = range.end.map(|end| format!("ctid < '({end},0)'::tid"));
        let filter = self.filter.as_ref().map(|filter| format!("({filter})"));
        let conditions: Vec<_> = [first, end, filter].into_iter().flatten().collect();
        let condition = match conditions.as_slice() {
            [] => String::new(),
            conditions => format!(" WHERE {}", conditions.join(" AND ")),
        };
        format!("FROM {only}{}{condition}", table(&self.relation.name))
    }
}

// === impl BlockRange ===

impl BlockRange {
    /// The whole table.
    pub const WHOLE: Self = Self {
        first: 0,
        end: None,
    };
}

fn snapshot_table(
    mut described: Description,
    name: &TableName,
    key: &[String],
    lsn: Lsn,
) -> Result<SnapshotTable> {
    let missing = |column: &str| Error::KeyColumnMissing {
        table: name.clone(),
        column: column.to_owned(),
        lsn,
    };
    key::number(&mut described.columns, key).map_err(missing)?;
    let (is_ordinary, bytes, block_bytes) = (
        described.is_ordinary,
        described.bytes,
        described.block_bytes,
    );
    let filter = described.filter.take();
    let relation = Arc::new(described.relation(name.clone()));
    Ok(SnapshotTable {
        relation,
        filter,
        is_ordinary,
        bytes,
        block_bytes,
    })
}

/// Joins a snapshot. Its name is PostgreSQL's own: digits and dashes.
fn joining(snapshot: &str) -> String {
    format!(
        "SET TRANSACTION SNAPSHOT '{}'",
        snapshot.replace('\'', "''")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use walferry_schema::{Column, ReplicaIdentity, Type};

    fn table(bytes: u64, filter: Option<&str>, is_ordinary: bool) -> SnapshotTable {
        let column = |name: &str| Column {
            name: name.into(),
            type_name: "int4".into(),
            kind: Type::Int4,
            key: 0,
        };
        let relation = Relation {
            oid: 1,
            name: TableName::new("s", "t\"t"),
            identity: ReplicaIdentity::Default,
            columns: [column("a"), column("b\"b")].into(),
        };
        let filter = filter.map(ToOwned::to_owned);
        SnapshotTable {
            relation: relation.into(),
            filter,
            is_ordinary,
            bytes,
            block_bytes: 8192,
        }
    }

    #[test]
    fn ranges_follow_one_another_and_the_last_is_open() {
        let range = |first, end| BlockRange { first, end };
        let ranges = table(5 * 8192, None, true).ranges(2 * 8192);
        assert_eq!(
            ranges,
            [range(0, Some(2)), range(2, Some(4)), range(4, None)]
        );
        assert_eq!(
            table(4 * 8192, None, true).ranges(2 * 8192),
            [range(0, Some(2)), range(2, None)]
        );
        assert_eq!(table(0, None, true).ranges(1), [BlockRange::WHOLE]);
        assert_eq!(table(9 << 20, None, false).ranges(1), [BlockRange::WHOLE]);
    }

    #[test]
    fn a_range_becomes_a_query() {
        let range = BlockRange {
            first: 2,
            end: Some(4),
        };
        assert_eq!(
            table(1, Some("a > 1"), true).select(range),
            "SELECT \"a\", \"b\"\"b\" FROM ONLY \"s\".\"t\"\"t\" \
             WHERE ctid >= '(2,0)'::tid AND ctid < '(4,0)'::tid AND (a > 1)"
        );
        assert_eq!(
            table(1, None, false).select(BlockRange::WHOLE),
            "SELECT \"a\", \"b\"\"b\" FROM \"s\".\"t\"\"t\""
        );
    }
}
