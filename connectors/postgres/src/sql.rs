//! The ordinary connection that serves SQL queries.

use tokio_postgres::{Client, NoTls};
use walferry_core::Tasks;

use crate::error::{Error, Result};
use crate::settings::Endpoint;

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
    let connected = endpoint.client_config().connect(NoTls).await;
    let (client, connection) = connected.map_err(|error| login_failed(endpoint, error))?;
    let version = connection.parameter("server_version").unwrap_or_default();
    let major = version
        .split(|c: char| !c.is_ascii_digit())
        .next()
        .unwrap_or_default();
    let server_version = major.parse().unwrap_or_default();
    tasks.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an SQL connection ended");
        }
    });
    if server_version >= HAS_TRANSACTION_TIMEOUT {
        let unlimited = client.batch_execute("SET transaction_timeout = 0").await;
        unlimited.map_err(Error::sql(CONNECTING))?;
    }
    Ok(Connected {
        client,
        server_version,
    })
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
