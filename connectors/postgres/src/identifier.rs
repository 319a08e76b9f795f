//! Names and texts inside SQL.

use walferry_schema::TableName;

/// An identifier, quoted: any name, with any characters.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string constant for a replication command, where a backslash is an ordinary character.
pub(crate) fn replication_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A table's qualified name, quoted.
pub fn table(name: &TableName) -> String {
    format!("{}.{}", quoted(&name.schema), quoted(&name.table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_doubled_and_everything_else_is_kept() {
        assert_eq!(quoted("plain"), "\"plain\"");
        assert_eq!(quoted("a\"b\\c é"), "\"a\"\"b\\c é\"");
        assert_eq!(replication_literal("it's \\"), "'it''s \\'");
        assert_eq!(table(&TableName::new("s.1", "t\"")), "\"s.1\".\"t\"\"\"");
    }
}
