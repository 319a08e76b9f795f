//! One turn of a rule: its whole answer, or the part of some values.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use walferry_mongodb::{
    Analyst, Answer, AsOf, Changes, Error, Kept, Part, Query, Touched, ValueSet,
};

use super::subject::Need;

/// So many values are asked about at a time.
pub(super) const VALUES: usize = 1_000;

/// One turn of a rule.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) rule: String,
    pub(super) query: Query,
    pub(super) output: String,
    pub(super) is_alerts: bool,
    pub(super) what: What,
    pub(super) as_of: Option<AsOf>,
}

/// What is worked out.
#[derive(Debug)]
pub(super) enum What {
    /// The whole answer.
    Whole {
        /// Whether a refresh asked for it.
        is_in_round: bool,
        /// How it was needed, and what was touched: so again where nothing comes of it.
        need: Need,
        values: ValueSet,
    },
    /// The part that belongs to these values.
    Part {
        per: String,
        field: String,
        values: ValueSet,
        /// How long it may take.
        limit: Option<Duration>,
    },
}

/// What a turn came to.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) rule: String,
    pub(super) what: What,
    pub(super) end: End,
    pub(super) took: Duration,
}

#[derive(Debug)]
pub(super) enum End {
    Kept(Kept),
    /// It is more than a part should be.
    TooLarge,
    /// It takes longer than it may.
    TooSlow,
    Failed(Error),
    /// The process stops.
    Stopped,
}

// === impl Job ===

impl Job {
    /// Asks and keeps, and tells what was written.
    pub(super) async fn run(
        self,
        analyst: Analyst,
        touched: Option<Touched>,
        stop: CancellationToken,
    ) -> Done {
        let begun = Instant::now();
        let work = Box::pin(self.work(&analyst, touched.as_ref()));
        let end = stop.run_until_cancelled(work).await;
        Done {
            end: end.unwrap_or(End::Stopped),
            took: begun.elapsed(),
            rule: self.rule,
            what: self.what,
        }
    }

    async fn work(&self, analyst: &Analyst, touched: Option<&Touched>) -> End {
        let kept = match (&self.what, touched) {
            (What::Part { .. }, Some(touched)) => self.part(analyst, touched).await,
            _ => self.whole(analyst, touched).await.map(Some),
        };
        match kept {
            Ok(Some(kept)) => End::Kept(kept),
            Ok(None) => End::TooLarge,
            Err(error) if self.is_limited() && error.is_out_of_time() => End::TooSlow,
            Err(error) => End::Failed(error),
        }
    }

    fn is_limited(&self) -> bool {
        matches!(&self.what, What::Part { limit: Some(_), .. })
    }

    async fn whole(&self, analyst: &Analyst, touched: Option<&Touched>) -> Result<Kept, Error> {
        let opened = touched.map(|it| it.open(Changes::whole(&self.output)));
        let kept = analyst.keep(self.answer()).await;
        let is_same = |kept: &Kept| kept.added + kept.changed + kept.removed == 0;
        match opened {
            Some(opened) if kept.as_ref().is_ok_and(is_same) => opened.withdraw(),
            Some(opened) => opened.close(),
            None => {}
        }
        kept
    }

    async fn part(&self, analyst: &Analyst, touched: &Touched) -> Result<Option<Kept>, Error> {
        let (
            What::Part {
                per,
                field,
                values,
                limit,
            },
            Some(as_of),
        ) = (&self.what, self.as_of)
        else {
            return Ok(None);
        };
        let mut total = Kept::default();
        for values in values.blocks(VALUES) {
            let part = Part {
                per,
                field,
                values: &values,
                as_of,
                limit: *limit,
            };
            let Some(kept) = analyst.keep_part(self.answer(), part, touched).await? else {
                return Ok(None);
            };
            total.rows += kept.rows;
            total.added += kept.added;
            total.changed += kept.changed;
            total.removed += kept.removed;
        }
        Ok(Some(total))
    }

    fn answer(&self) -> Answer<'_> {
        Answer {
            query: &self.query,
            output: &self.output,
            alerts_of: self.is_alerts.then_some(&*self.rule),
            as_of: self.as_of,
        }
    }
}
