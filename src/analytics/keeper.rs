//! Keeps the answers of all rules fresh.
//!
//! - A rule has one turn at a time: its whole answer, or a part. So no part is undone by an older whole.
//! - Quick turns follow each look; those that take longer have a lane of their own beside the looks.
//! - A whole answer replaces whatever is known of touched values; what is touched during a turn waits for the next one.
//! - Whatever fails is told once, counted, and tried again: it never stops what is replicated.

mod job;
mod lanes;
mod look;
mod round;
mod subject;

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use walferry_core::Tasks;
use walferry_etl::analytics::RuleSet;
use walferry_mongodb::{Analyst, ByHand, Touched};

use self::job::Done;
use self::lanes::Turn;
use self::look::Looks;
use self::round::Round;
use self::subject::Subject;
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
    /// What was noted of answers that are kept by hand.
    by_hand: Option<ByHand>,
    /// None when all is refreshed on schedule alone.
    looks: Option<Looks>,
    look_not_before: Instant,
    looked: Instant,
    /// Whether the moment of the last look is not the one to ask about.
    wants_look: bool,
    /// Whether the last look failed.
    is_blind: bool,
    /// The refresh that goes on.
    round: Option<Round>,
    next_round: Instant,
    /// The turn in the slow lane.
    slow: Option<Turn>,
    slow_not_before: Instant,
    /// When the slow lane waits no longer for alerts that are late.
    slow_at_last: Instant,
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
        let mut keeper = Self {
            every,
            sink,
            freshness,
            tasks,
            analyst: None,
            subjects: Subject::all(&rules),
            rules,
            told: BTreeSet::new(),
            by_hand: None,
            looks: touched.map(Looks::new),
            look_not_before: now,
            looked: now,
            wants_look: false,
            is_blind: false,
            round: None,
            next_round: now,
            slow: None,
            slow_not_before: now,
            slow_at_last: now,
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
            let is_free = slow.is_none();
            let woken = async {
                tokio::select! {
                    biased;
                    // 1. stop
                    () = stop.cancelled() => Woken::Stop,
                    // 2. completion
                    done = completion(&mut slow), if slow.is_some() => Woken::Done(done.map(Box::new)),
                    // 3. time, or something was touched
                    () = self.wake(is_free) => Woken::Step,
                }
            };
            let woken = woken.await;
            self.slow = slow;
            match woken {
                Woken::Stop => return,
                Woken::Step => {}
                Woken::Done(done) => self.end_turn(done.map(|it| *it)),
            }
        }
    }

    async fn step(&mut self) {
        if self.is_round_due() && self.slow.is_none() {
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

    /// Whether a refresh is due: no turn begins beside the looks before it has, since the rules may be others then.
    fn is_round_due(&self) -> bool {
        self.round.is_none() && Instant::now() >= self.next_round
    }

    fn watch(&mut self) {
        if let Some(looks) = &mut self.looks {
            looks.watch(&self.subjects);
        }
    }

    /// Waits until there is something to do.
    async fn wake(&self, is_free: bool) {
        if self.has_quick() {
            return;
        }
        let now = Instant::now();
        let soonest = now + REST;
        let mut at = self.next_round.max(soonest);
        if self.round.is_some() {
            at = now + RETRY;
        }
        let turns = self.subjects.iter().filter_map(Subject::next_turn);
        let is_due = self.subjects.iter().any(Subject::is_due_in_round);
        let turn = turns.min().into_iter().chain(is_due.then_some(now)).min();
        if is_free && let Some(turn) = turn {
            at = at.min(turn.max(soonest).max(self.slow_not_before));
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
        if self.wants_look {
            at = at.min(self.look_not_before);
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

/// Waits for the turn in a lane; none when it broke.
///
/// # Cancel safety
/// Cancel safe: the turn goes on.
async fn completion(turn: &mut Option<Turn>) -> Option<Done> {
    match turn {
        Some(turn) => (&mut turn.task).await.ok(),
        None => std::future::pending().await,
    }
}

fn unix_seconds(at: SystemTime) -> Option<f64> {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(since.as_secs_f64())
}
