//! Logging in: start-up parameters, authentication.

use bytes::Buf;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;

use super::{Frame, Link};
use crate::endpoint::{Endpoint, HostPort, IS_READ_ONLY, SESSION};
use crate::error::{Error, Result};
use crate::transport::{self, Login, Stream};

const DOING: &str = "logging in to PostgreSQL";
/// The first version with `transaction_timeout`; others refuse the name at start-up.
const HAS_TRANSACTION_TIMEOUT: u32 = 17;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Replication commands, and SQL as text.
    Replication,
    /// SQL as text, COPY.
    Sql,
}

/// Logging in on a link of a kind.
struct LinkLogin<'a> {
    endpoint: &'a Endpoint,
    kind: Kind,
}

// === impl LinkLogin ===

impl Login for LinkLogin<'_> {
    type Session = Link;

    async fn log_in(&self, stream: Stream, host: HostPort) -> Result<Link> {
        let mut link = Link::new(stream, host);
        let logged_in = link.login(self.endpoint, self.kind).await;
        logged_in.map_err(|error| explained(error, self.endpoint))?;
        Ok(link)
    }
}

// === impl Link ===

impl Link {
    /// Connects to the first host that can be reached and is up, and logs in.
    ///
    /// # Errors
    /// Fatal when a server refuses who we are; transient when none can be reached.
    pub(crate) async fn connect(endpoint: &Endpoint, kind: Kind) -> Result<Self> {
        transport::connect(endpoint, &LinkLogin { endpoint, kind }).await
    }

    async fn login(&mut self, endpoint: &Endpoint, kind: Kind) -> Result<()> {
        self.write_startup(endpoint, kind)?;
        self.flush(DOING).await?;
        self.authenticate(endpoint).await?;
        loop {
            let frame = self.receive(DOING).await?;
            match frame.tag {
                b'K' => {}
                b'Z' => break,
                tag => return Err(unexpected(tag)),
            }
        }
        if self.server_version >= HAS_TRANSACTION_TIMEOUT {
            self.query(DOING, "SET transaction_timeout = 0").await?;
        }
        if endpoint.is_choosy() {
            let answer = self.query(DOING, IS_READ_ONLY).await?;
            let answer = answer.into_iter().flatten().next().flatten();
            endpoint.judge(&answer.unwrap_or_default(), &self.host)?;
        }
        Ok(())
    }

    fn write_startup(&mut self, endpoint: &Endpoint, kind: Kind) -> Result<()> {
        let mut parameters = vec![
            ("user", endpoint.user.as_str()),
            ("database", endpoint.database.as_str()),
            ("application_name", "walferry"),
        ];
        if kind == Kind::Replication {
            parameters.push(("replication", "database"));
        }
        parameters.extend(
            endpoint
                .options
                .as_deref()
                .map(|options| ("options", options)),
        );
        parameters.extend(SESSION);
        frontend::startup_message(parameters, &mut self.write).map_err(Error::io(DOING))
    }

    async fn authenticate(&mut self, endpoint: &Endpoint) -> Result<()> {
        loop {
            let mut frame = self.receive(DOING).await?;
            if frame.tag != b'R' {
                return Err(unexpected(frame.tag));
            }
            let password = || {
                let missing = || Error::PasswordMissing {
                    user: endpoint.user.clone(),
                };
                endpoint.password.as_deref().ok_or_else(missing)
            };
            match frame
                .body
                .try_get_u32()
                .map_err(|_| unexpected(frame.tag))?
            {
                0 => return Ok(()),
                3 => self.send_password(password()?).await?,
                5 => {
                    let salt = frame
                        .body
                        .first_chunk()
                        .copied()
                        .ok_or_else(|| unexpected(b'R'))?;
                    let hash = md5_hash(endpoint.user.as_bytes(), password()?, salt);
                    self.send_password(hash.as_bytes()).await?;
                }
                10 => self.scram(&frame, password()?).await?,
                other => return Err(unsupported(other)),
            }
        }
    }

    async fn send_password(&mut self, password: &[u8]) -> Result<()> {
        frontend::password_message(password, &mut self.write).map_err(Error::io(DOING))?;
        self.flush(DOING).await
    }

    /// The SCRAM exchange (RFC 5802, 7677), which proves the password to both sides.
    async fn scram(&mut self, offer: &Frame, password: &[u8]) -> Result<()> {
        let mut mechanisms = offer.body.split(|byte| *byte == 0);
        if !mechanisms.any(|mechanism| mechanism == SCRAM_SHA_256.as_bytes()) {
            let offered = String::from_utf8_lossy(&offer.body).replace('\0', " ");
            return Err(Error::AuthenticationUnsupported { method: offered });
        }
        let mut scram = ScramSha256::new(password, ChannelBinding::unsupported());
        frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut self.write)
            .map_err(Error::io(DOING))?;
        self.flush(DOING).await?;
        let challenge = self.sasl(11).await?;
        scram.update(&challenge.body).map_err(Error::Scram)?;
        frontend::sasl_response(scram.message(), &mut self.write).map_err(Error::io(DOING))?;
        self.flush(DOING).await?;
        let outcome = self.sasl(12).await?;
        scram.finish(&outcome.body).map_err(Error::Scram)
    }

    /// The authentication message of a kind, without that number.
    async fn sasl(&mut self, kind: u32) -> Result<Frame> {
        let mut frame = self.receive(DOING).await?;
        match (frame.tag, frame.body.try_get_u32()) {
            (b'R', Ok(found)) if found == kind => Ok(frame),
            (tag, _) => Err(unexpected(tag)),
        }
    }
}

/// The refusals that an operator can do something about, by SQLSTATE.
fn explained(error: Error, endpoint: &Endpoint) -> Error {
    let user = || endpoint.user.clone();
    match error {
        Error::Server { source, .. } if source.sqlstate.starts_with("28") => Error::Login {
            user: user(),
            source,
        },
        Error::Server { source, .. } if source.sqlstate == "42501" => {
            Error::ReplicationRole { user: user() }
        }
        other => other,
    }
}

fn unsupported(method: u32) -> Error {
    let name = match method {
        2 => "Kerberos V5",
        7 | 8 => "GSSAPI",
        9 => "SSPI",
        _ => {
            return Error::AuthenticationUnsupported {
                method: format!("method {method}"),
            };
        }
    };
    Error::AuthenticationUnsupported {
        method: name.to_owned(),
    }
}

fn unexpected(tag: u8) -> Error {
    Error::Unexpected {
        doing: DOING,
        tag: char::from(tag),
    }
}
