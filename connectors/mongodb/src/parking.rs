//! Which rows have dead letters, and what of a batch becomes one.
//!
//! - Once a change of a row is parked, every later one of that row is parked behind it.
//! - A row that gets a new key takes its dead letters along: the new key is parked too.
//! - An emptied table has no dead letters.
//! - A row whose dead letters were discarded is written again from the first change on that needs nothing of what
//!   was there; until then its changes are dropped.

use std::collections::HashMap;

use walferry_schema::{Position, TableName};

use crate::batch::{Commits, Fate, Missing, Move, Parked, Rows, Segment};
use crate::dead_letters::{self, Letter, Operation};
use crate::parked::{Content, ParkedChanges, ParkedKeys, ParkedView, Standing};
use crate::stop::Unwritable;
use crate::{Error, Result, identity};

const BEHIND: &str = "it comes behind an earlier change of its row";
const MOVED: &str = "its row comes from a key that has dead letters";
/// How many documents of a group are found to be unwritable one after another before it is not about them.
const MAX_FOUND: usize = 100;

/// A batch that is sifted, until its transaction is committed.
#[derive(Debug)]
pub(crate) struct Sifted {
    pub(crate) segments: Vec<Segment>,
    /// What becomes of the rows with dead letters.
    pub(crate) changes: ParkedChanges,
    /// What has to be kept before it.
    pub(crate) contents: Vec<Content>,
    pub(crate) parked: u64,
    pub(crate) dropped: u64,
}

/// Goes through a batch in order.
struct Sieve<'a> {
    pipeline: &'a str,
    epoch: i64,
    commits: &'a Commits,
    keys: ParkedView<'a>,
    sifted: Sifted,
    /// Those of the segment that is looked at.
    letters: Vec<Letter>,
}

// === impl Sifted ===

impl Sifted {
    /// Sifts nothing.
    pub(crate) fn whole(segments: Vec<Segment>) -> Self {
        Self {
            segments,
            changes: ParkedChanges::default(),
            contents: Vec::new(),
            parked: 0,
            dropped: 0,
        }
    }

    /// Takes out of a batch what cannot be written, and what must not be before that is.
    pub(crate) fn of(
        segments: Vec<Segment>,
        keys: &ParkedKeys,
        commits: &Commits,
        (pipeline, epoch): (&str, i64),
    ) -> Self {
        let mut sieve = Sieve {
            pipeline,
            epoch,
            commits,
            keys: ParkedView::over(keys),
            sifted: Self::whole(Vec::new()),
            letters: Vec::new(),
        };
        // Those of an earlier sifting are written anew.
        let is_change = |it: &Segment| !matches!(it, Segment::Letters(_));
        for segment in segments.into_iter().filter(is_change) {
            sieve.segment(segment);
        }
        sieve.sifted.changes = sieve.keys.changes;
        sieve.sifted
    }

    /// Whether anything of the batch could have to be parked: seen without looking at its rows.
    pub(crate) fn is_needed(segments: &[Segment], keys: &ParkedKeys) -> bool {
        let has_suspects = |segment: &Segment| match segment {
            Segment::Rows(all) => all.iter().any(Rows::has_suspects),
            Segment::Move(moved) => moved.missing.is_some() || moved.fate != Fate::Write,
            _ => false,
        };
        !keys.is_empty() || segments.iter().any(has_suspects)
    }
}

/// Whether a change was parked for the sake of another one.
pub(crate) fn waits(reason: &str) -> bool {
    [BEHIND, MOVED].contains(&reason)
}

/// Parks what MongoDB refused; an error when it is one of too many, or of a table of which nothing `may_park`.
pub(crate) fn park(
    segments: &mut [Segment],
    found: &mut usize,
    unwritable: Unwritable,
    may_park: impl Fn(&TableName) -> bool,
) -> Result<()> {
    *found += 1;
    if *found > MAX_FOUND {
        return Err(Error::ManyUnwritable {
            limit: MAX_FOUND,
            last: Box::new(unwritable.error),
        });
    }
    let reason = unwritable.error.to_string();
    match segments.get_mut(unwritable.segment) {
        Some(Segment::Rows(all)) => {
            let is_it = |rows: &&mut Rows| rows.collection == unwritable.collection;
            let Some(rows) = all.iter_mut().find(is_it) else {
                return Ok(());
            };
            if !may_park(&rows.encoder.table) {
                return Err(unwritable.error);
            }
            rows.park(&unwritable.id, &reason);
            Ok(())
        }
        Some(Segment::Move(moved)) if may_park(&moved.table) => {
            moved.park(&reason);
            Ok(())
        }
        _ => Err(unwritable.error),
    }
}

// === impl Sieve ===

impl Sieve<'_> {
    fn segment(&mut self, mut segment: Segment) {
        let mut commands = Vec::new();
        match &mut segment {
            Segment::Rows(all) => {
                for rows in all {
                    commands.extend(self.rows(rows));
                }
            }
            Segment::Move(moved) => commands.extend(self.moved(moved)),
            Segment::Truncate(it) if self.keys.empty(&it.table, it.generation) => {
                let table = it.table.to_string();
                commands.push(dead_letters::emptied(self.pipeline, &table, it.generation));
            }
            _ => {}
        }
        self.sifted.parked += self.letters.len() as u64;
        commands.extend(dead_letters::inserting(
            self.pipeline,
            self.epoch,
            &std::mem::take(&mut self.letters),
        ));
        self.sifted.segments.push(segment);
        if !commands.is_empty() {
            self.sifted.segments.push(Segment::Letters(commands));
        }
    }

    /// The updates of what is recorded of rows that were given up.
    fn rows(&mut self, rows: &mut Rows) -> Vec<bson::Document> {
        let Some(generation) = rows.generation() else {
            return Vec::new();
        };
        let table = rows.encoder.table.clone();
        rows.park_too_large();
        let commands = self.follow(rows, &table, generation);
        let keys = &self.keys;
        let is_parked = |id: &[u8]| keys.get(&table, generation, id) == Some(Standing::Parked);
        rows.park_moved(is_parked, MOVED);
        let parked: Vec<_> = rows
            .parked()
            .map(|parked| self.letter(&table, &parked))
            .collect();
        for (letter, content) in parked {
            self.add(&table, generation, letter, content);
        }
        commands
    }

    /// Has the rows that are known to lack changes lack these too, or begin anew with them.
    fn follow(
        &mut self,
        rows: &mut Rows,
        table: &TableName,
        generation: u64,
    ) -> Vec<bson::Document> {
        let mut commands = Vec::new();
        if !self.keys.has(table, generation) {
            return commands;
        }
        // Of the table's rows there may be many more than in a batch.
        let standing = |id: &[u8]| Some((id.to_vec(), self.keys.get(table, generation, id)?));
        let known: Vec<_> = rows.ids().filter_map(standing).collect();
        for (id, standing) in known {
            if standing == Standing::Parked {
                rows.park(&id, BEHIND);
                continue;
            }
            match rows.admit(&id) {
                None => {}
                Some(true) => {
                    let of = table.to_string();
                    commands.push(dead_letters::begun(self.pipeline, &of, generation, &id));
                    self.keys.remove(table, generation, &id);
                }
                Some(false) => self.sifted.dropped += 1,
            }
        }
        commands
    }

    fn moved(&mut self, moved: &mut Move) -> Option<bson::Document> {
        let (table, generation) = (moved.table.clone(), moved.position.generation);
        let standing = |id: &[u8]| self.keys.get(&table, generation, id);
        let (from, to) = (standing(&moved.from), standing(&moved.to));
        // What it would carry over is not what the source had.
        if from == Some(Standing::GivenUp) {
            return Some(self.give_up(moved, &table, generation, to));
        }
        if let Some(missing) = &moved.missing {
            let reason = missing.reason();
            moved.park(&reason);
        } else if from == Some(Standing::Parked) || to == Some(Standing::Parked) {
            moved.park(BEHIND);
        }
        if moved.fate == Fate::Park {
            let (letter, content) = self.move_letter(moved);
            self.keys
                .insert(&table, generation, &moved.from, Standing::Parked);
            self.add(&table, generation, letter, content);
            return None;
        }
        let of = table.to_string();
        (to == Some(Standing::GivenUp)).then(|| {
            let keys = &mut self.keys;
            keys.remove(&table, generation, &moved.to);
            dead_letters::begun(self.pipeline, &of, generation, &moved.to)
        })
    }

    /// Drops a key change of a row that was given up: under its new key it lacks the same. Where that has dead letters
    /// of its own, they are what a retry cannot go beyond.
    fn give_up(
        &mut self,
        moved: &mut Move,
        table: &TableName,
        generation: u64,
        to: Option<Standing>,
    ) -> bson::Document {
        moved.fate = Fate::Drop;
        self.sifted.dropped += 1;
        let (of, keys) = (table.to_string(), &mut self.keys);
        keys.remove(table, generation, &moved.from);
        if to == Some(Standing::Parked) {
            return dead_letters::begun(self.pipeline, &of, generation, &moved.from);
        }
        keys.insert(table, generation, &moved.to, Standing::GivenUp);
        let keys = (&*moved.from, &*moved.to);
        dead_letters::renamed(self.pipeline, &of, generation, keys)
    }

    fn letter(&self, table: &TableName, parked: &Parked<'_>) -> (Letter, Vec<u8>) {
        let operation = parked.operation;
        let position = operation.position();
        let is_whole = operation.action().body().is_some_and(|it| it.is_complete);
        let kind = match operation.action().body() {
            None => Operation::Delete,
            Some(_) if is_whole || operation.is_new() => Operation::Put,
            Some(_) => Operation::Set,
        };
        let mut letter = self.blank(table, position, kind, operation.id);
        letter.from = parked.from.map(<[u8]>::to_vec);
        letter.bytes = parked.elements.len();
        letter.missing = parked.missing.cloned();
        letter.fields = letter
            .missing
            .iter()
            .flat_map(|it| it.order.clone())
            .collect();
        parked.reason.clone_into(&mut letter.error);
        (letter, parked.elements.to_vec())
    }

    fn move_letter(&self, moved: &Move) -> (Letter, Vec<u8>) {
        let mut letter = self.blank(&moved.table, moved.position, Operation::Move, &moved.to);
        letter.from = Some(moved.from.clone());
        letter.bytes = moved.elements.len();
        letter.fields.clone_from(&moved.fields);
        letter.missing.clone_from(&moved.missing);
        letter.error.clone_from(&moved.reason);
        (letter, moved.elements.clone())
    }

    fn blank(&self, table: &TableName, position: Position, kind: Operation, id: &[u8]) -> Letter {
        Letter {
            at: dead_letters::name(position, kind),
            table: table.clone(),
            position,
            committed_at: self.commits.at(position),
            operation: kind,
            key: id.to_vec(),
            from: None,
            fields: Vec::new(),
            missing: None::<Missing>,
            bytes: 0,
            error: String::new(),
            epoch: self.epoch,
        }
    }

    fn add(&mut self, table: &TableName, generation: u64, letter: Letter, elements: Vec<u8>) {
        let keys = &mut self.keys;
        keys.insert(table, generation, &letter.key, Standing::Parked);
        let at = letter.at.clone();
        if letter.operation != Operation::Delete {
            let missing = letter.missing.iter();
            let texts = missing.flat_map(|it| it.texts().cloned()).collect();
            self.sifted.contents.push(Content {
                at,
                elements,
                texts,
                refused: letter.is_refused().then(|| Box::new(letter.clone())),
            });
        }
        self.letters.push(letter);
    }
}

// === impl Move ===

impl Move {
    /// Has the change become a dead letter.
    pub(crate) fn park(&mut self, reason: &str) {
        self.fate = Fate::Park;
        if self.reason.is_empty() {
            reason.clone_into(&mut self.reason);
        }
    }
}

/// The groups of letters that have to be done together: those of a row, and of the keys that it had. In the order in
/// which the first of each came.
pub(crate) fn by_row(mut letters: Vec<Letter>) -> Vec<Vec<Letter>> {
    // What goes under one spelling of a key comes before what it becomes under another.
    letters.sort_by_key(|it| (it.position, it.operation != Operation::Delete));
    let mut rows = RowSets::default();
    let places: Vec<_> = letters.iter().map(|letter| rows.add(letter)).collect();
    let mut groups: Vec<Vec<Letter>> = Vec::new();
    let mut group_of: HashMap<usize, usize> = HashMap::new();
    for (letter, place) in letters.into_iter().zip(places) {
        let group = *group_of.entry(rows.root(place)).or_insert(groups.len());
        if group == groups.len() {
            groups.push(Vec::new());
        }
        groups[group].push(letter);
    }
    groups
}

/// Rows by their keys: sets that are joined where a letter is of both.
#[derive(Default)]
struct RowSets {
    /// The set of each key, by its identity.
    sets: HashMap<(TableName, Vec<u8>), usize>,
    /// What each set was joined to; itself where it was not.
    parents: Vec<usize>,
}

// === impl RowSets ===

impl RowSets {
    /// The set of a letter's keys.
    fn add(&mut self, letter: &Letter) -> usize {
        let to = self.of(letter, &letter.key);
        if let Some(from) = &letter.from {
            let from = self.of(letter, from);
            let (from, to) = (self.root(from), self.root(to));
            self.parents[from] = to;
        }
        to
    }

    fn of(&mut self, letter: &Letter, key: &[u8]) -> usize {
        let new = self.parents.len();
        let row = (letter.table.clone(), identity(key).into_owned());
        let set = *self.sets.entry(row).or_insert(new);
        if set == new {
            self.parents.push(new);
        }
        set
    }

    /// The set that a set is part of by now.
    fn root(&mut self, mut set: usize) -> usize {
        while self.parents[set] != set {
            // The way is half as long the next time.
            self.parents[set] = self.parents[self.parents[set]];
            set = self.parents[set];
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use walferry_schema::{Lsn, Phase};

    use super::*;

    fn letter(ordinal: u64, key: u32, from: Option<u32>) -> Letter {
        let position = Position {
            generation: 7,
            phase: Phase::Stream(Lsn(9)),
            ordinal,
        };
        let bytes = |key: u32| key.to_be_bytes().to_vec();
        Letter {
            at: ordinal.to_string(),
            table: TableName::new("public", "t"),
            position,
            committed_at: None,
            operation: Operation::Put,
            key: bytes(key),
            from: from.map(bytes),
            fields: Vec::new(),
            missing: None,
            bytes: 0,
            error: String::new(),
            epoch: 1,
        }
    }

    #[test]
    fn letters_go_together_where_they_share_a_key_over_any_number_of_moves() {
        let letters = vec![
            letter(5, 3, Some(2)),
            letter(1, 1, None),
            letter(2, 9, None),
            letter(3, 2, Some(1)),
            letter(4, 3, None),
            letter(6, 9, None),
        ];
        let ordinals =
            |row: Vec<Letter>| -> Vec<_> { row.iter().map(|it| it.position.ordinal).collect() };
        let rows: Vec<_> = by_row(letters).into_iter().map(ordinals).collect();
        assert_eq!(rows, [vec![1, 3, 4, 5], vec![2, 6]]);
    }

    #[test]
    fn a_hundred_thousand_letters_are_grouped_one_after_another() {
        let letters = (0..100_000).map(|at| letter(at.into(), at % 50_000, None));
        let moved = (0..1_000).map(|at| letter(200_000 + u64::from(at), at + 1, Some(at)));
        let rows = by_row(letters.chain(moved).collect());
        assert_eq!((rows.len(), rows[0].len()), (49_000, 2 * 1_001 + 1_000));
    }
}
