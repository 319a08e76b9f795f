//! What is shown in a value's place, as an expression of MongoDB's own, without JavaScript.
//!
//! - Whatever a mask does not know how to show a part of, it shows nothing of.

use bson::{Bson, doc};

/// Stands for what is hidden.
const HIDDEN: &str = "***";

/// What is shown in a value's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// The same text for the same value, by the function of hashed indexes: 64 bits, without a key. Who guesses a value can
    /// see that the guess is right.
    Hash,
    /// `***`, for SQL NULL too.
    Redact,
    /// Null.
    Null,
    /// The first character, then `***`.
    First,
    /// The first character of an e-mail address and what comes after its `@`: `j***@example.com`.
    Email,
}

// === impl Mask ===

impl Mask {
    /// Every mask by its name in a configuration.
    pub const ALL: [(&'static str, Self); 5] = [
        ("hash", Self::Hash),
        ("redact", Self::Redact),
        ("null", Self::Null),
        ("first", Self::First),
        ("email", Self::Email),
    ];

    /// The expression over a field.
    pub(crate) fn of(self, field: &str) -> Bson {
        let value = format!("${field}");
        match self {
            Self::Redact => HIDDEN.into(),
            Self::Null => Bson::Null,
            Self::Hash => unless_null(&value, hash(&value)),
            Self::First => of_text(&value, first(&value)),
            Self::Email => of_text(&value, email(&value)),
        }
    }
}

/// The hash of a number would leave out its fraction: its text is what is hashed.
fn hash(value: &str) -> Bson {
    let whole = doc! { "$cond": [{ "$isNumber": value }, { "$toString": value }, value] };
    doc! { "$toString": { "$toHashedIndexKey": whole } }.into()
}

fn first(value: &str) -> Bson {
    doc! { "$concat": [{ "$substrCP": [value, 0, 1] }, HIDDEN] }.into()
}

fn email(value: &str) -> Bson {
    let parts = doc! { "$split": [value, "@"] };
    let domain = doc! { "$arrayElemAt": [&parts, -1] };
    let shown = doc! { "$concat": [{ "$substrCP": [value, 0, 1] }, HIDDEN, "@", domain] };
    doc! { "$cond": [{ "$gt": [{ "$size": parts }, 1] }, shown, HIDDEN] }.into()
}

fn of_text(value: &str, shown: Bson) -> Bson {
    let is_text = doc! { "$eq": [{ "$type": value }, "string"] };
    let of_others = unless_null(value, HIDDEN.into());
    doc! { "$cond": [is_text, shown, of_others] }.into()
}

/// A missing value counts as null.
fn unless_null(value: &str, shown: Bson) -> Bson {
    let is_null = doc! { "$lte": [value, Bson::Null] };
    doc! { "$cond": [is_null, Bson::Null, shown] }.into()
}
