//! The identity of a change.
//!
//! - Positions of one generation order snapshot rows before stream rows.
//! - A newer generation orders after everything of an older one.

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
}
