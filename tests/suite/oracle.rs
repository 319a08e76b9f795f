//! PostgreSQL as the oracle: what every document must be, worked out by PostgreSQL and the driver
//! alone, without any of walferry's decoders.

use std::collections::BTreeMap;
use std::str::FromStr;

use bson::{Binary, Bson, DateTime, Decimal128, Document, spec::BinarySubtype};
use futures_util::TryStreamExt;
use tokio_postgres::{Client, Row};

/// A column of a table: name, type and place in the primary key (0 for none).
struct Column {
    name: String,
    kind: String,
    key: usize,
}

/// Holds a table against its collection: `Ok` when they are equal, column for column and BSON type
/// for BSON type, in table order.
pub(crate) async fn compare(
    sql: &Client,
    mongo: &mongodb::Database,
    table: &str,
) -> Result<(), String> {
    compare_as(sql, mongo, table, table).await
}

/// The same of another collection or view: what who asks sees of the one against what who asks sees of the other.
pub(crate) async fn compare_as(
    sql: &Client,
    mongo: &mongodb::Database,
    table: &str,
    collection: &str,
) -> Result<(), String> {
    let expected = documents(sql, table).await.map_err(|e| e.to_string())?;
    let mut found = BTreeMap::new();
    let collection = mongo.collection::<Document>(collection);
    let mut cursor = collection
        .find(Document::new())
        .await
        .map_err(|e| e.to_string())?;
    while let Some(document) = cursor.try_next().await.map_err(|e| e.to_string())? {
        found.insert(format!("{:?}", document.get("_id")), document);
    }
    for (id, expected) in &expected {
        match found.remove(id) {
            None => return Err(format!("{table}: {id} is missing")),
            Some(found) if found != *expected || !found.keys().eq(expected.keys()) => {
                return Err(format!("{table}: expected {expected}, found {found}"));
            }
            Some(_) => {}
        }
    }
    match found.pop_first() {
        Some((_, extra)) => Err(format!("{table}: {extra} should not be there")),
        None => Ok(()),
    }
}

/// Every row of a table as the document it should be, by `_id`.
async fn documents(
    sql: &Client,
    table: &str,
) -> Result<BTreeMap<String, Document>, tokio_postgres::Error> {
    let columns = columns(sql, table).await?;
    let list: Vec<_> = columns.iter().map(select).collect();
    let rows = sql
        .query(&format!("select {} from {table}", list.join(", ")), &[])
        .await?;
    Ok(rows
        .iter()
        .map(|row| {
            let document = document(&columns, row);
            (format!("{:?}", document.get("_id")), document)
        })
        .collect())
}

async fn columns(sql: &Client, table: &str) -> Result<Vec<Column>, tokio_postgres::Error> {
    let query = "
        select a.attname, t.typname,
               coalesce(array_position(i.indkey::int2[], a.attnum) + 1, 0)
        from pg_attribute a join pg_type t on t.oid = a.atttypid
        left join pg_index i on i.indrelid = a.attrelid and i.indisprimary
        where a.attrelid = $1::text::regclass and a.attnum > 0 and not a.attisdropped
        order by a.attnum";
    let rows = sql.query(query, &[&table]).await?;
    let column = |row: &Row| Column {
        name: row.get(0),
        kind: row.get(1),
        key: usize::try_from(row.get::<_, i32>(2)).unwrap(),
    };
    Ok(rows.iter().map(column).collect())
}

/// The expression whose binary value says the column's without loss.
fn select(column: &Column) -> String {
    let name = format!("\"{}\"", column.name);
    match column.kind.as_str() {
        "bool" | "bytea" | "float8" => name,
        "int2" | "int4" => format!("{name}::int4"),
        "int8" | "oid" => format!("{name}::int8"),
        "float4" => format!("{name}::text::float8"),
        "date" => format!("({name} - date '1970-01-01')::int8 * 86400000"),
        "timestamp" | "timestamptz" => format!("floor(extract(epoch from {name}) * 1000)::int8"),
        _ => format!("{name}::text"),
    }
}

fn document(columns: &[Column], row: &Row) -> Document {
    let values: Vec<_> = columns
        .iter()
        .enumerate()
        .map(|(i, c)| value(c, row, i))
        .collect();
    let mut key: Vec<_> = (0..columns.len()).filter(|&i| columns[i].key > 0).collect();
    key.sort_by_key(|&i| columns[i].key);
    let id = match key.as_slice() {
        [one] => values[*one].clone(),
        many => Bson::Document(
            many.iter()
                .map(|&i| (columns[i].name.clone(), values[i].clone()))
                .collect(),
        ),
    };
    let fields = columns.iter().map(|c| c.name.clone()).zip(values);
    std::iter::once(("_id".to_owned(), id))
        .chain(fields)
        .collect()
}

fn value(column: &Column, row: &Row, i: usize) -> Bson {
    let null = || Bson::Null;
    let text = || row.get::<_, Option<String>>(i);
    match column.kind.as_str() {
        "bool" => row
            .get::<_, Option<bool>>(i)
            .map_or_else(null, Bson::Boolean),
        "int2" | "int4" => row.get::<_, Option<i32>>(i).map_or_else(null, Bson::Int32),
        "int8" | "oid" => row.get::<_, Option<i64>>(i).map_or_else(null, Bson::Int64),
        "float4" | "float8" => row.get::<_, Option<f64>>(i).map_or_else(null, Bson::Double),
        "numeric" => text().map_or_else(null, |text| {
            Bson::Decimal128(Decimal128::from_str(&text).unwrap())
        }),
        "date" | "timestamp" | "timestamptz" => row
            .get::<_, Option<i64>>(i)
            .map_or_else(null, |ms| Bson::DateTime(DateTime::from_millis(ms))),
        "bytea" => row.get::<_, Option<Vec<u8>>>(i).map_or_else(null, |bytes| {
            Bson::Binary(Binary {
                subtype: BinarySubtype::Generic,
                bytes,
            })
        }),
        "uuid" => text().map_or_else(null, |text| {
            let digits = text.replace('-', "");
            let byte = |i: usize| u8::from_str_radix(&digits[i..i + 2], 16).unwrap();
            Bson::Binary(Binary {
                subtype: BinarySubtype::Uuid,
                bytes: (0..32).step_by(2).map(byte).collect(),
            })
        }),
        "json" | "jsonb" => text().map_or_else(null, |text| json(&text)),
        _ => text().map_or_else(null, Bson::String),
    }
}

/// JSON with whole numbers and short fractions only, which the tests keep to.
fn json(text: &str) -> Bson {
    fn bson(value: serde_json::Value) -> Bson {
        match value {
            serde_json::Value::Null => Bson::Null,
            serde_json::Value::Bool(it) => Bson::Boolean(it),
            serde_json::Value::String(it) => Bson::String(it),
            serde_json::Value::Array(it) => Bson::Array(it.into_iter().map(bson).collect()),
            serde_json::Value::Object(it) => {
                Bson::Document(it.into_iter().map(|(k, v)| (k, bson(v))).collect())
            }
            serde_json::Value::Number(it) => match it.as_i64() {
                Some(n) => i32::try_from(n).map_or(Bson::Int64(n), Bson::Int32),
                None => Bson::Double(it.as_f64().unwrap()),
            },
        }
    }
    bson(serde_json::from_str(text).unwrap())
}
