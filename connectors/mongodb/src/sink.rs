//! The fenced, transactional sink.

use std::collections::BTreeMap;
use std::sync::Arc;

use bson::Document;

use walferry_core::{Applied, Checkpoint, Fault, Sink};
use walferry_schema::{TableName, TableSpec};

use crate::batch::{MongoBatch, Segment};
use crate::claim::Claim;
use crate::staging::Staging;
use crate::store::Store;
use crate::transaction::Transaction;
use crate::writer::Writer;
use crate::{Error, OrderBook, Result, Settings, position};

/// Writes batches of row events, each with its checkpoint as one transaction.
///
/// After any error but a refused push the pipeline has to be claimed again.
#[derive(Debug)]
pub struct MongoSink {
    store: Store,
    writer: Writer,
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
            writer: Writer::new(),
            claim: None,
            truncated: BTreeMap::new(),
        })
    }

    /// Writes as a process that may have claimed before, through another connection.
    #[must_use]
    pub fn with_writer(mut self, writer: Writer) -> Self {
        self.writer = writer;
        self
    }

    /// How many values lost their microseconds since the start, by table and column.
    pub fn truncated(&self) -> &BTreeMap<(TableName, Arc<str>), u64> {
        &self.truncated
    }

    async fn take_claim(&mut self) -> Result<Option<Checkpoint>> {
        let before = self.claim.take();
        let (claim, stored) = Box::pin(Claim::take(&self.store, &self.writer, before)).await?;
        self.claim = Some(claim);
        Ok(stored.checkpoint)
    }

    async fn write(&mut self, batch: MongoBatch, checkpoint: &Checkpoint) -> Result<Applied> {
        let segments = batch.into_segments();
        let applied = self.commit(&segments, position::fields(checkpoint)).await?;
        self.count_truncated(&segments);
        Ok(applied)
    }

    /// Writes segments together with what becomes of the position document.
    async fn commit(&mut self, segments: &[Segment], position: Document) -> Result<Applied> {
        // The claim comes back only when its state is certain.
        let mut claim = self.claim.take().ok_or(Error::NotClaimed)?;
        let mut transaction = Transaction {
            store: &self.store,
            claim: &mut claim,
            segments,
            position,
        };
        let applied = Box::pin(transaction.run()).await?;
        claim.seq += 1;
        self.claim = Some(claim);
        Ok(applied)
    }

    /// Makes staging collections; only those that are recorded under the claim are ever renamed.
    async fn make_staging(&mut self, generation: u64, tables: &[TableSpec]) -> Result<()> {
        let staging = self.staging().await?;
        let made = staging.make(generation, tables).await?;
        self.commit(&[], position::staging_fields(&made)).await?;
        Ok(())
    }

    /// The staging collections as they are recorded, while the claim is ours.
    async fn staging(&self) -> Result<Staging<'_>> {
        let claim = self.claim.as_ref().ok_or(Error::NotClaimed)?;
        let recorded = claim.stored(&self.store).await?.staging;
        Ok(Staging {
            store: &self.store,
            recorded,
        })
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
    type Orders = OrderBook;

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
        Ok(Box::pin(self.make_staging(generation, tables)).await?)
    }

    async fn check(&mut self, checkpoint: &Checkpoint) -> Result<(), Fault> {
        let staging = Box::pin(self.staging()).await?;
        Ok(Box::pin(staging.check(checkpoint)).await?)
    }

    async fn swap(&mut self, generation: u64, tables: &[TableSpec]) -> Result<(), Fault> {
        let staging = Box::pin(self.staging()).await?;
        Ok(Box::pin(staging.swap(generation, tables)).await?)
    }

    fn order_reader(&self) -> OrderBook {
        OrderBook::over(self.store.clone())
    }
}
