//! The messages of the output plugin `pgoutput`, `proto_version` 1.
//!
//! - Any bytes give a message or an error, never a panic.
//! - Texts of rows are not copied: a row holds the frame.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod cursor;
mod spooled;

use bytes::Bytes;
use walferry_schema::{Lsn, Row, RowBuilder};

use cursor::Cursor;

pub(crate) use spooled::{SpooledError, decode_spooled};

/// Microseconds from 1970, where walferry counts from, to 2000, where PostgreSQL does.
const EPOCH_2000_MICROS: i64 = 946_684_800_000_000;

/// One message of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A transaction begins.
    Begin {
        /// LSN of its commit record.
        commit_lsn: Lsn,
        /// Microseconds since 1970.
        committed_at: i64,
        /// Its id.
        xid: u32,
    },
    /// The transaction ends.
    Commit {
        /// LSN of the commit record.
        commit_lsn: Lsn,
        /// LSN after it.
        end_lsn: Lsn,
    },
    /// Where the transaction came from by replication.
    Origin {
        /// LSN of the commit there, zero when it is not known.
        commit_lsn: Lsn,
        /// The origin's name.
        name: String,
    },
    /// A table, before its first change and after every change of its definition.
    Relation(RelationMessage),
    /// A type that is not built in, before a relation that uses it.
    Type {
        /// Its object id.
        oid: u32,
        /// Its schema.
        schema: String,
        /// Its name.
        name: String,
    },
    /// A new row.
    Insert {
        /// The table.
        relation: u32,
        /// The row.
        new: Row,
    },
    /// A changed row.
    Update {
        /// The table.
        relation: u32,
        /// The old row, or its identity.
        old: Option<Row>,
        /// The new row.
        new: Row,
    },
    /// A removed row.
    Delete {
        /// The table.
        relation: u32,
        /// The old row, or its identity.
        old: Row,
    },
    /// Tables emptied together.
    Truncate {
        /// The tables.
        relations: Vec<u32>,
    },
    /// What `pg_logical_emit_message` wrote.
    Message {
        /// Whether it belongs to the transaction.
        is_transactional: bool,
        /// Where it stands.
        lsn: Lsn,
        /// Who it is for.
        prefix: String,
        /// What it says.
        content: Bytes,
    },
}

/// What the stream says of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationMessage {
    /// Its object id.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// `relreplident`: `d`, `n`, `f` or `i`.
    pub identity: u8,
    /// Its columns.
    pub columns: Vec<RelationColumn>,
}

/// What the stream says of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationColumn {
    /// Whether it is part of the replica identity.
    pub is_identity: bool,
    /// Its name.
    pub name: String,
    /// The type's object id.
    pub type_oid: u32,
    /// The type's modifier, -1 for none.
    pub type_modifier: i32,
}

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the message does.
    #[error("the message ends early")]
    Truncated,
    /// The message ends before the bytes do.
    #[error("{0} bytes follow the message")]
    Trailing(usize),
    /// A name is not in UTF-8.
    #[error("a name is not UTF-8")]
    NotUtf8,
    /// The first byte names no message of this protocol version.
    #[error("unknown message type {0:#04x}")]
    UnknownMessage(u8),
    /// A byte that should begin a tuple.
    #[error("unknown tuple type {0:#04x}")]
    UnknownTuple(u8),
    /// A byte that should begin a cell.
    #[error("unknown cell type {0:#04x}")]
    UnknownCell(u8),
    /// A cell in binary form, which was not asked for.
    #[error("a cell is in binary form")]
    BinaryCell,
    /// A byte that should be a replica identity.
    #[error("unknown replica identity {0:#04x}")]
    UnknownIdentity(u8),
    /// A number out of its range.
    #[error("a number is out of range")]
    OutOfRange,
}

/// Decodes one message, the content of one `XLogData`.
///
/// # Errors
/// When the bytes are not exactly one message of protocol version 1 with cells in text form.
pub fn decode(frame: Bytes) -> Result<Message, DecodeError> {
    let bytes = frame.clone();
    let mut cursor = Cursor::new(&bytes);
    let message = match cursor.u8()? {
        b'B' => begin(&mut cursor)?,
        b'C' => commit(&mut cursor)?,
        b'O' => origin(&mut cursor)?,
        b'R' => Message::Relation(relation(&mut cursor)?),
        b'Y' => Message::Type {
            oid: cursor.u32()?,
            schema: cursor.string()?,
            name: cursor.string()?,
        },
        b'I' => insert(&mut cursor, frame)?,
        b'U' => update(&mut cursor, frame)?,
        b'D' => delete(&mut cursor, frame)?,
        b'T' => truncate(&mut cursor)?,
        b'M' => logical_message(&mut cursor, &frame)?,
        other => return Err(DecodeError::UnknownMessage(other)),
    };
    cursor.finish()?;
    Ok(message)
}

fn begin(cursor: &mut Cursor<'_>) -> Result<Message, DecodeError> {
    let commit_lsn = cursor.lsn()?;
    let since_2000 = cursor.i64()?;
    let committed_at = since_2000
        .checked_add(EPOCH_2000_MICROS)
        .ok_or(DecodeError::OutOfRange)?;
    Ok(Message::Begin {
        commit_lsn,
        committed_at,
        xid: cursor.u32()?,
    })
}

fn commit(cursor: &mut Cursor<'_>) -> Result<Message, DecodeError> {
    let _flags = cursor.u8()?;
    let (commit_lsn, end_lsn) = (cursor.lsn()?, cursor.lsn()?);
    let _committed_at = cursor.i64()?;
    Ok(Message::Commit {
        commit_lsn,
        end_lsn,
    })
}

fn origin(cursor: &mut Cursor<'_>) -> Result<Message, DecodeError> {
    Ok(Message::Origin {
        commit_lsn: cursor.lsn()?,
        name: cursor.string()?,
    })
}

fn relation(cursor: &mut Cursor<'_>) -> Result<RelationMessage, DecodeError> {
    let (oid, schema, name) = (cursor.u32()?, cursor.string()?, cursor.string()?);
    let identity = cursor.u8()?;
    if !b"dnfi".contains(&identity) {
        return Err(DecodeError::UnknownIdentity(identity));
    }
    let count = cursor.u16()?;
    let columns = (0..count)
        .map(|_| column(cursor))
        .collect::<Result<_, _>>()?;
    // An empty schema is how the protocol writes `pg_catalog`.
    let schema = if schema.is_empty() {
        "pg_catalog".to_owned()
    } else {
        schema
    };
    Ok(RelationMessage {
        oid,
        schema,
        name,
        identity,
        columns,
    })
}

fn column(cursor: &mut Cursor<'_>) -> Result<RelationColumn, DecodeError> {
    Ok(RelationColumn {
        is_identity: cursor.u8()? & 1 == 1,
        name: cursor.string()?,
        type_oid: cursor.u32()?,
        type_modifier: cursor.i32()?,
    })
}

fn insert(cursor: &mut Cursor<'_>, frame: Bytes) -> Result<Message, DecodeError> {
    let relation = cursor.u32()?;
    match cursor.u8()? {
        b'N' => Ok(Message::Insert {
            relation,
            new: tuple(cursor, frame)?,
        }),
        other => Err(DecodeError::UnknownTuple(other)),
    }
}

fn update(cursor: &mut Cursor<'_>, frame: Bytes) -> Result<Message, DecodeError> {
    let relation = cursor.u32()?;
    let mut kind = cursor.u8()?;
    let old = match kind {
        b'K' | b'O' => {
            let old = tuple(cursor, frame.clone())?;
            kind = cursor.u8()?;
            Some(old)
        }
        _ => None,
    };
    match kind {
        b'N' => Ok(Message::Update {
            relation,
            old,
            new: tuple(cursor, frame)?,
        }),
        other => Err(DecodeError::UnknownTuple(other)),
    }
}

fn delete(cursor: &mut Cursor<'_>, frame: Bytes) -> Result<Message, DecodeError> {
    let relation = cursor.u32()?;
    match cursor.u8()? {
        b'K' | b'O' => Ok(Message::Delete {
            relation,
            old: tuple(cursor, frame)?,
        }),
        other => Err(DecodeError::UnknownTuple(other)),
    }
}

/// The cells; those outside a `K` tuple's identity are sent as nulls already.
fn tuple(cursor: &mut Cursor<'_>, frame: Bytes) -> Result<Row, DecodeError> {
    let count = cursor.u16()?;
    let mut row = RowBuilder::with_capacity(usize::from(count).min(cursor.remaining()));
    for _ in 0..count {
        match cursor.u8()? {
            b'n' => row.null(),
            b'u' => row.unchanged(),
            b't' => {
                let length = usize::try_from(cursor.u32()?).map_err(|_| DecodeError::OutOfRange)?;
                row.text(cursor.at(), length);
                cursor.skip(length)?;
            }
            b'b' => return Err(DecodeError::BinaryCell),
            other => return Err(DecodeError::UnknownCell(other)),
        }
    }
    Ok(row.build(frame))
}

fn truncate(cursor: &mut Cursor<'_>) -> Result<Message, DecodeError> {
    let count = cursor.u32()?;
    // CASCADE and RESTART IDENTITY: what they did is said by itself.
    let _options = cursor.u8()?;
    let relations = (0..count).map(|_| cursor.u32()).collect::<Result<_, _>>()?;
    Ok(Message::Truncate { relations })
}

fn logical_message(cursor: &mut Cursor<'_>, frame: &Bytes) -> Result<Message, DecodeError> {
    let is_transactional = cursor.u8()? & 1 == 1;
    let (lsn, prefix) = (cursor.lsn()?, cursor.string()?);
    let length = usize::try_from(cursor.u32()?).map_err(|_| DecodeError::OutOfRange)?;
    let content = frame.slice_ref(cursor.take(length)?);
    Ok(Message::Message {
        is_transactional,
        lsn,
        prefix,
        content,
    })
}

#[cfg(test)]
mod tests;
