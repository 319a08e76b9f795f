//! Every type reads the same in the snapshot and in the stream.

use walferry_core::{Source, SourceEvent};
use walferry_harness::{Postgres, fresh_directory};
use walferry_schema::{Cell, Change, Row, RowOp, Value};

use crate::support::{Database, Failure, Tested, database, database_on, next, public};

/// Type, its name in a relation, and two values.
type Tried = (&'static str, &'static str, &'static str, &'static str);

const TYPES: &[Tried] = &[
    ("bool", "bool", "true", "false"),
    ("int2", "int2", "-32768", "32767"),
    ("int4", "int4", "-2147483648", "7"),
    ("int8", "int8", "-9223372036854775808", "7"),
    ("oid", "oid", "4294967295", "1"),
    ("float4", "float4", "0.1", "'NaN'"),
    (
        "float8",
        "float8",
        "0.1::float8 + 0.2::float8",
        "'-Infinity'",
    ),
    (
        "numeric",
        "numeric",
        "12345678901234567890.0123456789012345678900",
        "'NaN'",
    ),
    ("numeric(10,2)", "numeric(10,2)", "1.10", "-99999999.99"),
    ("numeric(3,-2)", "numeric(3,-2)", "12300", "99900"),
    ("money", "money", "12.34", "-1234567.89"),
    ("text", "text", r"E'tab\t line\n \\N \\ é'", "''"),
    ("varchar(20)", "varchar(20)", "'abc'", "''"),
    ("char(5)", "bpchar(5)", "'ab'", "''"),
    ("\"char\"", "char", "'x'", "''"),
    ("name", "name", "'n'", "''"),
    ("mood", "mood", "'sad'", "'it''s \"ok\"'"),
    ("xml", "xml", "'<a>é</a>'", "'<b/>'"),
    ("inet", "inet", "'192.168.0.1/24'", "'::1'"),
    ("cidr", "cidr", "'192.168.0.0/24'", "'::/0'"),
    (
        "macaddr",
        "macaddr",
        "'08:00:2b:01:02:03'",
        "'ffffffffffff'",
    ),
    ("tsvector", "tsvector", "'a:1 b:2'", "''"),
    ("ltree", "ltree", "'a.b.c'", "''"),
    ("bit(3)", "bit(3)", "B'101'", "B'000'"),
    ("varbit(5)", "varbit(5)", "B'101'", "B''"),
    ("pg_lsn", "pg_lsn", "'16/B374D848'", "'0/0'"),
    ("bytea", "bytea", r"'\x00ff5c'", "''"),
    (
        "uuid",
        "uuid",
        "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
        "'00000000-0000-0000-0000-000000000000'",
    ),
    ("date", "date", "'0044-03-15 BC'", "'infinity'"),
    (
        "timestamp",
        "timestamp",
        "'1969-12-31 23:59:59.999999'",
        "'-infinity'",
    ),
    (
        "timestamp(3)",
        "timestamp(3)",
        "'2024-02-29 12:00:00.1235'",
        "'10000-01-01'",
    ),
    (
        "timestamptz",
        "timestamptz",
        "'2024-01-01 00:00:00.5+05:30'",
        "'0001-01-01 BC'",
    ),
    (
        "timestamptz(0)",
        "timestamptz(0)",
        "'2024-01-01 00:00:00.5+05:30'",
        "'infinity'",
    ),
    ("time", "time", "'24:00'", "'00:00:00.000001'"),
    (
        "timetz(2)",
        "timetz(2)",
        "'23:59:59.994+02'",
        "'00:00-15:59'",
    ),
    ("interval", "interval", "'1 year -2 days 03:04:05.6'", "'0'"),
    ("json", "json", "' {\"a\" : 1.0, \"a\":2}'", "'null'"),
    ("jsonb", "jsonb", "'{\"b\":[1e2,\"\\u00e9\"]}'", "'null'"),
    ("int4[]", "_int4", "'[0:1]={1,null}'", "'{}'"),
    ("text[]", "_text", r#"'{{"a b",null},{"\"","\\"}}'"#, "'{}'"),
    ("numeric(5,2)[]", "_numeric(5,2)", "'{1.5}'", "'{}'"),
    ("mood[]", "_mood", "'{sad,\"it''s \\\"ok\\\"\"}'", "'{}'"),
    ("hstore", "hstore", "'a=>1,b=>null'", "''"),
    ("pair", "pair", "row(1, 'a,\"b')", "row(null, null)"),
    ("posint", "int4", "1", "2"),
    ("price2", "numeric(8,2)", "1.5", "0"),
    ("moods", "mood", "'sad'", "'sad'"),
    ("int4range", "int4range", "'[1,5)'", "'empty'"),
    ("tstzrange", "tstzrange", "'[2024-01-01,)'", "'(,)'"),
    (
        "int4multirange",
        "int4multirange",
        "'{[1,2),[5,6)}'",
        "'{}'",
    ),
    ("point", "point", "'(1.5,-2)'", "'(0,0)'"),
    ("box", "box", "'(1,1),(0,0)'", "'(0,0),(0,0)'"),
    ("polygon", "polygon", "'((0,0),(1,1),(1,0))'", "'((0,0))'"),
    ("circle", "circle", "'<(0.1,0),3>'", "'<(0,0),0>'"),
    ("path", "path", "'[(0,0),(1,1)]'", "'((0,0))'"),
    ("xid8", "xid8", "'18446744073709551615'", "'3'"),
    ("jsonpath", "jsonpath", "'$.a[*] ? (@ > 1)'", "'$'"),
    ("regclass", "regclass", "'pg_class'", "'all_types'"),
    ("citext", "citext", "'ABC'", "''"),
];

const SCHEMA: &str = "
create extension ltree; create extension hstore; create extension citext;
create type mood as enum ('sad', 'it''s \"ok\"'); create type pair as (a int, b text);
create domain posint as int check (value > 0); create domain price as numeric(8,2); create domain price2 as price;
create domain moods as mood;";

const VECTORS: &[Tried] = &[
    ("vector", "vector", "'[1,2.5,-3e-5]'", "'[0.1]'"),
    ("vector(3)", "vector", "'[1,2,3]'", "'[3.4e38,-0,1]'"),
    ("halfvec(2)", "halfvec", "'[0.1,-2]'", "'[65504,0]'"),
    ("sparsevec(5)", "sparsevec", "'{1:1.5,5:-2}/5'", "'{}/5'"),
    ("vector[]", "_vector", "'{\"[1,2]\",null}'", "'{}'"),
    ("place", "vector", "'[1]'", "'[2]'"),
    ("other.vector", "other.vector", "'(a)'", "'()'"),
];

fn values(tried: &[Tried], id: u32, value: impl Fn(&Tried) -> String) -> String {
    let values: Vec<_> = tried.iter().map(value).collect();
    format!(
        "insert into all_types values ({id}, {});",
        values.join(", ")
    )
}

fn texts(row: &Row) -> Vec<Option<String>> {
    let text = |cell| match cell {
        Cell::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
        Cell::Null => None,
        Cell::Unchanged | Cell::Large(_) => panic!("a new row has every value"),
    };
    row.cells().skip(1).map(text).collect()
}

/// The statements that make a table of these types, and those that insert its rows.
fn table(tried: &[Tried], types: &str) -> (String, String) {
    let columns = tried.iter().enumerate();
    let columns: Vec<_> = columns
        .map(|(n, (name, ..))| format!("c{n} {name}"))
        .collect();
    let table = format!(
        "{types} create table all_types (id int primary key, {}, g int generated always as (id + 1) stored);",
        columns.join(", ")
    );
    let rows = values(tried, 1, |(.., first, _)| (*first).to_owned())
        + &values(tried, 2, |(.., second)| (*second).to_owned())
        + &values(tried, 3, |_| "null".to_owned());
    (table, rows)
}

/// Copies the rows and streams them again: those of the snapshot, once the texts, the names and the columns of both
/// are the same, and every text is a value of its type.
async fn same_in_both(
    database: &Database,
    rows: &str,
    tried: &[Tried],
) -> Result<Vec<Row>, Failure> {
    let mut source = database.source();
    source.set_keys(&[(public("all_types"), vec!["id".to_owned()])]);
    source.create_slot(&[public("all_types")]).await?;
    let chunk = source.next_chunk().await?.ok_or("a chunk")?;
    source.start().await?;
    database
        .run(&rows.replace("values (", "values (10 + "))
        .await;
    let mut streamed = Vec::new();
    while streamed.len() < 3 {
        if let SourceEvent::Change {
            change:
                Change::Row {
                    relation,
                    op: RowOp::Insert { new },
                },
            ..
        } = next(&mut source).await?
        {
            assert_eq!(*relation, *chunk.relation);
            streamed.push(new);
        }
    }
    assert_eq!(chunk.rows.len(), 3);
    for (copied, streamed) in chunk.rows.iter().zip(&streamed) {
        assert_eq!(texts(copied), texts(streamed));
    }
    let names = chunk.relation.columns[1..].iter();
    let names: Vec<_> = names.map(|column| &*column.type_name).collect();
    let expected = tried.iter().map(|(_, name, ..)| *name);
    assert_eq!(names, expected.collect::<Vec<_>>());
    for row in &chunk.rows {
        for (column, cell) in chunk.relation.columns.iter().zip(row.cells()) {
            let Cell::Text(text) = cell else { continue };
            Value::from_text(&column.kind, text)
                .map_err(|error| format!("{}: {error}", column.type_name))?;
        }
    }
    Ok(chunk.rows)
}

#[tokio::test]
async fn every_type_has_the_same_text_and_name_in_the_snapshot_and_in_the_stream() -> Tested {
    let (table, rows) = table(TYPES, SCHEMA);
    let database = database(&format!("{table}{rows}")).await;
    // A database whose own settings differ.
    database
        .run(&format!(
            "alter database {0} set datestyle = 'German'; alter database {0} set timezone = 'Asia/Kolkata';
             alter database {0} set bytea_output = 'escape'; alter database {0} set extra_float_digits = 0;
             alter database {0} set intervalstyle = 'sql_standard'; alter database {0} set statement_timeout = '1ms'",
            database.name
        ))
        .await;
    let copied = same_in_both(&database, &rows, TYPES).await?;
    let first = texts(&copied[0]);
    for text in [
        "0.30000000000000004",
        "\\x00ff5c",
        "2023-12-31 18:30:00.5+00",
        "P1Y-2DT3H4M5.6S",
        "0044-03-15 BC",
    ] {
        assert!(
            first.contains(&Some(text.to_owned())),
            "{text} is not in {first:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn vectors_have_the_same_text_and_name_in_the_snapshot_and_in_the_stream() -> Tested {
    let root = fresh_directory("vectors")?;
    let Some(server) = Postgres::start_with_vectors(root.path()).await? else {
        println!("skipped: no PostgreSQL here has the extension vector");
        return Ok(());
    };
    let types = "create extension vector; create domain place as vector(1);
                 create schema other; create type other.vector as (k text);";
    let (table, rows) = table(VECTORS, types);
    let database = database_on(&server, &format!("{table}{rows}")).await;
    let copied = same_in_both(&database, &rows, VECTORS).await?;
    assert_eq!(texts(&copied[0])[0].as_deref(), Some("[1,2.5,-3e-05]"));
    Ok(())
}
