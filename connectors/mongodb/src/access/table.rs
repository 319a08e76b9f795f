//! A table's columns as its documents have them: what a filter compares, what joins, what is shown.
//!
//! - A value is compared as the documents hold it: it is read as PostgreSQL's text of the column's type.
//! - A column whose documents do not hold all of a value, or hold it in several forms, is not compared.

use std::collections::BTreeMap;

use bson::Bson;
use walferry_schema::{Column, TableName, Type};

use super::literal::{has_fraction, is_whole};
use super::{Condition, Fields, Join, Literal, Mask, Masked, ShownId, Unfit};
use crate::bson_value::{has_microseconds, microseconds_name};
use crate::document::field_name;
use crate::{Microseconds, Policies};

/// A table's columns, and how their values become BSON.
#[derive(Clone, Copy, Debug)]
pub struct TableFields<'a> {
    /// The table.
    pub name: &'a TableName,
    /// Its columns as documents have them.
    pub columns: &'a [Column],
    /// What becomes of values without an exact form.
    pub policies: Policies,
}

/// Types whose values are equal in BSON where they are in PostgreSQL.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparable {
    Bool,
    Number,
    Text,
    Uuid,
    Date,
}

// === impl TableFields ===

impl TableFields<'_> {
    /// The condition that a column has one of some values.
    ///
    /// # Errors
    /// When there is no such column, or it cannot have a value, or cannot be compared.
    pub fn condition(&self, column: &str, values: &[Literal]) -> Result<Condition, Unfit> {
        let column = self.column(column)?;
        self.comparable(column)?;
        let values = values.iter().map(|it| self.value(column, it));
        Ok(Condition {
            field: field_name(&column.name).into_owned(),
            values: values.collect::<Result<_, _>>()?,
        })
    }

    /// What makes a row of this table the parent of another's, or of a collection's that is no table's: `by` names each
    /// column of the other with ours.
    ///
    /// # Errors
    /// When a column is not there, or a pair cannot be compared.
    pub fn parent_of(
        &self,
        child: Option<&TableFields<'_>>,
        by: &BTreeMap<String, String>,
    ) -> Result<Vec<Join>, Unfit> {
        for (own, parents) in by {
            self.check_pair(child, own, parents)?;
        }
        // Of what is no table's, `_id` is a field like others.
        let name_of = |own: &str| match child {
            Some(_) => field_name(own).into_owned(),
            None => own.to_owned(),
        };
        let own_of = |column: &Column| {
            let pair = by.iter().find(|(_, parents)| **parents == *column.name);
            pair.map(|(own, _)| name_of(own))
        };
        let key = self.key();
        let of_key: Option<Vec<_>> = key.iter().map(|it| own_of(it)).collect();
        let of_key = of_key.filter(|own| own.len() == by.len() && !own.is_empty());
        // `_id` has an index; what it stands for is the columns, whichever of them are the key by now.
        let by_id = of_key.map(|own| id_join(&key, own));
        let fields = by.iter().map(|(own, parents)| Join::Field {
            own: name_of(own),
            parents: field_name(parents).into_owned(),
        });
        Ok(by_id.into_iter().chain(fields).collect())
    }

    /// What is shown of a row: all, or the columns that are listed; with masks and without a list, the columns that there
    /// are now. `_id` is shown when all of the key is, made of its columns, and masked as these are.
    ///
    /// # Errors
    /// When a column is not there.
    pub fn fields(
        &self,
        listed: Option<&[String]>,
        masks: &BTreeMap<String, Mask>,
    ) -> Result<Fields, Unfit> {
        for column in listed.unwrap_or_default().iter().chain(masks.keys()) {
            self.column(column)?;
        }
        if listed.is_none() && masks.is_empty() {
            return Ok(Fields::All);
        }
        let is_shown =
            |column: &Column| listed.is_none_or(|it| it.iter().any(|it| **it == *column.name));
        let mask = |column: &Column| masks.get(&*column.name).copied();
        let (mut fields, mut masked) = (Vec::new(), Vec::new());
        for column in self.columns.iter().filter(|it| is_shown(it)) {
            let field = field_name(&column.name).into_owned();
            match mask(column) {
                Some(mask) => masked.push(Masked {
                    path: field.clone(),
                    field: field.clone(),
                    mask,
                }),
                None if self.keeps_microseconds(column) => fields.push(microseconds_name(&field)),
                None => {}
            }
            fields.push(field);
        }
        let key = self.key();
        let is_whole = !key.is_empty() && key.iter().all(|it| is_shown(it));
        let id = if is_whole {
            let of_key = key.iter().filter_map(|it| Some((*it, mask(it)?)));
            masked.extend(of_key.map(|(column, mask)| masked_id(&key, column, mask)));
            let names = key.iter().map(|it| field_name(&it.name).into_owned());
            ShownId::Of(names.collect())
        } else {
            ShownId::Hidden
        };
        Ok(Fields::Listed { id, fields, masked })
    }

    fn check_pair(
        &self,
        child: Option<&TableFields<'_>>,
        own: &str,
        parents: &str,
    ) -> Result<(), Unfit> {
        let comparable = self.comparable(self.column(parents)?)?;
        let Some(child) = child else { return Ok(()) };
        if child.comparable(child.column(own)?)? == comparable {
            return Ok(());
        }
        Err(Unfit::NoPair {
            own: format!("{own} of {}", child.name),
            parents: format!("{parents} of {}", self.name),
        })
    }

    fn column(&self, name: &str) -> Result<&Column, Unfit> {
        let found = self.columns.iter().find(|column| *column.name == *name);
        found.ok_or_else(|| {
            let known: Vec<_> = self.columns.iter().map(|it| &*it.name).collect();
            Unfit::NoColumn {
                table: self.name.clone(),
                column: name.to_owned(),
                known: known.join(", "),
            }
        })
    }

    /// The columns of the key, in its order.
    fn key(&self) -> Vec<&Column> {
        let mut key: Vec<_> = self.columns.iter().filter(|it| it.key > 0).collect();
        key.sort_by_key(|column| column.key);
        key
    }

    fn keeps_microseconds(&self, column: &Column) -> bool {
        self.policies.microseconds == Microseconds::Keep && has_microseconds(column)
    }

    fn comparable(&self, column: &Column) -> Result<Comparable, Unfit> {
        Ok(match &column.kind {
            Type::Bool => Comparable::Bool,
            kind if is_whole(kind) || has_fraction(kind) => Comparable::Number,
            Type::Text => Comparable::Text,
            Type::Uuid => Comparable::Uuid,
            Type::Date => Comparable::Date,
            _ => {
                return Err(Unfit::NotComparable {
                    table: self.name.clone(),
                    column: column.name.to_string(),
                    type_name: column.type_name.to_string(),
                });
            }
        })
    }

    /// A value as the documents hold it.
    fn value(&self, column: &Column, literal: &Literal) -> Result<Bson, Unfit> {
        literal
            .of(column, self.policies)
            .ok_or_else(|| Unfit::NotOfType {
                table: self.name.clone(),
                column: column.name.to_string(),
                type_name: column.type_name.to_string(),
                value: literal.to_string(),
            })
    }
}

/// What makes rows of ours have a parent's key: its columns, and ours for each.
fn id_join(key: &[&Column], own: Vec<String>) -> Join {
    let [_] = key else {
        let names = key.iter().map(|it| field_name(&it.name).into_owned());
        return Join::Id(names.zip(own).collect());
    };
    Join::Field {
        own: own.concat(),
        parents: "_id".to_owned(),
    }
}

fn masked_id(key: &[&Column], column: &Column, mask: Mask) -> Masked {
    let field = field_name(&column.name).into_owned();
    let path = match key {
        [_] => "_id".to_owned(),
        _ => format!("_id.{field}"),
    };
    Masked { path, field, mask }
}

#[cfg(test)]
mod tests;
