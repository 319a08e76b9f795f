//! Changes to records: key, envelope and headers, written into buffers that are used again.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

use walferry_core::{Fault, Log, Record};
use walferry_schema::envelope::{
    self, Before, EnvelopeError, Meta, Op, Origin, SnapshotMark, Template, TransactionMark,
};
use walferry_schema::{Lsn, Phase, ReplicaIdentity, Row, RowOp, Stamp, Term, header};

use super::left_out::LeftOut;
use super::tables::{Table, with_key_of};

/// The place of a row within its transaction or chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) term: Term,
    pub(super) phase: Phase,
    pub(super) ordinal: u64,
}

/// What all rows of a transaction or chunk share in their envelopes.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) committed_at: i64,
    pub(super) last_commit_lsn: Option<Lsn>,
    pub(super) lsn: Lsn,
    pub(super) xid: u32,
    pub(super) snapshot: SnapshotMark,
    pub(super) transaction: Option<TransactionMark>,
    pub(super) origin: Option<Arc<Origin>>,
    pub(super) processed_at: i64,
}

/// One record, in buffers that the next one reuses.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) stamp: String,
    pub(super) unchanged: Option<Vec<u8>>,
    pub(super) other_key: Option<(&'static str, Vec<u8>)>,
    /// What the record is too large with.
    pub(super) left_out: Option<Box<LeftOut>>,
    /// The header that says so.
    pub(super) oversize: Option<Vec<u8>>,
}

/// The records of one change: at most a delete, its tombstone and an insert.
#[derive(Debug)]
pub(super) struct Drafts {
    all: Vec<Draft>,
    used: usize,
    tombstones: bool,
}

// === impl Context ===

impl Context {
    /// What is about no transaction and no row; `committed_at` in microseconds since 1970.
    pub(super) fn alone(committed_at: i64) -> Self {
        Self {
            committed_at,
            last_commit_lsn: None,
            lsn: Lsn::ZERO,
            xid: 0,
            snapshot: SnapshotMark::False,
            transaction: None,
            origin: None,
            processed_at: 0,
        }
    }

    pub(super) fn meta(&self, op: Op) -> Meta<'_> {
        Meta {
            op,
            snapshot: self.snapshot,
            committed_at: self.committed_at,
            last_commit_lsn: self.last_commit_lsn,
            lsn: self.lsn,
            xid: self.xid,
            transaction: self.transaction,
            origin: self.origin.as_deref(),
            processed_at: self.processed_at,
        }
    }
}

// === impl Draft ===

impl Draft {
    /// The record's headers, and how many of the array are in use.
    pub(super) fn headers<'a>(&'a self, table: &'a Table) -> ([(&'a str, &'a [u8]); 5], usize) {
        let mut headers: [(&str, &[u8]); 5] = [
            (header::POSITION, self.stamp.as_bytes()),
            (header::COLUMNS, &table.columns),
            ("", &[]),
            ("", &[]),
            ("", &[]),
        ];
        let unchanged = self
            .unchanged
            .as_deref()
            .map(|names| (header::UNCHANGED, names));
        let oversize = self
            .oversize
            .as_deref()
            .map(|oversize| (header::OVERSIZE, oversize));
        let other_key = self
            .other_key
            .as_ref()
            .map(|(name, key)| (*name, key.as_slice()));
        let mut used = 2;
        for header in [unchanged, oversize, other_key].into_iter().flatten() {
            headers[used] = header;
            used += 1;
        }
        (headers, used)
    }

    fn clear(&mut self, place: Place) {
        self.stamp.clear();
        let stamp = Stamp {
            term: place.term,
            phase: place.phase,
            ordinal: place.ordinal,
        };
        write!(self.stamp, "{stamp}").expect("writing to a string does not fail");
        self.unchanged = None;
        self.other_key = None;
        self.left_out = None;
        self.oversize = None;
        self.key.get_or_insert_default().clear();
        self.value.get_or_insert_default().clear();
    }
}

// === impl Drafts ===

impl Drafts {
    /// No records yet; deletes are followed by a tombstone when `tombstones` says so.
    pub(super) fn new(tombstones: bool) -> Self {
        Self {
            all: Vec::new(),
            used: 0,
            tombstones,
        }
    }

    /// The records that were written last.
    pub(super) fn records(&self) -> &[Draft] {
        &self.all[..self.used]
    }

    /// The same, to be changed.
    pub(super) fn records_mut(&mut self) -> &mut [Draft] {
        &mut self.all[..self.used]
    }

    /// Why the log would not take one of them for its size, if that is so.
    pub(super) fn too_large<L: Log>(&self, log: &L, table: &Table) -> Option<Fault> {
        self.records().iter().find_map(|draft| {
            let (headers, used) = draft.headers(table);
            let record = Record {
                topic: &table.topic,
                key: draft.key.as_deref(),
                value: draft.value.as_deref(),
                timestamp: 0,
                headers: &headers[..used],
            };
            log.check_row(&record).err()
        })
    }

    /// Writes the records of a row's change; `place.ordinal` is the first of its two ordinals.
    pub(super) fn write_row(
        &mut self,
        template: &Template,
        table: &Table,
        place: Place,
        context: &Context,
        op: &RowOp,
    ) -> Result<(), EnvelopeError> {
        self.used = 0;
        let rest = Place {
            ordinal: place.ordinal + 1,
            ..place
        };
        match op {
            RowOp::Insert { new } => self.write_image(
                template,
                table,
                rest,
                context,
                Op::Create,
                (Before::None, new),
            ),
            RowOp::Delete { old } => {
                self.write_delete(template, table, place, context, old)?;
                self.write_tombstone(place);
                Ok(())
            }
            RowOp::Update {
                old: Some(old),
                new,
            } if table.changes_key(old, new) => {
                self.write_key_change(template, table, place, context, (old, new))
            }
            RowOp::Update { old, new } => {
                let before = match old {
                    Some(old) if table.relation.identity == ReplicaIdentity::Full => {
                        Before::Full(old)
                    }
                    _ => Before::None,
                };
                let new = match old {
                    Some(old) => with_key_of(old, new, &table.key),
                    None => Cow::Borrowed(new),
                };
                self.write_image(template, table, rest, context, Op::Update, (before, &new))
            }
        }
    }

    /// Writes the record of a snapshot row.
    pub(super) fn write_read(
        &mut self,
        template: &Template,
        table: &Table,
        place: Place,
        context: &Context,
        row: &Row,
    ) -> Result<(), EnvelopeError> {
        self.used = 0;
        self.write_image(
            template,
            table,
            place,
            context,
            Op::Read,
            (Before::None, row),
        )
    }

    /// Writes the record of a truncate.
    pub(super) fn write_truncate(
        &mut self,
        template: &Template,
        table: &Table,
        place: Place,
        context: &Context,
    ) -> Result<(), EnvelopeError> {
        self.used = 0;
        let draft = self.next(place);
        draft.key = None;
        let value = draft.value.get_or_insert_default();
        let meta = context.meta(Op::Truncate);
        envelope::write_value(value, template, table.version(), &meta, Before::None, None)
    }

    fn write_key_change(
        &mut self,
        template: &Template,
        table: &Table,
        place: Place,
        context: &Context,
        (old, new): (&Row, &Row),
    ) -> Result<(), EnvelopeError> {
        let new = &with_key_of(old, new, &table.key);
        let (mut old_key, mut new_key) = (Vec::new(), Vec::new());
        envelope::write_key(&mut old_key, &*table.relation, template.modes, old)?;
        envelope::write_key(&mut new_key, &*table.relation, template.modes, new)?;
        let unchanged = envelope::unchanged_names(&table.relation, new);

        let delete = self.write_delete(template, table, place, context, old)?;
        delete.other_key = Some((header::NEW_KEY, new_key));
        delete.unchanged = unchanged;
        self.write_tombstone(place);
        let rest = Place {
            ordinal: place.ordinal + 1,
            ..place
        };
        let next = context.transaction.map(|mark| TransactionMark {
            total_order: mark.total_order + 1,
            data_collection_order: mark.data_collection_order + 1,
            ..mark
        });
        let context = Context {
            transaction: next,
            ..context.clone()
        };
        self.write_image(
            template,
            table,
            rest,
            &context,
            Op::Create,
            (Before::None, new),
        )?;
        self.all[self.used - 1].other_key = Some((header::OLD_KEY, old_key));
        Ok(())
    }

    fn write_image(
        &mut self,
        template: &Template,
        table: &Table,
        place: Place,
        context: &Context,
        op: Op,
        (before, after): (Before<'_>, &Row),
    ) -> Result<(), EnvelopeError> {
        let draft = self.next(place);
        draft.unchanged = envelope::unchanged_names(&table.relation, after);
        let key = draft.key.get_or_insert_default();
        envelope::write_key(key, table.version(), template.modes, after)?;
        let value = draft.value.get_or_insert_default();
        let meta = context.meta(op);
        envelope::write_value(value, template, table.version(), &meta, before, Some(after))?;
        draft.left_out = LeftOut::of(template, table, &meta, before, Some(after))?;
        Ok(())
    }

    fn write_delete(
        &mut self,
        template: &Template,
        table: &Table,
        place: Place,
        context: &Context,
        old: &Row,
    ) -> Result<&mut Draft, EnvelopeError> {
        let draft = self.next(place);
        let key = draft.key.get_or_insert_default();
        envelope::write_key(key, table.version(), template.modes, old)?;
        let value = draft.value.get_or_insert_default();
        let (meta, before) = (context.meta(Op::Delete), table.before(old));
        envelope::write_value(value, template, table.version(), &meta, before, None)?;
        draft.left_out = LeftOut::of(template, table, &meta, before, None)?;
        Ok(draft)
    }

    /// The tombstone of the delete that was written just before.
    fn write_tombstone(&mut self, place: Place) {
        if !self.tombstones {
            return;
        }
        let key = self.all[self.used - 1].key.clone();
        let draft = self.next(place);
        draft.key = key;
        draft.value = None;
    }

    fn next(&mut self, place: Place) -> &mut Draft {
        if self.used == self.all.len() {
            self.all.push(Draft::default());
        }
        let draft = &mut self.all[self.used];
        self.used += 1;
        draft.clear(place);
        draft
    }
}
