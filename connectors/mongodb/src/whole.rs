//! What was too large to go with a dead letter, put together again once the letter is to be applied.
//!
//! - It is only held where the document could be small enough for MongoDB after all.
//! - What cannot be had is a reason for the letter to stay, never an error.

use std::borrow::Cow;
use std::fmt::Display;

use walferry_core::{Archive, WholeRecord};
use walferry_schema::envelope::{Envelope, EnvelopeError, payload, read_changed, row_image};
use walferry_schema::{Column, Columns, Field, Image, RowBuilder};

use crate::batch::Elsewhere;
use crate::dead_letters::{Letter, LetterText};
use crate::document::{Encoder, field_name};
use crate::store::Store;
use crate::{Error, Result};

/// Records and texts beyond this are not put together: of what they hold no document of 16 MiB comes.
const MOST_BYTES: u64 = 64 << 20;

/// Fetches what letters lack.
pub(crate) struct Whole<'a> {
    pub(crate) store: &'a Store,
    pub(crate) archive: Option<&'a dyn Archive>,
    pub(crate) encoder: Encoder,
}

/// The elements of fields; why they cannot be had.
type Fetched = std::result::Result<Vec<u8>, String>;

// === impl Whole ===

impl Whole<'_> {
    /// The elements of the fields that a letter lacks at a place.
    pub(crate) async fn elements(&mut self, letter: &Letter, place: &Elsewhere) -> Result<Fetched> {
        if place.bytes > MOST_BYTES {
            let limit = MOST_BYTES;
            let why = format!(
                "{} bytes are more than are put together ({limit})",
                place.bytes
            );
            return Ok(Err(why));
        }
        if place.texts.is_empty() {
            return Ok(self.of_record(letter, place).await);
        }
        self.of_texts(letter, place).await
    }

    async fn of_texts(&mut self, letter: &Letter, place: &Elsewhere) -> Result<Fetched> {
        let room = usize::try_from(place.bytes).unwrap_or_default();
        let (mut data, mut row) = (
            Vec::with_capacity(room),
            RowBuilder::with_capacity(place.texts.len()),
        );
        for text in &place.texts {
            let start = data.len();
            match self.text(letter, text, &mut data).await {
                Err(lost @ Error::LetterLost { .. }) => return Ok(Err(lost.to_string())),
                read => read?,
            }
            row.text(start, data.len() - start);
        }
        let columns: Vec<_> = place.texts.iter().map(|it| it.column.clone()).collect();
        let row = row.build(data.into());
        Ok(match row_image(&columns, &row) {
            Ok(image) => self.encoded(&image, place),
            Err(error) => Err(chain(&error)),
        })
    }

    async fn text(
        &self,
        letter: &Letter,
        text: &crate::batch::Text,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let Some(mut text) = LetterText::of(self.store, letter, text) else {
            return Ok(());
        };
        while let Some(piece) = text.next().await? {
            out.extend(piece);
        }
        Ok(())
    }

    async fn of_record(&mut self, letter: &Letter, place: &Elsewhere) -> Fetched {
        let Some(archive) = self.archive else {
            return Err("it cannot be fetched from there".to_owned());
        };
        // Not that change's own time: what is folded to one letter was committed in one group.
        let committed_at = letter.committed_at.map(|at| at.div_euclid(1_000));
        match archive.record(place.position, committed_at).await {
            Ok(Some(record)) => self.decoded(&record, place),
            Ok(None) => Err(format!(
                "the dead-letter topic no longer has the record: an UPDATE in PostgreSQL that sets {} again brings it, \
                 then retry",
                place.fields.join(", ")
            )),
            Err(fault) => Err(format!("the dead-letter topic cannot be read: {fault}")),
        }
    }

    fn decoded(&mut self, record: &WholeRecord, place: &Elsewhere) -> Fetched {
        let columns = Columns::from_bytes(&record.columns).map_err(|error| chain(&error))?;
        let image = wanted(&columns, &record.value, place).map_err(|error| chain(&error))?;
        self.encoded(&image, place)
    }

    /// The elements of an image, once it is seen that nothing is missing any more.
    fn encoded(&mut self, image: &Image<'_>, place: &Elsewhere) -> Fetched {
        let came: Vec<_> = came(image).collect();
        if let Some(field) = place
            .fields
            .iter()
            .find(|it| !came.contains(&it.as_str().into()))
        {
            return Err(format!("the record has no value of {field}"));
        }
        let mut elements = Vec::new();
        match self.encoder.body(&mut elements, &mut Vec::new(), image) {
            Ok(_) => Ok(elements),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The image of a record's new row with nothing but the fields of a place.
fn wanted<'a>(
    columns: &'a Columns,
    value: &'a [u8],
    place: &Elsewhere,
) -> std::result::Result<Image<'a>, EnvelopeError> {
    let is_wanted = |column: &Column| {
        place
            .fields
            .contains(&field_name(&column.name).into_owned())
    };
    let others = columns.all.iter().filter(|it| !is_wanted(it));
    let others: Vec<_> = others.map(|it| Cow::Borrowed(&*it.name)).collect();
    let envelope = Envelope::from_bytes(payload(value, columns.modes)?)?;
    let after = envelope.after.unwrap_or("{}");
    read_changed(&columns.all, columns.modes, after, &others)
}

/// The fields that an image has values of.
fn came<'a>(image: &'a Image<'_>) -> impl Iterator<Item = Cow<'a, str>> {
    let columns = image.columns.iter().zip(&image.fields);
    let present = columns.filter(|(_, field)| **field != Field::Absent);
    present.map(|(column, _)| field_name(&column.name))
}

/// An error with its causes.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    let causes = causes.map(|cause| cause as &dyn Display);
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
