//! The PostgreSQL server that sources read: a scripted write-ahead log and one slot.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use walferry_schema::{Change, Lsn, Relation, Row, RowOp, ServerIdentity};

use super::changes::{Changed, Changes};
use super::table::{SERVER_ID, row, table};
use super::{Document, Documents, locked};
use crate::{SlotState, SourceEvent, SourceTable};

/// A server with the tables that it was made with.
#[derive(Clone, Debug)]
pub struct FakeServer {
    state: Arc<Mutex<State>>,
    changes: Changes,
}

/// A change of a transaction, or what the server sends between two of them.
#[derive(Clone, Debug)]
pub enum FakeChange {
    /// Table, key, value.
    Insert(&'static str, i32, String),
    /// Table, key, value; an unchanged TOAST value when none.
    Update(&'static str, i32, Option<String>),
    /// Table, key.
    Delete(&'static str, i32),
    /// Table, old key, new key, value; an unchanged TOAST value when none.
    Rekey(&'static str, i32, i32, Option<String>),
    /// The tables.
    Truncate(Vec<&'static str>),
    /// A logical message of the transaction, by its prefix.
    Message(&'static str),
    /// A keepalive inside the transaction, far ahead of it; whether it wants an answer.
    Keepalive(bool),
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) server: ServerIdentity,
    pub(super) slot: Option<SlotState>,
    pub(super) tables: Vec<Arc<Relation>>,
    pub(super) keyless: Vec<&'static str>,
    pub(super) wal: Vec<Item>,
    /// Where the next record will stand.
    pub(super) insert_lsn: Lsn,
    /// Where the server says that its log ends, when that is not the truth of `wal`.
    pub(super) flush_lsn: Option<Lsn>,
    pub(super) chunk_rows: usize,
    /// The number of the newest link; the slot's owner if it is active.
    pub(super) links: u64,
    pub(super) owner: Option<u64>,
    pub(super) confirmations: Vec<Lsn>,
    /// How long a slot takes to be made: transactions that are open are waited for.
    pub(super) slot_takes: Duration,
    /// How often one was begun to be made.
    pub(super) slot_tries: u32,
    next_xid: u32,
}

/// A transaction or a keepalive of the write-ahead log.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Where it stands; for a transaction its commit record.
    pub(super) lsn: Lsn,
    pub(super) is_commit: bool,
    pub(super) events: Vec<SourceEvent>,
    changes: Vec<FakeChange>,
}

// === impl FakeServer: what a test sets up ===

impl FakeServer {
    /// A server with empty tables and no slot.
    pub fn new(tables: &[&'static str]) -> Self {
        let state = State {
            server: ServerIdentity {
                system_id: SERVER_ID.into(),
                timeline: 1,
            },
            slot: None,
            tables: tables.iter().map(|name| table(name)).collect(),
            keyless: Vec::new(),
            wal: Vec::new(),
            insert_lsn: Lsn(0x1000),
            flush_lsn: None,
            chunk_rows: 2,
            links: 0,
            owner: None,
            confirmations: Vec::new(),
            slot_takes: Duration::ZERO,
            slot_tries: 0,
            next_xid: 700,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            changes: Changes::default(),
        }
    }

    /// Commits a transaction: its commit LSN. The next one's commit LSN is this one's end LSN.
    pub fn commit(&self, changes: &[FakeChange]) -> Lsn {
        let mut state = self.lock();
        let (xid, commit_lsn) = (state.next_xid, state.insert_lsn);
        let end_lsn = Lsn(commit_lsn.0 + 0x30);
        let mut events = vec![SourceEvent::Begin {
            xid,
            commit_lsn,
            committed_at: 1_000_000,
        }];
        let mut ordinal = 0;
        for change in changes {
            let (event, used) = state.event(change, commit_lsn, ordinal);
            events.push(event);
            ordinal += used;
        }
        events.push(SourceEvent::Commit {
            commit_lsn,
            end_lsn,
        });
        let changes = changes.to_vec();
        state.wal.push(Item {
            lsn: commit_lsn,
            is_commit: true,
            events,
            changes,
        });
        state.insert_lsn = end_lsn;
        state.next_xid += 1;
        drop(state);
        self.changed();
        commit_lsn
    }

    /// Emits a logical message outside any transaction: its LSN.
    pub fn emit(&self, prefix: &str) -> Lsn {
        let mut state = self.lock();
        let lsn = state.insert_lsn;
        state.wal.push(Item {
            lsn,
            is_commit: false,
            events: vec![message(lsn, prefix, false)],
            changes: Vec::new(),
        });
        state.insert_lsn = Lsn(lsn.0 + 0x30);
        drop(state);
        self.changed();
        lsn
    }

    /// Writes log of no interest and says so: the keepalive's LSN.
    pub fn keepalive(&self, wants_reply: bool) -> Lsn {
        let mut state = self.lock();
        let lsn = Lsn(state.insert_lsn.0 + 0x100);
        let events = vec![SourceEvent::Keepalive { lsn, wants_reply }];
        state.wal.push(Item {
            lsn,
            is_commit: false,
            events,
            changes: Vec::new(),
        });
        state.insert_lsn = lsn;
        drop(state);
        self.changed();
        lsn
    }

    /// Breaks every link; the slot has no owner any more.
    pub fn break_links(&self) {
        let mut state = self.lock();
        state.links += 1;
        state.disown();
        drop(state);
        self.changed();
    }

    /// Drops the slot.
    pub fn drop_slot(&self) {
        self.lock().slot = None;
    }

    /// Makes the slot anew at the end of the log, as something else than walferry might.
    pub fn make_slot(&self) {
        let mut state = self.lock();
        let confirmed_lsn = state.insert_lsn;
        state.slot = Some(SlotState {
            confirmed_lsn,
            is_active: false,
            is_lost: false,
        });
    }

    /// Removes log that the slot still needed.
    pub fn lose_slot(&self) {
        if let Some(slot) = &mut self.lock().slot {
            slot.is_lost = true;
        }
    }

    /// Lets something else own the slot.
    pub fn take_slot(&self) {
        let mut state = self.lock();
        state.links += 1;
        state.owner = Some(state.links);
    }

    /// Moves to another server or timeline.
    pub fn become_server(&self, system_id: &str, timeline: u32) {
        self.lock().server = ServerIdentity {
            system_id: system_id.into(),
            timeline,
        };
    }

    /// Says that the log ends here, as a server restored from an older state would.
    pub fn set_flush_lsn(&self, lsn: Lsn) {
        self.lock().flush_lsn = Some(lsn);
    }

    /// How many rows a chunk of the snapshot holds.
    pub fn set_chunk_rows(&self, rows: usize) {
        self.lock().chunk_rows = rows;
    }

    /// Makes a table one without a key.
    pub fn drop_key(&self, table: &'static str) {
        self.lock().keyless.push(table);
    }

    /// Adds a table.
    pub fn add_table(&self, name: &str) {
        self.lock().tables.push(table(name));
    }

    /// Drops a table and makes another one of the same name.
    pub fn replace_table(&self, name: &str) {
        let mut state = self.lock();
        for relation in &mut state.tables {
            if &*relation.name.table == name {
                // Above every number that a name gives: no other table's.
                Arc::make_mut(relation).oid += 100_000;
            }
        }
    }
}

// === impl FakeServer: what a test asserts ===

impl FakeServer {
    /// Where the slot is confirmed to.
    pub fn confirmed(&self) -> Option<Lsn> {
        self.lock().slot.map(|slot| slot.confirmed_lsn)
    }

    /// Has slots take so long to be made.
    pub fn slot_takes(&self, time: Duration) {
        self.lock().slot_takes = time;
    }

    /// How often a slot was begun to be made.
    pub fn slot_tries(&self) -> u32 {
        self.lock().slot_tries
    }

    /// Every confirmation, oldest first.
    pub fn confirmations(&self) -> Vec<Lsn> {
        self.lock().confirmations.clone()
    }

    /// Where the log ends.
    pub fn end_lsn(&self) -> Lsn {
        self.lock().insert_lsn
    }

    /// Where a transaction ends.
    pub fn end_of(commit_lsn: Lsn) -> Lsn {
        Lsn(commit_lsn.0 + 0x30)
    }

    /// All commit LSNs, oldest first.
    pub fn commits(&self) -> Vec<Lsn> {
        self.lock()
            .wal
            .iter()
            .filter(|item| item.is_commit)
            .map(|item| item.lsn)
            .collect()
    }

    /// All rows as of a commit, that one included; tables without rows are left out.
    pub fn documents_at(&self, commit_lsn: Lsn) -> Documents {
        self.lock().documents_before(Lsn(commit_lsn.0 + 1))
    }

    /// All rows as of now.
    pub fn documents(&self) -> Documents {
        self.documents_at(self.end_lsn())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    pub(super) fn changes(&self) -> Changed {
        self.changes.subscribe()
    }

    pub(super) fn changed(&self) {
        self.changes.tell();
    }
}

// === impl State ===

impl State {
    pub(super) fn disown(&mut self) {
        self.owner = None;
    }

    /// The tables with their keys, in name order.
    pub(super) fn source_tables(&self) -> Vec<SourceTable> {
        let key = |name: &str| {
            if self.keyless.contains(&name) {
                Vec::new()
            } else {
                vec!["id".to_owned()]
            }
        };
        let table = |it: &Arc<Relation>| SourceTable {
            name: it.name.clone(),
            oid: it.oid,
            key: key(&it.name.table),
            deferrable_key: None,
        };
        let mut tables: Vec<_> = self.tables.iter().map(table).collect();
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        tables
    }

    pub(super) fn documents_before(&self, lsn: Lsn) -> Documents {
        let mut documents = Documents::new();
        for item in self
            .wal
            .iter()
            .filter(|item| item.is_commit && item.lsn < lsn)
        {
            item.changes
                .iter()
                .for_each(|change| change.apply(&mut documents));
        }
        documents.retain(|_, rows| !rows.is_empty());
        documents
    }

    pub(super) fn relation(&self, name: &str) -> Arc<Relation> {
        let known = self.tables.iter().find(|table| *table.name.table == *name);
        known.cloned().unwrap_or_else(|| table(name))
    }

    /// The event of a change, and how many ordinals it owns.
    fn event(&self, change: &FakeChange, commit_lsn: Lsn, ordinal: u64) -> (SourceEvent, u64) {
        let of = |name: &str, op| Change::Row {
            relation: self.relation(name),
            op,
        };
        let (change, used) = match change {
            FakeChange::Insert(name, id, value) => (
                of(
                    name,
                    RowOp::Insert {
                        new: row(*id, Some(value)),
                    },
                ),
                2,
            ),
            FakeChange::Update(name, id, value) => {
                let new = row(*id, value.as_deref());
                (of(name, RowOp::Update { old: None, new }), 2)
            }
            FakeChange::Delete(name, id) => (of(name, RowOp::Delete { old: key_row(*id) }), 2),
            FakeChange::Rekey(name, from, to, value) => {
                let (old, new) = (Some(key_row(*from)), row(*to, value.as_deref()));
                (of(name, RowOp::Update { old, new }), 2)
            }
            FakeChange::Truncate(names) => {
                let relations: Vec<_> = names.iter().map(|name| self.relation(name)).collect();
                let used = 2 * u64::try_from(relations.len()).unwrap_or_default();
                (Change::Truncate { relations }, used)
            }
            FakeChange::Message(prefix) => return (message(commit_lsn, prefix, true), 0),
            FakeChange::Keepalive(wants_reply) => {
                let lsn = Lsn(commit_lsn.0 + 0x30);
                return (
                    SourceEvent::Keepalive {
                        lsn,
                        wants_reply: *wants_reply,
                    },
                    0,
                );
            }
        };
        // A row's record may stand before earlier transactions' commits: transactions overlap.
        let lsn = Lsn(commit_lsn.0.saturating_sub(0x200) + ordinal);
        (
            SourceEvent::Change {
                lsn,
                ordinal,
                change,
            },
            used,
        )
    }
}

// === impl FakeChange ===

impl FakeChange {
    /// An insert.
    pub fn insert(table: &'static str, id: i32, value: &str) -> Self {
        Self::Insert(table, id, value.to_owned())
    }

    /// An update.
    pub fn update(table: &'static str, id: i32, value: &str) -> Self {
        Self::Update(table, id, Some(value.to_owned()))
    }

    fn apply(&self, documents: &mut Documents) {
        match self {
            Self::Insert(table, id, value) => put(documents, table, *id, Some(value)),
            Self::Update(table, id, value) => put(documents, table, *id, value.as_deref()),
            Self::Delete(table, id) => drop(take(documents, table, *id)),
            Self::Rekey(table, from, to, value) => {
                let old = take(documents, table, *from);
                let old = old.and_then(|mut document| document.remove("v"));
                put(documents, table, *to, value.as_deref().or(old.as_deref()));
            }
            Self::Truncate(tables) => tables.iter().for_each(|table| {
                documents.remove(*table);
            }),
            Self::Message(_) | Self::Keepalive(_) => {}
        }
    }
}

fn put(documents: &mut Documents, table: &str, id: i32, value: Option<&str>) {
    let rows = documents.entry(table.to_owned()).or_default();
    let document = rows.entry(id.to_string()).or_default();
    document.insert("id".into(), id.to_string());
    if let Some(value) = value {
        document.insert("v".into(), value.to_owned());
    }
}

fn take(documents: &mut Documents, table: &str, id: i32) -> Option<Document> {
    documents.get_mut(table)?.remove(&id.to_string())
}

fn message(lsn: Lsn, prefix: &str, is_transactional: bool) -> SourceEvent {
    SourceEvent::Message {
        lsn,
        is_transactional,
        prefix: prefix.to_owned(),
        content: prefix.to_uppercase().into(),
    }
}

fn key_row(id: i32) -> Row {
    Row::from_texts(&[Some(&id.to_string()), None])
}
