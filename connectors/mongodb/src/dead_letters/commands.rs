//! What transactions do with dead letters, as commands.

use bson::{DateTime, Document, doc};
use walferry_core::{LetterAction, LetterOrder};

use super::letter::Letter;
use super::{LETTERS, PARKED, binary, id};
use crate::{identity, order};

/// How many letters one command writes at most.
const COMMAND_LETTERS: usize = 500;

/// The commands that write letters.
pub(crate) fn inserting(pipeline: &str, epoch: i64, letters: &[Letter]) -> Vec<Document> {
    let update = |letter: &Letter| {
        let document = letter.document(pipeline, epoch);
        doc! { "q": { "_id": id(pipeline, &letter.at) }, "u": document, "upsert": true }
    };
    let chunks = letters.chunks(COMMAND_LETTERS);
    chunks
        .map(|some| doc! { "update": LETTERS, "updates": some.iter().map(update).collect::<Vec<_>>() })
        .collect()
}

/// The command that says that a table was emptied.
pub(crate) fn emptied(pipeline: &str, table: &str, generation: u64) -> Document {
    let of = doc! { "pipeline": pipeline, "table": table, "generation": generation.cast_signed() };
    obsolete(of)
}

/// Those of some letters whose rows lack changes: they stand, or were given up.
pub(super) fn lacking(mut of: Document) -> Document {
    of.insert("$or", [doc! { "state": PARKED }, doc! { "given_up": true }]);
    of
}

pub(super) fn obsolete(of: Document) -> Document {
    // A letter that was discarded stays so, and its row is no longer of interest.
    let obsolete = doc! { "$cond": [{ "$eq": ["$state", PARKED] }, "obsolete", "$state"] };
    let settled = [
        doc! { "$set": { "state": obsolete, "settled_at": "$$NOW" } },
        doc! { "$unset": "given_up" },
    ];
    doc! { "update": LETTERS, "updates": [{ "q": lacking(of), "u": settled.to_vec(), "multi": true }] }
}

/// The command that says that a row which was given up is whole again, or gone.
pub(crate) fn begun(pipeline: &str, table: &str, generation: u64, key: &[u8]) -> Document {
    let given_up = given_up(pipeline, table, generation, key);
    let update = doc! { "q": given_up, "u": { "$unset": { "given_up": "" } }, "multi": true };
    doc! { "update": LETTERS, "updates": [update] }
}

/// The command that says that a row which was given up has another key.
pub(crate) fn renamed(
    pipeline: &str,
    table: &str,
    generation: u64,
    (from, to): (&[u8], &[u8]),
) -> Document {
    let given_up = given_up(pipeline, table, generation, from);
    let renamed = doc! { "key": binary(to), "row": binary(&identity(to)) };
    let update = doc! { "q": given_up, "u": { "$set": renamed }, "multi": true };
    doc! { "update": LETTERS, "updates": [update] }
}

fn given_up(pipeline: &str, table: &str, generation: u64, key: &[u8]) -> Document {
    doc! {
        "pipeline": pipeline,
        "table": table,
        "generation": generation.cast_signed(),
        // The key alone is what letters of earlier versions have.
        "$or": [{ "row": binary(&identity(key)) }, { "key": binary(key) }],
        "given_up": true,
    }
}

/// The command that says what was done about letters, and whether the row of each is given up.
pub(crate) fn settling<'l>(
    pipeline: &str,
    letters: impl Iterator<Item = (&'l Letter, bool)>,
    order: &LetterOrder,
) -> Document {
    let state = match order.action {
        LetterAction::Retry => "retried",
        LetterAction::Discard => "discarded",
    };
    let (given_up, others): (Vec<_>, _) = letters.partition(|(_, is_given_up)| *is_given_up);
    let update = |letters: Vec<(&Letter, bool)>, is_given_up| {
        let mut settled = doc! {
            "state": state,
            "settled": order::to_document(&order.order),
            "settled_at": DateTime::now(),
        };
        if is_given_up {
            settled.insert("given_up", true);
        }
        let letters = letters.into_iter().map(|(letter, _)| letter);
        let all = doc! { "_id": { "$in": ids(pipeline, letters) }, "state": PARKED };
        doc! { "q": all, "u": { "$set": settled }, "multi": true }
    };
    let updates = [update(given_up, true), update(others, false)];
    doc! { "update": LETTERS, "updates": updates.to_vec() }
}

/// The command that says why letters stay.
pub(crate) fn failing(pipeline: &str, letters: &[Letter], why: &str) -> Document {
    let failed = doc! { "retry_error": why, "retried_at": DateTime::now() };
    let all = doc! { "_id": { "$in": ids(pipeline, letters) }, "state": PARKED };
    doc! { "update": LETTERS, "updates": [{ "q": all, "u": { "$set": failed }, "multi": true }] }
}

fn ids<'l>(pipeline: &str, letters: impl IntoIterator<Item = &'l Letter>) -> Vec<Document> {
    let letters = letters.into_iter();
    letters.map(|it| id(pipeline, &it.at)).collect()
}
