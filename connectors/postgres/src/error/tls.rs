//! Why a connection is not as safe as it should be.

use rustls::{AlertDescription, CertificateError};

/// What is wrong with TLS, and what to do about it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TlsError {
    /// The server speaks without TLS only.
    #[error(
        "the server offers no TLS, as sslmode={mode} asks: set ssl = on in its postgresql.conf, with ssl_cert_file and \
         ssl_key_file, or use sslmode=prefer on a network you trust"
    )]
    NotOffered {
        /// The mode asked for.
        mode: &'static str,
    },
    /// The host cannot be the name of a certificate.
    #[error(
        "the host of the URL is not a name that a certificate can be for: write it without special characters"
    )]
    Name,
    /// Somebody else signed the certificate.
    #[error(
        "the authority that issued the server's certificate is not trusted: give its certificate, a PEM file, as \
         sslrootcert in the source's URL"
    )]
    UnknownAuthority,
    /// The certificate is for somebody else.
    #[error(
        "the server's certificate is for {names}, not for {wanted}: connect by a name that it has, add this one to its \
         subjectAltName, or use sslmode=verify-ca to check the authority alone"
    )]
    WrongName {
        /// The host of the URL.
        wanted: String,
        /// Whom it is for.
        names: String,
    },
    /// The certificate is too old.
    #[error("the server's certificate has expired: renew it there and reload PostgreSQL")]
    Expired,
    /// The certificate is too young.
    #[error(
        "the server's certificate is not valid yet: see that the clocks of both machines are right"
    )]
    NotValidYet,
    /// The server's certificate has something else.
    #[error(
        "the server's certificate is not acceptable ({0}): issue one for servers, of version 3, by an authority; a \
         certificate that is its own authority is none"
    )]
    Unacceptable(CertificateError),
    /// The server does not take ours.
    #[error(
        "the server refuses our certificate ({alert:?}): give sslcert and sslkey in the source's URL, valid and issued by \
         an authority of the server's ssl_ca_file"
    )]
    OursRefused {
        /// What the server says.
        alert: AlertDescription,
    },
    /// The two do not come together.
    #[error(
        "the TLS handshake failed ({0}): the server must speak TLS 1.2 or later (ssl_min_protocol_version), with ciphers \
         of today"
    )]
    Handshake(rustls::Error),
}

// === impl TlsError ===

impl TlsError {
    /// Whether waiting may help: a certificate is renewed and a clock is set while this process runs, ours is read anew at
    /// each attempt. Until then the reader says at each attempt what is wrong. Everything else is a mistake in the
    /// configuration of one side, or somebody in the middle.
    pub fn will_pass(&self) -> bool {
        let expired = AlertDescription::CertificateExpired;
        match self {
            Self::Expired | Self::NotValidYet => true,
            Self::OursRefused { alert } => *alert == expired,
            _ => false,
        }
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(error) => Self::from(error),
            rustls::Error::AlertReceived(alert) if is_about_a_certificate(alert) => {
                Self::OursRefused { alert }
            }
            other => Self::Handshake(other),
        }
    }
}

impl From<CertificateError> for TlsError {
    fn from(error: CertificateError) -> Self {
        match error {
            CertificateError::UnknownIssuer => Self::UnknownAuthority,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotValidYet
            }
            CertificateError::NotValidForNameContext {
                expected,
                presented,
            } => Self::WrongName {
                wanted: expected.to_str().into_owned(),
                names: names(&presented),
            },
            other => Self::Unacceptable(other),
        }
    }
}

/// `DnsName("db")`, `IpAddress(10.0.0.7)` → `db, 10.0.0.7`
fn names(presented: &[String]) -> String {
    let bare = |name: &String| {
        let inner = name
            .split_once('(')
            .and_then(|(_, rest)| rest.strip_suffix(')'));
        inner.unwrap_or(name).trim_matches('"').to_owned()
    };
    match presented {
        [] => "no name (it has no subjectAltName)".to_owned(),
        several => several.iter().map(bare).collect::<Vec<_>>().join(", "),
    }
}

fn is_about_a_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_time_heals_is_tried_again() {
        let expired = rustls::Error::from(CertificateError::Expired);
        assert!(TlsError::from(expired).will_pass());
        let ours = rustls::Error::AlertReceived(AlertDescription::CertificateExpired);
        assert!(TlsError::from(ours).will_pass());
        for lasting in [CertificateError::UnknownIssuer, CertificateError::Revoked] {
            assert!(!TlsError::from(lasting).will_pass());
        }
    }

    #[test]
    fn a_certificates_names_are_shown_as_they_are_written() {
        let presented = [
            "DnsName(\"db.internal\")".to_owned(),
            "IpAddress(10.0.0.7)".to_owned(),
        ];
        assert_eq!(names(&presented), "db.internal, 10.0.0.7");
        assert_eq!(names(&[]), "no name (it has no subjectAltName)");
    }
}
