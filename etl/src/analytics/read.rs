//! From a file's text to a rule, with all that is wrong with it.

use bson::{Bson, Document};

use super::json::{Member, Node};
use super::mistake::Flaw;
use super::parameter::Parameter;
use super::pipeline::Use;
use super::rule::{Index, Kind, Rule};
use super::{Pipeline, Place, Source, extended_json};

const FIELDS: [&str; 9] = [
    "title",
    "question",
    "kind",
    "input",
    "parameters",
    "indexes",
    "per",
    "pipeline",
    "output",
];
const PARAMETER_FIELDS: [&str; 2] = ["default", "meaning"];
const INDEX_FIELDS: [&str; 2] = ["collection", "keys"];
/// What an index can be beside ascending and descending.
const INDEX_KINDS: [&str; 4] = ["text", "hashed", "2d", "2dsphere"];
/// Collections whose names begin so are walferry's own while it works.
const OWN: &str = "_walferry";
/// With the database and a dot MongoDB takes 255.
const MAX_NAME_BYTES: usize = 120;

/// An object whose fields are taken one by one.
struct Fields<'a> {
    node: &'a Node,
    flaws: &'a mut Vec<Flaw>,
}

/// Reads a rule; none when something is wrong, which is among the flaws then.
pub(super) fn rule(name: &str, file: &str, text: &str, flaws: &mut Vec<Flaw>) -> Option<Rule> {
    if !is_snake(name) {
        let message = "a rule's file must have a name of a-z, 0-9 and _ that begins with a letter";
        flaws.push(Flaw::new(Place::START, message));
    }
    let node = match Node::parse(text) {
        Ok(node) => node,
        Err(flaw) => {
            flaws.push(flaw);
            return None;
        }
    };
    let mut fields = Fields::of(&node, "a rule", &FIELDS, flaws)?;
    let title = fields.text("title");
    let question = fields.text("question");
    let kind = fields.kind();
    let input = fields.collection("input");
    let output = fields.output(name, kind);
    let per = fields.optional_text("per");
    let parameters = fields.parameters();
    let indexes = fields.indexes();
    let (pipeline, uses) = fields.pipeline();
    check_uses(&node, &parameters, &uses, flaws);
    if !flaws.is_empty() {
        return None;
    }
    let output = output?;
    Some(Rule {
        name: name.to_owned(),
        file: file.to_owned(),
        title: title?,
        question: question?,
        kind: kind?,
        input: input?,
        parameters,
        indexes,
        per,
        pipeline,
        output: output.name,
        output_place: output.place,
    })
}

// === impl Fields ===

impl<'a> Fields<'a> {
    /// None when the node is no object.
    fn of(node: &'a Node, what: &str, known: &[&str], flaws: &'a mut Vec<Flaw>) -> Option<Self> {
        let Some(members) = node.members() else {
            flaws.push(Flaw::new(node.place, format!("{what} must be an object")));
            return None;
        };
        let unknown = members.iter().filter(|it| !known.contains(&&*it.name));
        flaws.extend(unknown.map(|it| {
            let message = format!(
                "no such field {:?}; {what} has {}",
                it.name,
                known.join(", ")
            );
            Flaw::new(it.place, message)
        }));
        Some(Self { node, flaws })
    }

    fn flaw(&mut self, place: Place, message: impl Into<String>) {
        self.flaws.push(Flaw::new(place, message));
    }

    fn required(&mut self, name: &str) -> Option<&'a Node> {
        let found = self.node.member(name);
        if found.is_none() {
            self.flaw(self.node.place, format!("{name} is missing"));
        }
        found
    }

    fn text(&mut self, name: &str) -> Option<String> {
        self.required(name)?;
        self.optional_text(name)
    }

    fn optional_text(&mut self, name: &str) -> Option<String> {
        let node = self.node.member(name)?;
        let text = node.text().filter(|it| !it.trim().is_empty());
        if text.is_none() {
            self.flaw(
                node.place,
                format!("{name} must be a text that says something"),
            );
        }
        text.map(str::to_owned)
    }

    fn collection(&mut self, name: &str) -> Option<Source> {
        let place = self.required(name)?.place;
        let collection = self.optional_text(name)?;
        if !is_collection(&collection) {
            let message = format!(
                "{name}: {collection:?} cannot be a collection's name: no $, no \"system.\" and no {OWN:?} in front, at most \
                 {MAX_NAME_BYTES} bytes"
            );
            self.flaw(place, message);
        }
        Some(Source {
            name: collection,
            place,
        })
    }

    fn kind(&mut self) -> Option<Kind> {
        let node = self.required("kind")?;
        let named = |it: &Kind| node.text() == Some(it.name());
        let kind = Kind::ALL.into_iter().find(named);
        if kind.is_none() {
            let names = Kind::ALL.map(|it| format!("{:?}", it.name()));
            self.flaw(
                node.place,
                format!("kind must be one of {}", names.join(", ")),
            );
        }
        kind
    }

    fn output(&mut self, rule: &str, kind: Option<Kind>) -> Option<Source> {
        if kind? != Kind::View {
            return self.collection("output");
        }
        if let Some(node) = self.node.member("output") {
            self.flaw(node.place, "a view has no output: its name is the file's");
        }
        Some(Source {
            name: rule.to_owned(),
            place: Place::START,
        })
    }

    fn parameters(&mut self) -> Vec<Parameter> {
        let Some(node) = self.node.member("parameters") else {
            return Vec::new();
        };
        let Some(members) = node.members() else {
            self.flaw(node.place, "parameters must be an object");
            return Vec::new();
        };
        let flaws = &mut *self.flaws;
        members
            .iter()
            .filter_map(|it| parameter(it, flaws))
            .collect()
    }

    fn indexes(&mut self) -> Vec<Index> {
        let Some(node) = self.node.member("indexes") else {
            return Vec::new();
        };
        let Some(items) = node.items() else {
            self.flaw(node.place, "indexes must be a list");
            return Vec::new();
        };
        let flaws = &mut *self.flaws;
        items.iter().filter_map(|it| index(it, flaws)).collect()
    }

    fn pipeline(&mut self) -> (Pipeline, Vec<Use>) {
        match self.required("pipeline") {
            Some(node) => Pipeline::read(node, self.flaws),
            None => (Pipeline::default(), Vec::new()),
        }
    }
}

fn parameter(member: &Member, flaws: &mut Vec<Flaw>) -> Option<Parameter> {
    if !is_snake(&member.name) {
        let message = "a parameter's name must be of a-z, 0-9 and _ and begin with a letter";
        flaws.push(Flaw::new(member.place, message));
    }
    let mut fields = Fields::of(&member.value, "a parameter", &PARAMETER_FIELDS, flaws)?;
    let meaning = fields.text("meaning");
    let written = fields.required("default")?;
    let default = extended_json::value(written);
    let default = default.map_err(|flaw| fields.flaws.push(flaw)).ok();
    Some(Parameter {
        name: member.name.clone(),
        default: default?,
        written: written.to_json(),
        meaning: meaning?,
    })
}

fn index(node: &Node, flaws: &mut Vec<Flaw>) -> Option<Index> {
    let mut fields = Fields::of(node, "an index", &INDEX_FIELDS, flaws)?;
    let collection = fields.collection("collection");
    let keys = fields.required("keys")?;
    let read = keys.members().map(extended_json::document);
    let is_index = |it: &Document| !it.is_empty() && it.values().all(is_index_key);
    match read {
        Some(Ok(read)) if is_index(&read) => Some(Index {
            collection: collection?.name,
            keys: read,
            place: node.place,
        }),
        _ => {
            let message = "keys must be an object of fields, each 1 (ascending) or -1 (descending)";
            fields.flaw(keys.place, message);
            None
        }
    }
}

fn is_index_key(key: &Bson) -> bool {
    match key {
        Bson::Int32(direction) => matches!(direction, 1 | -1),
        Bson::String(kind) => INDEX_KINDS.contains(&&**kind),
        _ => false,
    }
}

/// Each parameter that is used is there, and each that is there is used.
fn check_uses(node: &Node, parameters: &[Parameter], uses: &[Use], flaws: &mut Vec<Flaw>) {
    let declared = node.member("parameters").and_then(Node::members);
    let declared = declared.unwrap_or_default();
    for used in uses {
        if declared.iter().any(|it| it.name == used.name) {
            continue;
        }
        let names: Vec<_> = declared.iter().map(|it| &*it.name).collect();
        let has = match &names[..] {
            [] => "the rule has none".to_owned(),
            names => format!("the rule has {}", names.join(", ")),
        };
        let message = format!("there is no parameter {:?}: {has}", used.name);
        flaws.push(Flaw::new(used.place, message));
    }
    let is_unused = |it: &&Member| !uses.iter().any(|used| used.name == it.name);
    let is_sound = |it: &&Member| parameters.iter().any(|read| read.name == it.name);
    for member in declared.iter().filter(is_sound).filter(is_unused) {
        let message = format!("the parameter {:?} is not used", member.name);
        flaws.push(Flaw::new(member.place, message));
    }
}

fn is_snake(name: &str) -> bool {
    let is_allowed = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '_');
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(is_allowed)
}

fn is_collection(name: &str) -> bool {
    let is_reserved = name.starts_with("system.") || name.starts_with(OWN);
    let is_refused = name.contains(['$', '\0']) || name.starts_with('.') || name.ends_with('.');
    !is_reserved && !is_refused && name.len() <= MAX_NAME_BYTES
}
