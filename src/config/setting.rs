//! From a value of the file, or a variable's text, to the type of a key.
//!
//! - A variable's text is read as the file's own value would be: `"3"` is a number where one is
//!   wanted.
//! - A number never loses a fraction, a size or a duration always has its unit or is refused.
//! - What is shown of a value is what the file could state, without its secrets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use config::{Value, ValueKind};
use serde_json::Value as Json;

/// A type that a key can have.
pub(super) trait Setting: Sized {
    /// Reads the value, or says what would be right (after "must be").
    fn from_value(value: Value) -> Result<Self, String>;

    /// The value as the file could state it; a secret is `***`.
    fn shown(&self) -> Json;
}

/// A number of bytes, written as `8MiB`, `64KiB`, `1GB` or a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) usize);

// === impl Setting ===

impl Setting for String {
    fn from_value(value: Value) -> Result<Self, String> {
        match value.kind {
            ValueKind::String(text) => Ok(text),
            _ => Err("a string".into()),
        }
    }

    fn shown(&self) -> Json {
        self.as_str().into()
    }
}

/// Each once, and at least one.
impl Setting for Vec<String> {
    fn from_value(value: Value) -> Result<Self, String> {
        let wanted = "a list of strings, each once, like [\"public.orders\"]";
        let ValueKind::Array(values) = value.kind else {
            return Err(wanted.into());
        };
        let texts: Result<Self, _> = values.into_iter().map(String::from_value).collect();
        let is_once = |it: &Self| (1..it.len()).all(|at| !it[..at].contains(&it[at]));
        let texts = texts.ok().filter(|it| !it.is_empty() && is_once(it));
        texts.ok_or_else(|| wanted.into())
    }

    fn shown(&self) -> Json {
        self.iter().map(String::as_str).collect()
    }
}

impl Setting for BTreeMap<String, String> {
    fn from_value(value: Value) -> Result<Self, String> {
        let wanted = "pairs of names, like { order_id = \"order_id\" }";
        let ValueKind::Table(values) = value.kind else {
            return Err(wanted.into());
        };
        let pairs = values.into_iter();
        let pairs = pairs.map(|(name, value)| Ok((name, String::from_value(value)?)));
        pairs
            .collect::<Result<_, String>>()
            .map_err(|_| wanted.into())
    }

    fn shown(&self) -> Json {
        let pairs = self.iter();
        pairs
            .map(|(name, value)| (name.clone(), Json::from(value.as_str())))
            .collect()
    }
}

impl Setting for bool {
    fn from_value(value: Value) -> Result<Self, String> {
        match value.kind {
            ValueKind::Boolean(flag) => Ok(flag),
            ValueKind::String(text) if text == "true" => Ok(true),
            ValueKind::String(text) if text == "false" => Ok(false),
            _ => Err("true or false".into()),
        }
    }

    fn shown(&self) -> Json {
        (*self).into()
    }
}

impl Setting for i64 {
    fn from_value(value: Value) -> Result<Self, String> {
        let number = match value.kind {
            ValueKind::I64(number) => Some(number),
            ValueKind::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| "a whole number".into())
    }

    fn shown(&self) -> Json {
        (*self).into()
    }
}

impl Setting for Duration {
    fn from_value(value: Value) -> Result<Self, String> {
        let ValueKind::String(text) = value.kind else {
            return Err("a time with its unit, like \"5s\"".into());
        };
        humantime::parse_duration(&text)
            .map_err(|error| format!("a time with its unit, like \"5s\": {error}"))
    }

    fn shown(&self) -> Json {
        humantime::format_duration(*self).to_string().into()
    }
}

impl Setting for Size {
    fn from_value(value: Value) -> Result<Self, String> {
        let size = match value.kind {
            ValueKind::I64(bytes) => usize::try_from(bytes).ok(),
            ValueKind::String(text) => bytes_of(text.trim()),
            _ => None,
        };
        size.map(Self).ok_or_else(|| "a size, like \"8MiB\"".into())
    }

    fn shown(&self) -> Json {
        let Self(bytes) = *self;
        let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        let fits = |(_, factor): &&(&str, usize)| bytes > 0 && bytes.is_multiple_of(*factor);
        let (unit, factor) = units.iter().find(fits).unwrap_or(&("B", 1));
        format!("{}{unit}", bytes / factor).into()
    }
}

impl Setting for SocketAddr {
    fn from_value(value: Value) -> Result<Self, String> {
        let message = "an address and a port, like \"127.0.0.1:9187\"";
        String::from_value(value)?
            .parse()
            .map_err(|_| message.into())
    }

    fn shown(&self) -> Json {
        self.to_string().into()
    }
}

/// The choice of a name among several.
pub(super) fn choice<T: Copy>(value: Value, choices: &[(&str, T)]) -> Result<T, String> {
    let names = || {
        let names: Vec<_> = choices
            .iter()
            .map(|(name, _)| format!("\"{name}\""))
            .collect();
        format!("one of {}", names.join(", "))
    };
    let name = String::from_value(value).map_err(|_| names())?;
    let chosen = choices.iter().find(|(choice, _)| *choice == name);
    chosen.map(|(_, value)| *value).ok_or_else(names)
}

fn bytes_of(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim_start() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(kind: impl Into<ValueKind>) -> Value {
        Value::new(None, kind)
    }

    #[test]
    fn a_size_has_binary_and_decimal_units() {
        let cases = [
            ("8MiB", Some(8 << 20)),
            ("64 KiB", Some(65_536)),
            ("2GB", Some(2_000_000_000)),
            ("512", Some(512)),
            ("1.5MiB", None),
            ("8M", None),
            ("MiB", None),
            ("-1", None),
            ("99999999999999999GiB", None),
        ];
        for (text, expected) in cases {
            assert_eq!(
                Size::from_value(value(text)).ok().map(|size| size.0),
                expected,
                "{text}"
            );
        }
        assert_eq!(Size::from_value(value(4_096_i64)), Ok(Size(4_096)));
        assert!(Size::from_value(value(1.0)).is_err());
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        for text in ["8MiB", "64KiB", "1GiB", "1000B", "0B"] {
            let size = Size::from_value(value(text)).unwrap();
            assert_eq!(size.shown(), text);
        }
        for seconds in [1, 90, 7 * 86_400, 100_000] {
            let duration = Duration::from_secs(seconds);
            let shown = duration.shown();
            let again = Duration::from_value(value(shown.as_str().unwrap()));
            assert_eq!(again, Ok(duration), "{shown}");
        }
    }

    #[test]
    fn a_duration_has_a_unit() {
        assert_eq!(
            Duration::from_value(value("5s")),
            Ok(Duration::from_secs(5))
        );
        assert_eq!(
            Duration::from_value(value("7d")),
            Ok(Duration::from_hours(7 * 24))
        );
        assert!(Duration::from_value(value(5_i64)).is_err());
        assert!(Duration::from_value(value("5")).is_err());
    }

    #[test]
    fn a_variables_text_is_read_as_the_keys_type() {
        assert_eq!(i64::from_value(value(" 3")), Ok(3));
        assert_eq!(bool::from_value(value("false")), Ok(false));
        assert!(i64::from_value(value(3.5)).is_err());
        assert!(bool::from_value(value("yes")).is_err());
    }
}
