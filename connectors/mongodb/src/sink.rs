//! The fenced, transactional sink.

use std::collections::BTreeMap;
use std::sync::Arc;

use walferry_core::{Applied, Checkpoint, Fault, Sink};
use walferry_schema::{TableName, TableSpec};

use crate::batch::{MongoBatch, Segment};
use crate::claim::Claim;
use crate::staging;
use crate::store::Store;
use crate::transaction::Transaction;
use crate::{Error, Result, Settings};

/// Writes batches of row events, each with its checkpoint as one transaction.
///
/// After any error but a refused push the pipeline has to be claimed again.
#[derive(Debug)]
pub struct MongoSink {
    store: Store,
    claim: Option<Claim>,
    truncated: BTreeMap<(TableName, Arc<str>), u64>,
}

// === impl MongoSink ===

impl MongoSink {
    /// Connects, and sees whether the server has transactions.
    ///
    /// # Errors
    /// Fatal when the URL is none, the login fails, or the server has no transactions; transient
    /// when it cannot be reached.
    pub async fn connect(settings: Settings) -> Result<Self> {
        Ok(Self {
            store: Store::connect(settings).await?,
            claim: None,
            truncated: BTreeMap::new(),
        })
    }

    /// How many values lost their microseconds since the start, by table and column.
    pub fn truncated(&self) -> &BTreeMap<(TableName, Arc<str>), u64> {
        &self.truncated
    }

    async fn take_claim(&mut self) -> Result<Option<Checkpoint>> {
        let before = self.claim.take();
        let (claim, stored) = Box::pin(Claim::take(&self.store, before)).await?;
        self.claim = Some(claim);
        Ok(stored.checkpoint)
    }

    async fn write(&mut self, batch: MongoBatch, checkpoint: &Checkpoint) -> Result<Applied> {
        // The claim comes back only when its state is certain.
        let mut claim = self.claim.take().ok_or(Error::NotClaimed)?;
        let segments = batch.into_segments();
        let mut transaction = Transaction {
            store: &self.store,
            claim: &mut claim,
            segments: &segments,
            checkpoint,
        };
        let applied = Box::pin(transaction.run()).await?;
        claim.seq += 1;
        self.claim = Some(claim);
        self.count_truncated(&segments);
        Ok(applied)
    }

    fn count_truncated(&mut self, segments: &[Segment]) {
        for encoder in segments.iter().flat_map(Segment::encoders) {
            for (column, count) in &encoder.truncated {
                let key = (encoder.table.clone(), column.clone());
                *self.truncated.entry(key).or_default() += count;
            }
        }
    }
}

impl Sink for MongoSink {
    type Batch = MongoBatch;

    async fn claim(&mut self) -> Result<Option<Checkpoint>, Fault> {
        Ok(self.take_claim().await?)
    }

    fn batch(&self) -> MongoBatch {
        MongoBatch::new(self.store.settings.policies)
    }

    async fn apply(
        &mut self,
        batch: MongoBatch,
        checkpoint: &Checkpoint,
    ) -> Result<Applied, Fault> {
        Ok(self.write(batch, checkpoint).await?)
    }

    async fn stage(&mut self, generation: u64, tables: &[TableSpec]) -> Result<(), Fault> {
        Ok(Box::pin(staging::stage(&self.store, generation, tables)).await?)
    }

    async fn swap(&mut self, generation: u64, tables: &[TableSpec]) -> Result<(), Fault> {
        Ok(Box::pin(staging::swap(&self.store, generation, tables)).await?)
    }
}
