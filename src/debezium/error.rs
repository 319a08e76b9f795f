//! What can be wrong with Debezium's records.

use walferry_core::{Class, Classify};
use walferry_schema::TableName;
use walferry_schema::envelope::EnvelopeError;

/// A record of Debezium's that cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum DebeziumError {
    /// It is not understood.
    #[error(
        "record {at} of table {table}: was it written by Debezium's PostgreSQL connector and Connect's JsonConverter?"
    )]
    Record {
        /// The table, or the topic while that is not known.
        table: String,
        /// Topic, partition and offset.
        at: String,
        /// What is wrong.
        source: EnvelopeError,
    },
    /// It lacks what its kind always has.
    #[error("record {at} of table {table}: {missing} is missing")]
    Missing {
        /// The table.
        table: TableName,
        /// Topic, partition and offset.
        at: String,
        /// What.
        missing: &'static str,
    },
    /// Half of a key change may be in the old partition, half in a new one.
    #[error(
        "topic {topic} had one partition and has {partitions} now: give it one again, or begin with an empty target"
    )]
    Grown {
        /// The topic.
        topic: String,
        /// How many it has.
        partitions: i32,
    },
    /// Its place among the other partitions' records matters, and is not known.
    #[error(
        "record {at} of table {table}: {what} in a topic of several partitions has no place among the records of the \
         others; let Debezium write the table to one partition, begin with an empty target"
    )]
    Unordered {
        /// The table.
        table: TableName,
        /// Topic, partition and offset.
        at: String,
        /// What it is.
        what: &'static str,
    },
}

impl Classify for DebeziumError {
    fn class(&self) -> Class {
        Class::Fatal
    }
}
