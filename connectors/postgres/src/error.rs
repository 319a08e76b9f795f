//! Everything that can go wrong with the source, and what the operator can do about it.

mod server;
mod tls;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use walferry_core::{Class, Classify};
use walferry_schema::{Lsn, TableName};

use crate::copy_text::error::CopyTextError;
use crate::large::LargeRows;
use crate::link::buffer::FrameError;
use crate::pgoutput::DecodeError;

pub use server::ServerError;
pub use tls::TlsError;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the connection to PostgreSQL or of what it sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL cannot be used.
    #[error("reading the source's URL: {reason}; write it as postgres://user@host:5432/database")]
    Url {
        /// What is wrong with it.
        reason: String,
    },
    /// A parameter of the URL cannot be honoured.
    #[error("reading the source's URL: {reason}")]
    UrlParameter {
        /// Which, why, and what to write instead.
        reason: String,
    },
    /// A file that the URL names cannot be read.
    #[error("reading {parameter} of the source's URL, {}: it must be a PEM file", file.display())]
    TlsFile {
        /// The URL's parameter.
        parameter: &'static str,
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: Box<rustls::pki_types::pem::Error>,
    },
    /// A file that the URL names holds no certificate.
    #[error(
        "reading {parameter} of the source's URL, {}: it holds no certificate; give a PEM file that does",
        file.display()
    )]
    TlsFileEmpty {
        /// The URL's parameter.
        parameter: &'static str,
        /// The file.
        file: PathBuf,
    },
    /// The certificate and the key do not go together.
    #[error(
        "using sslcert and sslkey of the source's URL, {} and {}: give a certificate and the key that belongs to it",
        certificate.display(),
        key.display()
    )]
    TlsIdentity {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong with them.
        source: rustls::Error,
    },
    /// The connection cannot be as safe as the URL asks.
    #[error("securing the connection to PostgreSQL at {host}")]
    Tls {
        /// The host and port.
        host: String,
        /// What is wrong, and what to do.
        source: Box<TlsError>,
    },
    /// The server takes writes, or does not, and should not, or should.
    #[error("the server at {host} is not {wanted}, as target_session_attrs asks")]
    OtherSession {
        /// The host and port.
        host: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// None of several hosts would do.
    #[error("connecting to PostgreSQL, none of the hosts would do: {reasons}")]
    NoHost {
        /// Each host with its reason.
        reasons: String,
    },
    /// No connection could be made.
    #[error("connecting to PostgreSQL at {host}")]
    Connect {
        /// The host and port.
        host: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The server did not answer in time.
    #[error("connecting to PostgreSQL at {host}: no answer within {after:?}")]
    ConnectTimedOut {
        /// The host and port.
        host: String,
        /// How long.
        after: Duration,
    },
    /// The server does not accept who we are.
    #[error(
        "logging in to PostgreSQL as {user:?}: check the password (or sslcert and sslkey) in the source's URL \
         and the lines of pg_hba.conf"
    )]
    Login {
        /// The user.
        user: String,
        /// The server's answer.
        source: Box<ServerError>,
    },
    /// The server asks for a password and the URL has none.
    #[error(
        "logging in to PostgreSQL as {user:?}: the server asks for a password, give one in the source's URL"
    )]
    PasswordMissing {
        /// The user.
        user: String,
    },
    /// The server wants an authentication that this version does not have.
    #[error(
        "logging in to PostgreSQL: the server wants {method}; allow scram-sha-256, md5, password or trust in pg_hba.conf"
    )]
    AuthenticationUnsupported {
        /// The method.
        method: String,
    },
    /// The server could not prove that it knows the password, or broke the SCRAM exchange.
    #[error("logging in to PostgreSQL: checking the server's SCRAM answer")]
    Scram(#[source] io::Error),
    /// The user may not replicate.
    #[error(
        "the user {user:?} may not replicate: run ALTER ROLE {} REPLICATION",
        crate::identifier::quoted(user)
    )]
    ReplicationRole {
        /// The user.
        user: String,
    },
    /// The server does not write what logical decoding needs.
    #[error(
        "wal_level is {found}: run ALTER SYSTEM SET wal_level = 'logical' and restart PostgreSQL"
    )]
    WalLevel {
        /// The level it has.
        found: String,
    },
    /// The publication is not there.
    #[error(
        "the publication {name:?} does not exist: run CREATE PUBLICATION {} FOR ALL TABLES (or FOR TABLE …)",
        crate::identifier::quoted(name)
    )]
    PublicationMissing {
        /// Its name.
        name: String,
    },
    /// The publication leaves out operations.
    #[error(
        "the publication {name:?} does not publish {missing}, so documents would go stale unseen: \
         run ALTER PUBLICATION {} SET (publish = 'insert, update, delete, truncate'); \
         what happened meanwhile needs a new generation with a snapshot",
        crate::identifier::quoted(name)
    )]
    PublicationPartial {
        /// Its name.
        name: String,
        /// The operations that it leaves out.
        missing: String,
    },
    /// The slot reads log from before the publication was made.
    #[error(
        "the publication {name:?} did not exist yet where the slot {slot:?} reads: create the publication before the slot; \
         begin a new generation with a snapshot"
    )]
    PublicationTooYoung {
        /// The publication.
        name: String,
        /// The slot.
        slot: String,
        /// The server's answer.
        source: Box<ServerError>,
    },
    /// The server passes over changes, since the publication is not there where it reads.
    #[error("reading the replication stream: {source}")]
    PublicationSkipped {
        /// The server's warning.
        source: Box<ServerError>,
    },
    /// The slot is not there.
    #[error("the replication slot {slot:?} does not exist: begin a new generation with a snapshot")]
    SlotMissing {
        /// Its name.
        slot: String,
    },
    /// The server knows no slots that outlive a failover.
    #[error(
        "source.failover needs PostgreSQL 17 or newer, and the server is PostgreSQL {version}: take the key out of the \
         configuration"
    )]
    NoFailoverSlots {
        /// The server's major version.
        version: u32,
    },
    /// Somebody else reads the slot.
    #[error(
        "the replication slot {slot:?} is active{}: stop the other reader, or run SELECT pg_terminate_backend({})",
        pid.map(|pid| format!(" for process {pid}")).unwrap_or_default(),
        pid.map_or_else(
            || format!("active_pid) FROM pg_replication_slots WHERE (slot_name = '{slot}'"),
            |pid| pid.to_string()
        )
    )]
    SlotActive {
        /// Its name.
        slot: String,
        /// The server process that owns it, when the server says so.
        pid: Option<u32>,
        /// Whether that may be the end of a broken connection of ours, which the server has not given up yet.
        is_ours: bool,
    },
    /// The session that keeps other readers away is gone.
    #[error(
        "lost the lock on the name of the replication slot {slot:?}: another reader may take it"
    )]
    GuardLost {
        /// The slot's name.
        slot: String,
    },
    /// The slot is of another kind.
    #[error(
        "the replication slot {slot:?} belongs to {found}, walferry needs pgoutput in the database {database:?}: \
         choose another slot name, or run SELECT pg_drop_replication_slot('{slot}')"
    )]
    SlotForeign {
        /// Its name.
        slot: String,
        /// Its plugin and database.
        found: String,
        /// The database it should read.
        database: String,
    },
    /// The server refused a command.
    #[error("{doing}")]
    Server {
        /// What was being done.
        doing: String,
        /// The server's answer.
        source: Box<ServerError>,
    },
    /// The SQL connection failed.
    #[error("{doing}")]
    Sql {
        /// What was being done.
        doing: String,
        /// The client's answer.
        source: tokio_postgres::Error,
    },
    /// The connection broke.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The server ended the connection.
    #[error("{doing}: the server closed the connection")]
    Closed {
        /// What was being done.
        doing: &'static str,
    },
    /// Nothing was heard for too long although an answer was asked for.
    #[error("waiting for the stream: the server did not answer for {after:?}")]
    Silent {
        /// How long.
        after: Duration,
    },
    /// Transactions in progress cannot be kept.
    #[error(
        "{doing} in {}: name a directory that can be written by source.spool, or take source.streaming out of the \
         configuration",
        directory.display()
    )]
    Spool {
        /// What was being done.
        doing: &'static str,
        /// The directory.
        directory: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Transactions in progress have filled the disk.
    #[error(
        "no space is left in {} for transactions in progress: make room, name another directory by source.spool, or \
         have PostgreSQL keep them with source.streaming = false",
        directory.display()
    )]
    SpoolNoSpace {
        /// The directory.
        directory: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Transactions in progress are larger than they may be.
    #[error(
        "transactions in progress take more than {limit_bytes} bytes in {}: raise source.spool_limit, or have PostgreSQL \
         keep them, with source.streaming = false or a larger logical_decoding_work_mem",
        directory.display()
    )]
    SpoolFull {
        /// The directory.
        directory: PathBuf,
        /// How much they may take.
        limit_bytes: u64,
    },
    /// A call came before the one that it needs.
    #[error("{0}")]
    Misuse(&'static str),
    /// The bytes are no message of the protocol.
    #[error("reading a message of PostgreSQL's")]
    Frame(#[from] FrameError),
    /// A message of the protocol that does not belong here.
    #[error("{doing}: unexpected message {tag:?} from the server")]
    Unexpected {
        /// What was being done.
        doing: &'static str,
        /// The message's type.
        tag: char,
    },
    /// A reply does not have the columns or the form it should have.
    #[error("{doing}: unexpected reply from the server: {what}")]
    Reply {
        /// What was being done.
        doing: &'static str,
        /// What is wrong.
        what: String,
    },
    /// What is too large for memory cannot be written to a file, or read again.
    #[error(
        "spooling a large row in {}: see that the directory can be written to and has room, or choose another by source.spool",
        directory.display()
    )]
    SpoolRow {
        /// The directory.
        directory: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A frame of the stream cannot be decoded.
    #[error("decoding the change at {lsn}")]
    Decode {
        /// Where it stands.
        lsn: Lsn,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A frame of the stream came out of order.
    #[error("the stream is out of order at {lsn}: {what}")]
    Order {
        /// Where it stands.
        lsn: Lsn,
        /// What was wrong.
        what: &'static str,
    },
    /// A change names a table that the stream has not described.
    #[error("the change at {lsn} belongs to the unknown relation {oid}")]
    UnknownRelation {
        /// Where it stands.
        lsn: Lsn,
        /// The table's object id.
        oid: u32,
    },
    /// A change has more or fewer cells than its table has columns.
    #[error("the change at {lsn} of {table} has {found} cells for {expected} columns")]
    CellCount {
        /// Where it stands.
        lsn: Lsn,
        /// The table.
        table: TableName,
        /// Cells.
        found: usize,
        /// Columns.
        expected: usize,
    },
    /// A column that documents are identified by is gone.
    #[error(
        "{table} has no column {column:?} any more at {lsn}, but its documents are identified by it: \
         begin a new generation with a snapshot"
    )]
    KeyColumnMissing {
        /// The table.
        table: TableName,
        /// The column.
        column: String,
        /// From where on.
        lsn: Lsn,
    },
    /// Old rows do not say which document they were.
    #[error(
        "the replica identity of {table} at {lsn} does not cover the key column {column:?}: restore the primary key or \
         run ALTER TABLE {} REPLICA IDENTITY FULL, then begin a new generation with a snapshot",
        crate::identifier::table(table)
    )]
    KeyNotInIdentity {
        /// The table.
        table: TableName,
        /// The column.
        column: String,
        /// From where on.
        lsn: Lsn,
    },
    /// A table is not there.
    #[error("the table {table} does not exist (any more): leave it out, or create it")]
    TableMissing {
        /// The table.
        table: TableName,
    },
    /// A table is not in the publication.
    #[error(
        "the table {table} is not in the publication {publication:?}: run ALTER PUBLICATION {} ADD TABLE {}",
        crate::identifier::quoted(publication),
        crate::identifier::table(table)
    )]
    TableUnpublished {
        /// The table.
        table: TableName,
        /// The publication.
        publication: String,
    },
    /// A streamed table left the publication.
    #[error(
        "the table {table} was dropped, renamed or removed from publication {publication:?} while it was streamed, or its \
         entry there was changed, so changes of it may have been missed: begin a new generation with a snapshot"
    )]
    TableLeft {
        /// The table.
        table: TableName,
        /// The publication.
        publication: String,
    },
    /// A table was rewritten or emptied while its snapshot began.
    #[error(
        "the table {table} was rewritten or truncated while the snapshot was taken: the snapshot starts over"
    )]
    TableRewritten {
        /// The table.
        table: TableName,
    },
    /// A line of COPY cannot be read.
    #[error("reading the rows of {table}")]
    CopyText {
        /// The table.
        table: TableName,
        /// What is wrong.
        source: CopyTextError,
    },
    /// A task that a query was left to ended without a word.
    #[error("{doing}: its task ended early")]
    TaskLost {
        /// What was being done.
        doing: &'static str,
    },
    /// A reader of the snapshot ended without a word.
    #[error("reading the snapshot of {table}: a reader ended early")]
    ReaderLost {
        /// The table.
        table: TableName,
    },
}

// === impl Error ===

impl Error {
    /// The SQLSTATE, when the server sent one.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Login { source, .. }
            | Self::PublicationTooYoung { source, .. }
            | Self::PublicationSkipped { source }
            | Self::Server { source, .. } => Some(&source.sqlstate),
            _ => None,
        }
    }

    /// Wraps what the SQL client says with what was being done.
    pub(crate) fn sql(doing: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Self {
        let doing = doing.into();
        move |source| match source.as_db_error() {
            Some(error) => Self::Server {
                doing,
                source: Box::new(error.into()),
            },
            None => Self::Sql { doing, source },
        }
    }

    /// Wraps what the system says of a large row's file.
    pub(crate) fn spool_row(large_rows: &LargeRows) -> impl FnOnce(io::Error) -> Self {
        let directory = large_rows.directory.to_path_buf();
        move |source| Self::SpoolRow { directory, source }
    }

    /// Wraps what the system says with what was being done.
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}

impl Classify for Error {
    fn class(&self) -> Class {
        match self {
            Self::Connect { .. }
            | Self::ConnectTimedOut { .. }
            | Self::NoHost { .. }
            | Self::OtherSession { .. }
            | Self::Io { .. }
            | Self::Closed { .. }
            | Self::Silent { .. }
            | Self::SpoolRow { .. }
            | Self::SlotActive { is_ours: true, .. }
            | Self::GuardLost { .. }
            | Self::TableRewritten { .. }
            | Self::TaskLost { .. }
            | Self::ReaderLost { .. } => Class::Transient,
            Self::Server { source, .. } if source.will_pass() => Class::Transient,
            Self::Tls { source, .. } if source.will_pass() => Class::Transient,
            Self::TlsFile { .. } | Self::TlsFileEmpty { .. } | Self::TlsIdentity { .. } => {
                Class::File
            }
            // Without an answer of the server's it is the connection that failed.
            Self::Sql { source, .. } if is_connection_failure(source) => Class::Transient,
            _ => Class::Fatal,
        }
    }
}

fn is_connection_failure(error: &tokio_postgres::Error) -> bool {
    let cause = std::error::Error::source(error);
    error.is_closed() || cause.is_some_and(<dyn std::error::Error>::is::<io::Error>)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(sqlstate: &str, message: &str) -> ServerError {
        ServerError {
            sqlstate: sqlstate.into(),
            message: message.into(),
            ..ServerError::default()
        }
    }

    #[test]
    fn an_active_slot_names_its_remedy() {
        let known = Error::SlotActive {
            slot: "s".into(),
            pid: Some(7),
            is_ours: false,
        }
        .to_string();
        assert!(
            known.ends_with(
                "active for process 7: stop the other reader, or run SELECT pg_terminate_backend(7)"
            ),
            "{known}"
        );
        let unknown = Error::SlotActive {
            slot: "s".into(),
            pid: None,
            is_ours: false,
        }
        .to_string();
        assert!(
            unknown.ends_with(
                "pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE (slot_name = 's')"
            ),
            "{unknown}"
        );
    }

    #[test]
    fn a_shutdown_passes_and_a_missing_table_does_not() {
        let class = |sqlstate: &str| {
            Error::Server {
                doing: "x".into(),
                source: Box::new(server(sqlstate, "m")),
            }
            .class()
        };
        assert_eq!(class("57P01"), Class::Transient);
        assert_eq!(class("53300"), Class::Transient);
        assert_eq!(class("42P01"), Class::Fatal);
    }
}
