//! The forms of values in records where consumers may choose, by Debezium's names.

use serde::{Deserialize, Serialize};

use crate::Column;

/// How values are written. The records' header says it where it is not the default, so that records are read whatever
/// the configuration says by then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "snake_case")]
pub struct Modes {
    /// `decimal.handling.mode`
    pub decimal: DecimalMode,
    /// `time.precision.mode`
    pub time_precision: TimePrecision,
    /// `interval.handling.mode`
    pub interval: IntervalMode,
    /// `hstore.handling.mode`
    pub hstore: HstoreMode,
    /// `binary.handling.mode`
    pub binary: BinaryMode,
    /// A `timetz` with its offset, or as Debezium has it.
    pub time_zone: TimeZoneMode,
    /// One id for a transaction, or as Debezium has it.
    pub transaction_id: TransactionIdMode,
    /// Whether records carry their schema.
    pub schemas: SchemaMode,
}

/// How a `numeric` and a `money` are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecimalMode {
    /// A string of the digits.
    #[default]
    String,
    /// base64 of the unscaled number, the highest byte first; without a declared scale an object of both. Trailing
    /// zeros are lost there.
    Precise,
    /// A number, next to the value: digits are lost.
    Double,
}

/// How `date`, `time` and `timestamp` are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimePrecision {
    /// Days; milliseconds, or microseconds of a precision above 3.
    #[default]
    Adaptive,
    /// Days; milliseconds: digits are lost.
    Connect,
    /// ISO 8601, in UTC.
    Isostring,
    /// Days; microseconds.
    Microseconds,
    /// Days; nanoseconds.
    Nanoseconds,
}

/// How an `interval` is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntervalMode {
    /// ISO 8601 with every part.
    #[default]
    String,
    /// Microseconds, a month having 30.4375 days: the calendar is lost.
    Numeric,
}

/// How an `hstore` is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HstoreMode {
    /// A string of a JSON object.
    #[default]
    Json,
    /// A JSON object.
    Map,
}

/// How a `bytea` is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BinaryMode {
    /// base64
    #[default]
    Base64,
    /// base64 for URLs and file names
    Base64UrlSafe,
    /// Hexadecimal digits
    Hex,
}

/// How a `timetz` is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeZoneMode {
    /// With its offset.
    #[default]
    Offset,
    /// In UTC: the offset is lost.
    Utc,
}

/// The LSN in a transaction's id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransactionIdMode {
    /// That of the commit: the same on every event.
    #[default]
    Commit,
    /// The event's own.
    Event,
}

/// Whether a record is `{"schema":…,"payload":…}`, as Connect's `JsonConverter` has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SchemaMode {
    /// It is the payload alone.
    #[default]
    None,
    /// It is. A default is told only of columns that are never NULL: a converter puts it in the place of NULL.
    Walferry,
    /// It is, with every default that Debezium tells.
    Debezium,
}

// === impl Modes ===

impl Modes {
    /// Debezium's defaults.
    pub fn debezium() -> Self {
        Self {
            decimal: DecimalMode::Precise,
            interval: IntervalMode::Numeric,
            time_zone: TimeZoneMode::Utc,
            transaction_id: TransactionIdMode::Event,
            ..Self::default()
        }
    }

    /// The same, but for forms that lose something: for the columns of a key, which rows are told apart by.
    pub(crate) fn exact(self) -> Self {
        Self {
            decimal: match self.decimal {
                DecimalMode::Double => DecimalMode::String,
                // What it loses, zeros at the end, makes no other number.
                exact => exact,
            },
            time_precision: match self.time_precision {
                TimePrecision::Connect => TimePrecision::Adaptive,
                exact => exact,
            },
            interval: IntervalMode::String,
            time_zone: TimeZoneMode::Offset,
            ..self
        }
    }

    /// How a column's values are written: those of a key in a form that loses nothing.
    #[must_use]
    pub fn of(self, column: &Column) -> Self {
        if column.key > 0 { self.exact() } else { self }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
