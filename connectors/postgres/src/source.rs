//! The source that the engine drives.
//!
//! - The slot is owned before its confirmed LSN is read (protocol rule 5).
//! - A second reader of the slot changes nothing, not even while a snapshot is read or between two terms.
//! - No event is lost when a call is dropped: what was received stays in the stream's buffer or in the state here.
//! - A question to the catalog goes on when the call that waits for it is dropped.

mod guard;
mod learning;
mod slot;

use walferry_core::{
    Class, Classify, Fault, SnapshotChunk, SnapshotStart, Source, SourceEvent, SourceState,
    SourceTable, Tasks,
};
use walferry_schema::{Lsn, TableName};

use crate::assembler::{self, Assembler};
use crate::catalog::{self, Catalog};
use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::key::Keys;
use crate::link::{Kind, Link};
use crate::pgoutput::{self, Message, RelationMessage};
use crate::settings::Settings;
use crate::snapshot::SnapshotReader;
use crate::snapshot::chunks::{ChunkLimits, SnapshotChunks};
use crate::sql::Sql;
use crate::stream::{ReplicationStream, StreamFrame};
use guard::Guard;
use learning::Learning;

/// A PostgreSQL database with a logical replication slot of the plugin `pgoutput`.
pub struct ReplicationSource {
    settings: Settings,
    endpoint: Endpoint,
    tasks: Tasks,
    keys: Keys,
    sql: Sql,
    /// Kept from term to term, also when its lock is lost, until another takes its place.
    guard: Option<Guard>,
    /// Whether the slot was ours before, so that a server process of ours may still own it.
    has_owned: bool,
    /// A replication connection that is not streaming.
    link: Option<Link>,
    snapshot: Option<SnapshotChunks>,
    stream: Option<ReplicationStream>,
    decoding: Decoding,
}

/// What decoding remembers of one stream.
#[derive(Default)]
struct Decoding {
    assembler: Assembler,
    catalog: Catalog,
    /// A relation whose types' names the catalog must learn; nothing is decoded before.
    pending: Option<(Lsn, RelationMessage)>,
    /// The catalog is being asked.
    learning: Option<Learning>,
}

// === impl ReplicationSource ===

impl ReplicationSource {
    /// A source that connects when it is first used.
    ///
    /// # Errors
    /// Fatal when the URL cannot be used.
    pub fn new(settings: Settings, tasks: Tasks) -> Result<Self> {
        let endpoint = Endpoint::parse(&settings.url)?;
        let sql = Sql::new(endpoint.clone(), tasks.clone());
        let decoding = Decoding::default();
        Ok(Self {
            settings,
            endpoint,
            tasks,
            keys: Keys::new(),
            sql,
            guard: None,
            has_owned: false,
            link: None,
            snapshot: None,
            stream: None,
            decoding,
        })
    }

    /// The open replication connection, or a new one. SQL then goes to the same server.
    async fn take_link(&mut self) -> Result<Link> {
        if let Some(link) = self.link.take() {
            return Ok(link);
        }
        let link = Link::connect(&self.endpoint, Kind::Replication).await?;
        self.sql = Sql::new(self.endpoint.at(link.host()), self.tasks.clone());
        Ok(link)
    }

    async fn inspect_now(&mut self) -> Result<SourceState> {
        (self.stream, self.snapshot, self.link) = (None, None, None);
        let mut link = self.take_link().await?;
        let identified = slot::identify(&mut link).await?;
        let endpoint = self.endpoint.at(link.host());
        self.link = Some(link);
        let former = self.guard.as_ref();
        if !former.is_some_and(Guard::is_held) {
            let Settings {
                slot, slot_wait, ..
            } = &self.settings;
            let guard = Guard::acquire(&endpoint, &self.tasks, slot, *slot_wait, former).await?;
            self.guard = Some(guard);
        }
        let slot = slot::inspect(
            self.sql.client().await?,
            &self.settings.slot,
            &identified.database,
        )
        .await?;
        let slot::Identified {
            server,
            flush_lsn,
            database,
        } = identified;
        Ok(SourceState {
            server,
            flush_lsn,
            slot,
            database,
        })
    }

    async fn create_slot_now(&mut self, tables: &[TableName]) -> Result<SnapshotStart> {
        (self.stream, self.snapshot) = (None, None);
        self.check_guard()?;
        let mut link = self.take_link().await?;
        let Settings {
            slot,
            publication,
            slot_wait,
            ..
        } = &self.settings;
        let removed = slot::remove(&mut link, slot, *slot_wait).await;
        removed.map_err(|error| self.judged(error))?;
        // From here on, also when making it does not end well.
        self.has_owned = true;
        let made = slot::create(&mut link, slot).await?;
        let endpoint = self.endpoint.at(link.host());
        let mut reader = SnapshotReader::import(endpoint, &self.tasks, &made.snapshot).await?;
        let mut described = Vec::with_capacity(tables.len());
        for table in tables {
            let table =
                reader.describe_published(table, publication, &self.keys, made.consistent_lsn);
            described.push(table.await?);
        }
        let mut copiers = Vec::new();
        for _ in 0..self.settings.copy_connections.max(1) {
            copiers.push(reader.copier().await?);
        }
        let start = SnapshotStart {
            consistent_lsn: made.consistent_lsn,
            taken_at: reader.taken_at(),
        };
        let limits = ChunkLimits {
            rows: self.settings.chunk_rows.max(1),
            bytes: self.settings.chunk_bytes.max(1),
        };
        self.snapshot = Some(SnapshotChunks::start(
            reader,
            described,
            copiers,
            limits,
            &self.tasks,
        ));
        self.link = Some(link);
        Ok(start)
    }

    async fn start_now(&mut self) -> Result<Lsn> {
        (self.stream, self.snapshot) = (None, None);
        self.check_guard()?;
        let link = self.take_link().await?;
        self.decoding = Decoding::default();
        let Settings {
            slot,
            publication,
            slot_wait,
            ..
        } = &self.settings;
        let owned = slot::own(link, slot, publication, *slot_wait).await;
        // When the connection broke, the server may have heard us.
        let may_own = owned
            .as_ref()
            .err()
            .is_none_or(|error| error.class() == Class::Transient);
        let owned = owned.map_err(|error| self.judged(error));
        self.has_owned |= may_own;
        let stream = owned?;
        let confirmed = slot::confirmed_lsn(self.sql.client().await?, slot, publication).await?;
        self.stream = Some(stream);
        Ok(confirmed)
    }

    /// Whether the lock, once taken, is still ours.
    ///
    /// # Errors
    /// Transient when it is not: the next inspection takes it again, or finds who has it.
    fn check_guard(&self) -> Result<()> {
        if self.guard.as_ref().is_none_or(Guard::is_held) {
            return Ok(());
        }
        let slot = self.settings.slot.clone();
        Err(Error::GuardLost { slot })
    }

    /// With the lock on its name nobody else of our kind owns the slot: an owner is our own broken connection's end,
    /// if there was one, or a reader that knows no lock and of which the operator is told at each try.
    fn judged(&self, error: Error) -> Error {
        let was_ours = self.has_owned && self.guard.as_ref().is_some_and(Guard::is_held);
        match error {
            Error::SlotActive { slot, pid, .. } => Error::SlotActive {
                slot,
                pid,
                is_ours: was_ours,
            },
            other => other,
        }
    }

    /// The next event of what is here; `None` when more must arrive, or a relation waits for the catalog.
    fn decode(&mut self) -> Result<Option<SourceEvent>> {
        let stream = self.stream.as_mut().ok_or(NOT_STARTED)?;
        while self.decoding.describe(&self.keys)? {
            match stream
                .received()
                .map_err(|error| self.settings.explained(error))?
            {
                None => return Ok(None),
                Some(StreamFrame::Keepalive { lsn, wants_reply }) => {
                    return Ok(Some(SourceEvent::Keepalive { lsn, wants_reply }));
                }
                Some(StreamFrame::Data { lsn, message }) => {
                    if let Some(event) = self.decoding.accept(lsn, message)? {
                        return Ok(Some(event));
                    }
                }
            }
        }
        Ok(None)
    }

    async fn next_event(&mut self) -> Result<SourceEvent> {
        loop {
            if let Some(event) = self.decode()? {
                return Ok(event);
            }
            if self.decoding.pending.is_some() {
                self.learn().await?;
            } else {
                self.stream.as_mut().ok_or(NOT_STARTED)?.wait().await?;
            }
        }
    }

    /// Asks the catalog for what the waiting relation needs.
    ///
    /// # Cancel safety
    /// Cancel safe: the question goes on, and the next call waits for its answer.
    async fn learn(&mut self) -> Result<()> {
        let Decoding {
            catalog,
            pending: Some((_, message)),
            learning,
            ..
        } = &mut self.decoding
        else {
            return Ok(());
        };
        let question = learning.get_or_insert_with(|| {
            let unknown = catalog.unknown(&assembler::types(message));
            Learning::start(&mut self.sql, unknown, &self.tasks)
        });
        let learned = question.finished().await;
        *learning = None;
        let (sql, names) = learned?;
        self.sql = sql;
        catalog.add(names?);
        Ok(())
    }
}

const NOT_STARTED: Error = Error::Misuse("reading the replication stream: it is not started");

impl Source for ReplicationSource {
    async fn inspect(&mut self) -> Result<SourceState, Fault> {
        Ok(Box::pin(self.inspect_now()).await?)
    }

    async fn tables(&mut self) -> Result<Vec<SourceTable>, Fault> {
        let client = self.sql.client().await?;
        Ok(Box::pin(catalog::published_tables(
            client,
            &self.settings.publication,
        ))
        .await?)
    }

    /// A table that is not named here comes without a key, and no name of a type is asked for it.
    fn set_keys(&mut self, keys: &[(TableName, Vec<String>)]) {
        self.keys = keys.iter().cloned().collect();
    }

    async fn create_slot(&mut self, tables: &[TableName]) -> Result<SnapshotStart, Fault> {
        Ok(Box::pin(self.create_slot_now(tables)).await?)
    }

    async fn next_chunk(&mut self) -> Result<Option<SnapshotChunk>, Fault> {
        self.check_guard()?;
        match &mut self.snapshot {
            Some(snapshot) => Ok(snapshot.next().await?),
            None => Err(Error::Misuse("reading the snapshot: there is none").into()),
        }
    }

    async fn start(&mut self) -> Result<Lsn, Fault> {
        Ok(Box::pin(self.start_now()).await?)
    }

    async fn next(&mut self) -> Result<SourceEvent, Fault> {
        Ok(self.next_event().await?)
    }

    fn buffered(&mut self) -> Result<Option<SourceEvent>, Fault> {
        Ok(self.decode()?)
    }

    /// Looks after the lock too: the engine calls this every second.
    async fn confirm(&mut self, lsn: Lsn) -> Result<(), Fault> {
        self.check_guard()?;
        let stream = self
            .stream
            .as_mut()
            .ok_or(Error::Misuse("confirming: the stream is not started"))?;
        Ok(stream.confirm(lsn).await?)
    }

    /// Keeps the lock until the source is dropped: between two terms nobody else may begin one.
    async fn stop(&mut self) -> Result<(), Fault> {
        (self.snapshot, self.link) = (None, None);
        if let Some(stream) = self.stream.take() {
            stream.stop().await?;
        }
        Ok(())
    }
}

// === impl Decoding ===

impl Decoding {
    /// Takes the relation that waits, if the names of its types are known: whether none waits any more.
    fn describe(&mut self, keys: &Keys) -> Result<bool> {
        let Some((lsn, message)) = &self.pending else {
            return Ok(true);
        };
        let Some(relation) = assembler::relation(*lsn, message, keys, &self.catalog)? else {
            return Ok(false);
        };
        self.assembler.describe(relation);
        self.pending = None;
        Ok(true)
    }

    fn accept(&mut self, lsn: Lsn, message: bytes::Bytes) -> Result<Option<SourceEvent>> {
        let message = pgoutput::decode(message).map_err(|source| Error::Decode { lsn, source })?;
        if let Message::Relation(relation) = message {
            self.pending = Some((lsn, relation));
            return Ok(None);
        }
        self.assembler.accept(lsn, message)
    }
}

// === impl Settings ===

impl Settings {
    /// A slot's history may begin before its publication.
    fn explained(&self, error: Error) -> Error {
        match error {
            Error::Server { source, .. } if source.sqlstate == "42704" => {
                Error::PublicationTooYoung {
                    name: self.publication.clone(),
                    slot: self.slot.clone(),
                    source,
                }
            }
            other => other,
        }
    }
}
