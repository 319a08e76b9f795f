//! Waiting for something to become true.

use std::fmt::Display;
use std::time::Duration;

use crate::{Error, Result};

const PAUSE: Duration = Duration::from_millis(20);

/// How long anything that a test waits for may take: far more than it needs where a machine gives all of itself, and
/// enough where it gives a tenth. Never part of what is tested.
pub const PATIENCE: Duration = Duration::from_mins(5);

/// What one try of [`eventually`] said: `bool`, `Option<T>` or `Result<T, E>`.
pub trait Outcome {
    /// What a successful try brings.
    type Value;

    /// The value, or why not yet (empty when nothing is known).
    ///
    /// # Errors
    /// When it is not true yet.
    fn outcome(self) -> std::result::Result<Self::Value, String>;
}

impl Outcome for bool {
    type Value = ();

    fn outcome(self) -> std::result::Result<(), String> {
        if self { Ok(()) } else { Err(String::new()) }
    }
}

impl<T> Outcome for Option<T> {
    type Value = T;

    fn outcome(self) -> std::result::Result<T, String> {
        self.ok_or_else(String::new)
    }
}

impl<T, E: Display> Outcome for std::result::Result<T, E> {
    type Value = T;

    fn outcome(self) -> std::result::Result<T, String> {
        self.map_err(|e| e.to_string())
    }
}

/// Tries until the outcome is `true`, `Some` or `Ok`, every 20 ms, and returns its value.
///
/// A try that hangs counts against the same `timeout`.
///
/// # Errors
/// [`Error::TimedOut`] with the reason that the last finished try gave.
pub async fn eventually<F, O>(timeout: Duration, what: &str, mut attempt: F) -> Result<O::Value>
where
    F: AsyncFnMut() -> O,
    O: Outcome,
{
    let mut last = None;
    let tries = async {
        loop {
            match attempt().await.outcome() {
                Ok(value) => return value,
                Err(reason) if reason.is_empty() => {}
                Err(reason) => last = Some(reason),
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    let value = tokio::time::timeout(timeout, tries).await;
    value.map_err(|_| Error::TimedOut {
        what: what.to_owned(),
        after: timeout,
        last,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_becomes_true_ends_the_wait() {
        let mut tries = 0;
        let value = eventually(Duration::from_secs(1), "three tries", async || {
            tries += 1;
            (tries == 3).then_some("done")
        });
        assert_eq!(value.await.expect("the third try succeeds"), "done");
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_becomes_true_is_an_error_that_tells_the_last_reason() {
        let waited = eventually(Duration::from_secs(1), "the impossible", async || {
            Err::<(), _>("not today")
        });
        let message = waited.await.expect_err("it never happens").to_string();
        assert_eq!(
            message,
            "timed out after 1s waiting for the impossible; last: not today"
        );
    }
}
