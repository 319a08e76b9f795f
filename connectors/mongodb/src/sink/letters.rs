//! What operators have done about dead letters.

use std::collections::HashSet;

use bson::Document;
use tracing::{info, warn};
use walferry_core::{Class, Classify as _, LetterAction, LetterOrder};

use super::MongoSink;
use crate::batch::{Rows, Segment};
use crate::dead_letters::Letter;
use crate::discard::Discarded;
use crate::document::Encoder;
use crate::parked::{Content, Standing};
use crate::replay::{Documents, Replay};
use crate::transaction::Outcome;
use crate::whole::Whole;
use crate::{Error, Naming, OrderBook, Result, dead_letters, parking};

/// How many letters one transaction settles, but for those of one row.
const SETTLED_LETTERS: usize = 1_000;
/// How many bytes of documents it writes, but for one row's.
const SETTLED_BYTES: usize = 8 << 20;

/// The letters of a row, and what becomes of its documents.
#[derive(Debug)]
struct Settling {
    letters: Vec<Letter>,
    documents: Documents,
}

// === impl MongoSink ===

impl MongoSink {
    /// Publishes what MongoDB refused, where there is an archive; one after another, since each may be large.
    pub(super) async fn publish(&self, contents: &[Content]) -> Result<()> {
        let Some(archive) = &self.archive else {
            return Ok(());
        };
        for refused in contents.iter().filter_map(dead_letters::refused) {
            let published = archive.publish(refused).await;
            published.map_err(Error::Publishing)?;
        }
        Ok(())
    }

    /// Does what operators ask about dead letters, each row's in one transaction; the order is gone then.
    pub(super) async fn carry_out(&mut self, order: &LetterOrder, generation: u64) -> Result<()> {
        let book = OrderBook::over(self.store.clone());
        if !book.asks_for(order).await? {
            return Ok(());
        }
        let settled = self.settle_chosen(order, generation).await;
        // Else it would end the next daemon too.
        if settled
            .as_ref()
            .is_err_and(|it| it.class() != Class::Transient)
        {
            book.done_with(order).await?;
        }
        settled?;
        book.done_with(order).await
    }

    async fn settle_chosen(&mut self, order: &LetterOrder, generation: u64) -> Result<()> {
        let standing = dead_letters::standing(&self.store, generation, &order.choice).await?;
        let (mut rows, mut letters, mut bytes) = (Vec::new(), 0, 0);
        for of_row in parking::by_row(standing) {
            if !of_row.iter().any(|letter| letter.is_of(&order.choice)) {
                continue;
            }
            let row = match self.settling(of_row, order.action).await? {
                Ok(row) => row,
                Err((letters, why)) => {
                    self.stays(&letters, &why).await?;
                    continue;
                }
            };
            (letters, bytes) = (letters + row.letters.len(), bytes + row.bytes());
            rows.push(row);
            if letters >= SETTLED_LETTERS || bytes >= SETTLED_BYTES {
                self.settle(std::mem::take(&mut rows), order).await?;
                (letters, bytes) = (0, 0);
            }
        }
        self.settle(rows, order).await
    }

    /// What becomes of a row; its letters and why they cannot be applied.
    async fn settling(
        &self,
        letters: Vec<Letter>,
        action: LetterAction,
    ) -> Result<Result<Settling, (Vec<Letter>, String)>> {
        let documents = match action {
            LetterAction::Retry => self.replay(&letters).await?,
            LetterAction::Discard => Ok(Discarded::of(&letters).documents()),
        };
        Ok(match documents {
            Ok(documents) => Ok(Settling { letters, documents }),
            Err(why) => Err((letters, why)),
        })
    }

    /// Settles rows together, or those of them that can be where one is refused.
    async fn settle(&mut self, mut rows: Vec<Settling>, order: &LetterOrder) -> Result<()> {
        let Some(first) = rows.first() else {
            return Ok(());
        };
        let segments = [self.written(&rows)?, self.noted(&rows, order)];
        let attempt = self.attempt(&segments, Document::new());
        if let Outcome::Unwritable(it) = Box::pin(attempt).await? {
            if rows.len() == 1 {
                return self.stays(&first.letters, &it.error.to_string()).await;
            }
            let others = rows.split_off(rows.len() / 2);
            Box::pin(self.settle(rows, order)).await?;
            return Box::pin(self.settle(others, order)).await;
        }
        for row in &rows {
            self.learn_standing(&row.letters, order.action);
        }
        let letters: Vec<_> = rows.into_iter().flat_map(|row| row.letters).collect();
        info!(letters = letters.len(), action = ?order.action, by = order.order.by, "settled dead letters");
        dead_letters::drop_contents(&self.store, &letters).await
    }

    /// The documents of rows as they become.
    fn written(&self, settled: &[Settling]) -> Result<Segment> {
        let mut all: Vec<Rows> = Vec::new();
        for Settling { letters, documents } in settled {
            let Some(last) = letters.last() else { continue };
            let is_its = |rows: &Rows| rows.encoder.table == last.table;
            let at = if let Some(at) = all.iter().position(is_its) {
                at
            } else {
                all.push(self.rows_of(last)?);
                all.len() - 1
            };
            for (key, elements) in documents {
                all[at].put(key, elements.as_deref(), last.position);
            }
        }
        Ok(Segment::Rows(all))
    }

    /// What was done about letters.
    fn noted(&self, settled: &[Settling], order: &LetterOrder) -> Segment {
        let is_given_up = order.action == LetterAction::Discard;
        let letters = settled.iter().flat_map(|Settling { letters, .. }| {
            let discarded = Discarded::of(letters);
            let is_there = letters.iter().map(move |it| discarded.is_there(it));
            letters.iter().zip(is_there)
        });
        let letters = letters.map(|(letter, is_there)| (letter, is_given_up && is_there));
        let pipeline = &self.store.settings.pipeline;
        Segment::Letters(vec![dead_letters::settling(pipeline, letters, order)])
    }

    /// Forgets that a row has dead letters, and notes where it lacks what was discarded.
    fn learn_standing(&mut self, letters: &[Letter], action: LetterAction) {
        for it in letters {
            let generation = it.position.generation;
            for key in [Some(&it.key), it.from.as_ref()].into_iter().flatten() {
                self.parked.remove(&it.table, generation, key);
            }
        }
        let of = letters.first().filter(|_| action == LetterAction::Discard);
        if let Some(Letter {
            table, position, ..
        }) = of
        {
            for key in Discarded::of(letters).lacking() {
                self.parked
                    .insert(table, position.generation, key, Standing::GivenUp);
            }
        }
    }

    /// Operations on the collection of a letter.
    fn rows_of(&self, letter: &Letter) -> Result<Rows> {
        let collection = Naming.collection(&letter.table)?;
        let encoder = Encoder::new(letter.table.clone(), self.store.settings.policies);
        Ok(Rows::new(collection.into(), encoder))
    }

    /// What the dead letters of a row come to; why they cannot be applied.
    async fn replay(&self, letters: &[Letter]) -> Result<Result<Documents, String>> {
        let Some(last) = letters.last() else {
            return Ok(Err("there is none".to_owned()));
        };
        let (collection, policies) = (
            Naming.collection(&last.table)?,
            self.store.settings.policies,
        );
        let table = (last.position.generation, last.table.clone());
        let mut replay = Replay::over(self.versions.fields(&table, policies));
        let keys = letters
            .iter()
            .flat_map(|it| [Some(&it.key), it.from.as_ref()]);
        for key in keys.flatten().collect::<HashSet<_>>() {
            let document = self.store.document(&collection, key).await?;
            replay.begin(key, document.as_ref().map(|it| it.as_bytes()));
        }
        for letter in letters {
            let elements = match dead_letters::content(&self.store, letter).await {
                Err(lost @ Error::LetterLost { .. }) => return Ok(Err(lost.to_string())),
                elements => elements?,
            };
            if let Err(why) = replay.apply(letter, &elements) {
                return Ok(Err(why));
            }
        }
        let encoder = Encoder::new(last.table.clone(), policies);
        if let Err(why) = self.complete(&mut replay, encoder).await? {
            return Ok(Err(why));
        }
        Ok(replay.finish())
    }

    /// Brings what was too large to go with the letters; why that cannot be.
    async fn complete(
        &self,
        replay: &mut Replay<'_>,
        encoder: Encoder,
    ) -> Result<Result<(), String>> {
        let mut whole = Whole {
            store: &self.store,
            archive: self.archive.as_deref(),
            encoder,
        };
        for (letter, place) in replay.lacks() {
            match whole.elements(letter, place).await? {
                Ok(elements) => replay.bring(place, &elements),
                Err(why) => {
                    let (fields, reference) = (place.fields.join(", "), &place.reference);
                    return Ok(Err(format!(
                        "the value of {fields} was too large for the log and stands in {reference}: {why}"
                    )));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Notes why dead letters stay.
    async fn stays(&mut self, letters: &[Letter], why: &str) -> Result<()> {
        warn!(
            letter = letters.first().map(|it| &*it.at),
            why, "a dead letter stays"
        );
        let failing = dead_letters::failing(&self.store.settings.pipeline, letters, why);
        self.commit(&[Segment::Letters(vec![failing])], Document::new())
            .await?;
        Ok(())
    }
}

// === impl Settling ===

impl Settling {
    fn bytes(&self) -> usize {
        let elements = self.documents.iter().flat_map(|(_, elements)| elements);
        elements.map(Vec::len).sum()
    }
}
