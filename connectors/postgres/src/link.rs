//! One connection to PostgreSQL that speaks the protocol's simple commands, COPY and replication.
//!
//! - Whatever is awaited here is cancel safe: bytes half read or half written stay in the link's buffers.
//! - Frames are slices of the read buffer, not copies.
//! - A command leaves the link ready for the next one, also when the server refuses it.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html>

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

pub(crate) mod buffer;
mod login;
mod spooler;

use std::io;

use bytes::{Buf, BytesMut};
use postgres_protocol::message::frontend;
use tokio::io::AsyncWriteExt;

pub(crate) use buffer::Frame;
pub use buffer::FrameError;
pub(crate) use login::Kind;

use crate::endpoint::HostPort;
use crate::error::{Error, Result, ServerError};
use crate::large::LargeRows;
use crate::transport::Stream;
use buffer::ReadBuffer;
use spooler::Spooler;

/// The SQLSTATE of the warning that a publication does not exist at a point of the log, and its changes are skipped.
const PUBLICATION_SKIPPED: &str = "55000";

/// A row of a simple command's reply, all values as text.
pub(crate) type TextRow = Vec<Option<String>>;

/// A logged-in connection.
pub(crate) struct Link {
    stream: Stream,
    read: ReadBuffer,
    /// Of a link whose COPY data may be too large for memory.
    spooler: Option<Spooler>,
    write: BytesMut,
    host: HostPort,
    server_version: u32,
}

// === impl Link ===

impl Link {
    fn new(stream: Stream, host: HostPort) -> Self {
        let (read, write) = (ReadBuffer::new(), BytesMut::new());
        Self {
            stream,
            read,
            spooler: None,
            write,
            host,
            server_version: 0,
        }
    }

    /// From now on, puts COPY data that is too large for memory into files.
    pub(crate) fn spool(&mut self, large_rows: LargeRows) {
        self.spooler = Some(Spooler::new(large_rows));
    }

    /// The server that answered.
    pub(crate) fn host(&self) -> &HostPort {
        &self.host
    }

    /// The server's major version.
    pub(crate) fn server_version(&self) -> u32 {
        self.server_version
    }

    /// The next message if all of it is here. Parameter changes are passed over, notices logged.
    ///
    /// # Errors
    /// When the server reports an error or that it leaves out changes, or the bytes are no message.
    pub(crate) fn received(&mut self, doing: &'static str) -> Result<Option<Frame>> {
        while let Some(frame) = self.next_frame()? {
            match frame.tag {
                b'E' => return Err(refused(doing, &frame)),
                b'N' => heeded(server_error(&frame))?,
                b'S' => self.parameter(&frame),
                _ => return Ok(Some(frame)),
            }
        }
        Ok(None)
    }

    fn next_frame(&mut self) -> Result<Option<Frame>> {
        match &mut self.spooler {
            Some(spooler) => spooler.next_frame(&mut self.read),
            None => Ok(self.read.next_frame()?),
        }
    }

    /// Reads what has arrived, waiting for at least one byte: how many bytes came.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn fill(&mut self, doing: &'static str) -> Result<usize> {
        let read = self
            .read
            .fill(&mut self.stream)
            .await
            .map_err(Error::io(doing))?;
        if read == 0 {
            Err(Error::Closed { doing })
        } else {
            Ok(read)
        }
    }

    /// The next message, see [`Self::received`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn receive(&mut self, doing: &'static str) -> Result<Frame> {
        loop {
            if let Some(frame) = self.received(doing)? {
                return Ok(frame);
            }
            self.fill(doing).await?;
        }
    }

    /// Appends a message to what is to be sent.
    pub(crate) fn write(&mut self, message: impl FnOnce(&mut BytesMut)) {
        message(&mut self.write);
    }

    /// Appends a query to what is to be sent.
    pub(crate) fn write_query(&mut self, doing: &'static str, sql: &str) -> Result<()> {
        frontend::query(sql, &mut self.write).map_err(Error::io(doing))
    }

    /// Sends what was written.
    ///
    /// # Cancel safety
    /// Cancel safe: what is not sent yet is sent by the next call.
    pub(crate) async fn flush(&mut self, doing: &'static str) -> Result<()> {
        while self.write.has_remaining() {
            let sent = self
                .stream
                .write(&self.write)
                .await
                .map_err(Error::io(doing))?;
            if sent == 0 {
                return Err(Error::Io {
                    doing,
                    source: io::ErrorKind::WriteZero.into(),
                });
            }
            self.write.advance(sent);
        }
        self.stream.flush().await.map_err(Error::io(doing))
    }

    /// Runs simple commands: the rows of all of them.
    pub(crate) async fn query(&mut self, doing: &'static str, sql: &str) -> Result<Vec<TextRow>> {
        self.write_query(doing, sql)?;
        self.flush(doing).await?;
        let mut rows = Vec::new();
        loop {
            let frame = match self.receive(doing).await {
                Ok(frame) => frame,
                Err(error) => return Err(self.settled(doing, error).await),
            };
            match frame.tag {
                b'D' => rows.push(text_row(doing, &frame)?),
                b'T' | b'C' | b'I' => {}
                b'Z' => return Ok(rows),
                tag => {
                    return Err(Error::Unexpected {
                        doing,
                        tag: char::from(tag),
                    });
                }
            }
        }
    }

    /// Reads on until the server is ready again after it refused a command, so that the link stays usable: the error.
    pub(crate) async fn settled(&mut self, doing: &'static str, error: Error) -> Error {
        if error.sqlstate().is_none() {
            return error;
        }
        // Ends early when the server ended the connection with that error; then the next use fails.
        while let Ok(frame) = self.receive(doing).await {
            if frame.tag == b'Z' {
                break;
            }
        }
        error
    }

    fn parameter(&mut self, frame: &Frame) {
        let Some(version) = frame.body.strip_prefix(b"server_version\0") else {
            return;
        };
        let major = version
            .split(|byte| !byte.is_ascii_digit())
            .next()
            .unwrap_or_default();
        let major = std::str::from_utf8(major)
            .ok()
            .and_then(|text| text.parse().ok());
        self.server_version = major.unwrap_or(self.server_version);
    }
}

/// An `ErrorResponse` as an error.
pub(crate) fn refused(doing: &'static str, frame: &Frame) -> Error {
    Error::Server {
        doing: doing.to_owned(),
        source: Box::new(server_error(frame)),
    }
}

/// Logs a notice.
///
/// # Errors
/// When it says that changes are left out: since 18 a missing publication is no error of the server's any more.
fn heeded(notice: ServerError) -> Result<()> {
    if notice.sqlstate == PUBLICATION_SKIPPED {
        let source = Box::new(notice);
        return Err(Error::PublicationSkipped { source });
    }
    tracing::debug!(%notice, "notice from PostgreSQL");
    Ok(())
}

/// The fields of an `ErrorResponse` or `NoticeResponse`: a letter, a text, a zero, each.
fn server_error(frame: &Frame) -> ServerError {
    let mut error = ServerError::default();
    for field in frame.body.split(|byte| *byte == 0) {
        let Some((kind, text)) = field.split_first() else {
            break;
        };
        let text = String::from_utf8_lossy(text).into_owned();
        match kind {
            b'C' => error.sqlstate = text,
            b'M' => error.message = text,
            b'D' => error.detail = Some(text),
            b'H' => error.hint = Some(text),
            _ => {}
        }
    }
    error
}

/// The values of a `DataRow`: a count, then a length (-1 for NULL) and a text, each.
fn text_row(doing: &'static str, frame: &Frame) -> Result<TextRow> {
    let malformed = || Error::Reply {
        doing,
        what: "a malformed row".to_owned(),
    };
    let mut rest: &[u8] = &frame.body;
    let count = rest.try_get_u16().map_err(|_| malformed())?;
    let mut row = Vec::with_capacity(usize::from(count).min(rest.len()));
    for _ in 0..count {
        let length = rest.try_get_i32().map_err(|_| malformed())?;
        let Ok(length) = usize::try_from(length) else {
            row.push(None);
            continue;
        };
        let (value, after) = rest.split_at_checked(length).ok_or_else(malformed)?;
        row.push(Some(
            String::from_utf8(value.to_vec()).map_err(|_| malformed())?,
        ));
        rest = after;
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn frame(body: &[u8]) -> Frame {
        Frame {
            tag: b'E',
            body: Bytes::copy_from_slice(body),
            spooled: None,
        }
    }

    #[test]
    fn an_error_response_is_read() {
        let error = server_error(&frame(b"SERROR\0C55006\0Mslot is active\0Hwait\0\0"));
        assert_eq!(
            (error.sqlstate.as_str(), error.message.as_str()),
            ("55006", "slot is active")
        );
        assert_eq!((error.hint.as_deref(), error.detail), (Some("wait"), None));
    }

    #[test]
    fn the_warning_that_a_publication_is_skipped_is_an_error_and_others_are_not() {
        let warned = |sqlstate: &str| {
            heeded(ServerError {
                sqlstate: sqlstate.to_owned(),
                ..ServerError::default()
            })
        };
        let skipped = warned("55000");
        assert!(matches!(skipped, Err(Error::PublicationSkipped { .. })));
        assert!(warned("01000").is_ok());
    }

    #[test]
    fn a_data_row_is_read() {
        let row = text_row("", &frame(b"\0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\0")).unwrap();
        assert_eq!(row, [Some("ab".to_owned()), None, Some(String::new())]);
        assert!(text_row("", &frame(b"\0\x01\0\0\0\x09ab")).is_err());
    }

    proptest! {
        #[test]
        fn any_reply_is_read_or_refused_and_never_a_panic(body: Vec<u8>) {
            let _ = server_error(&frame(&body));
            let _ = text_row("", &frame(&body));
        }
    }
}
