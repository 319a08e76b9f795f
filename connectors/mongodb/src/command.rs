//! Write commands as raw bytes, as many of them as the limits ask for.

use bson::RawDocumentBuf;

use crate::bson_value::element;
use crate::{Error, Result};

/// Room for what a command has around its statements, the driver's additions included.
const OVERHEAD_BYTES: usize = 4_096;

/// Which write a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Insert,
    Update,
    Delete,
}

/// One write command that is being filled.
#[derive(Debug)]
pub(crate) struct Command {
    bytes: Vec<u8>,
    array: usize,
    statements: usize,
}

/// How large a command may become.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) operations: usize,
    pub(crate) bytes: usize,
}

// === impl Command ===

impl Command {
    pub(crate) fn new(kind: Kind, collection: &str) -> Self {
        Self::with_options(kind, collection, |_| {})
    }

    /// A command with more fields before its statements.
    pub(crate) fn with_options(
        kind: Kind,
        collection: &str,
        options: impl FnOnce(&mut Vec<u8>),
    ) -> Self {
        let (name, statements) = match kind {
            Kind::Insert => ("insert", "documents"),
            Kind::Update => ("update", "updates"),
            Kind::Delete => ("delete", "deletes"),
        };
        let mut bytes = Vec::new();
        element::open(&mut bytes);
        element::string(&mut bytes, name, collection);
        options(&mut bytes);
        element::header(&mut bytes, element::kind::ARRAY, statements);
        let array = element::open(&mut bytes);
        Self {
            bytes,
            array,
            statements: 0,
        }
    }

    pub(crate) fn statements(&self) -> usize {
        self.statements
    }

    /// The statements, as elements.
    pub(crate) fn statement_bytes(&self) -> &[u8] {
        self.bytes.get(self.array + 4..).unwrap_or_default()
    }

    /// How many bytes the command has so far.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether a statement of this size does not fit any more.
    pub(crate) fn is_full(&self, limits: Limits, next_bytes: usize) -> bool {
        self.statements > 0
            && (self.statements >= limits.operations
                || self.bytes.len() + next_bytes + OVERHEAD_BYTES > limits.bytes)
    }

    /// Adds a statement, which `fill` writes the elements of.
    pub(crate) fn add(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        let mut index = [0; 20];
        let index = decimal(self.statements, &mut index);
        self.bytes.push(element::kind::DOCUMENT);
        self.bytes.extend_from_slice(index);
        self.bytes.push(0);
        let statement = element::open(&mut self.bytes);
        fill(&mut self.bytes);
        element::close(&mut self.bytes, statement);
        self.statements += 1;
    }

    /// The bytes of the command.
    pub(crate) fn finish(mut self) -> Result<RawDocumentBuf> {
        element::close(&mut self.bytes, self.array);
        element::close(&mut self.bytes, 0);
        RawDocumentBuf::from_bytes(self.bytes).map_err(|_| Error::Answer {
            doing: "encoding a command",
            field: "length",
        })
    }
}

/// The digits of a number, at the end of a buffer.
fn decimal(mut number: usize, buffer: &mut [u8; 20]) -> &[u8] {
    let mut start = buffer.len();
    for place in buffer.iter_mut().rev() {
        *place = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        start -= 1;
        if number == 0 {
            break;
        }
    }
    &buffer[start..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{Document, doc};

    #[test]
    fn a_command_is_the_document_that_the_server_expects() {
        let mut command = Command::new(Kind::Insert, "t");
        for _ in 0..11 {
            command.add(|out| element::int32(out, "_id", 7));
        }
        assert_eq!(command.statements(), 11);
        let command = Document::try_from(&*command.finish().unwrap()).unwrap();
        assert_eq!(
            command,
            doc! { "insert": "t", "documents": vec![doc! { "_id": 7 }; 11] }
        );
    }

    #[test]
    fn a_command_takes_at_least_one_statement() {
        let limits = Limits {
            operations: 2,
            bytes: 10,
        };
        let mut command = Command::new(Kind::Delete, "t");
        assert!(!command.is_full(limits, 1_000));
        command.add(|_| {});
        assert!(command.is_full(limits, 0));
    }

    #[test]
    fn indexes_are_decimal() {
        for number in [0, 9, 10, 99_999, usize::MAX] {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string().as_bytes());
        }
    }
}
