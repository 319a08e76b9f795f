//! Whether the streamed tables stay in the publication while they are streamed.
//!
//! - The stream does not tell: changes of a table that left are simply not sent.
//! - A table that left and came back between two looks is noticed too where the publication names its tables.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};
use walferry_core::Tasks;
use walferry_schema::TableName;

use crate::error::{Error, Result};
use crate::key::Keys;

const LOOKING: &str = "looking at the publication";
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(10);
/// Each table with its number, and the number of its entry in the publication, if it has one of its own.
const MEMBERS: &str = "
    select t.schemaname::text, t.tablename::text, c.oid, coalesce(r.oid, 0::oid)
    from pg_catalog.pg_publication p
    join pg_catalog.pg_publication_tables t on t.pubname = p.pubname
    join pg_catalog.pg_namespace n on n.nspname = t.schemaname
    join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = t.tablename
    left join pg_catalog.pg_publication_rel r on r.prpubid = p.oid and r.prrelid = c.oid
    where p.pubname = $1";

/// The tables of a publication: their numbers, and those of their entries.
type Members = HashMap<TableName, (u32, u32)>;

/// The publication's tables, looked at from time to time.
pub(super) struct Membership {
    tasks: Tasks,
    publication: Arc<str>,
    /// As they were when the slot was made, or when this process began to stream.
    first: Members,
    looked: Instant,
    look: Option<JoinHandle<Result<Members>>>,
}

// === impl Membership ===

impl Membership {
    /// Notes the tables as the publication holds them now.
    pub(super) async fn note(client: &Client, publication: &str, tasks: &Tasks) -> Result<Self> {
        Ok(Self {
            tasks: tasks.clone(),
            publication: publication.into(),
            first: members(client, publication).await?,
            looked: Instant::now(),
            look: None,
        })
    }

    /// Whether all of which keys are known were there when they were last looked at; looks again when it is time.
    ///
    /// # Errors
    /// Fatal when one has left. A look that fails is none: the stream breaks by itself.
    ///
    /// # Cancel safety
    /// Cancel safe: a look goes on in a task of its own.
    pub(super) async fn check(&mut self, client: Arc<Client>, keys: &Keys) -> Result<()> {
        match &mut self.look {
            None if self.looked.elapsed() >= PAUSE => {
                let publication = Arc::clone(&self.publication);
                let look = async move { members(&client, &publication).await };
                self.look = Some(self.tasks.spawn(look));
                Ok(())
            }
            Some(look) if look.is_finished() => {
                let found = look.await;
                (self.look, self.looked) = (None, Instant::now());
                match found {
                    Ok(Ok(members)) => self.compare(&members, keys),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn compare(&self, now: &Members, keys: &Keys) -> Result<()> {
        let has_left = |(table, known): &(&TableName, &(u32, u32))| {
            keys.contains_key(*table) && now.get(*table) != Some(*known)
        };
        match self.first.iter().filter(has_left).min() {
            None => Ok(()),
            Some((table, _)) => Err(Error::TableLeft {
                table: table.clone(),
                publication: self.publication.to_string(),
            }),
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if let Some(look) = &self.look {
            look.abort();
        }
    }
}

async fn members(client: &Client, publication: &str) -> Result<Members> {
    let rows = client
        .query_typed(MEMBERS, &[(&publication, Type::TEXT)])
        .await;
    let member = |row: &Row| {
        let table = TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1));
        (table, (row.get(2), row.get(3)))
    };
    Ok(rows
        .map_err(Error::sql(LOOKING))?
        .iter()
        .map(member)
        .collect())
}
