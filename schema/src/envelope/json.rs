//! JSON as Jackson writes it, by hand into bytes.
//!
//! - Strings: short escapes or `\u00XX` for control characters, everything else as UTF-8.
//! - Floats: Java's `Double.toString` (`1.0E7`, `1.0`, `9.99E-4`); those that are not finite as
//!   strings.
//! - A `timestamptz` has exactly the digits of its declared precision.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::value::calendar;
use crate::{Date, Instant, Value};

const MICROS_PER_SECOND: i64 = 1_000_000;
const HEX: &[u8; 16] = b"0123456789ABCDEF";
const LOWER_HEX: &[u8; 16] = b"0123456789abcdef";

pub(super) fn value(out: &mut Vec<u8>, value: &Value<'_>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int4(number) => integer(out, *number),
        Value::Int8(number) => integer(out, *number),
        Value::Float(number) => float(out, *number),
        Value::Numeric(text) | Value::Text(text) | Value::Json(text) => string(out, text),
        Value::Bytes(bytes) => base64(out, bytes),
        Value::Uuid(bytes) => uuid(out, bytes),
        Value::Date(Date::Days(days)) => integer(out, *days),
        Value::Date(Date::Infinity) => string(out, "infinity"),
        Value::Date(Date::NegInfinity) => string(out, "-infinity"),
        Value::Timestamp(Instant::Infinity, _) | Value::TimestampTz(Instant::Infinity, _) => {
            string(out, "infinity");
        }
        Value::Timestamp(Instant::NegInfinity, _) | Value::TimestampTz(Instant::NegInfinity, _) => {
            string(out, "-infinity");
        }
        Value::Timestamp(Instant::Micros(micros), 0..=3) => integer(out, micros.div_euclid(1_000)),
        Value::Timestamp(Instant::Micros(micros), _) => integer(out, *micros),
        Value::TimestampTz(Instant::Micros(micros), precision) => {
            iso_instant(out, *micros, *precision);
        }
    }
}

pub(super) fn integer(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let (plain, special) = rest.split_at(plain_len(rest));
        out.extend_from_slice(plain);
        let Some((&byte, after)) = special.split_first() else {
            break;
        };
        escape(out, byte);
        rest = after;
    }
    out.push(b'"');
}

/// How many of the first bytes stand in a JSON string as they are.
pub(super) fn plain_len(bytes: &[u8]) -> usize {
    let is_special = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    // Sixteen at a time without branches, which the compiler turns into vector instructions.
    let (chunks, _) = bytes.as_chunks::<16>();
    let is_plain = |chunk: &&[u8; 16]| !chunk.iter().fold(false, |hit, &b| hit | is_special(b));
    let whole = 16 * chunks.iter().take_while(is_plain).count();
    let tail = &bytes[whole..];
    whole
        + tail
            .iter()
            .position(|&byte| is_special(byte))
            .unwrap_or(tail.len())
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0c => b'f',
        b'\r' => b'r',
        _ => {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&hex(HEX, byte));
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

fn hex(digits: &[u8; 16], byte: u8) -> [u8; 2] {
    [
        digits[usize::from(byte >> 4)],
        digits[usize::from(byte & 15)],
    ]
}

fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(bytes, &mut out[start..]);
    out.truncate(start + written.expect("base64 with padding has four characters for three bytes"));
    out.push(b'"');
}

fn uuid(out: &mut Vec<u8>, bytes: &[u8; 16]) {
    let mut text = [b'-'; 38];
    (text[0], text[37]) = (b'"', b'"');
    let mut at = 1;
    for (index, &byte) in bytes.iter().enumerate() {
        at += usize::from(matches!(index, 4 | 6 | 8 | 10));
        text[at..at + 2].copy_from_slice(&hex(LOWER_HEX, byte));
        at += 2;
    }
    out.extend_from_slice(&text);
}

fn float(out: &mut Vec<u8>, number: f64) {
    if number.is_nan() {
        return string(out, "NaN");
    }
    if number.is_infinite() {
        return string(
            out,
            if number > 0.0 {
                "Infinity"
            } else {
                "-Infinity"
            },
        );
    }
    let mut buffer = ryu::Buffer::new();
    let shortest = buffer.format_finite(number);
    // Within these bounds Java writes without an exponent, and so does ryu.
    if number == 0.0 || (1e-3..1e7).contains(&number.abs()) {
        out.extend_from_slice(shortest.as_bytes());
    } else {
        scientific(out, shortest);
    }
}

/// Rewrites ryu's text (`12345678.0`, `1.5e-7`, `1e20`) as Java's: `1.2345678E7`, `1.5E-7`, `1.0E20`.
fn scientific(out: &mut Vec<u8>, shortest: &str) {
    let unsigned = shortest
        .strip_prefix('-')
        .inspect(|_| out.push(b'-'))
        .unwrap_or(shortest);
    let (mantissa, exponent) = unsigned.split_once('e').unwrap_or((unsigned, "0"));
    let exponent: isize = exponent.parse().expect("ryu's exponent is a number");
    let leading_zeros = mantissa
        .bytes()
        .take_while(|byte| matches!(byte, b'0' | b'.'))
        .count();
    // Below one ryu writes "0.000…": the first digit stands that many places after the point.
    let shift = match leading_zeros {
        0 => mantissa.find('.').unwrap_or(mantissa.len()).cast_signed() - 1,
        zeros => 1 - zeros.cast_signed(),
    };
    let digits = mantissa[leading_zeros..].trim_end_matches(['0', '.']);
    let mut digits = digits.bytes().filter(|&byte| byte != b'.');
    out.extend(digits.next());
    out.push(b'.');
    let fraction = out.len();
    out.extend(digits);
    if out.len() == fraction {
        out.push(b'0');
    }
    out.push(b'E');
    integer(out, exponent + shift);
}

fn iso_instant(out: &mut Vec<u8>, micros: i64, precision: u8) {
    const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
    let (year, month, day) = calendar::civil(micros.div_euclid(MICROS_PER_DAY));
    let time = micros.rem_euclid(MICROS_PER_DAY);
    let seconds = time / MICROS_PER_SECOND;
    out.push(b'"');
    iso_year(out, year);
    let parts = [
        (b'-', month),
        (b'-', day),
        (b'T', seconds / 3_600),
        (b':', seconds / 60 % 60),
        (b':', seconds % 60),
    ];
    for (separator, number) in parts {
        out.extend_from_slice(&[separator, digit(number / 10), digit(number)]);
    }
    let mut unit = MICROS_PER_SECOND / 10;
    for place in 0..precision.min(6) {
        if place == 0 {
            out.push(b'.');
        }
        out.push(digit(time / unit));
        unit /= 10;
    }
    out.extend_from_slice(b"Z\"");
}

/// Four digits, with a sign when it is before 0 or needs more (`ISO_LOCAL_DATE` of Java).
fn iso_year(out: &mut Vec<u8>, year: i64) {
    let magnitude = year.abs();
    let needs_more = magnitude > 9_999;
    if year < 0 {
        out.push(b'-');
    } else if needs_more {
        out.push(b'+');
    }
    if needs_more {
        return integer(out, magnitude);
    }
    let places = [1_000, 100, 10, 1];
    out.extend_from_slice(&places.map(|place| digit(magnitude / place)));
}

/// The last decimal digit of a number that is not negative.
fn digit(number: i64) -> u8 {
    b'0' + number.rem_euclid(10).to_le_bytes()[0]
}
