//! What a Relation message cannot say: types that are not built in, and keys.
//!
//! - Built-in types are known without asking the server.
//! - A domain is its base type.

mod column_type;
mod declared;
mod describe;
mod type_name;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};
use walferry_core::SourceTable;
use walferry_schema::TableName;

use crate::error::{Error, Result};

pub(crate) use column_type::{ColumnType, ColumnTypes, column_types};
pub(crate) use declared::declared;
pub(crate) use describe::{Description, Extent, all_columns, describe};

const LISTING: &str = "listing the publication's tables";

/// The index that identifies rows, `i`, of the table `c`: the replica identity's where one is chosen, else the primary
/// key's. Its key columns in key order; INCLUDE columns are none.
pub(crate) const KEY_INDEX: &str = "
left join pg_catalog.pg_index i on i.indrelid = c.oid
    and case when c.relreplident = 'i' then i.indisreplident else i.indisprimary end";
pub(crate) const KEY_COLUMNS: &str = "
array(select a.attname::text
    from unnest(i.indkey) with ordinality k(attnum, place)
    join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum
    where k.place <= i.indnkeyatts order by k.place)";

/// The types of columns, asked for once per object id.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    /// Types that are not built in.
    types: ColumnTypes,
}

// === impl Catalog ===

impl Catalog {
    /// A type; `None` when the server must be asked first, see [`Self::learn`].
    pub(crate) fn column_type(&self, oid: u32, modifier: i32) -> Option<ColumnType> {
        ColumnType::built_in(oid, modifier, None).or_else(|| self.types.get(&oid).cloned())
    }

    /// Asks for those of the types that are not known yet.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is learned until the server has answered.
    pub(crate) async fn learn(&mut self, client: &Client, types: &[(u32, i32)]) -> Result<()> {
        let unknown = self.unknown(types);
        if !unknown.is_empty() {
            self.add(column_types(client, unknown).await?);
        }
        Ok(())
    }

    /// Those of the types that [`column_types`] must be asked for.
    pub(crate) fn unknown(&self, types: &[(u32, i32)]) -> Vec<u32> {
        let unknown = types
            .iter()
            .filter(|(oid, modifier)| self.column_type(*oid, *modifier).is_none());
        unknown.map(|(oid, _)| *oid).collect()
    }

    /// Learns what was asked for.
    pub(crate) fn add(&mut self, types: ColumnTypes) {
        self.types.extend(types);
    }

    /// Asks again the next time: the type may have changed.
    pub(crate) fn forget(&mut self, oid: u32) {
        self.types.remove(&oid);
    }
}

/// The type of a column that nobody will read.
pub(crate) fn type_without_asking(oid: u32, modifier: i32) -> ColumnType {
    ColumnType::without_asking(oid, modifier)
}

/// The publication's tables with their keys, in name order.
///
/// # Errors
/// Fatal when the publication does not exist or does not publish every operation.
pub(crate) async fn published_tables(
    client: &Client,
    publication: &str,
) -> Result<Vec<SourceTable>> {
    check_publication(client, publication).await?;
    let sql = format!(
        "select p.schemaname::text, p.tablename::text, c.oid, {KEY_COLUMNS},
                case when not i.indimmediate then (select x.relname::text from pg_catalog.pg_class x
                                                   where x.oid = i.indexrelid) end
         from pg_catalog.pg_publication_tables p
         join pg_catalog.pg_namespace n on n.nspname = p.schemaname
         join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = p.tablename {KEY_INDEX}
         where p.pubname = $1"
    );
    let rows = client
        .query_typed(&sql, &[(&publication, Type::TEXT)])
        .await;
    let rows = rows.map_err(Error::sql(LISTING))?;
    let mut tables: Vec<_> = rows.iter().map(published_table).collect();
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tables)
}

fn published_table(row: &Row) -> SourceTable {
    let deferrable_key: Option<String> = row.get(4);
    let key = if deferrable_key.is_some() {
        Vec::new()
    } else {
        row.get(3)
    };
    SourceTable {
        name: TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1)),
        oid: row.get(2),
        key,
        deferrable_key,
    }
}

/// Refuses a publication that is not there or that leaves out operations: what it leaves out is never sent.
async fn check_publication(client: &Client, publication: &str) -> Result<()> {
    let sql = "select pubinsert, pubupdate, pubdelete, pubtruncate
               from pg_catalog.pg_publication where pubname = $1";
    let found = client
        .query_typed_opt(sql, &[(&publication, Type::TEXT)])
        .await;
    let row = found.map_err(Error::sql(LISTING))?;
    let row = row.ok_or_else(|| Error::PublicationMissing {
        name: publication.to_owned(),
    })?;
    let operations = ["insert", "update", "delete", "truncate"];
    let missing = (0..)
        .zip(operations)
        .filter(|(at, _)| !row.get::<usize, bool>(*at));
    let missing: Vec<_> = missing.map(|(_, operation)| operation).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::PublicationPartial {
        name: publication.to_owned(),
        missing: missing.join(", "),
    })
}
