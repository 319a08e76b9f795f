//! One snapshot of the source, for the commands that read whole tables.
//!
//! - All tables are described, and so locked against being rewritten, before the first is read.
//! - At most `copy_connections` connections read at the same time; they are made when needed.

mod choice;

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;
use walferry_core::{Fault, Tasks};
use walferry_etl::Candidate;
use walferry_postgres::{Copier, LeftOutColumn, ListedTable, SnapshotReader, SnapshotTable};
use walferry_schema::TableName;

use crate::config::Config;

pub use self::choice::LookError;
pub(crate) use self::choice::Stopped;

/// A snapshot that is being prepared: its tables can be listed and described.
pub(crate) struct Preparation {
    reader: SnapshotReader,
    listed: Vec<ListedTable>,
    publication: String,
    connections: usize,
}

/// A snapshot that any number of tasks can read.
#[derive(Clone)]
pub(crate) struct Snapshot {
    reader: Arc<SnapshotReader>,
    idle: Arc<Mutex<Vec<Copier>>>,
    leases: Arc<Semaphore>,
}

/// A connection on loan. It is used again only when it is given back.
pub(crate) struct Lease {
    pub(crate) copier: Copier,
    idle: Arc<Mutex<Vec<Copier>>>,
    _permit: OwnedSemaphorePermit,
}

fn candidate(table: &ListedTable) -> Candidate {
    Candidate {
        name: table.name.clone(),
        bytes: table.bytes,
    }
}

// === impl Preparation ===

impl Preparation {
    /// Takes a snapshot of the source as it is now.
    pub(crate) async fn begin(config: &Config, tasks: &Tasks) -> Result<Self, Fault> {
        let source = &config.source;
        let reader = Box::pin(SnapshotReader::export(source.url.expose(), tasks)).await?;
        let listed = reader.list(&source.publication).await?;
        for rule in config.tables.unused(listed.iter().map(|table| &table.name)) {
            warn!(pattern = rule.name, mode = %rule.mode, "decides about no table");
        }
        let (publication, connections) = (source.publication.clone(), source.copy_connections);
        Ok(Self {
            reader,
            listed,
            publication,
            connections,
        })
    }

    /// The tables that are there, in name order.
    pub(crate) fn listed(&self) -> &[ListedTable] {
        &self.listed
    }

    /// The same as the plan wants them.
    pub(crate) fn candidates(&self) -> Vec<Candidate> {
        // The rows of a partition are loaded with its parent.
        let tables = self.listed.iter().filter(|table| !table.is_partition);
        tables.map(candidate).collect()
    }

    /// About how many rows a table has.
    pub(crate) fn rows(&self, name: &TableName) -> u64 {
        self.find(name).map_or(0, |table| table.rows)
    }

    /// Describes and locks a table that has a key: all of it, or what the publication holds of it.
    pub(crate) async fn describe(
        &mut self,
        name: &TableName,
        is_streamed: bool,
    ) -> Result<SnapshotTable, Fault> {
        let described = self.describe_any(name, is_streamed).await?;
        if described.relation().key_columns().is_empty() {
            return Err(Keyless {
                table: name.clone(),
            }
            .into());
        }
        Ok(described)
    }

    /// The same of a table that may have no key.
    pub(crate) async fn describe_any(
        &mut self,
        name: &TableName,
        is_streamed: bool,
    ) -> Result<SnapshotTable, Fault> {
        // Asked before: an error of the server's would end the snapshot for all tables.
        if self.find(name).is_some_and(|table| !table.is_readable) {
            return Err(Unreadable {
                table: name.clone(),
            }
            .into());
        }
        Ok(if is_streamed {
            Box::pin(self.reader.describe_in(name, &self.publication)).await?
        } else {
            Box::pin(self.reader.describe(name, &self.publication)).await?
        })
    }

    /// The columns that a described table's rows do not have.
    pub(crate) async fn left_out(
        &mut self,
        table: &SnapshotTable,
    ) -> Result<Vec<LeftOutColumn>, Fault> {
        Ok(Box::pin(self.reader.left_out(table)).await?)
    }

    /// Ready to be read.
    pub(crate) fn finish(self) -> Snapshot {
        Snapshot {
            reader: Arc::new(self.reader),
            idle: Arc::default(),
            leases: Arc::new(Semaphore::new(self.connections)),
        }
    }

    fn find(&self, name: &TableName) -> Option<&ListedTable> {
        self.listed.iter().find(|table| table.name == *name)
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// How many rows the table has.
    pub(crate) async fn count(&self, table: &SnapshotTable) -> Result<u64, Fault> {
        Ok(Box::pin(self.reader.count(table)).await?)
    }

    /// A connection, as soon as one is free; first come, first served.
    pub(crate) async fn lease(&self) -> Result<Lease, Fault> {
        let permit = Arc::clone(&self.leases).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let idle = lock(&self.idle).pop();
        let copier = match idle {
            Some(copier) => copier,
            None => Box::pin(self.reader.copier()).await?,
        };
        Ok(Lease {
            copier,
            idle: Arc::clone(&self.idle),
            _permit: permit,
        })
    }
}

// === impl Lease ===

impl Lease {
    /// Gives the connection back; only after a range was read to its end.
    pub(crate) fn give_back(self) {
        lock(&self.idle).push(self.copier);
    }
}

fn lock(idle: &Mutex<Vec<Copier>>) -> std::sync::MutexGuard<'_, Vec<Copier>> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A table that we may not read.
#[derive(Debug, thiserror::Error)]
#[error(
    "the source's user may not read {table}: run GRANT SELECT ON {table}, and USAGE on its schema"
)]
struct Unreadable {
    table: TableName,
}

/// A table whose rows have no name.
#[derive(Debug, thiserror::Error)]
#[error(
    "{table} has no primary key, so its documents would have no `_id`: add one, or give the table \
     mode = \"ignore\""
)]
struct Keyless {
    table: TableName,
}

impl walferry_core::Classify for Unreadable {
    fn class(&self) -> walferry_core::Class {
        walferry_core::Class::Fatal
    }
}

impl walferry_core::Classify for Keyless {
    fn class(&self) -> walferry_core::Class {
        walferry_core::Class::Fatal
    }
}
