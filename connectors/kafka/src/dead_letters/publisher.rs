//! What MongoDB refused, written to the dead-letter topic in parts.
//!
//! - The topic and the producer are made when they are first needed, and anew after an error: a producer that failed for
//!   good would fail for ever.
//! - Parts have no header [`walferry_schema::header::POSITION`]: they are no record that a retry could fetch.

use std::ops::RangeInclusive;
use std::sync::Arc;

use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use tokio::sync::Mutex;
use walferry_core::{Pace, RefusedChange, TopicSpec};
use walferry_schema::header::{ERROR, LETTER, PART, TABLE};

use crate::client::{Context, blocking};
use crate::producer::owned_headers;
use crate::settings::{BATCH_OVERHEAD_BYTES, create};
use crate::{Error, Settings, topics};

/// A part is at most so large, also where the topic takes larger records; and at least so large as is worth a record.
const PART_BYTES: RangeInclusive<usize> = 4 << 10..=1 << 20;
/// What a server says of a refusal may name the value of an index, of any length.
const ERROR_CHARACTERS: usize = 4_000;

pub(super) struct Publisher {
    settings: Arc<Settings>,
    topic: Arc<str>,
    open: Mutex<Option<Open>>,
}

struct Open {
    producer: FutureProducer<Context>,
    largest_bytes: usize,
}

// === impl Publisher ===

impl Publisher {
    pub(super) fn new(settings: Arc<Settings>, topic: Arc<str>) -> Self {
        Self {
            settings,
            topic,
            open: Mutex::default(),
        }
    }

    /// Writes a change in parts; done when the brokers have acknowledged all of them.
    pub(super) async fn publish(&self, mut refused: RefusedChange) -> Result<(), Error> {
        if let Some((end, _)) = refused.error.char_indices().nth(ERROR_CHARACTERS) {
            refused.error.truncate(end);
        }
        let mut open = self.open.lock().await;
        let used = match open.take() {
            Some(open) => open,
            None => self.open().await?,
        };
        used.publish(&self.topic, &refused).await?;
        *open = Some(used);
        Ok(())
    }

    async fn open(&self) -> Result<Open, Error> {
        let topic = TopicSpec {
            name: self.topic.clone(),
            partitions: 1,
        };
        let limits = topics::ensure(&self.settings, &[topic]).await?;
        let limit = limits.get(&self.topic).copied();
        let config = self.settings.producer(Pace::Prompt, limit)?;
        let make = move || create(&config, Context::new("dead letters"));
        let largest_bytes = limit.unwrap_or(usize::MAX);
        Ok(Open {
            producer: blocking(make).await?,
            largest_bytes: largest_bytes.min(self.settings.max_record_bytes),
        })
    }
}

// === impl Open ===

impl Open {
    async fn publish(&self, topic: &str, refused: &RefusedChange) -> Result<(), Error> {
        let parts = refused.value.chunks(self.part_bytes(refused));
        let count = parts.len();
        for (at, part) in parts.enumerate() {
            let label = format!("{}/{count}", at + 1);
            self.send(topic, refused, &label, part).await?;
        }
        Ok(())
    }

    /// How much of a change goes with one record.
    fn part_bytes(&self, refused: &RefusedChange) -> usize {
        let texts = [&refused.letter, &refused.table, &refused.error].map(String::len);
        let around = texts.iter().sum::<usize>() + refused.key.len() + BATCH_OVERHEAD_BYTES;
        let room = self.largest_bytes.saturating_sub(around);
        room.clamp(*PART_BYTES.start(), *PART_BYTES.end())
    }

    async fn send(
        &self,
        topic: &str,
        refused: &RefusedChange,
        label: &str,
        part: &[u8],
    ) -> Result<(), Error> {
        let headers = [
            (LETTER, refused.letter.as_bytes()),
            (TABLE, refused.table.as_bytes()),
            (PART, label.as_bytes()),
            (ERROR, refused.error.as_bytes()),
        ];
        let record = FutureRecord::to(topic)
            .partition(0)
            .key(&refused.key)
            .payload(part)
            .headers(owned_headers(&headers));
        let sent = self.producer.send(record, Timeout::Never).await;
        sent.map_err(|(error, _)| Error::delivery(topic, part.len(), error))?;
        Ok(())
    }
}
