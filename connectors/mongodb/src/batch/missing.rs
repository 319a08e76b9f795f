//! What of a row stands elsewhere, because it is too large to go with it.
//!
//! - Of a field only the newest value is missing: one that comes later replaces it.

use std::sync::Arc;

use walferry_core::Target;
use walferry_schema::{Cell, Column, Image, Large, Oversize, Position, Row};

use super::fields;
use crate::Policies;
use crate::document::field_name;

/// What of a row stands elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Missing {
    /// The names of all fields of the document, in order.
    pub(crate) order: Vec<String>,
    /// By the changes that brought them, the oldest first.
    pub(crate) places: Vec<Elsewhere>,
}

/// Fields that one change could not carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Elsewhere {
    /// Their names.
    pub(crate) fields: Vec<String>,
    /// The change.
    pub(crate) position: Position,
    /// How many bytes its record has; of texts that are kept, these.
    pub(crate) bytes: u64,
    /// Where they stand and why, for people.
    pub(crate) reference: String,
    /// What is kept beside the dead letter; nothing where the record stands on the dead-letter topic.
    pub(crate) texts: Vec<Text>,
}

/// A value as PostgreSQL's text, which is kept beside the dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) column: Column,
    pub(crate) bytes: u64,
    /// Where it is read until it is kept: the row, and its place there.
    source: Option<(Arc<Row>, usize)>,
}

// === impl Missing ===

impl Missing {
    /// What the row of an event lacks.
    pub(crate) fn of(
        target: &Target<'_>,
        oversize: &Oversize,
        image: &Image<'_>,
        policies: Policies,
    ) -> Self {
        let names = oversize.columns.iter();
        let texts = target.whole.map_or_else(Vec::new, |row| texts(row, image));
        let reference = if texts.is_empty() {
            oversize.place()
        } else {
            format!("_walferry.dead_letter_parts: {}", oversize.error)
        };
        let place = Elsewhere {
            fields: names.map(|it| field_name(it).into_owned()).collect(),
            position: target.position,
            bytes: oversize.bytes,
            reference,
            texts,
        };
        Self {
            order: fields(image, policies),
            places: vec![place],
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The names of the fields.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        let fields = self.places.iter().flat_map(|place| &place.fields);
        fields.map(String::as_str)
    }

    /// Where they stand and why, for people.
    pub(crate) fn reference(&self) -> String {
        let references: Vec<_> = self.places.iter().map(|it| &*it.reference).collect();
        references.join(", ")
    }

    /// Why the change is parked.
    pub(crate) fn reason(&self) -> String {
        format!("it is too large for the log: {}", self.reference())
    }

    /// What is missing when more is.
    pub(crate) fn and(mut self, more: Self) -> Self {
        self.bring(|field| more.fields().any(|it| it == field));
        self.places.extend(more.places);
        self.order = more.order;
        self
    }

    /// Forgets the fields that came.
    pub(crate) fn bring(&mut self, came: impl Fn(&str) -> bool) {
        for place in &mut self.places {
            place.fields.retain(|field| !came(field));
            let Elsewhere { fields, texts, .. } = place;
            texts.retain(|text| fields.contains(&text.field()));
        }
        self.places.retain(|place| !place.fields.is_empty());
    }

    /// What has to be kept before the letter.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &Text> {
        self.places.iter().flat_map(|place| &place.texts)
    }

    /// How many bytes of texts are on their way.
    pub(crate) fn bytes(&self) -> usize {
        let bytes = self.texts().map(|text| text.bytes).sum::<u64>();
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
}

// === impl Text ===

impl Text {
    /// One that is kept.
    pub(crate) fn kept(column: Column, bytes: u64) -> Self {
        let source = None;
        Self {
            column,
            bytes,
            source,
        }
    }

    /// The field that it becomes.
    pub(crate) fn field(&self) -> String {
        field_name(&self.column.name).into_owned()
    }

    /// Where it is read; none once it is kept.
    pub(crate) fn large(&self) -> Option<Large<'_>> {
        let (row, at) = self.source.as_ref()?;
        match row.cell(*at) {
            Cell::Large(large) => Some(large),
            _ => None,
        }
    }
}

/// The values that a row was too large with.
fn texts(row: &Row, image: &Image<'_>) -> Vec<Text> {
    let row = Arc::new(row.clone());
    let columns = image.columns.iter().enumerate();
    let text = |(at, column): (usize, &Column)| match row.cell(at) {
        Cell::Large(large) => Some(Text {
            column: column.clone(),
            bytes: large.bytes(),
            source: Some((row.clone(), at)),
        }),
        _ => None,
    };
    columns.filter_map(text).collect()
}
