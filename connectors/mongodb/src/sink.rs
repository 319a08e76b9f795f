//! The fenced, transactional sink.

mod histories;
mod letters;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bson::Document;

use tokio::time::Instant;
use tracing::{info, warn};
use walferry_core::{Applied, Archive, Checkpoint, Fault, PipelineState, Sink};
use walferry_schema::{TableName, TableSpec};

use crate::batch::{Commits, MongoBatch, Parts, Segment};
use crate::claim::Claim;
use crate::history::{Begun, Moment};
use crate::parked::ParkedKeys;
use crate::parking::Sifted;
use crate::staging::Staging;
use crate::store::Store;
use crate::sweep::Sweep;
use crate::transaction::{Outcome, Transaction};
use crate::versions::{Redefined, Versions};
use crate::writer::Writer;
use crate::{Error, Naming, OrderBook, Result, Settings, Touched, dead_letters, parking, position};

/// How long the fields of dropped columns are unset at a time, while there is nothing else to do.
const SWEEP: Duration = Duration::from_millis(250);

/// Writes batches of row events, each with its checkpoint as one transaction.
///
/// After any error but a refused push the pipeline has to be claimed again.
#[derive(Debug)]
pub struct MongoSink {
    store: Store,
    writer: Writer,
    claim: Option<Claim>,
    truncated: BTreeMap<(TableName, Arc<str>), u64>,
    versions: Versions,
    /// What is looked through for fields of dropped columns.
    sweep: Option<Sweep>,
    /// The rows that lack changes.
    parked: ParkedKeys,
    /// Where whole records stand that were too large for the log.
    archive: Option<Arc<dyn Archive>>,
    histories: Begun,
    /// What the collections stand at.
    stands: Option<Moment>,
    /// Where it is told what is written.
    touched: Touched,
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
            versions: Versions::default(),
            sweep: None,
            parked: ParkedKeys::default(),
            archive: None,
            histories: Begun::default(),
            stands: None,
            touched: Touched::default(),
        })
    }

    /// Writes as a process that may have claimed before, through another connection.
    #[must_use]
    pub fn with_writer(mut self, writer: Writer) -> Self {
        self.writer = writer;
        self
    }

    /// Fetches from there what was too large for the log, when it is to be applied after all.
    #[must_use]
    pub fn with_archive(mut self, archive: Arc<dyn Archive>) -> Self {
        self.archive = Some(archive);
        self
    }

    /// Tells there what it writes.
    #[must_use]
    pub fn with_touched(mut self, touched: Touched) -> Self {
        self.touched = touched;
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
        // Whatever an earlier attempt left open was committed, or never will be.
        self.touched.settle();
        (self.versions, self.sweep) = (Versions::load(&self.store).await?, None);
        self.parked = dead_letters::keys(&self.store).await?;
        dead_letters::sweep(&self.store).await?;
        self.histories = Begun::load(&self.store).await?;
        self.stands = stored.checkpoint.as_ref().map(Moment::at);
        Ok(stored.checkpoint)
    }

    async fn write(&mut self, batch: MongoBatch, checkpoint: &Checkpoint) -> Result<Applied> {
        let Parts {
            mut segments,
            met,
            commits,
            orders,
        } = batch.into_parts();
        let is_live = checkpoint.state == PipelineState::Live;
        for order in orders.into_iter().filter(|_| is_live) {
            Box::pin(self.carry_out(&order, checkpoint.generation)).await?;
        }
        if is_live {
            Box::pin(self.begin_histories(checkpoint, commits.first())).await?;
        }
        let is_idle = segments.is_empty();
        let policies = self.store.settings.policies;
        let redefined = self.versions.redefined(met, policies);
        if !redefined.is_empty() {
            segments.push(Segment::Redefined(redefined.clone()));
        }
        let position = position::fields(checkpoint);
        let (applied, segments) =
            Box::pin(self.commit_sifted(segments, position, &commits)).await?;
        self.stands = Some(Moment::at(checkpoint));
        self.count_truncated(&segments);
        self.learn(redefined);
        if is_live {
            Box::pin(self.sweep(checkpoint.generation, is_idle)).await?;
        }
        Ok(applied)
    }

    /// Commits what can be written of a batch, the rest as dead letters.
    async fn commit_sifted(
        &mut self,
        mut segments: Vec<Segment>,
        position: Document,
        commits: &Commits,
    ) -> Result<(Applied, Vec<Segment>)> {
        let (mut found, mut kept) = (0, HashSet::new());
        loop {
            let sifted = self.sift(segments, commits, &mut kept).await?;
            let outcome = self.attempt(&sifted.segments, position.clone());
            match Box::pin(outcome).await? {
                Outcome::Applied(applied) => {
                    let applied = Applied {
                        parked: sifted.parked,
                        dropped: sifted.dropped,
                        ..applied
                    };
                    self.parked.take_in(sifted.changes);
                    return Ok((applied, sifted.segments));
                }
                Outcome::Unwritable(it) if self.store.settings.parks => {
                    warn!(error = %it.error, "parked: it becomes a dead letter");
                    segments = sifted.segments;
                    let histories = &self.store.settings.histories;
                    let may_park = |table: &TableName| !histories.has(table);
                    parking::park(&mut segments, &mut found, it, may_park)?;
                }
                Outcome::Unwritable(it) => return Err(it.error),
            }
        }
    }

    /// Takes out of a batch what cannot be written, having kept what it says, but for letters of which that is `kept`.
    async fn sift(
        &mut self,
        segments: Vec<Segment>,
        commits: &Commits,
        kept: &mut HashSet<String>,
    ) -> Result<Sifted> {
        if !Sifted::is_needed(&segments, &self.parked) {
            return Ok(Sifted::whole(segments));
        }
        let epoch = self.claim.as_ref().ok_or(Error::NotClaimed)?.epoch;
        let of = (&*self.store.settings.pipeline, epoch);
        let mut sifted = Sifted::of(segments, &self.parked, commits, of);
        if !sifted.contents.is_empty() && !self.writer.has_indexes() {
            dead_letters::make_indexes(&self.store).await?;
            self.writer.made_indexes();
        }
        let mut contents = std::mem::take(&mut sifted.contents);
        contents.retain(|content| !kept.contains(&content.at));
        dead_letters::keep(&self.store, epoch, &contents).await?;
        self.publish(&contents).await?;
        kept.extend(contents.into_iter().map(|content| content.at));
        Ok(sifted)
    }

    /// Notes tables that have other columns now, and tells of what the source did not send.
    fn learn(&mut self, redefined: Vec<Redefined>) {
        for it in redefined.iter().filter(|it| !it.drift.is_empty()) {
            let table = &it.table.1;
            warn!(
                %table, differences = ?it.drift,
                "drifted: documents that do not change lack what DDL changed; touch the rows (UPDATE), then walferry verify, \
                 or walferry run --new-snapshot"
            );
        }
        if !redefined.is_empty() {
            self.sweep = None;
        }
        self.versions.learn(redefined);
    }

    /// Unsets the fields of dropped columns in some documents, more of them while there is nothing else to do.
    async fn sweep(&mut self, generation: u64, is_idle: bool) -> Result<()> {
        let begun = Instant::now();
        while let Some((table, known)) = self.versions.to_unset(generation) {
            let (table, known) = (table.clone(), known.clone());
            let mut sweep = match self.sweep.take() {
                Some(sweep) => sweep,
                None => Sweep::new(&table.1, known.unset())?,
            };
            let unset = sweep.next(&self.store).await?;
            if unset.ids.is_empty() {
                info!(table = %table.1, fields = ?unset.fields, "dropped columns are unset");
                let cleaned = Redefined {
                    now: known.cleaned(),
                    drift: Vec::new(),
                    table,
                };
                let cleaned = vec![cleaned];
                self.commit(&[Segment::Redefined(cleaned.clone())], Document::new())
                    .await?;
                self.versions.learn(cleaned);
            } else {
                self.commit(&[Segment::Unset(Box::new(unset))], Document::new())
                    .await?;
                self.sweep = Some(sweep);
            }
            if !is_idle || begun.elapsed() >= SWEEP {
                break;
            }
        }
        Ok(())
    }

    /// Writes segments together with what becomes of the position document.
    async fn commit(&mut self, segments: &[Segment], position: Document) -> Result<Applied> {
        match Box::pin(self.attempt(segments, position)).await? {
            Outcome::Applied(applied) => Ok(applied),
            Outcome::Unwritable(it) => Err(it.error),
        }
    }

    /// The same; nothing is written when a document cannot be.
    async fn attempt(&mut self, segments: &[Segment], position: Document) -> Result<Outcome> {
        // Told before anybody can see it.
        let opened = self.touched.open_segments(segments);
        // The claim comes back only when its state is certain.
        let mut claim = self.claim.take().ok_or(Error::NotClaimed)?;
        let mut transaction = Transaction {
            store: &self.store,
            claim: &mut claim,
            segments,
            position,
            suspects: None,
        };
        let outcome = Box::pin(transaction.run()).await?;
        opened.close();
        if matches!(outcome, Outcome::Applied(_)) {
            claim.seq += 1;
        }
        self.claim = Some(claim);
        Ok(outcome)
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
        let settings = &self.store.settings;
        MongoBatch::new(settings.policies)
            .parking(settings.parks)
            .keeping(settings.histories.clone())
    }

    async fn apply(
        &mut self,
        batch: MongoBatch,
        checkpoint: &Checkpoint,
    ) -> Result<Applied, Fault> {
        Ok(Box::pin(self.write(batch, checkpoint)).await?)
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
        let names = tables.iter().map(|it| Naming.collection(&it.name));
        let names: Vec<_> = names.collect::<Result<_>>()?;
        let opened = self
            .touched
            .open_collections(names.iter().map(String::as_str));
        Box::pin(staging.swap(generation, tables)).await?;
        opened.close();
        self.versions.forget(&self.store, generation).await?;
        self.parked.forget(generation);
        Ok(dead_letters::forget(&self.store, generation).await?)
    }

    fn order_reader(&self) -> OrderBook {
        OrderBook::over(self.store.clone())
    }
}
