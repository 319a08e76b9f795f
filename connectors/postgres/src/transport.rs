//! From the hosts of a URL to a connection that somebody is logged in on: addresses, TCP, TLS.
//!
//! - The hosts are tried in order, and of each host all addresses; when none will do, the error names each with its reason.
//! - A connection is as protected as `sslmode` asks, or there is none.
//! - The certificates' files are read at each attempt: renewed ones are used without a restart.

mod stream;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use walferry_core::{Class, Classify};

use crate::endpoint::encryption::{Encryption, Mode};
use crate::endpoint::{Endpoint, HostPort};
use crate::error::{Error, Result, TlsError};

pub(crate) use stream::Stream;

const ASKING: &str = "asking PostgreSQL for TLS";
/// What the server says to a user, a host or a database that `pg_hba.conf` has no line for.
const INVALID_AUTHORIZATION: &str = "28000";

/// What makes a session out of a new connection.
pub(crate) trait Login: Sync {
    /// What somebody is logged in on.
    type Session: Send;

    /// Logs in at the server that answered.
    fn log_in(
        &self,
        stream: Stream,
        host: HostPort,
    ) -> impl Future<Output = Result<Self::Session>> + Send;
}

/// Whether a connection gets TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Plain,
    /// If the server offers it.
    TlsIfOffered,
    Tls,
}

/// Who would not do, and why.
#[derive(Default)]
struct Failures(Vec<(HostPort, Error)>);

/// Connects to the first server that will do and logs in there.
///
/// # Errors
/// Fatal as soon as one server refuses who we are or is not who it should be; transient when none can be reached.
pub(crate) async fn connect<L: Login>(endpoint: &Endpoint, login: &L) -> Result<L::Session> {
    let mut failures = Failures::default();
    for host in &endpoint.hosts {
        let addresses = match in_time(endpoint.connect_timeout, host, addresses(host)).await {
            Ok(addresses) => addresses,
            Err(error) => {
                failures.add(host.clone(), error);
                continue;
            }
        };
        for address in addresses {
            let host = HostPort {
                address: Some(address),
                ..host.clone()
            };
            match connect_to(endpoint, &host, login).await {
                Err(error) if error.class() == Class::Transient => failures.add(host, error),
                done => return done,
            }
        }
    }
    Err(failures.into_error())
}

/// Tries the ways that `sslmode` allows, one after the other.
async fn connect_to<L: Login>(
    endpoint: &Endpoint,
    host: &HostPort,
    login: &L,
) -> Result<L::Session> {
    let (way, other) = Way::of(endpoint.encryption.mode);
    let attempt = |way| {
        in_time(endpoint.connect_timeout, host, async move {
            let stream = open(&endpoint.encryption, host, way).await?;
            let logged_in = login.log_in(stream, host.clone()).await;
            logged_in.map_err(|error| tls::explained(error, host))
        })
    };
    match (attempt(way).await, other) {
        (Err(error), Some(other)) if is_about_the_way(&error) => {
            tracing::debug!(%host, %error, "trying the other way that sslmode allows");
            // What went wrong first tells more, the other way being only what was left; unless that is what worked
            // before, and its server is away for a moment.
            attempt(other).await.map_err(|left| match left.class() {
                Class::Transient => left,
                _ => error,
            })
        }
        (done, _) => done,
    }
}

async fn in_time<T>(
    after: Duration,
    host: &HostPort,
    what: impl Future<Output = Result<T>>,
) -> Result<T> {
    let timed_out = |_| Error::ConnectTimedOut {
        host: host.to_string(),
        after,
    };
    tokio::time::timeout(after, what).await.map_err(timed_out)?
}

/// Where a host is.
async fn addresses(host: &HostPort) -> Result<Vec<IpAddr>> {
    if let Some(address) = host.address {
        return Ok(vec![address]);
    }
    let found = lookup_host((host.host.as_str(), host.port)).await;
    let mut addresses = Vec::new();
    for address in found.map_err(unreachable(host))? {
        // A file of hosts and a name server may both know it.
        if !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    Ok(addresses)
}

async fn open(encryption: &Encryption, host: &HostPort, way: Way) -> Result<Stream> {
    let address = host
        .address
        .ok_or(Error::Misuse("connecting without an address"))?;
    let tcp = TcpStream::connect(SocketAddr::new(address, host.port)).await;
    let mut tcp = tcp.map_err(unreachable(host))?;
    tcp.set_nodelay(true).map_err(unreachable(host))?;
    if way == Way::Plain {
        return Ok(Stream::Plain(tcp));
    }
    if offers_tls(&mut tcp).await? {
        return secured(tcp, encryption, host).await;
    }
    if way == Way::TlsIfOffered {
        return Ok(Stream::Plain(tcp));
    }
    let mode = encryption.mode.name();
    Err(tls::refused(host, TlsError::NotOffered { mode }))
}

/// Asks for TLS. The answer is one byte, read alone: whatever somebody else put behind it is not taken for TLS's.
///
/// Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL>
async fn offers_tls(tcp: &mut TcpStream) -> Result<bool> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    tcp.write_all(&request).await.map_err(Error::io(ASKING))?;
    match tcp.read_u8().await.map_err(Error::io(ASKING))? {
        b'S' => Ok(true),
        b'N' => Ok(false),
        // The server is too busy to say more.
        b'E' => Err(Error::Closed { doing: ASKING }),
        other => Err(Error::Unexpected {
            doing: ASKING,
            tag: char::from(other),
        }),
    }
}

async fn secured(tcp: TcpStream, encryption: &Encryption, host: &HostPort) -> Result<Stream> {
    let config = tls::client_config(encryption)?;
    let name =
        ServerName::try_from(host.host.clone()).map_err(|_| tls::refused(host, TlsError::Name))?;
    let connecting = TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await;
    match connecting {
        Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
        Err(source) => Err(tls::explained(unreachable(host)(source), host)),
    }
}

fn unreachable(host: &HostPort) -> impl FnOnce(std::io::Error) -> Error {
    let host = host.to_string();
    move |source| Error::Connect { host, source }
}

/// Whether the other way could do better: TLS failed, or `pg_hba.conf` does not let this way in.
fn is_about_the_way(error: &Error) -> bool {
    matches!(error, Error::Tls { .. }) || error.sqlstate() == Some(INVALID_AUTHORIZATION)
}

// === impl Way ===

impl Way {
    /// What is tried first, and what after that.
    fn of(mode: Mode) -> (Self, Option<Self>) {
        match mode {
            Mode::Disable => (Self::Plain, None),
            Mode::Allow => (Self::Plain, Some(Self::Tls)),
            Mode::Prefer => (Self::TlsIfOffered, Some(Self::Plain)),
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => (Self::Tls, None),
        }
    }
}

// === impl Failures ===

impl Failures {
    fn add(&mut self, host: HostPort, error: Error) {
        tracing::debug!(%host, %error, "no connection to this host");
        self.0.push((host, error));
    }

    fn into_error(mut self) -> Error {
        if self.0.len() == 1
            && let Some((_, error)) = self.0.pop()
        {
            return error;
        }
        let reasons = self
            .0
            .iter()
            .map(|(host, error)| format!("{host}: {}", causes(error)));
        let reasons: Vec<_> = reasons.collect();
        Error::NoHost {
            reasons: reasons.join("; "),
        }
    }
}

/// An error's last cause, which says more than what was being done.
fn causes(error: &Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}
