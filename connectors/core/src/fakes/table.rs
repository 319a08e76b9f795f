//! The tables of the fakes: an integer key `id`, a text `v`.

use std::sync::Arc;

use walferry_schema::{
    Column, Field, Image, Relation, ReplicaIdentity, Row, RowBuilder, TableName, TableSpec, Type,
    Value,
};

use super::Document;

/// System identifier of a new [`super::FakeServer`].
pub const SERVER_ID: &str = "7312";

/// The relation of a table in schema `public`.
pub fn table(name: &str) -> Arc<Relation> {
    let column = |name: &str, type_name: &str, key| Column {
        name: name.into(),
        type_name: type_name.into(),
        kind: Type::from_name(type_name),
        key,
    };
    Arc::new(Relation {
        oid: name
            .bytes()
            .fold(1, |oid, byte| oid * 31 % 65_521 + u32::from(byte)),
        name: TableName::new("public", name),
        identity: ReplicaIdentity::Default,
        columns: [column("id", "int4", 1), column("v", "text", 0)].into(),
    })
}

/// The entry of a table in a generation's list.
pub fn table_spec(prefix: &str, name: &str, partitions: i32) -> TableSpec {
    TableSpec {
        oid: table(name).oid,
        name: TableName::new("public", name),
        key: vec!["id".into()],
        topic: format!("{prefix}.public.{name}").into(),
        partitions,
    }
}

/// A row; without a value its text is an unchanged TOAST value.
pub(super) fn row(id: i32, value: Option<&str>) -> Row {
    let id = id.to_string();
    let mut row = RowBuilder::with_capacity(2);
    row.text(0, id.len());
    match value {
        Some(value) => row.text(id.len(), value.len()),
        None => row.unchanged(),
    }
    row.build((id + value.unwrap_or_default()).into())
}

/// The key and the columns of an image, absent ones left out.
pub(super) fn document_of(image: &Image<'_>) -> (String, Document) {
    let text = |index: usize| match &image.fields[index] {
        Field::Absent => None,
        Field::Present(Value::Int4(number)) => Some(number.to_string()),
        Field::Present(Value::Text(text)) => Some(text.to_string()),
        Field::Present(Value::Null) => Some("null".into()),
        Field::Present(other) => Some(format!("{other:?}")),
    };
    let key: Vec<String> = image.key_columns().into_iter().filter_map(text).collect();
    let columns = image.columns.iter().enumerate();
    let document = columns.filter_map(|(i, column)| Some((column.name.to_string(), text(i)?)));
    (key.join("/"), document.collect())
}
