//! What the servers know of a pipeline whose daemon does not answer.
//!
//! - It only looks, and never for long: what a server does not say in time is left out, with the reason.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::time::timeout;
use walferry_core::{Fault, PipelineState, Tasks};
use walferry_mongodb::KeptPosition;
use walferry_postgres::SlotReport;
use walferry_schema::Lsn;

use super::{Asked, SourceStatus, State, ToDo};
use crate::config::Config;
use crate::pipeline::connect::{mongodb_settings, slot_monitor};

/// How long each server may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A pipeline as its servers know it, without its daemon.
#[derive(Clone, Debug, Serialize)]
pub struct ServersStatus {
    /// Who said all this: always `servers`, never the daemon.
    pub from: &'static str,
    /// The pipeline's name.
    pub pipeline: String,
    /// Why the daemon did not say it.
    pub daemon_error: String,
    /// PostgreSQL and its slot.
    pub source: SourceStatus,
    /// What the slot is confirmed to; none when there is no slot.
    pub confirmed_lsn: Option<Lsn>,
    /// The position document; none when there is none, or MongoDB did not show it.
    pub position: Option<PositionStatus>,
    /// Why MongoDB did not show it.
    pub position_error: Option<String>,
    /// WAL that is not applied yet, in bytes at most; none when it cannot be known.
    pub lag_bytes: Option<u64>,
    /// What waits for the operator, as far as MongoDB showed it.
    pub to_do: Vec<ToDo>,
}

/// What the sink has stored of its own progress.
#[derive(Clone, Debug, Serialize)]
pub struct PositionStatus {
    /// What the pipeline was doing; none when it was claimed and nothing was applied.
    pub state: Option<State>,
    /// The generation.
    pub generation: Option<u64>,
    /// The last transaction applied, as `GENERATION/LSN`, or the last chunk of the snapshot.
    pub position: Option<String>,
    /// How far the source's log is applied.
    pub end_lsn: Option<Lsn>,
    /// When it was written, seconds since 1970.
    pub updated_at: Option<u64>,
}

// === impl ServersStatus ===

impl ServersStatus {
    /// Asks the servers of a configuration, since the daemon did not say it for this reason.
    pub async fn ask(config: &Config, daemon_error: String, tasks: &Tasks) -> Self {
        let source = async {
            slot_monitor(config, tasks)?
                .measure()
                .await
                .map_err(Fault::from)
        };
        let settings = mongodb_settings(config);
        let position = async { Ok(walferry_mongodb::position(&settings).await?) };
        let (source, position) =
            tokio::join!(in_time("PostgreSQL", source), in_time("MongoDB", position));
        let (report, source_error) = parted(source);
        let (position, position_error) = parted(position);
        let position = position.flatten();
        let to_do = position.as_ref().map(to_do).unwrap_or_default();
        let position = position.map(PositionStatus::from);
        let applied = position.as_ref().and_then(|it| it.end_lsn);
        let flush = report.as_ref().map(|it| it.flush_lsn);
        Self {
            from: "servers",
            pipeline: config.pipeline(),
            daemon_error,
            confirmed_lsn: confirmed(report.as_ref()),
            source: SourceStatus::new(report, source_error),
            lag_bytes: flush.zip(applied).map(|(flush, it)| flush.bytes_since(it)),
            position,
            position_error,
            to_do,
        }
    }
}

// === impl PositionStatus ===

impl From<KeptPosition> for PositionStatus {
    fn from(kept: KeptPosition) -> Self {
        let checkpoint = kept.checkpoint.as_ref();
        let since_1970 = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).ok();
        Self {
            state: checkpoint.map(|it| it.state.into()),
            generation: checkpoint.map(|it| it.generation),
            position: checkpoint
                .and_then(|it| it.position)
                .map(|it| it.to_string()),
            end_lsn: checkpoint.map(|it| it.end_lsn),
            updated_at: kept.updated_at.and_then(since_1970).map(|it| it.as_secs()),
        }
    }
}

// === impl State ===

impl From<PipelineState> for State {
    fn from(state: PipelineState) -> Self {
        match state {
            PipelineState::Snapshot => Self::Snapshot,
            PipelineState::Swapping => Self::Swapping,
            PipelineState::Live => Self::Live,
        }
    }
}

fn to_do(kept: &KeptPosition) -> Vec<ToDo> {
    let applied = kept.checkpoint.as_ref().and_then(|it| it.position);
    Asked::of(&kept.orders, applied).to_do()
}

fn confirmed(report: Option<&SlotReport>) -> Option<Lsn> {
    Some(report?.slot.as_ref()?.confirmed_lsn)
}

/// What a server says, or why it says nothing.
async fn in_time<T>(
    server: &str,
    asked: impl Future<Output = Result<T, Fault>>,
) -> Result<T, String> {
    let answer = timeout(PATIENCE, asked).await;
    let late = |_| format!("{server} did not answer in time: `walferry check` says why");
    answer.map_err(late)?.map_err(|fault| fault.to_string())
}

fn parted<T>(answer: Result<T, String>) -> (Option<T>, Option<String>) {
    match answer {
        Ok(answer) => (Some(answer), None),
        Err(error) => (None, Some(error)),
    }
}
