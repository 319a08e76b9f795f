//! Values that consist of others, as documents and arrays.
//!
//! - A name that MongoDB does not take in a document, one with a `$` before it or with a NUL in it, makes the whole
//!   value its text.

use std::borrow::Cow;

use walferry_schema::{Array, Bounds, Literal, Parts, Value};

use super::element::{self, kind};
use super::{Loss, NumberTooLarge, Place, Policies, append_at, fixed, string};

type Appended = Result<(u8, Loss), NumberTooLarge>;

/// Elements one after another, in whatever document or array is open.
struct Elements<'o> {
    out: &'o mut Vec<u8>,
    policies: Policies,
    place: Place,
    loss: Loss,
}

/// An array. MongoDB takes none as `_id`: there it is a document, which also says how the array is counted when that is
/// not from 1, since PostgreSQL tells such arrays apart.
pub(super) fn array(
    out: &mut Vec<u8>,
    array: &Array<'_>,
    policies: Policies,
    place: Place,
) -> Appended {
    let mut elements = Elements::new(out, policies, place);
    if place != Place::Id {
        let at = element::open(elements.out);
        elements.numbered(&array.elements)?;
        return Ok(elements.close(at, kind::ARRAY));
    }
    let document = element::open(elements.out);
    elements.array("array", &array.elements)?;
    if let Some(text) = &array.text {
        let bounds = text.split('=').next().unwrap_or_default();
        element::string(elements.out, "bounds", bounds);
    }
    Ok(elements.close(document, kind::DOCUMENT))
}

/// A range, a multirange, a composite, or a vector.
pub(super) fn literal(
    out: &mut Vec<u8>,
    literal: &Literal<'_>,
    policies: Policies,
    place: Place,
) -> Appended {
    let mut elements = Elements::new(out, policies, place);
    let at = elements.out.len();
    let kind = match &literal.parts {
        Parts::Composite(fields) if fields.iter().any(|(name, _)| !is_name(name)) => {
            return Ok((string(elements.out, &literal.text), Loss::None));
        }
        Parts::Composite(fields) => {
            element::open(elements.out);
            for (name, value) in fields {
                elements.value(name, value)?;
            }
            kind::DOCUMENT
        }
        Parts::Range(bounds) => {
            element::open(elements.out);
            elements.range(bounds.as_ref())?;
            kind::DOCUMENT
        }
        // Inside `_id` as an array is.
        Parts::Multirange(ranges) if place == Place::Id => {
            element::open(elements.out);
            let array = elements.open("array", kind::ARRAY);
            elements.ranges(ranges)?;
            element::close(elements.out, array);
            kind::DOCUMENT
        }
        Parts::Multirange(ranges) => {
            element::open(elements.out);
            elements.ranges(ranges)?;
            kind::ARRAY
        }
        Parts::Vector(numbers) => {
            let numbers: Vec<_> = numbers.iter().map(|&number| Value::Float(number)).collect();
            let text = None;
            let elements = Array {
                elements: numbers,
                text,
            };
            return array(out, &elements, policies, place);
        }
    };
    Ok(elements.close(at, kind))
}

/// `{x, y}`
pub(super) fn point(out: &mut Vec<u8>, x: f64, y: f64) -> u8 {
    let document = element::open(out);
    for (name, number) in [("x", x), ("y", y)] {
        element::header(out, kind::DOUBLE, name);
        fixed(out, kind::DOUBLE, &number.to_le_bytes());
    }
    element::close(out, document);
    kind::DOCUMENT
}

/// A document of texts.
pub(super) fn hstore(out: &mut Vec<u8>, entries: &[(Cow<'_, str>, Option<Cow<'_, str>>)]) -> u8 {
    if entries.iter().any(|(key, _)| !is_name(key)) {
        return string(out, &hstore_text(entries));
    }
    let document = element::open(out);
    for (key, value) in entries {
        match value {
            Some(value) => element::string(out, key, value),
            None => element::header(out, kind::NULL, key),
        }
    }
    element::close(out, document);
    kind::DOCUMENT
}

// === impl Elements ===

impl<'o> Elements<'o> {
    fn new(out: &'o mut Vec<u8>, policies: Policies, place: Place) -> Self {
        Self {
            out,
            policies,
            place: if place == Place::Id {
                place
            } else {
                Place::Part
            },
            loss: Loss::None,
        }
    }

    fn value(&mut self, name: &str, value: &Value<'_>) -> Result<(), NumberTooLarge> {
        let loss = append_at(self.out, name, value, self.policies, self.place)?;
        if loss != Loss::None {
            self.loss = loss;
        }
        Ok(())
    }

    /// Array elements, named by their place.
    fn numbered(&mut self, values: &[Value<'_>]) -> Result<(), NumberTooLarge> {
        for (index, value) in values.iter().enumerate() {
            match value {
                // Below an array, MongoDB takes arrays everywhere.
                Value::Array(inner) => self.array(&index.to_string(), &inner.elements)?,
                value => self.value(&index.to_string(), value)?,
            }
        }
        Ok(())
    }

    fn array(&mut self, name: &str, values: &[Value<'_>]) -> Result<(), NumberTooLarge> {
        let at = self.open(name, kind::ARRAY);
        self.numbered(values)?;
        element::close(self.out, at);
        Ok(())
    }

    fn ranges(&mut self, ranges: &[Bounds<'_>]) -> Result<(), NumberTooLarge> {
        for (index, bounds) in ranges.iter().enumerate() {
            let at = self.open(&index.to_string(), kind::DOCUMENT);
            self.range(Some(bounds))?;
            element::close(self.out, at);
        }
        Ok(())
    }

    /// The elements of a range, none of it being empty.
    fn range(&mut self, bounds: Option<&Bounds<'_>>) -> Result<(), NumberTooLarge> {
        let (lower, upper) = match bounds {
            Some(bounds) => (&bounds.lower, &bounds.upper),
            None => (&Value::Null, &Value::Null),
        };
        self.value("lower", lower)?;
        self.value("upper", upper)?;
        let is_inclusive = |of: fn(&Bounds<'_>) -> bool| bounds.is_some_and(of);
        let flags = [
            (
                "lower_inclusive",
                is_inclusive(|bounds| bounds.lower_inclusive),
            ),
            (
                "upper_inclusive",
                is_inclusive(|bounds| bounds.upper_inclusive),
            ),
            ("empty", bounds.is_none()),
        ];
        for (name, flag) in flags {
            element::boolean(self.out, name, flag);
        }
        Ok(())
    }

    fn open(&mut self, name: &str, kind: u8) -> usize {
        element::header(self.out, kind, name);
        element::open(self.out)
    }

    fn close(self, at: usize, kind: u8) -> (u8, Loss) {
        element::close(self.out, at);
        (kind, self.loss)
    }
}

/// Whether a part may be called so.
pub(crate) fn is_name(name: &str) -> bool {
    !name.starts_with('$') && !name.contains('\0')
}

/// As PostgreSQL writes it.
fn hstore_text(entries: &[(Cow<'_, str>, Option<Cow<'_, str>>)]) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let entry = |(key, value): &(Cow<'_, str>, Option<Cow<'_, str>>)| {
        let value = value.as_deref().map_or("NULL".to_owned(), quoted);
        format!("{}=>{value}", quoted(key))
    };
    let entries: Vec<_> = entries.iter().map(entry).collect();
    entries.join(", ")
}
