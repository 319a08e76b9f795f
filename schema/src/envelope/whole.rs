//! A record's value whose large columns are written piece by piece, so that it is never held whole.
//!
//! - The pieces are those of the JSON that [`write_value`](super::write_value) gives of the same row held whole; only of a
//!   type with parts, such as an array, a text of more than 32 MiB stands as one string.

use std::io;
use std::sync::Arc;

use super::write::{Place, Places, write_value_with};
use super::{Before, EnvelopeError, Meta, RecordSchema, Template, Version, json};
use crate::change::Cell;
use crate::value::text;
use crate::{BinaryMode, Large, Modes, Relation, Row, Type, Value};

/// How much of a text is read at a time: a multiple of the hexadecimal digits of three bytes, which are four of base64.
const PIECE_BYTES: usize = 6 * 8_192;
/// A value of a type with parts is decoded up to this size.
const DECODED_BYTES: u64 = 32 << 20;
/// What PostgreSQL writes before the digits of a `bytea`.
const HEX_PREFIX: &[u8] = b"\\x";

/// A record's value, read from its beginning.
#[derive(Clone, Debug)]
pub struct WholeValue {
    relation: Arc<Relation>,
    modes: Modes,
    /// The old row and the new one.
    rows: [Option<Row>; 2],
    /// The JSON without the large values.
    frame: Vec<u8>,
    /// Where those belong.
    places: Vec<Place>,
    /// How many bytes of the frame were read, and how many of the places were begun.
    read: (usize, usize),
    begun: Option<LargeJson>,
    /// A piece, and how many bytes of it were read.
    piece: (Vec<u8>, usize),
}

/// The JSON of a large value that is being read.
#[derive(Clone, Debug)]
struct LargeJson {
    place: Place,
    form: Form,
    /// How much of the text was read.
    at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Bytes(BinaryMode),
    Decoded,
}

// === impl WholeValue ===

impl WholeValue {
    /// The value that [`write_value`](super::write_value) would write if it left nothing out.
    ///
    /// # Errors
    /// As those of [`write_value`](super::write_value).
    pub fn new(
        template: &Template,
        (relation, schema): (&Arc<Relation>, Option<&RecordSchema>),
        meta: &Meta<'_>,
        before: Before<'_>,
        after: Option<&Row>,
    ) -> Result<Self, EnvelopeError> {
        let (mut frame, mut places) = (Vec::new(), Places::noted());
        let version = Version { relation, schema };
        write_value_with(
            &mut frame,
            (template, version),
            meta,
            before,
            after,
            &mut places,
        )?;
        let old = match before {
            Before::None => None,
            Before::Key(row) | Before::Full(row) => Some(row.clone()),
        };
        Ok(Self {
            relation: relation.clone(),
            modes: template.modes,
            rows: [old, after.cloned()],
            frame,
            places: places.into_noted(),
            read: (0, 0),
            begun: None,
            piece: (Vec::new(), 0),
        })
    }

    /// Goes back to the beginning.
    pub fn rewind(&mut self) {
        (self.read, self.begun) = ((0, 0), None);
        self.piece.0.clear();
        self.piece.1 = 0;
    }

    /// Copies what stands before the next large value, or begins that.
    fn read_frame(&mut self, buffer: &mut [u8]) -> usize {
        let (at, next) = self.read;
        let place = self.places.get(next);
        let end = place.map_or(self.frame.len(), |place| place.at);
        let length = buffer.len().min(end.saturating_sub(at));
        buffer[..length].copy_from_slice(&self.frame[at..at + length]);
        self.read.0 += length;
        if let Some(place) = place.filter(|_| length == 0) {
            let column = &self.relation.columns[place.column];
            let form = Form::of(&column.kind, self.modes.of(column));
            self.begun = Some(LargeJson {
                place: *place,
                form,
                at: 0,
            });
            self.read.1 += 1;
        }
        length
    }

    fn read_large(&mut self, mut json: LargeJson) -> io::Result<()> {
        let place = json.place;
        let row = self.rows[usize::from(!place.is_old)].as_ref();
        let Some(Cell::Large(large)) = row.map(|row| row.cell(place.column)) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let column = &self.relation.columns[place.column];
        self.piece.0.clear();
        self.piece.1 = 0;
        let modes = self.modes.of(column);
        if json.next(large, (&column.kind, modes), &mut self.piece.0)? {
            self.begun = Some(json);
        }
        Ok(())
    }
}

impl io::Read for WholeValue {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let (piece, at) = &mut self.piece;
            let rest = &piece[*at..];
            let length = rest.len().min(buffer.len());
            if length > 0 {
                buffer[..length].copy_from_slice(&rest[..length]);
                *at += length;
                return Ok(length);
            }
            if let Some(json) = self.begun.take() {
                self.read_large(json)?;
                continue;
            }
            let length = self.read_frame(buffer);
            if length > 0 || self.begun.is_none() {
                return Ok(length);
            }
        }
    }
}

// === impl Form ===

impl Form {
    fn of(kind: &Type, modes: Modes) -> Self {
        match kind {
            Type::Text | Type::Json => Self::Text,
            Type::Bytea => Self::Bytes(modes.binary),
            _ => Self::Decoded,
        }
    }
}

// === impl LargeJson ===

impl LargeJson {
    /// Appends the next piece: whether there is more.
    fn next(
        &mut self,
        large: Large<'_>,
        (kind, modes): (&Type, Modes),
        out: &mut Vec<u8>,
    ) -> io::Result<bool> {
        if self.form == Form::Decoded {
            self.form = Form::Text;
            if large.bytes() <= DECODED_BYTES {
                let text = read(large, 0, large.bytes())?;
                if let Ok(value) = Value::from_text(kind, &text) {
                    json::value(out, &value, kind, modes);
                    return Ok(false);
                }
            }
        }
        if self.at == 0 {
            self.begin(large, out)?;
        }
        let left = large.bytes().saturating_sub(self.at);
        let text = read(large, self.at, left.min(PIECE_BYTES as u64))?;
        self.at += text.len() as u64;
        match self.form {
            Form::Bytes(mode) => bytes(out, &text, mode)?,
            _ => json::escaped(out, &text),
        }
        let is_over = self.at >= large.bytes();
        if is_over {
            out.push(b'"');
        }
        Ok(!is_over)
    }

    fn begin(&mut self, large: Large<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        out.push(b'"');
        if matches!(self.form, Form::Bytes(_)) {
            self.at = HEX_PREFIX.len() as u64;
            if read(large, 0, self.at)? != HEX_PREFIX {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(())
    }
}

fn bytes(out: &mut Vec<u8>, digits: &[u8], mode: BinaryMode) -> io::Result<()> {
    let bytes = text::hex(digits).ok_or(io::ErrorKind::InvalidData)?;
    json::binary_digits(out, &bytes, mode);
    Ok(())
}

fn read(large: Large<'_>, at: u64, bytes: u64) -> io::Result<Vec<u8>> {
    let mut text = vec![0; usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?];
    large.read_at(at, &mut text)?;
    Ok(text)
}
