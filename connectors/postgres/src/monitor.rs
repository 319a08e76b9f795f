//! What the slot costs its server, measured beside the stream.
//!
//! - Asks over a connection of its own, so that a stream that stands still is still measured.

use tokio_postgres::types::Type;
use walferry_core::Tasks;
use walferry_schema::Lsn;

use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::settings::Settings;
use crate::sql::Sql;

const MEASURING: &str = "measuring the replication slot";
const STATE: &str = "
    with now as (select case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn()
                             else pg_catalog.pg_current_wal_flush_lsn() end as lsn)
    select now.lsn::text, pg_catalog.current_setting('server_version'), s.active, s.confirmed_flush_lsn::text,
           pg_catalog.pg_wal_lsn_diff(now.lsn, s.restart_lsn)::int8, s.wal_status, s.safe_wal_size
    from now left join pg_catalog.pg_replication_slots s on s.slot_name = $1";

/// Measures a slot again and again.
pub struct SlotMonitor {
    sql: Sql,
    slot: String,
}

/// The server's log and the slot at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotReport {
    /// The server's version, as it says it.
    pub server_version: String,
    /// How far the server's log is durable.
    pub flush_lsn: Lsn,
    /// The slot; none when it does not exist.
    pub slot: Option<SlotUse>,
}

/// What a slot keeps on its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotUse {
    /// Whether a process streams from it.
    pub is_active: bool,
    /// What was confirmed last.
    pub confirmed_lsn: Lsn,
    /// WAL that the server keeps for it, in bytes; none once it keeps none because the slot is lost.
    pub retained_bytes: Option<u64>,
    /// PostgreSQL's word for the state of that WAL: `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: String,
    /// How many bytes may still be written before the slot is in danger; none without `max_slot_wal_keep_size`.
    pub spare_bytes: Option<u64>,
}

// === impl SlotMonitor ===

impl SlotMonitor {
    /// A monitor that connects when it is first used.
    ///
    /// # Errors
    /// Fatal when the URL cannot be used.
    pub fn new(settings: &Settings, tasks: Tasks) -> Result<Self> {
        Ok(Self {
            sql: Sql::new(Endpoint::parse(&settings.url)?, tasks),
            slot: settings.slot.clone(),
        })
    }

    /// The slot as it is now.
    ///
    /// # Errors
    /// When the server cannot be asked; measure again later.
    pub async fn measure(&mut self) -> Result<SlotReport> {
        let client = self.sql.client().await?;
        let row = client
            .query_typed_one(STATE, &[(&self.slot, Type::TEXT)])
            .await
            .map_err(Error::sql(MEASURING))?;
        let is_active: Option<bool> = row.get(2);
        let bytes = |column| {
            let bytes: Option<i64> = row.get(column);
            bytes.map(|bytes| u64::try_from(bytes).unwrap_or_default())
        };
        let slot = is_active.map(|is_active| SlotUse {
            is_active,
            confirmed_lsn: lsn(row.get(3)),
            retained_bytes: bytes(4),
            wal_status: row.get::<_, Option<String>>(5).unwrap_or_default(),
            spare_bytes: bytes(6),
        });
        Ok(SlotReport {
            server_version: row.get(1),
            flush_lsn: lsn(row.get(0)),
            slot,
        })
    }
}

/// What the server calls an LSN is one; there is none while a slot is being made.
fn lsn(text: Option<&str>) -> Lsn {
    text.and_then(|text| text.parse().ok()).unwrap_or(Lsn::ZERO)
}
