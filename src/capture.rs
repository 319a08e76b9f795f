//! The reader: from the source's log to the commit log and the row topics.
//!
//! - Nothing is produced before the term's `open` is acknowledged and the log's tail was checked.
//! - The slot is confirmed only to what the log has acknowledged.
//! - Whatever fails ends the term; the next one sends everything unconfirmed again.

mod confirm;
mod error;
mod left_out;
pub(crate) mod lineage;
mod markers;
mod messages;
mod moved;
pub(crate) mod oversize;
mod records;
mod snapshot;
mod start;
mod status;
mod stream;
mod tables;
mod tail;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use walferry_core::{Log, Source, TopicSpec};
use walferry_schema::envelope::Template;
use walferry_schema::{Modes, TableName, Term};

use lineage::Lineage;

pub use error::CaptureError;
pub(crate) use moved::open_moved;
pub(crate) use status::Progress;
pub use status::{CaptureStatus, ReadProgress, ReaderStage};
#[cfg(test)]
use stream::BEHIND;
pub(crate) use stream::{BURST, FEEDBACK, URGENT};
pub(crate) use tables::{Table, Tables, with_key_of};

/// What a reader is told by the configuration.
#[derive(Clone)]
pub struct CaptureOptions {
    /// The replication slot's name, for errors and the `generation` record.
    pub slot: String,
    /// The publication's name, for errors.
    pub publication: String,
    /// The topic prefix.
    pub prefix: String,
    /// Partitions of a table's topic.
    pub partitions: i32,
    /// Whether a delete is followed by a tombstone.
    pub tombstones: bool,
    /// Which topics are written beside those of the tables and the commit log.
    pub extra_topics: ExtraTopics,
    /// How values stand in the records.
    pub modes: Modes,
    /// The largest row that the source holds in memory, for errors.
    pub max_row_bytes: usize,
    /// How long an idle position may wait for its heartbeat.
    pub heartbeat: Duration,
    /// Whether the sink is another process: it has a heartbeat each time, so that it knows of its reader, idle or not.
    pub is_alone: bool,
    /// How long a term lasts at most: it is begun anew before its `open` leaves the log.
    pub longest_term: Duration,
    /// Which tables are streamed.
    pub selects: Arc<dyn Fn(&TableName) -> bool + Send + Sync>,
    /// The time of day, which numbers the generations.
    pub clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
}

/// Debezium's topics that the sink has no use for.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExtraTopics {
    /// Whether each transaction's begin and end are written to a topic.
    pub transaction: bool,
    /// Whether logical messages are.
    pub message: bool,
}

/// The reader of one pipeline.
pub struct Capture<S, L> {
    source: S,
    log: L,
    options: CaptureOptions,
    template: Template,
    progress: Progress,
    /// Where the parts of what is too large go, once it is known to be there.
    dead_letter: Option<Arc<TopicSpec>>,
    stop: CancellationToken,
    is_new_snapshot_wanted: bool,
}

/// A term whose `open` stands in the log.
struct Opened {
    term: Term,
    lineage: Lineage,
    start_lsn: walferry_schema::Lsn,
    last_commit: Option<walferry_schema::Lsn>,
}

// === impl Capture ===

impl<S: Source, L: Log> Capture<S, L> {
    /// A reader; `stop` ends it in order. With `is_new_snapshot_wanted` the first term begins a new
    /// generation whatever the log says.
    pub fn new(
        source: S,
        log: L,
        options: CaptureOptions,
        stop: CancellationToken,
        is_new_snapshot_wanted: bool,
    ) -> Self {
        let template = Template {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: options.prefix.clone(),
            database: String::new(),
            modes: options.modes,
        };
        Self {
            source,
            log,
            options,
            template,
            progress: Progress::default(),
            dead_letter: None,
            stop,
            is_new_snapshot_wanted,
        }
    }

    /// Follows what the reader has come to.
    pub fn status(&self) -> watch::Receiver<CaptureStatus> {
        self.progress.status()
    }

    /// Reads one term: until it is told to stop, or until something fails.
    ///
    /// # Errors
    /// Whatever ended the term; its class says whether another one may follow.
    pub async fn run_term(&mut self) -> Result<(), CaptureError> {
        let ended = self.term().await;
        self.progress.enter(ReaderStage::Away);
        ended
    }

    async fn term(&mut self) -> Result<(), CaptureError> {
        let stop = self.stop.clone();
        let opened = tokio::select! {
            biased;
            // An opening that is given up is one that crashed: the next one copes with either.
            () = stop.cancelled() => return Ok(()),
            opened = self.open() => opened?,
        };
        self.progress.read_generation(opened.term.generation);
        self.progress.enter(ReaderStage::Streaming);
        stream::Stream::new(self, opened).run().await
    }

    /// The dead-letter topic, which is made when it is first needed.
    async fn dead_letter(&mut self) -> Result<Arc<TopicSpec>, CaptureError> {
        if let Some(topic) = &self.dead_letter {
            return Ok(topic.clone());
        }
        let topic = oversize::topic(&self.options.prefix);
        self.log.ensure_topics(std::slice::from_ref(&topic)).await?;
        Ok(self.dead_letter.insert(Arc::new(topic)).clone())
    }

    /// The commit log's topic.
    fn log_topic(&self) -> String {
        format!("{}.commits", self.options.prefix)
    }
}

/// Nanoseconds since 1970.
fn now_nanos() -> i64 {
    let elapsed = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
}
