//! Which values of a rule's `per` a change of a document reaches, as the pipelines say it.
//!
//! - A value is read where a collection has it: views are followed down to it, stage by stage.
//! - A `$lookup` is followed by its two fields, where the local one is still the collection's own and an index that the
//!   files ask for serves it. What is read otherwise is not followed: its changes wait for the schedule.
//! - A view that makes its documents from several, or gives the field another value, leads nowhere.

mod fields;

use std::fmt;

use bson::{Bson, Document};
use serde::Serialize;

use super::rule::{Kind, Rule};
use fields::{Carried, Fields};

/// The stages of a view that make each document from one, whatever the others are.
const ROW_BY_ROW: [&str; 8] = [
    "$addFields",
    "$lookup",
    "$match",
    "$project",
    "$set",
    "$sort",
    "$unset",
    "$unwind",
];

/// What a rule's answer for some values depends on, so far as it can be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The field of the input that the values are of.
    pub per: String,
    /// The field of the answer's documents that has the value.
    pub field: String,
    /// Which changes lead to which values.
    pub ways: Vec<Way>,
    /// What the rule reads beside that: changes of it wait for the schedule.
    pub unfollowed: Vec<String>,
}

/// How a change of one collection leads to values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// The collection.
    pub collection: String,
    /// The field of its document that has the value, or leads to it.
    pub field: String,
    /// Where the value is, when the document itself has none.
    pub through: Option<Through>,
}

/// The documents that have the values which another's field leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Through {
    /// Their collection.
    pub collection: String,
    /// Their field that is equal to the other's.
    pub field: String,
    /// Their field that has the value.
    pub value: String,
}

/// Why an answer is worked out on schedule alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Obstacle {
    /// It is a view, which has no answer that is kept.
    View,
    /// It is `per` nothing.
    Whole,
    /// A view makes its documents from several, by this stage.
    Stage(String, String),
    /// A view gives the field another value than the collection has.
    Field(String, String),
    /// The documents of the answer do not have the value.
    Answer(String),
    /// What becomes of one value depends on the others, by this stage.
    Among(String),
}

/// A walk along pipelines, from the collection on.
struct Walk<'a> {
    rules: &'a [Rule],
    root: &'a str,
    per: &'a str,
    fields: Fields,
    ways: Vec<Way>,
    unfollowed: Vec<String>,
}

// === impl Obstacle ===

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::View => f.write_str("it is worked out when it is read"),
            Self::Whole => f.write_str("its file names no field that it is per"),
            Self::Stage(view, stage) => {
                write!(f, "{stage} of {view} makes a document from several")
            }
            Self::Field(view, field) => write!(f, "{view} has {field} from elsewhere"),
            Self::Answer(field) => write!(f, "no field of its answer is {field}"),
            Self::Among(stage) => {
                write!(
                    f,
                    "{stage} weighs documents of some values against those of others"
                )
            }
        }
    }
}

/// What the answer of one of these rules for some values depends on.
///
/// # Errors
/// When changes lead to no values.
pub(super) fn reach(rules: &[Rule], rule: &Rule) -> Result<Reach, Obstacle> {
    if rule.kind == Kind::View {
        return Err(Obstacle::View);
    }
    let per = rule.per.as_deref().ok_or(Obstacle::Whole)?;
    let (root, views) = root(rules, rule);
    let mut walk = Walk {
        rules,
        root,
        per,
        fields: Fields::default(),
        ways: vec![Way {
            collection: root.to_owned(),
            field: per.to_owned(),
            through: None,
        }],
        unfollowed: Vec::new(),
    };
    for view in views {
        walk.view(view)?;
    }
    let mut carried = Carried::new(per);
    walk.follow(rule, |stage, value| carried.pass(stage, value));
    let field = carried.field()?;
    walk.ways.sort();
    walk.ways.dedup();
    Ok(Reach {
        per: per.to_owned(),
        field,
        ways: walk.ways,
        unfollowed: walk.unfollowed,
    })
}

/// The collection that a rule's input begins with, and the views on the way, the innermost first.
fn root<'a>(rules: &'a [Rule], rule: &'a Rule) -> (&'a str, Vec<&'a Rule>) {
    let mut root = &*rule.input.name;
    let mut views = Vec::new();
    while let Some(view) = view(rules, root) {
        views.insert(0, view);
        root = &view.input.name;
    }
    (root, views)
}

fn view<'a>(rules: &'a [Rule], name: &str) -> Option<&'a Rule> {
    let mut views = rules.iter().filter(|it| it.kind == Kind::View);
    views.find(|it| it.output == name)
}

// === impl Walk ===

impl Walk<'_> {
    fn view(&mut self, view: &Rule) -> Result<(), Obstacle> {
        let mut stages = view.pipeline.stages().flatten().map(|(stage, _)| stage);
        if let Some(stage) = stages.find(|it| !ROW_BY_ROW.contains(&&***it)) {
            return Err(Obstacle::Stage(view.name.clone(), stage.clone()));
        }
        self.follow(view, |_, _| {});
        if self.fields.has(self.per) {
            return Ok(());
        }
        Err(Obstacle::Field(view.name.clone(), self.per.to_owned()))
    }

    /// Follows the lookups of a pipeline.
    fn follow(&mut self, rule: &Rule, mut meet: impl FnMut(&str, &Bson)) {
        let mut followed: Vec<String> = Vec::new();
        for (stage, value) in rule.pipeline.stages().flatten() {
            if let (true, Some(lookup)) = (stage == "$lookup", value.as_document())
                && let Some(way) = self.way(lookup)
            {
                followed.push(way.collection.clone());
                self.ways.push(way);
            }
            self.fields.pass(stage, value);
            meet(stage, value);
        }
        for source in rule.pipeline.sources() {
            match followed.iter().position(|it| *it == source.name) {
                Some(at) => drop(followed.swap_remove(at)),
                None if self.unfollowed.contains(&source.name) => {}
                None => self.unfollowed.push(source.name.clone()),
            }
        }
    }

    /// Where a change of what a lookup reads leads.
    fn way(&self, lookup: &Document) -> Option<Way> {
        // What else it says may read more.
        if lookup.contains_key("pipeline") || lookup.contains_key("let") {
            return None;
        }
        let text = |name| lookup.get_str(name).ok();
        let (from, local) = (text("from")?, text("localField")?);
        if view(self.rules, from).is_some() || !self.fields.has(local) {
            return None;
        }
        let through = (local != self.per).then(|| Through {
            collection: self.root.to_owned(),
            field: local.to_owned(),
            value: self.per.to_owned(),
        });
        if through.is_some() && !self.is_served(local) {
            return None;
        }
        Some(Way {
            collection: from.to_owned(),
            field: text("foreignField")?.to_owned(),
            through,
        })
    }

    /// Whether documents of the collection are found by a field without reading all of them.
    fn is_served(&self, field: &str) -> bool {
        let mut indexes = self.rules.iter().flat_map(|it| &it.indexes);
        let first = |keys: &Document| {
            let first = keys.iter().next();
            first.is_some_and(|(name, kind)| name == field && matches!(kind, Bson::Int32(_)))
        };
        field == "_id" || indexes.any(|it| it.collection == self.root && first(&it.keys))
    }
}

#[cfg(test)]
mod tests;
