//! Why no broker answers: librdkafka tells it as an event, to a client that listens.
//!
//! - Who asks for metadata or offsets does not listen: a client of its own does, once a question went unanswered.
//! - It says nothing itself; an outage is told by those who suffer from it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::error::is_passing;
use crate::settings::create;
use crate::{Error, Settings};

/// How long is listened at most.
const LISTENED: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(50);

/// What the first broker that was tried had to say.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    /// It is away.
    Outage,
    /// TLS fails, for this reason.
    Tls(String),
    /// It does not know us.
    Denied,
}

/// Keeps what is heard first.
#[derive(Default)]
struct Listener(Mutex<Option<Heard>>);

/// The error of a question that went unanswered, with the reason when that is TLS or the credentials; blocks.
pub(crate) fn unanswered(settings: &Settings, what: String, error: KafkaError) -> Error {
    if !error.rdkafka_error_code().is_some_and(is_passing) {
        return Error::ask(what, error);
    }
    match listen(settings) {
        Ok(Some(Heard::Tls(reason))) => Error::Tls { what, reason },
        Ok(Some(Heard::Denied)) => Error::Denied {
            what,
            source: Code::Authentication,
        },
        Ok(Some(Heard::Outage) | None) => Error::ask(what, error),
        Err(error) => error,
    }
}

fn listen(settings: &Settings) -> Result<Option<Heard>, Error> {
    let consumer: BaseConsumer<Listener> = create(&settings.consumer(1)?, Listener::default())?;
    let started = Instant::now();
    loop {
        // Nothing is assigned: only events come.
        let _ = consumer.poll(POLL);
        let heard = consumer.context().heard().clone();
        if heard.is_some() || started.elapsed() >= LISTENED {
            return Ok(heard);
        }
    }
}

// === impl Heard ===

impl Heard {
    fn new(code: Option<Code>, reason: &str) -> Option<Self> {
        match code? {
            Code::Authentication => Some(Self::Denied),
            Code::SSL => Some(Self::Tls(reason.to_owned())),
            // A broker that refuses our certificate ends the connection, with a word of OpenSSL's.
            Code::BrokerTransportFailure if reason.contains("SSL") => {
                Some(Self::Tls(reason.to_owned()))
            }
            code if is_passing(code) => Some(Self::Outage),
            _ => None,
        }
    }
}

// === impl Listener ===

impl Listener {
    fn heard(&self) -> MutexGuard<'_, Option<Heard>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Listener {
    fn log(&self, _level: RDKafkaLogLevel, _facility: &str, _message: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(heard) = Heard::new(error.rdkafka_error_code(), reason) {
            self.heard().get_or_insert(heard);
        }
    }
}

impl ConsumerContext for Listener {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_and_credentials_are_told_from_an_outage() {
        let closed = "ssl://h:1/bootstrap: Receive failed: SSL routines::alert bad certificate";
        let tls = |reason: &str| Some(Heard::Tls(reason.into()));
        let failed = "Connect to ipv4#127.0.0.1:1 failed";
        let cases = [
            (Code::SSL, "handshake failed", tls("handshake failed")),
            (Code::BrokerTransportFailure, closed, tls(closed)),
            (Code::Authentication, "unknown user", Some(Heard::Denied)),
            (Code::BrokerTransportFailure, failed, Some(Heard::Outage)),
            (Code::UnknownGroup, "", None),
        ];
        for (code, reason, expected) in cases {
            assert_eq!(Heard::new(Some(code), reason), expected, "{reason}");
        }
    }
}
