//! What the catalog says of a column beyond how its values are read.

/// A column as it was declared, for those who describe a table's records to others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// The column's name.
    pub name: String,
    /// The type's name without schema and modifier: `varchar`, `_varchar`, that of a domain itself.
    pub type_name: String,
    /// The same of what its values are made of: of a domain its base type, of an array its elements.
    pub base: String,
    /// Whether NULL is refused.
    pub is_required: bool,
    /// The expression of its default, as PostgreSQL writes it: `'ok'::inv.mood`.
    pub default: Option<String>,
    /// The labels of an enum, in order; those of the elements of an array.
    pub labels: Vec<String>,
}
