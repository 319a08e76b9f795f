//! What MongoDB reads whole for an answer, by its own account (`explain`).
//!
//! - Plans that were tried and not taken do not count.

use std::collections::BTreeSet;

use mongodb::bson::{Bson, Document, doc};

use crate::Result;

/// The collections that are read whole, without an index, for the answer to a pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scans {
    /// Those that the pipeline begins with, itself or in a view or a union.
    pub inputs: BTreeSet<String>,
    /// Those that are looked up: read whole for each document.
    pub lookups: BTreeSet<String>,
}

// === impl Scans ===

impl Scans {
    /// Has the server answer the pipeline and tell how.
    ///
    /// # Errors
    /// When the server refuses the pipeline.
    pub async fn of(
        database: &mongodb::Database,
        input: &str,
        pipeline: &[Document],
    ) -> Result<Self> {
        let asked =
            doc! { "aggregate": input, "pipeline": pipeline, "cursor": {}, "allowDiskUse": true };
        // Only who has run a lookup can tell what it read.
        let explain = doc! { "explain": asked, "verbosity": "executionStats" };
        let explained = database.run_command(explain).await?;
        let mut scans = Self::default();
        scans.look(&explained, input);
        Ok(scans)
    }

    fn look(&mut self, explained: &Document, namespace: &str) {
        let namespace = explained.get_str("namespace").unwrap_or(namespace);
        match explained.get_str("stage") {
            Ok("COLLSCAN") => {
                self.inputs.insert(collection(namespace));
            }
            // A lookup that the planner has made part of its plan.
            Ok("EQ_LOOKUP") if explained.get_str("strategy").ok() != Some("IndexedLoopJoin") => {
                let foreign = explained.get_str("foreignCollection").unwrap_or_default();
                self.lookups.insert(collection(foreign));
            }
            _ => {}
        }
        let lookup = explained.get_document("$lookup");
        if let Ok(lookup) = lookup
            && explained.get("collectionScans").is_some_and(is_some)
        {
            let from = lookup.get_str("from").unwrap_or_default();
            self.lookups.insert(from.to_owned());
        }
        for (name, value) in explained {
            // The question itself, what was not done, and the same again with figures.
            if !matches!(&**name, "command" | "rejectedPlans" | "executionStats") {
                self.look_into(value, namespace);
            }
        }
    }

    fn look_into(&mut self, value: &Bson, namespace: &str) {
        match value {
            Bson::Document(document) => self.look(document, namespace),
            Bson::Array(items) => items.iter().for_each(|it| self.look_into(it, namespace)),
            _ => {}
        }
    }
}

fn is_some(count: &Bson) -> bool {
    let count = count.as_i64().or_else(|| count.as_i32().map(i64::from));
    count.is_some_and(|it| it > 0)
}

/// A namespace without its database.
fn collection(namespace: &str) -> String {
    let name = namespace.split_once('.');
    name.map_or(namespace, |(_, collection)| collection)
        .to_owned()
}
