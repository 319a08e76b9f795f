//! Transactions in progress, kept on disk until they commit: protocol version 2 with `streaming 'on'`.
//!
//! - A transaction leaves whole, at its commit, as the messages of protocol version 1 that it would have been.
//! - Nothing of a subtransaction that was rolled back leaves.
//! - What commits meanwhile passes at once.
//! - All transactions together have a limit, and memory holds a buffer and one mark for each subtransaction.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod file;
mod marks;

use std::collections::HashMap;
use std::io;
use std::mem;
use std::path::PathBuf;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::runtime::Handle;
use walferry_core::Spooled;
use walferry_schema::Lsn;

use crate::error::{Error, Result};
use crate::large::{LargeRows, SpooledFrame};
use crate::pgoutput::DecodeError;
use crate::settings::Streaming;
use crate::stream::frame::{DATA_HEADER_BYTES, StreamFrame};
use file::{Recording, Replay};
use marks::Marks;

const KEEPING: &str = "keeping a transaction in progress";
const REPLAYING: &str = "replaying a transaction that was kept until its commit";

/// The transactions in progress of one stream.
pub(crate) struct Spool {
    settings: Streaming,
    transactions: HashMap<u32, InProgress>,
    /// The transaction whose block is being received.
    open: Option<u32>,
    leaving: Option<Leaving>,
}

/// A transaction that has not ended.
struct InProgress {
    origin: Option<(Lsn, Bytes)>,
    recording: Recording,
    subtransactions: Marks,
}

/// A committed transaction on its way out.
struct Leaving {
    /// Its Begin, and its Origin where it has one.
    head: std::vec::IntoIter<(Lsn, Bytes)>,
    changes: Replay,
    large_rows: LargeRows,
    commit: Option<(Lsn, Bytes)>,
    bytes: u64,
}

/// What a Stream Commit says.
struct StreamCommit {
    xid: u32,
    commit_lsn: Lsn,
    end_lsn: Lsn,
    /// As PostgreSQL writes it.
    committed_at: i64,
}

// === impl Spool ===

impl Spool {
    /// An empty spool in a directory that can be written.
    ///
    /// # Errors
    /// Fatal when it cannot.
    pub(crate) fn open(settings: Streaming) -> Result<Self> {
        settings.recording()?;
        Ok(Self {
            settings,
            transactions: HashMap::new(),
            open: None,
            leaving: None,
        })
    }

    /// Takes the server's next message: what may be decoded now, if it is that.
    ///
    /// # Errors
    /// Fatal when the spool is full or cannot be written, or the message does not belong here.
    pub(crate) fn accept(&mut self, lsn: Lsn, message: Bytes) -> Result<Option<StreamFrame>> {
        let malformed = |source| Error::Decode { lsn, source };
        let mut rest = message.clone();
        let tag = rest
            .try_get_u8()
            .map_err(|_| malformed(DecodeError::Truncated))?;
        match (tag, self.open) {
            (b'S', None) => self.start(read_xid(&mut rest).map_err(malformed)?)?,
            (b'c', None) => {
                let commit = StreamCommit::read(rest).map_err(malformed)?;
                return self.commit(lsn, &commit);
            }
            (b'A', None) => {
                let top = read_xid(&mut rest).map_err(malformed)?;
                self.abort(top, read_xid(&mut rest).map_err(malformed)?)?;
            }
            (b'E', Some(top)) => self.stop(top)?,
            (b'S' | b'c' | b'A', Some(_)) | (b'E', None) => {
                let what = "the blocks of transactions in progress are not closed";
                return Err(Error::Order { lsn, what });
            }
            // It has no xid, and comes first.
            (b'O', Some(top)) => self.of(lsn, top)?.origin = Some((lsn, message)),
            (tag, Some(top)) => {
                let xid = read_xid(&mut rest).map_err(malformed)?;
                self.keep(top, xid, (lsn, tag, &rest))?;
            }
            (_, None) => return Ok(Some(StreamFrame::Data { lsn, message })),
        }
        Ok(None)
    }

    /// The same of a message that is too large for memory: a change, or a message of the user's.
    ///
    /// # Errors
    /// As [`Self::accept`].
    pub(crate) fn accept_large(
        &mut self,
        lsn: Lsn,
        message: SpooledFrame,
    ) -> Result<Option<StreamFrame>> {
        let Some(top) = self.open else {
            return Ok(Some(StreamFrame::Spooled { lsn, message }));
        };
        let failed = |error| self.settings.failed(KEEPING, error);
        let mut head = [0; 5];
        let at = DATA_HEADER_BYTES as u64;
        message.read_at(at, &mut head).map_err(failed)?;
        let [tag, xid @ ..] = head;
        let rest = at.saturating_add(head.len() as u64);
        let transaction = self
            .transactions
            .get_mut(&top)
            .ok_or(unknown(lsn))?
            .of(top, u32::from_be_bytes(xid));
        let kept = transaction
            .recording
            .append_file((lsn, tag), &message, rest);
        kept.map_err(|error| self.settings.failed(KEEPING, error))?;
        self.check_limit()?;
        Ok(None)
    }

    /// The next message of a transaction that has committed; none when there is none.
    pub(crate) fn replayed(&mut self) -> Result<Option<StreamFrame>> {
        let Some(leaving) = &mut self.leaving else {
            return Ok(None);
        };
        let next = leaving.next();
        let next = next.map_err(|error| self.settings.failed(REPLAYING, error))?;
        // Its commit was the last.
        if leaving.commit.is_none() {
            give_back(self.leaving.take());
        }
        Ok(next)
    }

    /// How much is kept.
    pub(crate) fn spooled(&self) -> Spooled {
        let transactions = self.transactions.len();
        let leaving = usize::from(self.leaving.is_some());
        Spooled {
            transactions: transactions.saturating_add(leaving) as u64,
            bytes: self.bytes(),
        }
    }

    fn bytes(&self) -> u64 {
        let kept = self.transactions.values().map(|it| it.recording.bytes());
        let leaving = self.leaving.as_ref().map(|it| it.bytes);
        kept.chain(leaving).fold(0, u64::saturating_add)
    }

    fn start(&mut self, xid: u32) -> Result<()> {
        if !self.transactions.contains_key(&xid) {
            let begun = InProgress::begin(&self.settings)?;
            self.transactions.insert(xid, begun);
        }
        self.open = Some(xid);
        Ok(())
    }

    fn keep(&mut self, top: u32, xid: u32, message: (Lsn, u8, &[u8])) -> Result<()> {
        let (lsn, ..) = message;
        let failed = |error| self.settings.failed(KEEPING, error);
        let transaction = self
            .transactions
            .get_mut(&top)
            .ok_or(unknown(lsn))?
            .of(top, xid);
        if transaction.recording.append(message).map_err(failed)? {
            self.check_limit()?;
        }
        Ok(())
    }

    fn check_limit(&self) -> Result<()> {
        let limit_bytes = self.settings.limit_bytes;
        if self.bytes() <= limit_bytes {
            return Ok(());
        }
        Err(Error::SpoolFull {
            directory: self.settings.directory(),
            limit_bytes,
        })
    }

    fn stop(&mut self, top: u32) -> Result<()> {
        self.open = None;
        if let Some(transaction) = self.transactions.get_mut(&top) {
            let flushed = transaction.recording.flush();
            flushed.map_err(|error| self.settings.failed(KEEPING, error))?;
        }
        self.check_limit()
    }

    fn abort(&mut self, top: u32, xid: u32) -> Result<()> {
        if xid == top {
            give_back(self.transactions.remove(&top));
            return Ok(());
        }
        let Some(transaction) = self.transactions.get_mut(&top) else {
            return Ok(());
        };
        match transaction.subtransactions.roll_back(xid) {
            Some(bytes) => transaction
                .recording
                .truncate(bytes)
                .map_err(|error| self.settings.failed(KEEPING, error)),
            None => Ok(()),
        }
    }

    fn commit(&mut self, lsn: Lsn, commit: &StreamCommit) -> Result<Option<StreamFrame>> {
        let transaction = self.transactions.remove(&commit.xid).ok_or(unknown(lsn))?;
        let bytes = transaction.recording.bytes();
        if bytes == 0 {
            // Version 1 does not mention it either.
            return Ok(Some(StreamFrame::Keepalive {
                lsn: commit.end_lsn,
                wants_reply: false,
            }));
        }
        let changes = transaction.recording.replay();
        let mut head = vec![(lsn, commit.begin())];
        head.extend(transaction.origin);
        self.leaving = Some(Leaving {
            head: head.into_iter(),
            changes: changes.map_err(|error| self.settings.failed(REPLAYING, error))?,
            large_rows: self.settings.large_rows.clone(),
            commit: Some((lsn, commit.commit())),
            bytes,
        });
        self.replayed()
    }

    fn of(&mut self, lsn: Lsn, top: u32) -> Result<&mut InProgress> {
        self.transactions.get_mut(&top).ok_or(unknown(lsn))
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        give_back((mem::take(&mut self.transactions), self.leaving.take()));
    }
}

/// Closes files elsewhere: it takes a third of a second for each GiB to be free again.
fn give_back(files: impl Send + 'static) {
    match Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(|| drop(files))),
        Err(_) => drop(files),
    }
}

fn unknown(lsn: Lsn) -> Error {
    Error::Order {
        lsn,
        what: "a transaction in progress that has not begun",
    }
}

fn read_xid(rest: &mut Bytes) -> Result<u32, DecodeError> {
    rest.try_get_u32().map_err(|_| DecodeError::Truncated)
}

// === impl InProgress ===

impl InProgress {
    fn begin(settings: &Streaming) -> Result<Self> {
        Ok(Self {
            origin: None,
            recording: settings.recording()?,
            subtransactions: Marks::default(),
        })
    }

    /// The same, before a message of one of its transactions is kept.
    fn of(&mut self, top: u32, xid: u32) -> &mut Self {
        if xid != top {
            self.subtransactions.note(xid, self.recording.bytes());
        }
        self
    }
}

// === impl Leaving ===

impl Leaving {
    fn next(&mut self) -> io::Result<Option<StreamFrame>> {
        let data = |(lsn, message)| StreamFrame::Data { lsn, message };
        if let Some(first) = self.head.next() {
            return Ok(Some(data(first)));
        }
        let change = self.changes.next(&self.large_rows)?;
        Ok(change.or_else(|| self.commit.take().map(data)))
    }
}

// === impl StreamCommit ===

impl StreamCommit {
    fn read(mut rest: Bytes) -> Result<Self, DecodeError> {
        let truncated = |_| DecodeError::Truncated;
        let xid = rest.try_get_u32().map_err(truncated)?;
        let _flags = rest.try_get_u8().map_err(truncated)?;
        let commit_lsn = Lsn(rest.try_get_u64().map_err(truncated)?);
        let end_lsn = Lsn(rest.try_get_u64().map_err(truncated)?);
        let committed_at = rest.try_get_i64().map_err(truncated)?;
        match rest.remaining() {
            0 => Ok(Self {
                xid,
                commit_lsn,
                end_lsn,
                committed_at,
            }),
            left => Err(DecodeError::Trailing(left)),
        }
    }

    /// The Begin of version 1.
    fn begin(&self) -> Bytes {
        let mut message = BytesMut::with_capacity(21);
        message.put_u8(b'B');
        message.put_u64(self.commit_lsn.0);
        message.put_i64(self.committed_at);
        message.put_u32(self.xid);
        message.freeze()
    }

    /// The Commit of version 1.
    fn commit(&self) -> Bytes {
        let mut message = BytesMut::with_capacity(26);
        message.put_slice(b"C\0");
        message.put_u64(self.commit_lsn.0);
        message.put_u64(self.end_lsn.0);
        message.put_i64(self.committed_at);
        message.freeze()
    }
}

// === impl Streaming ===

impl Streaming {
    fn directory(&self) -> PathBuf {
        self.large_rows.directory.to_path_buf()
    }

    fn recording(&self) -> Result<Recording> {
        let recording = Recording::new(&self.large_rows.directory);
        recording.map_err(|error| self.failed(KEEPING, error))
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> Error {
        let directory = self.directory();
        if matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ) {
            return Error::SpoolNoSpace { directory, source };
        }
        Error::Spool {
            doing,
            directory,
            source,
        }
    }
}

#[cfg(test)]
mod tests;
