//! What stands in a record in the place of a value: a column's default, and where PostgreSQL sent none.
//!
//! - All of it is Debezium's, for a schema that asks for a value leaves no other choice.
//! - A default that is not the value of a constant is not evaluated.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Schema;
use crate::envelope::{UNAVAILABLE, UNAVAILABLE_UUID, json};
use crate::{
    Array, DecimalMode, Declared, HstoreMode, Instant, Interval, Modes, TimeTz, Type, Value,
};

/// What a time without a date is called by PostgreSQL when it is asked for now.
const NOW: [&str; 5] = [
    "current_timestamp",
    "current_time",
    "current_date",
    "localtime",
    "localtimestamp",
];

/// The JSON of a column's default; none where Debezium tells none either.
pub(super) fn default(kind: &Type, declared: &Declared, modes: Modes) -> Option<String> {
    let expression = declared.default.as_deref()?;
    let text = match constant(expression) {
        Some(text) => text,
        None if is_computed(expression) => Cow::Borrowed(beginning(&declared.type_name)?),
        // A name or an expression.
        None if *kind == Type::Text => return None,
        None => expression.into(),
    };
    if !is_told(declared) || is_structure(kind, modes) {
        return None;
    }
    let text = match kind {
        Type::Bool => Cow::Borrowed(if text == "true" { "t" } else { "f" }),
        Type::Numeric(Some((_, scale))) => with_scale(&text, *scale).into(),
        _ => text,
    };
    let value = Value::from_text(kind, text.as_bytes()).ok()?;
    Some(json_of(&value, kind, modes))
}

/// What stands where PostgreSQL sent no value.
pub(super) fn missing(kind: &Type, declared: &Declared, modes: Modes) -> Vec<u8> {
    if !declared.is_required {
        return b"null".to_vec();
    }
    let value = default(kind, declared, modes).unwrap_or_else(|| empty(kind, modes));
    value.into_bytes()
}

/// What stands where an update left a value as it was.
pub(super) fn unchanged(
    schema: &Schema<'_>,
    kind: &Type,
    declared: &Declared,
    modes: Modes,
) -> Vec<u8> {
    let known = placeholder(schema, kind, modes).map(String::into_bytes);
    known.unwrap_or_else(|| missing(kind, declared, modes))
}

fn placeholder(schema: &Schema<'_>, kind: &Type, modes: Modes) -> Option<String> {
    let text = || format!("\"{UNAVAILABLE}\"");
    Some(match (kind, schema.kind) {
        (Type::Hstore, _) => {
            let both = Some(Cow::Borrowed(UNAVAILABLE));
            json_of(
                &Value::Hstore(vec![(UNAVAILABLE.into(), both)]),
                kind,
                modes,
            )
        }
        (Type::Array(element, _), _) => {
            let items = schema.items.as_deref()?;
            match element.innermost() {
                Type::Int4 | Type::Int8 => format!("{:?}", UNAVAILABLE.as_bytes()).replace(' ', ""),
                Type::Uuid => format!("[\"{UNAVAILABLE_UUID}\"]"),
                inner => format!("[{}]", placeholder(items, inner, modes)?),
            }
        }
        (Type::Bytea, "bytes") => format!("\"{}\"", STANDARD.encode(UNAVAILABLE)),
        (_, "string") => text(),
        _ => return None,
    })
}

/// A value of no size, as Debezium gives one to a column that it knows nothing of.
fn empty(kind: &Type, modes: Modes) -> String {
    let zero = |value: Value<'_>| json_of(&value, kind, modes);
    match kind {
        Type::Bool => zero(Value::Bool(false)),
        Type::Int2 | Type::Int4 => zero(Value::Int4(0)),
        Type::Int8 | Type::Oid => zero(Value::Int8(0)),
        Type::Float4 | Type::Float8 => zero(Value::Float(0.0)),
        Type::Numeric(declared) => {
            let scale = declared.map_or(0, |(_, scale)| scale);
            zero(Value::Numeric(with_scale("0", scale).into()))
        }
        Type::Money(digits) => zero(Value::Numeric(with_scale("0", (*digits).into()).into())),
        Type::Date => zero(Value::Date(crate::Date::Days(0))),
        Type::Timestamp(precision) => zero(Value::Timestamp(
            Instant::At { days: 0, micros: 0 },
            *precision,
        )),
        // Without a fraction, whatever the precision.
        Type::TimestampTz(_) => zero(Value::TimestampTz(Instant::At { days: 0, micros: 0 }, 0)),
        Type::Time(precision) => zero(Value::Time(0, *precision)),
        Type::TimeTz => zero(Value::TimeTz(TimeTz {
            micros: 0,
            offset: 0,
        })),
        Type::Interval => zero(Value::Interval(Interval::Finite {
            months: 0,
            days: 0,
            micros: 0,
        })),
        Type::Bit(1) => zero(Value::Bits("0".into())),
        Type::Point => zero(Value::Point(0.0, 0.0)),
        Type::Hstore => zero(Value::Hstore(Vec::new())),
        Type::Array(..) => zero(Value::Array(Array::default().into())),
        _ => "\"\"".to_owned(),
    }
}

fn json_of(value: &Value<'_>, kind: &Type, modes: Modes) -> String {
    let mut out = Vec::new();
    json::value(&mut out, value, kind, modes);
    String::from_utf8(out).unwrap_or_default()
}

/// Whether Debezium reads the defaults of a type.
fn is_told(declared: &Declared) -> bool {
    let is_enum = !declared.labels.is_empty() && declared.type_name == declared.base;
    is_enum || beginning(&declared.type_name).is_some()
}

/// Whether a value is an object, which a default cannot be.
fn is_structure(kind: &Type, modes: Modes) -> bool {
    match kind {
        Type::Numeric(None) => modes.decimal == DecimalMode::Precise,
        Type::Hstore => modes.hstore == HstoreMode::Map,
        _ => false,
    }
}

/// What Debezium takes for a computed default, by the type's name; none for a type whose defaults it does not read.
fn beginning(type_name: &str) -> Option<&'static str> {
    Some(match type_name {
        "bool" => "false",
        "bit" | "varbit" | "int2" | "int4" | "int8" => "0",
        "numeric" | "float4" | "float8" => "0.0",
        "bpchar" | "varchar" | "text" | "xml" => "",
        "json" | "jsonb" => "{}",
        "uuid" => "00000000-0000-0000-0000-000000000000",
        "date" => "1970-01-01",
        "time" => "00:00:00",
        "timestamp" => "1970-01-01 00:00:00",
        "timestamptz" => "1970-01-01 00:00:00+00",
        "interval" => "PT0S",
        _ => return None,
    })
}

/// The text of a constant that is cast to its type: `'x''y'::text`.
fn constant(expression: &str) -> Option<Cow<'_, str>> {
    let quoted = expression.strip_prefix('\'')?;
    let (text, _) = quoted.rsplit_once('\'')?;
    Some(if text.contains("''") {
        text.replace("''", "'").into()
    } else {
        text.into()
    })
}

/// Whether a default is what a function gives: `nextval('s'::regclass)`.
fn is_computed(expression: &str) -> bool {
    let name = expression.trim_start_matches('(');
    let is_name = |symbol: char| symbol.is_ascii_alphanumeric() || symbol == '_' || symbol == '.';
    let rest = name.trim_start_matches(is_name);
    let is_call = rest.len() < name.len() && rest.starts_with('(');
    is_call || NOW.contains(&expression.to_ascii_lowercase().as_str())
}

/// A number's text with as many digits in its fraction as its type has.
fn with_scale(text: &str, scale: i16) -> String {
    let (integer, fraction) = text.split_once('.').unwrap_or((text, ""));
    match usize::try_from(scale) {
        Ok(places) if places > 0 => {
            let digits: String = fraction.chars().take(places).collect();
            format!("{integer}.{digits:0<places$}")
        }
        _ => integer.to_owned(),
    }
}
