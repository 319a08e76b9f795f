//! One reader per slot, also while the slot is being made or its snapshot read.
//!
//! - A slot is active only while it streams; an advisory lock of the session covers the rest, so that a second reader
//!   cannot take a snapshot under way for an interrupted one.
//! - A reader whose host is gone loses the lock within half a minute, and one that has lost it learns so as soon.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_postgres::types::Type;
use walferry_core::Tasks;

use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::sql::connect;

const GUARDING: &str = "locking the replication slot's name";
/// Between two tries at a lock that another session holds: it may be that of our own crashed reader.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the server may wait for our host to acknowledge an answer. Never on a connection that rows come from: not
/// reading for a while is back-pressure there.
const LIMIT_ANSWERS: &str = "SET tcp_user_timeout = '25s'";
const KEY: &str = "pg_catalog.hashtextextended('walferry ' || $1, 0)";

/// The lock, held for as long as its connection lives.
pub(super) struct Guard {
    client: Arc<Client>,
    /// The server process of the connection.
    pid: u32,
}

// === impl Guard ===

impl Guard {
    /// Takes the lock, after `former` if we held it before.
    ///
    /// # Errors
    /// With the process that holds it when one does for longer than `wait`: fatal when it is another reader's, transient
    /// when it is `former`'s, whose end the server has not noticed.
    pub(super) async fn acquire(
        endpoint: &Endpoint,
        tasks: &Tasks,
        slot: &str,
        wait: Duration,
        former: Option<&Self>,
    ) -> Result<Self> {
        let deadline = Instant::now() + wait;
        let client = Arc::new(connect(endpoint, tasks).await?.client);
        let limited = client.batch_execute(LIMIT_ANSWERS).await;
        limited.map_err(Error::sql(GUARDING))?;
        let sql =
            format!("select pg_catalog.pg_try_advisory_lock({KEY}), pg_catalog.pg_backend_pid()");
        loop {
            let row = client.query_typed_one(&sql, &[(&slot, Type::TEXT)]).await;
            let row = row.map_err(Error::sql(GUARDING))?;
            if row.get(0) {
                let pid = process_id(row.get(1)).unwrap_or_default();
                return Ok(Self { client, pid });
            }
            if Instant::now() >= deadline {
                let pid = holder(&client, slot).await?;
                return Err(Error::SlotActive {
                    slot: slot.to_owned(),
                    pid,
                    is_ours: pid.is_some() && pid == former.map(|former| former.pid),
                });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The connection, which has nothing to do but to hold the lock.
    pub(super) fn client(&self) -> Arc<Client> {
        Arc::clone(&self.client)
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
    Ok(row.and_then(|row| process_id(row.get(0))))
}

fn process_id(pid: i32) -> Option<u32> {
    u32::try_from(pid).ok()
}
