//! What can go wrong between walferry and MongoDB.

mod tls;

use mongodb::error::ErrorKind;
use walferry_core::{Class, Classify, Fault};
use walferry_schema::{FORMAT, Oversize, Position, TableName};

use crate::{AccessError, AnalyticsError};
use tls::Trouble;

/// Server codes that pass by themselves: interrupted, not primary, stepping down or recovering, shutting down,
/// network trouble inside the cluster, write concern and lock timeouts, conflicts.
const TRANSIENT_CODES: [i32; 25] = [
    6, 7, 24, 50, 64, 89, 91, 100, 112, 133, 134, 189, 225, 244, 251, 262, 290, 9001, 10_058,
    10_107, 11_600, 11_601, 11_602, 13_435, 13_436,
];
/// The server ended the operation, as it does when the session is killed. The transaction is over or
/// about to be; the next one of the session meets the position either way.
const INTERRUPTED: i32 = 11_601;
/// Server codes for a transaction that lived too long, or is too large for the log or the cache.
const LIMIT_CODES: [i32; 3] = [257, 290, 388];
/// The server's codes for a collection that is not there, and for a name that is taken.
pub(crate) const NAMESPACE_NOT_FOUND: i32 = 26;
pub(crate) const NAMESPACE_EXISTS: i32 = 48;
/// The server's code for a key that is there already.
pub(crate) const DUPLICATE_KEY: i32 = 11_000;
/// The server's code for what took longer than it may.
const MAX_TIME_EXPIRED: i32 = 50;
/// The server's code for what the user may not do.
const UNAUTHORIZED: i32 = 13;
/// Server codes for a document as such: it breaks a rule of the collection, a unique index, or the limit of 16 MiB.
/// And for one that an index cannot take: two arrays, an array to be hashed, no place on earth.
pub(crate) const DOCUMENT_CODES: [i32; 8] =
    [121, 171, 11_000, 10_334, 16_755, 16_766, 17_419, 17_420];
/// What servers before 6.2 say when a transaction is too large for the cache.
const EVICTED: &str = "rolled back for eviction";

/// An error of this crate; each says what was being done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is not one. The driver's reason is left out: it can repeat the password.
    #[error(
        "the MongoDB URL cannot be read: it should look like mongodb://host:27017/?replicaSet=rs0, \
         with special characters in user name and password percent-encoded"
    )]
    Url,
    /// A file that the URL names cannot be used.
    #[error(
        "reading the TLS files of the MongoDB URL: tlsCAFile must be a PEM file of certificates, and \
         tlsCertificateKeyFile one of a certificate and its key"
    )]
    TlsFile(#[source] mongodb::error::Error),
    /// The server is not who it should be.
    #[error(
        "{doing}: its certificate is not trusted ({reason}): give the certificate of the authority that \
         issued it as tlsCAFile in the sink's URL, and connect by a name that it has, while it is valid"
    )]
    Untrusted {
        /// What was being done.
        doing: &'static str,
        /// What is wrong with it.
        reason: String,
        /// Whether time may heal it: then it is waited for, as a server that is away.
        is_passing: bool,
    },
    /// The server ends connections while TLS begins.
    #[error(
        "{doing}: the server closes the connection where TLS begins: give a certificate that it takes as \
         tlsCertificateKeyFile in the sink's URL, or leave out tls=true when it has no TLS"
    )]
    TlsClosed {
        /// What was being done.
        doing: &'static str,
        /// The driver's error.
        source: mongodb::error::Error,
    },
    /// The server takes no multi-document transactions.
    #[error(
        "MongoDB runs without a replica set and has no transactions: start mongod with --replSet and \
         run rs.initiate(), one member is enough"
    )]
    NoTransactions,
    /// The driver or the server failed.
    #[error("{doing}")]
    Server {
        /// What was being done.
        doing: &'static str,
        /// The driver's error.
        source: mongodb::error::Error,
    },
    /// The user may not do this.
    #[error("{doing}: MongoDB says {what:?}; `walferry check` names the grants that are missing")]
    Denied {
        /// What was being done.
        doing: &'static str,
        /// What the server says, without the command itself.
        what: String,
    },
    /// A transaction was to be passed over, and the order was taken back meanwhile.
    #[error("the order to pass over a transaction was taken back: beginning again without it")]
    OrderWithdrawn,
    /// The server did not answer.
    #[error("{doing}: no answer from MongoDB in time")]
    NoAnswer {
        /// What was being done.
        doing: &'static str,
    },
    /// The session of the last writer may hold locks, and may not be killed.
    #[error(
        "killing the MongoDB session of the last writer is not allowed: grant walferry's user a role \
         with the action killAnySession on the cluster, or let it connect as the same user"
    )]
    KillRefused,
    /// Others claimed the pipeline each time that this process tried to, or held its lock.
    #[error("claiming the pipeline {pipeline} in MongoDB did not succeed in time")]
    ClaimTimedOut {
        /// The pipeline.
        pipeline: String,
    },
    /// Something was written before the pipeline was claimed, or after it was lost.
    #[error("writing without a claim: the pipeline has to be claimed again")]
    NotClaimed,
    /// Another writer has claimed the pipeline.
    #[error(
        "another walferry has taken over the pipeline {pipeline} (epoch {found}, ours was {ours}): \
         stop one of the two"
    )]
    Fenced {
        /// The pipeline.
        pipeline: String,
        /// The epoch of this process.
        ours: i64,
        /// The epoch that stands there now.
        found: i64,
    },
    /// The position document is not as this writer left it, although no other writer claimed it.
    #[error(
        "the position document of the pipeline {pipeline} in _walferry.positions was changed or \
         removed by someone else: restore it, or load the tables anew with a new generation"
    )]
    PositionLost {
        /// The pipeline.
        pipeline: String,
    },
    /// The position document is older than what this writer wrote.
    #[error(
        "the position of the pipeline {pipeline} went back: MongoDB was restored from a backup. When \
         all of it was restored, start walferry again to go on from there; when only a part was, run \
         walferry run --new-snapshot"
    )]
    PositionWentBack {
        /// The pipeline.
        pipeline: String,
    },
    /// The position was reached in another database than the one that is to be written.
    #[error(
        "the pipeline {pipeline} fills the database {stored}, not {configured}: set sink.database = \
         \"{stored}\" again, or use another slot and prefix, or remove the document {pipeline} from \
         _walferry.positions and run walferry run --new-snapshot"
    )]
    OtherDatabase {
        /// The pipeline.
        pipeline: String,
        /// The database that the position tells of.
        stored: String,
        /// The database of the configuration.
        configured: String,
    },
    /// The position document was written by a walferry with another format.
    #[error(
        "the position of the pipeline {pipeline} has format {found}, this walferry reads format \
         {FORMAT}: upgrade it"
    )]
    PositionFormat {
        /// The pipeline.
        pipeline: String,
        /// The document's format.
        found: i64,
    },
    /// The position document lacks a field, or has one of another type.
    #[error("the position document of the pipeline {pipeline} has no valid field {field}")]
    PositionField {
        /// The pipeline.
        pipeline: String,
        /// The field.
        field: &'static str,
    },
    /// The commit's outcome stayed unknown; claiming again finds out.
    #[error("committing a transaction: its outcome is still unknown")]
    CommitUnknown(#[source] mongodb::error::Error),
    /// A transaction failed again and again.
    #[error("a transaction was aborted {attempts} times")]
    Aborted {
        /// How often it was tried.
        attempts: u32,
        /// The last reason.
        source: Box<Error>,
    },
    /// A transaction ran into the server's limits of time or cache again and again.
    #[error(
        "a transaction of {operations} operations on {collections} took longer, or more of the cache, \
         than MongoDB allows, {attempts} times: raise transactionLifetimeLimitSeconds, or lower \
         sink.group_rows; or load the tables anew with walferry run --new-snapshot"
    )]
    TransactionTooLong {
        /// How many operations it had.
        operations: usize,
        /// What it wrote to, emptied collections first.
        collections: String,
        /// How often it was tried.
        attempts: u32,
        /// The last reason.
        source: Box<Error>,
    },
    /// A command on a whole collection was refused by the server.
    #[error("{doing} {collection}: MongoDB refuses it: {message} ({code})")]
    CollectionRefused {
        /// What was being done.
        doing: &'static str,
        /// The collection.
        collection: String,
        /// The server's code.
        code: i32,
        /// The server's message.
        message: String,
    },
    /// An operation was refused by the server.
    #[error("writing {table}, _id {key}, at {position}: MongoDB refuses it: {message} ({code})")]
    Refused {
        /// The table.
        table: TableName,
        /// The document's key.
        key: String,
        /// The position of the last change of the row.
        position: Position,
        /// The server's code.
        code: i32,
        /// The server's message.
        message: String,
    },
    /// An answer that no MongoDB gives.
    #[error("{doing}: the answer has no field {field}")]
    Answer {
        /// What was being done.
        doing: &'static str,
        /// The field that is missing.
        field: &'static str,
    },
    /// A change needs a document that is not there.
    #[error(
        "the document {key} of {table} that a change at {position} needs is not in MongoDB: the \
         collection was changed by someone else; load the table anew"
    )]
    MissingDocument {
        /// The table.
        table: TableName,
        /// The document's key.
        key: String,
        /// The change.
        position: Position,
    },
    /// A key change needs a field that neither it nor the old document has.
    #[error(
        "the change of the key {key} of {table} at {position} needs the field {field}, which the \
         document does not have: the collection was changed by someone else; load the table anew"
    )]
    FieldLost {
        /// The table.
        table: TableName,
        /// The old document's key.
        key: String,
        /// The change.
        position: Position,
        /// The field.
        field: String,
    },
    /// A document beyond what MongoDB takes.
    #[error(
        "the row {key} of {table}{} is a document of {bytes} bytes, MongoDB takes \
         16777216: leave a column out, or the row",
        position.map_or(String::new(), |it| format!(" at {it}"))
    )]
    DocumentTooLarge {
        /// The table.
        table: TableName,
        /// The document's key.
        key: String,
        /// The change; none in a batch load.
        position: Option<Position>,
        /// The document's size.
        bytes: usize,
    },
    /// So many documents of one group cannot be written that it is not about them.
    #[error(
        "more than {limit} rows of one group cannot be written, which are too many to be about single rows: look for a \
         rule or an index of the collection that the source does not have; the last: {last}"
    )]
    ManyUnwritable {
        /// How many are parked at most.
        limit: usize,
        /// The last of them.
        last: Box<Error>,
    },
    /// What a dead letter says is not there, or not all of it.
    #[error(
        "what the dead letter {letter} says is gone from _walferry.dead_letter_parts: discard it, or load the table \
         anew with walferry run --new-snapshot"
    )]
    LetterLost {
        /// The letter.
        letter: String,
    },
    /// What MongoDB refused cannot be published.
    #[error("publishing a dead letter: {0}")]
    Publishing(Fault),
    /// What a row was too large with cannot be read from its file.
    #[error("reading the large value of column {column} from its file")]
    LargeValue {
        /// The column.
        column: String,
        /// Why.
        source: std::io::Error,
    },
    /// A row of which a part did not come for its size.
    #[error(
        "the row {key} of {table} at {position} came without {}",
        came_without(oversize)
    )]
    Oversize {
        /// The table.
        table: TableName,
        /// The document's key.
        key: String,
        /// The change.
        position: Position,
        /// What did not come, and why.
        oversize: Box<Oversize>,
    },
    /// A number that Decimal128 cannot hold.
    #[error(
        "the number in column {column} of {table} has more digits than Decimal128 holds: set \
         numeric_overflow = \"string\" to keep it as text"
    )]
    NumericOverflow {
        /// The table.
        table: TableName,
        /// The column.
        column: String,
    },
    /// Two fields of a document would have one name.
    #[error(
        "column {column} of {table} has the name of a field that another column becomes, by its microseconds or by a \
         character that MongoDB does not take: rename it, or set microseconds = \"truncate\""
    )]
    ColumnClash {
        /// The table.
        table: TableName,
        /// The column.
        column: String,
    },
    /// A column has a name that a version of its row has for something else.
    #[error(
        "column {column} of {table} has the name of a field that each version of a row has: rename the column, or set \
         history = false for the table"
    )]
    HistoryClash {
        /// The table.
        table: TableName,
        /// The column.
        column: String,
    },
    /// Rows of a table that is to have a history are not as the source has them.
    #[error(
        "the history of {table} cannot begin: rows of it have dead letters, or had some that were discarded; start with \
         history = false, retry them or change the rows in PostgreSQL (UPDATE), and see that `walferry verify` finds none"
    )]
    HistoryWaits {
        /// The table.
        table: TableName,
    },
    /// A change needs a version that is not there.
    #[error(
        "a change of the row {key} of {table} at {position} left {field} as it was, and no current version in its history \
         has it: start once with history = false for the table, and then with history = true"
    )]
    VersionLost {
        /// The table.
        table: TableName,
        /// The row's key before the change.
        key: String,
        /// The change.
        position: Position,
        /// The field.
        field: String,
    },
    /// A table whose rows cannot be told apart.
    #[error("table {table} has no primary key: add one, or choose a replica identity index")]
    NoKey {
        /// The table.
        table: TableName,
    },
    /// A change without its key.
    #[error("a change of {table} lacks the key column {column}: load the table anew")]
    KeyAbsent {
        /// The table.
        table: TableName,
        /// The column.
        column: String,
    },
    /// A new row without all of its columns.
    #[error("a new row of {table} lacks the column {column}: load the table anew")]
    ColumnAbsent {
        /// The table.
        table: TableName,
        /// The column.
        column: String,
    },
    /// Two tables with one collection.
    #[error("the tables {first} and {second} would share the collection {collection}: rename one")]
    CollectionClash {
        /// A table.
        first: TableName,
        /// Another one.
        second: TableName,
        /// The collection of both, or the staging collection of one.
        collection: String,
    },
    /// A table whose collection MongoDB would refuse.
    #[error(
        "table {table} has no valid collection name: no dollar sign, no leading \"system.\", not more \
         than 200 bytes; rename it"
    )]
    CollectionName {
        /// The table.
        table: TableName,
    },
    /// A view or time series stands where a table's collection should be.
    #[error("{collection} is a {kind} in MongoDB, not a collection: remove or rename it")]
    NotACollection {
        /// The name.
        collection: String,
        /// What it is.
        kind: String,
    },
    /// The staging collection is gone, and was not renamed.
    #[error(
        "the staging collection {staging} has vanished before it was renamed: load the tables anew \
         with walferry run --new-snapshot"
    )]
    StagingLost {
        /// The staging collection.
        staging: String,
    },
    /// Someone else's documents are where a staging collection should be made.
    #[error(
        "the collection {staging} is in the way: the snapshot is to be collected there, but it has \
         documents that are not walferry's; rename it, or drop it"
    )]
    StagingTaken {
        /// The staging collection.
        staging: String,
    },
    /// A table of a live pipeline has no collection any more.
    #[error(
        "the collection {collection} is gone from the database {database}, though its changes were \
         applied: restore it, or load the tables anew with walferry run --new-snapshot"
    )]
    CollectionLost {
        /// The collection.
        collection: String,
        /// The database.
        database: String,
    },
    /// Rows with the same key in a batch load.
    #[error(
        "loading {collection}: {refused} documents were refused, the first: {message} ({code})"
    )]
    LoadRefused {
        /// The collection.
        collection: String,
        /// How many.
        refused: usize,
        /// The first one's code.
        code: i32,
        /// The first one's message.
        message: String,
    },
    /// A batch load whose collection holds another number of documents than were sent.
    #[error("loading {collection}: {sent} documents were sent, {found} are there")]
    LoadCount {
        /// The collection.
        collection: String,
        /// How many were sent.
        sent: u64,
        /// How many are there.
        found: u64,
    },
    /// A question to what was delivered cannot be asked, or its answer not kept.
    #[error(transparent)]
    Analytics(#[from] AnalyticsError),
    /// Roles cannot be made as they should be.
    #[error(transparent)]
    Access(#[from] AccessError),
}

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

// === impl Error ===

impl Error {
    /// Whether it is the server's, with this code.
    pub(crate) fn has_code(&self, expected: i32) -> bool {
        matches!(self, Self::Server { source, .. } if code(source) == Some(expected))
    }

    /// Whether a moment was asked about that MongoDB does not show: another one can be.
    pub fn is_moment_gone(&self) -> bool {
        matches!(self, Self::Analytics(AnalyticsError::MomentGone { .. }))
    }

    /// Whether MongoDB gave a question up that took longer than it was to.
    pub fn is_out_of_time(&self) -> bool {
        self.has_code(MAX_TIME_EXPIRED)
    }

    /// Wraps the driver's error, for use with `map_err`.
    pub(crate) fn server(doing: &'static str) -> impl Fn(mongodb::error::Error) -> Self {
        move |source| match tls::trouble(&source) {
            Some(Trouble::Untrusted { reason, is_passing }) => Self::Untrusted {
                doing,
                reason,
                is_passing,
            },
            Some(Trouble::Closed) => Self::TlsClosed { doing, source },
            None => match denied(&source) {
                Some(what) => Self::Denied { doing, what },
                None => Self::Server { doing, source },
            },
        }
    }

    /// Whether the transaction that met this error is worth another attempt as it is.
    pub(crate) fn is_worth_retrying(&self) -> bool {
        match self {
            Self::Server { source, .. } => {
                source.contains_label(mongodb::error::TRANSIENT_TRANSACTION_ERROR)
                    || code(source) == Some(INTERRUPTED)
            }
            Self::Refused { code, .. } | Self::CollectionRefused { code, .. } => {
                TRANSIENT_CODES.contains(code)
            }
            _ => false,
        }
    }

    /// Whether a document is what cannot be written, not the collection or the server.
    pub(crate) fn is_of_document(&self) -> bool {
        match self {
            Self::Refused { code, .. } => DOCUMENT_CODES.contains(code),
            Self::DocumentTooLarge { .. } => true,
            _ => false,
        }
    }

    /// Whether the server ended a transaction because it took too long or too much.
    pub(crate) fn is_limit(&self) -> bool {
        let is_limit =
            |code: i32, message: &str| LIMIT_CODES.contains(&code) || message.contains(EVICTED);
        match self {
            Self::Server { source, .. } => {
                is_limit(code(source).unwrap_or_default(), &source.kind.to_string())
            }
            Self::Refused { code, message, .. } | Self::CollectionRefused { code, message, .. } => {
                is_limit(*code, message)
            }
            _ => false,
        }
    }
}

impl Classify for Error {
    fn class(&self) -> Class {
        match self {
            Self::Server { source, .. } => class_of(source),
            // A server that is going down closes connections too.
            Self::TlsClosed { .. }
            | Self::Untrusted {
                is_passing: true, ..
            }
            | Self::NoAnswer { .. }
            | Self::ClaimTimedOut { .. }
            | Self::NotClaimed
            | Self::OrderWithdrawn
            | Self::LargeValue { .. }
            | Self::CommitUnknown(_) => Class::Transient,
            Self::Aborted { source, .. } => source.class(),
            Self::Analytics(error) => error.class(),
            Self::Access(error) => error.class(),
            Self::Refused { code, .. } | Self::CollectionRefused { code, .. }
                if TRANSIENT_CODES.contains(code) =>
            {
                Class::Transient
            }
            Self::Refused { code, .. } if DOCUMENT_CODES.contains(code) => Class::Poison,
            Self::MissingDocument { .. }
            | Self::FieldLost { .. }
            | Self::DocumentTooLarge { .. }
            | Self::ManyUnwritable { .. }
            | Self::Oversize { .. }
            | Self::NumericOverflow { .. }
            | Self::KeyAbsent { .. }
            | Self::ColumnAbsent { .. } => Class::Poison,
            // Of the row itself the letter would tell.
            Self::Publishing(fault) if fault.class() != Class::Poison => fault.class(),
            Self::TlsFile(_) => Class::File,
            Self::Fenced { .. } => Class::Fenced,
            _ => Class::Fatal,
        }
    }
}

/// What a row came without, where that is, and what to do.
fn came_without(oversize: &Oversize) -> String {
    let Oversize {
        columns,
        bytes,
        parts,
        error,
        ..
    } = oversize;
    let columns = columns.join(", ");
    let text = format!("{columns}, too large to be sent ({bytes} bytes): {error}");
    match parts {
        0 => text,
        parts => format!(
            "{text}, then run `walferry run --new-snapshot`; the dead-letter topic holds the record in {parts} parts"
        ),
    }
}

/// The class of a driver's error: what the network or an election causes passes.
fn class_of(error: &mongodb::error::Error) -> Class {
    if error.contains_label(mongodb::error::TRANSIENT_TRANSACTION_ERROR) {
        return Class::Transient;
    }
    match error.kind.as_ref() {
        ErrorKind::Io(_)
        | ErrorKind::ServerSelection { .. }
        | ErrorKind::ConnectionPoolCleared { .. }
        | ErrorKind::DnsResolve { .. } => Class::Transient,
        _ if code(error).is_some_and(|code| TRANSIENT_CODES.contains(&code)) => Class::Transient,
        _ => Class::Fatal,
    }
}

/// What a server says that does not allow a command; it repeats the whole command, which is left out here.
fn denied(error: &mongodb::error::Error) -> Option<String> {
    let ErrorKind::Command(command) = error.kind.as_ref() else {
        return None;
    };
    if command.code != UNAUTHORIZED {
        return None;
    }
    let said = command.message.split_once(" to execute command { ");
    let (may_not, repeated) = said.unwrap_or((&command.message, ""));
    let name = repeated.split(':').next().unwrap_or_default();
    Some(format!("{may_not} to execute {name}"))
}

/// The server's code of an error.
pub(crate) fn code(error: &mongodb::error::Error) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => Some(command.code),
        ErrorKind::Write(mongodb::error::WriteFailure::WriteError(write)) => Some(write.code),
        ErrorKind::Write(mongodb::error::WriteFailure::WriteConcernError(write)) => {
            Some(write.code)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_used_may_be_one_that_is_being_replaced() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        assert_eq!(Error::TlsFile(missing.into()).class(), Class::File);
    }
}
