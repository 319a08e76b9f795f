//! One connection to PostgreSQL and the task that drives it.

use std::str::FromStr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_postgres::{Client, Config, NoTls};

use crate::Error;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that closes when it is dropped.
#[derive(Debug)]
pub struct Session {
    client: Client,
    _driver: JoinSet<()>,
}

// === impl Session ===

impl Session {
    /// Connects, without TLS.
    ///
    /// # Errors
    /// [`Error::Connect`] when the server cannot be reached within ten seconds or refuses the login.
    pub async fn connect(database: &Config) -> Result<Self, Error> {
        let mut config = database.clone();
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_application_name().is_none() {
            config.application_name("retail");
        }
        let (client, connection) = config.connect(NoTls).await.map_err(Error::Connect)?;
        let mut driver = JoinSet::new();
        // What ends the connection is told to the statement that waits for it.
        driver.spawn(async move { drop(connection.await) });
        Ok(Self {
            client,
            _driver: driver,
        })
    }

    /// The client, for statements.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The client, for transactions.
    pub fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// Reads `postgres://user@host:port/database` or `host=… user=…`.
///
/// # Errors
/// [`Error::Url`] when it is neither.
pub fn parse_url(url: &str) -> Result<Config, Error> {
    Config::from_str(url).map_err(Error::Url)
}
