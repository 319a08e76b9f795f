//! Where histories begin.

use bson::Document;
use tracing::{debug, info};
use walferry_core::Checkpoint;
use walferry_schema::TableName;

use super::MongoSink;
use crate::Result;
use crate::batch::Segment;
use crate::history::{self, Found, Moment, Seen};

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
                let stands = self.stands.unwrap_or_else(|| Moment::at(checkpoint));
                self.begin_history(table, stands.not_after(first_commit))
                    .await?;
                self.histories.insert(table.clone(), checkpoint.generation);
            }
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
