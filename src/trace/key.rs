//! A row's key, as its user writes it, in the forms of the record and of the document.

use serde_json::Value as Json;
use walferry_core::Tasks;
use walferry_etl::{Candidate, Mode, PlanError};
use walferry_schema::{Field, Image, Modes, Relation, Row, SchemaMode, TableName, Value, envelope};

use super::TraceError;
use crate::config::Config;
use crate::snapshot::Preparation;

/// The key of one row.
#[derive(Clone, Debug)]
pub(super) struct Key {
    relation: Relation,
    /// By column; none outside the key.
    texts: Vec<Option<String>>,
    modes: Modes,
}

// === impl Key ===

impl Key {
    /// A streamed table's key of these values, which the catalog is asked for.
    pub(super) async fn of(
        config: &Config,
        name: &str,
        values: &[String],
        tasks: &Tasks,
    ) -> Result<Self, TraceError> {
        let mut preparation = Box::pin(Preparation::begin(config, tasks)).await?;
        let candidates = preparation.candidates();
        let found = Candidate::find(&candidates, name);
        let table = found.map_err(|refusal| PlanError(vec![refusal]))?;
        if config.tables.mode(&table.name) != Mode::Stream {
            return Err(TraceError::NotStreamed(table.name.clone()));
        }
        let described = Box::pin(preparation.describe(&table.name, true)).await?;
        let modes = config.kafka.as_ref().map(|kafka| kafka.records.modes);
        let relation = described.relation().as_ref().clone();
        Self::new(relation, modes.unwrap_or_default(), values)
    }

    fn new(relation: Relation, modes: Modes, values: &[String]) -> Result<Self, TraceError> {
        let key = relation.key_columns();
        let columns = || key.iter().map(|&it| relation.columns[it].name.to_string());
        let values = match values {
            [one] => match serde_json::from_str(one) {
                Ok(Json::Object(members)) => {
                    let value = |name: String| match members.get(&name) {
                        Some(value) => Ok(text(value)),
                        None => Err(TraceError::KeyColumn {
                            table: relation.name.clone(),
                            columns: columns().collect(),
                            missing: name,
                        }),
                    };
                    columns().map(value).collect::<Result<_, _>>()?
                }
                Ok(Json::Array(values)) => values.iter().map(text).collect(),
                _ => vec![one.clone()],
            },
            several => several.to_vec(),
        };
        if values.len() != key.len() {
            return Err(TraceError::KeyLength {
                columns: columns().collect(),
                found: values.len(),
                table: relation.name,
            });
        }
        let mut texts = vec![None; relation.columns.len()];
        for (&index, value) in key.iter().zip(values) {
            let column = &relation.columns[index];
            if Value::from_text(&column.kind, value.as_bytes()).is_err() {
                return Err(TraceError::KeyValue {
                    table: relation.name.clone(),
                    column: column.name.to_string(),
                    type_name: column.type_name.to_string(),
                    value,
                });
            }
            texts[index] = Some(value);
        }
        Ok(Self {
            relation,
            texts,
            modes,
        })
    }

    pub(super) fn table(&self) -> &TableName {
        &self.relation.name
    }

    /// Whether the key stands beside its schema.
    pub(super) fn has_schema(&self) -> bool {
        self.modes.schemas != SchemaMode::None
    }

    /// The key of the row's records, as the configuration has them now, without its schema.
    pub(super) fn record_key(&self) -> Vec<u8> {
        let texts: Vec<_> = self.texts.iter().map(Option::as_deref).collect();
        let (mut key, row) = (Vec::new(), Row::from_texts(&texts));
        let written = envelope::write_key(&mut key, &self.relation, self.modes, &row);
        written.expect("the values fit their types");
        key
    }

    /// The row, of which only the key is known.
    pub(super) fn image(&self) -> Image<'_> {
        let columns = &self.relation.columns;
        let fields = columns.iter().zip(&self.texts);
        let fields = fields.map(|(column, text)| match text {
            Some(text) => Value::from_text(&column.kind, text.as_bytes())
                .map_or(Field::Absent, Field::Present),
            None => Field::Absent,
        });
        Image {
            columns,
            fields: fields.collect(),
        }
    }
}

/// A JSON value as PostgreSQL would write it.
fn text(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Bool(true) => "t".to_owned(),
        Json::Bool(false) => "f".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use walferry_schema::{Column, ReplicaIdentity, Type};

    use super::*;

    fn key(values: &[&str]) -> Result<Key, TraceError> {
        let column = |name: &str, type_name: &str, key| Column {
            name: name.into(),
            type_name: type_name.into(),
            kind: Type::from_name(type_name),
            key,
        };
        let relation = Relation {
            oid: 1,
            name: TableName::new("public", "inventory"),
            identity: ReplicaIdentity::Default,
            columns: [
                column("level", "int4", 0),
                column("product", "text", 2),
                column("store", "int4", 1),
            ]
            .into(),
        };
        let values: Vec<_> = values.iter().map(ToString::to_string).collect();
        Key::new(relation, Modes::default(), &values)
    }

    #[test]
    fn a_key_is_given_in_key_order_or_as_json() {
        let forms: [&[&str]; 3] = [
            &["5", "a b"],
            &[r#"[5, "a b"]"#],
            &[r#"{"product": "a b", "store": 5}"#],
        ];
        for form in forms {
            let key = key(form).unwrap();
            assert_eq!(
                key.record_key(),
                br#"{"store":5,"product":"a b"}"#,
                "{form:?}"
            );
            assert_eq!(key.image().fields[0], Field::Absent);
            assert_eq!(key.image().fields[2], Field::Present(Value::Int4(5)));
        }
    }

    #[test]
    fn a_key_that_does_not_fit_is_refused_by_name() {
        let refused = |values: &[&str]| key(values).unwrap_err().to_string();
        let key = "the key of public.inventory is (store, product): ";
        assert_eq!(refused(&["5"]), format!("{key}1 values do not fit it"));
        let part = refused(&[r#"{"store": 5}"#]);
        assert_eq!(part, format!("{key}the JSON does not say product"));
        let text = refused(&["five", "a"]);
        let expected =
            "public.inventory, column store: \"five\" is no int4, as PostgreSQL writes it";
        assert_eq!(text, expected);
    }
}
