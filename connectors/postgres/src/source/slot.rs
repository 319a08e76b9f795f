//! The life of a replication slot.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_postgres::types::Type;
use walferry_core::SlotState;
use walferry_schema::{Lsn, ServerIdentity};

use crate::error::{Error, Result};
use crate::identifier::quoted;
use crate::link::Link;
use crate::settings::Settings;
use crate::stream::ReplicationStream;

const PLUGIN: &str = "pgoutput";
const INSPECTING: &str = "inspecting the replication slot";
const IDENTIFYING: &str = "identifying the server";
const CREATING: &str = "creating the replication slot";
const ALTERING: &str = "giving the replication slot its failover property";
const DROPPING: &str = "dropping the replication slot";
/// Between two tries at a slot that is active elsewhere.
const PAUSE: Duration = Duration::from_millis(50);
const IN_USE: &str = "55006";
const UNDEFINED: &str = "42704";
/// The first version whose slots can be synchronised to standbys.
const HAS_FAILOVER: u32 = 17;

/// The server's answer to `IDENTIFY_SYSTEM`.
pub(super) struct Identified {
    pub(super) server: ServerIdentity,
    pub(super) flush_lsn: Lsn,
    pub(super) database: String,
}

/// A slot that was just made.
pub(super) struct Made {
    pub(super) consistent_lsn: Lsn,
    /// The exported snapshot's name.
    pub(super) snapshot: String,
}

pub(super) async fn identify(link: &mut Link) -> Result<Identified> {
    let [system_id, timeline, flush_lsn, database] =
        one_row(link, IDENTIFYING, "IDENTIFY_SYSTEM").await?;
    let timeline = timeline
        .parse()
        .map_err(|_| unreadable(IDENTIFYING, &timeline))?;
    Ok(Identified {
        server: ServerIdentity {
            system_id,
            timeline,
        },
        flush_lsn: lsn(IDENTIFYING, &flush_lsn)?,
        database,
    })
}

/// The slot as it is now, none when it does not exist.
///
/// # Errors
/// Fatal when the server cannot decode its log, or the slot is not one of ours.
pub(super) async fn inspect(
    client: &Client,
    slot: &str,
    database: &str,
) -> Result<Option<SlotState>> {
    let level = "select pg_catalog.current_setting('wal_level')";
    let level = client
        .query_typed_one(level, &[])
        .await
        .map_err(Error::sql(INSPECTING))?;
    let level: String = level.get(0);
    if level != "logical" {
        return Err(Error::WalLevel { found: level });
    }
    let sql = "select coalesce(plugin::text, 'physical replication'), coalesce(database::text, ''), active,
                      confirmed_flush_lsn::text, coalesce(wal_status = 'lost', false)
               from pg_catalog.pg_replication_slots where slot_name = $1";
    let found = client
        .query_typed_opt(sql, &[(&slot, Type::TEXT)])
        .await
        .map_err(Error::sql(INSPECTING))?;
    let Some(row) = found else { return Ok(None) };
    let (plugin, of): (&str, &str) = (row.get(0), row.get(1));
    if plugin != PLUGIN || of != database {
        let found = if of.is_empty() {
            plugin.to_owned()
        } else {
            format!("{plugin} in the database {of:?}")
        };
        return Err(Error::SlotForeign {
            slot: slot.to_owned(),
            found,
            database: database.to_owned(),
        });
    }
    // Without a confirmed LSN the slot is being made: it stands nowhere yet.
    let confirmed: Option<&str> = row.get(3);
    let confirmed_lsn = confirmed.map_or(Ok(Lsn::ZERO), |text| lsn(INSPECTING, text))?;
    Ok(Some(SlotState {
        confirmed_lsn,
        is_active: row.get(2),
        is_lost: row.get(4),
    }))
}

/// Drops the slot if it is there.
///
/// # Errors
/// Fatal when it stays active elsewhere for longer than `wait`.
pub(super) async fn remove(link: &mut Link, slot: &str, wait: Duration) -> Result<()> {
    // Not WAIT: that has no limit, and nobody would be told for whom.
    let command = format!("DROP_REPLICATION_SLOT {}", quoted(slot));
    match once_free(link, DROPPING, &command, wait).await {
        Err(error) if error.sqlstate() == Some(UNDEFINED) => Ok(()),
        dropped => dropped.map_err(|error| named(error, slot)),
    }
}

/// Has the slot synchronised to standbys; one that is already stays as it is.
///
/// # Errors
/// Fatal when the server knows no such slots, or the slot stays active elsewhere for longer than `wait`.
pub(super) async fn keep_over_failover(link: &mut Link, slot: &str, wait: Duration) -> Result<()> {
    check_failover(link)?;
    let command = format!("ALTER_REPLICATION_SLOT {} (FAILOVER true)", quoted(slot));
    let altered = once_free(link, ALTERING, &command, wait).await;
    altered.map_err(|error| named(error, slot))
}

/// Runs a command on a slot; while that is active elsewhere it is tried again for `wait`.
async fn once_free(
    link: &mut Link,
    doing: &'static str,
    command: &str,
    wait: Duration,
) -> Result<()> {
    let deadline = Instant::now() + wait;
    loop {
        match link.query(doing, command).await {
            Err(error) if error.sqlstate() == Some(IN_USE) && Instant::now() < deadline => {
                tokio::time::sleep(PAUSE).await;
            }
            done => return done.map(drop),
        }
    }
}

/// Whether the server knows slots that outlive a failover.
pub(super) fn check_failover(link: &Link) -> Result<()> {
    if link.server_version() >= HAS_FAILOVER {
        return Ok(());
    }
    Err(Error::NoFailoverSlots {
        version: link.server_version(),
    })
}

/// Makes the slot; its snapshot can be joined until the link's next command.
///
/// Waits for the end of every transaction that is open now.
pub(super) async fn create(link: &mut Link, slot: &str, has_failover: bool) -> Result<Made> {
    let options = if has_failover {
        "(SNAPSHOT 'export', FAILOVER true)"
    } else {
        // The syntax that all of 14 to 18 know.
        "EXPORT_SNAPSHOT"
    };
    let command = format!(
        "CREATE_REPLICATION_SLOT {} LOGICAL {PLUGIN} {options}",
        quoted(slot)
    );
    tracing::info!(
        slot,
        "creating the replication slot, which waits for open transactions to end"
    );
    let [_slot, consistent_lsn, snapshot, _plugin] = one_row(link, CREATING, &command).await?;
    let consistent_lsn = lsn(CREATING, &consistent_lsn)?;
    tracing::info!(slot, %consistent_lsn, "created the replication slot");
    Ok(Made {
        consistent_lsn,
        snapshot,
    })
}

/// Starts the stream. A slot that is active elsewhere is tried again for `wait`: the server may not have noticed yet
/// that our last connection is gone.
///
/// # Errors
/// Fatal when the slot stays active elsewhere or does not exist.
pub(super) async fn own(mut link: Link, settings: &Settings) -> Result<ReplicationStream> {
    let deadline = Instant::now() + settings.slot_wait;
    loop {
        match ReplicationStream::start(link, settings).await {
            Ok(stream) => return Ok(stream),
            Err((same, error)) if error.sqlstate() == Some(IN_USE) && Instant::now() < deadline => {
                link = same;
                tokio::time::sleep(PAUSE).await;
            }
            Err((_, error)) => return Err(named(error, &settings.slot)),
        }
    }
}

/// Where the slot stands.
///
/// # Errors
/// Fatal when the publication does not exist: nothing would ever be sent.
pub(super) async fn confirmed_lsn(client: &Client, slot: &str, publication: &str) -> Result<Lsn> {
    let sql = "select confirmed_flush_lsn::text,
                      exists (select from pg_catalog.pg_publication where pubname = $2)
               from pg_catalog.pg_replication_slots where slot_name = $1";
    let found = client
        .query_typed_opt(sql, &[(&slot, Type::TEXT), (&publication, Type::TEXT)])
        .await;
    let row = found.map_err(Error::sql(INSPECTING))?;
    let row = row.ok_or_else(|| Error::SlotMissing {
        slot: slot.to_owned(),
    })?;
    if !row.get::<_, bool>(1) {
        return Err(Error::PublicationMissing {
            name: publication.to_owned(),
        });
    }
    let confirmed: Option<&str> = row.get(0);
    lsn(
        INSPECTING,
        confirmed.ok_or_else(|| Error::SlotMissing {
            slot: slot.to_owned(),
        })?,
    )
}

/// The refusals that are about the slot itself.
fn named(error: Error, slot: &str) -> Error {
    match error {
        Error::Server { source, .. } if source.sqlstate == IN_USE => Error::SlotActive {
            slot: slot.to_owned(),
            pid: source.last_number(),
            is_ours: false,
        },
        Error::Server { source, .. } if source.sqlstate == UNDEFINED => Error::SlotMissing {
            slot: slot.to_owned(),
        },
        other => other,
    }
}

/// The values of a command's only row.
async fn one_row<const N: usize>(
    link: &mut Link,
    doing: &'static str,
    command: &str,
) -> Result<[String; N]> {
    let mut rows = link.query(doing, command).await?;
    let values: Option<Vec<String>> = rows.pop().and_then(|row| row.into_iter().collect());
    values
        .and_then(|values| values.try_into().ok())
        .ok_or_else(|| unreadable(doing, "not one row of the columns asked for"))
}

fn lsn(doing: &'static str, text: &str) -> Result<Lsn> {
    text.parse().map_err(|_| unreadable(doing, text))
}

fn unreadable(doing: &'static str, what: &str) -> Error {
    Error::Reply {
        doing,
        what: what.to_owned(),
    }
}
