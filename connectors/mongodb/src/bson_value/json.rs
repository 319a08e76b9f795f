//! JSON text to BSON documents and arrays, in one pass and without a tree.
//!
//! - Whatever BSON cannot hold as it stands makes the whole value a string: a NUL or a leading `$`
//!   in a key, nesting beyond [`MAX_DEPTH`], numbers aside (see [`number`]) anything malformed.
//! - Members keep their order; of members with the same key the last one stays.

#![deny(clippy::indexing_slicing)]

use std::collections::HashSet;

use super::decimal::Decimal;
use super::element::{self, kind};

/// How deep a value may be nested: MongoDB refuses documents of more than 100 levels, and a column
/// stands below the document and the update operator that carries it.
const MAX_DEPTH: usize = 95;
/// Digits that a double always gives back, while its exponent is small.
const SAFE_DIGITS: usize = 15;
/// Up to here comparing all pairs is faster than hashing.
const FEW_MEMBERS: usize = 16;

/// Appends the payload of a JSON text so many levels within a column's value: its type, none (and
/// nothing appended) when it cannot be held as documents and arrays.
pub(crate) fn payload(out: &mut Vec<u8>, text: &str, levels_above: usize) -> Option<u8> {
    let start = out.len();
    let mut parser = Parser {
        text,
        at: 0,
        depth: levels_above,
        members: Vec::new(),
    };
    let kind = parser.document(out);
    if kind.is_none() {
        out.truncate(start);
    }
    kind
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    /// The members of the objects that are open, the innermost last.
    members: Vec<Member>,
}

/// Where a member stands in the output.
#[derive(Clone, Copy)]
struct Member {
    start: usize,
    name_end: usize,
}

// === impl Parser ===

impl Parser<'_> {
    fn document(&mut self, out: &mut Vec<u8>) -> Option<u8> {
        let kind = self.value(out)?;
        self.space();
        (self.at == self.text.len()).then_some(kind)
    }

    fn value(&mut self, out: &mut Vec<u8>) -> Option<u8> {
        self.space();
        match self.peek()? {
            b'{' => self.nested(out, Self::object).map(|()| kind::DOCUMENT),
            b'[' => self.nested(out, Self::array).map(|()| kind::ARRAY),
            b'"' => {
                let at = element::open(out);
                self.string(out)?;
                out.push(0);
                let len = out.len() - at - 4;
                element::set_length(out, at, len);
                Some(kind::STRING)
            }
            b't' => self.boolean(out, "true", true),
            b'f' => self.boolean(out, "false", false),
            b'n' => self.literal("null").map(|()| kind::NULL),
            _ => self.number(out),
        }
    }

    fn nested(
        &mut self,
        out: &mut Vec<u8>,
        inner: fn(&mut Self, &mut Vec<u8>) -> Option<()>,
    ) -> Option<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        self.at += 1;
        let at = element::open(out);
        inner(self, out)?;
        element::close(out, at);
        self.depth -= 1;
        Some(())
    }

    fn array(&mut self, out: &mut Vec<u8>) -> Option<()> {
        if self.skip_if(b']') {
            return Some(());
        }
        for index in 0_usize.. {
            let start = out.len();
            element::header(out, kind::NULL, &index.to_string());
            self.typed(out, start)?;
            if !self.goes_on(b']')? {
                break;
            }
        }
        Some(())
    }

    fn object(&mut self, out: &mut Vec<u8>) -> Option<()> {
        if self.skip_if(b'}') {
            return Some(());
        }
        let first = self.members.len();
        loop {
            let start = out.len();
            out.push(kind::NULL);
            self.space();
            self.string(out)?;
            let name = out.get(start + 1..)?;
            if name.contains(&0) || name.first() == Some(&b'$') {
                return None;
            }
            let name_end = out.len();
            self.members.push(Member { start, name_end });
            out.push(0);
            self.space();
            self.literal(":")?;
            self.typed(out, start)?;
            if !self.goes_on(b'}')? {
                break;
            }
        }
        keep_last(out, self.members.get(first..)?);
        self.members.truncate(first);
        Some(())
    }

    /// The value of an element whose name is written; its type goes to `start`.
    fn typed(&mut self, out: &mut Vec<u8>, start: usize) -> Option<()> {
        let kind = self.value(out)?;
        *out.get_mut(start)? = kind;
        Some(())
    }

    /// Whether a comma follows; otherwise `end` does.
    fn goes_on(&mut self, end: u8) -> Option<bool> {
        self.space();
        let next = self.peek()?;
        self.at += 1;
        match next {
            b',' => Some(true),
            next if next == end => Some(false),
            _ => None,
        }
    }

    /// The characters of a string, without their quotes.
    fn string(&mut self, out: &mut Vec<u8>) -> Option<()> {
        self.literal("\"")?;
        loop {
            let rest = self.text.as_bytes().get(self.at..)?;
            let plain = rest
                .iter()
                .position(|&byte| matches!(byte, b'"' | b'\\') || byte < 0x20)?;
            out.extend_from_slice(rest.get(..plain)?);
            self.at += plain + 1;
            match rest.get(plain)? {
                b'"' => return Some(()),
                b'\\' => self.escape(out)?,
                _ => return None,
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let escaped = self.peek()?;
        self.at += 1;
        out.push(match escaped {
            b'"' | b'\\' | b'/' => escaped,
            b'b' => 0x08,
            b'f' => 0x0C,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => return self.unicode(out),
            _ => return None,
        });
        Some(())
    }

    /// `\u00e9`, or a pair of surrogates; none for a lone one, which no string can hold.
    fn unicode(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let first = self.four_digits()?;
        let code = if (0xD800..0xDC00).contains(&first) {
            self.literal("\\u")?;
            let second = self.four_digits()?;
            if !(0xDC00..0xE000).contains(&second) {
                return None;
            }
            0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00)
        } else {
            first
        };
        let mut utf8 = [0; 4];
        out.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut utf8).as_bytes());
        Some(())
    }

    fn four_digits(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        self.at += 4;
        u32::from_str_radix(digits, 16).ok()
    }

    fn number(&mut self, out: &mut Vec<u8>) -> Option<u8> {
        let rest = self.text.get(self.at..)?;
        let is_part = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
        let len = rest.bytes().take_while(|&byte| is_part(byte)).count();
        self.at += len;
        number(out, rest.get(..len)?)
    }

    fn boolean(&mut self, out: &mut Vec<u8>, text: &str, value: bool) -> Option<u8> {
        self.literal(text)?;
        out.push(value.into());
        Some(kind::BOOLEAN)
    }

    fn literal(&mut self, literal: &str) -> Option<()> {
        let rest = self.text.as_bytes().get(self.at..)?;
        rest.starts_with(literal.as_bytes()).then(|| {
            self.at += literal.len();
        })
    }

    fn skip_if(&mut self, byte: u8) -> bool {
        self.space();
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}

/// A number's payload: an integer when it is written as one and fits, else the double that is the
/// same number, else the Decimal128 that is, else its text.
fn number(out: &mut Vec<u8>, text: &str) -> Option<u8> {
    let decimal = Decimal::parse(text.as_bytes())?;
    let is_integer = !text.bytes().any(|byte| b".eE".contains(&byte));
    if is_integer && let Ok(number) = text.parse::<i64>() {
        return Some(integer(out, number));
    }
    let is_safe = text.len() <= SAFE_DIGITS && !text.bytes().any(|byte| b"eE".contains(&byte));
    let double = if is_safe {
        text.parse().ok()
    } else {
        decimal.to_double(text)
    };
    if let Some(double) = double {
        out.extend_from_slice(&f64::to_le_bytes(double));
        return Some(kind::DOUBLE);
    }
    if let Some(decimal) = decimal.to_decimal128() {
        out.extend_from_slice(&decimal);
        return Some(kind::DECIMAL128);
    }
    element::string_payload(out, text);
    Some(kind::STRING)
}

fn integer(out: &mut Vec<u8>, number: i64) -> u8 {
    if let Ok(number) = i32::try_from(number) {
        out.extend_from_slice(&number.to_le_bytes());
        return kind::INT32;
    }
    out.extend_from_slice(&number.to_le_bytes());
    kind::INT64
}

/// Removes the members of the innermost object that a later one of the same name replaces.
fn keep_last(out: &mut Vec<u8>, members: &[Member]) {
    if !has_duplicates(out, members) {
        return;
    }
    let mut names = HashSet::with_capacity(members.len());
    let ends = members.iter().skip(1).map(|next| next.start);
    let ends: Vec<usize> = ends.chain([out.len()]).collect();
    let mut doomed = Vec::new();
    for (member, end) in members.iter().zip(ends).rev() {
        if !names.insert(name(out, *member).to_vec()) {
            doomed.push(member.start..end);
        }
    }
    // From the last on, so that the ranges before it stay valid.
    for range in doomed {
        out.drain(range);
    }
}

fn has_duplicates(out: &[u8], members: &[Member]) -> bool {
    if members.len() > FEW_MEMBERS {
        let mut names = HashSet::with_capacity(members.len());
        return !members
            .iter()
            .all(|member| names.insert(name(out, *member)));
    }
    let mut rest = members;
    while let Some((member, others)) = rest.split_first() {
        let is_same = |other: &Member| name(out, *other) == name(out, *member);
        if others.iter().any(is_same) {
            return true;
        }
        rest = others;
    }
    false
}

fn name(out: &[u8], member: Member) -> &[u8] {
    out.get(member.start + 1..member.name_end)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Bson, doc};

    fn parsed(text: &str) -> Option<Bson> {
        let mut out = Vec::new();
        let document = element::open(&mut out);
        element::header(&mut out, kind::NULL, "v");
        let kind = payload(&mut out, text, 0)?;
        *out.get_mut(4)? = kind;
        element::close(&mut out, document);
        let document = bson::RawDocumentBuf::from_bytes(out).unwrap();
        let document = bson::Document::try_from(&*document).unwrap();
        document.get("v").cloned()
    }

    fn decimal(text: &str) -> Bson {
        Bson::Decimal128(text.parse().unwrap())
    }

    #[test]
    fn numbers_take_the_first_type_that_holds_them_exactly() {
        let expected = [
            ("1", Bson::Int32(1)),
            ("-2147483648", Bson::Int32(i32::MIN)),
            ("2147483648", Bson::Int64(2_147_483_648)),
            ("9223372036854775807", Bson::Int64(i64::MAX)),
            ("9223372036854775808", decimal("9223372036854775808")),
            ("18446744073709551616", decimal("18446744073709551616")),
            ("1.0", Bson::Double(1.0)),
            ("1e2", Bson::Double(100.0)),
            ("0.1", Bson::Double(0.1)),
            ("0.12345678901234567890", decimal("0.12345678901234567890")),
            ("1e400", decimal("1E+400")),
            ("1e7000", Bson::String("1e7000".into())),
        ];
        for (text, value) in expected {
            assert_eq!(parsed(text), Some(value), "{text}");
        }
    }

    #[test]
    fn documents_keep_the_order_of_their_members() {
        let value =
            parsed(r#" {"z": 1, "a.b": [true, null, {"": "\u00e9\ud83d\ude00\n"}], "m": {}} "#);
        let expected = doc! { "z": 1, "a.b": [true, null, { "": "é😀\n" }], "m": {} };
        assert_eq!(value, Some(Bson::Document(expected)));
    }

    #[test]
    fn of_members_with_the_same_key_the_last_stays() {
        let value = parsed(r#"{"a": 1, "b": {"c": 1, "c": [2, 3]}, "a": 2, "a": 3, "d": 4}"#);
        let expected = doc! { "b": { "c": [2, 3] }, "a": 3, "d": 4 };
        assert_eq!(value, Some(Bson::Document(expected)));
    }

    #[test]
    fn what_bson_cannot_hold_is_left_to_a_string() {
        let deep = format!("{}{}", "[".repeat(96), "]".repeat(96));
        let nul = r#"{"a\u0000b": 1}"#;
        let dollar = r#"[{"$ref": 1}]"#;
        for text in [
            &deep,
            nul,
            dollar,
            r#""\ud800""#,
            r#""\ud800x""#,
            "",
            "{",
            "[1,]",
            "tru",
            "1 2",
            "+1",
            "-",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
        assert!(parsed(&deep[1..191]).is_some());
        assert_eq!(parsed(r#""a\u0000b""#), Some(Bson::String("a\0b".into())));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_value_or_nothing(text in ".{0,40}") {
            let _ = parsed(&text);
        }
    }
}
