//! What can be wrong with COPY's data.

/// Bytes that are no row in COPY's text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyTextError {
    /// The line has more or fewer cells than the query has columns.
    #[error("a line has {found} cells for {expected} columns")]
    CellCount {
        /// Cells.
        found: usize,
        /// Columns.
        expected: usize,
    },
    /// A cell ends within an escape.
    #[error("a cell ends in a backslash")]
    DanglingBackslash,
    /// The data ends within a line.
    #[error("the data ends within a line")]
    Truncated,
    /// A message that is too large for memory goes on after its line.
    #[error("a large message holds more than one line")]
    SecondLine,
}
