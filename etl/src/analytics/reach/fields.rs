//! What stages leave of the fields of a document, so far as that is plain to see.
//!
//! - A field that may be another one after a stage is lost: nothing is guessed.

use std::collections::BTreeSet;

use bson::{Bson, Document};

use super::Obstacle;

/// The fields of a collection's documents that are still as the collection has them.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    /// None while there may be any.
    only: Option<BTreeSet<String>>,
    lost: BTreeSet<String>,
}

/// Under which name the documents have a value.
#[derive(Clone, Debug)]
pub(super) struct Carried {
    per: String,
    field: Option<String>,
    /// The first stage that weighs documents of some values against those of others.
    among: Option<String>,
}

/// What a `$project` says.
enum Projection<'a> {
    /// The fields that stay, and nothing else but what is made anew.
    Only(BTreeSet<&'a str>),
    /// The fields that go.
    Without(Vec<&'a str>),
}

// === impl Fields ===

impl Fields {
    /// Whether a field, or a part of one, is as the collection has it.
    pub(super) fn has(&self, field: &str) -> bool {
        let name = top(field);
        !self.lost.contains(name) && self.only.as_ref().is_none_or(|it| it.contains(name))
    }

    /// Goes past a stage.
    pub(super) fn pass(&mut self, stage: &str, value: &Bson) {
        match (stage, value) {
            ("$match" | "$sort" | "$limit" | "$skip", _) => {}
            ("$lookup", Bson::Document(it)) => match it.get_str("as") {
                Ok(name) => self.lose([name]),
                Err(_) => self.lose_all(),
            },
            ("$set" | "$addFields", Bson::Document(it)) => {
                self.lose(it.keys().map(String::as_str));
            }
            ("$setWindowFields", Bson::Document(it)) => match it.get_document("output") {
                Ok(output) => self.lose(output.keys().map(String::as_str)),
                Err(_) => self.lose_all(),
            },
            ("$unset", Bson::String(name)) => self.lose([&**name]),
            ("$unset", Bson::Array(names)) => self.lose(names.iter().filter_map(Bson::as_str)),
            ("$unwind", Bson::String(path)) => self.lose([path.trim_start_matches('$')]),
            ("$project", Bson::Document(it)) => self.project(it),
            _ => self.lose_all(),
        }
    }

    fn project(&mut self, document: &Document) {
        match Projection::of(document) {
            Projection::Without(names) => self.lose(names),
            Projection::Only(names) => {
                let kept = names.into_iter().filter(|it| self.has(it));
                self.only = Some(kept.map(str::to_owned).collect());
            }
        }
    }

    fn lose<'a>(&mut self, fields: impl IntoIterator<Item = &'a str>) {
        let names = fields.into_iter().map(|it| top(it).to_owned());
        self.lost.extend(names);
    }

    fn lose_all(&mut self) {
        self.only = Some(BTreeSet::new());
    }
}

// === impl Carried ===

impl Carried {
    /// At the beginning the field has its own name.
    pub(super) fn new(per: &str) -> Self {
        Self {
            per: per.to_owned(),
            field: Some(per.to_owned()),
            among: None,
        }
    }

    /// The name in the end.
    ///
    /// # Errors
    /// When it is not plain to see, or what becomes of one value depends on others.
    pub(super) fn field(self) -> Result<String, Obstacle> {
        match self.among {
            Some(stage) => Err(Obstacle::Among(stage)),
            None => self.field.ok_or(Obstacle::Answer(self.per)),
        }
    }

    /// Goes past a stage.
    pub(super) fn pass(&mut self, stage: &str, value: &Bson) {
        if self.is_among(stage, value) {
            self.among.get_or_insert_with(|| stage.to_owned());
        }
        match (stage, value) {
            (
                "$match" | "$sort" | "$limit" | "$skip" | "$lookup" | "$set" | "$addFields"
                | "$setWindowFields" | "$unwind",
                _,
            ) => {}
            ("$group", Bson::Document(it)) => self.field = self.grouped(it.get("_id")),
            ("$replaceWith", Bson::Document(it)) => self.field = self.named(it),
            ("$replaceRoot", Bson::Document(it)) => {
                let root = it.get_document("newRoot").ok();
                self.field = root.and_then(|it| self.named(it));
            }
            ("$project", Bson::Document(it)) => self.project(it),
            // A later stage may name it again.
            _ => self.field = None,
        }
    }

    /// Whether a stage weighs documents of some values against those of others.
    fn is_among(&self, stage: &str, value: &Bson) -> bool {
        match (stage, value) {
            ("$limit" | "$skip", _) => true,
            ("$setWindowFields", Bson::Document(it)) => match it.get("partitionBy") {
                Some(Bson::Document(by)) => !by.values().any(|it| self.is_it(it)),
                by => !by.is_some_and(|it| self.is_it(it)),
            },
            _ => false,
        }
    }

    /// Its name in a document that is made of expressions.
    fn named(&self, document: &Document) -> Option<String> {
        if document.keys().any(|it| it.starts_with('$')) {
            return None;
        }
        // A field of the same name is believed to be it, but an `_id` is mostly made anew.
        let same = document.get(&self.per);
        if same.is_some_and(|it| self.per != "_id" || self.is_it(it)) {
            return Some(self.per.clone());
        }
        let mut fields = document.iter();
        let found = fields.find(|(_, value)| self.is_it(value));
        found.map(|(name, _)| name.clone())
    }

    fn grouped(&self, id: Option<&Bson>) -> Option<String> {
        match id? {
            Bson::Document(it) => self.named(it).map(|name| format!("_id.{name}")),
            value => self.is_it(value).then(|| "_id".to_owned()),
        }
    }

    fn is_it(&self, value: &Bson) -> bool {
        let (Some(text), Some(field)) = (value.as_str(), &self.field) else {
            return false;
        };
        text.strip_prefix('$') == Some(field)
    }

    fn project(&mut self, document: &Document) {
        let Some(field) = &self.field else { return };
        match Projection::of(document) {
            Projection::Without(names) if names.iter().any(|it| top(it) == top(field)) => {
                self.field = None;
            }
            Projection::Only(names) if !names.contains(top(field)) => {
                self.field = self.named(document);
            }
            _ => {}
        }
    }
}

// === impl Projection ===

impl<'a> Projection<'a> {
    fn of(document: &'a Document) -> Self {
        let others = || document.iter().filter(|(name, _)| *name != "_id");
        if others().all(|(_, value)| flag(value) == Some(false)) && !is_only_id(document) {
            return Self::Without(gone(document).collect());
        }
        let stays = others().filter(|(_, value)| flag(value) == Some(true));
        let mut names: BTreeSet<_> = stays.map(|(name, _)| &**name).collect();
        if document.get("_id").is_none_or(|it| flag(it) == Some(true)) {
            names.insert("_id");
        }
        Self::Only(names)
    }
}

/// `{_id: 1}` alone keeps nothing else.
fn is_only_id(document: &Document) -> bool {
    let id = document.get("_id").and_then(flag);
    document.len() == 1 && id == Some(true)
}

fn gone(document: &Document) -> impl Iterator<Item = &str> {
    let gone = document.iter().filter(|(_, it)| flag(it) == Some(false));
    gone.map(|(name, _)| &**name)
}

/// Whether a field of a projection stays; none where it is an expression.
fn flag(value: &Bson) -> Option<bool> {
    match value {
        Bson::Boolean(flag) => Some(*flag),
        Bson::Int32(number) => Some(*number != 0),
        Bson::Int64(number) => Some(*number != 0),
        Bson::Double(number) => Some(*number != 0.0),
        _ => None,
    }
}

/// The name of the field that a path begins in.
fn top(path: &str) -> &str {
    path.split('.').next().unwrap_or(path)
}
