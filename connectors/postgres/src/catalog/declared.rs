//! How a table's columns are declared, for those who describe its records to others.

use tokio_postgres::types::Type as Parameter;
use tokio_postgres::{Client, Row};
use walferry_schema::Declared;

use crate::error::{Error, Result};

/// Domains over domains down to their base; of a true array, the elements.
const COLUMNS: &str = "
select a.attname::text as name, t.typname::text as type_name, b.typname::text as base,
    a.attnotnull or t.typnotnull as is_required,
    case when a.attgenerated = '' then pg_catalog.pg_get_expr(d.adbin, d.adrelid) end as default,
    array(select e.enumlabel::text from pg_catalog.pg_enum e where e.enumtypid = b.oid order by e.enumsortorder) as labels
from pg_catalog.pg_attribute a
join pg_catalog.pg_type t on t.oid = a.atttypid
left join pg_catalog.pg_type e on e.typarray = t.oid
cross join lateral (
    with recursive bases as (
        select coalesce(e.oid, t.oid) as oid, 0 as depth
        union all
        select x.typbasetype, bases.depth + 1 from bases join pg_catalog.pg_type x on x.oid = bases.oid
        where x.typtype = 'd'
    )
    select x.oid, x.typname from bases join pg_catalog.pg_type x on x.oid = bases.oid order by depth desc limit 1
) b
left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
order by a.attnum";

/// The columns of a table as they are declared now; none of a table that is gone.
pub(crate) async fn declared(client: &Client, table: u32) -> Result<Vec<Declared>> {
    let rows = client
        .query_typed(COLUMNS, &[(&table, Parameter::OID)])
        .await;
    let rows = rows.map_err(Error::sql("asking how columns are declared"))?;
    Ok(rows.iter().map(column).collect())
}

fn column(row: &Row) -> Declared {
    Declared {
        name: row.get("name"),
        type_name: row.get("type_name"),
        base: row.get("base"),
        is_required: row.get("is_required"),
        default: row.get("default"),
        labels: row.get("labels"),
    }
}
