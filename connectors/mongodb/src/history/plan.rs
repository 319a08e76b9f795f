//! What a table's changes come to: versions that end, and versions that begin.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::{History, Moment, Put, What, name};
use walferry_schema::envelope::Op;

use crate::bson_value::element::{self, Elements, kind};
use crate::document::{append_id_as, show_id};
use crate::{Error, Result, identity};

/// The elements of the current versions that stand, by the identities of their rows' keys.
pub(crate) type Stored = HashMap<Vec<u8>, Vec<u8>>;

/// What is to be written, the steps before the versions.
#[derive(Debug, Default)]
pub(crate) struct Plan<'a> {
    pub(crate) steps: Vec<Step<'a>>,
    pub(crate) versions: Vec<Version<'a>>,
}

/// What becomes of versions that stand.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// The current one of a row ends.
    Close(&'a [u8], End),
    /// All current ones end.
    Empty(End),
}

/// A version that begins, and may end with the same group.
#[derive(Debug)]
pub(crate) struct Version<'a> {
    key: &'a [u8],
    elements: Vec<u8>,
    begin: End,
    end: Option<End>,
}

/// When a version begins or ends, and by what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    moment: Moment,
    op: Op,
}

/// Goes through the changes in order.
struct Planner<'a> {
    history: &'a History,
    stored: &'a Stored,
    /// Whether there may be a current version of a row that is new.
    is_repair: bool,
    /// The versions of this group that are current, by the identities of their rows' keys.
    open: HashMap<Cow<'a, [u8]>, usize>,
    plan: Plan<'a>,
}

// === impl History ===

impl History {
    /// The rows whose current versions have to be known.
    pub(crate) fn wanted(&self) -> HashSet<&[u8]> {
        let (mut known, mut wanted) = (HashSet::new(), HashSet::new());
        for change in &self.changes {
            match &change.what {
                What::Put(put) => {
                    let key = put.key.of(&self.arena);
                    let before = put.from.map_or(key, |from| from.of(&self.arena));
                    if put.fields.is_some() && !known.contains(&*identity(before)) {
                        wanted.insert(before);
                    }
                    known.insert(identity(key));
                }
                What::Gone(_) | What::Emptied => {}
            }
        }
        wanted
    }

    /// What the changes come to.
    ///
    /// # Errors
    /// Fatal when a row that is known in part has no version that knows the rest.
    pub(crate) fn plan<'a>(&'a self, stored: &'a Stored, is_repair: bool) -> Result<Plan<'a>> {
        let mut planner = Planner {
            history: self,
            stored,
            is_repair,
            open: HashMap::new(),
            plan: Plan::default(),
        };
        for change in &self.changes {
            let (moment, op) = (change.moment, change.op);
            planner.change(End { moment, op }, &change.what)?;
        }
        Ok(planner.plan)
    }
}

// === impl Planner ===

impl<'a> Planner<'a> {
    fn change(&mut self, end: End, what: &'a What) -> Result<()> {
        match what {
            What::Put(put) => self.put(end, put)?,
            What::Gone(key) => self.close(key.of(&self.history.arena), end, true),
            What::Emptied => {
                for (_, at) in self.open.drain() {
                    self.plan.versions[at].end = Some(end);
                }
                self.plan.steps.push(Step::Empty(end));
            }
        }
        Ok(())
    }

    fn put(&mut self, begin: End, put: &'a Put) -> Result<()> {
        let arena = &self.history.arena;
        let key = put.key.of(arena);
        let before = put.from.map_or(key, |from| from.of(arena));
        let elements = self.whole(before, put, begin.moment)?;
        self.close(before, begin, put.ends_another || self.is_repair);
        if identity(before) != identity(key) && self.is_repair {
            self.close(key, begin, true);
        }
        self.open.insert(identity(key), self.plan.versions.len());
        self.plan.versions.push(Version {
            key,
            elements,
            begin,
            end: None,
        });
        Ok(())
    }

    /// Ends the current version of a row: the one of this group, else the one that stands, where there may be one.
    fn close(&mut self, key: &'a [u8], end: End, may_stand: bool) {
        if let Some(at) = self.open.remove(&*identity(key)) {
            self.plan.versions[at].end = Some(end);
        } else if may_stand {
            self.plan.steps.push(Step::Close(key, end));
        }
    }

    /// The whole row: what the change left as it was comes from the version before.
    fn whole(&self, before: &[u8], put: &Put, moment: Moment) -> Result<Vec<u8>> {
        let elements = put.elements.of(&self.history.arena);
        let Some(fields) = &put.fields else {
            return Ok(elements.to_vec());
        };
        let row = identity(before);
        let carried = match self.open.get(&*row) {
            Some(&at) => &self.plan.versions[at].elements,
            None => self.stored.get(&*row).map_or(&[][..], |it| it),
        };
        let known: Vec<_> = Elements::new(elements).collect();
        let carried: Vec<_> = Elements::new(carried).collect();
        let mut whole = Vec::with_capacity(elements.len());
        for field in fields {
            let mut candidates = known.iter().chain(&carried);
            match candidates.find(|it| it.name == field.as_bytes()) {
                Some(found) => whole.extend_from_slice(found.bytes),
                None => {
                    return Err(Error::VersionLost {
                        table: self.history.table.clone(),
                        key: show_id(before),
                        position: moment.position,
                        field: field.clone(),
                    });
                }
            }
        }
        Ok(whole)
    }
}

// === impl Version ===

impl Version<'_> {
    /// About how many bytes its document has.
    pub(crate) fn bytes(&self) -> usize {
        self.elements.len() + 2 * self.key.len() + super::VERSION_BYTES
    }

    /// Appends the elements of its document.
    pub(crate) fn append(&self, out: &mut Vec<u8>) {
        let moment = &self.begin.moment;
        let id = element::open_document(out, "_id");
        append_id_as(out, "row", self.key);
        let generation = moment.position.generation.cast_signed();
        element::int64(out, "generation", generation);
        element::int64(out, "lsn", moment.lsn());
        element::int64(out, "ordinal", moment.position.ordinal.cast_signed());
        if let Some(epoch) = moment.epoch {
            element::int64(out, "epoch", epoch);
        }
        element::close(out, id);
        out.extend_from_slice(&self.elements);
        element::date(out, name::VALID_FROM, moment.at);
        match &self.end {
            Some(end) => element::date(out, name::VALID_TO, end.moment.at),
            None => element::header(out, kind::NULL, name::VALID_TO),
        }
        element::boolean(out, name::IS_CURRENT, self.end.is_none());
        self.begin.append(out);
        match &self.end {
            Some(end) => end.append_as(out, name::CLOSED_BY),
            None => element::header(out, kind::NULL, name::CLOSED_BY),
        }
    }
}

// === impl End ===

impl End {
    /// Appends `$set: {…}` of a version that ends.
    pub(crate) fn append_set(&self, out: &mut Vec<u8>) {
        let set = element::open_document(out, "$set");
        element::date(out, name::VALID_TO, self.moment.at);
        element::boolean(out, name::IS_CURRENT, false);
        self.append_as(out, name::CLOSED_BY);
        element::close(out, set);
    }

    fn append_as(&self, out: &mut Vec<u8>, name: &str) {
        let document = element::open_document(out, name);
        self.append(out);
        element::close(out, document);
    }

    fn append(&self, out: &mut Vec<u8>) {
        element::string(out, name::OP, self.op.name());
        element::int64(out, name::LSN, self.moment.lsn());
        match self.moment.xid {
            Some(xid) => element::int64(out, name::XID, xid.into()),
            None => element::header(out, kind::NULL, name::XID),
        }
    }
}
