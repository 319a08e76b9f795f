//! Keeps the answers of all rules fresh.
//!
//! - A rule has one turn at a time: its whole answer, or a part. So no part is undone by an older whole.
//! - Turns that take long have a lane of their own, one after another; in the other lane quick ones follow each look.
//! - A whole answer replaces whatever is known of touched values; what is touched during a turn waits for the next one.
//! - Whatever fails is told once, counted, and tried again: it never stops what is replicated.

mod job;
mod look;
mod round;
mod subject;

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};
use walferry_core::{Class, Classify, Fault, Tasks};
use walferry_etl::analytics::RuleSet;
use walferry_mongodb::{Analyst, Error, Touched};

use self::job::{Done, End, What};
use self::look::Looks;
use self::round::Round;
use self::subject::{Need, Subject};
use super::{Freshness, Incremental, load};
use crate::apply::ApplyStatus;
use crate::config::Config;

/// Between two looks at least.
const REST: Duration = Duration::from_millis(100);
/// After a look that failed.
const RETRY: Duration = Duration::from_secs(1);
/// A moment is looked at again before MongoDB forgets it, after five minutes unless it is told otherwise.
const STALE: Duration = Duration::from_mins(1);

/// Keeps the answers of all rules fresh.
pub(super) struct Keeper {
    config: Config,
    every: Duration,
    sink: watch::Receiver<ApplyStatus>,
    freshness: watch::Sender<Freshness>,
    tasks: Tasks,
    analyst: Option<Analyst>,
    rules: RuleSet,
    subjects: Vec<Subject>,
    /// The rules of which it was said that they are not asked.
    told: BTreeSet<String>,
    /// None when all is refreshed on schedule alone.
    looks: Option<Looks>,
    look_not_before: Instant,
    looked: Instant,
    /// Whether the last look failed.
    is_blind: bool,
    /// The refresh that goes on.
    round: Option<Round>,
    next_round: Instant,
    /// The turn in the slow lane.
    slow: Option<JoinHandle<Done>>,
    done: Incremental,
}

// === impl Keeper ===

impl Keeper {
    pub(super) fn new(
        config: Config,
        every: Duration,
        sink: watch::Receiver<ApplyStatus>,
        touched: Option<Touched>,
        freshness: watch::Sender<Freshness>,
        tasks: Tasks,
    ) -> Self {
        let now = Instant::now();
        // Mistaken ones are told at the first refresh.
        let rules = load(&config).unwrap_or_default();
        let keeper = Self {
            every,
            sink,
            freshness,
            tasks,
            analyst: None,
            subjects: Subject::all(&rules),
            rules,
            told: BTreeSet::new(),
            looks: touched.map(Looks::new),
            look_not_before: now,
            looked: now,
            is_blind: false,
            round: None,
            next_round: now,
            slow: None,
            done: Incremental::default(),
            config,
        };
        keeper.watch();
        keeper.show();
        keeper
    }

    /// Works until the tasks stop, from the time on when the first snapshot is in.
    pub(super) async fn run(mut self) {
        let stop = self.tasks.stop_signal().clone();
        let live = async { self.sink.wait_for(|it| it.is_live).await.is_ok() };
        if stop.run_until_cancelled(live).await != Some(true) {
            return;
        }
        loop {
            let step = Box::pin(self.step());
            if stop.run_until_cancelled(step).await.is_none() {
                return;
            }
            self.show();
            let mut slow = self.slow.take();
            let woken = async {
                tokio::select! {
                    biased;
                    // 1. stop
                    () = stop.cancelled() => Woken::Stop,
                    // 2. completion
                    done = completion(&mut slow), if slow.is_some() => Woken::Done(done.map(Box::new)),
                    // 3. time, or something was touched
                    () = self.wake() => Woken::Step,
                }
            };
            let woken = woken.await;
            self.slow = slow;
            match woken {
                Woken::Stop => return,
                Woken::Step => {}
                Woken::Done(done) => {
                    self.slow = None;
                    match done {
                        Some(done) => self.finish(*done),
                        // A defect, which is told where it happened.
                        None => self.subjects.iter_mut().for_each(Subject::broke),
                    }
                }
            }
        }
    }

    async fn step(&mut self) {
        if self.round.is_none() && self.slow.is_none() && Instant::now() >= self.next_round {
            self.begin_round().await;
        }
        let Some(analyst) = self.analyst.clone() else {
            return;
        };
        if self.is_look_due() && !self.look(&analyst).await {
            return;
        }
        self.run_quick(&analyst).await;
        self.start_slow(analyst);
        self.end_round().await;
    }

    fn watch(&self) {
        if let Some(looks) = &self.looks {
            looks.watch(&self.subjects);
        }
    }

    fn is_look_due(&self) -> bool {
        let Some(looks) = &self.looks else {
            return false;
        };
        let now = Instant::now();
        let mut turns = self.subjects.iter().filter_map(Subject::next_turn);
        let is_wanted = looks.touched.has_news() || now >= self.looked + STALE;
        now >= self.look_not_before && (is_wanted || turns.any(|it| it <= now))
    }

    /// Looks at what was touched: whether that could be done.
    async fn look(&mut self, analyst: &Analyst) -> bool {
        let Some(looks) = &mut self.looks else {
            return true;
        };
        let looked = Box::pin(looks.look(analyst, &mut self.subjects)).await;
        let now = Instant::now();
        match looked {
            Ok(()) => {
                looks.is_calm &= !self.sink.borrow().is_behind;
                (self.looked, self.look_not_before) = (now, now + REST);
                self.is_blind = false;
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
        self.abandon_round(&error);
    }

    /// Asks the quick rules about what was touched, one after another.
    async fn run_quick(&mut self, analyst: &Analyst) {
        let Some(looks) = &self.looks else { return };
        let (seen, touched) = (looks.seen, looks.touched.clone());
        let stop = self.tasks.stop_signal().clone();
        for at in 0..self.subjects.len() {
            let subject = &mut self.subjects[at];
            if seen.is_some() && subject.is_quick() {
                let job = subject.start(seen);
                let run = job.run(analyst.clone(), Some(touched.clone()), stop.clone());
                let done = Box::pin(run).await;
                self.finish(done);
            }
        }
    }

    /// Begins the next turn of the slow lane.
    fn start_slow(&mut self, analyst: Analyst) {
        if self.slow.is_some() {
            return;
        }
        let looks = self.looks.as_ref();
        let seen = looks.and_then(|it| it.seen);
        let is_calm = looks.is_none_or(|it| it.is_calm);
        if looks.is_some() && seen.is_none() {
            return;
        }
        // A refresh first: its rules come in an order.
        let now = self.subjects.iter().position(|it| it.need == Need::Now);
        let slow = || self.subjects.iter().position(|it| it.is_slow(is_calm));
        let Some(at) = now.or_else(slow) else { return };
        let touched = looks.map(|it| it.touched.clone());
        let job = self.subjects[at].start(seen);
        let stop = self.tasks.stop_signal().clone();
        let run = Box::pin(job.run(analyst, touched, stop));
        self.slow = Some(self.tasks.spawn(run));
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
                if let (What::Whole(Need::Now), Some(round)) = (what, &mut self.round) {
                    round.kept(&subject.rule, kept);
                }
            }
            End::TooLarge => subject.put_back(what, Need::Soon),
            End::Stopped => subject.put_back(what, Need::Nothing),
            End::Failed(error) => self.fail(&rule, what, error),
        }
    }

    fn fail(&mut self, rule: &str, what: What, error: Error) {
        let Some(subject) = self.subjects.iter_mut().find(|it| it.rule.name == rule) else {
            return;
        };
        let is_gone = error.is_moment_gone();
        match what {
            What::Part { .. } => {
                // What is no passing trouble waits for the next refresh.
                let is_passing = error.class() == Class::Transient;
                let need = if is_passing {
                    Need::Nothing
                } else {
                    Need::Scheduled
                };
                subject.put_back(what, need);
                if is_gone {
                    return;
                }
                subject.retry_later();
                self.done.failures += 1;
                let error = Fault::from(error).to_string();
                if !std::mem::replace(&mut subject.is_failing, true) {
                    warn!(
                        rule,
                        error, "what was touched was not asked about: it is tried again"
                    );
                }
            }
            What::Whole(need) if is_gone && self.round.as_mut().is_none_or(Round::may_retry) => {
                subject.put_back(what, need);
            }
            What::Whole(Need::Now) => {
                subject.put_back(what, Need::Scheduled);
                let rule = subject.rule.clone();
                self.fail_in_round(&rule, error);
            }
            What::Whole(need) => {
                subject.put_back(what, need);
                subject.retry_later();
                self.done.failures += 1;
                let error = Fault::from(error).to_string();
                if !std::mem::replace(&mut subject.is_failing, true) {
                    warn!(rule, error, "a rule failed: it is tried again");
                }
            }
        }
    }

    /// Waits until there is something to do.
    async fn wake(&self) {
        let now = Instant::now();
        let soonest = now + REST;
        let mut at = self.next_round.max(soonest);
        if self.round.is_some() {
            at = now + RETRY;
        }
        let turns = self.subjects.iter().filter_map(Subject::next_turn);
        if self.slow.is_none()
            && let Some(turn) = turns.min()
        {
            at = at.min(turn.max(soonest));
        }
        let news = async {
            match &self.looks {
                Some(looks) if self.analyst.is_some() => {
                    looks.touched.news().await;
                    sleep_until(self.look_not_before).await;
                }
                _ => std::future::pending().await,
            }
        };
        if self.looks.is_some() {
            at = at.min(self.looked + STALE).max(soonest);
        }
        tokio::select! {
            () = sleep_until(at) => {}
            () = news => {}
        }
    }

    /// Shows how fresh the answers are.
    fn show(&self) {
        let incremental = self.looks.as_ref().map(|_| {
            let reached = self.subjects.iter().filter(|it| it.reach.is_some());
            let since = reached.clone().filter_map(Subject::waiting_since).min();
            Incremental {
                rules: reached.count() as u64,
                waiting_since: since.and_then(unix_seconds),
                ..self.done.clone()
            }
        });
        self.freshness
            .send_modify(|it| it.incremental = incremental);
    }
}

/// Why the keeper goes on.
enum Woken {
    Stop,
    Done(Option<Box<Done>>),
    Step,
}

/// Waits for the turn in the slow lane; none when it broke.
///
/// # Cancel safety
/// Cancel safe: the turn goes on.
async fn completion(slow: &mut Option<JoinHandle<Done>>) -> Option<Done> {
    match slow {
        Some(slow) => slow.await.ok(),
        None => std::future::pending().await,
    }
}

fn unix_seconds(at: SystemTime) -> Option<f64> {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(since.as_secs_f64())
}
