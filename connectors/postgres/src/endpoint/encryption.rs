//! How connections are protected, as the parameters of the URL say it.
//!
//! - A parameter means what it means to libpq; one that cannot be honoured is refused by name.
//! - Nothing is taken from a home directory, as libpq does: what a daemon trusts stands in its URL.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use crate::error::{Error, Result};

const NO_ROOTS: &str = "needs sslrootcert: give the PEM file with the certificate of the authority that issued the \
                        server's, or sslrootcert=system for what the system trusts";

/// `sslmode` and the files that go with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Encryption {
    pub(crate) mode: Mode,
    /// `sslrootcert`: whose signature on the server's certificate counts.
    pub(crate) roots: Option<Roots>,
    /// `sslcert` and `sslkey`: who we are.
    pub(crate) identity: Option<Identity>,
}

/// `sslmode`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// No TLS.
    Disable,
    /// TLS where the server does not let us in without.
    Allow,
    /// TLS where the server offers it; the default, as libpq's.
    Prefer,
    /// TLS, with whoever answers.
    Require,
    /// TLS with a server whose certificate an authority has signed.
    VerifyCa,
    /// The same, and the certificate is for the host of the URL.
    VerifyFull,
}

/// Where the certificates of authorities are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Roots {
    /// Where the system has them.
    System,
    /// A PEM file.
    File(PathBuf),
}

/// The PEM files that say who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// What must be right about the server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check<'a> {
    /// Nothing.
    Nothing,
    /// One of these has signed it.
    Authority(&'a Roots),
    /// One of these has signed it, and it is for the host.
    AuthorityAndName(&'a Roots),
}

/// The parameters as they stand in the URL; of one that stands there twice the last.
#[derive(Default)]
struct Parameters {
    mode: Option<String>,
    roots: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

// === impl Encryption ===

impl Encryption {
    /// Takes its parameters out of a URL, whose parser does not know them: what is left, and itself.
    pub(super) fn take_from(url: &str) -> Result<(String, Self)> {
        let mut parameters = Parameters::default();
        let left = parameters.take_from(url);
        Ok((left, parameters.read()?))
    }

    pub(crate) fn check(&self) -> Check<'_> {
        match (&self.roots, self.mode) {
            (None, _) => Check::Nothing,
            (Some(roots), Mode::VerifyFull) => Check::AuthorityAndName(roots),
            // Whoever names an authority wants it asked: so does libpq, whatever the mode.
            (Some(roots), _) => Check::Authority(roots),
        }
    }
}

// === impl Mode ===

impl Mode {
    const ALL: [(&'static str, Self); 6] = [
        ("disable", Self::Disable),
        ("allow", Self::Allow),
        ("prefer", Self::Prefer),
        ("require", Self::Require),
        ("verify-ca", Self::VerifyCa),
        ("verify-full", Self::VerifyFull),
    ];

    pub(crate) fn name(self) -> &'static str {
        let named = Self::ALL.iter().find(|(_, mode)| *mode == self);
        named.map_or("", |(name, _)| name)
    }

    fn read(name: &str) -> Result<Self> {
        let named = Self::ALL.iter().find(|(known, _)| *known == name);
        let unknown =
            || refused("sslmode must be disable, allow, prefer, require, verify-ca or verify-full");
        named.map(|(_, mode)| *mode).ok_or_else(unknown)
    }
}

// === impl Parameters ===

impl Parameters {
    /// The URL without them. As its parser does, a `?` before the first `@` is taken for a part of the password.
    fn take_from(&mut self, url: &str) -> String {
        let login_ends = url.find('@').unwrap_or(0);
        let (login, rest) = url.split_at(login_ends);
        let Some((place, query)) = rest.split_once('?') else {
            return url.to_owned();
        };
        let others: Vec<_> = query.split('&').filter(|pair| !self.takes(pair)).collect();
        if others.is_empty() {
            format!("{login}{place}")
        } else {
            format!("{login}{place}?{}", others.join("&"))
        }
    }

    fn takes(&mut self, pair: &str) -> bool {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let place = match &*decoded(name) {
            "sslmode" => &mut self.mode,
            "sslrootcert" => &mut self.roots,
            "sslcert" => &mut self.certificate,
            "sslkey" => &mut self.key,
            _ => return false,
        };
        *place = Some(decoded(value)).filter(|value| !value.is_empty());
        true
    }

    fn read(self) -> Result<Encryption> {
        let roots = self.roots.map(|roots| match &*roots {
            "system" => Roots::System,
            _ => Roots::File(roots.into()),
        });
        let mode = match (self.mode, &roots) {
            (Some(name), _) => Mode::read(&name)?,
            (None, Some(Roots::System)) => Mode::VerifyFull,
            (None, _) => Mode::Prefer,
        };
        if roots.is_none() && matches!(mode, Mode::VerifyCa | Mode::VerifyFull) {
            return Err(refused(format!("sslmode={} {NO_ROOTS}", mode.name())));
        }
        // Anybody gets a certificate of his own from an authority that all the world trusts.
        if roots == Some(Roots::System) && mode != Mode::VerifyFull {
            return Err(refused(
                "sslrootcert=system means little without the host's name: use it with sslmode=verify-full",
            ));
        }
        let identity = match (self.certificate, self.key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some(Identity {
                certificate: certificate.into(),
                key: key.into(),
            }),
            _ => {
                return Err(refused(
                    "sslcert and sslkey go together: give both or neither",
                ));
            }
        };
        Ok(Encryption {
            mode,
            roots,
            identity,
        })
    }
}

fn refused(reason: impl Into<String>) -> Error {
    Error::UrlParameter {
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(parameters: &str) -> Encryption {
        let url = format!("postgres://u@h/d?{parameters}");
        Encryption::take_from(&url).unwrap().1
    }

    fn refusal(parameters: &str) -> String {
        let url = format!("postgres://u:secret@h/d?{parameters}");
        let error = Encryption::take_from(&url).err().unwrap().to_string();
        assert!(!error.contains("secret"), "{error}");
        error
    }

    #[test]
    fn every_mode_of_libpq_is_known_and_prefer_is_the_default() {
        for (name, mode) in Mode::ALL {
            let with_roots = format!("sslmode={name}&sslrootcert=ca.pem");
            assert_eq!(taken(&with_roots).mode, mode);
            assert_eq!(mode.name(), name);
        }
        assert_eq!(taken("connect_timeout=3").mode, Mode::Prefer);
        assert!(refusal("sslmode=verify").contains("must be disable, allow,"));
    }

    #[test]
    fn the_authority_is_asked_wherever_it_is_named() {
        let file = Roots::File("/a b/ca.pem".into());
        for mode in ["allow", "prefer", "require", "verify-ca"] {
            let encryption = taken(&format!("sslmode={mode}&sslrootcert=/a%20b/ca.pem"));
            assert_eq!(encryption.check(), Check::Authority(&file));
        }
        let full = taken("sslmode=verify-full&sslrootcert=/a b/ca.pem");
        assert_eq!(full.check(), Check::AuthorityAndName(&file));
        assert_eq!(taken("sslmode=require").check(), Check::Nothing);
    }

    #[test]
    fn verification_without_an_authority_is_refused() {
        for mode in ["verify-ca", "verify-full"] {
            let error = refusal(&format!("sslmode={mode}"));
            assert!(
                error.contains(&format!("sslmode={mode} needs sslrootcert")),
                "{error}"
            );
        }
    }

    #[test]
    fn the_systems_authorities_go_with_the_hosts_name_only() {
        let system = taken("sslrootcert=system");
        assert_eq!(system.check(), Check::AuthorityAndName(&Roots::System));
        let error = refusal("sslrootcert=system&sslmode=require");
        assert!(error.contains("sslmode=verify-full"), "{error}");
    }

    #[test]
    fn a_certificate_comes_with_its_key() {
        let identity = taken("sslcert=c.pem&sslkey=k.pem").identity.unwrap();
        assert_eq!(
            (identity.certificate, identity.key),
            ("c.pem".into(), "k.pem".into())
        );
        for alone in ["sslcert=c.pem", "sslkey=k.pem"] {
            assert!(refusal(alone).contains("give both or neither"));
        }
    }

    #[test]
    fn the_rest_of_the_url_is_left_as_it_is() {
        let cases = [
            ("postgres://u:p@h/d", "postgres://u:p@h/d"),
            (
                "postgres://u:p@h/d?sslmode=disable&connect_timeout=3&sslrootcert=x",
                "postgres://u:p@h/d?connect_timeout=3",
            ),
            ("postgres://u:p@h/d?ssl%6Dode=disable", "postgres://u:p@h/d"),
            (
                "postgres://u:p?sslmode=x@h/d?a=b",
                "postgres://u:p?sslmode=x@h/d?a=b",
            ),
        ];
        for (url, left) in cases {
            assert_eq!(Encryption::take_from(url).unwrap().0, left);
        }
    }
}
