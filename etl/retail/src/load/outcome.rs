//! What became of the rows of a load.

use std::fmt;

use serde::Serialize;

/// What `retail load` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Loaded {
    /// Each table in the order in which it was loaded.
    pub tables: Vec<Rows>,
    /// Lines that are in no table, by why; only a flat file of sales has any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<Dropped>,
    /// How many stores have their role.
    pub store_roles: i64,
}

/// Lines of a flat file that were left out for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// What is wrong with them.
    pub reason: &'static str,
    /// How many.
    pub lines: u64,
    /// The first of them in the file; the header is line 1.
    pub first_line: i64,
}

/// A table and what became of the rows of its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rows {
    /// The table's name.
    pub table: &'static str,
    /// Rows of the file; of a flat file how many keys it has.
    pub read: u64,
    /// Rows that were not there before.
    pub inserted: u64,
    /// Rows that were there with the same key and other contents, and were left so; of a flat file lines that say
    /// otherwise than what is there, as when a product has two names.
    pub different: u64,
}

// === impl Loaded ===

impl fmt::Display for Loaded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{:<22} {:>12} {:>12} {:>12} {:>12}",
            "", "read", "inserted", "there before", "different"
        )?;
        for Rows {
            table,
            read,
            inserted,
            different,
        } in &self.tables
        {
            let before = read.saturating_sub(*inserted);
            writeln!(
                formatter,
                "{table:<22} {read:>12} {inserted:>12} {before:>12} {different:>12}"
            )?;
        }
        for Dropped {
            reason,
            lines,
            first_line,
        } in &self.dropped
        {
            writeln!(
                formatter,
                "dropped {lines} lines with {reason}, the first is line {first_line}"
            )?;
        }
        writeln!(formatter, "{} stores have their role", self.store_roles)
    }
}
