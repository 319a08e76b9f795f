//! What a column's values become, known from its type alone: the BSON type, and what of them may be lost.
//!
//! - Whatever [`crate::Policies`] decide about is named, with the option that decides otherwise.
//! - A type that no rule here names is one that keeps every value.

use serde::Serialize;
use walferry_schema::{Column, Type};

use crate::bson_value::{
    Microseconds, NumericOverflow, Policies, decimal, has_microseconds, is_finer_than_dates,
    microseconds_name, nested,
};
use crate::document::field_name;

/// The types whose text is their value, not a way to write it.
const TEXTS: [&str; 6] = ["text", "varchar", "bpchar", "char", "name", "citext"];

/// How much of the values stands in the documents; the worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fidelity {
    /// All of it.
    Exact,
    /// All of it, but some values have another BSON type than the rest.
    OtherForm,
    /// Something may be missing.
    Lossy,
    /// Some rows, or all, have no document: they end a load and stop the stream.
    Refused,
}

/// Something that is to be known about a column or a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// What it means for the values.
    pub fidelity: Fidelity,
    /// What becomes of which values.
    pub what: String,
    /// What avoids it; none where nothing does.
    pub remedy: Option<String>,
}

/// What a column becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnForm {
    /// The field's BSON type, with those of its parts.
    pub bson: String,
    /// What is to be known about it, in no order.
    pub notes: Vec<Note>,
}

/// Gathers the notes of one column.
struct Notes<'a> {
    column: &'a Column,
    policies: Policies,
    found: Vec<Note>,
}

// === impl Note ===

impl Note {
    /// A note without a remedy.
    pub fn new(fidelity: Fidelity, what: impl Into<String>) -> Self {
        Self {
            fidelity,
            what: what.into(),
            remedy: None,
        }
    }

    /// The same with what avoids it.
    #[must_use]
    pub fn mended_by(self, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..self
        }
    }
}

// === impl ColumnForm ===

impl ColumnForm {
    /// What a column of a table with these `columns` becomes.
    pub fn of(column: &Column, columns: &[Column], policies: Policies) -> Self {
        let mut notes = Notes {
            column,
            policies,
            found: Vec::new(),
        };
        notes.name(columns);
        notes.kind(&column.kind);
        let mut bson = bson_type(&column.kind);
        if policies.microseconds == Microseconds::Keep && has_microseconds(column) {
            let field = microseconds_name(&field_name(&column.name));
            let remedy = "rename one, or microseconds = \"truncate\"";
            notes.clash(&field, columns, remedy);
            bson = format!("{bson}, Int64 {field}");
        }
        notes.key();
        let notes = notes.found;
        Self { bson, notes }
    }
}

// === impl Notes ===

impl Notes<'_> {
    fn add(&mut self, note: Note) {
        if !self.found.contains(&note) {
            self.found.push(note);
        }
    }

    fn is_key(&self) -> bool {
        self.column.key > 0
    }

    fn name(&mut self, columns: &[Column]) {
        let field = field_name(&self.column.name);
        if *field != *self.column.name {
            let what = format!("the field is called {field}");
            self.add(Note::new(Fidelity::Exact, what));
            self.clash(&field, columns, "rename one");
        }
    }

    fn clash(&mut self, field: &str, columns: &[Column], remedy: &str) {
        if columns.iter().any(|other| *other.name == *field) {
            let what = format!("it would stand in {field}, which is a column");
            self.add(Note::new(Fidelity::Refused, what).mended_by(remedy));
        }
    }

    fn kind(&mut self, kind: &Type) {
        match kind {
            Type::Float4 | Type::Vector => self.add(Note::new(
                Fidelity::Exact,
                "numbers by their shortest text: 0.1 is 0.1",
            )),
            Type::Numeric(declared) => self.numeric(*declared),
            Type::Date | Type::Timestamp(_) | Type::TimestampTz(_) => self.time(kind),
            Type::Json => self.json(),
            Type::Hstore => self.add(Note::new(
                Fidelity::OtherForm,
                "with a key that begins with $ the whole value is a String",
            )),
            Type::Array(element, _) => {
                if !self.is_key() {
                    let what = "an array that is not counted from 1 loses its lower bounds";
                    self.add(Note::new(Fidelity::Lossy, what));
                }
                self.kind(element);
            }
            Type::Range(part) | Type::Multirange(part) => self.kind(part),
            Type::Composite(attributes) => {
                if is_text(kind) {
                    let what = "a String: a field of the type begins with $";
                    self.add(Note::new(Fidelity::OtherForm, what));
                    return;
                }
                for attribute in attributes.iter() {
                    self.kind(&attribute.kind);
                }
            }
            Type::Text if *kind == self.column.kind && !is_plain_text(&self.column.type_name) => {
                self.add(Note::new(Fidelity::Exact, "PostgreSQL's text"));
            }
            _ => {}
        }
    }

    fn numeric(&mut self, declared: Option<(u16, i16)>) {
        if declared.is_some_and(|declared| most_digits(declared) <= decimal::MAX_DIGITS) {
            return;
        }
        let declare = format!("a precision of {} digits at most", decimal::MAX_DIGITS);
        let digits = format!("more than {} digits", decimal::MAX_DIGITS);
        self.add(match self.policies.numeric_overflow {
            NumericOverflow::String => Note::new(
                Fidelity::OtherForm,
                format!("a number of {digits} is a String"),
            )
            .mended_by(format!(
                "{declare}; numeric_overflow = \"error\" refuses such a number"
            )),
            NumericOverflow::Error => Note::new(
                Fidelity::Refused,
                format!("a row with a number of {digits} is refused"),
            )
            .mended_by(format!("{declare}, or numeric_overflow = \"string\"")),
        });
    }

    fn time(&mut self, kind: &Type) {
        let what = "infinity and -infinity are Strings";
        self.add(Note::new(Fidelity::OtherForm, what));
        if !is_finer_than_dates(kind) {
            return;
        }
        let is_part = *kind != self.column.kind;
        let shorter = "a precision of 3 digits at most";
        if self.is_key() {
            let what = "microseconds are cut off, but not in _id, which has ISO 8601 text";
            self.add(Note::new(Fidelity::OtherForm, what));
        } else if is_part {
            let what = "microseconds are cut off, whatever `microseconds` says, within a value";
            let remedy = format!("{shorter}, or a column of its own");
            self.add(Note::new(Fidelity::Lossy, what).mended_by(remedy));
        } else if self.policies.microseconds == Microseconds::Truncate {
            let remedy = format!("microseconds = \"keep\", or {shorter}");
            self.add(Note::new(Fidelity::Lossy, "microseconds are cut off").mended_by(remedy));
        }
    }

    fn json(&mut self) {
        let what = "what BSON cannot hold, as a key that begins with $, makes the whole value a String; a number \
                    beyond Decimal128 is one itself";
        self.add(Note::new(Fidelity::OtherForm, what));
        let what = "numbers keep their value, not their zeros: 1.50 is 1.5";
        self.add(Note::new(Fidelity::Exact, what));
        if !self.is_key() && !matches!(&*self.column.type_name, "jsonb" | "_jsonb") {
            let what = "of members with the same key only the last stays";
            let remedy = "jsonb, which never has others";
            self.add(Note::new(Fidelity::Lossy, what).mended_by(remedy));
        }
    }

    fn key(&mut self) {
        if !self.is_key() {
            return;
        }
        let form = match &self.column.kind {
            Type::Json => "its text",
            kind if is_finer_than_dates(kind) => "ISO 8601 text",
            Type::Array(..) | Type::Multirange(_) | Type::Vector => "{array: [...]}",
            _ => return,
        };
        self.add(Note::new(Fidelity::Exact, format!("in _id it is {form}")));
    }
}

/// The BSON type of a type's values.
fn bson_type(kind: &Type) -> String {
    let name = match kind {
        Type::Bool => "Boolean",
        Type::Int2 | Type::Int4 => "Int32",
        Type::Int8 | Type::Oid => "Int64",
        Type::Float4 | Type::Float8 => "Double",
        Type::Numeric(_) | Type::Money(_) => "Decimal128",
        Type::Bytea => "Binary",
        Type::Uuid => "Binary (UUID)",
        Type::Date | Type::Timestamp(_) | Type::TimestampTz(_) => "Date",
        Type::Json => "Document, Array or scalar",
        Type::Point => "Document {x, y: Double}",
        Type::Hstore => "Document of String",
        Type::Vector => "Array of Double",
        Type::Array(element, _) => return format!("Array of {}", bson_type(element)),
        Type::Range(bound) => return range(bound),
        Type::Multirange(bound) => return format!("Array of {}", range(bound)),
        Type::Composite(attributes) if !is_text(kind) => {
            let fields = attributes
                .iter()
                .map(|it| format!("{}: {}", it.name, bson_type(&it.kind)));
            return format!("Document {{{}}}", fields.collect::<Vec<_>>().join(", "));
        }
        Type::Time(_)
        | Type::TimeTz
        | Type::Interval
        | Type::Bit(_)
        | Type::Text
        | Type::Composite(_) => "String",
    };
    name.to_owned()
}

fn range(bound: &Type) -> String {
    format!("Document {{lower, upper: {}, ...}}", bson_type(bound))
}

/// Whether a composite is always its text.
fn is_text(kind: &Type) -> bool {
    let Type::Composite(attributes) = kind else {
        return false;
    };
    attributes.iter().any(|it| !nested::is_name(&it.name))
}

fn is_plain_text(type_name: &str) -> bool {
    let base = type_name.split('(').next().unwrap_or_default();
    TEXTS.contains(&base)
}

/// The most digits that a value of `numeric(precision,scale)` has, zeros before the point that a scale below 0 makes
/// included.
fn most_digits((precision, scale): (u16, i16)) -> usize {
    let zeros = if scale < 0 { scale.unsigned_abs() } else { 0 };
    usize::from(precision) + usize::from(zeros)
}

#[cfg(test)]
mod tests {
    use walferry_schema::Attribute;

    use super::*;

    const KEEP: Policies = Policies {
        numeric_overflow: NumericOverflow::Error,
        microseconds: Microseconds::Keep,
    };

    fn column(name: &str, type_name: &str, kind: Type, key: u16) -> Column {
        Column {
            name: name.into(),
            type_name: type_name.into(),
            kind,
            key,
        }
    }

    /// The form of a column outside the key, alone in its table.
    fn form(type_name: &str, kind: Type, policies: Policies) -> ColumnForm {
        let column = column("c", type_name, kind, 0);
        ColumnForm::of(&column, std::slice::from_ref(&column), policies)
    }

    fn scalar(type_name: &str, policies: Policies) -> ColumnForm {
        form(type_name, Type::from_name(type_name), policies)
    }

    fn worst(form: &ColumnForm) -> Fidelity {
        let fidelities = form.notes.iter().map(|note| note.fidelity);
        fidelities.max().unwrap_or(Fidelity::Exact)
    }

    #[test]
    fn a_number_is_exact_when_its_declared_digits_fit() {
        let cases = [
            ("numeric(34,2)", Fidelity::Exact),
            ("numeric(3,1000)", Fidelity::Exact),
            ("numeric(32,-2)", Fidelity::Exact),
            ("numeric(33,-2)", Fidelity::OtherForm),
            ("numeric(35,0)", Fidelity::OtherForm),
            ("numeric", Fidelity::OtherForm),
        ];
        for (type_name, fidelity) in cases {
            let form = scalar(type_name, Policies::default());
            assert_eq!(
                (&*form.bson, worst(&form)),
                ("Decimal128", fidelity),
                "{type_name}"
            );
        }
        assert_eq!(worst(&scalar("numeric", KEEP)), Fidelity::Refused);
        let list = |declared| form("t", Type::array_of(Type::Numeric(declared)), KEEP);
        assert_eq!(worst(&list(Some((12, 2)))), Fidelity::Lossy);
        assert_eq!(worst(&list(None)), Fidelity::Refused);
    }

    #[test]
    fn microseconds_are_lost_unless_they_are_kept_and_within_values_always() {
        let truncated = scalar("timestamptz", Policies::default());
        assert_eq!(worst(&truncated), Fidelity::Lossy);
        let lossy = truncated
            .notes
            .iter()
            .find(|it| it.fidelity == Fidelity::Lossy);
        let remedy = lossy.unwrap().remedy.as_deref().unwrap();
        assert!(remedy.contains("microseconds = \"keep\""), "{remedy}");
        let kept = scalar("timestamptz", KEEP);
        assert_eq!(
            (&*kept.bson, worst(&kept)),
            ("Date, Int64 c_us", Fidelity::OtherForm)
        );
        assert_eq!(
            worst(&scalar("timestamp(3)", Policies::default())),
            Fidelity::OtherForm
        );
        let attribute = Attribute {
            name: "at".into(),
            kind: Type::Timestamp(6),
        };
        for kind in [
            Type::Range(Type::TimestampTz(6).into()),
            Type::Composite([attribute].into()),
        ] {
            assert_eq!(worst(&form("t", kind, KEEP)), Fidelity::Lossy);
        }
    }

    #[test]
    fn nothing_of_a_key_is_lost() {
        for (type_name, kind, shown) in [
            ("timestamptz", Type::TimestampTz(6), "ISO 8601 text"),
            ("jsonb", Type::Json, "its text"),
            ("_int4", Type::array_of(Type::Int4), "{array: [...]}"),
        ] {
            let column = column("c", type_name, kind, 1);
            let form = ColumnForm::of(&column, std::slice::from_ref(&column), Policies::default());
            assert!(worst(&form) < Fidelity::Lossy, "{form:?}");
            let says = |note: &Note| note.what.contains(shown);
            assert!(form.notes.iter().any(says), "{form:?}");
        }
    }

    #[test]
    fn a_name_that_cannot_be_a_field_is_told_and_refused_when_it_is_taken() {
        let names = [
            column("a.b", "int4", Type::Int4, 0),
            column("a．b", "int4", Type::Int4, 0),
        ];
        let alone = ColumnForm::of(&names[0], &names[..1], Policies::default());
        assert_eq!(worst(&alone), Fidelity::Exact);
        assert_eq!(alone.notes[0].what, "the field is called a．b");
        let both = ColumnForm::of(&names[0], &names, Policies::default());
        assert_eq!(worst(&both), Fidelity::Refused);
        let columns = [
            column("at", "timestamp", Type::Timestamp(6), 0),
            column("at_us", "int8", Type::Int8, 0),
        ];
        let form = |policies| ColumnForm::of(&columns[0], &columns, policies);
        assert_eq!(worst(&form(KEEP)), Fidelity::Refused);
        assert_eq!(worst(&form(Policies::default())), Fidelity::Lossy);
    }

    #[test]
    fn a_value_of_parts_is_described_by_them() {
        let attribute = |name: &str, kind| Attribute {
            name: name.into(),
            kind,
        };
        let pair = |name| Type::Composite([attribute(name, Type::Int4)].into());
        let described = |kind| form("t", kind, Policies::default()).bson;
        assert_eq!(
            described(Type::array_of(pair("a"))),
            "Array of Document {a: Int32}"
        );
        assert_eq!(described(pair("$a")), "String");
        let range = Type::Multirange(Type::Date.into());
        assert_eq!(
            described(range),
            "Array of Document {lower, upper: Date, ...}"
        );
    }

    #[test]
    fn what_travels_as_text_is_told_from_text() {
        let notes = |type_name| scalar(type_name, Policies::default()).notes;
        assert!(notes("text").is_empty() && notes("varchar(20)").is_empty());
        assert_eq!(notes("box")[0].what, "PostgreSQL's text");
    }
}
