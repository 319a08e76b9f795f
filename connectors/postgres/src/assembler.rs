//! Messages of the output plugin become the engine's events.
//!
//! - Every row owns two ordinals, every relation of a truncate too, counted before any filter (protocol rule 2).
//! - A relation that did not change stays the same `Arc`.
//! - A change outside a transaction, or of a relation that was not described, is an error that names its LSN.

use std::collections::HashMap;
use std::sync::Arc;

use walferry_core::SourceEvent;
use walferry_schema::envelope::Origin;
use walferry_schema::{Cell, Change, Lsn, Relation, ReplicaIdentity, Row, RowOp, TableName, Value};

use crate::catalog::{Catalog, type_without_asking};
use crate::error::{Error, Result};
use crate::key::{self, Keys};
use crate::large::with_key;
use crate::pgoutput::{Message, RelationColumn, RelationMessage};

/// The state of one stream.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    relations: HashMap<u32, Arc<Relation>>,
    transaction: Option<Transaction>,
}

#[derive(Debug)]
struct Transaction {
    commit_lsn: Lsn,
    /// How many rows came so far: the `k` of the protocol's rule 2.
    rows: u64,
}

// === impl Assembler ===

impl Assembler {
    /// Takes the next message, other than a Relation: the event that it is, if it is one.
    pub(crate) fn accept(&mut self, lsn: Lsn, message: Message) -> Result<Option<SourceEvent>> {
        match message {
            Message::Begin {
                commit_lsn,
                committed_at,
                xid,
            } => {
                self.begin(lsn, commit_lsn)?;
                Ok(Some(SourceEvent::Begin {
                    xid,
                    commit_lsn,
                    committed_at,
                }))
            }
            Message::Commit {
                commit_lsn,
                end_lsn,
            } => {
                self.end(lsn, commit_lsn)?;
                Ok(Some(SourceEvent::Commit {
                    commit_lsn,
                    end_lsn,
                }))
            }
            Message::Insert { relation, new } => self.row(lsn, relation, RowOp::Insert { new }),
            Message::Update { relation, old, new } => {
                self.row(lsn, relation, RowOp::Update { old, new })
            }
            Message::Delete { relation, old } => self.row(lsn, relation, RowOp::Delete { old }),
            Message::Truncate { relations } => self.truncate(lsn, &relations),
            Message::Message {
                is_transactional,
                lsn,
                prefix,
                content,
            } => {
                if is_transactional && self.transaction.is_none() {
                    return Err(Error::Order {
                        lsn,
                        what: "a transactional message outside a transaction",
                    });
                }
                Ok(Some(SourceEvent::Message {
                    lsn,
                    is_transactional,
                    prefix,
                    content,
                }))
            }
            Message::Origin { commit_lsn, name } => {
                if self.transaction.is_none() {
                    return Err(Error::Order {
                        lsn,
                        what: "an origin outside a transaction",
                    });
                }
                Ok(Some(SourceEvent::Origin(Origin {
                    name: name.into(),
                    // A transaction that is sent in progress has none yet.
                    lsn: Some(commit_lsn).filter(|lsn| *lsn > Lsn::ZERO),
                })))
            }
            Message::Relation(_) | Message::Type { .. } => Ok(None),
        }
    }

    /// Takes a version of a table; changes that follow belong to it.
    pub(crate) fn describe(&mut self, relation: Relation) {
        let known = self.relations.get(&relation.oid);
        if known.is_none_or(|known| **known != relation) {
            self.relations.insert(relation.oid, Arc::new(relation));
        }
    }

    /// Whether the composites in a row have the parts that their types have as far as is known.
    pub(crate) fn fits(&self, oid: u32, row: &Row) -> bool {
        let Some(relation) = self.relations.get(&oid) else {
            return true;
        };
        let cells = relation.columns.iter().zip(row.cells());
        let mut composites = cells.filter(|(column, _)| column.kind.has_composite());
        composites.all(|(column, cell)| match cell {
            Cell::Text(text) => {
                Value::from_text(&column.kind, text).is_ok_and(|value| value.is_whole(&column.kind))
            }
            Cell::Null | Cell::Unchanged | Cell::Large(_) => true,
        })
    }

    fn begin(&mut self, lsn: Lsn, commit_lsn: Lsn) -> Result<()> {
        if self.transaction.is_some() {
            return Err(Error::Order {
                lsn,
                what: "a transaction begins inside another",
            });
        }
        self.transaction = Some(Transaction {
            commit_lsn,
            rows: 0,
        });
        Ok(())
    }

    fn end(&mut self, lsn: Lsn, commit_lsn: Lsn) -> Result<()> {
        match self.transaction.take() {
            Some(open) if open.commit_lsn == commit_lsn => Ok(()),
            Some(_) => Err(Error::Order {
                lsn,
                what: "a commit of another transaction",
            }),
            None => Err(Error::Order {
                lsn,
                what: "a commit outside a transaction",
            }),
        }
    }

    fn row(&mut self, lsn: Lsn, oid: u32, op: RowOp) -> Result<Option<SourceEvent>> {
        let ordinal = self.count(lsn, 1)?;
        let relation = self.relation(lsn, oid)?;
        let op = with_key(op, &relation).map_err(Error::io("reading the key of a spooled row"))?;
        let rows = match &op {
            RowOp::Insert { new } => [Some(new), None],
            RowOp::Update { old, new } => [Some(new), old.as_ref()],
            RowOp::Delete { old } => [Some(old), None],
        };
        rows.into_iter()
            .flatten()
            .try_for_each(|row| fits(lsn, &relation, row))?;
        Ok(Some(SourceEvent::Change {
            lsn,
            ordinal,
            change: Change::Row { relation, op },
        }))
    }

    fn truncate(&mut self, lsn: Lsn, oids: &[u32]) -> Result<Option<SourceEvent>> {
        let ordinal = self.count(lsn, oids.len() as u64)?;
        let relations = oids
            .iter()
            .map(|oid| self.relation(lsn, *oid))
            .collect::<Result<_>>()?;
        Ok(Some(SourceEvent::Change {
            lsn,
            ordinal,
            change: Change::Truncate { relations },
        }))
    }

    /// Counts rows of the open transaction: the first ordinal that they own.
    fn count(&mut self, lsn: Lsn, rows: u64) -> Result<u64> {
        let outside = Error::Order {
            lsn,
            what: "a change outside a transaction",
        };
        let open = self.transaction.as_mut().ok_or(outside)?;
        let ordinal = open.rows.saturating_mul(2);
        open.rows = open.rows.saturating_add(rows);
        Ok(ordinal)
    }

    fn relation(&self, lsn: Lsn, oid: u32) -> Result<Arc<Relation>> {
        self.relations
            .get(&oid)
            .cloned()
            .ok_or(Error::UnknownRelation { lsn, oid })
    }
}

fn fits(lsn: Lsn, relation: &Relation, row: &Row) -> Result<()> {
    let (found, expected) = (row.len(), relation.columns.len());
    if found == expected {
        return Ok(());
    }
    Err(Error::CellCount {
        lsn,
        table: relation.name.clone(),
        found,
        expected,
    })
}

/// The version of a table that a message describes; `None` when the catalog must learn its types first.
///
/// A table without a recorded key is not captured: nothing is asked for it.
///
/// # Errors
/// Fatal when the table lacks a column of its recorded key, or its replica identity does.
pub(crate) fn relation(
    lsn: Lsn,
    message: &RelationMessage,
    keys: &Keys,
    catalog: &Catalog,
) -> Result<Option<Relation>> {
    let name = TableName::new(message.schema.as_str(), message.name.as_str());
    let identity = identity(message.identity);
    let key = keys.get(&name);
    let column = |column: &RelationColumn| {
        let (oid, modifier) = (column.type_oid, column.type_modifier);
        let column_type = match key {
            Some(_) => catalog.column_type(oid, modifier)?,
            None => type_without_asking(oid, modifier),
        };
        Some(column_type.column(&column.name))
    };
    let Some(mut columns) = message
        .columns
        .iter()
        .map(column)
        .collect::<Option<Vec<_>>>()
    else {
        return Ok(None);
    };
    if let Some(key) = key {
        let missing = |column: &str| Error::KeyColumnMissing {
            table: name.clone(),
            column: column.to_owned(),
            lsn,
        };
        key::number(&mut columns, key).map_err(missing)?;
        is_covered(lsn, &name, identity, message, key)?;
    }
    Ok(Some(Relation {
        oid: message.oid,
        name,
        identity,
        columns: columns.into(),
    }))
}

/// The types of a relation's columns.
pub(crate) fn types(message: &RelationMessage) -> Vec<(u32, i32)> {
    message
        .columns
        .iter()
        .map(|column| (column.type_oid, column.type_modifier))
        .collect()
}

/// Whether old rows carry the whole key. Under NOTHING there are none, and inserts need none.
fn is_covered(
    lsn: Lsn,
    table: &TableName,
    identity: ReplicaIdentity,
    message: &RelationMessage,
    key: &[String],
) -> Result<()> {
    if identity == ReplicaIdentity::Nothing {
        return Ok(());
    }
    let carries = |name: &&String| {
        message
            .columns
            .iter()
            .any(|c| c.is_identity && c.name == **name)
    };
    match key.iter().find(|name| !carries(name)) {
        None => Ok(()),
        Some(column) => Err(Error::KeyNotInIdentity {
            table: table.clone(),
            column: column.clone(),
            lsn,
        }),
    }
}

fn identity(code: u8) -> ReplicaIdentity {
    match code {
        b'n' => ReplicaIdentity::Nothing,
        b'f' => ReplicaIdentity::Full,
        b'i' => ReplicaIdentity::Index,
        _ => ReplicaIdentity::Default,
    }
}

#[cfg(test)]
mod tests;
