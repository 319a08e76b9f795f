//! A change that MongoDB could not take, as it is recorded without what it says.
//!
//! - Its name tells the position of its change.

use bson::{DateTime, Document, doc};
use walferry_core::LetterChoice;
use walferry_schema::{Columns, Lsn, Modes, Phase, Position, TableName};

use super::{PARKED, binary, bytes_of, id, texts_of};
use crate::batch::{Elsewhere, Missing, Text};
use crate::document::show_id;
use crate::identity;

/// What a change does to its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// The row is this.
    Put,
    /// The row gets these columns.
    Set,
    /// The row goes.
    Delete,
    /// The row gets another key, and these columns.
    Move,
}

/// A change that MongoDB could not take, without what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Letter {
    pub(crate) at: String,
    pub(crate) table: TableName,
    pub(crate) position: Position,
    /// Microseconds since 1970; none in a snapshot.
    pub(crate) committed_at: Option<i64>,
    pub(crate) operation: Operation,
    /// The `_id`: type byte and payload.
    pub(crate) key: Vec<u8>,
    /// The key that the row had before.
    pub(crate) from: Option<Vec<u8>>,
    /// The names of all fields of the document, in order, when the row gets another key, or something is missing.
    pub(crate) fields: Vec<String>,
    pub(crate) missing: Option<Missing>,
    pub(crate) bytes: usize,
    pub(crate) error: String,
    /// Which claim wrote its parts.
    pub(crate) epoch: i64,
}

// === impl Operation ===

impl Operation {
    const ALL: [Self; 4] = [Self::Put, Self::Set, Self::Delete, Self::Move];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Set => "set",
            Self::Delete => "delete",
            Self::Move => "move",
        }
    }
}

// === impl Letter ===

impl Letter {
    /// Whether it is meant.
    pub(crate) fn is_of(&self, choice: &LetterChoice) -> bool {
        match choice {
            LetterChoice::All => true,
            LetterChoice::Table(table) => self.table.to_string() == *table,
            LetterChoice::Letter(at) => self.at == *at,
        }
    }

    pub(super) fn document(&self, pipeline: &str, epoch: i64) -> Document {
        let missing = self.missing.iter();
        let missing: Vec<_> = missing.flat_map(Missing::fields).collect();
        let places = self.missing.iter().flat_map(|it| &it.places);
        doc! {
            "_id": id(pipeline, &self.at),
            "pipeline": pipeline,
            "state": PARKED,
            "schema": &*self.table.schema,
            "table_name": &*self.table.table,
            "table": self.table.to_string(),
            "generation": self.position.generation.cast_signed(),
            "key": binary(&self.key),
            "row": binary(&identity(&self.key)),
            "shown_key": show_id(&self.key),
            "from": self.from.as_deref().map(binary),
            "op": self.operation.name(),
            "committed_at": self.committed_at.map(|at| DateTime::from_millis(at.div_euclid(1_000))),
            "parked_at": DateTime::now(),
            "bytes": i64::try_from(self.bytes).unwrap_or(i64::MAX),
            "fields": &self.fields,
            "missing": missing,
            "reference": self.missing.as_ref().map(Missing::reference),
            "elsewhere": places.map(place_document).collect::<Vec<_>>(),
            "error": &self.error,
            "epoch": epoch,
        }
    }

    /// None when the document is none of walferry's.
    pub(super) fn of(document: &Document) -> Option<Self> {
        let text = |name| document.get_str(name).ok();
        let texts = |name| texts_of(document, name);
        let at = document.get_document("_id").ok()?.get_str("at").ok()?;
        let operation = text("op")?;
        let places = document.get_array("elsewhere");
        let places = places.map_or(&[][..], Vec::as_slice).iter();
        let places: Option<Vec<_>> = places.map(|it| place_of(it.as_document()?)).collect();
        let mut missing = Missing {
            order: texts("fields"),
            places: places?,
        };
        // As it was written before it said which change has what.
        if let Some(reference) = text("reference").filter(|_| missing.is_empty()) {
            missing.places.push(Elsewhere {
                fields: texts("missing"),
                position: position(at)?,
                bytes: 0,
                reference: reference.to_owned(),
                texts: Vec::new(),
            });
        }
        let committed_at = document.get_datetime("committed_at").ok();
        let bytes = document.get_i64("bytes").ok()?;
        Some(Self {
            at: at.to_owned(),
            table: TableName::new(text("schema")?, text("table_name")?),
            position: position(at)?,
            committed_at: committed_at.map(|at| at.timestamp_millis() * 1_000),
            operation: Operation::ALL
                .into_iter()
                .find(|it| it.name() == operation)?,
            key: bytes_of(document, "key")?,
            from: bytes_of(document, "from"),
            fields: texts("fields"),
            missing: (!missing.is_empty()).then_some(missing),
            bytes: usize::try_from(bytes).ok()?,
            error: text("error").unwrap_or_default().to_owned(),
            epoch: document.get_i64("epoch").ok()?,
        })
    }
}

fn place_document(place: &Elsewhere) -> Document {
    let columns = Columns {
        all: place.texts.iter().map(|text| text.column.clone()).collect(),
        modes: Modes::default(),
    };
    let sizes: Vec<_> = place
        .texts
        .iter()
        .map(|it| it.bytes.cast_signed())
        .collect();
    doc! {
        "at": name(place.position, Operation::Put),
        "fields": &place.fields,
        "bytes": place.bytes.cast_signed(),
        "reference": &place.reference,
        "columns": binary(&columns.to_bytes()),
        "sizes": sizes,
    }
}

/// None when the document is none of walferry's.
fn place_of(document: &Document) -> Option<Elsewhere> {
    let columns = Columns::from_bytes(&bytes_of(document, "columns")?).ok()?;
    let sizes = document.get_array("sizes").ok()?.iter();
    let texts = columns.all.iter().zip(sizes);
    let texts = texts.map(|(column, size)| {
        let bytes = size.as_i64()?.cast_unsigned();
        Some(Text::kept(column.clone(), bytes))
    });
    Some(Elsewhere {
        fields: texts_of(document, "fields"),
        position: position(document.get_str("at").ok()?)?,
        bytes: document.get_i64("bytes").ok()?.cast_unsigned(),
        reference: document.get_str("reference").ok()?.to_owned(),
        texts: texts.collect::<Option<_>>()?,
    })
}

/// What a letter is called: where its change stands. A key change in one record is two changes at one position.
pub(crate) fn name(position: Position, operation: Operation) -> String {
    let generation = position.generation;
    let phase = match position.phase {
        Phase::Stream(lsn) => lsn.to_string(),
        Phase::Snapshot(chunk) => format!("chunk-{chunk}"),
    };
    let ordinal = position.ordinal;
    let rest = match operation {
        Operation::Delete => "/delete",
        Operation::Put | Operation::Set | Operation::Move => "",
    };
    format!("{generation}/{phase}/{ordinal}{rest}")
}

pub(super) fn position(name: &str) -> Option<Position> {
    let name = name.strip_suffix("/delete").unwrap_or(name);
    let (generation, rest) = name.split_once('/')?;
    let (phase, ordinal) = rest.rsplit_once('/')?;
    Some(Position {
        generation: generation.parse().ok()?,
        phase: match phase.strip_prefix("chunk-") {
            Some(chunk) => Phase::Snapshot(chunk.parse().ok()?),
            None => Phase::Stream(phase.parse::<Lsn>().ok()?),
        },
        ordinal: ordinal.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letters_name_tells_its_position() {
        let at = |phase| Position {
            generation: 1_731_888_000,
            phase,
            ordinal: 12,
        };
        let stream = at(Phase::Stream(Lsn(0x16_B374_D848)));
        let named = name(stream, Operation::Delete);
        assert_eq!(named, "1731888000/16/B374D848/12/delete");
        assert_eq!(position(&named), Some(stream));
        let snapshot = at(Phase::Snapshot(7));
        assert_eq!(position(&name(snapshot, Operation::Put)), Some(snapshot));
    }
}
