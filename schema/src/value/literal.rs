//! The texts of values that consist of others: arrays, ranges, composites, hstores.
//!
//! - They quote alike: within double quotes a backslash keeps what follows it as it is, and two quotes
//!   are one (`arrayfuncs.c`, `rowtypes.c` and `rangetypes.c` of PostgreSQL).
//! - Parts without quotes are borrowed.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::borrow::Cow;
use std::sync::Arc;

use super::{Array, Bounds, Value, decode, string, text};
use crate::{Attribute, Type};

/// PostgreSQL's limit (`MAXDIM`).
const MAX_RANK: usize = 6;

/// A part of a text, without its quotes.
struct Item<'a> {
    text: Cow<'a, [u8]>,
    is_quoted: bool,
}

/// What of a text is still to be read.
struct Scan<'a> {
    rest: &'a [u8],
}

/// `{1,NULL,"a \"b\""}`, `{{1,2},{3,4}}`, `[0:1]={1,2}`.
pub(super) fn array<'a>(element: &Type, delimiter: char, bytes: &'a [u8]) -> Option<Array<'a>> {
    let delimiter = u8::try_from(delimiter).ok()?;
    let (text, braces) = match bytes.first() {
        Some(b'[') => {
            let end = bytes.iter().position(|&byte| byte == b'=')?;
            (Some(string(bytes)?), bytes.get(end.checked_add(1)?..)?)
        }
        _ => (None, bytes),
    };
    let mut scan = Scan { rest: braces };
    let elements = scan.array(element, delimiter, MAX_RANK)?;
    scan.end()?;
    Some(Array { elements, text })
}

/// `[1,5)`, `(,"2024-01-01 00:00:00+00"]`, `empty`.
#[expect(clippy::option_option, reason = "an empty range is a range")]
pub(super) fn range<'a>(bound: &Type, bytes: &'a [u8]) -> Option<Option<Bounds<'a>>> {
    if bytes == b"empty" {
        return Some(None);
    }
    let mut scan = Scan { rest: bytes };
    let bounds = scan.range(bound)?;
    scan.end()?;
    Some(Some(bounds))
}

/// `{[1,2),[5,6)}`
pub(super) fn multirange<'a>(bound: &Type, bytes: &'a [u8]) -> Option<Vec<Bounds<'a>>> {
    let mut scan = Scan { rest: bytes };
    scan.byte(b'{')?;
    let mut ranges = Vec::new();
    while scan.byte(b'}').is_none() {
        if !ranges.is_empty() {
            scan.byte(b',')?;
        }
        ranges.push(scan.range(bound)?);
    }
    scan.end()?;
    Some(ranges)
}

/// `(1,"a, b",)`: an empty field is NULL. Fields that the type was given later may be missing.
pub(super) fn composite<'a>(
    attributes: &[Attribute],
    bytes: &'a [u8],
) -> Option<Vec<(Arc<str>, Value<'a>)>> {
    let mut scan = Scan { rest: bytes };
    scan.byte(b'(')?;
    let mut fields = Vec::with_capacity(attributes.len());
    let mut is_over = attributes.is_empty() && scan.byte(b')').is_some();
    for attribute in attributes {
        let value = if is_over {
            Value::Null
        } else {
            let item = scan.item(b",)")?;
            is_over = scan.byte(b')').is_some();
            if !is_over {
                scan.byte(b',')?;
            }
            item.value(&attribute.kind, <[u8]>::is_empty)?
        };
        fields.push((attribute.name.clone(), value));
    }
    if !is_over {
        return None;
    }
    scan.end()?;
    Some(fields)
}

/// How many fields the text of a composite has; one without any reads as one that is NULL.
pub(super) fn fields(bytes: &[u8]) -> Option<usize> {
    let mut scan = Scan { rest: bytes };
    scan.byte(b'(')?;
    let mut fields = 0_usize;
    loop {
        scan.item(b",)")?;
        fields = fields.checked_add(1)?;
        if scan.byte(b',').is_none() {
            return scan.byte(b')').map(|()| fields);
        }
    }
}

/// `"a"=>"1", "b"=>NULL`
#[expect(clippy::type_complexity, reason = "it is what the value holds")]
pub(super) fn hstore(bytes: &[u8]) -> Option<Vec<(Cow<'_, str>, Option<Cow<'_, str>>)>> {
    let mut scan = Scan { rest: bytes };
    let mut entries = Vec::new();
    while !scan.rest.is_empty() {
        if !entries.is_empty() {
            scan.literal(b", ")?;
        }
        let key = scan.quoted()?;
        scan.literal(b"=>")?;
        let value = match scan.literal(b"NULL") {
            Some(()) => None,
            None => Some(scan.quoted()?.string()?),
        };
        entries.push((key.string()?, value));
    }
    Some(entries)
}

/// `(1.5,-2)`
pub(super) fn point(bytes: &[u8]) -> Option<(f64, f64)> {
    let inner = bytes.strip_prefix(b"(")?.strip_suffix(b")")?;
    let comma = inner.iter().position(|&byte| byte == b',')?;
    let (x, y) = inner.split_at_checked(comma)?;
    Some((text::float8(x)?, text::float8(y.get(1..)?)?))
}

/// `[1,2.5,-3e-05]`
pub(super) fn vector(bytes: &[u8]) -> Option<Vec<f64>> {
    let inner = bytes.strip_prefix(b"[")?.strip_suffix(b"]")?;
    inner
        .split(|&byte| byte == b',')
        .map(text::float4)
        .collect()
}

// === impl Scan ===

impl<'a> Scan<'a> {
    fn byte(&mut self, byte: u8) -> Option<()> {
        self.literal(&[byte])
    }

    fn literal(&mut self, literal: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(literal)?;
        Some(())
    }

    fn end(&self) -> Option<()> {
        self.rest.is_empty().then_some(())
    }

    /// The elements between braces, which may be braces again `rank` levels deep.
    fn array(&mut self, element: &Type, delimiter: u8, rank: usize) -> Option<Vec<Value<'a>>> {
        let rank = rank.checked_sub(1)?;
        self.byte(b'{')?;
        let mut elements = Vec::new();
        while self.byte(b'}').is_none() {
            if !elements.is_empty() {
                self.byte(delimiter)?;
            }
            elements.push(if self.rest.first() == Some(&b'{') {
                let elements = self.array(element, delimiter, rank)?;
                let text = None;
                Value::Array(Array { elements, text }.into())
            } else {
                let item = self.item(&[delimiter, b'}'])?;
                if item.text.is_empty() && !item.is_quoted {
                    return None;
                }
                match item.value(element, |item| item == b"NULL")? {
                    // An element of a domain over arrays: only the outermost array says how it is counted.
                    Value::Array(mut inner) => {
                        inner.text = None;
                        Value::Array(inner)
                    }
                    other => other,
                }
            });
        }
        Some(elements)
    }

    fn range(&mut self, bound: &Type) -> Option<Bounds<'a>> {
        let lower_inclusive = self.byte(b'[').is_some();
        if !lower_inclusive {
            self.byte(b'(')?;
        }
        let lower = self.item(b",")?.value(bound, <[u8]>::is_empty)?;
        self.byte(b',')?;
        let upper = self.item(b")]")?.value(bound, <[u8]>::is_empty)?;
        let upper_inclusive = self.byte(b']').is_some();
        if !upper_inclusive {
            self.byte(b')')?;
        }
        Some(Bounds {
            lower,
            upper,
            lower_inclusive,
            upper_inclusive,
        })
    }

    /// What stands before the next of `ends` that is not quoted; the end itself stays.
    fn item(&mut self, ends: &[u8]) -> Option<Item<'a>> {
        if self.rest.first() == Some(&b'"') {
            return self.quoted();
        }
        let end = self.rest.iter().position(|byte| ends.contains(byte));
        let (text, rest) = self.rest.split_at_checked(end.unwrap_or(self.rest.len()))?;
        // PostgreSQL quotes whatever has one of these in it.
        if text.iter().any(|byte| matches!(byte, b'"' | b'\\')) {
            return None;
        }
        self.rest = rest;
        Some(Item {
            text: Cow::Borrowed(text),
            is_quoted: false,
        })
    }

    fn quoted(&mut self) -> Option<Item<'a>> {
        self.byte(b'"')?;
        let mut owned: Option<Vec<u8>> = None;
        loop {
            let special = |byte: &u8| matches!(byte, b'"' | b'\\');
            let (plain, rest) = self
                .rest
                .split_at_checked(self.rest.iter().position(special)?)?;
            let kept = match rest {
                [b'\\', kept, ..] | [b'"', kept @ b'"', ..] => *kept,
                _ => {
                    self.rest = rest;
                    self.byte(b'"')?;
                    let text = match owned {
                        None => Cow::Borrowed(plain),
                        Some(mut text) => {
                            text.extend_from_slice(plain);
                            Cow::Owned(text)
                        }
                    };
                    let is_quoted = true;
                    return Some(Item { text, is_quoted });
                }
            };
            let text = owned.get_or_insert_default();
            text.extend_from_slice(plain);
            text.push(kept);
            self.rest = rest.get(2..)?;
        }
    }
}

// === impl Item ===

impl<'a> Item<'a> {
    /// The value; NULL when the item stands without quotes and says so.
    fn value(self, kind: &Type, is_null: fn(&[u8]) -> bool) -> Option<Value<'a>> {
        if !self.is_quoted && is_null(&self.text) {
            return Some(Value::Null);
        }
        match self.text {
            Cow::Borrowed(text) => decode(kind, text),
            Cow::Owned(text) => decode(kind, &text).map(Value::into_owned),
        }
    }

    fn string(self) -> Option<Cow<'a, str>> {
        match self.text {
            Cow::Borrowed(text) => string(text),
            Cow::Owned(text) => String::from_utf8(text).ok().map(Cow::Owned),
        }
    }
}
