//! Reads a section key by key and remembers every mistake, and what is in effect.

use std::ops::RangeInclusive;

use config::{Map, Value, ValueKind};
use serde::Serialize;
use serde_json::Value as Json;

use super::effective::{self, Effective, Exact, Origin};
use super::setting::{Setting, choice};
use super::{ConnectionUrl, Problem, secret};

/// The key of more settings, whose names are another library's.
const PROPERTIES: &str = "properties";

/// A section on its way into its struct: each key is taken once, what is left is unknown.
pub(super) struct Section<'a> {
    name: String,
    entries: Map<String, Value>,
    asked: Vec<&'static str>,
    is_there: bool,
    findings: &'a mut Findings,
}

/// What reading brings to light beside the values themselves.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    pub(super) effective: Vec<Effective>,
}

/// A value's type, as far as reading and showing it goes.
struct Kind<R, S> {
    read: R,
    show: S,
}

// === impl Section ===

impl<'a> Section<'a> {
    /// The section that stands under `name`; an absent one has no keys.
    pub(super) fn take(
        name: &str,
        root: &mut Map<String, Value>,
        findings: &'a mut Findings,
    ) -> Self {
        Self::new(name, root.remove(name), findings)
    }

    /// A section that was found, or not.
    pub(super) fn new(name: &str, value: Option<Value>, findings: &'a mut Findings) -> Self {
        let is_there = value.is_some();
        let entries = match value.map(|value| value.kind) {
            None => Map::new(),
            Some(ValueKind::Table(entries)) => entries,
            Some(_) => {
                let message = format!("must be a section: {}", effective::heading(name));
                findings.problems.push(Problem::new(name, message));
                Map::new()
            }
        };
        Self {
            name: name.to_owned(),
            entries,
            asked: Vec::new(),
            is_there,
            findings,
        }
    }

    /// Whether the section is in the file or the environment at all.
    pub(super) fn is_there(&self) -> bool {
        self.is_there
    }

    /// The value of a key, none when it is absent or mistaken.
    pub(super) fn optional<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        self.read(key, None, &setting())
    }

    /// The value of a key, or its default.
    pub(super) fn or<T: Setting>(&mut self, key: &'static str, default: T) -> T {
        self.read(key, Some(&default), &setting())
            .unwrap_or(default)
    }

    /// The value of a key that must be there.
    pub(super) fn required<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        self.require(key);
        self.optional(key)
    }

    /// The value of a key within a range, or its default.
    pub(super) fn number<T>(&mut self, key: &'static str, default: T, range: RangeInclusive<T>) -> T
    where
        T: TryFrom<i64> + PartialOrd + std::fmt::Display + Copy + Serialize,
    {
        self.read(key, Some(&default), &within(range))
            .unwrap_or(default)
    }

    /// The value of a key within a range, none when it is absent or mistaken.
    pub(super) fn optional_number<T>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<T>,
    ) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + std::fmt::Display + Copy + Serialize,
    {
        self.read(key, None, &within(range))
    }

    /// The choice of a name among several, or the default.
    pub(super) fn choice<T>(&mut self, key: &'static str, choices: &[(&str, T)]) -> T
    where
        T: Copy + PartialEq + Default,
    {
        self.choice_or(key, choices, T::default())
    }

    /// The choice of a name among several, or this one.
    pub(super) fn choice_or<T>(&mut self, key: &'static str, choices: &[(&str, T)], default: T) -> T
    where
        T: Copy + PartialEq,
    {
        self.read(key, Some(&default), &one_of(choices))
            .unwrap_or(default)
    }

    /// The choice of a name among several, which must be there.
    pub(super) fn required_choice<T>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
    ) -> Option<T>
    where
        T: Copy + PartialEq,
    {
        self.require(key);
        self.read(key, None, &one_of(choices))
    }

    /// What stands under a key that is a section of its own, or several; it is for whoever reads those.
    pub(super) fn nested(&mut self, key: &'static str) -> Option<Value> {
        self.asked.push(key);
        self.entries.remove(key)
    }

    /// Whether a key is there and not yet taken.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Notes a mistake at a key.
    pub(super) fn problem(&mut self, key: &str, message: impl Into<String>) {
        let problem = Problem::new(format!("{}.{key}", self.name), message);
        self.findings.problems.push(problem);
    }

    /// Notes that the URL in effect stands in a file of its own.
    pub(super) fn url_is_in_file(&mut self, url: &ConnectionUrl, path: String) {
        let is_url = |it: &&mut Effective| it.section == self.name && it.key == "url";
        if let Some(effective) = self.findings.effective.iter_mut().find(is_url) {
            effective.value = url.shown();
            effective.exact = Exact(url.expose().into());
            effective.origin = Origin::UrlFile { path };
        }
    }

    /// Notes that a secret property stands in a file of its own.
    pub(super) fn property_is_in_file(
        &mut self,
        property: &str,
        secret: &str,
        key: &'static str,
        path: String,
    ) {
        let is_empty = |it: &Effective| it.value.as_object().is_some_and(serde_json::Map::is_empty);
        let is_properties = |it: &Effective| it.section == self.name && it.key == PROPERTIES;
        let effective = &mut self.findings.effective;
        effective.retain(|it| !(is_properties(it) && is_empty(it)));
        let (shown, exact) = (secret::HIDDEN.into(), Exact(secret.into()));
        let origin = Origin::SecretFile { key, path };
        self.record(format!("{PROPERTIES}.{property:?}"), shown, exact, origin);
    }

    /// Notes every key that nobody asked for.
    pub(super) fn finish(mut self) {
        let mut unknown: Vec<_> = std::mem::take(&mut self.entries).into_keys().collect();
        unknown.sort();
        let (heading, known) = (effective::heading(&self.name), self.asked.join(", "));
        for key in unknown {
            self.problem(&key, format!("no such key; {heading} has {known}"));
        }
    }

    fn require(&mut self, key: &str) {
        if !self.has(key) {
            self.problem(key, "is missing");
        }
    }

    /// The value of a key, none when it is absent or mistaken; what is in effect is recorded.
    fn read<T, R, S>(
        &mut self,
        key: &'static str,
        default: Option<&T>,
        kind: &Kind<R, S>,
    ) -> Option<T>
    where
        R: Fn(Value) -> Result<T, String>,
        S: Fn(&T) -> Json,
    {
        self.asked.push(key);
        let Some(found) = self.entries.remove(key) else {
            let shown = default.map_or(Json::Null, &kind.show);
            let exact = Exact(shown.clone());
            self.record(key.to_owned(), shown, exact, Origin::Default);
            return None;
        };
        match (kind.read)(found.clone()) {
            Ok(value) => {
                self.record_found(key, (kind.show)(&value), &found);
                Some(value)
            }
            Err(wanted) => {
                self.problem(key, format!("must be {wanted}"));
                None
            }
        }
    }

    /// Each part of a table has an origin of its own.
    fn record_found(&mut self, key: &str, shown: Json, found: &Value) {
        match (shown, &found.kind) {
            (Json::Object(parts), ValueKind::Table(found)) => {
                for (name, shown) in parts {
                    let stated = found.get(&name);
                    let origin = stated.map_or(Origin::File, Origin::of);
                    let exact = stated.map_or(Exact(Json::Null), |it| Exact::of(&shown, it));
                    self.record(format!("{key}.{name:?}"), shown, exact, origin);
                }
            }
            (shown, _) => {
                let exact = Exact::of(&shown, found);
                self.record(key.to_owned(), shown, exact, Origin::of(found));
            }
        }
    }

    fn record(&mut self, key: String, value: Json, exact: Exact, origin: Origin) {
        self.findings.effective.push(Effective {
            section: self.name.clone(),
            key,
            value,
            origin,
            exact,
        });
    }
}

fn setting<T: Setting>() -> Kind<impl Fn(Value) -> Result<T, String>, impl Fn(&T) -> Json> {
    Kind {
        read: T::from_value,
        show: T::shown,
    }
}

fn within<T>(
    range: RangeInclusive<T>,
) -> Kind<impl Fn(Value) -> Result<T, String>, impl Fn(&T) -> Json>
where
    T: TryFrom<i64> + PartialOrd + std::fmt::Display + Copy + Serialize,
{
    let read = move |value| {
        let wanted = || format!("a whole number from {} to {}", range.start(), range.end());
        let number = i64::from_value(value).map_err(|_| wanted())?;
        let number = T::try_from(number).ok();
        number.filter(|it| range.contains(it)).ok_or_else(wanted)
    };
    Kind {
        read,
        show: |number: &T| serde_json::json!(number),
    }
}

fn one_of<'a, T: Copy + PartialEq>(
    choices: &'a [(&'a str, T)],
) -> Kind<impl Fn(Value) -> Result<T, String> + 'a, impl Fn(&T) -> Json + 'a> {
    let name_of = |chosen: &T| {
        let choice = choices.iter().find(|(_, value)| value == chosen);
        choice.map_or(Json::Null, |(name, _)| (*name).into())
    };
    Kind {
        read: |value| choice(value, choices),
        show: name_of,
    }
}
