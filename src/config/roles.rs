//! `[[role]]`: who may read what of the documents.
//!
//! - What is not stated is not shown: a role reads the tables and collections that it names, and nothing else.
//! - A condition that could be forgotten is a mistake: an empty filter, a parent that any row would do for.

use std::collections::BTreeMap;

use config::{Value, ValueKind};
use serde_json::Value as Json;
use walferry_mongodb::{Literal, Mask};

use super::Problem;
use super::section::{Findings, Section};
use super::setting::{Setting, choice};

const MAX_NAME_BYTES: usize = 64;
const WITHOUT_COLUMNS: &str = "wants columns beside it, with _id where that is to be shown: of a collection that is no \
                               table's nobody knows where a masked value stands a second time";

/// A `[[role]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Role {
    /// `name`: the role in MongoDB, and the beginning of its views' names; letters, digits, `_` and `-`.
    pub name: String,
    /// Each `[[role.read]]`.
    pub reads: Vec<Read>,
}

/// A `[[role.read]]`: what a role sees of some tables or collections.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// Where it stands in the configuration: `role[0].read[1]`.
    pub key: String,
    /// `tables`: the tables, as `public.orders` or `orders`.
    pub tables: Vec<String>,
    /// `collections`: collections and views that are no table's.
    pub collections: Vec<String>,
    /// `filter`: the values that columns must have, all of them; empty for all rows.
    pub filter: Filter,
    /// `through`: the row that another table must have for each.
    pub through: Option<Through>,
    /// `columns`: what is shown of a row; all of it when they are not named.
    pub columns: Option<Vec<String>>,
    /// `masks`: what is shown in the place of a column's values.
    pub masks: Masks,
}

/// `through`: a row that another table must have.
#[derive(Clone, Debug, PartialEq)]
pub struct Through {
    /// Where it stands in the configuration.
    pub key: String,
    /// `table`: the other table.
    pub table: String,
    /// `by`: each of our columns with the one of the other table that is equal.
    pub by: BTreeMap<String, String>,
    /// `filter`: the values that its columns must have.
    pub filter: Filter,
    /// `through`: the row that a further table must have for it.
    pub through: Option<Box<Through>>,
}

/// Columns with the values that they may have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter(pub BTreeMap<String, Vec<Literal>>);

/// Columns with what is shown in their values' place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masks(pub BTreeMap<String, Mask>);

/// The roles in their order.
pub(super) fn read(value: Option<Value>, findings: &mut Findings) -> Option<Vec<Role>> {
    let entries = list("role", value, "[[role]]", findings)?;
    let roles = entries.into_iter().enumerate();
    let roles: Vec<_> = roles
        .map(|(index, entry)| Role::read(&format!("role[{index}]"), entry, findings))
        .collect();
    let roles = roles.into_iter().collect::<Option<Vec<_>>>()?;
    for (index, role) in roles.iter().enumerate() {
        if roles[..index].iter().any(|it| it.name == role.name) {
            let key = format!("role[{index}].name");
            let message = "is the name of another role: put what it reads there";
            findings.problems.push(Problem::new(key, message));
        }
    }
    Some(roles)
}

// === impl Role ===

impl Role {
    fn read(key: &str, entry: Value, findings: &mut Findings) -> Option<Self> {
        let mut section = Section::new(key, Some(entry), findings);
        let name = section.required::<String>("name");
        if name.as_deref().is_some_and(|name| !is_role_name(name)) {
            let message = "must be 1 to 64 letters, digits, _ and -, and not \"system\"";
            section.problem("name", message);
        }
        let reads = section.nested("read");
        if reads.is_none() {
            section.problem(
                "read",
                "is missing: give the role a [[role.read]] with tables",
            );
        }
        section.finish();
        let reads = list(&format!("{key}.read"), reads, "[[role.read]]", findings)?;
        let reads = reads.into_iter().enumerate();
        let reads: Vec<_> = reads
            .map(|(index, entry)| Read::entry(format!("{key}.read[{index}]"), entry, findings))
            .collect();
        if reads.is_empty() {
            let message = "is empty: give the role a [[role.read]], or leave the role out";
            let problem = Problem::new(format!("{key}.read"), message);
            findings.problems.push(problem);
        }
        Some(Self {
            name: name?,
            reads: reads.into_iter().collect::<Option<_>>()?,
        })
    }
}

// === impl Read ===

impl Read {
    fn entry(key: String, entry: Value, findings: &mut Findings) -> Option<Self> {
        let mut section = Section::new(&key, Some(entry), findings);
        let tables = section.optional::<Vec<String>>("tables");
        let collections = section.optional::<Vec<String>>("collections");
        if tables.is_none() && collections.is_none() {
            section.problem("tables", "is missing: name tables, or collections");
        }
        let filter = read_filter(&mut section);
        let columns = section.optional::<Vec<String>>("columns");
        let masks: Option<Masks> = section.optional("masks");
        let masks = masks.unwrap_or_default();
        check_masks(
            &mut section,
            &masks,
            columns.as_deref(),
            collections.is_some(),
        );
        let through = section.nested("through");
        section.finish();
        let through = through.map(|it| Through::read(format!("{key}.through"), it, findings));
        Some(Self {
            key,
            tables: tables.unwrap_or_default(),
            collections: collections.unwrap_or_default(),
            filter,
            through: match through {
                None => None,
                Some(through) => Some(through?),
            },
            columns,
            masks,
        })
    }
}

// === impl Through ===

impl Through {
    fn read(key: String, entry: Value, findings: &mut Findings) -> Option<Self> {
        let mut section = Section::new(&key, Some(entry), findings);
        let table = section.required("table");
        let by = section.required::<BTreeMap<String, String>>("by");
        if by.as_ref().is_some_and(BTreeMap::is_empty) {
            section.problem("by", "names no column");
        }
        let filter = read_filter(&mut section);
        let through = section.nested("through");
        if filter.0.is_empty() && through.is_none() {
            let message = "is missing: any row of the table would do; give it a filter, or a parent of its own (through)";
            section.problem("filter", message);
        }
        section.finish();
        let through = through.map(|it| Self::read(format!("{key}.through"), it, findings));
        Some(Self {
            key,
            table: table?,
            by: by?,
            filter,
            through: match through {
                None => None,
                Some(through) => Some(Box::new(through?)),
            },
        })
    }
}

// === impl Filter ===

impl Setting for Filter {
    fn from_value(value: Value) -> Result<Self, String> {
        let wanted =
            "columns with their values, like { store_id = 1 } or { status = [\"open\", \"paid\"] }";
        let ValueKind::Table(columns) = value.kind else {
            return Err(wanted.into());
        };
        let values = |value: Value| match value.kind {
            ValueKind::Array(values) => values.into_iter().map(literal).collect(),
            _ => literal(value).map(|it| vec![it]),
        };
        let columns = columns.into_iter();
        let columns = columns.map(|(column, value)| Some((column, values(value)?)));
        let columns: Option<BTreeMap<_, Vec<_>>> = columns.collect();
        let filter = columns.filter(|it| it.values().all(|values| !values.is_empty()));
        filter.map(Self).ok_or_else(|| wanted.into())
    }

    fn shown(&self) -> Json {
        let shown = |values: &Vec<Literal>| match &values[..] {
            [one] => shown_literal(one),
            several => several.iter().map(shown_literal).collect(),
        };
        let columns = self.0.iter();
        columns
            .map(|(column, it)| (column.clone(), shown(it)))
            .collect()
    }
}

// === impl Masks ===

impl Setting for Masks {
    fn from_value(value: Value) -> Result<Self, String> {
        let ValueKind::Table(columns) = value.kind else {
            return Err("columns with their masks, like { email = \"email\" }".into());
        };
        let masks = columns.into_iter();
        let masks = masks.map(|(column, mask)| Ok((column, choice(mask, &Mask::ALL)?)));
        masks.collect::<Result<_, _>>().map(Self)
    }

    fn shown(&self) -> Json {
        let name = |mask: Mask| Mask::ALL.iter().find(|(_, it)| *it == mask);
        let masks = self.0.iter();
        masks
            .map(|(column, mask)| {
                let name = name(*mask).map_or(Json::Null, |(name, _)| (*name).into());
                (column.clone(), name)
            })
            .collect()
    }
}

/// An empty one could be one that lost its condition.
fn read_filter(section: &mut Section<'_>) -> Filter {
    let filter = section.optional::<Filter>("filter");
    if filter.as_ref().is_some_and(|it| it.0.is_empty()) {
        section.problem(
            "filter",
            "names no column: leave it out where all rows are meant",
        );
    }
    filter.unwrap_or_default()
}

fn check_masks(
    section: &mut Section<'_>,
    masks: &Masks,
    columns: Option<&[String]>,
    has_collections: bool,
) {
    let Some(columns) = columns else {
        if has_collections && !masks.0.is_empty() {
            section.problem("masks", WITHOUT_COLUMNS);
        }
        return;
    };
    for column in masks.0.keys().filter(|it| !columns.contains(it)) {
        let message = format!("{column} is not among the columns, so that nothing of it is shown");
        section.problem("masks", message);
    }
}

fn list(
    key: &str,
    value: Option<Value>,
    heading: &str,
    findings: &mut Findings,
) -> Option<Vec<Value>> {
    match value.map(|value| value.kind) {
        None => Some(Vec::new()),
        Some(ValueKind::Array(entries)) => Some(entries),
        Some(_) => {
            let message = format!("must be a list of sections: {heading}");
            findings.problems.push(Problem::new(key, message));
            None
        }
    }
}

fn literal(value: Value) -> Option<Literal> {
    match value.kind {
        ValueKind::Boolean(value) => Some(Literal::Bool(value)),
        ValueKind::I64(value) => Some(Literal::Integer(value)),
        // Nothing is equal to what is no number.
        ValueKind::Float(value) if !value.is_nan() => Some(Literal::Float(value)),
        ValueKind::String(value) => Some(Literal::Text(value)),
        _ => None,
    }
}

fn shown_literal(literal: &Literal) -> Json {
    match literal {
        Literal::Bool(value) => (*value).into(),
        Literal::Integer(value) => (*value).into(),
        Literal::Float(value) => (*value).into(),
        Literal::Text(value) => value.as_str().into(),
    }
}

fn is_role_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(is_allowed) && name != "system"
}
