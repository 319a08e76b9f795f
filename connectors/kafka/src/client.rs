//! What all clients share: their log, and leaving the runtime's threads alone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::admin::AdminClient;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::{ClientContext, TopicPartitionList};
use tokio::runtime::Handle;
use tracing::{debug, info, warn};

use crate::Error;
use crate::error::is_passing;

/// How long an answer about topics is waited for.
pub(crate) const ANSWER: Duration = Duration::from_secs(20);

pub(crate) type Admin = AdminClient<Context>;
pub(crate) type Consumer = BaseConsumer<Context>;

/// Sends what a librdkafka client says to `tracing`; an outage once, not at every try.
pub(crate) struct Context {
    client: &'static str,
    is_down: AtomicBool,
}

// === impl Context ===

impl Context {
    pub(crate) fn new(client: &'static str) -> Self {
        Self {
            client,
            is_down: AtomicBool::new(false),
        }
    }

    /// Records came through: an outage is over.
    pub(crate) fn works(&self) {
        if self.is_down.load(Ordering::Relaxed) && self.is_down.swap(false, Ordering::Relaxed) {
            info!(client = self.client, "kafka answers again");
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let client = self.client;
        match level {
            // Connection failures come at every try; `error` tells the first.
            _ if facility == "FAIL" || facility == "ERROR" => {
                debug!(client, facility, message, "librdkafka");
            }
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => warn!(client, facility, message, "librdkafka"),
            _ => debug!(client, facility, message, "librdkafka"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let client = self.client;
        match error.rdkafka_error_code() {
            // Where TLS fails it does so at every try, as where nobody answers.
            Some(code) if is_passing(code) || code == Code::SSL => {
                if self.is_down.swap(true, Ordering::Relaxed) {
                    debug!(client, %error, reason, "kafka is still away");
                } else {
                    warn!(client, %error, reason, "kafka does not answer, waiting for it");
                }
            }
            // Whoever reads to the end of a partition is told where it reads.
            Some(Code::PartitionEOF) => debug!(client, %error, reason, "the end of a partition"),
            // Whoever publishes offsets tells it, the others have no use for the group.
            Some(Code::GroupAuthorizationFailed) => debug!(client, %error, reason, "no group"),
            _ => warn!(client, %error, reason, "kafka client error"),
        }
    }
}

impl ConsumerContext for Context {
    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            debug!(%error, "publishing offsets failed");
        }
    }
}

/// Runs a call that may block, beside the runtime.
///
/// # Cancel safety
/// The call goes on when this is dropped.
pub(crate) async fn blocking<T, F>(call: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Error> + Send + 'static,
{
    tokio::task::spawn_blocking(call)
        .await
        .map_err(Error::Interrupted)?
}

/// Drops a client beside the runtime: librdkafka joins its threads, which takes a while.
pub(crate) fn drop_beside<T: Send + 'static>(value: T) {
    match Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(move || drop(value))),
        Err(_) => drop(value),
    }
}
