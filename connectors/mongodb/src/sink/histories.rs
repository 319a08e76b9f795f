//! Where histories begin.

use bson::Document;
use tracing::{debug, info};
use walferry_core::Checkpoint;
use walferry_schema::TableName;

use super::MongoSink;
use crate::batch::Segment;
use crate::history::{self, Found, Moment, Seen};
use crate::{Error, Naming, Result};

// === impl MongoSink ===

impl MongoSink {
    /// Has the versions of rows be what the collections hold, where a history begins with this.
    pub(super) async fn begin_histories(
        &mut self,
        checkpoint: &Checkpoint,
        first_commit: Option<i64>,
    ) -> Result<()> {
        let pipeline = self.store.settings.pipeline.clone();
        let over = self.histories.end(&pipeline);
        if !over.is_empty() {
            self.commit(&[Segment::Histories(over)], Document::new())
                .await?;
        }
        if self.store.settings.histories.is_empty() {
            return Ok(());
        }
        for table in checkpoint.tables.iter().map(|it| &it.name) {
            let is_begun = self.histories.has(table, checkpoint.generation);
            if !is_begun && self.store.settings.histories.has(table) {
                self.check_history(table, checkpoint)?;
                let stands = self.stands.unwrap_or_else(|| Moment::at(checkpoint));
                let epoch = self.claim.as_ref().ok_or(Error::NotClaimed)?.epoch;
                self.begin_history(table, stands.beginning(epoch, first_commit))
                    .await?;
                self.histories.insert(table.clone(), checkpoint.generation);
            }
        }
        Ok(())
    }

    /// That a history is nobody else's collection, and that all of its rows are as the source has them.
    fn check_history(&self, table: &TableName, checkpoint: &Checkpoint) -> Result<()> {
        let collection = history::collection(&Naming.collection(table)?);
        for other in checkpoint.tables.iter().map(|it| &it.name) {
            if Naming.collection(other)? == collection {
                return Err(Error::CollectionClash {
                    first: table.clone(),
                    second: other.clone(),
                    collection,
                });
            }
        }
        if self.parked.has(table, checkpoint.generation) {
            return Err(Error::HistoryWaits {
                table: table.clone(),
            });
        }
        Ok(())
    }

    async fn begin_history(&mut self, table: &TableName, stands: Moment) -> Result<()> {
        let mut seen = Seen::none(table, stands, self.store.settings.policies)?;
        history::make_indexes(&self.store, &seen.history()).await?;
        let (mut rows, mut written) = (0, 0);
        while let Found::Changes(found, looked_at) = seen.next(&self.store).await? {
            (rows, written) = (rows + looked_at, written + found.operations());
            if !found.is_empty() {
                self.commit(&[Segment::History(vec![found])], Document::new())
                    .await?;
                debug!(%table, rows, written, "a history begins");
            }
        }
        let generation = stands.position.generation;
        let pipeline = &self.store.settings.pipeline;
        let begun = history::beginning(pipeline, table, generation);
        self.commit(&[Segment::Histories(vec![begun])], Document::new())
            .await?;
        info!(%table, rows, written, "the history has begun");
        Ok(())
    }
}
