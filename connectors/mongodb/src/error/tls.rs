//! What TLS said, out of the driver's words: of why it found no server it gives only a text.

use mongodb::error::ErrorKind;

/// What the driver puts before the reason of rustls.
const UNTRUSTED: &str = "invalid peer certificate: ";
/// What rustls says of a certificate that is to be waited for: a clock is set, or a certificate renewed.
const PASSING: [&str; 2] = ["expired", "not valid yet"];
/// What a server that takes no client without a certificate, or speaks no TLS, comes down to.
const CLOSED: [&str; 3] = [
    "received fatal alert: ",
    "tls handshake eof",
    "without sending TLS close_notify",
];

/// Why TLS does not come about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The server is not who it should be.
    Untrusted { reason: String, is_passing: bool },
    /// The server does not go on.
    Closed,
}

/// What is the matter with TLS, if that is why no server was found.
pub(super) fn trouble(error: &mongodb::error::Error) -> Option<Trouble> {
    match error.kind.as_ref() {
        ErrorKind::ServerSelection { message, .. } => trouble_in(message),
        _ => None,
    }
}

fn trouble_in(message: &str) -> Option<Trouble> {
    if let Some((_, said)) = message.split_once(UNTRUSTED) {
        let (reason, _) = said.split_once(", labels: ").unwrap_or((said, ""));
        // The driver speaks of every member: one that is only away may be the next primary.
        let has_others = message.matches("Address: ").count() > message.matches(UNTRUSTED).count();
        return Some(Trouble::Untrusted {
            reason: reason.to_owned(),
            is_passing: has_others || PASSING.iter().any(|passing| reason.contains(passing)),
        });
    }
    let is_closed = CLOSED.iter().any(|closed| message.contains(closed));
    is_closed.then_some(Trouble::Closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_rustls_is_found_in_the_drivers_words() {
        let message = |reason: &str| {
            format!("Error: Kind: I/O error: {reason}, labels: {{\"A\"}}, source: None")
        };
        let untrusted = |reason: &str| trouble_in(&message(&format!("{UNTRUSTED}{reason}")));
        let expected = |reason: &str, is_passing| {
            Some(Trouble::Untrusted {
                reason: reason.into(),
                is_passing,
            })
        };
        for (reason, is_passing) in [
            ("UnknownIssuer", false),
            ("certificate expired: since long", true),
        ] {
            assert_eq!(untrusted(reason), expected(reason, is_passing));
        }
        let members = format!(
            "Address: one, Error: {UNTRUSTED}UnknownIssuer, labels: {{}} Address: two, Error: refused"
        );
        assert_eq!(trouble_in(&members), expected("UnknownIssuer", true));
        assert_eq!(
            trouble_in(&message("tls handshake eof")),
            Some(Trouble::Closed)
        );
        assert_eq!(trouble_in(&message("Connection refused")), None);
    }
}
