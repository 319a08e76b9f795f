//! One batch and its checkpoint as one transaction (protocol rules 13, 15 and 16).
//!
//! - The first write is the position document, matched by epoch, sequence and session: without a match
//!   nothing else is written.
//! - A transaction is only repeated when it was aborted for certain, or when the sequence tells that
//!   it was not committed; a commit whose answer is lost is asked for again.
//! - A transaction that the server's limits ended several times in a row ends the process: it would
//!   never pass.
//! - What the server counted is compared with what was sent. In the plain attempt a difference
//!   aborts; the repair attempt mends it from full images or names the document.

use std::time::Duration;

use bson::{DateTime, Document, RawDocumentBuf, doc};
use mongodb::Database;
use mongodb::error::{TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT};
use mongodb::options::{Acknowledgment, ReadConcern, WriteConcern};
use tokio::time::Instant;
use tracing::{debug, warn};
use walferry_core::{Applied, Skipped};

use crate::batch::{Fate, Move, Rows, Segment, Unset};
use crate::claim::Claim;
use crate::command::{Command, Kind};
use crate::document::{append_id, id_filter};
use crate::error::DUPLICATE_KEY;
use crate::history::{self, History};
use crate::position;
use crate::stop::{Stop, Unwritable};
use crate::store::{Store, Written};
use crate::suspects::Suspects;
use crate::versions::Redefined;
use crate::writes::{self, Group, Mode};
use crate::{Error, Result, dead_letters, identity, orders, versions};

const MAX_ATTEMPTS: u32 = 10;
/// So many attempts in a row may run into the server's limits.
const MAX_LIMITED: u32 = 3;
/// How often what cannot be written is looked for in half as much: far more often than that takes.
const MAX_NARROWED: u32 = 64;
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_secs(1);
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the server waits for a majority before it answers that the outcome is unknown.
const MAJORITY_TIMEOUT: Duration = Duration::from_secs(20);
/// MongoDB ends transactions after 60 s by default: one that took nearly as long was ended for that.
const NEARLY_TOO_LONG: Duration = Duration::from_secs(55);

/// Applies one batch under a claim.
pub(crate) struct Transaction<'a> {
    pub(crate) store: &'a Store,
    pub(crate) claim: &'a mut Claim,
    pub(crate) segments: &'a [Segment],
    /// What becomes of the position document, beside its sequence.
    pub(crate) position: Document,
    /// Operations of which one cannot be written.
    pub(crate) suspects: Option<Suspects>,
}

/// What came of a transaction.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is committed.
    Applied(Applied),
    /// Nothing was written: a document cannot be.
    Unwritable(Unwritable),
}

// === impl Transaction ===

impl Transaction<'_> {
    /// Writes everything once.
    pub(crate) async fn run(&mut self) -> Result<Outcome> {
        let mut mode = Mode::Plain;
        let (mut attempts, mut limited, mut narrowed) = (0, 0, 0);
        loop {
            let begun = Instant::now();
            let stop = match self.attempt(mode).await {
                Ok(applied) => return Ok(Outcome::Applied(applied)),
                Err(stop) => stop,
            };
            self.abort().await;
            let error = match stop {
                Stop::Mismatch if mode == Mode::Plain => {
                    warn!("documents are not as the batch expects them: mending");
                    mode = Mode::Repair;
                    continue;
                }
                Stop::Unclear(suspects) if narrowed < MAX_NARROWED => {
                    debug!(
                        ?suspects,
                        "one of several documents cannot be written: finding out which"
                    );
                    (self.suspects, narrowed) = (Some(suspects), narrowed + 1);
                    continue;
                }
                Stop::Unwritable(unwritable) => return Ok(Outcome::Unwritable(*unwritable)),
                Stop::NoMatch if self.is_committed().await? => {
                    return Ok(Outcome::Applied(Applied::default()));
                }
                Stop::Mismatch | Stop::NoMatch | Stop::Unclear(_) => Error::NotClaimed,
                Stop::Failed(error) if !error.is_limit() && !error.is_worth_retrying() => {
                    return Err(error);
                }
                Stop::Failed(error) => error,
            };
            attempts += 1;
            let is_limited = error.is_limit() || begun.elapsed() >= NEARLY_TOO_LONG;
            limited = if is_limited { limited + 1 } else { 0 };
            if limited >= MAX_LIMITED {
                return Err(self.too_long(limited, error));
            }
            if attempts >= MAX_ATTEMPTS {
                let source = Box::new(error);
                return Err(Error::Aborted { attempts, source });
            }
            debug!(attempts, %error, "the transaction was aborted and is repeated");
            pause(attempts).await;
        }
    }

    async fn attempt(&mut self, mode: Mode) -> Result<Applied, Stop> {
        if self.segments.is_empty() {
            return self.checkpoint_alone().await;
        }
        let session = &mut self.claim.session;
        let start = session
            .start_transaction()
            .read_concern(ReadConcern::local())
            .write_concern(write_concern());
        self.store.in_time(start, "starting a transaction").await?;
        self.fence().await?;
        let mut repaired = 0;
        for (at, segment) in self.segments.iter().enumerate() {
            let written = self.segment((at, segment), mode).await;
            repaired += written.map_err(|stop| stop.in_segment(at))?;
        }
        self.commit().await?;
        Ok(Applied {
            repaired,
            ..Applied::default()
        })
    }

    async fn segment(&mut self, (at, segment): (usize, &Segment), mode: Mode) -> Result<u64, Stop> {
        match segment {
            Segment::Rows(all) => self.rows(at, all, mode).await,
            Segment::Move(moved) => match moved.fate {
                Fate::Write => self.move_row(moved, mode).await,
                Fate::Park => Ok(0),
                Fate::Drop => self.drop_row(moved).await,
            },
            Segment::Truncate(truncate) => self.truncate(&truncate.collection).await,
            Segment::Skipped(skipped) => self.keep(skipped).await,
            Segment::Redefined(tables) => self.redefine(tables).await,
            Segment::Unset(unset) => self.unset(unset).await,
            Segment::Letters(commands) => {
                let doing = "noting dead letters";
                self.note(commands, dead_letters::LETTERS, doing).await
            }
            Segment::History(all) => self.versions(all, mode).await,
            Segment::Histories(commands) => {
                let doing = "noting which histories have begun";
                self.note(commands, history::HISTORIES, doing).await
            }
        }
    }

    /// A batch without rows: one write is a transaction by itself.
    async fn checkpoint_alone(&mut self) -> Result<Applied, Stop> {
        let mut command = self.position_update();
        command.insert("writeConcern", majority());
        let database = self.store.own_database();
        let doing = "writing the position";
        let answer = self.store.run(&database, command, doing).await;
        let answer = match answer {
            // Written or not: the sequence tells.
            Err(Error::Server { source, .. }) if is_network_trouble(&source) => {
                debug!(%source, "the answer to a position write was lost");
                return Err(Stop::NoMatch);
            }
            answer => answer?,
        };
        if answer.contains_key("writeConcernError") {
            return Err(Stop::NoMatch);
        }
        check_match(&Written::from_answer(&answer, doing)?)?;
        Ok(Applied::default())
    }

    async fn fence(&mut self) -> Result<(), Stop> {
        let command = self.position_update();
        let database = self.store.own_database();
        let doing = "writing the position";
        check_match(&self.execute(&database, command, doing).await?)
    }

    fn position_update(&self) -> Document {
        let mut fields = self.position.clone();
        fields.insert("seq", self.claim.seq + 1);
        doc! {
            "update": position::COLLECTION,
            "updates": [{ "q": self.own_position(self.claim.seq), "u": { "$set": fields } }],
        }
    }

    /// The query that matches while nobody else has claimed or written.
    fn own_position(&self, seq: i64) -> Document {
        doc! {
            "_id": &self.store.settings.pipeline,
            "epoch": self.claim.epoch,
            "seq": seq,
            "session": self.claim.session_id(),
        }
    }

    /// After a write that did not match: whether an earlier attempt was committed after all.
    async fn is_committed(&mut self) -> Result<bool> {
        let stored = self.claim.stored(self.store).await?;
        if stored.seq == self.claim.seq {
            return Ok(false);
        }
        if stored.seq != self.claim.seq + 1 {
            let pipeline = self.store.settings.pipeline.clone();
            return Err(Error::PositionLost { pipeline });
        }
        self.await_majority().await
    }

    /// A read does not tell whether what it saw can still be rolled back; a write with majority that
    /// comes after it does.
    async fn await_majority(&self) -> Result<bool> {
        let touch = doc! { "$set": { "updated_at": DateTime::now() } };
        let command = doc! {
            "update": position::COLLECTION,
            "updates": [{ "q": self.own_position(self.claim.seq + 1), "u": touch }],
            "writeConcern": majority(),
        };
        let doing = "confirming a commit";
        let answer = self
            .store
            .run(&self.store.own_database(), command, doing)
            .await?;
        let is_confirmed = Written::from_answer(&answer, doing)?.n == 1
            && !answer.contains_key("writeConcernError");
        if is_confirmed {
            return Ok(true);
        }
        Err(Error::NoAnswer { doing })
    }

    async fn rows(&mut self, segment: usize, all: &[Rows], mode: Mode) -> Result<u64, Stop> {
        let mut repaired = 0;
        for (collection, rows) in all.iter().enumerate() {
            for group in Group::IN_ORDER {
                let mut writes = writes::Writes::new(self.store, rows, group, mode);
                let is_here = |it: &Suspects| {
                    (it.segment, it.collection, it.group) == (segment, collection, group)
                };
                writes.suspects = self.suspects.filter(is_here);
                let written = writes.run(&mut self.claim.session).await;
                repaired += written.map_err(|stop| stop.in_collection(collection))?;
            }
        }
        Ok(repaired)
    }

    /// Deletes the old document and inserts the new one with the fields that only the old one has.
    async fn move_row(&mut self, moved: &Move, mode: Mode) -> Result<u64, Stop> {
        let old = self.find(moved).await?.ok_or_else(|| moved.missing())?;
        let document = moved.document(&old).map_err(|error| moved.stop(error))?;
        let mut delete = Command::new(Kind::Delete, &moved.collection);
        delete.add(|out| writes::delete_statement(out, &moved.from));
        let deleted = self
            .write(delete, "deleting a document whose key changed")
            .await?;
        if let Some(error) = deleted.errors.first() {
            return Err(moved.stop(moved.refused(&moved.from, error)));
        }
        if deleted.n != 1 {
            return Err(moved.missing().into());
        }
        let is_repair = mode == Mode::Repair;
        let kind = if is_repair {
            Kind::Update
        } else {
            Kind::Insert
        };
        let mut insert = Command::new(kind, &moved.collection);
        insert.add(|out| {
            if is_repair {
                writes::upsert_statement(out, &moved.to, &document);
            } else {
                append_id(out, &moved.to);
                out.extend_from_slice(&document);
            }
        });
        let doing = "inserting a document whose key changed";
        let written = self.write(insert, doing).await.map_err(|stop| match stop {
            Stop::Failed(error) => moved.stop(error),
            other => other,
        })?;
        if let Some(error) = written.errors.first() {
            let is_duplicate = error.code == DUPLICATE_KEY && !is_repair;
            return Err(if is_duplicate {
                Stop::Mismatch
            } else {
                moved.stop(moved.refused(&moved.to, error))
            });
        }
        Ok(u64::from(is_repair && written.upserted == 0))
    }

    /// Removes what is left of a row that was given up; a key that is only spelled otherwise leaves it.
    async fn drop_row(&mut self, moved: &Move) -> Result<u64, Stop> {
        if identity(&moved.from) == identity(&moved.to) {
            return Ok(0);
        }
        let mut delete = Command::new(Kind::Delete, &moved.collection);
        delete.add(|out| writes::delete_statement(out, &moved.from));
        let doing = "deleting a document that was given up";
        let deleted = self.write(delete, doing).await?;
        match deleted.errors.first() {
            Some(error) => Err(moved.refused(&moved.from, error).into()),
            None => Ok(0),
        }
    }

    async fn versions(&mut self, all: &[History], mode: Mode) -> Result<u64, Stop> {
        for history in all {
            history::write(self.store, &mut self.claim.session, history, mode).await?;
        }
        Ok(0)
    }

    /// Notes something among walferry's own documents.
    async fn note(
        &mut self,
        commands: &[Document],
        collection: &str,
        doing: &'static str,
    ) -> Result<u64, Stop> {
        let database = self.store.own_database();
        for command in commands {
            let written = self.execute(&database, command.clone(), doing).await?;
            written.accepted(doing, collection)?;
        }
        Ok(0)
    }

    async fn find(&mut self, moved: &Move) -> Result<Option<RawDocumentBuf>> {
        let collection = self
            .store
            .database()
            .collection::<RawDocumentBuf>(&moved.collection);
        let filter = id_filter(&moved.from)?;
        let find = collection.find_one(filter).session(&mut self.claim.session);
        self.store
            .in_time(find, "reading a document whose key changed")
            .await
    }

    async fn truncate(&mut self, collection: &str) -> Result<u64, Stop> {
        let mut command = Command::new(Kind::Delete, collection);
        command.add(writes::truncate_statement);
        let doing = "emptying the collection";
        let written = self.write(command, doing).await?;
        if let Some(error) = written.errors.first() {
            return Err(Stop::Failed(Error::CollectionRefused {
                doing,
                collection: collection.to_owned(),
                code: error.code,
                message: error.message.clone(),
            }));
        }
        debug!(collection, documents = written.n, "truncated");
        Ok(0)
    }

    /// Keeps a transaction where operators find it, instead of applying it.
    async fn keep(&mut self, skipped: &Skipped) -> Result<u64, Stop> {
        let doing = "keeping what is passed over";
        let database = self.store.own_database();
        for (collection, command) in orders::keeping(&self.store.settings.pipeline, skipped) {
            let written = self.execute(&database, command, doing).await?;
            written.accepted(doing, collection)?;
            if written.n == 0 {
                return Err(Stop::Failed(Error::OrderWithdrawn));
            }
        }
        Ok(0)
    }

    /// Notes the columns of tables.
    async fn redefine(&mut self, tables: &[Redefined]) -> Result<u64, Stop> {
        let doing = "noting the columns of a table";
        let database = self.store.own_database();
        for table in tables {
            let command = table.command(&self.store.settings.pipeline);
            let written = self.execute(&database, command, doing).await?;
            written.accepted(doing, versions::TABLES)?;
        }
        Ok(0)
    }

    /// Removes the fields of dropped columns.
    async fn unset(&mut self, unset: &Unset) -> Result<u64, Stop> {
        let doing = "unsetting dropped columns";
        let fields: Document = unset
            .fields
            .iter()
            .map(|it| (it.clone(), "".into()))
            .collect();
        let has = |field: &String| doc! { field.as_str(): { "$exists": true } };
        let any: Vec<_> = unset.fields.iter().map(has).collect();
        let query = doc! { "_id": { "$in": &unset.ids }, "$or": any };
        let update = doc! { "q": query, "u": { "$unset": fields }, "multi": true };
        let command = doc! { "update": &unset.collection, "updates": [update] };
        let database = self.store.database();
        let written = self.execute(&database, command, doing).await?;
        written.accepted(doing, &unset.collection)?;
        Ok(0)
    }

    /// Runs a write command as part of the transaction.
    async fn execute(
        &mut self,
        database: &Database,
        command: Document,
        doing: &'static str,
    ) -> Result<Written, Stop> {
        let run = database
            .run_command(command)
            .session(&mut self.claim.session);
        let answer = self.store.in_time(run, doing).await?;
        Ok(Written::from_answer(&answer, doing)?)
    }

    async fn write(&mut self, command: Command, doing: &'static str) -> Result<Written, Stop> {
        let command = command.finish()?;
        let session = Some(&mut self.claim.session);
        writes::checked(self.store.write(session, command, doing).await)
    }

    async fn commit(&mut self) -> Result<(), Stop> {
        let deadline = Instant::now() + self.store.settings.retry_timeout;
        for attempt in 1.. {
            let commit = self.claim.session.commit_transaction();
            let error = match self.store.in_time(commit, "committing a transaction").await {
                Ok(()) => break,
                Err(Error::Server { source, .. })
                    if source.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT)
                        && !source.contains_label(TRANSIENT_TRANSACTION_ERROR) =>
                {
                    source
                }
                Err(error) => return Err(error.into()),
            };
            if Instant::now() >= deadline {
                return Err(Error::CommitUnknown(error).into());
            }
            debug!(%error, "the outcome of a commit is unknown: asking again");
            pause(attempt).await;
        }
        Ok(())
    }

    /// Ends a transaction that may still be open. When this fails, the next transaction of the
    /// session or the next claim ends it.
    async fn abort(&mut self) {
        let abort = Box::pin(self.claim.session.abort_transaction().into_future());
        let _ = tokio::time::timeout(ABORT_TIMEOUT, abort).await;
    }

    fn too_long(&self, attempts: u32, error: Error) -> Error {
        let is_truncate = |segment: &&Segment| matches!(segment, Segment::Truncate(_));
        let (emptied, others): (Vec<_>, Vec<_>) = self.segments.iter().partition(is_truncate);
        let mut collections = Vec::new();
        for name in emptied
            .into_iter()
            .chain(others)
            .flat_map(Segment::collections)
        {
            if !collections.contains(&name) {
                collections.push(name);
            }
        }
        Error::TransactionTooLong {
            operations: self.segments.iter().map(Segment::operations).sum(),
            collections: collections.join(", "),
            attempts,
            source: Box::new(error),
        }
    }
}

fn check_match(written: &Written) -> Result<(), Stop> {
    if written.n == 1 && written.errors.is_empty() {
        return Ok(());
    }
    Err(Stop::NoMatch)
}

/// Whether a write may have been done although no answer says so.
fn is_network_trouble(error: &mongodb::error::Error) -> bool {
    use mongodb::error::ErrorKind;
    matches!(
        error.kind.as_ref(),
        ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. }
    )
}

async fn pause(attempt: u32) {
    let pause = FIRST_PAUSE.saturating_mul(1 << attempt.min(16));
    tokio::time::sleep(pause.min(LAST_PAUSE)).await;
}

fn write_concern() -> WriteConcern {
    WriteConcern::builder()
        .w(Acknowledgment::Majority)
        .journal(true)
        .w_timeout(MAJORITY_TIMEOUT)
        .build()
}

fn majority() -> Document {
    let timeout = i64::try_from(MAJORITY_TIMEOUT.as_millis()).unwrap_or(i64::MAX);
    doc! { "w": "majority", "j": true, "wtimeout": timeout }
}
