//! From documents that were written to the values that rules are asked about again.
//!
//! - A document leads to the values that it had at the look before and to those that it has now: between two looks a row
//!   may move from one to another, or go, and nothing but the past knows the value that it had.
//! - Whatever was committed up to the new moment was told before it, so it is among what is looked at; what was told
//!   meanwhile is looked at again.

use std::collections::BTreeSet;

use walferry_etl::analytics::Way;
use walferry_mongodb::{Analyst, AsOf, Changes, Documents, Error, FoundValues, Holders, Touched};

use super::subject::Subject;

/// What the looks know.
#[derive(Debug)]
pub(super) struct Looks {
    pub(super) touched: Touched,
    /// The moment of the last look.
    pub(super) seen: Option<AsOf>,
    /// Whether no more was touched than can be followed.
    pub(super) is_calm: bool,
}

// === impl Looks ===

impl Looks {
    pub(super) fn new(touched: Touched) -> Self {
        Self {
            touched,
            seen: None,
            is_calm: true,
        }
    }

    /// Watches what leads to values of these rules.
    pub(super) fn watch(&self, subjects: &[Subject]) {
        let ways = ways(subjects).into_iter();
        self.touched.watch(ways.map(|it| it.collection).collect());
    }

    /// Looks at what was touched since the last look.
    pub(super) async fn look(
        &mut self,
        analyst: &Analyst,
        subjects: &mut [Subject],
    ) -> Result<(), Error> {
        let taken = self.touched.take();
        let looked = self.look_at(&taken, analyst, subjects).await;
        if looked.is_err() {
            self.touched.put_back(&taken);
        }
        looked
    }

    async fn look_at(
        &mut self,
        taken: &Changes,
        analyst: &Analyst,
        subjects: &mut [Subject],
    ) -> Result<(), Error> {
        let now = analyst.newest().await?;
        let mut changes = taken.clone();
        changes.add(&self.touched.peek());
        let mut is_calm = true;
        for way in ways(subjects) {
            let Some(documents) = changes.of_collection(&way.collection) else {
                continue;
            };
            let found = self.follow(analyst, &way, &documents, now).await?;
            is_calm &= matches!(found, FoundValues::Values(_));
            let leads = |it: &&mut Subject| {
                let reach = it.reach.as_ref();
                reach.is_some_and(|it| it.ways.contains(&way))
            };
            for subject in subjects.iter_mut().filter(leads) {
                subject.note(&found, changes.since());
            }
        }
        (self.seen, self.is_calm) = (Some(now), is_calm);
        Ok(())
    }

    /// The values that documents lead to, then and now.
    async fn follow(
        &self,
        analyst: &Analyst,
        way: &Way,
        documents: &Documents<'_>,
        now: AsOf,
    ) -> Result<FoundValues, Error> {
        let (Some(before), Some(ids)) = (self.seen, documents.ids()) else {
            return Ok(FoundValues::Unknown);
        };
        let changed = Holders {
            collection: &way.collection,
            field: "_id",
            among: &ids,
        };
        let mut values = Vec::new();
        for as_of in [before, now] {
            match follow_as_of(analyst, way, changed, as_of).await? {
                FoundValues::Values(found) => values.extend(found),
                FoundValues::Unknown => return Ok(FoundValues::Unknown),
            }
        }
        Ok(FoundValues::Values(values))
    }
}

async fn follow_as_of(
    analyst: &Analyst,
    way: &Way,
    changed: Holders<'_>,
    as_of: AsOf,
) -> Result<FoundValues, Error> {
    let found = analyst.values(changed, &way.field, as_of).await?;
    let (Some(through), FoundValues::Values(among)) = (&way.through, &found) else {
        return Ok(found);
    };
    let holders = Holders {
        collection: &through.collection,
        field: &through.field,
        among,
    };
    analyst.values(holders, &through.value, as_of).await
}

fn ways(subjects: &[Subject]) -> BTreeSet<Way> {
    let reaches = subjects.iter().filter_map(|it| it.reach.as_ref());
    reaches.flat_map(|it| it.ways.iter().cloned()).collect()
}
