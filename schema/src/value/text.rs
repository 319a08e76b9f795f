//! The texts of single values that are no points in time.
//!
//! - Text that PostgreSQL would not write for the type gives nothing; it is never guessed at.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// What PostgreSQL, and therefore the envelope, writes for numbers that are not finite.
pub(crate) fn is_non_finite(text: &[u8]) -> bool {
    matches!(text, b"NaN" | b"Infinity" | b"-Infinity")
}

pub(super) fn boolean(text: &[u8]) -> Option<bool> {
    match text {
        b"t" => Some(true),
        b"f" => Some(false),
        _ => None,
    }
}

/// A decimal integer with an optional minus.
pub(crate) fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    if digits.is_empty() {
        return None;
    }
    let mut number = 0_i64;
    // Collected below zero, where i64 has one number more.
    for &byte in digits {
        number = number
            .checked_mul(10)?
            .checked_sub(i64::from(digit(byte)?))?;
    }
    if negative {
        Some(number)
    } else {
        number.checked_neg()
    }
}

/// A decimal number, finite or not; a finite one must be within the range of `f64`.
pub(crate) fn float8(text: &[u8]) -> Option<f64> {
    match text {
        b"NaN" => return Some(f64::NAN),
        b"Infinity" => return Some(f64::INFINITY),
        b"-Infinity" => return Some(f64::NEG_INFINITY),
        _ => {}
    }
    let unsigned = text.strip_prefix(b"-").unwrap_or(text);
    // Rust's own parser would take "inf", "nan", ".5" and "+1" too.
    let numeric =
        |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-');
    if !unsigned.first().is_some_and(u8::is_ascii_digit) || !unsigned.iter().all(numeric) {
        return None;
    }
    let number: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    number.is_finite().then_some(number)
}

/// A `float4`: the double next to its shortest text, so that 0.1 stays 0.1.
pub(crate) fn float4(text: &[u8]) -> Option<f64> {
    let number = float8(text)?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "only asks whether the number fits"
    )]
    let fits = !number.is_finite() || (number as f32).is_finite();
    fits.then_some(number)
}

/// Whether this is a `numeric`: digits, perhaps a fraction, never an exponent; or not finite.
pub(crate) fn is_numeric(text: &[u8]) -> bool {
    let unsigned = text.strip_prefix(b"-").unwrap_or(text);
    let mut parts = unsigned.splitn(2, |&byte| byte == b'.');
    let is_digits = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    parts.all(is_digits) || is_non_finite(text)
}

/// A `bytea` in the hex form, `\x00ff10`.
pub(super) fn bytea(text: &[u8]) -> Option<Vec<u8>> {
    hex(text.strip_prefix(b"\\x")?)
}

/// Bytes of two hexadecimal digits each.
pub(crate) fn hex(digits: &[u8]) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_chunks();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|&pair| hex_byte(pair)).collect()
}

/// A `uuid` in its canonical form, 8-4-4-4-12.
pub(crate) fn uuid(text: &[u8]) -> Option<[u8; 16]> {
    let text: &[u8; 36] = text.try_into().ok()?;
    let mut uuid = [0; 16];
    let mut rest = text.as_slice();
    for (index, byte) in uuid.iter_mut().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            rest = rest.strip_prefix(b"-")?;
        }
        let (pair, after) = rest.split_first_chunk()?;
        *byte = hex_byte(*pair)?;
        rest = after;
    }
    Some(uuid)
}

/// The amount of a `money` that the locale C shows in hundredths, `-$1,234.56`, and that has so many digits in its
/// fraction: `-1234.56`, or of a yen `-123456`.
pub(super) fn money(text: &[u8], digits: u8) -> Option<String> {
    let (sign, text) = match text.strip_prefix(b"-") {
        Some(text) => ("-", text),
        None => ("", text),
    };
    let amount = std::str::from_utf8(text.strip_prefix(b"$")?).ok()?;
    let (whole, hundredths) = amount.split_once('.')?;
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|it| it.is_ascii_digit());
    let units = whole.replace(',', "") + hundredths;
    if hundredths.len() != 2 || !is_digits(&units) {
        return None;
    }
    let digits = usize::from(digits);
    let units = format!(
        "{:0>width$}",
        units.trim_start_matches('0'),
        width = digits.saturating_add(1)
    );
    let (whole, fraction) = units.split_at_checked(units.len().saturating_sub(digits))?;
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("{sign}{whole}{point}{fraction}"))
}

/// Whether these are so many zeros and ones.
pub(crate) fn is_bits(text: &[u8], length: u32) -> bool {
    usize::try_from(length).is_ok_and(|length| text.len() == length)
        && text.iter().all(|byte| matches!(byte, b'0' | b'1'))
}

pub(super) fn digit(byte: u8) -> Option<u8> {
    let digit = byte.wrapping_sub(b'0');
    (digit < 10).then_some(digit)
}

fn hex_byte([high, low]: [u8; 2]) -> Option<u8> {
    Some(hex_digit(high)? << 4 | hex_digit(low)?)
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte.wrapping_sub(b'0')),
        b'a'..=b'f' => Some(byte.wrapping_sub(b'a' - 10)),
        b'A'..=b'F' => Some(byte.wrapping_sub(b'A' - 10)),
        _ => None,
    }
}
