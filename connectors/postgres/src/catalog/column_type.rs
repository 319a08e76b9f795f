//! The types of columns: their names with modifiers, and how their values are read.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::types::{Kind, Type as BuiltIn};
use tokio_postgres::{Client, Row};
use walferry_schema::{Attribute, Column, Type};

use super::type_name;
use crate::error::{Error, Result};
use crate::sql;

/// How types of which nothing is known any more are called.
const UNKNOWN: &str = "unknown";
/// The extensions whose types are read by their parts.
const EXTENSIONS: [&str; 2] = ["hstore", "vector"];
/// The digits of a money's fraction in most databases.
const CENTS: u8 = 2;
/// Deeper than any types are nested; PostgreSQL has none that contain themselves.
const MAX_DEPTH: usize = 64;

/// The types asked for and those that they consist of: base types of domains, elements of arrays, bounds of
/// ranges, attributes of composites. Only for a true array, which another type names as its own, is an element given.
const TYPES: &str = "
with recursive needed as (
    select unnest($1::oid[]) as oid
    union
    select part.oid from needed
    join pg_catalog.pg_type t on t.oid = needed.oid
    cross join lateral (
        select t.typbasetype as oid where t.typtype = 'd'
        union all select e.oid from pg_catalog.pg_type e where e.typarray = t.oid
        union all select r.rngsubtype from pg_catalog.pg_range r where t.oid in (r.rngtypid, r.rngmultitypid)
        union all select a.atttypid from pg_catalog.pg_attribute a
            where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
    ) part
)
select t.oid, n.nspname::text as schema, t.typname::text as name, t.typtype::text as kind, t.typbasetype as base,
    t.typtypmod as modifier, e.oid as element, e.typdelim::text as delimiter, r.rngsubtype as bound,
    r.rngmultitypid = t.oid as is_multirange,
    (select x.extname::text from pg_catalog.pg_depend d join pg_catalog.pg_extension x on x.oid = d.refobjid
        where d.classid = 'pg_catalog.pg_type'::regclass and d.objid = t.oid and d.deptype = 'e'
          and d.refclassid = 'pg_catalog.pg_extension'::regclass) as extension,
    coalesce(a.names, '{}') as attribute_names, coalesce(a.types, '{}') as attribute_types,
    coalesce(a.modifiers, '{}') as attribute_modifiers
from needed
join pg_catalog.pg_type t on t.oid = needed.oid
join pg_catalog.pg_namespace n on n.oid = t.typnamespace
left join pg_catalog.pg_type e on e.typarray = t.oid
left join pg_catalog.pg_range r on t.oid in (r.rngtypid, r.rngmultitypid)
cross join lateral (
    select array_agg(attname::text order by attnum) as names, array_agg(atttypid order by attnum) as types,
        array_agg(atttypmod order by attnum) as modifiers
    from pg_catalog.pg_attribute where t.typtype = 'c' and attrelid = t.typrelid and attnum > 0 and not attisdropped
) a";

/// What a column says of its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ColumnType {
    /// See [`Column::type_name`].
    pub(crate) name: Arc<str>,
    pub(crate) kind: Type,
}

/// Types by their object ids.
pub(crate) type ColumnTypes = HashMap<u32, ColumnType>;

/// A row of the catalog.
struct Entry {
    schema: String,
    name: String,
    extension: Option<String>,
    structure: Structure,
}

/// A type's object id and modifier.
type Reference = (u32, i32);

enum Structure {
    Domain(Reference),
    Array(u32, char),
    Range(u32),
    Multirange(u32),
    Composite(Vec<(Arc<str>, Reference)>),
    Other,
}

// === impl ColumnType ===

impl ColumnType {
    pub(super) fn unknown() -> Self {
        Self {
            name: UNKNOWN.into(),
            kind: Type::Text,
        }
    }

    /// A type that nobody will read.
    pub(super) fn without_asking(oid: u32, modifier: i32) -> Self {
        Self::built_in(oid, modifier, Some(CENTS)).unwrap_or_else(Self::unknown)
    }

    /// A built-in type, which no server needs to be asked for; `None` for other types. A money's digits are the
    /// database's.
    pub(super) fn built_in(oid: u32, modifier: i32, money: Option<u8>) -> Option<Self> {
        let built_in = BuiltIn::from_oid(oid)?;
        let name: Arc<str> = type_name::built_in(built_in.name(), modifier).into();
        let part = |part: &BuiltIn, modifier| Self::built_in(part.oid(), modifier, money);
        let kind = match built_in.kind() {
            // An array by its structure, but not in the form of its text.
            _ if matches!(built_in, BuiltIn::OID_VECTOR | BuiltIn::INT2_VECTOR) => Type::Text,
            Kind::Array(element) if *element == BuiltIn::BOX => Type::Array(Type::Text.into(), ';'),
            Kind::Array(element) => Type::array_of(part(element, modifier)?.kind),
            Kind::Range(bound) => Type::Range(part(bound, -1)?.kind.into()),
            Kind::Multirange(bound) => Type::Multirange(part(bound, -1)?.kind.into()),
            _ if built_in == BuiltIn::MONEY => Type::Money(money?),
            _ => Type::from_name(&name),
        };
        Some(Self { name, kind })
    }

    /// A column of this type, outside the key.
    pub(crate) fn column(self, name: &str) -> Column {
        Column {
            name: name.into(),
            type_name: self.name,
            kind: self.kind,
            key: 0,
        }
    }
}

/// Asks the server for types: all of those given.
pub(crate) async fn column_types(client: &Client, types: Vec<u32>) -> Result<ColumnTypes> {
    let rows = client
        .query_typed(TYPES, &[(&types, BuiltIn::OID_ARRAY)])
        .await;
    let rows = rows.map_err(Error::sql("asking for the types of columns"))?;
    let entries: HashMap<u32, Entry> = rows
        .iter()
        .map(|row| (row.get("oid"), entry(row)))
        .collect();
    let has_money = entries.contains_key(&BuiltIn::MONEY.oid());
    let money = if has_money {
        Some(money_digits(client).await?)
    } else {
        None
    };
    let described = |oid| {
        let found = described(&entries, money, (oid, -1), MAX_DEPTH).unwrap_or_else(|| {
            tracing::warn!(
                oid,
                "a type of the stream does not exist any more: its values are taken as text"
            );
            ColumnType::unknown()
        });
        (oid, found)
    };
    Ok(types.into_iter().map(described).collect())
}

/// The digits of a money's fraction in the database's own `lc_monetary`; on connections that rows come over it is C.
async fn money_digits(client: &Client) -> Result<u8> {
    const DOING: &str = "asking for the digits of money";
    let run = |sql: &'static str| client.batch_execute(sql);
    run("RESET lc_monetary").await.map_err(Error::sql(DOING))?;
    let digits = client
        .query_typed_one("select pg_catalog.scale(0::money::numeric)", &[])
        .await;
    run(sql::MONEY_AS_IN_C).await.map_err(Error::sql(DOING))?;
    let digits: i32 = digits.map_err(Error::sql(DOING))?.get(0);
    Ok(u8::try_from(digits).unwrap_or(CENTS))
}

fn entry(row: &Row) -> Entry {
    let delimiter = || {
        let delimiter: &str = row.get("delimiter");
        delimiter.chars().next().unwrap_or(',')
    };
    let structure = match (row.get("kind"), row.get("element"), row.get("bound")) {
        ("d", ..) => Structure::Domain((row.get("base"), row.get("modifier"))),
        ("c", ..) => Structure::Composite(attributes(row)),
        (_, Some(element), _) => Structure::Array(element, delimiter()),
        (_, _, Some(bound)) if row.get("is_multirange") => Structure::Multirange(bound),
        (_, _, Some(bound)) => Structure::Range(bound),
        _ => Structure::Other,
    };
    Entry {
        schema: row.get("schema"),
        name: row.get("name"),
        extension: row.get("extension"),
        structure,
    }
}

fn attributes(row: &Row) -> Vec<(Arc<str>, Reference)> {
    let names: Vec<&str> = row.get("attribute_names");
    let types: Vec<u32> = row.get("attribute_types");
    let modifiers: Vec<i32> = row.get("attribute_modifiers");
    let references = types.into_iter().zip(modifiers);
    names.into_iter().map(Arc::from).zip(references).collect()
}

/// The type of these entries; `None` when it is not among them.
fn described(
    entries: &HashMap<u32, Entry>,
    money: Option<u8>,
    (oid, modifier): Reference,
    depth: usize,
) -> Option<ColumnType> {
    if let Some(built_in) = ColumnType::built_in(oid, modifier, money) {
        return Some(built_in);
    }
    let depth = depth.checked_sub(1)?;
    let entry = entries.get(&oid)?;
    let part = |part: Reference| {
        described(entries, money, part, depth).unwrap_or_else(ColumnType::unknown)
    };
    let kind = match &entry.structure {
        Structure::Domain(base) => return Some(part(*base)),
        Structure::Array(element, delimiter) => {
            Type::Array(part((*element, modifier)).kind.into(), *delimiter)
        }
        Structure::Range(bound) => Type::Range(part((*bound, -1)).kind.into()),
        Structure::Multirange(bound) => Type::Multirange(part((*bound, -1)).kind.into()),
        Structure::Composite(attributes) => {
            let attribute = |(name, reference): &(Arc<str>, Reference)| Attribute {
                name: name.clone(),
                kind: part(*reference).kind,
            };
            Type::Composite(attributes.iter().map(attribute).collect())
        }
        Structure::Other if entry.is_known_extension() => Type::from_name(&entry.name),
        Structure::Other => Type::Text,
    };
    let name = if entry.is_known_extension() {
        entry.name.as_str().into()
    } else {
        type_name::user_defined(&entry.schema, &entry.name)
    };
    Some(ColumnType { name, kind })
}

// === impl Entry ===

impl Entry {
    fn is_known_extension(&self) -> bool {
        let extension = self.extension.as_deref();
        extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
    }
}
