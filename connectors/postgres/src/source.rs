//! The source that the engine drives.
//!
//! - The slot is owned before its confirmed LSN is read (protocol rule 5).
//! - A second reader of the slot changes nothing, not even while a snapshot is read or between two terms.
//! - No event is lost when a call is dropped: what was received stays in the stream's buffer or in the state here.
//! - A question to the catalog goes on when the call that waits for it is dropped.

mod decoding;
mod guard;
mod learning;
mod membership;
mod slot;

use walferry_core::{
    Class, Classify, Fault, SnapshotChunk, SnapshotStart, Source, SourceEvent, SourceState,
    SourceTable, Spooled, Tasks,
};
use walferry_schema::{Declared, Lsn, TableName};

use crate::catalog;
use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::key::Keys;
use crate::link::{Kind, Link};
use crate::settings::Settings;
use crate::snapshot::SnapshotReader;
use crate::snapshot::chunks::{ChunkLimits, SnapshotChunks};
use crate::sql::Sql;
use crate::stream::ReplicationStream;
use crate::stream::frame::StreamFrame;
use crate::streaming::Spool;
use decoding::Decoding;
use guard::Guard;
use membership::Membership;

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
    /// Whether the streamed tables stay where they are; kept from term to term.
    membership: Option<Membership>,
    decoding: Decoding,
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
            membership: None,
            decoding,
        })
    }

    /// The open replication connection, or a new one. SQL then goes to the same server.
    async fn take_link(&mut self) -> Result<Link> {
        if let Some(link) = self.link.take() {
            return Ok(link);
        }
        let mut link = Link::connect(&self.endpoint, Kind::Replication).await?;
        link.spool(self.settings.large_rows());
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
            failover,
            ..
        } = &self.settings;
        if *failover {
            slot::check_failover(&link)?;
        }
        let removed = slot::remove(&mut link, slot, *slot_wait).await;
        removed.map_err(|error| self.judged(error))?;
        // From here on, also when making it does not end well.
        self.has_owned = true;
        self.membership = None;
        let made = slot::create(&mut link, slot, *failover).await?;
        let endpoint = self.endpoint.at(link.host());
        let large_rows = self.settings.large_rows();
        let reader = SnapshotReader::import(endpoint, &self.tasks, &made.snapshot, large_rows);
        let mut reader = reader.await?;
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
        self.note_membership().await?;
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
        let mut link = self.take_link().await?;
        self.decoding = Decoding::default();
        let Settings {
            slot,
            publication,
            slot_wait,
            failover,
            ..
        } = &self.settings;
        if *failover {
            let kept = slot::keep_over_failover(&mut link, slot, *slot_wait).await;
            kept.map_err(|error| self.judged(error))?;
        }
        let spool = self.settings.streaming().map(Spool::open).transpose()?;
        let owned = slot::own(link, &self.settings).await;
        // When the connection broke, the server may have heard us.
        let may_own = owned
            .as_ref()
            .err()
            .is_none_or(|error| error.class() == Class::Transient);
        let owned = owned.map_err(|error| self.judged(error));
        self.has_owned |= may_own;
        let stream = owned?;
        let confirmed = slot::confirmed_lsn(self.sql.client().await?, slot, publication).await?;
        if self.membership.is_none() {
            self.note_membership().await?;
        }
        self.stream = Some(stream.with_spool(spool));
        Ok(confirmed)
    }

    async fn declared_now(&mut self, table: u32) -> Result<Vec<Declared>> {
        catalog::declared(self.sql.client().await?, table).await
    }

    async fn note_membership(&mut self) -> Result<()> {
        let client = self.sql.client().await?;
        let noted = Membership::note(client, &self.settings.publication, &self.tasks);
        self.membership = Some(noted.await?);
        Ok(())
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
            if let Some(event) = self.decoding.resume()? {
                return Ok(Some(event));
            }
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
                Some(StreamFrame::Spooled { lsn, message }) => {
                    let large_rows = self.settings.large_rows();
                    let event = self.decoding.accept_spooled(lsn, message, &large_rows)?;
                    if event.is_some() {
                        return Ok(event);
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
            if self.decoding.is_waiting() {
                self.decoding.learn(&mut self.sql, &self.tasks).await?;
            } else {
                self.stream.as_mut().ok_or(NOT_STARTED)?.wait().await?;
            }
        }
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

    async fn declared(&mut self, table: u32) -> Result<Vec<Declared>, Fault> {
        Ok(Box::pin(self.declared_now(table)).await?)
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

    fn spooled(&self) -> Option<Spooled> {
        self.stream.as_ref().and_then(ReplicationStream::spooled)
    }

    /// Looks after the lock too: the engine calls this every second.
    async fn confirm(&mut self, lsn: Lsn) -> Result<(), Fault> {
        self.check_guard()?;
        if let (Some(membership), Some(guard)) = (&mut self.membership, &self.guard) {
            membership.check(guard.client(), &self.keys).await?;
        }
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

// === impl Settings ===

impl Settings {
    /// A slot's history may begin before its publication.
    fn explained(&self, error: Error) -> Error {
        let source = match error {
            Error::PublicationSkipped { source } => source,
            Error::Server { source, .. } if source.sqlstate == "42704" => source,
            other => return other,
        };
        Error::PublicationTooYoung {
            name: self.publication.clone(),
            slot: self.slot.clone(),
            source,
        }
    }
}
