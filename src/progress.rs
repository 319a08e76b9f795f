//! How far a long command has come, told to whoever shows it.

use walferry_schema::TableName;

/// Hears how far each table is. Tables go side by side, so calls come from several tasks.
pub trait Progress: Send + Sync {
    /// A table's turn has come; it has about this many rows.
    fn started(&self, table: &TableName, rows: u64);

    /// This many more rows are done.
    fn advanced(&self, table: &TableName, rows: u64);

    /// The table is done, or has failed for this reason.
    fn ended(&self, table: &TableName, failure: Option<&str>);
}

/// For whoever does not look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unseen;

// === impl Unseen ===

impl Progress for Unseen {
    fn started(&self, _: &TableName, _: u64) {}

    fn advanced(&self, _: &TableName, _: u64) {}

    fn ended(&self, _: &TableName, _: Option<&str>) {}
}

/// Writes something as its text.
pub(crate) fn as_text<S: serde::Serializer>(
    value: &impl std::fmt::Display,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
