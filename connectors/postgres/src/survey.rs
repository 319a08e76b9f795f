//! What a database holds, for whoever is to choose from it.
//!
//! - It only looks.

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use walferry_core::Tasks;
use walferry_schema::TableName;

use crate::catalog::KEY_INDEX;
use crate::endpoint::{Endpoint, HostPort};
use crate::error::{Error, Result};
use crate::sql::Sql;

const SURVEYING: &str = "looking at the database";
const DATABASE: &str = "
    select pg_catalog.current_database()::text, pg_catalog.current_setting('wal_level'),
           (select pubname::text from pg_catalog.pg_publication
            where puballtables and pubinsert and pubupdate and pubdelete and pubtruncate
              and (pubviaroot or not exists (select from pg_catalog.pg_partitioned_table)) order by 1 limit 1),
           exists (select from pg_catalog.pg_roles where rolname = $1)";

/// What a database holds.
#[derive(Clone, Debug)]
pub struct Survey {
    /// The servers that the URL names, each as `host:port`.
    pub hosts: Vec<String>,
    /// The database.
    pub database: String,
    /// The setting of the server.
    pub wal_level: String,
    /// A publication of all tables and operations, a partitioned table being one.
    pub publication: Option<String>,
    /// Whether the role that was asked about is there.
    pub has_role: bool,
    /// The tables but the server's own, partitions and those that are not in the WAL, in name order.
    pub tables: Vec<Surveyed>,
}

/// What a table looks like from outside.
#[derive(Clone, Debug)]
pub struct Surveyed {
    /// The table.
    pub name: TableName,
    /// About how many rows it has.
    pub rows: u64,
    /// Rows inserted, updated and deleted since the server counts; loading it counts too.
    pub changes: u64,
    /// Whether it has a key that tells its rows apart at every moment.
    pub has_key: bool,
    /// Whether row-level security may hide rows.
    pub has_row_security: bool,
}

/// Looks at the database that a URL names; `role` is a role that may be there or not.
///
/// # Errors
/// When the URL cannot be used or the server cannot be asked.
pub async fn survey(url: &str, role: &str, tasks: &Tasks) -> Result<Survey> {
    let endpoint = Endpoint::parse(url)?;
    let hosts = endpoint.hosts.iter().map(in_url).collect();
    let mut sql = Sql::new(endpoint, tasks.clone());
    let client = sql.client().await?;
    let database = client
        .query_typed_one(DATABASE, &[(&role, Type::TEXT)])
        .await
        .map_err(Error::sql(SURVEYING))?;
    let tables = format!(
        "select n.nspname::text, c.relname::text, coalesce(s.n_live_tup, 0)::int8,
                coalesce(s.n_tup_ins + s.n_tup_upd + s.n_tup_del, 0)::int8,
                coalesce(i.indimmediate, false), c.relrowsecurity
         from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace {KEY_INDEX}
         left join pg_catalog.pg_stat_all_tables s on s.relid = c.oid
         where c.relkind in ('r', 'p') and c.relpersistence = 'p' and not c.relispartition
           and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
         order by 1, 2"
    );
    let tables = client.query_typed(&tables, &[]).await;
    let tables = tables.map_err(Error::sql(SURVEYING))?;
    Ok(Survey {
        hosts,
        database: database.get(0),
        wal_level: database.get(1),
        publication: database.get(2),
        has_role: database.get(3),
        tables: tables.iter().map(surveyed).collect(),
    })
}

fn surveyed(row: &Row) -> Surveyed {
    let number = |column| u64::try_from(row.get::<_, i64>(column)).unwrap_or_default();
    Surveyed {
        name: TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1)),
        rows: number(2),
        changes: number(3),
        has_key: row.get(4),
        has_row_security: row.get(5),
    }
}

/// A host as a URL has it.
fn in_url(host: &HostPort) -> String {
    let HostPort { host, port, .. } = host;
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}
