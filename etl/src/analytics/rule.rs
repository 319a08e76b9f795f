//! A rule: one question, and where its answer goes.

use bson::Document;

use super::parameter::{Parameter, Values};
use super::{Mistake, Pipeline, Place, Source};

/// A question that is asked of what was delivered.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Its name: that of its file without `.json`.
    pub name: String,
    /// Its file, as mistakes name it.
    pub file: String,
    /// What it is called.
    pub title: String,
    /// What it asks.
    pub question: String,
    /// What becomes of its answer.
    pub kind: Kind,
    /// What its pipeline begins with: a collection, or another rule's view or output.
    pub input: Source,
    /// What can be said anew at each run.
    pub parameters: Vec<Parameter>,
    /// The indexes that it wants.
    pub indexes: Vec<Index>,
    /// A field of the input: the answer for one value of it depends on the input's documents with that value alone.
    pub per: Option<String>,
    /// The question.
    pub pipeline: Pipeline,
    /// The collection that the answer is kept in; of a view its own name.
    pub output: String,
    /// Where the output is said.
    pub output_place: Place,
}

/// What becomes of a rule's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It is worked out whenever somebody reads.
    View,
    /// Findings that several rules keep in one collection, each its own.
    Alerts,
    /// It is all that the collection holds.
    Report,
}

/// An index that is made once.
#[derive(Clone, Debug, PartialEq)]
pub struct Index {
    /// The collection.
    pub collection: String,
    /// Its fields, in order.
    pub keys: Document,
    /// Where it is asked for.
    pub place: Place,
}

// === impl Rule ===

impl Rule {
    /// The values of its parameters when nobody says otherwise.
    pub fn defaults(&self) -> Values {
        let parameters = self.parameters.iter();
        parameters
            .map(|it| (it.name.clone(), it.default.clone()))
            .collect()
    }

    /// All that it reads, its input first.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        [&self.input].into_iter().chain(self.pipeline.sources())
    }

    /// A mistake in its file.
    pub fn mistake(&self, place: Place, message: impl Into<String>) -> Mistake {
        Mistake {
            file: self.file.clone(),
            place,
            message: message.into(),
        }
    }
}

// === impl Index ===

impl Index {
    /// What tells it from others: its collection and its fields in order.
    pub fn name(&self) -> String {
        let fields = self.keys.iter();
        let fields: Vec<_> = fields
            .map(|(field, kind)| format!("{field}_{kind}"))
            .collect();
        format!("{}: {}", self.collection, fields.join("_"))
    }
}

// === impl Kind ===

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::View, Self::Alerts, Self::Report];

    /// As a rule's file says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Alerts => "alerts",
            Self::Report => "report",
        }
    }
}
