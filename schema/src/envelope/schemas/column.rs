//! The schema of a column's values, by its type and how they are written.

use super::{Parameters, Schema, enumeration};
use crate::{
    BinaryMode, DecimalMode, Declared, HstoreMode, IntervalMode, Modes, TimePrecision, Type,
};

/// The schema of a column's values, as if they were required.
pub(super) fn schema(kind: &Type, declared: &Declared, modes: Modes) -> Schema<'static> {
    match kind {
        Type::Bool | Type::Bit(1) => Schema::of("boolean"),
        Type::Int2 => Schema::of("int16"),
        Type::Int4 => Schema::of("int32"),
        Type::Int8 | Type::Oid => Schema::of("int64"),
        Type::Float4 => Schema::of("float"),
        Type::Float8 => Schema::of("double"),
        Type::Numeric(declared) => numeric(*declared, modes.decimal),
        Type::Money(digits) => decimal(modes.decimal, i16::from(*digits), None),
        Type::Bytea if modes.binary == BinaryMode::Base64 => Schema::of("bytes"),
        Type::Bytea => Schema::of("string"),
        Type::Uuid => Schema::named("string", "io.debezium.data.Uuid"),
        Type::Date => date(modes.time_precision),
        Type::Timestamp(precision) => timestamp(*precision, modes.time_precision),
        Type::TimestampTz(_) => Schema::named("string", "io.debezium.time.ZonedTimestamp"),
        Type::Time(precision) => time(*precision, modes.time_precision),
        Type::TimeTz => Schema::named("string", "io.debezium.time.ZonedTime"),
        Type::Interval => match modes.interval {
            IntervalMode::Numeric => Schema::named("int64", "io.debezium.time.MicroDuration"),
            IntervalMode::String => Schema::named("string", "io.debezium.time.Interval"),
        },
        Type::Json => Schema::named("string", "io.debezium.data.Json"),
        Type::Bit(length) => bits(*length),
        Type::Point => point(),
        Type::Hstore => hstore(modes.hstore),
        Type::Array(..) => Schema::array(elements(kind.innermost(), declared, modes)),
        Type::Range(_) | Type::Multirange(_) | Type::Composite(_) | Type::Vector | Type::Text => {
            text(declared)
        }
    }
}

/// An element may be NULL, but for Debezium an enum's may not.
fn elements(kind: &Type, declared: &Declared, modes: Modes) -> Schema<'static> {
    let element = schema(kind, declared, modes);
    let is_label = *kind == Type::Text && !declared.labels.is_empty();
    if is_label {
        element
    } else {
        element.optional()
    }
}

fn text(declared: &Declared) -> Schema<'static> {
    if !declared.labels.is_empty() {
        return enumeration(declared.labels.join(","));
    }
    match &*declared.base {
        "xml" => Schema::named("string", "io.debezium.data.Xml"),
        "tsvector" => Schema::named("string", "io.debezium.data.Tsvector"),
        "ltree" => Schema::named("string", "io.debezium.data.Ltree"),
        _ => Schema::of("string"),
    }
}

fn numeric(declared: Option<(u16, i16)>, mode: DecimalMode) -> Schema<'static> {
    match declared {
        Some((precision, scale)) => decimal(mode, scale, Some(precision)),
        None if mode == DecimalMode::Precise => {
            let fields = vec![
                Schema::of("int32").field("scale"),
                Schema::of("bytes").field("value"),
            ];
            Schema {
                doc: Some("Variable scaled decimal"),
                ..Schema::structure(fields)
                    .with_name("io.debezium.data.VariableScaleDecimal", Some(1))
            }
        }
        None => decimal(mode, 0, None),
    }
}

fn decimal(mode: DecimalMode, scale: i16, precision: Option<u16>) -> Schema<'static> {
    match mode {
        DecimalMode::String => Schema::of("string"),
        DecimalMode::Double => Schema::of("double"),
        DecimalMode::Precise => {
            let parameters = Parameters {
                scale: Some(scale.to_string()),
                precision: precision.map(|it| it.to_string()),
                ..Parameters::default()
            };
            Schema::named("bytes", "org.apache.kafka.connect.data.Decimal")
                .with_parameters(parameters)
        }
    }
}

fn date(mode: TimePrecision) -> Schema<'static> {
    match mode {
        TimePrecision::Connect => Schema::named("int32", "org.apache.kafka.connect.data.Date"),
        TimePrecision::Isostring => Schema::named("string", "io.debezium.time.IsoDate"),
        _ => Schema::named("int32", "io.debezium.time.Date"),
    }
}

fn timestamp(precision: u8, mode: TimePrecision) -> Schema<'static> {
    match (mode, precision) {
        (TimePrecision::Connect, _) => {
            Schema::named("int64", "org.apache.kafka.connect.data.Timestamp")
        }
        (TimePrecision::Isostring, _) => Schema::named("string", "io.debezium.time.IsoTimestamp"),
        (TimePrecision::Nanoseconds, _) => Schema::named("int64", "io.debezium.time.NanoTimestamp"),
        (TimePrecision::Adaptive, 0..=3) => Schema::named("int64", "io.debezium.time.Timestamp"),
        _ => Schema::named("int64", "io.debezium.time.MicroTimestamp"),
    }
}

fn time(precision: u8, mode: TimePrecision) -> Schema<'static> {
    match (mode, precision) {
        (TimePrecision::Connect, _) => Schema::named("int32", "org.apache.kafka.connect.data.Time"),
        (TimePrecision::Isostring, _) => Schema::named("string", "io.debezium.time.IsoTime"),
        (TimePrecision::Nanoseconds, _) => Schema::named("int64", "io.debezium.time.NanoTime"),
        (TimePrecision::Adaptive, 0..=3) => Schema::named("int32", "io.debezium.time.Time"),
        _ => Schema::named("int64", "io.debezium.time.MicroTime"),
    }
}

fn bits(length: u32) -> Schema<'static> {
    Schema::named("bytes", "io.debezium.data.Bits").with_parameters(Parameters {
        length: Some(length.to_string()),
        ..Parameters::default()
    })
}

fn point() -> Schema<'static> {
    let fields = vec![
        Schema::of("double").field("x"),
        Schema::of("double").field("y"),
        Schema::of("bytes").optional().field("wkb"),
        Schema::of("int32").optional().field("srid"),
    ];
    Schema {
        doc: Some("Geometry (POINT)"),
        ..Schema::structure(fields).with_name("io.debezium.data.geometry.Point", Some(1))
    }
}

fn hstore(mode: HstoreMode) -> Schema<'static> {
    match mode {
        HstoreMode::Json => Schema::named("string", "io.debezium.data.Json"),
        HstoreMode::Map => Schema {
            keys: Some(Schema::of("string").into()),
            values: Some(Schema::of("string").optional().into()),
            ..Schema::of("map")
        },
    }
}
