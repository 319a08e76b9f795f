//! Streaming replication over a [`Link`]: log data and keepalives in, status updates out.
//!
//! - The confirmed LSN never falls.
//! - A server that does not answer is noticed.
//! - What is in progress is kept aside until it commits, so that frames come as in protocol version 1.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-replication.html>

pub(crate) mod frame;
mod pace;

use std::time::{Duration, SystemTime};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use postgres_protocol::message::frontend::{self, CopyData};
use tokio::time::Instant;
use walferry_core::Spooled;
use walferry_schema::Lsn;

use crate::error::{Error, Result};
use crate::identifier::{quoted, replication_literal};
use crate::large::SpooledFrame;
use crate::link::Link;
use crate::settings::Settings;
use crate::streaming::Spool;
use frame::{DATA_HEADER_BYTES, StreamFrame};
use pace::Pace;

const STREAMING: &str = "reading the replication stream";
const CONFIRMING: &str = "confirming to the server";
const STOPPING: &str = "ending the replication stream";
/// Silence after which an answer is asked for; servers speak up after half of `wal_sender_timeout` (30 seconds).
const ASK_AFTER: Duration = Duration::from_secs(40);
/// How long that answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long an orderly end may take; in the middle of a transaction the server sends all of it first.
const STOP_WITHIN: Duration = Duration::from_secs(2);
/// PostgreSQL 18 also tells so of subtransactions of which it has sent nothing, whatever the protocol version.
const STREAM_ABORT: u8 = b'A';
/// Microseconds from 1970 to 2000.
const EPOCH_2000_MICROS: u128 = 946_684_800_000_000;

/// A link in streaming mode.
pub(crate) struct ReplicationStream {
    link: Link,
    confirmed: Lsn,
    silence: Option<Silence>,
    pace: Pace,
    /// None when the server sends transactions at their commit.
    spool: Option<Spool>,
}

struct Silence {
    since: Instant,
    asked: Option<Instant>,
}

// === impl ReplicationStream ===

impl ReplicationStream {
    /// Owns the slot and starts the stream where the slot stands; gives the link back when the server refuses.
    pub(crate) async fn start(mut link: Link, settings: &Settings) -> Result<Self, (Link, Error)> {
        // The list is parsed as identifiers, inside a string.
        let publications = replication_literal(&quoted(&settings.publication));
        let protocol = match settings.streaming {
            None => "proto_version '1'",
            Some(_) => "proto_version '2', streaming 'on'",
        };
        let command = format!(
            "START_REPLICATION SLOT {} LOGICAL 0/0 \
             ({protocol}, publication_names {publications}, messages 'true')",
            quoted(&settings.slot)
        );
        match begin(&mut link, &command).await {
            Ok(()) => Ok(Self {
                link,
                confirmed: Lsn::ZERO,
                silence: None,
                pace: Pace::default(),
                spool: None,
            }),
            Err(error) => Err((link, error)),
        }
    }

    /// The same with a place for transactions in progress.
    pub(crate) fn with_spool(self, spool: Option<Spool>) -> Self {
        Self { spool, ..self }
    }

    /// How much of transactions in progress is kept; none when the server keeps them.
    pub(crate) fn spooled(&self) -> Option<Spooled> {
        self.spool.as_ref().map(Spool::spooled)
    }

    /// The next frame if it is here.
    pub(crate) fn received(&mut self) -> Result<Option<StreamFrame>> {
        loop {
            if let Some(spool) = &mut self.spool
                && let Some(frame) = spool.replayed()?
            {
                return Ok(Some(frame));
            }
            let sent = self.sent()?;
            match (sent, &mut self.spool) {
                (Some(StreamFrame::Data { lsn, message }), Some(spool)) => {
                    if let Some(frame) = spool.accept(lsn, message)? {
                        return Ok(Some(frame));
                    }
                }
                (Some(StreamFrame::Spooled { lsn, message }), Some(spool)) => {
                    if let Some(frame) = spool.accept_large(lsn, message)? {
                        return Ok(Some(frame));
                    }
                }
                (Some(StreamFrame::Data { message, .. }), None)
                    if message.first() == Some(&STREAM_ABORT) => {}
                (sent, _) => return Ok(sent),
            }
        }
    }

    /// The next frame of the server's, if it is here.
    fn sent(&mut self) -> Result<Option<StreamFrame>> {
        let Some(frame) = self.link.received(STREAMING)? else {
            return Ok(None);
        };
        match frame.tag {
            b'd' => match frame.spooled {
                Some(file) => spooled_frame(file).map(Some),
                None => stream_frame(frame.body).map(Some),
            },
            // The server ends the stream by itself only when it shuts down.
            b'c' | b'C' => Err(Error::Closed { doing: STREAMING }),
            tag => Err(Error::Unexpected {
                doing: STREAMING,
                tag: char::from(tag),
            }),
        }
    }

    /// Waits until more has arrived.
    ///
    /// # Errors
    /// Transient when the connection broke or the server does not answer.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn wait(&mut self) -> Result<()> {
        self.gather().await;
        loop {
            let deadline = self.silence_deadline();
            tokio::select! {
                biased;
                // 1. What the server sends.
                read = self.link.fill(STREAMING) => {
                    self.pace.read(Instant::now(), read?);
                    self.silence = None;
                    return Ok(());
                }
                // 2. It sends nothing.
                () = tokio::time::sleep_until(deadline) => {}
            }
            self.break_silence().await?;
        }
    }

    /// Tells the server what is safe downstream, and that we are alive.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn confirm(&mut self, lsn: Lsn) -> Result<()> {
        self.confirmed = self.confirmed.max(lsn);
        self.send_status(false).await
    }

    /// Ends the stream in order, within a short time.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let stopped = tokio::time::timeout(STOP_WITHIN, self.end()).await;
        // The server notices the closed connection; only an error of its own is worth telling.
        stopped.unwrap_or(Ok(()))
    }

    /// While behind, lets the socket fill: many small reads cost the server as much as us.
    async fn gather(&mut self) {
        if let Some(until) = self.pace.rest(Instant::now()) {
            tokio::time::sleep_until(until).await;
        }
    }

    fn silence_deadline(&mut self) -> Instant {
        let silence = self.silence.get_or_insert_with(|| Silence {
            since: Instant::now(),
            asked: None,
        });
        silence
            .asked
            .map_or(silence.since + ASK_AFTER, |asked| asked + ANSWER_WITHIN)
    }

    async fn break_silence(&mut self) -> Result<()> {
        let Some(silence) = &mut self.silence else {
            return Ok(());
        };
        if silence.asked.is_some() {
            return Err(Error::Silent {
                after: silence.since.elapsed(),
            });
        }
        silence.asked = Some(Instant::now());
        self.send_status(true).await
    }

    async fn send_status(&mut self, wants_reply: bool) -> Result<()> {
        let update = status_update(self.confirmed, wants_reply);
        let message = CopyData::new(update.freeze()).map_err(Error::io(CONFIRMING))?;
        self.link.write(|buffer| message.write(buffer));
        self.link.flush(CONFIRMING).await
    }

    async fn end(&mut self) -> Result<()> {
        self.link.write(frontend::copy_done);
        self.link.flush(STOPPING).await?;
        while self.link.receive(STOPPING).await?.tag != b'Z' {}
        self.link.write(frontend::terminate);
        self.link.flush(STOPPING).await
    }
}

async fn begin(link: &mut Link, command: &str) -> Result<()> {
    const STARTING: &str = "starting the replication stream";
    link.write_query(STARTING, command)?;
    link.flush(STARTING).await?;
    match link.receive(STARTING).await {
        Ok(frame) if frame.tag == b'W' => Ok(()),
        Ok(frame) => Err(Error::Unexpected {
            doing: STARTING,
            tag: char::from(frame.tag),
        }),
        Err(error) => Err(link.settled(STARTING, error).await),
    }
}

fn stream_frame(mut body: Bytes) -> Result<StreamFrame> {
    let malformed = |_| Error::Reply {
        doing: STREAMING,
        what: "a frame that ends early".to_owned(),
    };
    match body.try_get_u8().map_err(malformed)? {
        b'w' => {
            let lsn = Lsn(body.try_get_u64().map_err(malformed)?);
            // The end of the server's log and its clock: not needed.
            body.try_get_u64().map_err(malformed)?;
            body.try_get_u64().map_err(malformed)?;
            Ok(StreamFrame::Data { lsn, message: body })
        }
        b'k' => {
            let lsn = Lsn(body.try_get_u64().map_err(malformed)?);
            body.try_get_u64().map_err(malformed)?;
            let wants_reply = body.try_get_u8().map_err(malformed)? != 0;
            Ok(StreamFrame::Keepalive { lsn, wants_reply })
        }
        other => Err(Error::Reply {
            doing: STREAMING,
            what: format!("a frame of type {other:#04x}"),
        }),
    }
}

fn spooled_frame(file: SpooledFrame) -> Result<StreamFrame> {
    let unreadable = Error::io("reading a spooled row of the replication stream");
    let mut header = [0; DATA_HEADER_BYTES];
    file.read_at(0, &mut header).map_err(unreadable)?;
    match stream_frame(Bytes::copy_from_slice(&header))? {
        StreamFrame::Data { lsn, .. } => Ok(StreamFrame::Spooled { lsn, message: file }),
        other => Ok(other),
    }
}

/// Written, flushed and applied are one: what is confirmed is durable downstream.
fn status_update(confirmed: Lsn, wants_reply: bool) -> BytesMut {
    let since_1970 = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let clock = since_1970.as_micros().saturating_sub(EPOCH_2000_MICROS);
    let mut update = BytesMut::with_capacity(34);
    update.put_u8(b'r');
    update.put_u64(confirmed.0);
    update.put_u64(confirmed.0);
    update.put_u64(confirmed.0);
    update.put_u64(u64::try_from(clock).unwrap_or_default());
    update.put_u8(u8::from(wants_reply));
    update
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_status_update_says_the_same_three_times() {
        let update = status_update(Lsn(0x0102), true);
        let lsn = [0, 0, 0, 0, 0, 0, 1, 2];
        assert_eq!(update[..25], [b"r", lsn.as_slice(), &lsn, &lsn].concat());
        assert_eq!((update.len(), update[33]), (34, 1));
    }

    proptest! {
        #[test]
        fn any_frame_is_read_or_refused_and_never_a_panic(kind in prop::sample::select(b"wkx".to_vec()), rest: Vec<u8>) {
            let _ = stream_frame([vec![kind], rest].concat().into());
        }
    }
}
