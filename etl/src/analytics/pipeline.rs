//! The pipeline of a rule, with its parameters still open.
//!
//! - Each stage remembers where it stands, so that what the server says of it can be told with its place.

use std::collections::BTreeMap;

use bson::{Bson, Document};

use super::json::{Node, Value};
use super::mistake::Flaw;
use super::parameter::{PARAM, Values};
use super::{Place, Source, extended_json, source, stage};

/// Other names of collections and views, by the name that the rules use.
pub type Names = BTreeMap<String, String>;

/// A pipeline with its parameters still open.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pipeline {
    stages: Vec<Document>,
    places: Vec<Place>,
    sources: Vec<Source>,
}

/// A place where a parameter is used.
pub(super) struct Use {
    pub(super) name: String,
    pub(super) place: Place,
}

// === impl Pipeline ===

impl Pipeline {
    /// Reads the list of stages; where each parameter is used.
    pub(super) fn read(node: &Node, flaws: &mut Vec<Flaw>) -> (Self, Vec<Use>) {
        let mut uses = Vec::new();
        let Some(nodes) = node.items() else {
            let message = "pipeline must be a list of stages";
            flaws.push(Flaw::new(node.place, message));
            return (Self::default(), uses);
        };
        stage::check(nodes, flaws);
        stage::check_expressions(node, flaws);
        find_uses(node, &mut uses, flaws);
        let mut pipeline = Self::default();
        source::below(node, &mut pipeline.sources, flaws);
        for stage in nodes {
            match stage.members().map(extended_json::document) {
                Some(Ok(document)) => {
                    pipeline.stages.push(document);
                    pipeline.places.push(stage.place);
                }
                Some(Err(flaw)) => flaws.push(flaw),
                // Told above.
                None => {}
            }
        }
        (pipeline, uses)
    }

    /// The stages with these values of the parameters, reading other collections where they have other names.
    pub fn bound(&self, values: &Values, names: &Names) -> Vec<Document> {
        let stages = self.stages.iter();
        stages
            .map(|stage| bound_document(stage, values, names))
            .collect()
    }

    /// The stages as they are written: each a document of one name and what it takes.
    pub(super) fn stages(&self) -> impl Iterator<Item = &Document> {
        self.stages.iter()
    }

    /// Where a stage stands, counted from 0.
    pub fn place(&self, stage: usize) -> Place {
        self.places.get(stage).copied().unwrap_or(Place::START)
    }

    /// The collections and views that the stages read.
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }
}

fn bound_document(document: &Document, values: &Values, names: &Names) -> Document {
    let element = |(name, value): (&String, &Bson)| {
        let mut value = bound(value, values, names);
        source::rename(name, &mut value, |it| names.get(it).cloned());
        (name.clone(), value)
    };
    document.iter().map(element).collect()
}

fn bound(value: &Bson, values: &Values, names: &Names) -> Bson {
    match value {
        Bson::Document(document) => match parameter(document).and_then(|it| values.get(it)) {
            Some(value) => value.clone(),
            None => Bson::Document(bound_document(document, values, names)),
        },
        Bson::Array(items) => {
            let items = items.iter().map(|it| bound(it, values, names));
            Bson::Array(items.collect())
        }
        other => other.clone(),
    }
}

/// The parameter that a document stands for.
fn parameter(document: &Document) -> Option<&str> {
    let name = document.get_str(PARAM).ok()?;
    (document.len() == 1).then_some(name)
}

fn find_uses(node: &Node, uses: &mut Vec<Use>, flaws: &mut Vec<Flaw>) {
    match &node.value {
        Value::List(items) => items.iter().for_each(|it| find_uses(it, uses, flaws)),
        Value::Object(members) => {
            for member in members {
                match (&*member.name, member.value.text(), members.len()) {
                    (PARAM, Some(name), 1) => uses.push(Use {
                        name: name.to_owned(),
                        place: member.value.place,
                    }),
                    (PARAM, ..) => {
                        let message = "a parameter is {\"$param\": \"name\"} and nothing beside it";
                        flaws.push(Flaw::new(member.place, message));
                    }
                    _ => find_uses(&member.value, uses, flaws),
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    fn read(text: &str) -> Pipeline {
        let mut flaws = Vec::new();
        let (pipeline, _) = Pipeline::read(&Node::parse(text).unwrap(), &mut flaws);
        assert!(flaws.is_empty(), "{flaws:?}");
        pipeline
    }

    #[test]
    fn parameters_take_their_values_and_sources_their_names() {
        let pipeline = read(
            r#"[{"$match": {"a": {"$gt": {"$param": "least"}}}},
                {"$lookup": {"from": "v", "as": "v", "pipeline": [{"$unionWith": "v"}]}},
                {"$unionWith": {"coll": "w", "pipeline": []}}]"#,
        );
        let values = Values::from([("least".to_owned(), Bson::Int64(7))]);
        let names = Names::from([("v".to_owned(), "x".to_owned())]);
        let expected = vec![
            doc! { "$match": { "a": { "$gt": 7_i64 } } },
            doc! { "$lookup": { "from": "x", "as": "v", "pipeline": [{ "$unionWith": "x" }] } },
            doc! { "$unionWith": { "coll": "w", "pipeline": [] } },
        ];
        assert_eq!(pipeline.bound(&values, &names), expected);
    }

    #[test]
    fn sources_are_found_at_any_depth_with_their_places() {
        let pipeline = read(
            r#"[{"$facet": {"a": [{"$lookup": {"as": "b", "from": "b"}}]}},
                {"$graphLookup": {"from": "c"}}]"#,
        );
        let found = pipeline.sources().iter();
        let found: Vec<_> = found.map(|it| (&*it.name, it.place.line)).collect();
        assert_eq!(found, [("b", 1), ("c", 2)]);
        assert_eq!(
            pipeline.place(1),
            Place {
                line: 2,
                column: 17
            }
        );
    }
}
