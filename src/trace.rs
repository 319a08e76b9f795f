//! `walferry trace`: one change's journey from its commit to its visibility, asked of the servers.
//!
//! - It only looks, needs no daemon and costs it nothing; every question is bounded in time and memory.
//! - A time is the clock's of whoever noted it: PostgreSQL, the reader, Kafka's broker, MongoDB.
//! - What cannot be known is said, with what would help; it is never guessed.

mod direct;
mod error;
mod journey;
mod kafka;
mod key;
mod rows;
mod search;

use std::str::FromStr;

use walferry_core::{Fault, Tasks};
use walferry_mongodb::{Oplog, OrderBook, Trail};
use walferry_schema::{CommitId, Lsn};

use crate::config::Config;
use crate::pipeline::connect::{mongodb_settings, slot_monitor};

pub use self::error::TraceError;
pub use self::journey::{Journey, Place, Records, Stage, Transaction, Verdict};
use self::key::Key;

/// What is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// The transaction that ended there, or first after it.
    Lsn(Lsn),
    /// The last change of a row.
    Row {
        /// The table, with or without its schema.
        table: String,
        /// The key's values in key order, or one JSON of them.
        key: Vec<String>,
    },
}

/// A question whose words are understood.
enum Asked {
    Lsn(Lsn),
    Row(Key),
}

/// The servers, as they are asked.
struct Asking<'a> {
    config: &'a Config,
    tasks: &'a Tasks,
    trail: Trail,
}

// === impl Question ===

impl Question {
    /// What the words of a command line ask.
    ///
    /// # Errors
    /// When it is neither an LSN nor a table with a key.
    pub fn new(what: &str, key: &[String]) -> Result<Self, TraceError> {
        if !key.is_empty() {
            return Ok(Self::Row {
                table: what.to_owned(),
                key: key.to_vec(),
            });
        }
        let lsn = Lsn::from_str(what).map_err(|_| TraceError::NotAnLsn(what.to_owned()))?;
        Ok(Self::Lsn(lsn))
    }
}

/// Follows a change through the servers.
///
/// # Errors
/// When the question cannot be meant, or a server cannot be asked.
pub async fn run(
    config: &Config,
    question: &Question,
    tasks: &Tasks,
) -> Result<Journey, TraceError> {
    let followed = Box::pin(follow(config, question, tasks));
    // A lock on the table may be waited for as long as somebody holds it.
    let followed = tasks.stop_signal().run_until_cancelled(followed).await;
    followed.ok_or(TraceError::Stopped)?
}

async fn follow(
    config: &Config,
    question: &Question,
    tasks: &Tasks,
) -> Result<Journey, TraceError> {
    // First what may be mistaken in the question.
    let asked = match question {
        Question::Lsn(lsn) => Asked::Lsn(*lsn),
        Question::Row { table, key } => Asked::Row(Key::of(config, table, key, tasks).await?),
    };
    let asking = Asking {
        config,
        tasks,
        trail: Trail::connect(mongodb_settings(config)).await?,
    };
    let mut journey = match (asked, &config.kafka) {
        (Asked::Lsn(lsn), Some(kafka)) => kafka::lsn(&asking, kafka, lsn).await?,
        (Asked::Lsn(lsn), None) => direct::lsn(&asking, lsn).await?,
        (Asked::Row(key), Some(kafka)) => kafka::row(&asking, kafka, &key).await?,
        (Asked::Row(key), None) => direct::row(&asking, &key).await?,
    };
    orders(&asking.trail.order_book(), &mut journey).await?;
    Ok(journey)
}

/// What operators ordered decides over a change as well.
async fn orders(book: &OrderBook, journey: &mut Journey) -> Result<(), Fault> {
    let orders = book.orders().await?;
    if let Some(pause) = orders.pause.filter(|_| journey.verdict == Verdict::Waiting) {
        let (by, at) = (pause.by, journey::time(pause.at * 1_000));
        journey.says = format!(
            "{}; paused by {by} since {at}: `walferry resume`",
            journey.says
        );
    }
    let Some(transaction) = journey.transaction else {
        let commits = orders.unverified.iter().map(|it| it.commit.to_string());
        let commits: Vec<_> = commits.collect();
        if !commits.is_empty() {
            let commits = commits.join(", ");
            journey
                .notes
                .push(format!("passed over, and not verified since: {commits}"));
        }
        return Ok(());
    };
    let commit = CommitId {
        generation: transaction.generation,
        lsn: transaction.commit_lsn,
    };
    if let Some(order) = book.passed_over(commit).await? {
        journey.passed_over(&order.by);
    }
    Ok(())
}

// === impl Asking ===

impl Asking<'_> {
    /// Says why an LSN that was not read yet was not.
    async fn in_the_source(
        &self,
        mut journey: Journey,
        lsn: Lsn,
        covered: Option<Lsn>,
    ) -> Result<Journey, Fault> {
        let report = slot_monitor(self.config, self.tasks)?.measure().await?;
        let slot = &self.config.source.slot;
        if lsn > report.flush_lsn {
            let end = report.flush_lsn;
            return Ok(journey.unknown(format!(
                "PostgreSQL's log ends at {end}: there is no such LSN yet"
            )));
        }
        let read = covered.map_or("nothing was read yet".to_owned(), |it| {
            format!("it was read up to {it}")
        });
        let why = match report.slot {
            None => format!(
                "the slot {slot} does not exist: `walferry run` makes it, with a copy of the tables"
            ),
            Some(it) if it.is_active => format!("a process reads the slot {slot}: look again"),
            Some(_) => format!("nobody reads the slot {slot}: start `walferry run`"),
        };
        journey.stands_at = Some(Place::Postgresql);
        Ok(journey.waiting(format!("in PostgreSQL's log only: {read}; {why}")))
    }

    /// When the position first covered an LSN; what keeps that from being known is noted.
    async fn landed(
        &self,
        journey: &mut Journey,
        generation: u64,
        lsn: Lsn,
    ) -> Result<Option<walferry_mongodb::Written>, Fault> {
        let oplog = self.trail.covering(generation, lsn).await?;
        Ok(landing(journey, oplog))
    }
}

/// What the oplog tells, or why it does not.
fn landing(journey: &mut Journey, oplog: Oplog) -> Option<walferry_mongodb::Written> {
    match oplog {
        Oplog::Found(written) => return Some(written),
        Oplog::Gone(since) => journey.notes.push(format!(
            "when it became visible is not known: MongoDB's oplog begins at {}",
            journey::time(since * 1_000)
        )),
        Oplog::Unreadable(why) => {
            journey
                .notes
                .push(format!("when it became visible is not known: {why}"));
        }
    }
    None
}
