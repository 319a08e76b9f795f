//! From a logical message to the JSON of its record.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::schemas;
use super::write::{write_source, write_transaction};
use super::{LogicalMessage, Meta, Op, Template, json};
use crate::{Modes, SchemaMode};

/// Appends the JSON of the record's key, `{"prefix":"foo"}`, to `out`.
pub fn write_message_key(out: &mut Vec<u8>, modes: Modes, message: &LogicalMessage<'_>) {
    let has_schema = modes.schemas != SchemaMode::None;
    if has_schema {
        out.extend_from_slice(&schemas::message_key());
    }
    out.extend_from_slice(b"{\"prefix\":");
    json::string(out, message.prefix);
    out.push(b'}');
    if has_schema {
        schemas::end(out);
    }
}

/// Appends the JSON of the record's value to `out`. Outside a transaction it names none.
pub fn write_message(
    out: &mut Vec<u8>,
    template: &Template,
    meta: &Meta<'_>,
    message: &LogicalMessage<'_>,
) {
    let has_schema = template.modes.schemas != SchemaMode::None;
    if has_schema {
        out.extend_from_slice(&schemas::message_value());
    }
    out.extend_from_slice(b"{\"op\":");
    json::string(out, Op::Message.name());
    out.extend_from_slice(b",\"ts_ms\":");
    json::integer(out, meta.processed_at.div_euclid(1_000_000));
    let xid = meta.transaction.map(|_| meta.xid);
    write_source(out, template, ("", ""), meta, xid);
    write_transaction(out, template, meta);
    out.extend_from_slice(b",\"message\":{\"prefix\":");
    json::string(out, message.prefix);
    out.extend_from_slice(b",\"content\":\"");
    // Base64 has no character that JSON would escape.
    out.extend_from_slice(STANDARD.encode(message.content).as_bytes());
    out.extend_from_slice(b"\"}}");
    if has_schema {
        schemas::end(out);
    }
}
