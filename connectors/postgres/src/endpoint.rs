//! Which servers a URL means, as whom, and how protected.
//!
//! - What a URL asks for is done, or the URL is refused: a parameter that would be passed over is named.
//! - No error shows a password.

pub(crate) mod encryption;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use tokio_postgres::config::{ChannelBinding, Host, SslMode, SslNegotiation, TargetSessionAttrs};

use crate::error::{Error, Result};
use encryption::Encryption;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_PORT: u16 = 5432;

/// What fixes the text forms of values, alike on every connection that rows come from, and keeps the server from ending
/// long work. `row_security = off` turns rows that a policy would hide into an error. The server gives up a client whose
/// host is gone after 25 seconds, so that its locks and its slot are free again.
pub(crate) const SESSION: [(&str, &str); 16] = [
    ("DateStyle", "ISO"),
    ("IntervalStyle", "iso_8601"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    ("client_encoding", "UTF8"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    ("row_security", "off"),
    // A role may have been told to hear no warnings; one of them says that changes are left out.
    ("client_min_messages", "warning"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
];

/// Whether a server takes writes.
pub(crate) const IS_READ_ONLY: &str = "SHOW transaction_read_only";

/// A server (or several, tried in order), the user and the database; parsed from a URL.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) hosts: Vec<HostPort>,
    pub(crate) user: String,
    pub(crate) password: Option<Vec<u8>>,
    pub(crate) database: String,
    /// `options` of the URL: further settings of the session.
    pub(crate) options: Option<String>,
    /// How long one address may take, login included.
    pub(crate) connect_timeout: Duration,
    pub(crate) encryption: Encryption,
    /// Whether the server may be one that takes no writes, or must be.
    pub(crate) session: TargetSessionAttrs,
}

/// A server by its name, and by one of the name's addresses once that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Where it is; without it, wherever the name leads.
    pub(crate) address: Option<IpAddr>,
}

// === impl Endpoint ===

impl Endpoint {
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let (url, encryption) = Encryption::take_from(url)?;
        let config: tokio_postgres::Config =
            url.parse().map_err(|e| Error::Url { reason: reason(&e) })?;
        refuse_what_is_not_done(&config)?;
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
            encryption,
            session: config.get_target_session_attrs(),
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

    /// The same for the client that serves SQL queries, over a connection that is there and protected already.
    pub(crate) fn client_config(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        if let Some(password) = &self.password {
            config.password(password);
        }
        // What the client sets itself, and what is set once the connection is there.
        let settings = SESSION
            .iter()
            .filter(|(name, _)| !matches!(*name, "client_encoding" | "lc_monetary"));
        let ours = settings.map(|(name, value)| format!("-c {name}={value}"));
        let options: Vec<_> = self.options.iter().cloned().chain(ours).collect();
        config
            .user(&self.user)
            .dbname(&self.database)
            .application_name("walferry")
            .options(options.join(" "))
            .ssl_mode(SslMode::Disable);
        config
    }

    /// Whether it matters that a server takes writes.
    pub(crate) fn is_choosy(&self) -> bool {
        self.session != TargetSessionAttrs::Any
    }

    /// Judges what a server answered to [`IS_READ_ONLY`].
    pub(crate) fn judge(&self, answer: &str, host: &HostPort) -> Result<()> {
        let (is_wanted, wanted) = match self.session {
            TargetSessionAttrs::ReadWrite => (answer == "off", "read-write"),
            TargetSessionAttrs::ReadOnly => (answer == "on", "read-only"),
            _ => (true, "any"),
        };
        if is_wanted {
            return Ok(());
        }
        let host = host.to_string();
        Err(Error::OtherSession { host, wanted })
    }
}

// === impl HostPort ===

/// `db.example.com:5432 (10.0.0.7)`, `10.0.0.7:5432`
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)?;
        match self.address {
            Some(address) if address.to_string() != self.host => write!(f, " ({address})"),
            _ => Ok(()),
        }
    }
}

fn refuse_what_is_not_done(config: &tokio_postgres::Config) -> Result<()> {
    let refused = |reason: &str| Error::UrlParameter {
        reason: reason.to_owned(),
    };
    if config.get_channel_binding() == ChannelBinding::Require {
        return Err(refused(
            "channel_binding=require is not in this version: sslmode=verify-full keeps others from the middle too",
        ));
    }
    if config.get_ssl_negotiation() == SslNegotiation::Direct {
        return Err(refused(
            "sslnegotiation=direct is not in this version: leave it out",
        ));
    }
    Ok(())
}

/// The parser's reason, which names the option but never its value.
fn reason(error: &tokio_postgres::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// The hosts with their ports; `hostaddr` says where each is, a host's name then is only what its certificate is for.
fn hosts(config: &tokio_postgres::Config) -> Result<Vec<HostPort>> {
    let (names, addresses) = (config.get_hosts(), config.get_hostaddrs());
    let port = |at: usize| match config.get_ports() {
        [] => DEFAULT_PORT,
        [one] => *one,
        several => several.get(at).copied().unwrap_or(DEFAULT_PORT),
    };
    let host = |at: usize| {
        let address = addresses.get(at).copied();
        let host = match (names.get(at), address) {
            (Some(Host::Tcp(host)), _) => host.clone(),
            (None, Some(address)) => address.to_string(),
            (Some(Host::Unix(_)), _) => {
                return Err(unusable(
                    "it names a Unix socket, but only TCP is supported",
                ));
            }
            (None, None) => String::new(),
        };
        Ok(HostPort {
            host,
            port: port(at),
            address,
        })
    };
    if !addresses.is_empty() && !names.is_empty() && names.len() != addresses.len() {
        return Err(unusable(
            "it has another number of hostaddr values than of hosts",
        ));
    }
    let hosts = (0..names.len().max(addresses.len()))
        .map(host)
        .collect::<Result<Vec<_>>>()?;
    if hosts.iter().all(|host| host.host.is_empty()) {
        return Err(unusable("it names no host"));
    }
    Ok(hosts)
}

fn unusable(reason: &str) -> Error {
    Error::Url {
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(host: &str, port: u16) -> HostPort {
        HostPort {
            host: host.into(),
            port,
            address: None,
        }
    }

    fn refusal(url: &str) -> String {
        let error = Endpoint::parse(url).err().unwrap().to_string();
        assert!(!error.contains("secret"), "{error}");
        error
    }

    #[test]
    fn a_url_is_read() {
        let endpoint =
            Endpoint::parse("postgres://w%40:p%23w@a:1,b:2/db?connect_timeout=3&sslmode=require")
                .unwrap();
        assert_eq!(endpoint.hosts, [host("a", 1), host("b", 2)]);
        assert_eq!(
            (endpoint.user.as_str(), endpoint.database.as_str()),
            ("w@", "db")
        );
        assert_eq!(endpoint.password.as_deref(), Some(b"p#w".as_slice()));
        assert_eq!(endpoint.connect_timeout, Duration::from_secs(3));
        assert_eq!(endpoint.encryption.mode, encryption::Mode::Require);
        assert_eq!(
            Endpoint::parse("postgres://u@h").unwrap().hosts,
            [host("h", 5432)]
        );
    }

    #[test]
    fn a_hosts_address_may_be_given_beside_its_name() {
        let hosts = |url| Endpoint::parse(url).unwrap().hosts;
        let address: IpAddr = "10.0.0.7".parse().unwrap();
        let named = HostPort {
            address: Some(address),
            ..host("db", 5432)
        };
        assert_eq!(named.to_string(), "db:5432 (10.0.0.7)");
        assert_eq!(hosts("postgres://u@db/d?hostaddr=10.0.0.7"), [named]);
        let alone = hosts("postgres://u@/d?hostaddr=10.0.0.7");
        assert_eq!(alone[0].to_string(), "10.0.0.7:5432");
        assert!(refusal("postgres://u@a,b/d?hostaddr=10.0.0.7").contains("hostaddr"));
    }

    #[test]
    fn a_parameter_that_would_be_passed_over_is_named() {
        for parameter in [
            "channel_binding=require",
            "sslnegotiation=direct",
            "sslcrl=revoked.pem",
            "gssencmode=require",
        ] {
            let name = parameter.split('=').next().unwrap();
            let error = refusal(&format!("postgres://u@h/d?{parameter}"));
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn a_server_is_judged_by_what_it_takes() {
        let judge = |wanted: &str, answer| {
            let url = format!("postgres://u@h/d?target_session_attrs={wanted}");
            let endpoint = Endpoint::parse(&url).unwrap();
            endpoint.judge(answer, &endpoint.hosts[0]).is_ok()
        };
        assert_eq!(
            [judge("read-write", "off"), judge("read-write", "on")],
            [true, false]
        );
        assert_eq!(
            [judge("read-only", "off"), judge("read-only", "on")],
            [false, true]
        );
        assert_eq!([judge("any", "off"), judge("any", "on")], [true, true]);
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
            refusal(url);
        }
    }
}
