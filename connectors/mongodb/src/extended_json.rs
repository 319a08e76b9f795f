//! Documents as relaxed extended JSON, version 2 (MongoDB's specification `extended-json`).
//!
//! - Members keep their order.
//! - Only the types are known that the encoder writes, and object ids.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bson::{DateTime, RawArray, RawBsonRef, RawDocument};
use serde::ser::{Error as _, SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use crate::bson_value::time;

/// The milliseconds of the years 1970 to 9999, which are written as ISO 8601.
const ISO_MILLIS: std::ops::RangeInclusive<i64> = 0..=253_402_300_799_999;

/// A document that is JSON for whoever serializes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtendedJson(Vec<u8>);

struct Document<'a>(&'a RawDocument);
struct Array<'a>(&'a RawArray);
struct Value<'a>(RawBsonRef<'a>);

/// `{"$name": value}`
struct Wrapped<T>(&'static str, T);

#[derive(Serialize)]
struct Binary {
    base64: String,
    #[serde(rename = "subType")]
    subtype: String,
}

// === impl ExtendedJson ===

impl ExtendedJson {
    /// The JSON of a whole document's bytes, as [`crate::DocumentBlock::documents`] gives them.
    pub fn new(document: Vec<u8>) -> Self {
        Self(document)
    }
}

impl Serialize for ExtendedJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let document = RawDocument::from_bytes(&self.0).map_err(S::Error::custom)?;
        Document(document).serialize(serializer)
    }
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for element in self.0 {
            let (name, value) = element.map_err(S::Error::custom)?;
            map.serialize_entry(name.as_str(), &Value(value))?;
        }
        map.end()
    }
}

impl Serialize for Array<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for element in self.0 {
            list.serialize_element(&Value(element.map_err(S::Error::custom)?))?;
        }
        list.end()
    }
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            RawBsonRef::Null => serializer.serialize_unit(),
            RawBsonRef::Boolean(value) => serializer.serialize_bool(value),
            RawBsonRef::Int32(number) => serializer.serialize_i32(number),
            RawBsonRef::Int64(number) => serializer.serialize_i64(number),
            RawBsonRef::Double(number) => double(number, serializer),
            RawBsonRef::String(text) => serializer.serialize_str(text),
            RawBsonRef::DateTime(at) => date(at, serializer),
            RawBsonRef::Decimal128(number) => {
                Wrapped("$numberDecimal", number.to_string()).serialize(serializer)
            }
            RawBsonRef::Binary(value) => {
                let binary = Binary {
                    base64: STANDARD.encode(value.bytes),
                    subtype: format!("{:02x}", u8::from(value.subtype)),
                };
                Wrapped("$binary", binary).serialize(serializer)
            }
            // None of a row's values: what aggregations answer.
            RawBsonRef::ObjectId(id) => Wrapped("$oid", id.to_hex()).serialize(serializer),
            RawBsonRef::Document(document) => Document(document).serialize(serializer),
            RawBsonRef::Array(array) => Array(array).serialize(serializer),
            other => {
                let kind = other.element_type();
                Err(S::Error::custom(format!("no JSON is written of {kind:?}")))
            }
        }
    }
}

impl<T: Serialize> Serialize for Wrapped<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.0, &self.1)?;
        map.end()
    }
}

fn double<S: Serializer>(number: f64, serializer: S) -> Result<S::Ok, S::Error> {
    if number.is_finite() {
        return serializer.serialize_f64(number);
    }
    let name = match number {
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => "NaN",
    };
    Wrapped("$numberDouble", name).serialize(serializer)
}

fn date<S: Serializer>(at: DateTime, serializer: S) -> Result<S::Ok, S::Error> {
    let millis = at.timestamp_millis();
    if !ISO_MILLIS.contains(&millis) {
        let number = Wrapped("$numberLong", millis.to_string());
        return Wrapped("$date", number).serialize(serializer);
    }
    let digits = if millis % 1_000 == 0 { 0 } else { 3 };
    let (days, millis) = (millis / time::MILLIS_PER_DAY, millis % time::MILLIS_PER_DAY);
    Wrapped("$date", time::iso(days, millis * 1_000, digits, "Z")).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use bson::spec::BinarySubtype;
    use bson::{Binary, Bson, Uuid, doc};

    use super::*;

    fn json(value: impl Into<Bson>) -> String {
        let document = doc! { "v": value.into() }.to_vec().unwrap();
        let json = serde_json::to_string(&ExtendedJson::new(document)).unwrap();
        let value = json.strip_prefix("{\"v\":").unwrap();
        value.strip_suffix('}').unwrap().to_owned()
    }

    #[test]
    fn numbers_are_plain_where_json_has_them() {
        assert_eq!(json(-7), "-7");
        assert_eq!(json(i64::MAX), "9223372036854775807");
        assert_eq!(json(1.0), "1.0");
        assert_eq!(json(-0.0), "-0.0");
        assert_eq!(json(f64::NAN), r#"{"$numberDouble":"NaN"}"#);
        assert_eq!(json(f64::NEG_INFINITY), r#"{"$numberDouble":"-Infinity"}"#);
        let decimal: bson::Decimal128 = "1.50".parse().unwrap();
        assert_eq!(json(decimal), r#"{"$numberDecimal":"1.50"}"#);
    }

    #[test]
    fn dates_are_iso_8601_from_1970_to_9999() {
        let cases = [
            (0, r#"{"$date":"1970-01-01T00:00:00Z"}"#),
            (1_709_210_096_120, r#"{"$date":"2024-02-29T12:34:56.120Z"}"#),
            (
                253_402_300_799_999,
                r#"{"$date":"9999-12-31T23:59:59.999Z"}"#,
            ),
            (
                253_402_300_800_000,
                r#"{"$date":{"$numberLong":"253402300800000"}}"#,
            ),
            (-1, r#"{"$date":{"$numberLong":"-1"}}"#),
        ];
        for (millis, text) in cases {
            assert_eq!(json(DateTime::from_millis(millis)), text);
        }
    }

    #[test]
    fn bytes_are_base64_with_their_subtype() {
        let bytes = Binary {
            subtype: BinarySubtype::Generic,
            bytes: vec![0, 255],
        };
        assert_eq!(
            json(bytes),
            r#"{"$binary":{"base64":"AP8=","subType":"00"}}"#
        );
        let uuid = Uuid::from_bytes([0; 16]);
        let expected = r#"{"$binary":{"base64":"AAAAAAAAAAAAAAAAAAAAAA==","subType":"04"}}"#;
        assert_eq!(json(uuid), expected);
    }

    #[test]
    fn members_and_elements_keep_their_order() {
        let value = doc! { "z": [true, null, "\u{1b}\""], "a": {}, "m": [] };
        assert_eq!(json(value), r#"{"z":[true,null,"\u001b\""],"a":{},"m":[]}"#);
    }
}
