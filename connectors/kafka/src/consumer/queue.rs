//! The queue of one partition.
//!
//! - Every offset is given once, and never one below the next.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::Message;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::BorrowedMessage;
use tracing::debug;
use walferry_core::PartitionOffset;

use crate::Error;
use crate::client::{Consumer, Context};
use crate::error::{is_denied, is_passing, is_unknown_topic};

/// A partition's records, in order.
pub(crate) struct Queue {
    records: PartitionQueue<Context>,
    context: Arc<Context>,
    pub(crate) name: PartitionOffset,
    /// The next offset to give.
    pub(crate) next: i64,
}

// === impl Queue ===

impl Queue {
    pub(crate) fn split(
        consumer: &Arc<Consumer>,
        name: PartitionOffset,
        next: i64,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let records = consumer.split_partition_queue(&name.topic, name.partition);
        let mut records = records.ok_or(Error::NotAssigned)?;
        records.set_nonempty_callback(wake);
        let context = rdkafka::consumer::Consumer::client(&**consumer)
            .context()
            .clone();
        Ok(Self {
            records,
            context,
            name,
            next,
        })
    }

    /// The next record, as `read` makes it, if one is here.
    pub(crate) fn poll<T>(
        &mut self,
        read: impl FnOnce(&PartitionOffset, &BorrowedMessage<'_>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        loop {
            match self.records.poll(Duration::ZERO) {
                None => return Ok(None),
                // Fetched before a seek.
                Some(Ok(message)) if message.offset() < self.next => {}
                Some(Ok(message)) => {
                    let (value, next) = (read(&self.name, &message)?, message.offset() + 1);
                    self.context.works();
                    self.next = next;
                    return Ok(Some(value));
                }
                Some(Err(error)) => self.check(error)?,
            }
        }
    }

    /// Whether reading goes on after this error.
    fn check(&self, error: KafkaError) -> Result<(), Error> {
        let PartitionOffset { topic, partition } = &self.name;
        let (topic, partition, offset) = (topic.to_string(), *partition, self.next);
        match error.rdkafka_error_code() {
            _ if matches!(error, KafkaError::PartitionEOF(_)) => Ok(()),
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => Err(Error::OffsetOutOfRange {
                topic,
                partition,
                offset,
            }),
            Some(code) if is_unknown_topic(code) => Err(Error::UnknownTopic { topic, partition }),
            Some(code) if is_denied(code) => Err(Error::Denied {
                what: format!("topic {topic}"),
                source: code,
            }),
            Some(code) if is_passing(code) => {
                debug!(topic, partition, %error, "reading is interrupted");
                Ok(())
            }
            _ => Err(Error::Read {
                topic,
                partition,
                offset,
                source: error,
            }),
        }
    }
}
