//! What a record leaves out because it is too large.

use std::sync::Arc;

use walferry_schema::Row;
use walferry_schema::envelope::{Before, EnvelopeError, Meta, Template, WholeValue, large_names};

use super::tables::Table;

/// What a draft leaves out, and the value with it.
#[derive(Debug)]
pub(super) struct LeftOut {
    pub(super) columns: Vec<Arc<str>>,
    pub(super) before: Vec<Arc<str>>,
    pub(super) whole: WholeValue,
}

// === impl LeftOut ===

impl LeftOut {
    /// What a record of these rows leaves out, if it does.
    pub(super) fn of(
        template: &Template,
        table: &Table,
        meta: &Meta<'_>,
        before: Before<'_>,
        after: Option<&Row>,
    ) -> Result<Option<Box<Self>>, EnvelopeError> {
        let old = match before {
            Before::Full(row) => Some(row),
            Before::Key(_) | Before::None => None,
        };
        if ![old, after].into_iter().flatten().any(Row::has_large) {
            return Ok(None);
        }
        let names = |row: Option<&Row>| row.map(|row| large_names(&table.relation, row));
        Ok(Some(Box::new(Self {
            columns: names(after).unwrap_or_default(),
            before: names(old).unwrap_or_default(),
            whole: WholeValue::new(
                template,
                (&table.relation, table.version().schema),
                meta,
                before,
                after,
            )?,
        })))
    }
}
