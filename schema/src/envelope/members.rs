//! The members of a JSON object, read where they stand.
//!
//! - Strings without escapes are borrowed.
//! - Any text ends in members or an error; the JSON of an object never errs here, but for lone
//!   surrogates and nesting of more than 128 levels.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::borrow::Cow;

use serde::de::Error as _;
use serde_json::value::RawValue;

use super::json::plain_len;

/// A value of a member.
#[derive(Debug, PartialEq)]
pub(super) enum Token<'a> {
    /// A string, unescaped.
    String(Cow<'a, str>),
    /// A number, `true`, `false` or `null`.
    Literal(&'a str),
    /// An array or object.
    Nested(&'a str),
}

/// Walks over the members of an object.
pub(super) struct Members<'a> {
    rest: &'a str,
    is_first: bool,
}

// === impl Members ===

impl<'a> Members<'a> {
    pub(super) fn of(object: &'a str) -> Result<Self, serde_json::Error> {
        let rest = object
            .trim_ascii_start()
            .strip_prefix('{')
            .ok_or_else(malformed)?;
        Ok(Self {
            rest,
            is_first: true,
        })
    }

    /// The next name and value; none after the last.
    pub(super) fn next(&mut self) -> Result<Option<(Cow<'a, str>, Token<'a>)>, serde_json::Error> {
        if self.take('}').is_some() {
            return Ok(None);
        }
        if !std::mem::take(&mut self.is_first) {
            self.take(',').ok_or_else(malformed)?;
        }
        let name = self.string()?;
        self.take(':').ok_or_else(malformed)?;
        Ok(Some((name, self.token()?)))
    }

    /// What follows the members that were read.
    pub(super) fn rest(&self) -> &'a str {
        self.rest
    }

    fn take(&mut self, symbol: char) -> Option<()> {
        self.rest = self.rest.trim_ascii_start().strip_prefix(symbol)?;
        Some(())
    }

    fn token(&mut self) -> Result<Token<'a>, serde_json::Error> {
        self.rest = self.rest.trim_ascii_start();
        match self.rest.as_bytes().first() {
            Some(b'"') => return self.string().map(Token::String),
            Some(b'{' | b'[') => return self.nested().map(Token::Nested),
            _ => {}
        }
        let is_end = |byte: u8| matches!(byte, b',' | b'}' | b' ' | b'\t' | b'\n' | b'\r');
        let end = self.rest.bytes().position(is_end).ok_or_else(malformed)?;
        self.split(end).map(Token::Literal)
    }

    fn nested(&mut self) -> Result<&'a str, serde_json::Error> {
        let mut values = serde_json::Deserializer::from_str(self.rest).into_iter::<&RawValue>();
        let value = values.next().ok_or_else(malformed)??;
        self.rest = self
            .rest
            .get(values.byte_offset()..)
            .ok_or_else(malformed)?;
        Ok(value.get())
    }

    fn string(&mut self) -> Result<Cow<'a, str>, serde_json::Error> {
        self.rest = self.rest.trim_ascii_start();
        let bytes = self.rest.as_bytes();
        if bytes.first() != Some(&b'"') {
            return Err(malformed());
        }
        let mut end = 1_usize;
        let mut is_escaped = false;
        loop {
            let ahead = bytes.get(end..).ok_or_else(malformed)?;
            end = end.saturating_add(plain_len(ahead));
            match bytes.get(end) {
                Some(b'"') => break,
                Some(b'\\') => (end, is_escaped) = (end.saturating_add(2), true),
                _ => return Err(malformed()),
            }
        }
        let quoted = self.split(end.saturating_add(1))?;
        if is_escaped {
            return serde_json::from_str(quoted).map(Cow::Owned);
        }
        quoted.get(1..end).map(Cow::Borrowed).ok_or_else(malformed)
    }

    fn split(&mut self, at: usize) -> Result<&'a str, serde_json::Error> {
        let (before, after) = self.rest.split_at_checked(at).ok_or_else(malformed)?;
        self.rest = after;
        Ok(before)
    }
}

fn malformed() -> serde_json::Error {
    serde_json::Error::custom("not the JSON object of a row")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Vec<(Cow<'_, str>, Token<'_>)>, serde_json::Error> {
        let mut members = Members::of(text)?;
        std::iter::from_fn(|| members.next().transpose()).collect()
    }

    #[test]
    fn members_come_in_order_with_or_without_spaces() {
        let expected = [
            ("a".into(), Token::Literal("-1")),
            ("b\"".into(), Token::String("x\n😀".into())),
            ("".into(), Token::Literal("null")),
        ];
        let compact = r#"{"a":-1,"b\"":"x\n\ud83d\ude00","":null}"#;
        let spaced = " {\t\"a\" : -1 ,\n\"b\\u0022\": \"x\\n😀\" , \"\" :\r null } ";
        assert_eq!(all(compact).ok().as_deref(), Some(expected.as_slice()));
        assert_eq!(all(spaced).ok().as_deref(), Some(expected.as_slice()));
        assert_eq!(all(" { } ").ok(), Some(vec![]));
    }

    #[test]
    fn what_is_nested_ends_where_its_brackets_do() {
        let members = all(r#"{"a": [1, "]}", [{"x\"": "["}]], "b":{"c":{}},"d" : []}"#);
        let expected = [
            ("a".into(), Token::Nested(r#"[1, "]}", [{"x\"": "["}]]"#)),
            ("b".into(), Token::Nested(r#"{"c":{}}"#)),
            ("d".into(), Token::Nested("[]")),
        ];
        assert_eq!(members.ok().as_deref(), Some(expected.as_slice()));
        assert!(all(r#"{"a": [1, 2}"#).is_err());
    }

    #[test]
    fn a_string_without_escapes_is_borrowed() {
        let members = all(r#"{"é":"☃"}"#).expect("an object");
        assert!(matches!(
            members[..],
            [(Cow::Borrowed("é"), Token::String(Cow::Borrowed("☃")))]
        ));
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        for text in [
            "",
            "[]",
            "null",
            "{",
            "{\"a\"}",
            "{\"a\":1",
            "{\"a\":\"",
            "{\"a\":1 \"b\":2}",
        ] {
            assert!(all(text).is_err(), "{text}");
        }
        assert!(all(r#"{"a":"\ud83d"}"#).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_ends_in_members_or_an_error(text in "[{}\\[\\]\":,\\\\au0d8 1\u{1}é]{0,24}|\\PC*") {
            if let Ok(mut members) = Members::of(&text) {
                for _ in 0..text.len() {
                    if !matches!(members.next(), Ok(Some(_))) {
                        return Ok(());
                    }
                }
                proptest::prop_assert!(false, "more members than characters");
            }
        }
    }
}
