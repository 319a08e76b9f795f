//! The operations on one collection as commands, and what their counts mean (protocol rule 16).

use mongodb::ClientSession;

use crate::batch::{Action, Move, Operation, Rows};
use crate::bson_value::element::{self, Elements};
use crate::command::{Command, Kind};
use crate::document::{DOCUMENT_OVERHEAD, MAX_DOCUMENT_BYTES, append_id, show_id};
use crate::error::DOCUMENT_CODES;
use crate::error::DUPLICATE_KEY;
use crate::stop::Stop;
use crate::store::{Store, WriteError, Written};
use crate::suspects::Suspects;
use crate::{Error, Result};

/// What a statement has around its bytes.
const STATEMENT_OVERHEAD: usize = 64;

/// How an attempt treats documents that are not as expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It aborts.
    Plain,
    /// It mends what a full image can mend, and names what cannot be mended.
    Repair,
}

/// Operations that go into commands together. Deletes come first and inserts last, so that what a
/// unique index of the target forbids twice is gone before it comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Delete,
    /// Sets fields of documents that are there.
    Update,
    /// Replaces documents that are there; makes missing ones.
    Replace,
    /// Inserts documents that are not there.
    Insert,
    /// Inserts documents, over those that are there.
    Overwrite,
}

/// The operations of one group on one collection.
pub(crate) struct Writes<'a> {
    store: &'a Store,
    rows: &'a Rows,
    group: Group,
    mode: Mode,
    /// Those of the group of which one cannot be written.
    pub(crate) suspects: Option<Suspects>,
}

// === impl Group ===

impl Group {
    pub(crate) const IN_ORDER: [Self; 5] = [
        Self::Delete,
        Self::Update,
        Self::Replace,
        Self::Insert,
        Self::Overwrite,
    ];

    /// The group that carries out an action; none when there is nothing to do.
    fn of(action: Action, mode: Mode, rows: &Rows) -> Option<Self> {
        Some(match (action, mode) {
            (Action::Nothing, _) => return None,
            (Action::Delete, _) => Self::Delete,
            (Action::Replace(_), _) => Self::Replace,
            (Action::Insert(_), Mode::Plain) => Self::Insert,
            (Action::Insert(_), Mode::Repair) => Self::Overwrite,
            (Action::Update(body), Mode::Repair) if body.is_complete => Self::Replace,
            (Action::Update(body), _) => {
                rows.values(body).next()?;
                Self::Update
            }
        })
    }

    fn kind(self) -> Kind {
        match self {
            Self::Delete => Kind::Delete,
            Self::Update | Self::Replace | Self::Overwrite => Kind::Update,
            Self::Insert => Kind::Insert,
        }
    }

    fn doing(self) -> &'static str {
        match self {
            Self::Delete => "deleting documents",
            Self::Update => "updating documents",
            Self::Replace | Self::Overwrite => "replacing documents",
            Self::Insert => "inserting documents",
        }
    }
}

// === impl Writes ===

impl<'a> Writes<'a> {
    pub(crate) fn new(store: &'a Store, rows: &'a Rows, group: Group, mode: Mode) -> Self {
        Self {
            store,
            rows,
            group,
            mode,
            suspects: None,
        }
    }

    /// Runs the group's commands: how many operations were mended.
    pub(crate) async fn run(&mut self, session: &mut ClientSession) -> Result<u64, Stop> {
        let (group, mode, rows) = (self.group, self.mode, self.rows);
        let is_mine =
            |operation: &Operation<'_>| Group::of(operation.action(), mode, rows) == Some(group);
        let operations: Vec<_> = self.rows.iter().filter(is_mine).collect();
        let mut repaired = 0;
        let mut rest = operations.as_slice();
        while !rest.is_empty() {
            let at = operations.len() - rest.len();
            let most = self.suspects.map_or(usize::MAX, |it| it.most(at));
            let (command, taken) = self.command(rest, most);
            let (sent, others) = rest.split_at(taken);
            repaired += self.send(session, command, (at, sent)).await?;
            rest = others;
        }
        Ok(repaired)
    }

    /// A command with as many operations as fit, and `most` at the most.
    fn command(&self, operations: &[Operation<'_>], most: usize) -> (Command, usize) {
        let mut limits = self.store.limits();
        limits.operations = limits.operations.min(most);
        let mut command = Command::new(self.group.kind(), &self.rows.collection);
        for operation in operations {
            if command.is_full(limits, self.statement_bytes(operation)) {
                break;
            }
            command.add(|out| self.statement(out, operation));
        }
        let taken = command.statements();
        (command, taken)
    }

    fn statement_bytes(&self, operation: &Operation<'_>) -> usize {
        let body = operation.action().body();
        let body = body.map_or(0, |body| self.rows.elements(body).len());
        2 * operation.id.len() + body + STATEMENT_OVERHEAD
    }

    fn statement(&self, out: &mut Vec<u8>, operation: &Operation<'_>) {
        let id = operation.id;
        let Some(body) = operation.action().body() else {
            return delete_statement(out, id);
        };
        let elements = self.rows.elements(body);
        match self.group {
            Group::Insert => {
                append_id(out, id);
                out.extend_from_slice(elements);
            }
            Group::Replace | Group::Overwrite => upsert_statement(out, id, elements),
            Group::Update | Group::Delete => {
                update_statement(out, id, self.rows.values(body));
            }
        }
    }

    async fn send(
        &self,
        session: &mut ClientSession,
        command: Command,
        (at, sent): (usize, &[Operation<'_>]),
    ) -> Result<u64, Stop> {
        let command = command.finish()?;
        let written = self
            .store
            .write(Some(&mut *session), command, self.group.doing())
            .await;
        let written = match written {
            Err(Error::Server { source, .. }) if is_of_document(&source) => {
                return Err(self.refused_as_a_whole(&source, (at, sent)));
            }
            written => written?,
        };
        if let Some(error) = written.errors.first() {
            return Err(self.refused(error, sent));
        }
        let unmatched = sent.len().saturating_sub(written.n) as u64;
        match self.group {
            Group::Delete => Ok(unmatched),
            Group::Replace => Ok(written.upserted as u64),
            Group::Overwrite => Ok(written.n.saturating_sub(written.upserted) as u64),
            Group::Insert | Group::Update if unmatched == 0 => Ok(0),
            Group::Update if self.mode == Mode::Repair => Err(self.missing(session, sent).await),
            Group::Insert | Group::Update => Err(Stop::Mismatch),
        }
    }

    /// A document was refused as an error of the command, which does not say which it was.
    fn refused_as_a_whole(
        &self,
        source: &mongodb::error::Error,
        (at, sent): (usize, &[Operation<'_>]),
    ) -> Stop {
        let error = WriteError {
            index: 0,
            code: crate::error::code(source).unwrap_or_default(),
            message: source.kind.to_string(),
        };
        let is_mismatch = error.code == DUPLICATE_KEY && self.mode == Mode::Plain;
        if sent.len() > 1 && !is_mismatch {
            return Stop::Unclear(Suspects {
                segment: 0,
                collection: 0,
                group: self.group,
                start: at,
                end: at + sent.len(),
            });
        }
        self.refused(&error, sent)
    }

    fn refused(&self, error: &WriteError, sent: &[Operation<'_>]) -> Stop {
        if error.code == DUPLICATE_KEY && self.mode == Mode::Plain {
            return Stop::Mismatch;
        }
        let Some(operation) = sent.get(error.index).or(sent.first()) else {
            return Stop::Mismatch;
        };
        let refused = Error::Refused {
            table: self.rows.encoder.table.clone(),
            key: show_id(operation.id),
            position: operation.position(),
            code: error.code,
            message: error.message.clone(),
        };
        Stop::of_document(&self.rows.collection, operation.id, refused)
    }

    /// Names a document that an update did not find, by halves.
    async fn missing(&self, session: &mut ClientSession, sent: &[Operation<'_>]) -> Stop {
        let mut suspects = sent;
        while let Some(half) = suspects.len().checked_div(2).filter(|&half| half > 0) {
            let (first, second) = suspects.split_at(half);
            let (command, taken) = self.command(first, usize::MAX);
            let command = match command.finish() {
                Ok(command) => command,
                Err(error) => return error.into(),
            };
            match self
                .store
                .write(Some(&mut *session), command, self.group.doing())
                .await
            {
                Ok(written) => suspects = if written.n < taken { first } else { second },
                Err(error) => return error.into(),
            }
        }
        suspects.first().map_or(Stop::Mismatch, |operation| {
            Stop::Failed(Error::MissingDocument {
                table: self.rows.encoder.table.clone(),
                key: show_id(operation.id),
                position: operation.position(),
            })
        })
    }
}

// === impl Move ===

impl Move {
    /// The elements of the new document, without `_id`: what the change carries, the rest from the
    /// old document.
    pub(crate) fn document(&self, old: &bson::RawDocument) -> Result<Vec<u8>> {
        let known: Vec<_> = Elements::new(&self.elements).collect();
        let carried: Vec<_> = Elements::of_document(old.as_bytes()).collect();
        let mut document = Vec::with_capacity(old.as_bytes().len());
        for field in &self.fields {
            let mut candidates = known.iter().chain(&carried);
            let found = candidates.find(|element| element.name == field.as_bytes());
            let found = found.ok_or_else(|| self.lacks(field))?;
            document.extend_from_slice(found.bytes);
        }
        let bytes = document.len() + self.to.len() + DOCUMENT_OVERHEAD;
        if bytes <= MAX_DOCUMENT_BYTES {
            return Ok(document);
        }
        Err(Error::DocumentTooLarge {
            table: self.table.clone(),
            key: show_id(&self.to),
            position: Some(self.position),
            bytes,
        })
    }

    pub(crate) fn missing(&self) -> Error {
        Error::MissingDocument {
            table: self.table.clone(),
            key: show_id(&self.from),
            position: self.position,
        }
    }

    /// What an error of the change means for the transaction: one of its document is told by the new key.
    pub(crate) fn stop(&self, error: Error) -> Stop {
        let error = match error {
            Error::Server { source, .. } if is_of_document(&source) => Error::Refused {
                table: self.table.clone(),
                key: show_id(&self.to),
                position: self.position,
                code: crate::error::code(&source).unwrap_or_default(),
                message: source.kind.to_string(),
            },
            error => error,
        };
        Stop::of_document(&self.collection, &self.to, error)
    }

    fn lacks(&self, field: &str) -> Error {
        Error::FieldLost {
            table: self.table.clone(),
            key: show_id(&self.from),
            position: self.position,
            field: field.to_owned(),
        }
    }

    /// The server's refusal to write the document with this key, the old one or the new one.
    pub(crate) fn refused(&self, key: &[u8], error: &WriteError) -> Error {
        let (code, message) = (error.code, error.message.clone());
        Error::Refused {
            table: self.table.clone(),
            key: show_id(key),
            position: self.position,
            code,
            message,
        }
    }
}

/// Turns a duplicate that came as the command's error into one of its statement's.
pub(crate) fn checked(written: Result<Written>) -> Result<Written, Stop> {
    match written {
        Err(Error::Server { source, .. }) if is_duplicate(&source) => {
            let message = source.kind.to_string();
            let error = WriteError {
                index: 0,
                code: DUPLICATE_KEY,
                message,
            };
            Ok(Written {
                errors: vec![error],
                ..Written::default()
            })
        }
        written => Ok(written?),
    }
}

/// Whether a command failed for what one of its documents is.
fn is_of_document(error: &mongodb::error::Error) -> bool {
    let code = crate::error::code(error);
    code.is_some_and(|code| DOCUMENT_CODES.contains(&code))
}

fn is_duplicate(error: &mongodb::error::Error) -> bool {
    crate::error::code(error) == Some(DUPLICATE_KEY)
}

/// `{q: {_id}, limit: 1}`
pub(crate) fn delete_statement(out: &mut Vec<u8>, id: &[u8]) {
    query(out, id);
    element::int32(out, "limit", 1);
}

/// `{q: {}, limit: 0}`
pub(crate) fn truncate_statement(out: &mut Vec<u8>) {
    let query = element::open_document(out, "q");
    element::close(out, query);
    element::int32(out, "limit", 0);
}

/// `{q: {_id}, u: {_id, …}, upsert: true}`
pub(crate) fn upsert_statement(out: &mut Vec<u8>, id: &[u8], elements: &[u8]) {
    query(out, id);
    let document = element::open_document(out, "u");
    append_id(out, id);
    out.extend_from_slice(elements);
    element::close(out, document);
    element::boolean(out, "upsert", true);
}

/// `{q: {_id}, u: {$set: {…}}}`
fn update_statement<'a>(out: &mut Vec<u8>, id: &[u8], pieces: impl Iterator<Item = &'a [u8]>) {
    query(out, id);
    let update = element::open_document(out, "u");
    let set = element::open_document(out, "$set");
    pieces.for_each(|piece| out.extend_from_slice(piece));
    element::close(out, set);
    element::close(out, update);
}

fn query(out: &mut Vec<u8>, id: &[u8]) {
    let query = element::open_document(out, "q");
    append_id(out, id);
    element::close(out, query);
}
