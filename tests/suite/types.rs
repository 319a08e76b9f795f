//! Every type: random values by seed, copied and streamed, are what PostgreSQL itself says of them.
//!
//! The expected documents are expressions of SQL over the same rows, in JSON with `$decimal`, `$date`, `$double` and
//! `$int64` for what JSON has no type for, so that none of walferry's decoders has a part in them.

mod vectors;

use std::fmt::Write as _;
use std::str::FromStr;

use bson::{Binary, Bson, DateTime, Decimal128, Document, doc, spec::BinarySubtype};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value as Json;
use walferry_harness::eventually;

use crate::daemon::{PATIENCE, Pipeline};

/// A table `every` with a column of each of some types.
pub(crate) struct Table {
    /// What makes the types.
    pub(crate) setup: &'static str,
    /// The columns, called `c0`, `c1` and so on.
    pub(crate) cases: &'static [Case],
}

/// All that PostgreSQL and the extensions have that come with it.
pub(crate) const EVERY: Table = Table {
    setup: TYPES,
    cases: CASES,
};

const TYPES: &str = r#"
create extension hstore; create extension citext; create extension ltree; create extension isn;
create type mood as enum ('sad', 'it''s "ok"');
create domain positive as int check (value > 0);
create domain small as positive check (value < 1000000);
create domain words as text[];
create type pair as (a int, "b ""c""" text);
create type nest as (p pair, moods mood[], at timestamp(3), s small);
create type textrange as range (subtype = text);
create schema other; create type other.hstore as (k text);
"#;

/// A column's type, what its values are, and the JSON of the document's field over the column `c`.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    random: fn(&mut ChaCha8Rng) -> String,
    json: &'static str,
}

const TEXT: &str = "to_jsonb(c::text)";
const ITSELF: &str = "to_jsonb(c)";

macro_rules! range_json {
    ($bound:literal) => {
        concat!(
            "jsonb_build_object('lower', (select ", $bound, " from (select lower(c) as b) l where b is not null),
             'upper', (select ", $bound, " from (select upper(c) as b) u where b is not null),
             'lower_inclusive', lower_inc(c), 'upper_inclusive', upper_inc(c), 'empty', isempty(c))"
        )
    };
}

const CASES: &[Case] = &[
    Case { name: "bool", random: |r| r.random::<bool>().to_string(), json: ITSELF },
    Case { name: "int8", random: |r| format!("({})::int8", r.random::<i64>()), json: "jsonb_build_object('$int64', c::text)" },
    Case { name: "float8", random: float, json: "jsonb_build_object('$double', c::text)" },
    Case { name: "float4", random: |r| format!("({})::float4", float(r)), json: "jsonb_build_object('$double', c::text)" },
    Case {
        name: "numeric",
        random: numeric,
        json: "case when length(ltrim(translate(c::text, '-.', ''), '0')) <= 34 then jsonb_build_object('$decimal', c::text)
               else to_jsonb(c::text) end",
    },
    Case { name: "numeric(6,-2)", random: |r| r.random_range(-9_999_999..9_999_999).to_string(), json: "jsonb_build_object('$decimal', c::text)" },
    Case { name: "money", random: |r| format!("({}.{:02})::numeric::money", r.random_range(-9_999_999..9_999_999), r.random_range(0..100)), json: "jsonb_build_object('$decimal', c::numeric::text)" },
    Case { name: "bytea", random: |r| format!("decode('{}', 'hex')", "0fa0".repeat(r.random_range(0..9))), json: "jsonb_build_object('$binary', encode(c, 'hex'))" },
    Case { name: "date", random: date, json: "case when isfinite(c) then jsonb_build_object('$date', (c - '1970-01-01')::int8 * 86400000) else to_jsonb(c::text) end" },
    Case { name: "timestamp", random: timestamp, json: "case when isfinite(c) then jsonb_build_object('$date', floor(extract(epoch from c) * 1000)) else to_jsonb(c::text) end" },
    Case { name: "timestamptz(2)", random: |r| format!("({})::timestamptz", timestamp(r)), json: "case when isfinite(c) then jsonb_build_object('$date', floor(extract(epoch from c) * 1000)) else to_jsonb(c::text) end" },
    Case { name: "time", random: |r| (*["'24:00'", "'00:00:00.000001'", "'12:34:56.7'", "'23:59:59'"].choose(r).unwrap()).to_owned(), json: TEXT },
    Case { name: "time(2)", random: |r| format!("'12:34:{:02}.{:02}'", r.random_range(0..60), r.random_range(0..100)), json: TEXT },
    Case { name: "timetz", random: |r| (*["'24:00+00'", "'12:34:56.7-05:30'", "'01:00+15:59:59'", "'01:00Z'"].choose(r).unwrap()).to_owned(), json: "to_jsonb(regexp_replace(c::text, '([+-]\\d\\d)$', '\\1:00'))" },
    Case { name: "interval", random: |r| format!("make_interval(years => {}, days => {}, secs => {}.{})", r.random_range(-9..9), r.random_range(-99..99), r.random_range(-9999..9999), r.random_range(0..1000)), json: TEXT },
    Case { name: "bit(1)", random: |r| format!("B'{}'", r.random_range(0..2)), json: TEXT },
    Case { name: "bit(11)", random: |r| format!("B'{:011b}'", r.random_range(0..2048)), json: TEXT },
    Case { name: "varbit", random: |r| format!("B'{}'", "01".repeat(r.random_range(0..9))), json: TEXT },
    Case { name: "point", random: |r| format!("point({}, {})", r.random_range(-9..9), r.random::<f64>()), json: "jsonb_build_object('x', jsonb_build_object('$double', c[0]::text), 'y', jsonb_build_object('$double', c[1]::text))" },
    Case { name: "hstore", random: |r| format!("hstore(array[{0}, 'n', ''], array[{1}, null, 'NULL'])", text(r), text(r)), json: "hstore_to_json(c)::jsonb" },
    Case { name: "mood", random: |r| mood(r).to_owned(), json: TEXT },
    Case { name: "small", random: |r| r.random_range(1..1_000_000).to_string(), json: ITSELF },
    Case { name: "citext", random: text, json: TEXT },
    Case { name: "ltree", random: |r| format!("'a.b{}'", r.random_range(0..9)), json: TEXT },
    Case { name: "isbn", random: |_| "'978-0-393-04002-9'".to_owned(), json: TEXT },
    Case { name: "tsvector", random: |r| format!("to_tsvector('simple', {})", text(r)), json: TEXT },
    Case { name: "pg_lsn", random: |r| format!("'{:X}/{:X}'", r.random::<u32>(), r.random::<u32>()), json: TEXT },
    Case { name: "box", random: |r| format!("box(point(0, 0), point({}, 1))", r.random_range(0..9)), json: TEXT },
    Case { name: "inet", random: |r| format!("'10.0.0.{}/24'", r.random::<u8>()), json: TEXT },
    Case { name: "int4[]", random: |r| array(r, "int4", |r| r.random::<i32>().to_string()), json: ITSELF },
    Case { name: "int4[][]", random: |r| format!("array[[1, {0}], [null, 2]]", r.random_range(0..9)), json: ITSELF },
    Case { name: "int4[]", random: |r| format!("'[-1:0]={{1,{}}}'", r.random_range(0..9)), json: ITSELF },
    Case { name: "text[]", random: |r| array(r, "text", text), json: ITSELF },
    Case { name: "words", random: |r| array(r, "text", text), json: ITSELF },
    Case { name: "mood[]", random: |r| array(r, "mood", |r| mood(r).to_owned()), json: ITSELF },
    Case { name: "box[]", random: |r| array(r, "box", |r| format!("'(1,{}),(0,0)'", r.random_range(1..9))), json: "to_jsonb(c::text[])" },
    Case {
        name: "numeric(12,2)[]",
        random: |r| array(r, "numeric", |r| format!("{}.5", r.random_range(-99..99))),
        json: "(select coalesce(jsonb_agg(case when e is not null then jsonb_build_object('$decimal', e::text) end order by o), '[]')
                from unnest(c) with ordinality u(e, o))",
    },
    Case {
        name: "timestamptz[]",
        random: |r| array(r, "timestamptz", timestamp),
        json: "(select coalesce(jsonb_agg(case when e is null then null when not isfinite(e) then to_jsonb(e::text)
                else jsonb_build_object('$date', floor(extract(epoch from e) * 1000)) end order by o), '[]')
                from unnest(c) with ordinality u(e, o))",
    },
    Case { name: "bytea[]", random: |r| array(r, "bytea", |_| "'\\x00ff'".to_owned()), json: "(select coalesce(jsonb_agg(case when e is not null then jsonb_build_object('$binary', encode(e, 'hex')) end order by o), '[]') from unnest(c) with ordinality u(e, o))" },
    Case { name: "pair", random: pair, json: ITSELF },
    Case { name: "pair[]", random: |r| array(r, "pair", pair), json: ITSELF },
    Case {
        name: "nest",
        random: |r| format!("row({}, {}, timestamp '2024-02-29 12:00:00.123', {})::nest", pair(r), array(r, "mood", |r| mood(r).to_owned()), r.random_range(1..9)),
        json: "to_jsonb(c) || jsonb_build_object('at', jsonb_build_object('$date', floor(extract(epoch from (c).at) * 1000)))",
    },
    Case { name: "other.hstore", random: |r| format!("row({})::other.hstore", text(r)), json: ITSELF },
    Case { name: "int4range", random: |r| format!("int4range({0}, {0} + {1}, '{2}')", r.random_range(-99..99), r.random_range(0..3), ["[)", "(]", "()", "[]"].choose(r).unwrap()), json: range_json!("to_jsonb(b)") },
    Case { name: "numrange", random: |r| format!("numrange({}, null, '()')", r.random_range(-99..99)), json: range_json!("jsonb_build_object('$decimal', b::text)") },
    Case { name: "tstzrange", random: |_| "tstzrange(null, '2024-02-29 12:00+02', '(]')".to_owned(), json: range_json!("jsonb_build_object('$date', floor(extract(epoch from b) * 1000))") },
    Case { name: "textrange", random: |r| format!("textrange('', '~' || {})", text(r)), json: range_json!("to_jsonb(b)") },
    Case {
        name: "int4multirange",
        random: |r| format!("int4multirange(int4range(1, {0}), int4range({0} + 3, null))", r.random_range(2..9)),
        json: concat!("(select jsonb_agg(", range_json!("to_jsonb(b)"), " order by lower(c)) from (select unnest(c) as c) u)"),
    },
];

fn date(random: &mut ChaCha8Rng) -> String {
    let days = random.random_range(-2_400_000..2_140_000_000);
    let special = [
        "'infinity'",
        "'-infinity'",
        "'0044-03-15 BC'",
        "'5874897-12-31'",
    ];
    match random.random_range(0..4) {
        0 => (*special.choose(random).unwrap()).to_owned(),
        _ => format!("date '1970-01-01' + {days}"),
    }
}

fn timestamp(random: &mut ChaCha8Rng) -> String {
    let special = [
        "'infinity'",
        "'-infinity'",
        "'0044-03-15 12:00 BC'",
        "'294276-12-31 23:59:59'",
        "'1969-12-31 23:59:59.999999'",
    ];
    match random.random_range(0..4) {
        0 => format!("timestamp {}", special.choose(random).unwrap()),
        _ => format!(
            "timestamp '2000-01-01' + {} * interval '1 us'",
            random.random_range(-40_000_000_000_000_000..250_000_000_000_000_000_i64)
        ),
    }
}

fn float(random: &mut ChaCha8Rng) -> String {
    let special = [
        "'NaN'",
        "'Infinity'",
        "'-Infinity'",
        "'-0'",
        "0.1",
        "1e-30",
        "3.4e38",
    ];
    match random.random_range(0..2) {
        0 => (*special.choose(random).unwrap()).to_owned(),
        _ => format!("({})::float8", random.random_range(-1e10..1e10_f64)),
    }
}

fn numeric(random: &mut ChaCha8Rng) -> String {
    let special = [
        "'NaN'",
        "'Infinity'",
        "'-Infinity'",
        "0.000",
        "1e20",
        "1e33",
        "1e34",
        "-1e-40",
    ];
    let digits = "7".repeat(random.random_range(1..1000));
    match random.random_range(0..3) {
        0 => (*special.choose(random).unwrap()).to_owned(),
        1 => format!("{digits}.{digits}"),
        _ => format!(
            "{}.{:03}00",
            random.random::<i32>(),
            random.random_range(0..1000)
        ),
    }
}

/// A literal of some characters, those that are quoted somewhere among them.
fn text(random: &mut ChaCha8Rng) -> String {
    const PARTS: [&str; 18] = [
        "a", "NULL", "''", "\"", "\\", "{", "}", "(", ")", ",", ";", " ", "\t", "\n", "é☃", "😀",
        "=>", "[x]",
    ];
    let mut text = "'".to_owned();
    for _ in 0..random.random_range(0..8) {
        text += PARTS.choose(random).unwrap();
    }
    text + "'"
}

fn mood(random: &mut ChaCha8Rng) -> &'static str {
    ["'sad'", "'it''s \"ok\"'"].choose(random).unwrap()
}

fn pair(random: &mut ChaCha8Rng) -> String {
    let number = ["null", "-7"].choose(random).unwrap();
    let text = if random.random_bool(0.2) {
        "null".to_owned()
    } else {
        text(random)
    };
    format!("row({number}, {text})::pair")
}

fn array(random: &mut ChaCha8Rng, kind: &str, element: fn(&mut ChaCha8Rng) -> String) -> String {
    let mut list = String::new();
    for at in 0..random.random_range(0..5) {
        let separator = if at == 0 { "" } else { "," };
        let element = if random.random_bool(0.2) {
            "null".to_owned()
        } else {
            element(random)
        };
        write!(list, "{separator}{element}").unwrap();
    }
    format!("array[{list}]::{kind}[]")
}

fn bson(json: Json) -> Bson {
    match json {
        Json::Null => Bson::Null,
        Json::Bool(it) => Bson::Boolean(it),
        Json::String(it) => Bson::String(it),
        Json::Number(it) => Bson::Int32(it.as_i64().unwrap().try_into().unwrap()),
        Json::Array(it) => Bson::Array(it.into_iter().map(bson).collect()),
        Json::Object(it) => {
            let text = |name: &str| {
                it.get(name)
                    .map(|it| it.as_str().map_or_else(|| it.to_string(), str::to_owned))
            };
            if let Some(it) = text("$decimal") {
                return Bson::Decimal128(Decimal128::from_str(&it).unwrap());
            }
            if let Some(it) = text("$double") {
                return Bson::Double(it.parse().unwrap());
            }
            if let Some(it) = text("$int64") {
                return Bson::Int64(it.parse().unwrap());
            }
            if let Some(it) = text("$date") {
                return Bson::DateTime(DateTime::from_millis(it.parse().unwrap()));
            }
            if let Some(it) = text("$binary") {
                let byte = |at| u8::from_str_radix(&it[at..at + 2], 16).unwrap();
                let bytes = (0..it.len()).step_by(2).map(byte).collect();
                return Bson::Binary(Binary {
                    subtype: BinarySubtype::Generic,
                    bytes,
                });
            }
            Bson::Document(it.into_iter().map(|(name, it)| (name, bson(it))).collect())
        }
    }
}

/// Documents have their members in no order here: what jsonb gives has its own.
fn sorted(value: &Bson) -> String {
    match value {
        Bson::Document(document) => {
            let mut members: Vec<_> = document
                .iter()
                .map(|(name, it)| format!("{name:?}: {}", sorted(it)))
                .collect();
            members.sort();
            format!("{{{}}}", members.join(", "))
        }
        Bson::Array(elements) => {
            let elements: Vec<_> = elements.iter().map(sorted).collect();
            format!("[{}]", elements.join(", "))
        }
        other => format!("{other:?}"),
    }
}

// === impl Table ===

impl Table {
    /// The statements that make it.
    pub(crate) fn schema(&self) -> String {
        let columns = self.cases.iter().enumerate();
        let columns: Vec<_> = columns
            .map(|(at, case)| format!("c{at} {}", case.name))
            .collect();
        format!(
            "{} create table every (id int primary key, {});",
            self.setup,
            columns.join(", ")
        )
    }

    /// The statement that inserts a random row, with some NULLs.
    pub(crate) fn insert(&self, random: &mut ChaCha8Rng, id: i32) -> String {
        let values = self.cases.iter().map(|case| {
            if random.random_bool(0.05) {
                "null".to_owned()
            } else {
                (case.random)(random)
            }
        });
        let values: Vec<_> = values.collect();
        format!("insert into every values ({id}, {});", values.join(", "))
    }

    /// The statement that says what every document should be.
    fn expected(&self) -> String {
        let fields = self.cases.iter().enumerate();
        let fields: Vec<_> = fields
            .map(|(at, case)| {
                format!(
                    "(select case when num_nulls(c) = 0 then {} end from (select c{at} as c) x)::text",
                    case.json
                )
            })
            .collect();
        format!("select id, {} from every order by id", fields.join(", "))
    }

    async fn differing(&self, pipeline: &Pipeline) -> Result<(), String> {
        let query = "set intervalstyle = 'iso_8601'; set timezone = 'UTC'; set lc_monetary = 'C'";
        pipeline.sql.batch_execute(query).await.unwrap();
        let rows = pipeline.sql.query(&self.expected(), &[]).await.unwrap();
        let collection = pipeline.mongo.collection::<Document>("every");
        for row in &rows {
            let id: i32 = row.get(0);
            let document = collection
                .find_one(doc! { "_id": id })
                .await
                .map_err(|error| error.to_string())?;
            let document = document.ok_or(format!("{id} is missing"))?;
            for (at, case) in self.cases.iter().enumerate() {
                let json: Option<String> = row.get(at + 1);
                let expected =
                    bson(json.map_or(Json::Null, |json| serde_json::from_str(&json).unwrap()));
                let found = document
                    .get(format!("c{at}"))
                    .ok_or(format!("{} is missing", case.name))?;
                if sorted(found) != sorted(&expected) {
                    return Err(format!(
                        "{id}, {}: expected {expected:?}, found {found:?}",
                        case.name
                    ));
                }
            }
        }
        let count = collection
            .count_documents(doc! {})
            .await
            .map_err(|error| error.to_string())?;
        if count == rows.len() as u64 {
            Ok(())
        } else {
            Err(format!("{count} documents"))
        }
    }

    /// Copies and streams random rows, and holds the documents of both against PostgreSQL.
    async fn copied_and_streamed(&self, pipeline: &Pipeline) {
        let seed = std::env::var("WALFERRY_SEED")
            .ok()
            .map_or(1, |seed| seed.parse().unwrap());
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        for id in 1..=40 {
            let insert = self.insert(&mut random, id);
            pipeline
                .sql
                .batch_execute(&insert)
                .await
                .unwrap_or_else(|error| panic!("{error:?}: {insert}"));
        }
        let daemon = pipeline.start();
        let equal = async |what| {
            if let Err(error) = eventually(PATIENCE, what, || self.differing(pipeline)).await {
                panic!("{error}\n{}", pipeline.log());
            }
        };
        equal("the copied rows").await;
        let list: Vec<_> = (0..self.cases.len()).map(|at| format!("c{at}")).collect();
        let again = format!(
            "insert into every select id + 100, {} from every",
            list.join(", ")
        );
        pipeline.sql.batch_execute(&again).await.unwrap();
        equal("the streamed rows").await;
        assert!(daemon.stop().await.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_is_the_same_by_copy_and_by_stream_as_postgresql_says() {
    every_type("types", "").await;
}

/// Debezium's other forms of values, as far as they lose nothing.
#[tokio::test(flavor = "multi_thread")]
async fn every_type_is_the_same_in_every_form_that_loses_nothing() {
    let modes = "time_precision = \"isostring\"\nhstore = \"map\"\nbinary = \"hex\"\n";
    every_type("forms", modes).await;
    every_type("nanoseconds", "time_precision = \"nanoseconds\"\n").await;
}

/// Copies and streams rows of every type, through Kafka with these keys of `[kafka]`.
async fn every_type(name: &str, kafka: &str) {
    let pipeline = Pipeline::new(name, &EVERY.schema(), "public.*").await;
    pipeline.reconfigure("[kafka]\n", &format!("[kafka]\n{kafka}"));
    EVERY.copied_and_streamed(&pipeline).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn types_that_are_made_and_altered_while_streaming_are_known() {
    let schema = "create type mood as enum ('sad'); create type pair as (a int, b text); \
                  create table t (id int primary key, m mood, p pair); insert into t values (1, 'sad', row(1, 'x'))";
    let pipeline = Pipeline::new("altered", schema, "public.*").await;
    let daemon = pipeline.start();
    let becomes = async |expected: Document| {
        let collection = pipeline.mongo.collection::<Document>("t");
        let id = expected.get("_id").cloned();
        let attempt = async || {
            let found = collection.find_one(doc! { "_id": &id }).await;
            let found = found.map_err(|error| error.to_string())?;
            if found.as_ref() == Some(&expected) {
                Ok(())
            } else {
                Err(format!("expected {expected}, found {found:?}"))
            }
        };
        if let Err(error) = eventually(PATIENCE, "the row", attempt).await {
            panic!("{error}\n{}", pipeline.log());
        }
    };
    let run = async |sql: &str| pipeline.sql.batch_execute(sql).await.unwrap();
    becomes(doc! { "_id": 1, "id": 1, "m": "sad", "p": { "a": 1, "b": "x" } }).await;
    // Each statement its own transaction: a new label cannot be used in the one that makes it.
    run("alter type mood add value 'glad'").await;
    run("insert into t values (2, 'glad', null)").await;
    becomes(doc! { "_id": 2, "id": 2, "m": "glad", "p": null }).await;
    run("alter type pair add attribute c date").await;
    run("insert into t values (3, null, row(1, 'x', '1970-01-02'))").await;
    let date = DateTime::from_millis(86_400_000);
    becomes(doc! { "_id": 3, "id": 3, "m": null, "p": { "a": 1, "b": "x", "c": date } }).await;
    // As many fields fewer as the type loses: the row would fit what was known, one field off.
    run("alter type pair drop attribute a").await;
    run("insert into t values (5, null, row('x', '1970-01-02'))").await;
    becomes(doc! { "_id": 5, "id": 5, "m": null, "p": { "b": "x", "c": date } }).await;
    run("alter type pair drop attribute c, add attribute a int").await;
    run("insert into t values (6, null, row('x', 1))").await;
    becomes(doc! { "_id": 6, "id": 6, "m": null, "p": { "b": "x", "a": 1 } }).await;
    run("create domain days as int4range; create type more as (d days, p pair[])").await;
    run("alter table t add n more; insert into t values (4, null, null, row('[1,2)', array[row('y', 1)::pair]))").await;
    let days = doc! {
        "lower": 1, "upper": 2, "lower_inclusive": true, "upper_inclusive": false, "empty": false,
    };
    let more = doc! { "d": days, "p": [{ "b": "y", "a": 1 }] };
    becomes(doc! { "_id": 4, "id": 4, "m": null, "p": null, "n": more }).await;
    assert!(daemon.stop().await.success());
}
