//! The columns that identify a row.

use std::collections::HashMap;

use walferry_schema::{Column, TableName};

/// The key's columns of each table, as they were recorded when its generation began.
pub(crate) type Keys = HashMap<TableName, Vec<String>>;

/// Numbers the key's columns in key order, from 1.
///
/// # Errors
/// The key's column that is not there.
pub(crate) fn number<'a>(columns: &mut [Column], key: &'a [String]) -> Result<(), &'a str> {
    for (place, name) in (1..).zip(key) {
        let column = columns.iter_mut().find(|column| *column.name == **name);
        column.ok_or(name.as_str())?.key = place;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use walferry_schema::Type;

    #[test]
    fn columns_are_numbered_in_key_order() {
        let column = |name: &str| Column {
            name: name.into(),
            type_name: "int4".into(),
            kind: Type::Int4,
            key: 0,
        };
        let mut columns = [column("b"), column("v"), column("a")];
        number(&mut columns, &["a".to_owned(), "b".to_owned()]).unwrap();
        assert_eq!(columns.each_ref().map(|column| column.key), [2, 0, 1]);
        assert_eq!(number(&mut columns, &["c".to_owned()]), Err("c"));
    }
}
