//! Writes and walks raw BSON: elements are bytes, never trees.
//!
//! - An element is a type byte, a name that ends with NUL, and a payload whose length the type or
//!   its first bytes say.

/// BSON's element types that are written here.
pub(crate) mod kind {
    pub(crate) const DOUBLE: u8 = 0x01;
    pub(crate) const STRING: u8 = 0x02;
    pub(crate) const DOCUMENT: u8 = 0x03;
    pub(crate) const ARRAY: u8 = 0x04;
    pub(crate) const BINARY: u8 = 0x05;
    pub(crate) const BOOLEAN: u8 = 0x08;
    pub(crate) const DATE: u8 = 0x09;
    pub(crate) const NULL: u8 = 0x0A;
    pub(crate) const INT32: u8 = 0x10;
    pub(crate) const INT64: u8 = 0x12;
    pub(crate) const DECIMAL128: u8 = 0x13;
}

// Types that others may have put into a document.
const UNDEFINED: u8 = 0x06;
const OBJECT_ID: u8 = 0x07;
const REGULAR_EXPRESSION: u8 = 0x0B;
const DB_POINTER: u8 = 0x0C;
const CODE: u8 = 0x0D;
const SYMBOL: u8 = 0x0E;
const CODE_WITH_SCOPE: u8 = 0x0F;
const TIMESTAMP: u8 = 0x11;
const MAX_KEY: u8 = 0x7F;
const MIN_KEY: u8 = 0xFF;

/// Binary subtype of plain bytes.
pub(crate) const GENERIC: u8 = 0x00;
/// Binary subtype of a UUID in network order.
pub(crate) const UUID: u8 = 0x04;

/// An element in raw bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Element<'a> {
    /// The name, without its NUL.
    pub(crate) name: &'a [u8],
    /// All of it, type and name included.
    pub(crate) bytes: &'a [u8],
}

/// The elements of raw bytes, one after another.
#[derive(Clone, Debug)]
pub(crate) struct Elements<'a> {
    rest: &'a [u8],
}

// === impl Elements ===

impl<'a> Elements<'a> {
    /// Walks a document's bytes without length and end.
    pub(crate) fn new(elements: &'a [u8]) -> Self {
        Self { rest: elements }
    }

    /// Walks a whole document.
    pub(crate) fn of_document(document: &'a [u8]) -> Self {
        let end = document.len().saturating_sub(1);
        Self::new(document.get(4..end).unwrap_or_default())
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        let (&kind, after_kind) = self.rest.split_first()?;
        let name_len = after_kind.iter().position(|&byte| byte == 0)?;
        let (name, payload) = after_kind.split_at_checked(name_len)?;
        let len = 1 + name_len + 1 + payload_len(kind, payload.get(1..)?)?;
        let (bytes, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(Element { name, bytes })
    }
}

/// How long the payload is that `bytes` begin with, for every type that a stored document may have.
fn payload_len(kind: u8, bytes: &[u8]) -> Option<usize> {
    let prefix = || {
        let len = bytes.first_chunk().map(|&len| u32::from_le_bytes(len))?;
        usize::try_from(len).ok()
    };
    Some(match kind {
        kind::NULL | UNDEFINED | MIN_KEY | MAX_KEY => 0,
        kind::BOOLEAN => 1,
        kind::INT32 => 4,
        kind::DOUBLE | kind::DATE | kind::INT64 | TIMESTAMP => 8,
        OBJECT_ID => 12,
        kind::DECIMAL128 => 16,
        kind::STRING | CODE | SYMBOL => prefix()? + 4,
        kind::DOCUMENT | kind::ARRAY | CODE_WITH_SCOPE => prefix()?,
        kind::BINARY => prefix()? + 5,
        DB_POINTER => prefix()? + 16,
        REGULAR_EXPRESSION => {
            let mut ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == 0);
            ends.nth(1)?.0 + 1
        }
        _ => return None,
    })
}

/// Begins a document or array: its length comes with [`close`].
pub(crate) fn open(out: &mut Vec<u8>) -> usize {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    at
}

/// Ends the document or array that was opened at `at`.
pub(crate) fn close(out: &mut Vec<u8>, at: usize) {
    out.push(0);
    let len = out.len() - at;
    set_length(out, at, len);
}

/// The type byte and name of an element whose payload follows.
pub(crate) fn header(out: &mut Vec<u8>, kind: u8, name: &str) {
    out.push(kind);
    out.extend_from_slice(name.as_bytes());
    out.push(0);
}

/// Begins an embedded document.
pub(crate) fn open_document(out: &mut Vec<u8>, name: &str) -> usize {
    header(out, kind::DOCUMENT, name);
    open(out)
}

/// An element of type string.
pub(crate) fn string(out: &mut Vec<u8>, name: &str, text: &str) {
    header(out, kind::STRING, name);
    string_payload(out, text);
}

/// An element of type boolean.
pub(crate) fn boolean(out: &mut Vec<u8>, name: &str, value: bool) {
    header(out, kind::BOOLEAN, name);
    out.push(value.into());
}

/// An element of type 32-bit integer.
pub(crate) fn int32(out: &mut Vec<u8>, name: &str, value: i32) {
    header(out, kind::INT32, name);
    out.extend_from_slice(&value.to_le_bytes());
}

/// An element of type 64-bit integer.
pub(crate) fn int64(out: &mut Vec<u8>, name: &str, value: i64) {
    header(out, kind::INT64, name);
    out.extend_from_slice(&value.to_le_bytes());
}

/// An element of type date, in milliseconds since 1970.
pub(crate) fn date(out: &mut Vec<u8>, name: &str, millis: i64) {
    header(out, kind::DATE, name);
    out.extend_from_slice(&millis.to_le_bytes());
}

/// The payload of a string.
pub(crate) fn string_payload(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&length(text.len() + 1));
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

/// The payload of a binary.
pub(crate) fn binary_payload(out: &mut Vec<u8>, subtype: u8, bytes: &[u8]) {
    out.extend_from_slice(&length(bytes.len()));
    out.push(subtype);
    out.extend_from_slice(bytes);
}

/// Writes the length of what was opened at `at`.
pub(crate) fn set_length(out: &mut [u8], at: usize, len: usize) {
    if let Some(prefix) = out.get_mut(at..at + 4) {
        prefix.copy_from_slice(&length(len));
    }
}

/// A length as BSON writes it. Whatever exceeds 32 bits is far beyond the 16 MiB that a document
/// may have, and refused for that before it is sent.
fn length(len: usize) -> [u8; 4] {
    i32::try_from(len).unwrap_or(i32::MAX).to_le_bytes()
}
