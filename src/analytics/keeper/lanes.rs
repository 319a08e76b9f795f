//! The two lanes in which rules have their turns.
//!
//! - The quick lane asks several rules at a time; none of them takes long, and all have their turn before one has another.
//! - The slow lane has one turn at a time, beside the looks, and rests as long as a turn took, longer while alerts are late:
//!   the servers have more to do.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{debug, warn};
use walferry_core::{Class, Classify, Fault};
use walferry_mongodb::{Analyst, AsOf, Error};

use super::Keeper;
use super::job::{Done, End, Job, What};
use super::round::Round;
use super::subject::{LONGEST_REST, Need, Pace, Share, Subject};

/// A turn beside the looks.
#[derive(Debug)]
pub(super) struct Turn {
    rule: String,
    pub(super) task: JoinHandle<Done>,
}

/// So many quick rules are asked at a time.
const AT_A_TIME: usize = 2;
/// The turns of all quick rules take about so long in sum. What cheap ones leave of it is for the dear ones.
const QUICK: Duration = Duration::from_millis(1_200);
/// While alerts are late the slow lane rests so many times as long as a turn took, a minute longer at most.
const LONG_REST: u32 = 10;

// === impl Keeper ===

impl Keeper {
    /// Asks the quick rules about what was touched.
    pub(super) async fn run_quick(&mut self, analyst: &Analyst) {
        let (Some(looks), Some(seen)) = (&self.looks, self.moment()) else {
            return;
        };
        let touched = looks.touched.clone();
        let stop = self.tasks.stop_signal().clone();
        let jobs = shared_out(&mut self.subjects, seen);
        let turns = jobs.into_iter().map(|job| {
            let turn = job.run(analyst.clone(), Some(touched.clone()), stop.clone());
            Box::pin(turn)
        });
        let mut turns = stream::iter(turns).buffer_unordered(AT_A_TIME);
        while let Some(done) = turns.next().await {
            self.finish(done);
        }
    }

    /// Whether there is a quick rule to ask at once.
    pub(super) fn has_quick(&self) -> bool {
        let mut subjects = self.subjects.iter();
        self.moment().is_some() && subjects.any(|it| it.wants_part_in(Pace::Quick))
    }

    /// The moment that can be asked about: none before the first look, and while another look is wanted.
    fn moment(&self) -> Option<AsOf> {
        self.looks.as_ref().filter(|_| !self.wants_look)?.seen
    }

    /// Begins the next turn of the slow lane.
    pub(super) fn start_slow(&mut self, analyst: Analyst) {
        if self.slow.is_some() || self.is_slow_resting() || self.is_round_due() {
            return;
        }
        let (looks, seen) = (self.looks.as_ref(), self.moment());
        // A refresh asks about its own time.
        if looks.is_some() && seen.is_none() {
            return;
        }
        let touched = looks.map(|it| it.touched.clone());
        let is_calm = !self.sink.borrow().is_behind;
        // A refresh first: its rules come in an order.
        let mut due = self.subjects.iter_mut().filter(|it| it.is_due_in_round());
        let job = if let Some(subject) = due.next() {
            subject.start(seen, true)
        } else {
            let slow = self.subjects.iter_mut().filter(|it| it.is_slow(is_calm));
            let Some(subject) = slow.min_by_key(|it| it.waiting_since()) else {
                return;
            };
            subject.start(seen, false)
        };
        let stop = self.tasks.stop_signal().clone();
        let rule = job.rule.clone();
        let run = Box::pin(job.run(analyst, touched, stop));
        let task = self.tasks.spawn(run);
        self.slow = Some(Turn { rule, task });
    }

    fn is_slow_resting(&self) -> bool {
        let now = Instant::now();
        let yields = || now < self.slow_at_last && self.subjects.iter().any(Subject::is_late);
        now < self.slow_not_before || yields()
    }

    /// Ends the turn of the slow lane; a turn without an end broke.
    pub(super) fn end_turn(&mut self, done: Option<Done>) {
        let took = done.as_ref().map(|it| it.took);
        let rest = took.filter(|_| self.looks.is_some()).unwrap_or_default();
        let now = Instant::now();
        self.slow_not_before = now + rest;
        self.slow_at_last = now + (rest * LONG_REST).min(rest + LONGEST_REST);
        let turn = self.slow.take();
        if let Some(done) = done {
            return self.finish(done);
        }
        // A defect, which is told where it happened.
        let broke = |it: &&mut Subject| turn.as_ref().is_some_and(|turn| turn.rule == it.rule.name);
        for subject in self.subjects.iter_mut().filter(broke) {
            subject.broke();
            if let Some(round) = &mut self.round {
                round.failed(&subject.rule, "it broke".to_owned());
            }
        }
    }

    /// Ends a turn.
    fn finish(&mut self, done: Done) {
        let Done {
            rule,
            what,
            end,
            took,
        } = done;
        let Some(subject) = self.subjects.iter_mut().find(|it| it.rule.name == rule) else {
            return;
        };
        if let What::Part { values, .. } = &what {
            self.done.runs += 1;
            self.done.values += values.len() as u64;
            self.done.seconds += took.as_secs_f64();
        }
        match end {
            End::Kept(kept) => {
                debug!(rule, ?kept, ?took, "refreshed");
                subject.kept(&what, took);
                let is_in_round = matches!(what, What::Whole { is_in_round, .. } if is_in_round);
                if let Some(round) = self.round.as_mut().filter(|_| is_in_round) {
                    round.kept(&subject.rule, kept);
                }
            }
            End::TooLarge => subject.put_back(what, took, Need::Soon),
            End::TooSlow => {
                debug!(rule, ?took, "asked again, about less at a time");
                subject.gave_up(what, took);
            }
            End::Stopped => subject.put_back(what, took, Need::Nothing),
            End::Failed(error) => self.fail(&rule, (what, took), error),
        }
    }

    fn fail(&mut self, rule: &str, (what, took): (What, Duration), error: Error) {
        let Some(subject) = self.subjects.iter_mut().find(|it| it.rule.name == rule) else {
            return;
        };
        let is_gone = error.is_moment_gone();
        self.wants_look |= is_gone;
        let is_passing = error.class() == Class::Transient;
        // What is no passing trouble waits for the next refresh.
        let need = if is_passing {
            Need::Nothing
        } else {
            Need::Scheduled
        };
        let (is_part, is_in_round) = match what {
            What::Part { .. } => (true, false),
            What::Whole { is_in_round, .. } => (false, is_in_round),
        };
        let mut may_retry = || self.round.as_mut().is_none_or(Round::may_retry);
        if is_gone && (is_part || may_retry()) {
            subject.put_back(what, took, Need::Nothing);
            if is_in_round {
                subject.share = Share::Due;
            }
            return;
        }
        subject.put_back(what, took, need);
        subject.retry_later();
        if is_in_round {
            let rule = subject.rule.clone();
            return self.fail_in_round(&rule, error);
        }
        self.done.failures += 1;
        let error = Fault::from(error).to_string();
        if is_part && !std::mem::replace(&mut subject.is_failing, true) {
            warn!(
                rule,
                error, "what was touched was not asked about: it is tried again"
            );
        }
        if !is_part && !std::mem::replace(&mut subject.is_whole_failing, true) {
            warn!(rule, error, "a rule failed: it is tried again");
        }
    }
}

/// Begins the turns of the quick rules, each with as much of the time as it needs or an equal share of what is left.
fn shared_out(subjects: &mut [Subject], seen: AsOf) -> Vec<Job> {
    let quick = subjects
        .iter_mut()
        .filter(|it| it.wants_part_in(Pace::Quick));
    let mut quick: Vec<_> = quick.collect();
    // Few wait long when the cheapest come first, and what they leave is known then.
    quick.sort_by_key(|it| it.cost());
    let (mut time, mut rules) = (QUICK, u32::try_from(quick.len()).unwrap_or(u32::MAX));
    let start = |subject: &mut Subject| {
        let share = time / rules.max(1);
        time -= share.min(subject.cost());
        rules = rules.saturating_sub(1);
        subject.start_quick(Some(seen), share)
    };
    quick.into_iter().filter_map(start).collect()
}
