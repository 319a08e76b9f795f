//! Taking a pipeline over (protocol rule 14).
//!
//! - The last writer's session is killed before its epoch ends: an orphaned transaction would hold
//!   the position document for up to a minute.
//! - A process that was overtaken, or would write to another database, changes nothing.
//! - Each attempt has a session of its own, so that what an earlier one left cannot be mistaken.

use std::time::Duration;

use bson::{Bson, DateTime, Document, doc};
use mongodb::ClientSession;
use tokio::time::Instant;
use tracing::{debug, info};
use walferry_schema::FORMAT;

use crate::error::{DUPLICATE_KEY, code};
use crate::position::{COLLECTION, Stored};
use crate::store::Store;
use crate::writer::Writer;
use crate::{Error, Result};

/// How long the server may wait for a lock on the position document.
const CLAIM_MILLIS: i64 = 2_000;
/// How long the server may wait for a majority.
const MAJORITY_MILLIS: i64 = 10_000;
const PAUSE: Duration = Duration::from_millis(50);
/// Lock timeouts, conflicts, and a time limit that ran out: someone still holds the document.
const HELD_CODES: [i32; 4] = [24, 50, 112, 262];

/// A pipeline that this process may write.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) session: ClientSession,
    pub(crate) epoch: i64,
    pub(crate) seq: i64,
}

// === impl Claim ===

impl Claim {
    /// Takes the pipeline over; `before` is this process's own earlier claim.
    pub(crate) async fn take(
        store: &Store,
        writer: &Writer,
        before: Option<Self>,
    ) -> Result<(Self, Stored)> {
        let deadline = Instant::now() + store.settings.retry_timeout;
        loop {
            let session = store.client.start_session().into_future();
            let session = session.await.map_err(Error::server("starting a session"))?;
            let stored = read(store).await?;
            writer.check(&store.settings.pipeline, stored.as_ref())?;
            check_database(store, stored.as_ref())?;
            if let Some(orphan) = stored.as_ref().and_then(|stored| stored.session.as_ref()) {
                kill(store, orphan).await?;
            }
            match advance(store, writer, stored.as_ref(), &session).await {
                Ok(Some(stored)) => {
                    drop(before);
                    writer.claimed(stored.epoch);
                    let (epoch, seq) = (stored.epoch, stored.seq);
                    info!(pipeline = store.settings.pipeline, epoch, seq, "claimed");
                    return Ok((
                        Self {
                            session,
                            epoch,
                            seq,
                        },
                        stored,
                    ));
                }
                Ok(None) => debug!("another writer claimed the pipeline at the same time"),
                Err(error) if is_held(&error) => debug!(%error, "the position is held"),
                Err(error) => return Err(error),
            }
            if Instant::now() >= deadline {
                let pipeline = store.settings.pipeline.clone();
                return Err(Error::ClaimTimedOut { pipeline });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The session as the position document names it.
    pub(crate) fn session_id(&self) -> Bson {
        session_id(&self.session)
    }

    /// The position document, while it is this claim's.
    pub(crate) async fn stored(&self, store: &Store) -> Result<Stored> {
        let pipeline = store.settings.pipeline.clone();
        let Some(stored) = read(store).await? else {
            return Err(Error::PositionLost { pipeline });
        };
        let (ours, found) = (self.epoch, stored.epoch);
        if found > ours {
            return Err(Error::Fenced {
                pipeline,
                ours,
                found,
            });
        }
        let is_own = found == ours && stored.session.as_ref() == Some(&self.session_id());
        if !is_own || stored.seq < self.seq {
            return Err(Error::PositionWentBack { pipeline });
        }
        Ok(stored)
    }
}

/// The position document as the primary has it.
pub(crate) async fn read(store: &Store) -> Result<Option<Stored>> {
    let pipeline = &store.settings.pipeline;
    let positions = store.own_database().collection::<Document>(COLLECTION);
    let find = positions.find_one(doc! { "_id": pipeline });
    let document = store.in_time(find, "reading the position").await?;
    document
        .map(|document| Stored::from_document(pipeline, &document))
        .transpose()
}

/// Ends the transaction that the session may have left open.
async fn kill(store: &Store, session: &Bson) -> Result<()> {
    let command = doc! { "killSessions": [{ "id": session }] };
    let killed = store
        .run(&store.admin(), command, "killing the last writer's session")
        .await;
    match killed {
        Err(Error::Denied { .. }) => Err(Error::KillRefused),
        killed => killed.map(|_| ()),
    }
}

/// Takes the next epoch: none when someone else has just done so.
async fn advance(
    store: &Store,
    writer: &Writer,
    stored: Option<&Stored>,
    session: &ClientSession,
) -> Result<Option<Stored>> {
    let pipeline = &store.settings.pipeline;
    let mut query = doc! { "_id": pipeline };
    let mut changed = doc! {
        "session": session_id(session),
        "writer": writer.id(),
        "database": &store.settings.database,
        "updated_at": DateTime::now(),
    };
    if let Some(stored) = stored {
        query.insert("epoch", stored.epoch);
        changed.insert("epoch", stored.epoch + 1);
    } else {
        // Matches no document that has appeared since: then the insert meets a duplicate.
        query.insert("epoch", doc! { "$exists": false });
        changed.extend(doc! { "epoch": 1_i64, "seq": 0_i64, "format": i64::from(FORMAT) });
    }
    let command = doc! {
        "findAndModify": COLLECTION,
        "query": query,
        "update": { "$set": changed },
        "upsert": stored.is_none(),
        "new": true,
        "maxTimeMS": CLAIM_MILLIS,
        "writeConcern": { "w": "majority", "j": true, "wtimeout": MAJORITY_MILLIS },
    };
    let answer = store
        .run(&store.own_database(), command, "claiming the pipeline")
        .await;
    let answer = match answer {
        Err(error) if error.has_code(DUPLICATE_KEY) => return Ok(None),
        answer => answer?,
    };
    if answer.contains_key("writeConcernError") {
        return Ok(None);
    }
    let Ok(document) = answer.get_document("value") else {
        return Ok(None);
    };
    Stored::from_document(pipeline, document).map(Some)
}

fn session_id(session: &ClientSession) -> Bson {
    session.id().get("id").cloned().unwrap_or(Bson::Null)
}

/// A position tells what is in one database, and nothing of another.
fn check_database(store: &Store, stored: Option<&Stored>) -> Result<()> {
    let Some(stored) = stored.filter(|stored| stored.checkpoint.is_some()) else {
        return Ok(());
    };
    let is_other = |database: &&String| **database != store.settings.database;
    match stored.database.as_ref().filter(is_other) {
        None => Ok(()),
        Some(database) => Err(Error::OtherDatabase {
            pipeline: store.settings.pipeline.clone(),
            stored: database.clone(),
            configured: store.settings.database.clone(),
        }),
    }
}

fn is_held(error: &Error) -> bool {
    let Error::Server { source, .. } = error else {
        return false;
    };
    code(source).is_some_and(|code| HELD_CODES.contains(&code))
}
