//! From documents that were written to the values that rules are asked about again.
//!
//! - A document leads to the values that it had at the look before and to those that it has now: between two looks a row
//!   may move from one to another, or go, and nothing but the past knows the value that it had.
//! - Whatever was committed up to the new moment was told before it, so it is among what is looked at; what was told
//!   meanwhile is looked at again. A new document may wait for the next look: there is no value that it had.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;
use tokio::time::Instant;
use tracing::{debug, warn};
use walferry_core::Fault;
use walferry_etl::analytics::Way;
use walferry_mongodb::{Analyst, AsOf, Changes, Error, FoundValues, Holders, Touched};

use super::subject::Subject;
use super::{Keeper, REST, RETRY, STALE};

/// What the looks know.
#[derive(Debug)]
pub(super) struct Looks {
    pub(super) touched: Touched,
    /// The moment of the last look.
    pub(super) seen: Option<AsOf>,
    /// The collections whose documents are answers, not rows.
    answers: BTreeSet<String>,
}

// === impl Looks ===

impl Looks {
    pub(super) fn new(touched: Touched) -> Self {
        Self {
            touched,
            seen: None,
            answers: BTreeSet::new(),
        }
    }

    /// Watches what matters to these rules.
    pub(super) fn watch(&mut self, subjects: &[Subject]) {
        let answers = subjects.iter().map(|it| it.rule.output.clone());
        self.answers = answers.collect();
        let watched = subjects.iter().flat_map(Subject::watched);
        self.touched.watch(watched.map(str::to_owned).collect());
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
        let begun = Instant::now();
        let now = analyst.newest().await?;
        let mut changes = taken.clone();
        changes.add(&self.touched.peek());
        let ways = ways(subjects);
        let leads = self.follow(analyst, &ways, &changes, now).await?;
        debug!(took = ?begun.elapsed(), "looked at what was touched");
        for subject in subjects {
            let collections = changes.collections();
            collections.for_each(|(name, _)| subject.note_change(name));
            let ways = subject.reach.iter().flat_map(|it| &it.ways);
            let found: Vec<_> = ways.filter_map(|it| leads.get(it)).collect();
            for found in found {
                subject.note(found, changes.since());
            }
        }
        self.seen = Some(now);
        Ok(())
    }

    /// The values that changes lead to, then and now, by their ways.
    async fn follow<'a>(
        &self,
        analyst: &Analyst,
        ways: &'a BTreeSet<Way>,
        changes: &Changes,
        now: AsOf,
    ) -> Result<BTreeMap<&'a Way, FoundValues>, Error> {
        let (mut leads, mut known) = (BTreeMap::new(), Vec::new());
        for (collection, documents) in changes.collections() {
            let ways: Vec<_> = ways
                .iter()
                .filter(|it| it.collection == collection)
                .collect();
            // Of some it matters only that they changed.
            if ways.is_empty() {
                continue;
            }
            match (self.seen, documents.old_ids(), documents.ids()) {
                (Some(before), Some(old), Some(all)) => {
                    known.push((collection, ways, [(old, before), (all, now)]));
                }
                _ => leads.extend(ways.into_iter().map(|it| (it, FoundValues::Unknown))),
            }
        }
        let asked = known.iter().flat_map(|(collection, ways, moments)| {
            moments.each_ref().map(|(ids, as_of)| {
                let changed = Holders {
                    collection,
                    field: "_id",
                    among: ids,
                    are_rows: !self.answers.contains(*collection),
                };
                follow_as_of(analyst, ways, changed, *as_of)
            })
        });
        for (way, found) in try_join_all(asked).await?.into_iter().flatten() {
            let lead = leads.entry(way).or_insert(FoundValues::Values(Vec::new()));
            lead.add(&found);
        }
        Ok(leads)
    }
}

// === impl Keeper ===

impl Keeper {
    pub(super) fn is_look_due(&self) -> bool {
        let Some(looks) = &self.looks else {
            return false;
        };
        let now = Instant::now();
        let mut turns = self.subjects.iter().filter_map(Subject::next_turn);
        let is_wanted = self.wants_look || looks.touched.has_news() || now >= self.looked + STALE;
        now >= self.look_not_before && (is_wanted || turns.any(|it| it <= now))
    }

    /// Looks at what was touched: whether that could be done.
    pub(super) async fn look(&mut self, analyst: &Analyst) -> bool {
        let Some(looks) = &mut self.looks else {
            return true;
        };
        let looked = Box::pin(looks.look(analyst, &mut self.subjects)).await;
        let now = Instant::now();
        match looked {
            Ok(()) => {
                (self.looked, self.look_not_before) = (now, now + REST);
                (self.is_blind, self.wants_look) = (false, false);
                true
            }
            Err(error) => {
                self.look_not_before = now + RETRY;
                self.fail_look(error);
                false
            }
        }
    }

    fn fail_look(&mut self, error: Error) {
        self.done.failures += 1;
        let error = Fault::from(error).to_string();
        if !std::mem::replace(&mut self.is_blind, true) {
            warn!(error, "what was touched cannot be looked at: alerts wait");
        }
    }
}

/// The values that documents of one collection lead to as of a moment, by their ways.
async fn follow_as_of<'a>(
    analyst: &Analyst,
    ways: &[&'a Way],
    changed: Holders<'_>,
    as_of: AsOf,
) -> Result<Vec<(&'a Way, FoundValues)>, Error> {
    let mut leads = Vec::new();
    let fields: BTreeSet<_> = ways.iter().map(|it| &*it.field).collect();
    let fields: Vec<_> = fields.into_iter().collect();
    let found = analyst.values(changed, &fields, as_of).await?;
    for (field, found) in fields.iter().zip(found) {
        for (through, ways) in by_hop(ways, field) {
            let found = match (through, &found) {
                (Some((collection, field)), FoundValues::Values(among)) => {
                    let holders = Holders {
                        collection,
                        field,
                        among,
                        are_rows: true,
                    };
                    let wanted = ways.iter().filter_map(|it| it.through.as_ref());
                    let wanted: Vec<_> = wanted.map(|it| &*it.value).collect();
                    analyst.values(holders, &wanted, as_of).await?
                }
                _ => vec![found.clone(); ways.len()],
            };
            leads.extend(ways.into_iter().zip(found));
        }
    }
    Ok(leads)
}

/// The ways over a field, by the collection and the field that it leads to.
fn by_hop<'a>(ways: &[&'a Way], field: &str) -> BTreeMap<Option<(&'a str, &'a str)>, Vec<&'a Way>> {
    let mut hops = BTreeMap::<_, Vec<_>>::new();
    for way in ways.iter().filter(|it| it.field == field) {
        let through = way.through.as_ref();
        let through = through.map(|it| (&*it.collection, &*it.field));
        hops.entry(through).or_default().push(*way);
    }
    hops
}

fn ways(subjects: &[Subject]) -> BTreeSet<Way> {
    let reaches = subjects.iter().filter_map(|it| it.reach.as_ref());
    reaches.flat_map(|it| it.ways.iter().cloned()).collect()
}
