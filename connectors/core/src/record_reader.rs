//! The seam to topics that another engine writes.

use std::collections::BTreeMap;
use std::future::Future;

use bytes::Bytes;

use crate::{Bounds, Fault, PartitionOffset, TopicSpec};

/// Where rows are read that no commit log counts.
pub trait RecordReader: Send {
    /// The topics that are there now.
    fn topics(&mut self) -> impl Future<Output = Result<Vec<TopicSpec>, Fault>> + Send;

    /// What a partition holds now.
    fn bounds(
        &mut self,
        name: &PartitionOffset,
    ) -> impl Future<Output = Result<Bounds, Fault>> + Send;

    /// Reads these partitions from now on and no others, each from its offset.
    fn assign(
        &mut self,
        partitions: &BTreeMap<PartitionOffset, i64>,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// The next record of any partition; those of one partition come in order.
    ///
    /// # Errors
    /// Fatal when a partition no longer holds what comes next.
    ///
    /// # Cancel safety
    /// Cancel safe: no record is lost.
    fn next(&mut self) -> impl Future<Output = Result<ForeignRecord, Fault>> + Send;

    /// Publishes how far the sink has come, for ordinary lag tools; best effort, never awaited.
    fn publish_offsets(&mut self, partitions: &BTreeMap<PartitionOffset, i64>);
}

/// A record as another engine wrote it.
#[derive(Clone, Debug)]
pub struct ForeignRecord {
    /// Its partition.
    pub partition: PartitionOffset,
    /// Its offset there.
    pub offset: i64,
    /// The record's key.
    pub key: Option<Bytes>,
    /// The record's value; none for a tombstone.
    pub value: Option<Bytes>,
    /// The bytes of the header [`walferry_schema::header::OLD_KEY`].
    pub old_key: Option<Bytes>,
    /// Whether the record has the header [`walferry_schema::header::NEW_KEY`].
    pub has_new_key: bool,
}
