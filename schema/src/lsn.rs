//! Log sequence numbers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A byte position in PostgreSQL's write-ahead log.
///
/// Means nothing across servers, timelines or restores: see [`crate::Position`].
/// Written as PostgreSQL writes it, `16/B374D848`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// The text is not two hexadecimal numbers joined by a slash.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a log sequence number: {0:?}")]
pub struct LsnError(pub String);

// === impl Lsn ===

impl Lsn {
    /// The position before any record; as a start it means "where the slot stands".
    pub const ZERO: Self = Self(0);

    /// Bytes of log from `earlier` to here; zero when `earlier` is later.
    pub const fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = LsnError;

    fn from_str(text: &str) -> Result<Self, LsnError> {
        let half = |digits: &str| u32::from_str_radix(digits, 16).ok().map(u64::from);
        let parsed = text.split_once('/').and_then(|(high, low)| {
            let digits_only = |s: &str| !s.starts_with('+');
            (digits_only(high) && digits_only(low)).then_some(())?;
            Some(Self(half(high)? << 32 | half(low)?))
        });
        parsed.ok_or_else(|| LsnError(text.to_owned()))
    }
}

impl Serialize for Lsn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_is_written_as_postgresql_writes_it() {
        assert_eq!(Lsn(0x16_B374_D848).to_string(), "16/B374D848");
        assert_eq!("0/2732388".parse(), Ok(Lsn(0x273_2388)));
    }

    #[test]
    fn text_that_is_no_lsn_is_refused() {
        for text in ["", "1", "/", "1/", "G/1", "+1/1", "1/+1", "100000000/0"] {
            assert_eq!(text.parse::<Lsn>(), Err(LsnError(text.to_owned())));
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(lsn: u64) {
            prop_assert_eq!(Lsn(lsn).to_string().parse(), Ok(Lsn(lsn)));
        }
    }
}
