//! One reader per slot, also while the slot is being made or its snapshot read.
//!
//! - A slot is active only while it streams; an advisory lock of the session covers the rest, so that a second reader
//!   cannot take a snapshot under way for an interrupted one.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_postgres::types::Type;
use walferry_core::Tasks;

use crate::error::{Error, Result};
use crate::settings::Endpoint;
use crate::sql::connect;

const GUARDING: &str = "locking the replication slot's name";
/// Between two tries at a lock that another session holds: it may be that of our own crashed reader.
const PAUSE: Duration = Duration::from_millis(50);
const KEY: &str = "pg_catalog.hashtextextended('walferry ' || $1, 0)";

/// The lock, held for as long as its connection lives.
pub(super) struct Guard {
    client: Client,
}

// === impl Guard ===

impl Guard {
    /// Takes the lock.
    ///
    /// # Errors
    /// Fatal, with the process that holds it, when another reader does for longer than `wait`.
    pub(super) async fn acquire(
        endpoint: &Endpoint,
        tasks: &Tasks,
        slot: &str,
        wait: Duration,
    ) -> Result<Self> {
        let deadline = Instant::now() + wait;
        let client = connect(endpoint, tasks).await?.client;
        let sql = format!("select pg_catalog.pg_try_advisory_lock({KEY})");
        loop {
            let row = client.query_typed_one(&sql, &[(&slot, Type::TEXT)]).await;
            if row.map_err(Error::sql(GUARDING))?.get(0) {
                return Ok(Self { client });
            }
            if Instant::now() >= deadline {
                let pid = holder(&client, slot).await?;
                return Err(Error::SlotActive {
                    slot: slot.to_owned(),
                    pid,
                });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Whether the lock is still held.
    pub(super) fn is_held(&self) -> bool {
        !self.client.is_closed()
    }
}

async fn holder(client: &Client, slot: &str) -> Result<Option<u32>> {
    let sql = format!(
        "select pid from pg_catalog.pg_locks join pg_catalog.pg_database d on d.oid = database
         where locktype = 'advisory' and granted and objsubid = 1 and datname = pg_catalog.current_database()
           and (classid::int8 << 32) | objid::int8 = {KEY}"
    );
    let row = client
        .query_typed_opt(&sql, &[(&slot, Type::TEXT)])
        .await
        .map_err(Error::sql(GUARDING))?;
    Ok(row.and_then(|row| u32::try_from(row.get::<_, i32>(0)).ok()))
}
