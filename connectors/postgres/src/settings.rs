//! Where the source is and how it is read.

use std::fmt;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};

use crate::{Error, error::Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_PORT: u16 = 5432;

/// When a peer that is gone without a word is noticed, here and by the server: after 10 and three times 5 seconds.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
/// How long what we send may stay without an acknowledgement.
const UNACKNOWLEDGED: Duration = Duration::from_secs(25);

/// What fixes the text forms of values, alike on every connection that rows come from, and keeps the server from ending
/// long work. `row_security = off` turns rows that a policy would hide into an error. The server gives up a client whose
/// host is gone after 25 seconds, so that its locks and its slot are free again.
pub(crate) const SESSION: [(&str, &str); 14] = [
    ("DateStyle", "ISO"),
    ("IntervalStyle", "iso_8601"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("client_encoding", "UTF8"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    ("row_security", "off"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
];

/// What a [`crate::ReplicationSource`] needs to know.
#[derive(Clone)]
pub struct Settings {
    /// `postgres://user:password@host:port/database`; TCP only, several hosts are tried in order.
    pub url: String,
    /// The replication slot's name.
    pub slot: String,
    /// The publication's name.
    pub publication: String,
    /// How many connections read a snapshot; at least 1.
    pub copy_connections: usize,
    /// The most rows of a snapshot chunk; at least 1.
    pub chunk_rows: usize,
    /// About how many bytes of text make a snapshot chunk full before that.
    pub chunk_bytes: usize,
    /// How long a slot that is active elsewhere is waited for: our own crashed reader's server process may live a moment.
    pub slot_wait: Duration,
}

/// A server (or several, tried in order), the user and the database; parsed from a URL.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) hosts: Vec<HostPort>,
    pub(crate) user: String,
    pub(crate) password: Option<Vec<u8>>,
    pub(crate) database: String,
    /// `options` of the URL: further settings of the session.
    pub(crate) options: Option<String>,
    pub(crate) connect_timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    pub(crate) host: String,
    pub(crate) port: u16,
}

// === impl Settings ===

impl Settings {
    /// The settings with the default sizes: 2 connections, chunks of 5,000 rows or 2 MiB.
    pub fn new(
        url: impl Into<String>,
        slot: impl Into<String>,
        publication: impl Into<String>,
    ) -> Self {
        Self {
            url: url.into(),
            slot: slot.into(),
            publication: publication.into(),
            copy_connections: 2,
            chunk_rows: 5_000,
            chunk_bytes: 2 * 1024 * 1024,
            slot_wait: Duration::from_secs(5),
        }
    }
}

/// Without the URL, which may hold a password.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("slot", &self.slot)
            .field("publication", &self.publication)
            .field("copy_connections", &self.copy_connections)
            .field("chunk_rows", &self.chunk_rows)
            .finish_non_exhaustive()
    }
}

// === impl Endpoint ===

impl Endpoint {
    pub(crate) fn parse(url: &str) -> Result<Self> {
        refuse_tls(url)?;
        let config: tokio_postgres::Config =
            url.parse().map_err(|e| Error::Url { reason: reason(&e) })?;
        if config.get_ssl_mode() == SslMode::Require {
            return Err(Error::TlsUnsupported {
                mode: "require".to_owned(),
            });
        }
        let missing = |what: &str| Error::Url {
            reason: format!("it names no {what}"),
        };
        let user = config.get_user().filter(|user| !user.is_empty());
        let user = user.ok_or_else(|| missing("user"))?.to_owned();
        Ok(Self {
            hosts: hosts(&config)?,
            password: config.get_password().map(<[u8]>::to_vec),
            database: config.get_dbname().unwrap_or(&user).to_owned(),
            options: config.get_options().map(ToOwned::to_owned),
            connect_timeout: config
                .get_connect_timeout()
                .copied()
                .unwrap_or(CONNECT_TIMEOUT),
            user,
        })
    }

    /// The same database on one of the servers only.
    pub(crate) fn at(&self, host: &HostPort) -> Self {
        Self {
            hosts: vec![host.clone()],
            ..self.clone()
        }
    }

    /// The same for the client that serves SQL queries.
    pub(crate) fn client_config(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        for HostPort { host, port } in &self.hosts {
            config.host(host).port(*port);
        }
        if let Some(password) = &self.password {
            config.password(password);
        }
        let settings = SESSION
            .iter()
            .filter(|(name, _)| *name != "client_encoding");
        let ours = settings.map(|(name, value)| format!("-c {name}={value}"));
        let options: Vec<_> = self.options.iter().cloned().chain(ours).collect();
        config
            .user(&self.user)
            .dbname(&self.database)
            .application_name("walferry")
            .options(options.join(" "))
            .connect_timeout(self.connect_timeout)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES)
            .tcp_user_timeout(UNACKNOWLEDGED)
            .ssl_mode(SslMode::Disable);
        config
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The modes that the parser does not know are refused by name here, not as mistakes of the URL.
fn refuse_tls(url: &str) -> Result<()> {
    let parameters = url.split(['?', '&', ' ']);
    let mode = parameters
        .filter_map(|p| p.strip_prefix("sslmode="))
        .next_back();
    match mode {
        Some(mode @ ("require" | "verify-ca" | "verify-full")) => Err(Error::TlsUnsupported {
            mode: mode.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// The parser's reason, which names the option but never its value.
fn reason(error: &tokio_postgres::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

fn hosts(config: &tokio_postgres::Config) -> Result<Vec<HostPort>> {
    let addresses = config
        .get_hostaddrs()
        .iter()
        .map(|a| Host::Tcp(a.to_string()));
    let named = if config.get_hostaddrs().is_empty() {
        config.get_hosts().to_vec()
    } else {
        addresses.collect()
    };
    let ports = config.get_ports();
    let port = |at: usize| match ports {
        [] => DEFAULT_PORT,
        [one] => *one,
        several => several.get(at).copied().unwrap_or(DEFAULT_PORT),
    };
    let host = |(at, host): (usize, Host)| match host {
        Host::Tcp(host) => Ok(HostPort {
            host,
            port: port(at),
        }),
        Host::Unix(_) => Err(Error::Url {
            reason: "it names a Unix socket, but only TCP is supported".to_owned(),
        }),
    };
    let hosts = named
        .into_iter()
        .enumerate()
        .map(host)
        .collect::<Result<Vec<_>>>()?;
    if hosts.iter().all(|host| host.host.is_empty()) {
        return Err(Error::Url {
            reason: "it names no host".to_owned(),
        });
    }
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read() {
        let endpoint =
            Endpoint::parse("postgres://w%40:p%23w@a:1,b:2/db?connect_timeout=3").unwrap();
        let host = |host: &str, port| HostPort {
            host: host.into(),
            port,
        };
        assert_eq!(endpoint.hosts, [host("a", 1), host("b", 2)]);
        assert_eq!(
            (endpoint.user.as_str(), endpoint.database.as_str()),
            ("w@", "db")
        );
        assert_eq!(endpoint.password.as_deref(), Some(b"p#w".as_slice()));
        assert_eq!(endpoint.connect_timeout, Duration::from_secs(3));
        assert_eq!(
            Endpoint::parse("postgres://u@h").unwrap().hosts,
            [host("h", 5432)]
        );
    }

    #[test]
    fn tls_is_refused_by_name() {
        for mode in ["require", "verify-ca", "verify-full"] {
            let error = Endpoint::parse(&format!("postgres://u@h/d?sslmode={mode}"))
                .err()
                .unwrap();
            assert!(matches!(error, Error::TlsUnsupported { mode: found } if found == mode));
        }
        assert!(Endpoint::parse("postgres://u@h/d?sslmode=prefer").is_ok());
        assert!(Endpoint::parse("postgres://u@h/d?sslmode=disable").is_ok());
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said_without_the_password() {
        for url in [
            "postgres://:secret@h/d",
            "postgres://u:secret@h:x/d",
            "postgres://u:secret@%2Frun/d",
            "u:secret",
            "postgres://u:secret@/d",
        ] {
            let error = Endpoint::parse(url).err().unwrap().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(
            !format!("{:?}", Settings::new("postgres://u:secret@h/d", "s", "p")).contains("secret")
        );
    }
}
