//! A table as the catalog describes it now, in the shape that a Relation message would have.

use std::sync::Arc;

use tokio_postgres::types::Type as Parameter;
use tokio_postgres::{Client, Row};
use walferry_schema::{Column, Relation, ReplicaIdentity, TableName, Type};

use super::{Catalog, KEY_COLUMNS, KEY_INDEX};
use crate::error::{Error, Result};

const DOING: &str = "describing a table";
/// The first version whose publications have column lists and row filters.
const HAS_COLUMN_LISTS: u32 = 15;
/// The first version whose publications may have generated columns.
const HAS_PUBLISHED_GENERATED: u32 = 18;

/// A table and how much of it is published.
pub(crate) struct Description {
    /// The key is not numbered yet.
    pub(crate) columns: Vec<Column>,
    pub(crate) oid: u32,
    pub(crate) identity: ReplicaIdentity,
    /// The key's columns by the catalog.
    pub(crate) key: Vec<String>,
    /// Whether it is an ordinary table, with rows of its own in blocks of its own.
    pub(crate) is_ordinary: bool,
    pub(crate) bytes: u64,
    pub(crate) block_bytes: u64,
    /// The publication's condition on rows.
    pub(crate) filter: Option<String>,
}

struct Published {
    columns: Option<Vec<String>>,
    filter: Option<String>,
}

// === impl Description ===

impl Description {
    pub(crate) fn relation(self, name: TableName) -> Relation {
        Relation {
            oid: self.oid,
            name,
            identity: self.identity,
            columns: self.columns.into(),
        }
    }
}

/// Describes a table, as far as `publication` publishes it if one is given.
pub(crate) async fn describe(
    client: &Client,
    server_version: u32,
    catalog: &mut Catalog,
    name: &TableName,
    publication: Option<&str>,
) -> Result<Description> {
    let table = table(client, name).await?;
    let published = match publication {
        Some(publication) => published(client, server_version, name, publication).await?,
        None => Published {
            columns: None,
            filter: None,
        },
    };
    let has_generated = server_version >= HAS_PUBLISHED_GENERATED && publication.is_some();
    let oid = table.get("oid");
    let columns = columns(client, catalog, oid, &published, has_generated).await?;
    Ok(Description {
        columns,
        oid,
        identity: identity(table.get("identity")),
        key: table.get("key"),
        is_ordinary: table.get("is_ordinary"),
        bytes: u64::try_from(table.get::<_, i64>("bytes")).unwrap_or_default(),
        block_bytes: u64::try_from(table.get::<_, i64>("block_bytes")).unwrap_or(8192),
        filter: published.filter,
    })
}

async fn table(client: &Client, name: &TableName) -> Result<Row> {
    // The catalog shows the tables as of the snapshot, pg_relation_filenode and pg_partition_tree as of now.
    let sql = format!(
        "select c.oid, c.relreplident::text as identity, c.relkind = 'r' as is_ordinary, {KEY_COLUMNS} as key,
                exists (select from pg_catalog.pg_class l
                    where l.relkind = 'r' and pg_catalog.pg_relation_filenode(l.oid) is distinct from l.relfilenode
                      and (l.oid = c.oid or l.oid in (select relid from pg_catalog.pg_partition_tree(c.oid)))) as is_rewritten,
                case when c.relkind = 'r' then pg_catalog.pg_relation_size(c.oid) else 0 end as bytes,
                pg_catalog.current_setting('block_size')::int8 as block_bytes
         from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace {KEY_INDEX}
         where n.nspname = $1 and c.relname = $2"
    );
    let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Parameter); 2] = [
        (&&*name.schema, Parameter::TEXT),
        (&&*name.table, Parameter::TEXT),
    ];
    let row = client
        .query_typed_opt(&sql, &parameters)
        .await
        .map_err(Error::sql(DOING))?;
    let row = row.ok_or_else(|| Error::TableMissing {
        table: name.clone(),
    })?;
    if row.get("is_rewritten") {
        return Err(Error::TableRewritten {
            table: name.clone(),
        });
    }
    Ok(row)
}

async fn published(
    client: &Client,
    server_version: u32,
    name: &TableName,
    publication: &str,
) -> Result<Published> {
    let has_lists = server_version >= HAS_COLUMN_LISTS;
    let lists = if has_lists {
        "attnames::text[], rowfilter"
    } else {
        "null::text[], null::text"
    };
    let sql = format!(
        "select {lists} from pg_catalog.pg_publication_tables
         where pubname = $1 and schemaname = $2 and tablename = $3"
    );
    let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Parameter); 3] = [
        (&publication, Parameter::TEXT),
        (&&*name.schema, Parameter::TEXT),
        (&&*name.table, Parameter::TEXT),
    ];
    let row = client
        .query_typed_opt(&sql, &parameters)
        .await
        .map_err(Error::sql(DOING))?;
    let unpublished = || Error::TableUnpublished {
        table: name.clone(),
        publication: publication.to_owned(),
    };
    let row = row.ok_or_else(unpublished)?;
    Ok(Published {
        columns: row.get(0),
        filter: row.get(1),
    })
}

async fn columns(
    client: &Client,
    catalog: &mut Catalog,
    oid: u32,
    published: &Published,
    has_generated: bool,
) -> Result<Vec<Column>> {
    let sql = "select attname::text, atttypid, atttypmod from pg_catalog.pg_attribute
               where attrelid = $1 and attnum > 0 and not attisdropped
                 and (attgenerated = '' or $2) and ($3::text[] is null or attname = any($3)) order by attnum";
    let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Parameter); 3] = [
        (&oid, Parameter::OID),
        (&has_generated, Parameter::BOOL),
        (&published.columns, Parameter::TEXT_ARRAY),
    ];
    let rows = client
        .query_typed(sql, &parameters)
        .await
        .map_err(Error::sql(DOING))?;
    let types: Vec<(u32, i32)> = rows.iter().map(|row| (row.get(1), row.get(2))).collect();
    catalog.learn(client, &types).await?;
    let named = rows.iter().zip(types);
    let column = |(row, (oid, modifier)): (&Row, _)| {
        let type_name = catalog
            .type_name(oid, modifier)
            .unwrap_or_else(|| Arc::from(super::UNKNOWN));
        Column {
            name: row.get::<_, &str>(0).into(),
            kind: Type::from_name(&type_name),
            type_name,
            key: 0,
        }
    };
    Ok(named.map(column).collect())
}

/// What `relreplident` stands for.
pub(crate) fn identity(code: &str) -> ReplicaIdentity {
    match code {
        "n" => ReplicaIdentity::Nothing,
        "f" => ReplicaIdentity::Full,
        "i" => ReplicaIdentity::Index,
        _ => ReplicaIdentity::Default,
    }
}
