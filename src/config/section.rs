//! Reads a section key by key and remembers every mistake.

use std::ops::RangeInclusive;

use config::{Map, Value, ValueKind};

use super::Problem;
use super::setting::Setting;

/// A section on its way into its struct: each key is taken once, what is left is unknown.
pub(super) struct Section<'a> {
    name: &'static str,
    entries: Map<String, Value>,
    asked: Vec<&'static str>,
    is_there: bool,
    problems: &'a mut Vec<Problem>,
}

// === impl Section ===

impl<'a> Section<'a> {
    /// The section that stands under `name`; an absent one has no keys.
    pub(super) fn take(
        name: &'static str,
        root: &mut Map<String, Value>,
        problems: &'a mut Vec<Problem>,
    ) -> Self {
        let value = root.remove(name);
        let is_there = value.is_some();
        let entries = match value.map(|value| value.kind) {
            None => Map::new(),
            Some(ValueKind::Table(entries)) => entries,
            Some(_) => {
                problems.push(Problem::new(name, format!("must be a section: [{name}]")));
                Map::new()
            }
        };
        Self {
            name,
            entries,
            asked: Vec::new(),
            is_there,
            problems,
        }
    }

    /// Whether the section is in the file or the environment at all.
    pub(super) fn is_there(&self) -> bool {
        self.is_there
    }

    /// The value of a key, none when it is absent or mistaken.
    pub(super) fn optional<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        self.read_with(key, T::from_value)
    }

    /// The value of a key that must be there.
    pub(super) fn required<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        if !self.has(key) {
            self.problem(key, "is missing");
        }
        self.optional(key)
    }

    /// The value of a key within a range, or its default.
    pub(super) fn number<T>(&mut self, key: &'static str, default: T, range: RangeInclusive<T>) -> T
    where
        T: TryFrom<i64> + PartialOrd + std::fmt::Display + Copy,
    {
        let (low, high) = (*range.start(), *range.end());
        self.read_with(key, |value| {
            let wanted = || format!("a whole number from {low} to {high}");
            let number = i64::from_value(value).map_err(|_| wanted())?;
            let number = T::try_from(number)
                .ok()
                .filter(|number| range.contains(number));
            number.ok_or_else(wanted)
        })
        .unwrap_or(default)
    }

    /// The value of a key as `read` reads it; it says what the value must be.
    pub(super) fn read_with<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Value) -> Result<T, String>,
    ) -> Option<T> {
        self.asked.push(key);
        match self.entries.remove(key).map(read)? {
            Ok(value) => Some(value),
            Err(wanted) => {
                self.problem(key, format!("must be {wanted}"));
                None
            }
        }
    }

    /// Whether a key is there and not yet taken.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Notes a mistake at a key.
    pub(super) fn problem(&mut self, key: &str, message: impl Into<String>) {
        self.problems
            .push(Problem::new(format!("{}.{key}", self.name), message));
    }

    /// Notes every key that nobody asked for.
    pub(super) fn finish(mut self) {
        let mut unknown: Vec<_> = std::mem::take(&mut self.entries).into_keys().collect();
        unknown.sort();
        let known = self.asked.join(", ");
        for key in unknown {
            self.problem(&key, format!("no such key; [{}] has {known}", self.name));
        }
    }
}
