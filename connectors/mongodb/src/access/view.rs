//! What a role sees of a collection, as the pipeline of a view: pure.
//!
//! - A document that a condition cannot be asked about is not shown: one without the field, with null or an array in it.
//! - A null is equal to no parent's null, as in SQL.
//! - What a reader asks is never asked of documents that are not shown: its errors would tell of them.
//! - Where fields are listed, no other is shown, `_id` included.

use std::collections::BTreeMap;

use bson::{Bson, Document, RawDocumentBuf, doc};

use super::{Literal, Mask};
use crate::{ExtendedJson, Query};

/// More documents than there are. The server moves a reader's conditions in front of a view's own where the answer is the
/// same, but never in front of this.
const ALL: i64 = i64::MAX >> 1;
/// Where a row and its parents stand while these are looked for: beside one another, whatever the row's fields are called.
const ROW: &str = "row";
const PARENTS: &str = "parents";

/// What is shown of a collection.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// The collection or view.
    pub collection: String,
    /// Which of its documents.
    pub rows: Rows,
    /// What of each.
    pub fields: Fields,
}

/// Which documents of a collection are meant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// Each of them holds.
    pub conditions: Vec<Condition>,
    /// What another collection has to hold for each document.
    pub parent: Option<Box<Parent>>,
}

/// A field that has one of some values.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// The field, of the document itself.
    pub field: String,
    /// The values; none of them null.
    pub values: Vec<Bson>,
}

/// A document that has to be in another collection.
#[derive(Clone, Debug, PartialEq)]
pub struct Parent {
    /// The other collection.
    pub collection: String,
    /// What is equal in both; all of it.
    pub joins: Vec<Join>,
    /// Which of its documents count.
    pub rows: Rows,
}

/// What is equal in a document and its parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Join {
    /// A field of each.
    Field {
        /// The document's.
        own: String,
        /// The parent's.
        parents: String,
    },
    /// The parent's `_id`, a document itself: the names of its parts in their order, and which field of ours each is.
    Id(Vec<(String, String)>),
}

/// What of a document is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fields {
    /// All that it has.
    #[default]
    All,
    /// Some of it.
    Listed {
        /// What is shown as `_id`.
        id: ShownId,
        /// The other fields.
        fields: Vec<String>,
        /// What stands for what is hidden.
        masked: Vec<Masked>,
    },
}

/// What is shown as `_id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShownId {
    /// Nothing.
    Hidden,
    /// What stands there.
    Stored,
    /// These fields of the document, which are its key: whatever stands in `_id`, nothing else of it is shown.
    Of(Vec<String>),
}

/// A value with another in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masked {
    /// Where it stands: a field, `_id` or a part of that.
    pub path: String,
    /// The field with the same value, which the mask is made of.
    pub field: String,
    /// What is shown of it.
    pub mask: Mask,
}

// === impl Shown ===

impl Shown {
    /// The view's definition.
    pub fn query(&self) -> Query {
        let mut pipeline = self.rows.stages();
        if !pipeline.is_empty() {
            pipeline.push(doc! { "$limit": ALL });
        }
        pipeline.extend(self.fields.stages());
        Query {
            collection: self.collection.clone(),
            pipeline,
        }
    }
}

// === impl Query ===

impl Query {
    /// The pipeline's stages, for people.
    pub fn stages(&self) -> Vec<ExtendedJson> {
        let stages = self.pipeline.iter();
        let encoded = stages.filter_map(|it| RawDocumentBuf::try_from(it).ok());
        encoded
            .map(|it| ExtendedJson::new(it.into_bytes()))
            .collect()
    }
}

// === impl Rows ===

impl Rows {
    fn stages(&self) -> Vec<Document> {
        let mut stages = Vec::new();
        let all: Document = self.conditions.iter().map(Condition::asked).collect();
        if !all.is_empty() {
            stages.push(doc! { "$match": all });
        }
        if let Some(parent) = &self.parent {
            stages.extend(parent.stages());
        }
        stages
    }
}

// === impl Condition ===

impl Condition {
    /// Of a field that no catalog knows.
    pub fn of_field(field: &str, values: &[Literal]) -> Self {
        Self {
            field: field.to_owned(),
            values: values.iter().map(Literal::bson).collect(),
        }
    }

    fn asked(&self) -> (String, Bson) {
        // Of an array any element would do.
        let asked = doc! { "$in": &self.values, "$not": { "$type": "array" } };
        (self.field.clone(), asked.into())
    }
}

// === impl Parent ===

impl Parent {
    fn stages(&self) -> [Document; 4] {
        let mut variables = Document::new();
        let mut equal = Vec::new();
        for (place, join) in self.joins.iter().enumerate() {
            let (variable, parents) = (format!("k{place}"), join.parents());
            equal.push(doc! { "$eq": [&parents, format!("$${variable}")] });
            equal.push(doc! { "$gt": [parents, Bson::Null] });
            variables.insert(variable, join.own());
        }
        let mut found = vec![doc! { "$match": { "$expr": { "$and": equal } } }];
        found.extend(self.rows.stages());
        found.extend([doc! { "$limit": 1 }, doc! { "$project": { "_id": 1 } }]);
        let lookup = doc! {
            "from": &self.collection,
            "let": variables,
            "pipeline": found,
            "as": PARENTS,
        };
        [
            doc! { "$replaceWith": { ROW: "$$ROOT" } },
            doc! { "$lookup": lookup },
            doc! { "$match": { PARENTS: { "$ne": [] } } },
            doc! { "$replaceWith": format!("${ROW}") },
        ]
    }
}

// === impl Join ===

impl Join {
    fn own(&self) -> Bson {
        let of_row = |field: &str| Bson::from(format!("${ROW}.{field}"));
        match self {
            Self::Field { own, .. } => of_row(own),
            Self::Id(parts) => {
                let part = |(name, own): &(String, String)| (name.clone(), of_row(own));
                parts.iter().map(part).collect::<Document>().into()
            }
        }
    }

    fn parents(&self) -> String {
        match self {
            Self::Field { parents, .. } => format!("${parents}"),
            Self::Id(_) => "$_id".to_owned(),
        }
    }
}

// === impl Fields ===

impl Fields {
    /// These of a collection that is no table's; `_id` is one like others.
    pub fn of_collection(listed: &[String], masks: &BTreeMap<String, Mask>) -> Self {
        let masked = masks.iter().map(|(field, mask)| Masked {
            path: field.clone(),
            field: field.clone(),
            mask: *mask,
        });
        let fields = listed.iter().filter(|it| *it != "_id");
        Self::Listed {
            id: if listed.iter().any(|it| it == "_id") {
                ShownId::Stored
            } else {
                ShownId::Hidden
            },
            fields: fields.cloned().collect(),
            masked: masked.collect(),
        }
    }

    fn stages(&self) -> Vec<Document> {
        let Self::Listed { id, fields, masked } = self else {
            return Vec::new();
        };
        let mut listed = doc! { "_id": id.shown() };
        listed.extend(fields.iter().map(|field| (field.clone(), 1.into())));
        let mut stages = vec![doc! { "$project": listed }];
        let masks = masked
            .iter()
            .map(|it| (it.path.clone(), it.mask.of(&it.field)));
        let masks: Document = masks.collect();
        if !masks.is_empty() {
            stages.push(doc! { "$set": masks });
        }
        stages
    }
}

// === impl ShownId ===

impl ShownId {
    fn shown(&self) -> Bson {
        let value = |field: &String| format!("${field}");
        match self {
            Self::Hidden => 0.into(),
            Self::Stored => 1.into(),
            Self::Of(fields) => match &fields[..] {
                [one] => value(one).into(),
                several => {
                    let parts = several.iter().map(|it| (it.clone(), value(it).into()));
                    parts.collect::<Document>().into()
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_store(store: i32) -> Rows {
        let condition = Condition {
            field: "store_id".into(),
            values: vec![store.into()],
        };
        Rows {
            conditions: vec![condition],
            parent: None,
        }
    }

    fn names(stages: &[Document]) -> Vec<&str> {
        let names = stages.iter().flat_map(Document::keys);
        names.map(String::as_str).collect()
    }

    fn shown(rows: Rows, fields: Fields) -> Vec<Document> {
        let shown = Shown {
            collection: "c".into(),
            rows,
            fields,
        };
        shown.query().pipeline
    }

    #[test]
    fn all_of_a_collection_is_a_view_without_a_stage() {
        assert!(shown(Rows::default(), Fields::All).is_empty());
    }

    #[test]
    fn what_a_reader_asks_stays_behind_what_the_view_asks() {
        let stages = shown(of_store(1), Fields::All);
        let asked = doc! { "store_id": { "$in": [1], "$not": { "$type": "array" } } };
        assert_eq!(stages, [doc! { "$match": asked }, doc! { "$limit": ALL }]);
    }

    #[test]
    fn a_parent_is_asked_as_the_view_of_it_would_be() {
        let join = Join::Field {
            own: "transaction_id".into(),
            parents: "_id".into(),
        };
        let parent = Parent {
            collection: "transactions".into(),
            joins: vec![join],
            rows: of_store(1),
        };
        let rows = Rows {
            conditions: Vec::new(),
            parent: Some(parent.into()),
        };
        let stages = shown(rows, Fields::All);
        let expected = [
            "$replaceWith",
            "$lookup",
            "$match",
            "$replaceWith",
            "$limit",
        ];
        assert_eq!(names(&stages), expected);
        let lookup = stages[1].get_document("$lookup").unwrap();
        let own = lookup.get_document("let").unwrap();
        assert_eq!(*own, doc! { "k0": "$row.transaction_id" });
        let found = lookup.get_array("pipeline").unwrap();
        let found: Vec<_> = found.iter().map(|it| it.as_document().unwrap()).collect();
        let equal = vec![
            doc! { "$eq": ["$_id", "$$k0"] },
            doc! { "$gt": ["$_id", Bson::Null] },
        ];
        assert_eq!(*found[0], doc! { "$match": { "$expr": { "$and": equal } } });
        assert_eq!(found[1], &of_store(1).stages()[0]);
    }

    #[test]
    fn an_id_of_several_parts_has_them_in_its_own_order() {
        let parts = [("b", "mine"), ("a", "yours")];
        let parts = parts.map(|(name, own)| (name.to_owned(), own.to_owned()));
        let join = Join::Id(parts.into());
        let own = join.own();
        let own = own.as_document().unwrap();
        assert_eq!(own.keys().collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(own.get_str("b").unwrap(), "$row.mine");
    }

    #[test]
    fn listed_fields_are_shown_before_masks_are_put_on() {
        let masked = Masked {
            path: "_id".into(),
            field: "id".into(),
            mask: Mask::Redact,
        };
        let fields = Fields::Listed {
            id: ShownId::Of(vec!["id".into()]),
            fields: vec!["id".into(), "name".into()],
            masked: vec![masked],
        };
        let stages = shown(Rows::default(), fields);
        assert_eq!(names(&stages), ["$project", "$set"]);
        assert_eq!(
            stages[0],
            doc! { "$project": { "_id": "$id", "id": 1, "name": 1 } }
        );
    }
}
