//! Moments of the database that can be asked about again.
//!
//! - The newest moment shows all that a majority has, so all that was acknowledged before it was asked for.
//! - The server keeps some minutes of the past; what is older, or before a collection's making, is gone.

use std::time::Duration;

use bson::{Bson, Document, RawDocumentBuf, Timestamp, doc};
use mongodb::Cursor;

use super::{
    ASK_AGAIN, ATTEMPTS, Analyst, AnalyticsError, Query, READING, SNAPSHOT_TOO_OLD,
    SNAPSHOT_UNAVAILABLE,
};
use crate::error::code;
use crate::{Error, Result, position};

const LOOKING: &str = "asking for the newest moment";

/// A moment of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsOf(Timestamp);

// === impl AsOf ===

impl AsOf {
    fn read_concern(self) -> Document {
        doc! { "level": "snapshot", "atClusterTime": self.0 }
    }
}

// === impl Analyst ===

impl Analyst {
    /// The newest moment.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn newest(&self) -> Result<AsOf> {
        // Any collection says it.
        let find = doc! {
            "find": position::COLLECTION,
            "limit": 1,
            "singleBatch": true,
            "projection": { "_id": 1 },
            "readConcern": { "level": "snapshot" },
        };
        for _ in 0..ATTEMPTS {
            let found = self
                .store
                .run(&self.store.own_database(), find.clone(), LOOKING)
                .await;
            match found {
                Err(error) if error.has_code(SNAPSHOT_UNAVAILABLE) => {
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                found => return as_of(&found?),
            }
        }
        Err(Error::NoAnswer { doing: LOOKING })
    }

    /// The answer to a query as of a moment, which may take so long.
    pub(super) async fn ask_as_of(
        &self,
        query: &Query,
        as_of: AsOf,
        limit: Option<Duration>,
    ) -> Result<Cursor<RawDocumentBuf>> {
        let mut command = doc! {
            "aggregate": &query.collection,
            "pipeline": &query.pipeline,
            "cursor": {},
            "allowDiskUse": true,
            "readConcern": as_of.read_concern(),
        };
        if let Some(limit) = limit {
            let limit = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
            command.insert("maxTimeMS", limit);
        }
        let database = self.store.database();
        let asked = self
            .store
            .in_time(database.run_cursor_command(command), READING);
        match asked.await {
            Ok(cursor) => Ok(cursor.with_type()),
            Err(Error::Server { source, .. }) if is_gone(&source) => {
                Err(AnalyticsError::MomentGone { source }.into())
            }
            Err(error) => Err(error),
        }
    }
}

fn as_of(answer: &Document) -> Result<AsOf> {
    let cursor = answer.get_document("cursor").ok();
    match cursor.and_then(|it| it.get("atClusterTime")) {
        Some(Bson::Timestamp(at)) => Ok(AsOf(*at)),
        _ => Err(Error::Answer {
            doing: LOOKING,
            field: "atClusterTime",
        }),
    }
}

fn is_gone(error: &mongodb::error::Error) -> bool {
    code(error).is_some_and(|it| [SNAPSHOT_UNAVAILABLE, SNAPSHOT_TOO_OLD].contains(&it))
}
