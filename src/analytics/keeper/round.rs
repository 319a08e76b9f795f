//! A refresh of all answers, as it goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use tokio::time::Instant;
use tracing::{debug, info, warn};
use walferry_core::{Class, Classify, Fault};
use walferry_etl::analytics::{Kind, Rule, RuleSet};
use walferry_mongodb::{Analyst, ByHand, Changes, Error, Kept};

use super::Keeper;
use super::subject::{Share, Subject};
use crate::analytics::refresh::{self, Outcome};
use crate::analytics::{AnalyticsError, load};
use crate::pipeline::connect::mongodb_settings;

/// How often MongoDB may not have a moment yet.
const ATTEMPTS: u32 = 50;

/// A refresh of all answers, as it goes on.
#[derive(Debug)]
pub(super) struct Round {
    begun: Instant,
    outcomes: Vec<Outcome>,
    /// Whether the last rule failed because MongoDB is away or slow.
    is_away: bool,
    attempts: u32,
}

// === impl Round ===

impl Round {
    pub(super) fn kept(&mut self, rule: &Rule, kept: Kept) {
        self.is_away = false;
        self.outcomes.push(Outcome::of(rule, Ok(kept)));
    }

    /// Whether another moment may be asked about.
    pub(super) fn may_retry(&mut self) -> bool {
        self.attempts += 1;
        self.attempts < ATTEMPTS
    }

    /// Notes that a rule is not asked; `told` has those of which that was said, where it is no failure.
    fn without(&mut self, outcome: Outcome, told: &mut BTreeSet<String>) {
        let rule = &outcome.rule;
        if let Some(error) = &outcome.error {
            warn!(rule, error, "a rule failed: its answer stays as it was");
        } else if let Some(why) = &outcome.not_asked
            && told.insert(rule.clone())
        {
            info!(rule, why, "a rule is not asked: its answer stays as it was");
        }
        self.outcomes.push(outcome);
    }

    pub(super) fn failed(&mut self, rule: &Rule, error: String) {
        let name = &rule.name;
        warn!(
            rule = name,
            error, "a rule failed: its answer stays as it was"
        );
        self.outcomes.push(Outcome::failed(rule, error));
    }
}

// === impl Keeper ===

impl Keeper {
    /// Makes what the rules read, and has all of them be asked.
    pub(super) async fn begin_round(&mut self) {
        let begun = Instant::now();
        let mut without = match Box::pin(self.prepare()).await {
            Ok(without) => without,
            Err(error) => {
                warn!(
                    error = error.told(),
                    "the answers of the rules were not refreshed"
                );
                return self.note_round(1, begun);
            }
        };
        let mut round = Round {
            begun,
            outcomes: Vec::new(),
            is_away: false,
            attempts: 0,
        };
        let mut written = BTreeSet::new();
        for subject in &mut self.subjects {
            if let Some(outcome) = without.remove(&subject.rule.name) {
                subject.leave_out();
                round.without(outcome, &mut self.told);
            } else if self.looks.is_none() || subject.wants_refresh(&written) {
                subject.share = Share::Due;
                written.insert(subject.rule.output.clone());
            } else {
                subject.share = Share::Done;
            }
        }
        self.round = Some(round);
        // Its answers are those of now.
        self.wants_look = true;
    }

    /// What comes of the rules that read what is not there.
    async fn prepare(&mut self) -> Result<BTreeMap<String, Outcome>, AnalyticsError> {
        let rules = load(&self.config)?;
        if self.analyst.is_none() {
            let analyst = Box::pin(Analyst::connect(mongodb_settings(&self.config))).await?;
            self.analyst = Some(analyst);
        }
        let Some(analyst) = self.analyst.clone() else {
            return Err(AnalyticsError::Stopped);
        };
        let prepared = Box::pin(refresh::prepare(&analyst, &rules)).await?;
        if rules != self.rules {
            self.subjects = Subject::all(&rules);
            self.rules = rules;
            self.watch();
        }
        let by_hand = analyst.by_hand().await.map_err(Fault::from)?;
        let is_new = std::mem::replace(&mut self.by_hand, by_hand) != by_hand;
        let is_by_hand = is_new || by_hand.is_some_and(ByHand::may_go_on);
        for subject in &mut self.subjects {
            subject.note_standing(&prepared.standing);
            if is_by_hand {
                subject.renew();
            }
            if self.looks.is_some() {
                make_index(&analyst, subject).await;
            }
        }
        Ok(prepared.without)
    }

    /// Notes that a rule failed in a refresh. After a second one that MongoDB did not answer the others would wait in vain.
    pub(super) fn fail_in_round(&mut self, rule: &Rule, error: Error) {
        let is_away = error.class() == Class::Transient;
        let error = Fault::from(error).to_string();
        let Some(round) = &mut self.round else {
            // The refresh was given up before it came to this.
            self.done.failures += 1;
            let rule = &rule.name;
            return warn!(rule, error, "a rule failed: its answer stays as it was");
        };
        let was_away = std::mem::replace(&mut round.is_away, is_away);
        round.failed(rule, error.clone());
        if was_away && is_away {
            self.abandon_round(&error);
        }
    }

    /// Ends a refresh that cannot go on.
    pub(super) fn abandon_round(&mut self, error: &str) {
        let Some(round) = self.round.take() else {
            return;
        };
        warn!(error, "the answers of the rules were not refreshed");
        let due = self.subjects.iter_mut().filter(|it| it.share == Share::Due);
        due.for_each(|it| it.share = Share::Done);
        self.note_round(1, round.begun);
    }

    /// Ends a refresh when all rules have had their turn.
    pub(super) async fn end_round(&mut self) {
        let is_over = self.slow.is_none() && !self.subjects.iter().any(|it| it.share == Share::Due);
        let (Some(analyst), true) = (&self.analyst, is_over && self.round.is_some()) else {
            return;
        };
        let Some(round) = self.round.take() else {
            return;
        };
        let mut failures = round
            .outcomes
            .iter()
            .filter(|it| it.error.is_some())
            .count() as u64;
        let opened = self
            .looks
            .as_ref()
            .map(|it| it.touched.open(alerts(&self.rules)));
        let forgotten = Box::pin(refresh::forget(analyst, &self.rules, &round.outcomes)).await;
        match opened {
            Some(opened) if forgotten.as_ref().is_ok_and(Vec::is_empty) => opened.withdraw(),
            Some(opened) => opened.close(),
            None => {}
        }
        if let Err(fault) = forgotten {
            failures += 1;
            warn!(%fault, "the alerts of rules that are gone were not removed");
        }
        self.note_round(failures, round.begun);
    }

    fn note_round(&mut self, failures: u64, begun: Instant) {
        self.next_round = Instant::now() + self.every;
        let took = begun.elapsed().as_secs_f64();
        self.freshness.send_modify(|it| {
            it.failures += failures;
            it.refresh_seconds = Some(took);
            if failures == 0 {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                it.refreshed_at = now.ok().map(|it| it.as_secs());
            }
        });
    }
}

/// The collections of alerts, which lose those of rules that are gone.
fn alerts(rules: &RuleSet) -> Changes {
    let alerts = rules.rules().iter().filter(|it| it.kind == Kind::Alerts);
    alerts.map(|it| Changes::whole(&it.output)).collect()
}

async fn make_index(analyst: &Analyst, subject: &Subject) {
    let Some(reach) = &subject.reach else { return };
    let rule = &subject.rule;
    let is_alerts = rule.kind == Kind::Alerts;
    let made = analyst.make_part_index(&rule.output, is_alerts, &reach.field);
    if let Err(error) = made.await {
        // The rule says so itself when it is asked.
        debug!(rule = rule.name, %error, "no index for a part of its answer");
    }
}
