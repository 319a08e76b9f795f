//! Which collection holds which table.
//!
//! - Two tables never share a collection, a table never has another's staging collection.

use walferry_schema::TableName;

use crate::{Error, Result};

/// The schema whose tables need no prefix.
const PUBLIC: &str = "public";
/// The end of a batch load's staging collection.
const LOAD: &str = "load";
/// A namespace has at most 255 bytes; this leaves room for the database and a staging suffix.
const MAX_NAME_BYTES: usize = 200;

/// Names collections after tables: `public.t` is `t`, `other.t` is `other.t`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Naming;

// === impl Naming ===

impl Naming {
    /// The collection of a table.
    ///
    /// # Errors
    /// When MongoDB would refuse the name.
    pub fn collection(self, table: &TableName) -> Result<String> {
        let name = if &*table.schema == PUBLIC {
            table.table.to_string()
        } else {
            table.to_string()
        };
        let is_valid = !name.starts_with("system.")
            && !name.starts_with('.')
            && !name.contains(['$', '\0'])
            && !name.is_empty()
            && name.len() <= MAX_NAME_BYTES;
        is_valid
            .then_some(name)
            .ok_or_else(|| Error::CollectionName {
                table: table.clone(),
            })
    }

    /// The collection that a generation's snapshot of a table is collected in.
    ///
    /// # Errors
    /// As [`collection`](Self::collection).
    pub fn staging(self, table: &TableName, generation: u64) -> Result<String> {
        Ok(format!("{}.{generation}", self.collection(table)?))
    }

    /// The collection that a batch load of a table is collected in.
    ///
    /// # Errors
    /// As [`collection`](Self::collection).
    pub fn load(self, table: &TableName) -> Result<String> {
        Ok(format!("{}.{LOAD}", self.collection(table)?))
    }

    /// Checks that these tables do not get into each other's way.
    ///
    /// # Errors
    /// When two of them share a collection, or one has a name like another's staging collection.
    pub fn check<'a>(self, tables: impl IntoIterator<Item = &'a TableName>) -> Result<()> {
        let mut taken = std::collections::HashMap::new();
        for table in tables {
            let collection = self.collection(table)?;
            if let Some(first) = taken.insert(collection.clone(), table)
                && first != table
            {
                return Err(clash(first, table, collection));
            }
        }
        for (collection, table) in &taken {
            if let Some(owner) = staging_owner(collection)
                && let Some(first) = taken.get(owner)
            {
                return Err(clash(first, table, collection.clone()));
            }
        }
        Ok(())
    }
}

/// The collection that would use `name` for staging.
fn staging_owner(name: &str) -> Option<&str> {
    let (owner, suffix) = name.rsplit_once('.')?;
    (suffix == LOAD || suffix.parse::<u64>().is_ok()).then_some(owner)
}

fn clash(first: &TableName, second: &TableName, collection: String) -> Error {
    Error::CollectionClash {
        first: first.clone(),
        second: second.clone(),
        collection,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(schema: &str, table: &str) -> TableName {
        TableName::new(schema, table)
    }

    #[test]
    fn tables_of_the_public_schema_need_no_prefix() {
        let name = |schema, name| Naming.collection(&table(schema, name)).unwrap();
        assert_eq!(name("public", "t"), "t");
        assert_eq!(name("retail", "t"), "retail.t");
        assert_eq!(Naming.staging(&table("public", "t"), 7).unwrap(), "t.7");
    }

    #[test]
    fn names_that_mongodb_refuses_are_refused() {
        let long = "x".repeat(201);
        for (schema, name) in [("system", "t"), ("public", "a$b"), ("public", &long)] {
            let refused = Naming.collection(&table(schema, name));
            assert!(
                matches!(refused, Err(Error::CollectionName { .. })),
                "{name}"
            );
        }
    }

    #[test]
    fn two_tables_never_share_a_collection_or_a_staging_collection() {
        let check = |tables: &[TableName]| Naming.check(tables);
        assert!(check(&[table("public", "t"), table("a", "t"), table("public", "t")]).is_ok());
        for (first, second) in [("a.t", "t"), ("a", "7"), ("a", "load")] {
            let tables = [table("public", first), table("a", second)];
            assert!(
                matches!(check(&tables), Err(Error::CollectionClash { .. })),
                "{first}"
            );
        }
    }
}
