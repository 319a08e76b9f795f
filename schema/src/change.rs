//! Rows and changes as they leave PostgreSQL, and the images of them that a sink writes.

use std::sync::Arc;

use bytes::Bytes;

use crate::{Column, Large, Relation, Spool, Value};

/// One row as PostgreSQL sent it: the frame and where each cell's text stands in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    data: Bytes,
    cells: Vec<Span>,
    /// Of a row that is too large to be held.
    spool: Option<Spool>,
}

/// Collects the cells of a [`Row`] over one buffer.
#[derive(Debug)]
pub struct RowBuilder {
    cells: Vec<Span>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Span {
    Null,
    Unchanged,
    Text {
        start: u32,
        len: u32,
    },
    /// A large text in the row's buffer.
    Held {
        start: u32,
        len: u32,
    },
    /// A large text in the row's spool.
    Spooled {
        start: u32,
        len: u32,
    },
}

/// A cell of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    /// SQL NULL.
    Null,
    /// A TOAST value that the update left as it was; PostgreSQL does not send it.
    Unchanged,
    /// The value's text, in the forms that the link's session settings fix.
    Text(&'a [u8]),
    /// The same of a value that is too large to go with its row.
    Large(Large<'a>),
}

/// What happened to one row, or to whole tables, as pgoutput says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// One row of one table.
    Row {
        /// The version of the table that the row belongs to.
        relation: Arc<Relation>,
        /// What happened to it.
        op: RowOp,
    },
    /// Tables emptied together.
    Truncate {
        /// The tables, in the order PostgreSQL names them.
        relations: Vec<Arc<Relation>>,
    },
}

/// What happened to a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowOp {
    /// A new row.
    Insert {
        /// All columns.
        new: Row,
    },
    /// A changed row.
    Update {
        /// The old row: all of it under identity FULL, only the identity's columns (others null)
        /// when these changed, none otherwise.
        old: Option<Row>,
        /// All columns, unchanged TOAST ones marked so.
        new: Row,
    },
    /// A removed row.
    Delete {
        /// The old row: all of it under identity FULL, else the identity's columns.
        old: Row,
    },
}

/// One row as a sink sees it: the columns of its version, a field for each.
#[derive(Clone, Debug)]
pub struct Image<'a> {
    /// The columns in table order.
    pub columns: &'a [Column],
    /// One field per column.
    pub fields: Vec<Field<'a>>,
}

/// A column of an [`Image`].
#[derive(Clone, Debug, PartialEq)]
pub enum Field<'a> {
    /// The record holds no value for the column: unchanged TOAST, or outside a delete's key.
    Absent,
    /// The value; SQL NULL is [`Value::Null`].
    Present(Value<'a>),
}

// === impl Row ===

impl Row {
    /// How many cells the row has.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether the row has no cell, as in a table without columns.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The cell of a column, by its index; NULL beyond the last.
    pub fn cell(&self, index: usize) -> Cell<'_> {
        match self.cells.get(index) {
            None | Some(Span::Null) => Cell::Null,
            Some(Span::Unchanged) => Cell::Unchanged,
            Some(&Span::Text { start, len }) => Cell::Text(self.held(start, len)),
            Some(&Span::Held { start, len }) => Cell::Large(Large::Held(self.held(start, len))),
            Some(&Span::Spooled { start, len }) => {
                self.spool.as_ref().map_or(Cell::Text(b""), |spool| {
                    Cell::Large(Large::Spooled {
                        spool,
                        offset: start.into(),
                        bytes: len.into(),
                    })
                })
            }
        }
    }

    fn held(&self, start: u32, len: u32) -> &[u8] {
        let start = start as usize;
        self.data
            .get(start..start + len as usize)
            .unwrap_or_default()
    }

    /// The row with some of its texts, by the indexes of their cells, marked as too large to go with it.
    #[must_use]
    pub fn with_large(&self, is_large: impl Fn(usize) -> bool) -> Self {
        let marked = |(index, span): (usize, &Span)| match *span {
            Span::Text { start, len } if is_large(index) => Span::Held { start, len },
            span => span,
        };
        Self {
            cells: self.cells.iter().enumerate().map(marked).collect(),
            ..self.clone()
        }
    }

    /// Whether a cell of the row is too large to go with it.
    pub fn has_large(&self) -> bool {
        let is_large = |span: &Span| matches!(span, Span::Held { .. } | Span::Spooled { .. });
        self.cells.iter().any(is_large)
    }

    /// Bytes of text in the cells that are too large to go with the row.
    pub fn large_bytes(&self) -> u64 {
        let bytes = |cell| match cell {
            Cell::Large(large) => large.bytes(),
            _ => 0,
        };
        self.cells().map(bytes).sum()
    }

    /// Where the row's spooled texts stand, if it has any.
    pub fn spool(&self) -> Option<&Spool> {
        self.spool.as_ref()
    }

    /// All cells in order.
    pub fn cells(&self) -> impl Iterator<Item = Cell<'_>> {
        (0..self.len()).map(|index| self.cell(index))
    }

    /// Bytes of text in all cells, without those that are too large to go with the row.
    pub fn text_bytes(&self) -> usize {
        self.cells()
            .map(|cell| {
                if let Cell::Text(text) = cell {
                    text.len()
                } else {
                    0
                }
            })
            .sum()
    }

    /// A row of the given texts; `None` is NULL. For tests and small rows: it copies.
    pub fn from_texts(texts: &[Option<&str>]) -> Self {
        let mut data = Vec::new();
        let mut row = RowBuilder::with_capacity(texts.len());
        for text in texts {
            match text {
                None => row.null(),
                Some(text) => {
                    row.text(data.len(), text.len());
                    data.extend_from_slice(text.as_bytes());
                }
            }
        }
        row.build(data.into())
    }
}

// === impl RowBuilder ===

impl RowBuilder {
    /// A builder with room for `cells` cells.
    pub fn with_capacity(cells: usize) -> Self {
        Self {
            cells: Vec::with_capacity(cells),
        }
    }

    /// Adds a NULL.
    pub fn null(&mut self) {
        self.cells.push(Span::Null);
    }

    /// Adds an unchanged TOAST value.
    pub fn unchanged(&mut self) {
        self.cells.push(Span::Unchanged);
    }

    /// Adds a text that stands at `start` in the buffer given to [`Self::build`].
    ///
    /// PostgreSQL's messages are at most 1 GiB, so both numbers fit in 32 bits; a cell that lies
    /// outside the buffer reads as empty.
    pub fn text(&mut self, start: usize, len: usize) {
        let (start, len) = (fit(start), fit(len));
        self.cells.push(Span::Text { start, len });
    }

    /// Adds a large text that stands at `start` in that buffer.
    pub fn held(&mut self, start: usize, len: usize) {
        let (start, len) = (fit(start), fit(len));
        self.cells.push(Span::Held { start, len });
    }

    /// Adds a large text that stands at `start` in the spool given to [`Self::build_spooled`].
    pub fn spooled(&mut self, start: u64, len: u64) {
        let (start, len) = (fit(start), fit(len));
        self.cells.push(Span::Spooled { start, len });
    }

    /// The row over `data`.
    pub fn build(self, data: Bytes) -> Row {
        self.build_spooled(data, None)
    }

    /// The row over `data` and a spool.
    pub fn build_spooled(self, data: Bytes, spool: Option<Spool>) -> Row {
        Row {
            data,
            cells: self.cells,
            spool,
        }
    }
}

// === impl Image ===

impl Image<'_> {
    /// The indexes of the key's columns, in key order.
    pub fn key_columns(&self) -> Vec<usize> {
        crate::relation::key_columns(self.columns)
    }

    /// Whether every column has its value.
    pub fn is_complete(&self) -> bool {
        !self.fields.contains(&Field::Absent)
    }
}

/// PostgreSQL's messages are at most 1 GiB, so everything fits in 32 bits.
fn fit(number: impl TryInto<u32>) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_gives_back_its_cells() {
        let mut row = RowBuilder::with_capacity(4);
        row.text(1, 2);
        row.null();
        row.unchanged();
        row.text(9, 9);
        let row = row.build(Bytes::from_static(b"xab"));
        let cells: Vec<_> = row.cells().collect();
        let expected = [
            Cell::Text(b"ab"),
            Cell::Null,
            Cell::Unchanged,
            Cell::Text(b""),
        ];
        assert_eq!(cells, expected);
        assert_eq!(row.cell(4), Cell::Null);
        assert_eq!(row.text_bytes(), 2);
    }
}
