//! The stages that a pipeline may have, and what is plain to see of them without a server.
//!
//! - What stores is left to walferry: a rule says what the answer is, not where it goes.
//! - What asks about the server, the time or chance is refused: an answer would differ each time.
//! - Everything else is left to the server, which knows better.

use super::json::{Node, Value};
use super::mistake::Flaw;
use super::parameter::PARAM;

/// What a stage takes, as far as JSON goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Object,
    Number,
    Text,
    TextOrObject,
    TextOrList,
    Any,
}

/// The stages of MongoDB 6.0 that read data.
const STAGES: [(&str, Shape); 27] = [
    ("$addFields", Shape::Object),
    ("$bucket", Shape::Object),
    ("$bucketAuto", Shape::Object),
    ("$count", Shape::Text),
    ("$densify", Shape::Object),
    ("$documents", Shape::Any),
    ("$facet", Shape::Object),
    ("$fill", Shape::Object),
    ("$geoNear", Shape::Object),
    ("$graphLookup", Shape::Object),
    ("$group", Shape::Object),
    ("$limit", Shape::Number),
    ("$lookup", Shape::Object),
    ("$match", Shape::Object),
    ("$project", Shape::Object),
    ("$redact", Shape::Any),
    ("$replaceRoot", Shape::Object),
    ("$replaceWith", Shape::Any),
    ("$search", Shape::Object),
    ("$searchMeta", Shape::Object),
    ("$set", Shape::Object),
    ("$setWindowFields", Shape::Object),
    ("$skip", Shape::Number),
    ("$sort", Shape::Object),
    ("$sortByCount", Shape::Any),
    ("$unionWith", Shape::TextOrObject),
    ("$unset", Shape::TextOrList),
];
const UNWIND: (&str, Shape) = ("$unwind", Shape::TextOrObject);
/// Stages that a rule may not have, and why.
const REFUSED: [(&str, &str); 9] = [
    ("$merge", STORES),
    ("$out", STORES),
    ("$sample", BY_CHANCE),
    ("$changeStream", OF_SERVER),
    ("$collStats", OF_SERVER),
    ("$currentOp", OF_SERVER),
    ("$indexStats", OF_SERVER),
    ("$listSessions", OF_SERVER),
    ("$planCacheStats", OF_SERVER),
];
const STORES: &str = "is walferry's: `output` says where the answer goes";
const BY_CHANCE: &str = "answers differently each time: an answer must depend on the data alone";
const OF_SERVER: &str = "asks about the server, not about data";
/// Operators that a rule may not have, and why.
const REFUSED_OPERATORS: [(&str, &str); 5] = [
    ("$rand", BY_CHANCE),
    ("$sampleRate", BY_CHANCE),
    ("$accumulator", OLD),
    ("$function", OLD),
    ("$where", OLD),
];
const OLD: &str = "runs JavaScript, which newer servers advise against: use operators";
/// Variables that a rule may not have.
const REFUSED_VARIABLES: [&str; 2] = ["$$NOW", "$$CLUSTER_TIME"];

/// Looks at the stages of a pipeline and of those inside it.
pub(super) fn check(pipeline: &[Node], flaws: &mut Vec<Flaw>) {
    for node in pipeline {
        let Some(stage) = node.only_member().filter(|it| it.name != PARAM) else {
            let message = "a stage must be an object with one member, such as {\"$match\": {…}}";
            flaws.push(Flaw::new(node.place, message));
            continue;
        };
        if let Some(message) = mistaken(&stage.name, &stage.value) {
            flaws.push(Flaw::new(stage.place, message));
        }
        for pipeline in inner(&stage.name, &stage.value) {
            check(pipeline, flaws);
        }
    }
}

/// Looks for operators and variables, at any depth.
pub(super) fn check_expressions(node: &Node, flaws: &mut Vec<Flaw>) {
    match &node.value {
        Value::List(items) => items.iter().for_each(|it| check_expressions(it, flaws)),
        Value::Object(members) => {
            for member in members {
                let refused = REFUSED_OPERATORS.iter().find(|it| it.0 == member.name);
                if let Some((name, why)) = refused {
                    flaws.push(Flaw::new(member.place, format!("{name} {why}")));
                }
                check_expressions(&member.value, flaws);
            }
        }
        Value::Text(text) if is_refused_variable(text) => {
            flaws.push(Flaw::new(node.place, format!("{text} {BY_CHANCE}")));
        }
        _ => {}
    }
}

/// `$$NOW` and its fields, not a variable whose name begins like it.
fn is_refused_variable(text: &str) -> bool {
    let name = text.split('.').next();
    name.is_some_and(|name| REFUSED_VARIABLES.contains(&name))
}

/// The pipelines that stand inside a stage.
fn inner<'a>(stage: &str, value: &'a Node) -> Vec<&'a [Node]> {
    match stage {
        "$lookup" | "$unionWith" => {
            let pipeline = value.member("pipeline").and_then(Node::items);
            pipeline.into_iter().collect()
        }
        "$facet" => {
            let members = value.members().unwrap_or_default();
            members.iter().filter_map(|it| it.value.items()).collect()
        }
        _ => Vec::new(),
    }
}

fn mistaken(name: &str, value: &Node) -> Option<String> {
    if let Some((_, why)) = REFUSED.iter().find(|(it, _)| *it == name) {
        return Some(format!("{name} {why}"));
    }
    let mut known = STAGES.iter().chain([&UNWIND]);
    let Some((_, shape)) = known.find(|(it, _)| *it == name) else {
        return Some(format!("{name} is no stage of MongoDB 6.0 that reads data"));
    };
    let is_parameter = value.only_member().is_some_and(|it| it.name == PARAM);
    if is_parameter || shape.fits(value) {
        return None;
    }
    Some(format!("{name} takes {}", shape.wanted()))
}

// === impl Shape ===

impl Shape {
    fn fits(self, node: &Node) -> bool {
        let value = &node.value;
        match self {
            Self::Object => matches!(value, Value::Object(_)),
            // `{"$numberLong": "5"}` is one too.
            Self::Number => matches!(value, Value::Number(_) | Value::Object(_)),
            Self::Text => matches!(value, Value::Text(_)),
            Self::TextOrObject => matches!(value, Value::Text(_) | Value::Object(_)),
            Self::TextOrList => matches!(value, Value::Text(_) | Value::List(_)),
            Self::Any => true,
        }
    }

    fn wanted(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::Number => "a number",
            Self::Text => "a text",
            Self::TextOrObject => "a text or an object",
            Self::TextOrList => "a text or a list",
            Self::Any => "anything",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flaws(pipeline: &str) -> Vec<String> {
        let node = Node::parse(pipeline).unwrap();
        let mut flaws = Vec::new();
        check(node.items().unwrap(), &mut flaws);
        check_expressions(&node, &mut flaws);
        let shown = |it: &Flaw| format!("{}: {}", it.place.column, it.message);
        flaws.iter().map(shown).collect()
    }

    #[test]
    fn what_stores_or_answers_by_chance_is_refused_at_any_depth() {
        let cases = [
            (r#"[{"$merge": "x"}]"#, "3: $merge is walferry's"),
            (r#"[{"$facet": {"a": [{"$out": "x"}]}}]"#, "21: $out is"),
            (
                r#"[{"$lookup": {"pipeline": [{"$sample": {"size": 1}}]}}]"#,
                "29: $sample answers",
            ),
            (r#"[{"$set": {"at": "$$NOW"}}]"#, "18: $$NOW answers"),
            (r#"[{"$set": {"a": {"$rand": {}}}}]"#, "18: $rand answers"),
            (r#"[{"$match": {"$where": "1"}}]"#, "14: $where runs"),
        ];
        for (pipeline, expected) in cases {
            let found = flaws(pipeline);
            assert!(
                found.len() == 1 && found[0].starts_with(expected),
                "{pipeline}: {found:?}"
            );
        }
    }

    #[test]
    fn a_stage_has_one_known_name_and_a_value_of_its_shape() {
        let cases = [
            (r#"[{"$metch": {}}]"#, "3: $metch is no stage"),
            (r#"["$match"]"#, "2: a stage must be"),
            (r#"[{"$match": {}, "$limit": 1}]"#, "2: a stage must be"),
            (r#"[{"$param": "p"}]"#, "2: a stage must be"),
            (r#"[{"$match": "a"}]"#, "3: $match takes an object"),
            (r#"[{"$limit": "5"}]"#, "3: $limit takes a number"),
        ];
        for (pipeline, expected) in cases {
            let found = flaws(pipeline);
            assert!(
                found.len() == 1 && found[0].starts_with(expected),
                "{pipeline}: {found:?}"
            );
        }
        let fine = r#"[{"$limit": {"$param": "n"}}, {"$unwind": "$a"}, {"$unset": ["a"]},
                       {"$set": {"$$NOWHERE": "$$NOW_AND_THEN"}}]"#;
        assert_eq!(flaws(fine), [""; 0]);
    }
}
