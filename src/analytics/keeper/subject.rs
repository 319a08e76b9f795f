//! A rule whose answer is kept fresh: what of it is to be worked out anew, and when it may be.
//!
//! - What is touched while the rule is being asked waits for the next time.
//! - Alerts that cost little for a value are quick, however many values wait: it is the value that counts, or a rule that
//!   fell behind once would never be quick again. A report is quick while all of it is.
//! - A rule that is slow for its part may take a tenth of the time; others do not wait for it.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use walferry_etl::analytics::{Kind, Names, Reach, Rule, RuleSet};
use walferry_mongodb::{AsOf, FoundValues, Query, ValueSet};

use super::job::{Job, What};
use crate::analytics::desk::query;

/// Alerts that take longer for a value are worked out beside the looks.
const QUICK_VALUE: Duration = Duration::from_micros(300);
/// Those that take still longer rest in between.
const STEADY_VALUE: Duration = Duration::from_millis(5);
/// A report whose part takes longer is worked out beside the others.
const QUICK_REPORT: Duration = Duration::from_millis(50);
/// How many times as long as it took it waits then, at most so long: one hiccup of the server is not to count for minutes.
const REST: u32 = 9;
const LONGEST_REST: Duration = Duration::from_secs(20);
/// Of fewer values the question itself costs more than they do: up to ten milliseconds.
const FEW: usize = 32;
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
    /// The values that were touched.
    pending: ValueSet,
    /// Since when the oldest of them waits.
    since: Option<SystemTime>,
    /// The same of what is being worked out.
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
    /// Beside the looks, one rule after another.
    Steady,
    /// So too, with rests.
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
        Self {
            reach: rules.reach(rule).ok(),
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
        let sinces = [self.since, self.running_since];
        sinces.into_iter().flatten().min()
    }

    /// Notes values that were touched.
    pub(super) fn note(&mut self, found: &FoundValues, since: Option<SystemTime>) {
        let is_empty = matches!(found, FoundValues::Values(values) if values.is_empty());
        if is_empty || self.share == Share::None {
            return;
        }
        self.waits(since);
        if self.need != Need::Nothing {
            return;
        }
        let has_room = match found {
            FoundValues::Values(values) => self.pending.add(values.iter().cloned()),
            FoundValues::Unknown => false,
        };
        if !has_room {
            self.need = Need::Soon;
            self.pending = ValueSet::default();
        }
    }

    /// Has it be asked in a refresh, or not at all.
    pub(super) fn begin_round(&mut self, is_asked: bool) {
        self.share = if is_asked { Share::Due } else { Share::None };
        if !is_asked {
            (self.need, self.since) = (Need::Scheduled, None);
            self.pending = ValueSet::default();
        }
    }

    /// When it wants its next turn beside a refresh; none when it wants none, or has it.
    pub(super) fn next_turn(&self) -> Option<Instant> {
        let at = match self.need {
            Need::Nothing if !self.pending.is_empty() => self.part_not_before,
            Need::Soon => self.whole_not_before,
            Need::Nothing | Need::Scheduled => return None,
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
            // Nobody knows yet how long it would hold up the looks.
            None => Pace::Steady,
            Some(cost) if is_report && cost.took >= QUICK_REPORT => Pace::Slow,
            Some(cost) if !is_report && cost.value >= STEADY_VALUE => Pace::Slow,
            Some(cost) if !is_report && cost.value >= QUICK_VALUE => Pace::Steady,
            _ => Pace::Quick,
        }
    }

    /// What the next value of it costs, as far as it is known.
    pub(super) fn value_cost(&self) -> Option<Duration> {
        self.cost.map(|it| it.value)
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
        self.need == Need::Nothing && !self.is_running && !self.pending.is_empty() && is_due
    }

    /// Begins its turn with the values that were touched, or, where that is wanted more, with all of them.
    pub(super) fn start(&mut self, as_of: Option<AsOf>, is_in_round: bool) -> Job {
        let values = std::mem::take(&mut self.pending);
        let what = match &self.reach {
            Some(reach) if self.need == Need::Nothing && !is_in_round => What::Part {
                per: reach.per.clone(),
                field: reach.field.clone(),
                values,
            },
            _ => What::Whole {
                is_in_round,
                need: std::mem::replace(&mut self.need, Need::Nothing),
                values,
            },
        };
        if is_in_round {
            self.share = Share::Done;
        }
        self.is_running = true;
        self.running_since = self.since.take();
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
                self.cost = Some(Cost::of(values, took));
                self.is_failing = false;
                self.rest(took);
            }
            What::Whole { .. } => {
                self.part_not_before = now;
                self.whole_not_before = now + (took * REST).min(LONGEST_REST);
                self.is_whole_failing = false;
            }
        }
    }

    /// Ends its turn: nothing came of it, and it wants another one, which needs this before.
    pub(super) fn put_back(&mut self, what: What, took: Duration, need: Need) {
        let since = self.running_since.take();
        self.is_running = false;
        let (values, need) = match what {
            What::Part { values, .. } => {
                // It would cost as much again.
                let cost = Cost::of(&values, took);
                if self.cost.is_none_or(|it| it.took < took) {
                    self.cost = Some(cost);
                }
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
        self.note(&FoundValues::Values(values.into_values()), since);
        self.waits(since);
        if self.need != Need::Nothing {
            self.pending = ValueSet::default();
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
