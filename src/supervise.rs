//! What follows an error: the one place that decides it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use walferry_core::{Class, Fault};

use crate::status::{self, Trouble};

const FIRST_WAIT: Duration = Duration::from_millis(100);
/// A server that is back is not to be waited for longer than this; an attempt costs it little.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// A part that ran for this long before it failed is taken to have worked.
const SETTLED: Duration = Duration::from_secs(30);

/// Restarts one part of the pipeline after passing errors, each time a little later.
#[derive(Debug)]
pub(crate) struct Supervisor {
    part: &'static str,
    failures: u32,
    has_worked: bool,
    started_at: Instant,
    shown: watch::Sender<Option<Trouble>>,
}

// === impl Supervisor ===

impl Supervisor {
    /// A supervisor of the part with this name, which shows the errors it goes on after.
    pub(crate) fn new(part: &'static str, shown: watch::Sender<Option<Trouble>>) -> Self {
        Self {
            part,
            failures: 0,
            has_worked: false,
            started_at: Instant::now(),
            shown,
        }
    }

    /// Notes whether the part has reached its servers and begun its work, at any time of this process.
    pub(crate) fn note(&mut self, has_worked: bool) {
        self.has_worked |= has_worked;
    }

    /// Waits until the part may be tried again; returns at once when told to stop.
    ///
    /// # Errors
    /// The fault itself when trying again would not help.
    pub(crate) async fn after(
        &mut self,
        fault: Fault,
        stop: &CancellationToken,
    ) -> Result<(), Fault> {
        let may_pass = match fault.class() {
            Class::Transient => true,
            Class::File => self.has_worked,
            Class::Poison | Class::Fatal | Class::Fenced => false,
        };
        if !may_pass {
            if fault.class() == Class::Fenced {
                self.show(&fault);
            }
            return Err(fault);
        }
        if self.started_at.elapsed() >= SETTLED {
            self.failures = 0;
        }
        let wait = jittered(wait_after(self.failures));
        self.failures += 1;
        warn!(part = self.part, error = %fault, ?wait, "trying again");
        self.show(&fault);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => {}
        }
        self.started_at = Instant::now();
        Ok(())
    }

    /// Shows a fault; having lost the pipeline is shown to the end, whatever else fails on the way there.
    fn show(&self, fault: &Fault) {
        let trouble = Trouble {
            part: self.part.to_owned(),
            error: fault.to_string(),
            remedy: status::remedy(fault.class()).unwrap_or_default().to_owned(),
            attempts: self.failures,
            at: status::unix_seconds(),
            is_fenced: fault.class() == Class::Fenced,
        };
        self.shown.send_if_modified(|shown| {
            let is_news = !shown.as_ref().is_some_and(|it| it.is_fenced);
            if is_news {
                *shown = Some(trouble);
            }
            is_news
        });
    }
}

fn wait_after(failures: u32) -> Duration {
    LONGEST_WAIT.min(FIRST_WAIT * 2_u32.pow(failures.min(10)))
}

/// A wait between three quarters of itself and all of it, so that daemons which lost the same server do not all come
/// back at once.
fn jittered(wait: Duration) -> Duration {
    // Keys anew each time: the standard library's randomness is enough for this.
    let random = RandomState::new().build_hasher().finish();
    let share = u32::from(u8::try_from(random >> 56).unwrap_or_default());
    wait * 3 / 4 + wait / 4 * share / u32::from(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("scripted")]
    struct Scripted(Class);

    impl walferry_core::Classify for Scripted {
        fn class(&self) -> Class {
            self.0
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_passing_error_is_tried_again() {
        let stop = CancellationToken::new();
        let mut supervisor = Supervisor::new("test", watch::Sender::default());
        assert!(
            supervisor
                .after(Scripted(Class::Transient).into(), &stop)
                .await
                .is_ok()
        );
        for class in [Class::Poison, Class::File, Class::Fatal, Class::Fenced] {
            assert!(
                supervisor
                    .after(Scripted(class).into(), &stop)
                    .await
                    .is_err()
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_could_be_used_before_is_waited_for() {
        let stop = CancellationToken::new();
        let shown = watch::Sender::default();
        let mut supervisor = Supervisor::new("test", shown.clone());
        let file = || Scripted(Class::File).into();
        assert!(supervisor.after(file(), &stop).await.is_err());
        supervisor.note(true);
        supervisor.note(false);
        assert!(supervisor.after(file(), &stop).await.is_ok());
        assert!(shown.borrow().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pipeline_that_was_lost_is_shown_as_lost_whatever_fails_after() {
        let stop = CancellationToken::new();
        let shown = watch::Sender::default();
        let mut sink = Supervisor::new("sink", shown.clone());
        let mut reader = Supervisor::new("reader", shown.clone());
        let fault = |class| Scripted(class).into();
        assert!(sink.after(fault(Class::Fatal), &stop).await.is_err());
        assert_eq!(shown.borrow().as_ref().map(|it| it.is_fenced), None);
        assert!(sink.after(fault(Class::Fenced), &stop).await.is_err());
        assert!(reader.after(fault(Class::Transient), &stop).await.is_ok());
        let shown = shown.borrow().clone().unwrap();
        assert!(shown.is_fenced && shown.part == "sink", "{shown:?}");
    }

    #[test]
    fn a_wait_is_never_longer_than_told_and_seldom_the_same() {
        let wait = Duration::from_millis(800);
        let waits: std::collections::BTreeSet<_> = (0..50).map(|_| jittered(wait)).collect();
        assert!(
            waits.iter().all(|it| (wait * 3 / 4..=wait).contains(it)),
            "{waits:?}"
        );
        assert!(waits.len() > 5, "{waits:?}");
    }

    #[test]
    fn the_wait_grows_to_a_bound() {
        assert_eq!(wait_after(0), FIRST_WAIT);
        assert_eq!(wait_after(3), Duration::from_millis(800));
        assert_eq!(wait_after(u32::MAX), LONGEST_WAIT);
    }
}
