//! The keys of `[kafka]` that say how values stand in the records, by Debezium's names.

use walferry_schema::{
    BinaryMode, DecimalMode, HstoreMode, IntervalMode, Modes, SchemaMode, TimePrecision,
};

use super::{Format, Section};

/// What the records look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// `compatibility`: `"walferry"`, the default, or `"debezium"`: Debezium's defaults for the keys below, its
    /// `timetz` in UTC, and a transaction id that is each event's own.
    pub compatibility: Compatibility,
    /// - `decimal`: `"string"`, `"precise"` or `"double"`;
    /// - `time_precision`: `"adaptive"`, `"connect"`, `"isostring"`, `"microseconds"` or `"nanoseconds"`;
    /// - `interval`: `"string"` or `"numeric"`;
    /// - `hstore`: `"json"` or `"map"`;
    /// - `binary`: `"base64"`, `"base64-url-safe"` or `"hex"`;
    /// - `schemas`: whether key and value are `{"schema":…,"payload":…}`, as Connect's `JsonConverter` has them with
    ///   `schemas.enable`; false by default.
    ///
    /// What `double`, `connect`, `numeric` and `debezium` lose, the sink cannot know either.
    pub modes: Modes,
}

/// Whose records they are like where Debezium loses or invents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compatibility {
    /// Nothing is lost.
    #[default]
    Walferry,
    /// What Debezium's consumers know.
    Debezium,
}

// === impl Records ===

impl Records {
    /// The keys of a section; what stands in the topics of this format by default.
    pub(super) fn read(section: &mut Section<'_>, format: Format) -> Self {
        let compatibility = section.choice("compatibility", &Compatibility::ALL);
        let default = match (compatibility, format) {
            (Compatibility::Walferry, Format::Walferry) => Modes::default(),
            _ => Modes::debezium(),
        };
        let schemas = match (section.or("schemas", false), compatibility) {
            (false, _) => SchemaMode::None,
            (true, Compatibility::Walferry) => SchemaMode::Walferry,
            (true, Compatibility::Debezium) => SchemaMode::Debezium,
        };
        Self {
            compatibility,
            modes: Modes {
                schemas,
                decimal: section.choice_or("decimal", &DECIMAL, default.decimal),
                time_precision: section.choice("time_precision", &TIME_PRECISION),
                interval: section.choice_or("interval", &INTERVAL, default.interval),
                hstore: section.choice("hstore", &HSTORE),
                binary: section.choice("binary", &BINARY),
                ..default
            },
        }
    }
}

// === impl Compatibility ===

impl Compatibility {
    const ALL: [(&'static str, Self); 2] =
        [("walferry", Self::Walferry), ("debezium", Self::Debezium)];
}

const DECIMAL: [(&str, DecimalMode); 3] = [
    ("string", DecimalMode::String),
    ("precise", DecimalMode::Precise),
    ("double", DecimalMode::Double),
];
const TIME_PRECISION: [(&str, TimePrecision); 5] = [
    ("adaptive", TimePrecision::Adaptive),
    ("connect", TimePrecision::Connect),
    ("isostring", TimePrecision::Isostring),
    ("microseconds", TimePrecision::Microseconds),
    ("nanoseconds", TimePrecision::Nanoseconds),
];
const INTERVAL: [(&str, IntervalMode); 2] = [
    ("string", IntervalMode::String),
    ("numeric", IntervalMode::Numeric),
];
const HSTORE: [(&str, HstoreMode); 2] = [("json", HstoreMode::Json), ("map", HstoreMode::Map)];
const BINARY: [(&str, BinaryMode); 3] = [
    ("base64", BinaryMode::Base64),
    ("base64-url-safe", BinaryMode::Base64UrlSafe),
    ("hex", BinaryMode::Hex),
];
