//! A table as the catalog describes it now, in the shape that a Relation message would have.

use tokio_postgres::types::Type as Parameter;
use tokio_postgres::{Client, Row};
use walferry_schema::{Column, Relation, ReplicaIdentity, TableName};

use super::{Catalog, ColumnType, KEY_COLUMNS, KEY_INDEX};
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

/// How much of a table is described, and by which publication's word.
#[derive(Clone, Copy)]
pub(crate) enum Extent<'a> {
    /// What the publication holds of it.
    Published(&'a str),
    /// All rows and columns; generated ones where the publication's streams carry them.
    Whole(&'a str),
}

#[derive(Default)]
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

/// Describes a table.
pub(crate) async fn describe(
    client: &Client,
    server_version: u32,
    catalog: &mut Catalog,
    name: &TableName,
    extent: Extent<'_>,
) -> Result<Description> {
    let table = table(client, name).await?;
    let may_have_generated = server_version >= HAS_PUBLISHED_GENERATED;
    let (published, has_generated) = match extent {
        Extent::Published(publication) => {
            let published = published(client, server_version, name, publication).await?;
            (published, may_have_generated)
        }
        Extent::Whole(publication) => {
            let has_generated =
                may_have_generated && publishes_generated(client, publication).await?;
            (Published::default(), has_generated)
        }
    };
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

/// Whether a publication's streams carry stored generated columns; one that does not exist has none.
async fn publishes_generated(client: &Client, publication: &str) -> Result<bool> {
    let sql = "select pubgencols = 's' from pg_catalog.pg_publication where pubname = $1";
    let row = client
        .query_typed_opt(sql, &[(&publication, Parameter::TEXT)])
        .await;
    let row = row.map_err(Error::sql(DOING))?;
    Ok(row.is_some_and(|row| row.get(0)))
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
                 and (attgenerated = '' or $2 and attgenerated = 's') and ($3::text[] is null or attname = any($3)) order by attnum";
    let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Parameter); 3] = [
        (&oid, Parameter::OID),
        (&has_generated, Parameter::BOOL),
        (&published.columns, Parameter::TEXT_ARRAY),
    ];
    let rows = client
        .query_typed(sql, &parameters)
        .await
        .map_err(Error::sql(DOING))?;
    typed(client, catalog, &rows).await
}

/// All columns of a table in table order, and whether each is generated.
pub(crate) async fn all_columns(
    client: &Client,
    catalog: &mut Catalog,
    oid: u32,
) -> Result<Vec<(Column, bool)>> {
    let sql =
        "select attname::text, atttypid, atttypmod, attgenerated <> '' from pg_catalog.pg_attribute
               where attrelid = $1 and attnum > 0 and not attisdropped order by attnum";
    let rows = client
        .query_typed(sql, &[(&oid, Parameter::OID)])
        .await
        .map_err(Error::sql(DOING))?;
    let columns = typed(client, catalog, &rows).await?;
    let generated = rows.iter().map(|row| row.get(3));
    Ok(columns.into_iter().zip(generated).collect())
}

/// Columns from rows of their names, types and modifiers.
async fn typed(client: &Client, catalog: &mut Catalog, rows: &[Row]) -> Result<Vec<Column>> {
    let types: Vec<(u32, i32)> = rows.iter().map(|row| (row.get(1), row.get(2))).collect();
    catalog.learn(client, &types).await?;
    let typed = rows.iter().zip(types);
    let column = |(row, (oid, modifier)): (&Row, _)| {
        let known = catalog.column_type(oid, modifier);
        let column_type = known.unwrap_or_else(ColumnType::unknown);
        column_type.column(row.get(0))
    };
    Ok(typed.map(column).collect())
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
