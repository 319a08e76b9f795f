//! What of a rule can be said anew at each run.
//!
//! - A parameter keeps the type of its default: money that is said on the command line is a Decimal128 too.

use std::collections::BTreeMap;

use bson::{Bson, DateTime, Decimal128, oid::ObjectId};
use serde_json::Value as Json;

use super::extended_json;
use super::json::Node;

/// What stands for a parameter: `{"$param": "name"}`.
pub(super) const PARAM: &str = "$param";

/// The values of a rule's parameters by name.
pub type Values = BTreeMap<String, Bson>;

/// A parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// What it is when nobody says otherwise; it decides about the type.
    pub default: Bson,
    /// The default as the file has it.
    pub written: Json,
    /// What it means.
    pub meaning: String,
}

/// A value that somebody gives to a parameter: `name=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The parameter's name.
    pub name: String,
    /// Its value, as it was written.
    pub text: String,
}

/// A value that cannot be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// No equals sign, or no name before it.
    #[error("{0:?} gives no parameter a value: write name=value")]
    Form(String),
    /// None of the rules has it.
    #[error("there is no parameter {name}: {}", known(of, others))]
    Unknown {
        /// The name.
        name: String,
        /// The rules.
        of: String,
        /// What they have.
        others: Vec<String>,
    },
    /// It is of another type.
    #[error("{name} of {rule} must be {wanted}, not {text:?}")]
    Type {
        /// The parameter.
        name: String,
        /// Its rule.
        rule: String,
        /// What is wanted.
        wanted: &'static str,
        /// What was given.
        text: String,
    },
}

// === impl Given ===

impl std::str::FromStr for Given {
    type Err = ParameterError;

    fn from_str(text: &str) -> Result<Self, ParameterError> {
        match text.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => Ok(Self {
                name: name.trim().to_owned(),
                text: value.to_owned(),
            }),
            _ => Err(ParameterError::Form(text.to_owned())),
        }
    }
}

// === impl Parameter ===

impl Parameter {
    /// A text as a value of the default's type.
    ///
    /// # Errors
    /// What would be one.
    pub fn read(&self, text: &str) -> Result<Bson, &'static str> {
        let trimmed = text.trim();
        match &self.default {
            Bson::String(_) => Ok(Bson::String(text.to_owned())),
            Bson::Int32(_) | Bson::Int64(_) => self.whole_number(trimmed),
            Bson::Double(_) => {
                let number = trimmed.parse().ok().filter(|it: &f64| it.is_finite());
                number.map(Bson::Double).ok_or("a number")
            }
            Bson::Decimal128(_) => {
                let number = trimmed.parse::<Decimal128>().ok();
                number.map(Bson::Decimal128).ok_or("a decimal number")
            }
            Bson::Boolean(_) => {
                let flag = trimmed.parse().ok().map(Bson::Boolean);
                flag.ok_or("true or false")
            }
            Bson::DateTime(_) => date(trimmed).ok_or("a time as 2024-02-29T12:00:00Z, or a day"),
            Bson::ObjectId(_) => {
                let id = ObjectId::parse_str(trimmed).ok().map(Bson::ObjectId);
                id.ok_or("24 hexadecimal digits")
            }
            default => extended(trimmed)
                .filter(|it| it.element_type() == default.element_type())
                .ok_or("extended JSON of the default's type"),
        }
    }

    /// A number that the default's 32 bits do not hold has 64: MongoDB calculates with both alike.
    fn whole_number(&self, text: &str) -> Result<Bson, &'static str> {
        let number: i64 = text.parse().map_err(|_| "a whole number")?;
        Ok(match (&self.default, i32::try_from(number)) {
            (Bson::Int32(_), Ok(number)) => Bson::Int32(number),
            _ => Bson::Int64(number),
        })
    }
}

fn date(text: &str) -> Option<Bson> {
    let at = DateTime::parse_rfc3339_str(text);
    let at = at.or_else(|_| DateTime::parse_rfc3339_str(format!("{text}T00:00:00Z")));
    at.ok().map(Bson::DateTime)
}

fn extended(text: &str) -> Option<Bson> {
    extended_json::value(&Node::parse(text).ok()?).ok()
}

fn known(of: &str, others: &[String]) -> String {
    match others {
        [] => format!("{of} has none"),
        others => format!("{of} has {}", others.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(default: impl Into<Bson>, text: &str) -> Result<Bson, &'static str> {
        let parameter = Parameter {
            name: "p".into(),
            default: default.into(),
            written: Json::Null,
            meaning: String::new(),
        };
        parameter.read(text)
    }

    #[test]
    fn a_value_has_the_type_of_the_default() {
        let money: Decimal128 = "9000".parse().unwrap();
        let other: Decimal128 = "9500.10".parse().unwrap();
        let day = DateTime::from_millis(1_709_164_800_000);
        assert_eq!(read(money, "9500.10"), Ok(other.into()));
        assert_eq!(read(60, "90"), Ok(Bson::Int32(90)));
        assert_eq!(read(60, "3000000000"), Ok(Bson::Int64(3_000_000_000)));
        assert_eq!(read(60_i64, "90"), Ok(Bson::Int64(90)));
        assert_eq!(read(0.3, "1"), Ok(Bson::Double(1.0)));
        assert_eq!(read("Cash", " 1"), Ok(Bson::String(" 1".into())));
        assert_eq!(read(true, "false"), Ok(Bson::Boolean(false)));
        assert_eq!(read(day, "2024-02-29"), Ok(day.into()));
        assert_eq!(read(day, "2024-02-29T00:00:00Z"), Ok(day.into()));
        let list = Bson::Array(vec![Bson::Int32(1), "a".into()]);
        assert_eq!(read(Vec::<Bson>::new(), "[1, \"a\"]"), Ok(list));
    }

    #[test]
    fn a_value_of_another_type_is_refused() {
        let money: Decimal128 = "9000".parse().unwrap();
        let day = DateTime::from_millis(0);
        assert_eq!(read(60, "1.5"), Err("a whole number"));
        assert_eq!(read(0.3, "inf"), Err("a number"));
        assert_eq!(read(money, "much"), Err("a decimal number"));
        assert_eq!(read(true, "yes"), Err("true or false"));
        assert!(read(day, "yesterday").is_err());
        assert!(read(Vec::<Bson>::new(), "{}").is_err());
    }

    #[test]
    fn what_is_given_has_a_name_and_anything_after_the_equals_sign() {
        let given: Given = "a=b=c".parse().unwrap();
        assert_eq!((&*given.name, &*given.text), ("a", "b=c"));
        assert!("=1".parse::<Given>().is_err() && "a".parse::<Given>().is_err());
    }
}
