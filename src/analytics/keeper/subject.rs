//! A rule whose answer is kept fresh: what of it is to be worked out anew, and when it may be.
//!
//! - What is touched while the rule is being asked waits for the next time.
//! - Alerts that cost little for a value are quick, however many values wait: a turn asks about as many of them as there is
//!   time for, those that wait longest, so that no rule holds up the others. A report is quick while all of it is.
//! - A rule that is slow for its part rests; others do not wait for it.
//! - A refresh works out the whole answer of a rule that is followed only when something changed that it is not followed
//!   through, or, now and then, because others may have written to what it reads.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use walferry_etl::analytics::{Kind, Names, Reach, Rule, RuleSet};
use walferry_mongodb::{AsOf, FoundValues, Query, Standing, ValueSet};

use super::job::{Job, VALUES, What};
use crate::analytics::desk::query;

/// The question of a quick turn is given up when it takes longer.
const LONGEST_QUICK: Duration = Duration::from_secs(1);
/// Alerts that take longer for a value are worked out beside the quick ones.
const SLOW_VALUE: Duration = Duration::from_millis(5);
/// What took longer than it may counts so many times as much as it was believed to: it may have been a hiccup of the server.
const SURPRISE: [u32; 2] = [2, 4];
/// A report whose part takes longer is worked out beside the others.
const QUICK_REPORT: Duration = Duration::from_millis(50);
/// How many times as long as it took it waits then, at most so long: one hiccup of the server is not to count for minutes.
const REST: u32 = 9;
pub(super) const LONGEST_REST: Duration = Duration::from_mins(1);
/// What a value costs that nobody has asked about.
const UNKNOWN: Duration = Duration::from_millis(1);
/// Of fewer values the question itself costs more than they do: up to ten milliseconds.
const FEW: usize = 32;
/// A whole answer that nothing asks for is worked out again after so many times as long as it took.
const RENEWAL: u32 = 1_000;
/// Alerts that wait longer are late.
const LATE: Duration = Duration::from_millis(500);
/// How long a rule that failed waits.
const RETRY: Duration = Duration::from_secs(5);

/// A rule whose answer is kept fresh.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) rule: Rule,
    /// None when it is worked out on schedule alone.
    pub(super) reach: Option<Reach>,
    pub(super) need: Need,
    pub(super) share: Share,
    query: Query,
    /// What it reads and is not followed through.
    unfollowed: BTreeSet<String>,
    /// What it reads and where its answer is kept, as that stood at the last refresh.
    stood: BTreeMap<String, Option<Standing>>,
    renewal: Instant,
    /// The values that were touched.
    pending: ValueSet,
    /// Since when its whole answer is waited for.
    since: Option<SystemTime>,
    /// Since when it is, what is being worked out.
    running_since: Option<SystemTime>,
    is_running: bool,
    /// What its last part cost; none before the first.
    cost: Option<Cost>,
    part_not_before: Instant,
    whole_not_before: Instant,
    /// Whether its last part failed.
    pub(super) is_failing: bool,
    /// Whether its last whole failed that was worked out without a refresh.
    pub(super) is_whole_failing: bool,
}

/// In which lane a rule has its turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// After each look.
    Quick,
    /// Beside the looks, one rule after another, with rests.
    Slow,
}

/// What a part cost.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// All of it.
    took: Duration,
    /// About each of its values.
    value: Duration,
}

// === impl Cost ===

impl Cost {
    fn of(values: &ValueSet, took: Duration) -> Self {
        let count = u32::try_from(values.len().max(FEW)).unwrap_or(u32::MAX);
        Self {
            took,
            value: took / count,
        }
    }

    /// With what another one cost after it.
    fn and(self, next: Self) -> Self {
        Self {
            took: next.took,
            value: (self.value + next.value) / 2,
        }
    }

    /// With what another one came to that was given up.
    fn surprised_by(self, next: Self) -> Self {
        let [least, most] = SURPRISE.map(|it| self.value * it);
        Self {
            value: next.value.clamp(least, most),
            ..next
        }
    }
}

/// What a rule has of a refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// It is not asked: what it reads is not there.
    None,
    /// Its whole answer is to be worked out. Until that begins, parts go on.
    Due,
    /// All that it is to have.
    Done,
}

/// Whether the whole answer has to be worked out before a part can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    /// What is kept holds, but for the values that were touched.
    Nothing,
    /// The same so far as that can be followed; the next refresh follows the rest.
    Renewal,
    /// Once there is time for it.
    Soon,
    /// With the next refresh.
    Scheduled,
}

// === impl Subject ===

impl Subject {
    /// The rules whose answers are kept, each after those whose answers it reads.
    pub(super) fn all(rules: &RuleSet) -> Vec<Self> {
        let kept = rules.in_order().filter(|it| it.kind != Kind::View);
        kept.map(|rule| Self::new(rules, rule)).collect()
    }

    fn new(rules: &RuleSet, rule: &Rule) -> Self {
        let reach = rules.reach(rule).ok();
        let behind = |name| rules.collections_of(name).into_iter().map(str::to_owned);
        let unfollowed = reach.iter().flat_map(|it| &it.unfollowed);
        let sources = rule.sources().flat_map(|it| behind(&*it.name));
        let views = rules.views_of(&[rule]).into_iter();
        let stood = sources.chain(views.map(|it| it.name.clone()));
        let stood = stood.chain([rule.output.clone()]);
        Self {
            unfollowed: unfollowed.flat_map(|it| behind(&**it)).collect(),
            stood: stood.map(|it| (it, None)).collect(),
            renewal: Instant::now(),
            reach,
            need: Need::Scheduled,
            share: Share::Done,
            query: query(rule, &rule.defaults(), &Names::new()),
            rule: rule.clone(),
            pending: ValueSet::default(),
            since: None,
            running_since: None,
            is_running: false,
            cost: None,
            part_not_before: Instant::now(),
            whole_not_before: Instant::now(),
            is_failing: false,
            is_whole_failing: false,
        }
    }

    /// Since when something waits that this rule was not asked about.
    pub(super) fn waiting_since(&self) -> Option<SystemTime> {
        let sinces = [self.since, self.pending.since(), self.running_since];
        sinces.into_iter().flatten().min()
    }

    /// Notes values that were touched.
    pub(super) fn note(&mut self, found: &FoundValues, since: Option<SystemTime>) {
        let is_empty = matches!(found, FoundValues::Values(values) if values.is_empty());
        if is_empty || self.share == Share::None {
            return;
        }
        if !self.holds() {
            return self.waits(since);
        }
        let has_room = match found {
            FoundValues::Values(values) => self.pending.add(values.iter().cloned(), since),
            FoundValues::Unknown => false,
        };
        if !has_room {
            self.waits(since);
            self.be_whole(Need::Soon);
        }
    }

    /// Has its whole answer be worked out, which has whatever was touched.
    fn be_whole(&mut self, need: Need) {
        self.need = self.need.max(need);
        self.waits(self.pending.since());
        self.pending = ValueSet::default();
    }

    /// The collections that matter to it.
    pub(super) fn watched(&self) -> impl Iterator<Item = &str> {
        let ways = self.reach.iter().flat_map(|it| &it.ways);
        let followed = ways.map(|it| &*it.collection);
        followed.chain(self.unfollowed.iter().map(String::as_str))
    }

    /// Notes that a collection changed.
    pub(super) fn note_change(&mut self, collection: &str) {
        if self.unfollowed.contains(collection) {
            self.renew();
        }
    }

    /// Has the next refresh work out its whole answer.
    pub(super) fn renew(&mut self) {
        self.need = self.need.max(Need::Renewal);
    }

    /// Notes what stands in the database: of what was made anew no change of a document told.
    pub(super) fn note_standing(&mut self, standing: &BTreeMap<String, Standing>) {
        let mut is_other = false;
        for (name, stood) in &mut self.stood {
            let stands = standing.get(name);
            // What came to be since is asked about anyway.
            is_other |= stood.is_some() && stood.as_ref() != stands;
            *stood = stands.cloned();
        }
        if is_other {
            self.renew();
        }
    }

    /// Has it not be asked at all.
    pub(super) fn leave_out(&mut self) {
        (self.share, self.need, self.since) = (Share::None, Need::Scheduled, None);
        self.pending = ValueSet::default();
    }

    /// Whether its whole answer is worth a refresh, where these collections are to be written in it.
    pub(super) fn wants_refresh(&self, written: &BTreeSet<String>) -> bool {
        let is_due = self.need != Need::Nothing || Instant::now() >= self.renewal;
        self.reach.is_none() || is_due || !self.unfollowed.is_disjoint(written)
    }

    /// Whether what is kept holds, but for values.
    fn holds(&self) -> bool {
        self.need <= Need::Renewal
    }

    /// When it wants its next turn beside a refresh; none when it wants none, or has it.
    pub(super) fn next_turn(&self) -> Option<Instant> {
        let at = match self.need {
            Need::Soon => self.whole_not_before,
            Need::Nothing | Need::Renewal if !self.pending.is_empty() => self.part_not_before,
            Need::Nothing | Need::Renewal | Need::Scheduled => return None,
        };
        (!self.is_running).then_some(at)
    }

    /// Whether a part of it can be worked out now in this lane.
    pub(super) fn wants_part_in(&self, pace: Pace) -> bool {
        self.wants_part() && self.pace() == pace
    }

    /// Whether its turn in a refresh can begin.
    pub(super) fn is_due_in_round(&self) -> bool {
        self.share == Share::Due && !self.is_running
    }

    fn pace(&self) -> Pace {
        let is_report = self.rule.kind != Kind::Alerts;
        match self.cost {
            None if is_report => Pace::Slow,
            Some(cost) if is_report && cost.took >= QUICK_REPORT => Pace::Slow,
            Some(cost) if !is_report && cost.value >= SLOW_VALUE => Pace::Slow,
            _ => Pace::Quick,
        }
    }

    /// Whether alerts come later than they could.
    pub(super) fn is_late(&self) -> bool {
        let waits = |since: SystemTime| since.elapsed().is_ok_and(|it| it > LATE);
        let can_be_asked = self.rule.kind == Kind::Alerts && self.wants_part_in(Pace::Quick);
        can_be_asked && self.pending.since().is_some_and(waits)
    }

    /// What all values that wait may cost.
    pub(super) fn cost(&self) -> Duration {
        self.value_cost() * u32::try_from(self.pending.len()).unwrap_or(u32::MAX)
    }

    fn value_cost(&self) -> Duration {
        self.cost.map_or(UNKNOWN, |it| it.value)
    }

    /// Whether it wants to be worked out now, beside the others.
    pub(super) fn is_slow(&self, is_calm: bool) -> bool {
        self.wants_whole(is_calm) || self.wants_part_in(Pace::Slow)
    }

    /// Whether its whole answer can be worked out now, without a refresh.
    fn wants_whole(&self, is_calm: bool) -> bool {
        let is_due = is_calm && Instant::now() >= self.whole_not_before;
        self.need == Need::Soon && !self.is_running && is_due
    }

    fn wants_part(&self) -> bool {
        let is_due = Instant::now() >= self.part_not_before;
        self.holds() && !self.is_running && !self.pending.is_empty() && is_due
    }

    /// Begins a quick turn with the values that wait longest, so many that it may take this long.
    pub(super) fn start_quick(&mut self, as_of: Option<AsOf>, share: Duration) -> Option<Job> {
        let fits = share.as_nanos() / self.value_cost().as_nanos().max(1);
        // One question at most.
        let fits = usize::try_from(fits).unwrap_or(VALUES).clamp(FEW, VALUES);
        let part = self.start_part(fits, Some(LONGEST_QUICK))?;
        Some(self.job(part, as_of))
    }

    /// Begins a turn beside the looks with all values that were touched, or, where that is wanted more, with the whole answer.
    pub(super) fn start(&mut self, as_of: Option<AsOf>, is_in_round: bool) -> Job {
        let is_part = self.holds() && !is_in_round;
        let part = is_part.then(|| self.start_part(usize::MAX, None)).flatten();
        let what = part.unwrap_or_else(|| self.start_whole(is_in_round));
        self.job(what, as_of)
    }

    /// None when it is not followed.
    fn start_part(&mut self, most: usize, limit: Option<Duration>) -> Option<What> {
        let reach = self.reach.as_ref()?;
        let values = self.pending.take_first(most);
        self.running_since = values.since();
        Some(What::Part {
            per: reach.per.clone(),
            field: reach.field.clone(),
            values,
            limit,
        })
    }

    fn start_whole(&mut self, is_in_round: bool) -> What {
        let values = std::mem::take(&mut self.pending);
        self.waits(values.since());
        self.running_since = self.since.take();
        if is_in_round {
            self.share = Share::Done;
        }
        What::Whole {
            is_in_round,
            need: std::mem::replace(&mut self.need, Need::Nothing),
            values,
        }
    }

    fn job(&mut self, what: What, as_of: Option<AsOf>) -> Job {
        self.is_running = true;
        Job {
            rule: self.rule.name.clone(),
            query: self.query.clone(),
            output: self.rule.output.clone(),
            is_alerts: self.rule.kind == Kind::Alerts,
            what,
            as_of,
        }
    }

    /// Ends its turn: what it was asked is kept.
    pub(super) fn kept(&mut self, what: &What, took: Duration) {
        (self.is_running, self.running_since) = (false, None);
        let now = Instant::now();
        match what {
            What::Part { values, .. } => {
                let cost = Cost::of(values, took);
                self.cost = Some(self.cost.map_or(cost, |it| it.and(cost)));
                self.is_failing = false;
                self.rest(took);
            }
            What::Whole { .. } => {
                self.part_not_before = now;
                self.whole_not_before = now + (took * REST).min(LONGEST_REST);
                self.renewal = now + took * RENEWAL;
                self.is_whole_failing = false;
            }
        }
    }

    /// Ends its turn: it took longer than it may, and wants another one about less.
    pub(super) fn gave_up(&mut self, what: What, took: Duration) {
        if let What::Part { values, .. } = &what {
            let cost = Cost::of(values, took);
            self.cost = Some(self.cost.map_or(cost, |it| it.surprised_by(cost)));
        }
        self.put_back(what, took, Need::Nothing);
    }

    /// Ends its turn: nothing came of it, and it wants another one, which needs this before.
    pub(super) fn put_back(&mut self, what: What, took: Duration, need: Need) {
        let since = self.running_since.take();
        self.is_running = false;
        let (values, need) = match what {
            What::Part { values, .. } => {
                self.rest(took);
                (values, need)
            }
            What::Whole {
                need: before,
                values,
                ..
            } => (values, need.max(before)),
        };
        self.need = self.need.max(need);
        // They waited longer than what came meanwhile.
        let newer = std::mem::replace(&mut self.pending, values);
        let has_room = self.pending.append(newer);
        if !has_room || !self.holds() {
            self.waits(since);
            self.be_whole(if has_room { need } else { Need::Soon });
        }
    }

    /// Has it wait after a part, where that is slow.
    fn rest(&mut self, took: Duration) {
        if self.pace() == Pace::Slow {
            self.part_not_before = Instant::now() + (took * REST).min(LONGEST_REST);
        }
    }

    /// Ends a turn that broke: it waits for the schedule.
    pub(super) fn broke(&mut self) {
        if self.is_running {
            (self.is_running, self.need) = (false, Need::Scheduled);
            let since = self.running_since.take();
            self.waits(since);
        }
    }

    /// Has it wait before its next turn.
    pub(super) fn retry_later(&mut self) {
        let later = Instant::now() + RETRY;
        (self.part_not_before, self.whole_not_before) = (later, later);
    }

    fn waits(&mut self, since: Option<SystemTime>) {
        self.since = [self.since, since].into_iter().flatten().min();
    }
}

#[cfg(test)]
mod tests;
