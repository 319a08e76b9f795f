//! What a pipeline reads beside its input: the collections that its stages name.

use bson::{Bson, Document};

use super::Place;
use super::json::{Member, Node, Value};
use super::mistake::Flaw;

/// The stages that read another collection, and the field that names it.
const STAGES: [(&str, &str); 3] = [
    ("$lookup", "from"),
    ("$graphLookup", "from"),
    ("$unionWith", "coll"),
];

/// A collection or view that a rule reads, with the place where it says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// Where.
    pub place: Place,
}

/// The sources that are named somewhere below a node.
pub(super) fn below(node: &Node, found: &mut Vec<Source>, flaws: &mut Vec<Flaw>) {
    match &node.value {
        Value::List(items) => items.iter().for_each(|it| below(it, found, flaws)),
        Value::Object(members) => {
            for member in members {
                match named_by(member) {
                    Some(Ok(source)) => found.push(source),
                    Some(Err(flaw)) => flaws.push(flaw),
                    None => {}
                }
                below(&member.value, found, flaws);
            }
        }
        _ => {}
    }
}

fn named_by(member: &Member) -> Option<Result<Source, Flaw>> {
    let (stage, field) = STAGES.iter().find(|(stage, _)| *stage == member.name)?;
    // `$unionWith` takes the name alone too.
    let named = if member.value.text().is_some() {
        &member.value
    } else {
        member.value.member(field)?
    };
    let place = named.place;
    let source = named.text().map(|name| Source {
        name: name.to_owned(),
        place,
    });
    Some(source.ok_or_else(|| {
        let message = format!("{field} of {stage} must be a collection's name in quotes");
        Flaw::new(place, message)
    }))
}

/// Gives the source that an element of a document names another name, where there is one for it.
pub(super) fn rename(element: &str, value: &mut Bson, rename: impl Fn(&str) -> Option<String>) {
    let Some((_, field)) = STAGES.iter().find(|(stage, _)| *stage == element) else {
        return;
    };
    let name = match value {
        Bson::Document(document) => text_of(document, field),
        Bson::String(name) => Some(name),
        _ => None,
    };
    if let Some(name) = name
        && let Some(other) = rename(name)
    {
        *name = other;
    }
}

fn text_of<'a>(document: &'a mut Document, field: &str) -> Option<&'a mut String> {
    match document.get_mut(field) {
        Some(Bson::String(text)) => Some(text),
        _ => None,
    }
}
