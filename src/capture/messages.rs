//! Debezium's message topic `<prefix>.message`: what `pg_logical_emit_message` wrote, for consumers that wait for it.
//!
//! - A message is not counted in its transaction's `commit` record: the sink takes rows only.

use bytes::Bytes;
use walferry_core::TopicSpec;
use walferry_schema::Lsn;
use walferry_schema::envelope::{self, LogicalMessage, Op, Template};

use super::records::Context;

/// What the transaction topic calls the messages of a transaction.
pub(super) const COLLECTION: &str = "LOGICAL_DECODING_MESSAGE";

/// A logical message of the source.
#[derive(Debug)]
pub(super) struct Emitted {
    pub(super) lsn: Lsn,
    pub(super) is_transactional: bool,
    pub(super) prefix: String,
    pub(super) content: Bytes,
}

/// The message topic of a prefix.
pub(super) fn topic(prefix: &str) -> TopicSpec {
    TopicSpec {
        name: format!("{prefix}.message").into(),
        partitions: 1,
    }
}

// === impl Emitted ===

impl Emitted {
    /// Key and value of its record.
    pub(super) fn record(&self, template: &Template, context: &Context) -> (Vec<u8>, Vec<u8>) {
        let message = LogicalMessage {
            prefix: &self.prefix,
            content: &self.content,
        };
        let (mut key, mut value) = (Vec::new(), Vec::new());
        envelope::write_message_key(&mut key, template.modes, &message);
        envelope::write_message(&mut value, template, &context.meta(Op::Message), &message);
        (key, value)
    }
}
