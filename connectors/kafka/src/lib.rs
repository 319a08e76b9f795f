//! Kafka as walferry's log: topics, the producer of row records and the commit log, and their
//! consumer.
//!
//! - A term has a producer of its own: what an older one still held cannot reach the next.
//! - Offsets are explicit everywhere; what is gone from Kafka is an error, never skipped.
//! - No librdkafka call that can block runs on a thread of the runtime.

mod access;
mod client;
mod consumer;
mod dead_letters;
mod diagnosis;
mod error;
mod examine;
mod foreign;
mod log_scan;
mod partitioner;
mod producer;
mod settings;
mod topics;
mod trail;

pub use consumer::KafkaLogReader;
pub use dead_letters::{KafkaDeadLetters, RecordPart};
pub use error::Error;
pub use examine::examine;
pub use foreign::KafkaRecordReader;
pub use partitioner::partition_of;
pub use producer::{Flow, KafkaLog};
pub use settings::{Compression, Settings};
pub use trail::RowMark;
