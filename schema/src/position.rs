//! The identity of a change.
//!
//! - Positions of one generation order snapshot rows before stream rows.
//! - A newer generation orders after everything of an older one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Lsn;

/// Where a change stands in the history of one pipeline; a total order (protocol rule 1).
///
/// Never compare bare row LSNs instead: COPY gives many rows one LSN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Which slot, server and timeline the rest refers to; only walferry begins one.
    pub generation: u64,
    /// The snapshot chunk or the source transaction.
    pub phase: Phase,
    /// Rises within the phase: the row of a chunk, or the half-row of a transaction (rule 2).
    pub ordinal: u64,
}

/// Which chunk of the snapshot, or which source transaction after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// A chunk of the generation's snapshot, numbered from 0 over all tables.
    Snapshot(u64),
    /// A source transaction, by the LSN of its commit record.
    Stream(Lsn),
}

/// A source transaction, as an operator names it: `GENERATION/LSN` of its commit, `1731888000/16/B374D848`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId {
    /// Which slot, server and timeline the LSN refers to.
    pub generation: u64,
    /// The LSN of the commit record.
    pub lsn: Lsn,
}

/// The text does not name a transaction.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} names no transaction: it is written GENERATION/LSN, as in 1731888000/16/B374D848")]
pub struct CommitIdError(pub String);

// === impl Position ===

impl Position {
    /// The ordinal after all of a phase; it fits a signed 64-bit integer.
    const END: u64 = u64::MAX >> 1;

    /// The position after all of a transaction or chunk.
    pub fn end_of(generation: u64, phase: Phase) -> Self {
        let ordinal = Self::END;
        Self {
            generation,
            phase,
            ordinal,
        }
    }

    /// Whether everything of the phase is before this position; otherwise a giant transaction was
    /// cut short after this ordinal (rule 17).
    pub fn is_end(&self) -> bool {
        self.ordinal == Self::END
    }

    /// The transaction; none in a snapshot.
    pub fn commit(&self) -> Option<CommitId> {
        let Phase::Stream(lsn) = self.phase else {
            return None;
        };
        let generation = self.generation;
        Some(CommitId { generation, lsn })
    }
}

/// The transaction or chunk, without the place in it.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.phase {
            Phase::Stream(lsn) => write!(f, "{}/{lsn}", self.generation),
            Phase::Snapshot(chunk) => write!(f, "{}/chunk {chunk}", self.generation),
        }
    }
}

// === impl CommitId ===

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.generation, self.lsn)
    }
}

impl FromStr for CommitId {
    type Err = CommitIdError;

    fn from_str(text: &str) -> Result<Self, CommitIdError> {
        let parsed = text.split_once('/').and_then(|(generation, lsn)| {
            let generation = generation.parse().ok()?;
            let lsn = lsn.parse().ok()?;
            Some(Self { generation, lsn })
        });
        parsed.ok_or_else(|| CommitIdError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_snapshot_comes_before_the_stream_and_a_generation_before_the_next() {
        let at = |generation, phase, ordinal| Position {
            generation,
            phase,
            ordinal,
        };
        let rising = [
            at(1, Phase::Snapshot(0), 7),
            at(1, Phase::Snapshot(900), 0),
            at(1, Phase::Stream(Lsn(1)), 0),
            at(1, Phase::Stream(Lsn(1)), 1),
            at(2, Phase::Snapshot(0), 0),
        ];
        assert!(rising.is_sorted());
    }

    #[test]
    fn a_transaction_is_written_as_an_operator_names_it() {
        let commit = CommitId {
            generation: 1_731_888_000,
            lsn: Lsn(0x16_B374_D848),
        };
        assert_eq!(commit.to_string(), "1731888000/16/B374D848");
        assert_eq!(commit.to_string().parse(), Ok(commit));
        for text in ["", "1", "16/B374D848", "x/16/B374D848", "1/16"] {
            assert_eq!(
                text.parse::<CommitId>(),
                Err(CommitIdError(text.to_owned()))
            );
        }
    }
}
