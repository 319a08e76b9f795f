//! What the headers of a row's record say beyond its JSON.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Column, FORMAT, Lsn, Modes, Phase, Position, Term, Type};

/// Header of the record's [`Stamp`].
pub const POSITION: &str = "walferry.position";
/// Header of the record's [`Columns`].
pub const COLUMNS: &str = "walferry.columns";
/// Header with the names of the unchanged TOAST columns, a JSON array; only when there are any.
pub const UNCHANGED: &str = "walferry.unchanged";
/// Header with what is too large for the record: [`Oversize`]; only when there is something.
pub const OVERSIZE: &str = "walferry.oversize";
/// Header of a part of what MongoDB refused: the dead letter's name, `<generation>/<commit lsn>/<ordinal>`.
pub const LETTER: &str = "walferry.letter";
/// Header of a dead letter's part: its table, `schema.table`.
pub const TABLE: &str = "walferry.table";
/// Header of a dead letter's part: which one it is and how many there are, `3/12`.
pub const PART: &str = "walferry.part";
/// Header of a dead letter's part: why the record is there.
pub const ERROR: &str = "walferry.error";
/// Header of a delete that is half of a key change: the new key, as JSON.
pub const NEW_KEY: &str = "__debezium.newkey";
/// Header of an insert that is half of a key change: the old key, as JSON.
pub const OLD_KEY: &str = "__debezium.oldkey";

/// Whose record it is and where it belongs: `<generation>.<term>/<commit lsn>/<ordinal>`, the LSN
/// written `16/B374D848`; for a snapshot row `<generation>.<term>/chunk/<n>/<row>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The writer's term.
    pub term: Term,
    /// The transaction or chunk.
    pub phase: Phase,
    /// See [`Position::ordinal`].
    pub ordinal: u64,
}

/// The columns of one relation version: a constant byte string on each of its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    /// The columns.
    pub all: Arc<[Column]>,
    /// How their values are written.
    pub modes: Modes,
}

/// What a record leaves out because it would be too large with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Oversize {
    /// The columns that the new row leaves out.
    pub columns: Vec<Arc<str>>,
    /// The columns that the old row leaves out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Arc<str>>,
    /// How many bytes the value of the whole record has; without Kafka the texts of these columns.
    pub bytes: u64,
    /// In how many parts the whole record's value stands on the dead-letter topic; 0 without Kafka.
    pub parts: u64,
    /// What it is too large for, and the remedy.
    pub error: String,
}

/// A header that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// Not a stamp.
    #[error("not a record position: {0:?}")]
    Stamp(String),
    /// Not the JSON of columns.
    #[error("reading the header {COLUMNS}")]
    Columns(#[from] serde_json::Error),
    /// Not the JSON of what is too large.
    #[error("reading the header {OVERSIZE}")]
    Oversize(#[source] serde_json::Error),
    /// Written by a walferry whose format this one does not know.
    #[error("record header of format {found}, this walferry reads format {FORMAT}: upgrade it")]
    Format {
        /// The header's format.
        found: u32,
    },
}

#[derive(Serialize, Deserialize)]
struct ColumnsDocument {
    format: u32,
    columns: Vec<Described>,
    #[serde(default, skip_serializing_if = "Modes::is_default")]
    modes: Modes,
}

/// Name, type, place in the key; then the type's structure, where the type's name does not say it.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Described {
    Scalar(Arc<str>, Arc<str>, u16),
    Structure(Arc<str>, Arc<str>, u16, Type),
}

// === impl Stamp ===

impl Stamp {
    /// The position, which outlives the term.
    pub fn position(&self) -> Position {
        Position {
            generation: self.term.generation,
            phase: self.phase,
            ordinal: self.ordinal,
        }
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}/", self.term.generation, self.term.number)?;
        match self.phase {
            Phase::Snapshot(chunk) => write!(f, "chunk/{chunk}")?,
            Phase::Stream(lsn) => write!(f, "{lsn}")?,
        }
        write!(f, "/{}", self.ordinal)
    }
}

impl FromStr for Stamp {
    type Err = HeaderError;

    fn from_str(text: &str) -> Result<Self, HeaderError> {
        parse_stamp(text).ok_or_else(|| HeaderError::Stamp(text.to_owned()))
    }
}

fn parse_stamp(text: &str) -> Option<Stamp> {
    let mut parts = text.split('/');
    let (generation, number) = parts.next()?.split_once('.')?;
    let (high, low) = (parts.next()?, parts.next()?);
    let ordinal = parts.next()?.parse().ok()?;
    if parts.next().is_some() {
        return None;
    }
    let half = |digits: &str| u32::from_str_radix(digits, 16).ok().map(u64::from);
    let phase = match high {
        "chunk" => Phase::Snapshot(low.parse().ok()?),
        _ => Phase::Stream(Lsn(half(high)? << 32 | half(low)?)),
    };
    let term = Term {
        generation: generation.parse().ok()?,
        number: number.parse().ok()?,
    };
    Some(Stamp {
        term,
        phase,
        ordinal,
    })
}

// === impl Columns ===

impl Columns {
    /// The header's bytes.
    ///
    /// # Panics
    /// Never: names and numbers always serialize.
    pub fn to_bytes(&self) -> Vec<u8> {
        let columns = self.all.iter().map(Described::from).collect();
        serde_json::to_vec(&ColumnsDocument {
            format: FORMAT,
            columns,
            modes: self.modes,
        })
        .expect("columns are strings and numbers")
    }

    /// The columns that a header's bytes hold.
    ///
    /// # Errors
    /// When the bytes are no such header, or one of another format version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HeaderError> {
        let ColumnsDocument {
            format,
            columns,
            modes,
        } = serde_json::from_slice(bytes)?;
        if format != FORMAT {
            return Err(HeaderError::Format { found: format });
        }
        let all = columns.into_iter().map(Column::from).collect();
        Ok(Self { all, modes })
    }
}

// === impl Oversize ===

impl Oversize {
    /// Where the whole record stands and why, for people.
    pub fn place(&self) -> String {
        match self.parts {
            0 => format!("nowhere but in PostgreSQL: {}", self.error),
            parts => format!("{parts} parts on the dead-letter topic: {}", self.error),
        }
    }

    /// The header's bytes.
    ///
    /// # Panics
    /// Never: names and numbers always serialize.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("names and numbers")
    }

    /// What a header's bytes say.
    ///
    /// # Errors
    /// When the bytes are no such header.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HeaderError> {
        serde_json::from_slice(bytes).map_err(HeaderError::Oversize)
    }
}

// === impl Described ===

impl From<&Column> for Described {
    fn from(column: &Column) -> Self {
        let (name, type_name) = (column.name.clone(), column.type_name.clone());
        if column.kind == Type::from_name(&type_name) {
            return Self::Scalar(name, type_name, column.key);
        }
        Self::Structure(name, type_name, column.key, column.kind.clone())
    }
}

impl From<Described> for Column {
    fn from(described: Described) -> Self {
        let (name, type_name, key, kind) = match described {
            Described::Scalar(name, type_name, key) => {
                let kind = Type::from_name(&type_name);
                (name, type_name, key, kind)
            }
            Described::Structure(name, type_name, key, kind) => (name, type_name, key, kind),
        };
        Self {
            name,
            type_name,
            kind,
            key,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stamp_reads_as_documented() {
        let stamp = Stamp {
            term: Term {
                generation: 17,
                number: 4,
            },
            phase: Phase::Stream(Lsn(0x16_B374_D848)),
            ordinal: 5,
        };
        assert_eq!(stamp.to_string(), "17.4/16/B374D848/5");
        let row = Stamp {
            phase: Phase::Snapshot(3),
            ..stamp
        };
        assert_eq!(row.to_string(), "17.4/chunk/3/5");
    }

    #[test]
    fn columns_round_trip() {
        let column = |name: &str, type_name: &str, key| Column {
            name: name.into(),
            type_name: type_name.into(),
            kind: Type::from_name(type_name),
            key,
        };
        let all = [
            column("b", "int4", 2),
            column("a", "varchar(20)", 1),
            column("é\"", "mood", 0),
            Column {
                kind: Type::array_of(Type::Int4),
                ..column("n", "_int4", 0)
            },
        ];
        let all: Arc<[Column]> = all.into();
        for modes in [Modes::default(), Modes::debezium()] {
            let columns = Columns {
                all: all.clone(),
                modes,
            };
            assert_eq!(Columns::from_bytes(&columns.to_bytes()).ok(), Some(columns));
        }
    }

    #[test]
    fn what_is_too_large_round_trips() {
        let oversize = Oversize {
            columns: vec!["é\"".into()],
            before: Vec::new(),
            bytes: 9,
            parts: 2,
            error: "too large".to_owned(),
        };
        let bytes = oversize.to_bytes();
        assert_eq!(Oversize::from_bytes(&bytes).ok(), Some(oversize));
    }

    #[test]
    fn modes_stand_in_the_header_only_where_they_are_not_the_default() {
        let bytes = |modes| {
            let all = [].into();
            String::from_utf8(Columns { all, modes }.to_bytes()).unwrap()
        };
        assert_eq!(bytes(Modes::default()), r#"{"format":1,"columns":[]}"#);
        let debezium = bytes(Modes::debezium());
        assert!(debezium.contains(r#""decimal":"precise""#), "{debezium}");
    }

    proptest! {
        #[test]
        fn stamps_round_trip(generation: u64, number: i64, chunk: bool, n: u64, ordinal: u64) {
            let phase = if chunk { Phase::Snapshot(n) } else { Phase::Stream(Lsn(n)) };
            let stamp = Stamp { term: Term { generation, number }, phase, ordinal };
            prop_assert_eq!(stamp.to_string().parse::<Stamp>().ok(), Some(stamp));
        }

        #[test]
        fn any_text_is_an_error_and_never_a_panic(text: String) {
            let _ = text.parse::<Stamp>();
            let _ = Columns::from_bytes(text.as_bytes());
        }
    }
}
