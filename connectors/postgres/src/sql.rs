//! The ordinary connection that serves SQL queries.

use tokio_postgres::{Client, NoTls};
use walferry_core::Tasks;

use crate::endpoint::{Endpoint, HostPort, IS_READ_ONLY};
use crate::error::{Error, Result};
use crate::transport::{self, Login, Stream};

/// Set once the connection is there, so that the database's own can be asked for.
pub(crate) const MONEY_AS_IN_C: &str = "SET lc_monetary = 'C'";
const CONNECTING: &str = "connecting to PostgreSQL";
/// The first version with `transaction_timeout`; others refuse the name at start-up.
const HAS_TRANSACTION_TIMEOUT: u32 = 17;

/// A connection that is made when it is needed, and made again when it is gone.
pub(crate) struct Sql {
    endpoint: Endpoint,
    tasks: Tasks,
    client: Option<Client>,
}

/// A new connection, and the server's major version.
pub(crate) struct Connected {
    pub(crate) client: Client,
    pub(crate) server_version: u32,
}

/// Logging in for SQL.
struct SqlLogin<'a> {
    endpoint: &'a Endpoint,
    tasks: &'a Tasks,
}

// === impl Sql ===

impl Sql {
    pub(crate) fn new(endpoint: Endpoint, tasks: Tasks) -> Self {
        Self {
            endpoint,
            tasks,
            client: None,
        }
    }

    /// Itself with its connection, leaving behind what will make another when it is needed.
    pub(crate) fn take(&mut self) -> Self {
        let spare = Self::new(self.endpoint.clone(), self.tasks.clone());
        std::mem::replace(self, spare)
    }

    /// The connection.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn client(&mut self) -> Result<&Client> {
        let usable = self.client.take().filter(|client| !client.is_closed());
        let client = match usable {
            Some(client) => client,
            None => connect(&self.endpoint, &self.tasks).await?.client,
        };
        Ok(self.client.insert(client))
    }
}

/// A new connection, driven by a task of its own that ends with the client.
pub(crate) async fn connect(endpoint: &Endpoint, tasks: &Tasks) -> Result<Connected> {
    transport::connect(endpoint, &SqlLogin { endpoint, tasks }).await
}

// === impl SqlLogin ===

impl Login for SqlLogin<'_> {
    type Session = Connected;

    async fn log_in(&self, stream: Stream, host: HostPort) -> Result<Connected> {
        let Self { endpoint, tasks } = self;
        stream.watch_peer().map_err(Error::io(CONNECTING))?;
        // The stream has its TLS, if any, already.
        let connected = endpoint.client_config().connect_raw(stream, NoTls).await;
        let (client, connection) = connected.map_err(|error| login_failed(endpoint, error))?;
        let server_version = major_version(connection.parameter("server_version"));
        tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an SQL connection ended");
            }
        });
        let unlimited = if server_version >= HAS_TRANSACTION_TIMEOUT {
            "; SET transaction_timeout = 0"
        } else {
            ""
        };
        let settings = format!("{MONEY_AS_IN_C}{unlimited}");
        let set = client.batch_execute(&settings).await;
        set.map_err(Error::sql(CONNECTING))?;
        if endpoint.is_choosy() {
            let answer = client.query_typed_one(IS_READ_ONLY, &[]).await;
            let answer = answer.map_err(Error::sql(CONNECTING))?;
            endpoint.judge(answer.get(0), &host)?;
        }
        Ok(Connected {
            client,
            server_version,
        })
    }
}

/// `15.14 (Debian 15.14-0+deb12u1)` → 15
fn major_version(version: Option<&str>) -> u32 {
    let mut parts = version
        .unwrap_or_default()
        .split(|c: char| !c.is_ascii_digit());
    let major = parts.next().unwrap_or_default();
    major.parse().unwrap_or_default()
}

fn login_failed(endpoint: &Endpoint, error: tokio_postgres::Error) -> Error {
    match Error::sql(CONNECTING)(error) {
        Error::Server { source, .. } if source.sqlstate.starts_with("28") => Error::Login {
            user: endpoint.user.clone(),
            source,
        },
        other => other,
    }
}
