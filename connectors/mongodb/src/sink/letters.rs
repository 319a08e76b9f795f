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
use crate::parked::Standing;
use crate::replay::Replay;
use crate::transaction::Outcome;
use crate::whole::Whole;
use crate::{Error, Naming, OrderBook, Result, dead_letters, parking};

// === impl MongoSink ===

impl MongoSink {
    /// Does what operators ask about dead letters, each row's in a transaction of its own; the order is gone then.
    pub(super) async fn carry_out(&mut self, order: &LetterOrder, generation: u64) -> Result<()> {
        let book = OrderBook::over(self.store.clone());
        if !book.asks_for(order).await? {
            return Ok(());
        }
        let standing = dead_letters::standing(&self.store, generation, &order.choice).await?;
        for letters in parking::by_row(standing) {
            if letters.iter().any(|letter| letter.is_of(&order.choice)) {
                let settled = self.settle(&letters, order).await;
                // Else it would end the next daemon too.
                if settled
                    .as_ref()
                    .is_err_and(|it| it.class() != Class::Transient)
                {
                    book.done_with(order).await?;
                }
                settled?;
            }
        }
        book.done_with(order).await
    }

    async fn settle(&mut self, letters: &[Letter], order: &LetterOrder) -> Result<()> {
        let discarded = match order.action {
            LetterAction::Retry => Discarded::default(),
            LetterAction::Discard => Discarded::of(letters),
        };
        let rows = match order.action {
            LetterAction::Retry => match self.replay(letters).await? {
                Ok(rows) => Some(rows),
                Err(why) => return self.stays(letters, &why).await,
            },
            LetterAction::Discard => self.without(letters, &discarded)?,
        };
        let pipeline = &self.store.settings.pipeline;
        let is_given_up = |letter: &Letter| discarded.is_there(letter);
        let settled = dead_letters::settling(pipeline, letters, order, is_given_up);
        let rows = rows.map(|rows| Segment::Rows(vec![rows]));
        let settled = Segment::Letters(vec![settled]);
        let segments: Vec<_> = rows.into_iter().chain([settled]).collect();
        let attempt = self.attempt(&segments, Document::new());
        if let Outcome::Unwritable(it) = Box::pin(attempt).await? {
            return self.stays(letters, &it.error.to_string()).await;
        }
        self.learn_standing(letters, &discarded);
        info!(letters = letters.len(), action = ?order.action, by = order.order.by, "settled dead letters");
        dead_letters::drop_contents(&self.store, letters).await
    }

    /// Forgets that rows have dead letters, and notes those that lack what was discarded.
    fn learn_standing(&mut self, letters: &[Letter], discarded: &Discarded<'_>) {
        for it in letters {
            let generation = it.position.generation;
            for key in [Some(&it.key), it.from.as_ref()].into_iter().flatten() {
                self.parked.remove(&it.table, generation, key);
            }
        }
        if let Some(Letter {
            table, position, ..
        }) = letters.first()
        {
            for key in discarded.lacking() {
                self.parked
                    .insert(table, position.generation, key, Standing::GivenUp);
            }
        }
    }

    /// What removes the documents of rows that went; none when there is nothing to remove.
    fn without(&self, letters: &[Letter], discarded: &Discarded<'_>) -> Result<Option<Rows>> {
        let Some(last) = letters.last() else {
            return Ok(None);
        };
        let mut rows = self.rows_of(last)?;
        for key in discarded.gone() {
            rows.put(key, None, last.position);
        }
        Ok((rows.operations() > 0).then_some(rows))
    }

    /// Operations on the collection of a letter.
    fn rows_of(&self, letter: &Letter) -> Result<Rows> {
        let collection = Naming.collection(&letter.table)?;
        let encoder = Encoder::new(letter.table.clone(), self.store.settings.policies);
        Ok(Rows::new(collection.into(), encoder))
    }

    /// What the dead letters of a row come to; why they cannot be applied.
    async fn replay(&self, letters: &[Letter]) -> Result<Result<Rows, String>> {
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
        let mut rows = self.rows_of(last)?;
        Ok(replay.finish().map(|documents| {
            for (key, elements) in documents {
                rows.put(&key, elements.as_deref(), last.position);
            }
            rows
        }))
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
