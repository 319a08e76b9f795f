//! What a Relation message cannot say: the names of types that are not built in, and keys.
//!
//! - Built-in types are named without asking the server.
//! - A domain is named as its base type.

mod describe;
mod type_name;

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};
use walferry_core::SourceTable;
use walferry_schema::TableName;

use crate::error::{Error, Result};

pub(crate) use describe::{Description, describe};

/// How types of which nothing is known any more are called.
const UNKNOWN: &str = "unknown";
const LISTING: &str = "listing the publication's tables";

/// For each type asked for its base type, and the modifier that the last domain on the way gives it.
const BASE_TYPES: &str = "
with recursive chain as (
    select t.oid as asked, t.oid, t.typname, t.typnamespace, t.typtype, t.typbasetype, t.typtypmod, -1 as modifier
    from pg_catalog.pg_type t where t.oid = any($1)
    union all
    select c.asked, t.oid, t.typname, t.typnamespace, t.typtype, t.typbasetype, t.typtypmod, c.typtypmod
    from chain c join pg_catalog.pg_type t on t.oid = c.typbasetype where c.typtype = 'd'
)
select c.asked, c.oid, n.nspname::text, c.typname::text, c.modifier
from chain c join pg_catalog.pg_namespace n on n.oid = c.typnamespace where c.typtype <> 'd'";

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

/// Types' names by their object ids.
pub(crate) type TypeNames = HashMap<u32, Arc<str>>;

/// The names of types, asked for once per object id.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    /// Types that are not built in.
    names: TypeNames,
}

// === impl Catalog ===

impl Catalog {
    /// The type's name with its modifier; `None` when the server must be asked first, see [`Self::learn`].
    pub(crate) fn type_name(&self, oid: u32, modifier: i32) -> Option<Arc<str>> {
        type_name::built_in(oid, modifier).or_else(|| self.names.get(&oid).cloned())
    }

    /// Asks for those of the types whose names are not known yet.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is learned until the server has answered.
    pub(crate) async fn learn(&mut self, client: &Client, types: &[(u32, i32)]) -> Result<()> {
        let unknown = self.unknown(types);
        if !unknown.is_empty() {
            self.add(type_names(client, unknown).await?);
        }
        Ok(())
    }

    /// Those of the types that [`type_names`] must be asked for.
    pub(crate) fn unknown(&self, types: &[(u32, i32)]) -> Vec<u32> {
        let unknown = types
            .iter()
            .filter(|(oid, modifier)| self.type_name(*oid, *modifier).is_none());
        unknown.map(|(oid, _)| *oid).collect()
    }

    /// Learns what was asked for.
    pub(crate) fn add(&mut self, names: TypeNames) {
        self.names.extend(names);
    }
}

/// Asks the server for the names of types: all of those given.
pub(crate) async fn type_names(client: &Client, types: Vec<u32>) -> Result<TypeNames> {
    let rows = client
        .query_typed(BASE_TYPES, &[(&types, Type::OID_ARRAY)])
        .await;
    let mut names = TypeNames::new();
    for row in rows.map_err(Error::sql("asking for the names of types"))? {
        let (asked, oid, modifier) = (row.get(0), row.get(1), row.get(4));
        let name = type_name::built_in(oid, modifier)
            .unwrap_or_else(|| type_name::user_defined(row.get(2), row.get(3)));
        names.insert(asked, name);
    }
    for oid in types {
        names.entry(oid).or_insert_with(|| {
            tracing::warn!(
                oid,
                "a type of the stream does not exist any more: its values are taken as text"
            );
            UNKNOWN.into()
        });
    }
    Ok(names)
}

/// The type of a column that nobody will read.
pub(crate) fn name_without_asking(oid: u32, modifier: i32) -> Arc<str> {
    type_name::built_in(oid, modifier).unwrap_or_else(|| UNKNOWN.into())
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
