//! Extended JSON, relaxed, to BSON.
//!
//! - A whole number is the smallest of int32, int64 and double that holds it, any other a double.
//! - What is not one of the known wrappers is a document, `$` or not: pipelines are full of them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bson::{Binary, Bson, DateTime, Decimal128, Document, Regex, oid::ObjectId};

use super::json::{Member, Node, Value};
use super::mistake::Flaw;

/// What a text in a wrapper becomes; none when it is not the wrapper's.
type Unwrap = fn(&str) -> Option<Bson>;

/// The wrappers of one text.
const WRAPPERS: [(&str, &str, Unwrap); 6] = [
    ("$numberDecimal", "a decimal number in quotes", |text| {
        text.parse::<Decimal128>().ok().map(Bson::Decimal128)
    }),
    (
        "$numberInt",
        "a whole number of 32 bits in quotes",
        |text| text.parse().ok().map(Bson::Int32),
    ),
    (
        "$numberLong",
        "a whole number of 64 bits in quotes",
        |text| text.parse().ok().map(Bson::Int64),
    ),
    ("$numberDouble", "a number in quotes", |text| {
        text.parse().ok().map(Bson::Double)
    }),
    ("$oid", "24 hexadecimal digits", |text| {
        ObjectId::parse_str(text).ok().map(Bson::ObjectId)
    }),
    ("$uuid", "a UUID", |text| {
        bson::Uuid::parse_str(text).ok().map(Bson::from)
    }),
];

/// The value of a node.
pub(super) fn value(node: &Node) -> Result<Bson, Flaw> {
    match &node.value {
        Value::Null => Ok(Bson::Null),
        Value::Bool(flag) => Ok(Bson::Boolean(*flag)),
        Value::Text(text) => Ok(Bson::String(text.clone())),
        Value::Number(text) => number(text).ok_or_else(|| {
            let message = format!("{text} is beyond what a number of MongoDB holds");
            Flaw::new(node.place, message)
        }),
        Value::List(items) => {
            let items: Result<Vec<_>, _> = items.iter().map(value).collect();
            items.map(Bson::Array)
        }
        Value::Object(members) => match node.only_member().map(wrapped) {
            Some(Ok(None)) | None => document(members).map(Bson::Document),
            Some(Ok(Some(found))) => Ok(found),
            Some(Err(wanted)) => Err(Flaw::new(node.place, wanted)),
        },
    }
}

pub(super) fn document(members: &[Member]) -> Result<Document, Flaw> {
    let element = |it: &Member| Ok((it.name.clone(), value(&it.value)?));
    members.iter().map(element).collect()
}

fn number(text: &str) -> Option<Bson> {
    if text.contains(['.', 'e', 'E']) {
        let number: f64 = text.parse().ok()?;
        return number.is_finite().then_some(Bson::Double(number));
    }
    let small = text.parse().ok().map(Bson::Int32);
    let large = || text.parse().ok().map(Bson::Int64);
    small
        .or_else(large)
        .or_else(|| text.parse().ok().map(Bson::Double))
}

/// What a wrapper holds; none when the member is no wrapper.
fn wrapped(member: &Member) -> Result<Option<Bson>, String> {
    let name = &*member.name;
    let text = member.value.text();
    if let Some((_, wanted, unwrap)) = WRAPPERS.iter().find(|(it, ..)| *it == name) {
        let found = text.and_then(unwrap);
        let wanted = || format!("{name} must be {wanted}");
        return found.ok_or_else(wanted).map(Some);
    }
    let (found, wanted) = match name {
        "$date" => (date(&member.value), "a time as 2024-02-29T12:00:00Z"),
        "$binary" => (
            binary(&member.value),
            "{\"base64\": …, \"subType\": \"00\"}",
        ),
        "$regularExpression" => (regex(&member.value), "{\"pattern\": …, \"options\": …}"),
        _ => return Ok(None),
    };
    found
        .map(Some)
        .ok_or_else(|| format!("{name} must be {wanted}"))
}

fn date(node: &Node) -> Option<Bson> {
    let at = match (node.text(), node.member("$numberLong").and_then(Node::text)) {
        (Some(text), _) => DateTime::parse_rfc3339_str(text).ok()?,
        (None, Some(millis)) => DateTime::from_millis(millis.parse().ok()?),
        (None, None) => return None,
    };
    Some(Bson::DateTime(at))
}

fn binary(node: &Node) -> Option<Bson> {
    let bytes = STANDARD.decode(node.member("base64")?.text()?).ok()?;
    let subtype = u8::from_str_radix(node.member("subType")?.text()?, 16).ok()?;
    let subtype = subtype.into();
    Some(Bson::Binary(Binary { subtype, bytes }))
}

fn regex(node: &Node) -> Option<Bson> {
    let pattern = node.member("pattern")?.text()?;
    // BSON has the options in the order of the alphabet.
    let mut options: Vec<_> = node.member("options")?.text()?.chars().collect();
    options.sort_unstable();
    let options = String::from_iter(options);
    Some(Bson::RegularExpression(Regex {
        pattern: pattern.try_into().ok()?,
        options: options.try_into().ok()?,
    }))
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    fn bson(text: &str) -> Result<Bson, String> {
        let node = Node::parse(text).unwrap();
        value(&node).map_err(|flaw| flaw.message)
    }

    #[test]
    fn numbers_have_the_smallest_type_that_holds_them() {
        let cases = [
            ("7", Bson::Int32(7)),
            ("-2147483649", Bson::Int64(-2_147_483_649)),
            (
                "9223372036854775808",
                Bson::Double(9_223_372_036_854_775_808.0),
            ),
            ("7.0", Bson::Double(7.0)),
            ("1e2", Bson::Double(100.0)),
        ];
        for (text, expected) in cases {
            assert_eq!(bson(text), Ok(expected), "{text}");
        }
        assert!(bson("1e999").is_err());
    }

    #[test]
    fn the_wrappers_of_extended_json_are_values() {
        let decimal: Decimal128 = "9000.50".parse().unwrap();
        let at = DateTime::from_millis(1_709_208_000_000);
        let cases = [
            (r#"{"$numberDecimal": "9000.50"}"#, Bson::from(decimal)),
            (r#"{"$numberLong": "7"}"#, Bson::Int64(7)),
            (r#"{"$date": "2024-02-29T12:00:00Z"}"#, Bson::from(at)),
            (
                r#"{"$date": {"$numberLong": "1709208000000"}}"#,
                Bson::from(at),
            ),
            (r#"{"$oid": "0123456789abcdef01234567"}"#, {
                Bson::from(ObjectId::parse_str("0123456789abcdef01234567").unwrap())
            }),
        ];
        for (text, expected) in cases {
            assert_eq!(bson(text), Ok(expected), "{text}");
        }
        let mistaken = bson(r#"{"$numberDecimal": 9000}"#).unwrap_err();
        assert_eq!(
            mistaken,
            "$numberDecimal must be a decimal number in quotes"
        );
        assert!(bson(r#"{"$date": "yesterday"}"#).is_err());
    }

    #[test]
    fn operators_stay_what_they_are() {
        let expected =
            doc! { "$match": { "a": { "$regex": "^x", "$options": "i" }, "$expr": ["$a", null] } };
        let text = r#"{"$match": {"a": {"$regex": "^x", "$options": "i"}, "$expr": ["$a", null]}}"#;
        assert_eq!(bson(text), Ok(Bson::from(expected)));
    }
}
