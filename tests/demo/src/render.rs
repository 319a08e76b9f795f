//! A BSON value as PostgreSQL would write it: what makes the two sides comparable without walferry's own decoder.
//!
//! - A value of another BSON type than the column's is never equal to it.

use mongodb::bson::{Bson, DateTime};

/// How values of a PostgreSQL type are written in BSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Boolean,
    Int32,
    Int64,
    Decimal,
    Text,
    Date,
    Timestamp,
}

// === impl Kind ===

impl Kind {
    /// The kind of a type by its name in `pg_type`.
    pub(crate) fn of(type_name: &str) -> Option<Self> {
        Some(match type_name {
            "bool" => Self::Boolean,
            "int2" | "int4" => Self::Int32,
            "int8" => Self::Int64,
            "numeric" => Self::Decimal,
            "text" | "varchar" | "bpchar" => Self::Text,
            "date" => Self::Date,
            "timestamp" => Self::Timestamp,
            _ => return None,
        })
    }

    /// The SQL expression for the text; BSON's dates have milliseconds and the rest is cut, which is so by design.
    pub(crate) fn as_text(self, column: &str) -> String {
        match self {
            Self::Timestamp => format!("date_trunc('milliseconds', \"{column}\")::text"),
            _ => format!("\"{column}\"::text"),
        }
    }

    /// PostgreSQL's text of the value (`None` for NULL), or a description that equals no such text when the BSON type
    /// is not the column's.
    pub(crate) fn render(self, value: &Bson) -> Option<String> {
        Some(match (self, value) {
            (_, Bson::Null) => return None,
            (Self::Boolean, Bson::Boolean(value)) => value.to_string(),
            (Self::Int32, Bson::Int32(value)) => value.to_string(),
            (Self::Int64, Bson::Int64(value)) => value.to_string(),
            (Self::Decimal, Bson::Decimal128(value)) => value.to_string(),
            (Self::Text, Bson::String(value)) => value.clone(),
            (Self::Date, Bson::DateTime(value)) => date(*value),
            (Self::Timestamp, Bson::DateTime(value)) => timestamp(*value),
            (Self::Date | Self::Timestamp, Bson::String(value)) if value.ends_with("infinity") => {
                value.clone()
            }
            (wanted, other) => format!(
                "\u{0}{other} of BSON type {:?} where {wanted:?} is due",
                other.element_type()
            ),
        })
    }
}

fn timestamp(value: DateTime) -> String {
    let Ok(text) = value.try_to_rfc3339_string() else {
        return format!("\u{0}{value:?}");
    };
    let text = text.trim_end_matches('Z').replace('T', " ");
    let has_fraction = text.contains('.');
    if has_fraction {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// A time of day other than midnight stays, so that it is noticed.
fn date(value: DateTime) -> String {
    let text = timestamp(value);
    text.strip_suffix(" 00:00:00")
        .map(str::to_owned)
        .unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_postgresql_writes_them() {
        let at = |ms| Bson::DateTime(DateTime::from_millis(ms));
        let timestamp = |ms| Kind::Timestamp.render(&at(ms)).unwrap();
        assert_eq!(timestamp(1_712_761_200_000), "2024-04-10 15:00:00");
        assert_eq!(timestamp(1_712_761_200_120), "2024-04-10 15:00:00.12");
        assert_eq!(timestamp(-1), "1969-12-31 23:59:59.999");
        assert_eq!(Kind::Date.render(&at(86_400_000)).unwrap(), "1970-01-02");
        assert_eq!(
            Kind::Date.render(&at(86_400_500)).unwrap(),
            "1970-01-02 00:00:00.5"
        );
    }

    #[test]
    fn a_value_of_another_bson_type_equals_no_text() {
        assert_ne!(Kind::Int32.render(&Bson::Int64(5)).unwrap(), "5");
        assert_ne!(
            Kind::Decimal.render(&Bson::String("5.00".into())).unwrap(),
            "5.00"
        );
        assert_eq!(
            Kind::Decimal
                .render(&Bson::Decimal128("5.00".parse().unwrap()))
                .unwrap(),
            "5.00"
        );
        assert_eq!(Kind::Text.render(&Bson::Null), None);
    }
}
