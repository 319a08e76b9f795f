//! The dead-letter topic: whole records that were too large for their own topics, in parts, and what MongoDB refused.
//!
//! - Where the parts of which record stand is noted while the topic is read; what was read is not read again for that.
//! - It is read from about when the change was committed on; all of it only where the record is not found there.
//! - A reader that begins again may send parts again: only a complete set of one writer is a record.
//! - A record that is not there any more, or not all of it, is none.

mod publisher;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, Headers as _};
use tokio::sync::Mutex;
use walferry_core::{
    Archive, Bounds, Fault, Fetching, PartitionOffset, Publishing, RefusedChange, WholeRecord,
};
use walferry_schema::header::{COLUMNS, PART, POSITION};
use walferry_schema::{Position, Stamp};

use crate::log_scan::LogScan;
use crate::{Error, Settings};
use publisher::Publisher;

/// How many records one look at the topic takes.
const LOOK: usize = 500;
/// How much PostgreSQL's clock may be ahead of Kafka's, which says when parts arrived; in milliseconds.
const SKEW: i64 = 3_600_000;

/// The dead-letter topic, read and written beside everything else.
pub struct KafkaDeadLetters {
    scan: LogScan,
    publisher: Publisher,
    name: PartitionOffset,
    index: Mutex<Index>,
}

/// Where the parts stand.
#[derive(Debug, Default)]
struct Index {
    /// From where on the topic was looked through.
    from: i64,
    /// Up to where the topic was looked through.
    next: i64,
    records: HashMap<Position, Vec<Parts>>,
}

/// The parts of a record as one term wrote them.
#[derive(Debug)]
struct Parts {
    term: i64,
    /// How many there are to be.
    count: usize,
    /// Where the first of them stand, in order.
    offsets: Vec<i64>,
}

/// What a message says of itself.
#[derive(Clone, Copy, Debug)]
struct Label {
    stamp: Stamp,
    /// From 1.
    number: usize,
    count: usize,
}

/// A part of a record's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordPart {
    /// The bytes of the header [`walferry_schema::header::COLUMNS`].
    pub columns: Bytes,
    /// The part.
    pub value: Bytes,
}

// === impl KafkaDeadLetters ===

impl KafkaDeadLetters {
    /// The topic in the cluster of these settings; connects to nothing yet.
    pub fn new(settings: Settings) -> Self {
        let topic: Arc<str> = settings.dead_letter().into();
        let settings = Arc::new(settings);
        Self {
            scan: LogScan::new(settings.clone(), topic.clone()),
            publisher: Publisher::new(settings, topic.clone()),
            name: PartitionOffset {
                topic,
                partition: 0,
            },
            index: Mutex::default(),
        }
    }

    /// Where the parts of a change's record stand, in order; none when they are not all there. When the change was
    /// committed, milliseconds since 1970, says where to begin to look.
    ///
    /// # Errors
    /// When Kafka cannot be asked.
    pub async fn find(
        &self,
        of: Position,
        committed_at: Option<i64>,
    ) -> Result<Option<Vec<i64>>, Fault> {
        let mut index = self.index.lock().await;
        let bounds = match self
            .scan
            .bounds(&self.name.topic, self.name.partition)
            .await
        {
            Err(Error::UnknownTopic { .. }) => return Ok(None),
            bounds => bounds?,
        };
        // Another topic of the same name.
        if bounds.end < index.next {
            *index = Index::default();
        }
        if let Some(committed_at) = committed_at.filter(|_| index.next == 0) {
            let from = self.scan.offset_at(&self.name, committed_at - SKEW).await?;
            *index = Index::beginning(from.unwrap_or(bounds.end));
        }
        self.look_through(&mut index, bounds).await?;
        let found = index.complete(of, bounds);
        if found.is_some() || index.from <= bounds.first {
            return Ok(found);
        }
        *index = Index::default();
        self.look_through(&mut index, bounds).await?;
        Ok(index.complete(of, bounds))
    }

    async fn look_through(&self, index: &mut Index, bounds: Bounds) -> Result<(), Error> {
        while index.next < bounds.end {
            let seen = self.look((index.next, LOOK)).await?;
            let Some((last, _)) = seen.last() else {
                break;
            };
            index.next = last + 1;
            for (offset, label) in seen {
                index.note(offset, label);
            }
        }
        Ok(())
    }

    /// The part at an offset, where it is one of a change's record; none when that is gone.
    ///
    /// # Errors
    /// When Kafka cannot be asked.
    pub async fn part(&self, of: Position, offset: i64) -> Result<Option<RecordPart>, Fault> {
        let read = move |message: &BorrowedMessage<'_>| {
            let (at, label) = label(message);
            let is_it = at == offset && label.is_some_and(|it| it.stamp.position() == of);
            let copied = |bytes: Option<&[u8]>| Bytes::copy_from_slice(bytes.unwrap_or_default());
            Ok(is_it.then(|| RecordPart {
                columns: copied(header(message, COLUMNS)),
                value: copied(message.payload()),
            }))
        };
        let read = self.scan.read_with(self.name.clone(), (offset, 1), read);
        Ok(read.await?.into_iter().flatten().next())
    }

    async fn look(&self, from: (i64, usize)) -> Result<Vec<(i64, Option<Label>)>, Error> {
        let read = |message: &BorrowedMessage<'_>| Ok(label(message));
        self.scan.read_with(self.name.clone(), from, read).await
    }

    async fn fetch(
        &self,
        of: Position,
        committed_at: Option<i64>,
    ) -> Result<Option<WholeRecord>, Fault> {
        let Some(offsets) = self.find(of, committed_at).await? else {
            return Ok(None);
        };
        let (mut columns, mut value) = (Bytes::new(), BytesMut::new());
        for offset in offsets {
            let Some(part) = self.part(of, offset).await? else {
                return Ok(None);
            };
            columns = part.columns;
            value.extend_from_slice(&part.value);
        }
        let value = value.freeze();
        Ok(Some(WholeRecord { columns, value }))
    }
}

impl Archive for KafkaDeadLetters {
    fn record(&self, of: Position, committed_at: Option<i64>) -> Fetching<'_> {
        Box::pin(self.fetch(of, committed_at))
    }

    fn publish(&self, refused: RefusedChange) -> Publishing<'_> {
        Box::pin(async move { Ok(self.publisher.publish(refused).await?) })
    }
}

impl fmt::Debug for KafkaDeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let looked_through = self.index.try_lock().map(|it| it.from..it.next).ok();
        f.debug_struct("KafkaDeadLetters")
            .field("topic", &self.name.topic)
            .field("looked_through", &looked_through)
            .finish_non_exhaustive()
    }
}

// === impl Index ===

impl Index {
    fn beginning(from: i64) -> Self {
        Self {
            from,
            next: from,
            ..Self::default()
        }
    }

    fn note(&mut self, offset: i64, label: Option<Label>) {
        let Some(Label {
            stamp,
            number,
            count,
        }) = label
        else {
            return;
        };
        let record = self.records.entry(stamp.position()).or_default();
        if number == 1 {
            record.push(Parts {
                term: stamp.term.number,
                count,
                offsets: Vec::new(),
            });
        }
        let is_its = |it: &&mut Parts| {
            it.term == stamp.term.number && it.count == count && it.offsets.len() + 1 == number
        };
        if let Some(parts) = record.iter_mut().rev().find(is_its) {
            parts.offsets.push(offset);
        }
    }

    /// The newest complete set of a record's parts, if all of it is still there.
    fn complete(&self, of: Position, bounds: Bounds) -> Option<Vec<i64>> {
        let is_there = |it: &&Parts| {
            let first = it.offsets.first();
            it.offsets.len() == it.count && first.is_some_and(|it| *it >= bounds.first)
        };
        let record = self.records.get(&of)?.iter();
        record.rev().find(is_there).map(|it| it.offsets.clone())
    }
}

/// What a message says of itself; none of one that is no part.
fn label(message: &BorrowedMessage<'_>) -> (i64, Option<Label>) {
    let text = |name| std::str::from_utf8(header(message, name)?).ok();
    let label = || {
        let (number, count) = text(PART)?.split_once('/')?;
        Some(Label {
            stamp: text(POSITION)?.parse().ok()?,
            number: number.parse().ok()?,
            count: count.parse().ok()?,
        })
    };
    (message.offset(), label())
}

fn header<'a>(message: &'a BorrowedMessage<'_>, name: &str) -> Option<&'a [u8]> {
    let mut headers = message.headers()?.iter();
    headers.find(|it| it.key == name)?.value
}

#[cfg(test)]
mod tests {
    use walferry_schema::{Lsn, Phase, Term};

    use super::*;

    fn label(term: i64, number: usize, count: usize) -> Label {
        let term = Term {
            generation: 7,
            number: term,
        };
        let stamp = Stamp {
            term,
            phase: Phase::Stream(Lsn(9)),
            ordinal: 1,
        };
        Label {
            stamp,
            number,
            count,
        }
    }

    fn found(labels: &[Label], first: i64) -> Option<Vec<i64>> {
        let mut index = Index::default();
        for (offset, label) in (10..).zip(labels) {
            index.note(offset, Some(*label));
            index.note(offset, None);
        }
        let end = 10 + i64::try_from(labels.len()).unwrap();
        let of = label(1, 1, 1).stamp.position();
        index.complete(of, Bounds { first, end })
    }

    #[test]
    fn only_all_parts_of_one_writer_are_a_record() {
        let whole = [label(1, 1, 2), label(1, 2, 2)];
        assert_eq!(found(&whole, 10), Some(vec![10, 11]));
        assert_eq!(found(&whole, 11), None, "the first of them is gone");
        assert_eq!(found(&whole[..1], 10), None);
        let mixed = [label(1, 1, 2), label(2, 2, 2)];
        assert_eq!(found(&mixed, 10), None);
    }

    #[test]
    fn what_was_sent_again_is_the_record_once_it_is_complete() {
        let again = [
            label(1, 1, 2),
            label(2, 1, 2),
            label(1, 2, 2),
            label(2, 2, 2),
            label(3, 1, 2),
        ];
        assert_eq!(found(&again, 10), Some(vec![11, 13]));
        let same = [label(1, 1, 2), label(1, 1, 2), label(1, 2, 2)];
        assert_eq!(found(&same, 10), Some(vec![11, 12]));
    }
}
