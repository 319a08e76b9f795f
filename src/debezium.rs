//! A sink for topics that a real Debezium writes: there is no commit log, and no reader of ours.
//!
//! - The position is the offset of each partition, stored with the documents: each record takes effect once.
//! - Records of one key are applied in order; there is no order over partitions, and so none over tables.
//! - What Debezium sends again is applied again, which changes nothing.
//! - What Debezium writes where it has no value is never taken for data.

pub(crate) mod error;
mod events;
mod feed;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use walferry_core::{RecordReader, Sink, Tasks};
use walferry_etl::Mode;
use walferry_schema::TableName;

use crate::apply::{self, Apply, ApplyError, ApplyStatus, GroupLimits};
use crate::config::Config;
use feed::DebeziumFeed;

/// What a sink of foreign topics is made of, beside its connections.
pub(crate) struct Foreign<'a> {
    pub(crate) config: &'a Config,
    /// The topics are `<prefix>.<schema>.<table>`.
    pub(crate) prefix: &'a str,
    pub(crate) modes: walferry_schema::Modes,
    pub(crate) limits: watch::Receiver<GroupLimits>,
    pub(crate) status: watch::Sender<ApplyStatus>,
    pub(crate) tasks: Tasks,
}

// === impl Foreign ===

impl Foreign<'_> {
    /// Applies the topics until told to stop, or until something fails.
    ///
    /// # Errors
    /// Whatever ended it; after a passing one, run it again with new connections.
    pub(crate) async fn run<R: RecordReader, S: Sink>(
        &self,
        reader: R,
        mut sink: S,
        stop: &CancellationToken,
    ) -> Result<(), ApplyError> {
        let stored = apply::claim(&mut sink, None).await?;
        if stored.is_none() {
            warn!(
                "Debezium's topics have no order over tables: readers may see a part of a source transaction"
            );
        }
        let feed = DebeziumFeed::open(self, reader, stored);
        let (limits, status) = (self.limits.clone(), self.status.clone());
        let apply = Apply::start(sink, feed, limits, status, self.tasks.clone()).await?;
        apply.run(stop).await
    }
}

/// The table of a topic that is to be read, by the topic's name.
pub(crate) fn table_of(config: &Config, prefix: &str, topic: &str) -> Option<TableName> {
    let rest = topic.strip_prefix(prefix)?.strip_prefix('.')?;
    let (schema, table) = rest.split_once('.')?;
    let table = TableName::new(schema, table);
    (config.tables.mode(&table) == Mode::Stream).then_some(table)
}
