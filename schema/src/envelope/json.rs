//! JSON as Jackson writes it, by hand into bytes.
//!
//! - Strings: short escapes or `\u00XX` for control characters, everything else as UTF-8.
//! - Floats: Java's `Double.toString` (`1.0E7`, `1.0`, `9.99E-4`); those that are not finite as
//!   strings.
//! - A `timestamptz` has exactly the digits of its declared precision, a `timetz` those that it needs.
//! - Bits are a little-endian number, as Debezium has them.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD, URL_SAFE};

use super::decimal;
use crate::value::calendar;
use crate::{
    Array, BinaryMode, Date, DecimalMode, HstoreMode, Instant, Interval, IntervalMode, Modes,
    TimePrecision, TimeTz, TimeZoneMode, Type, Value, time_text,
};

const MICROS_PER_SECOND: i64 = 1_000_000;
const HEX: &[u8; 16] = b"0123456789ABCDEF";
const LOWER_HEX: &[u8; 16] = b"0123456789abcdef";

pub(super) fn value(out: &mut Vec<u8>, value: &Value<'_>, kind: &Type, modes: Modes) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int4(number) => integer(out, *number),
        Value::Int8(number) => integer(out, *number),
        Value::Float(number) => float(out, *number),
        Value::Text(text) | Value::Json(text) => string(out, text),
        Value::Numeric(text) => match modes.decimal {
            DecimalMode::String => string(out, text),
            DecimalMode::Precise => precise(out, text, kind),
            DecimalMode::Double => float(out, text.parse().unwrap_or(f64::NAN)),
        },
        Value::Bytes(bytes) => {
            out.push(b'"');
            binary_digits(out, bytes, modes.binary);
            out.push(b'"');
        }
        Value::Uuid(bytes) => uuid(out, bytes),
        Value::Date(Date::Days(days)) if modes.time_precision == TimePrecision::Isostring => {
            iso_day(out, *days);
        }
        Value::Date(Date::Days(days)) => integer(out, *days),
        Value::Date(Date::Infinity) => string(out, "infinity"),
        Value::Date(Date::NegInfinity) => string(out, "-infinity"),
        Value::Timestamp(Instant::Infinity, _) | Value::TimestampTz(Instant::Infinity, _) => {
            string(out, "infinity");
        }
        Value::Timestamp(Instant::NegInfinity, _) | Value::TimestampTz(Instant::NegInfinity, _) => {
            string(out, "-infinity");
        }
        Value::Timestamp(Instant::At { days, micros }, _)
            if modes.time_precision == TimePrecision::Isostring =>
        {
            iso_timestamp(out, *days, *micros);
        }
        Value::Timestamp(Instant::At { days, micros }, precision) => {
            let micros = Instant::micros(*days, *micros);
            count(out, micros, *precision, modes.time_precision);
        }
        Value::TimestampTz(Instant::At { days, micros }, precision) => {
            iso_instant(out, *days, *micros, *precision);
        }
        Value::Time(micros, _) if modes.time_precision == TimePrecision::Isostring => {
            string(out, &format!("{}Z", time_text(*micros)));
        }
        Value::Time(micros, precision) => {
            count(out, (*micros).into(), *precision, modes.time_precision);
        }
        Value::Interval(it) => interval(out, *it, modes.interval),
        Value::TimeTz(time) => time_tz(out, *time, modes.time_zone),
        Value::Bits(bits) => bit_string(out, bits),
        Value::Point(x, y) => point(out, *x, *y),
        Value::Hstore(entries) if modes.hstore == HstoreMode::Map => object(out, entries),
        Value::Hstore(entries) => hstore(out, entries),
        Value::Array(array) => elements(out, array, kind.innermost(), modes),
        Value::Literal(literal) => string(out, &literal.text),
    }
}

fn elements(out: &mut Vec<u8>, array: &Array<'_>, kind: &Type, modes: Modes) {
    if let Some(text) = &array.text {
        return string(out, text);
    }
    let mut separator = b'[';
    for element in &array.elements {
        out.push(std::mem::replace(&mut separator, b','));
        value(out, element, kind, modes);
    }
    out.extend_from_slice(if array.elements.is_empty() {
        b"[]"
    } else {
        b"]"
    });
}

/// A JSON object as a string.
fn hstore(out: &mut Vec<u8>, entries: &[(Cow<'_, str>, Option<Cow<'_, str>>)]) {
    let mut json = Vec::new();
    object(&mut json, entries);
    string(out, &String::from_utf8_lossy(&json));
}

fn object(out: &mut Vec<u8>, entries: &[(Cow<'_, str>, Option<Cow<'_, str>>)]) {
    let mut separator = b'{';
    for (key, text) in entries {
        out.push(std::mem::replace(&mut separator, b','));
        string(out, key);
        out.push(b':');
        match text {
            Some(text) => string(out, text),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.extend_from_slice(if entries.is_empty() { b"{}" } else { b"}" });
}

/// The unscaled number's bytes; beside the scale where the type does not declare one.
fn precise(out: &mut Vec<u8>, text: &str, kind: &Type) {
    let declared = match kind {
        Type::Money(digits) => Some(i16::from(*digits)),
        Type::Numeric(declared) => declared.map(|(_, scale)| scale),
        _ => None,
    };
    let Some((bytes, scale)) = decimal::unscaled(text, declared) else {
        return string(out, text);
    };
    if declared.is_some() {
        return base64(out, &bytes, &STANDARD);
    }
    out.extend_from_slice(b"{\"scale\":");
    integer(out, scale);
    out.extend_from_slice(b",\"value\":");
    base64(out, &bytes, &STANDARD);
    out.push(b'}');
}

fn iso_timestamp(out: &mut Vec<u8>, days: i32, micros: i64) {
    out.push(b'"');
    iso_date(out, days);
    out.extend_from_slice(format!("T{}Z\"", time_text(micros)).as_bytes());
}

/// A number of milliseconds, microseconds or nanoseconds.
fn count(out: &mut Vec<u8>, micros: i128, precision: u8, mode: TimePrecision) {
    match (mode, precision) {
        (TimePrecision::Adaptive, 0..=3) | (TimePrecision::Connect, _) => {
            integer(out, micros.div_euclid(1_000));
        }
        (TimePrecision::Nanoseconds, _) => integer(out, micros * 1_000),
        _ => integer(out, micros),
    }
}

/// `"2024-02-29Z"`
fn iso_day(out: &mut Vec<u8>, days: i32) {
    out.push(b'"');
    iso_date(out, days);
    out.extend_from_slice(b"Z\"");
}

fn iso_date(out: &mut Vec<u8>, days: i32) {
    let (year, month, day) = calendar::civil(days.into());
    iso_year(out, year);
    for number in [month, day] {
        out.extend_from_slice(&[b'-', digit(number / 10), digit(number)]);
    }
}

/// What has no such form is PostgreSQL's text.
fn interval(out: &mut Vec<u8>, interval: Interval, mode: IntervalMode) {
    if mode == IntervalMode::Numeric
        && let Some(micros) = interval.as_micros()
    {
        return integer(out, micros);
    }
    let text = interval.with_every_part();
    string(out, &text.unwrap_or_else(|| interval.to_string()));
}

/// One bit is a boolean; more are a number, the lowest byte first.
fn bit_string(out: &mut Vec<u8>, bits: &str) {
    if bits.len() == 1 {
        return out.extend_from_slice(if bits == "1" { b"true" } else { b"false" });
    }
    let byte = |bits: &[u8]| {
        let bit = |byte: u8, bit: &u8| byte << 1 | (bit & 1);
        bits.iter().fold(0, bit)
    };
    let bytes: Vec<u8> = bits.as_bytes().rchunks(8).map(byte).collect();
    base64(out, &bytes, &STANDARD);
}

fn point(out: &mut Vec<u8>, x: f64, y: f64) {
    // Little-endian, and the number of the type.
    let mut wkb = vec![1, 1, 0, 0, 0];
    wkb.extend_from_slice(&x.to_le_bytes());
    wkb.extend_from_slice(&y.to_le_bytes());
    out.extend_from_slice(b"{\"x\":");
    float(out, x);
    out.extend_from_slice(b",\"y\":");
    float(out, y);
    out.extend_from_slice(b",\"wkb\":");
    base64(out, &wkb, &STANDARD);
    out.extend_from_slice(b",\"srid\":null}");
}

/// `"12:34:56.12+02:00"`, `"10:34:56.12Z"`.
fn time_tz(out: &mut Vec<u8>, time: TimeTz, mode: TimeZoneMode) {
    let time = match mode {
        TimeZoneMode::Offset => time,
        TimeZoneMode::Utc => time.in_utc(),
    };
    let text = time.to_string();
    match text.strip_suffix("+00:00") {
        Some(utc) => string(out, &format!("{utc}Z")),
        None => string(out, &text),
    }
}

pub(super) fn integer(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escaped(out, text.as_bytes());
    out.push(b'"');
}

/// What stands between the quotes of a string; also of a part of a text.
pub(super) fn escaped(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    loop {
        let (plain, special) = rest.split_at(plain_len(rest));
        out.extend_from_slice(plain);
        let Some((&byte, after)) = special.split_first() else {
            break;
        };
        escape(out, byte);
        rest = after;
    }
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

/// What stands between the quotes of a string; also of a part of the bytes, three or a multiple of it.
pub(super) fn binary_digits(out: &mut Vec<u8>, bytes: &[u8], mode: BinaryMode) {
    match mode {
        BinaryMode::Base64 => base64_digits(out, bytes, &STANDARD),
        BinaryMode::Base64UrlSafe => base64_digits(out, bytes, &URL_SAFE),
        BinaryMode::Hex => {
            for &byte in bytes {
                out.extend_from_slice(&hex(LOWER_HEX, byte));
            }
        }
    }
}

fn base64(out: &mut Vec<u8>, bytes: &[u8], engine: &GeneralPurpose) {
    out.push(b'"');
    base64_digits(out, bytes, engine);
    out.push(b'"');
}

fn base64_digits(out: &mut Vec<u8>, bytes: &[u8], engine: &GeneralPurpose) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = engine.encode_slice(bytes, &mut out[start..]);
    out.truncate(start + written.expect("base64 with padding has four characters for three bytes"));
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

fn iso_instant(out: &mut Vec<u8>, days: i32, time: i64, precision: u8) {
    let seconds = time / MICROS_PER_SECOND;
    out.push(b'"');
    iso_date(out, days);
    let parts = [
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
