//! Overrides from the environment.
//!
//! - `WALFERRY__SINK__GROUP_ROWS` is `group_rows` of `[sink]`; `WALFERRY__TABLE__0__MODE` is `mode`
//!   of the first `[[table]]`.
//! - `WALFERRY__KAFKA__PROPERTIES__SASL_PASSWORD` is `"sasl.password"` of `[kafka] properties`:
//!   librdkafka's names have points, which a shell's variables cannot.
//! - A value carries the name of its variable: that is what tells it from the file's.

use config::builder::{ConfigBuilder, DefaultState};
use config::{Map, Value, ValueKind};

use super::Problem;

const PREFIX: &str = "WALFERRY__";
const PROPERTIES: &str = "kafka.properties.";

/// The variables that are meant for the configuration.
pub(super) struct Environment {
    overrides: Vec<Override>,
    properties: Vec<(String, Value)>,
}

struct Override {
    variable: String,
    path: String,
    value: String,
}

// === impl Environment ===

impl Environment {
    pub(super) fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut environment = Self {
            overrides: Vec::new(),
            properties: Vec::new(),
        };
        for (variable, value) in variables {
            let Some(path) = variable.strip_prefix(PREFIX).map(path_of) else {
                continue;
            };
            if let Some(property) = path.strip_prefix(PROPERTIES) {
                let value = Value::new(Some(&variable), ValueKind::String(value));
                environment
                    .properties
                    .push((property.replace('_', "."), value));
            } else {
                environment.overrides.push(Override {
                    variable,
                    path,
                    value,
                });
            }
        }
        // A later table follows the earlier ones, whatever the environment's order.
        environment.overrides.sort_by(|a, b| a.path.cmp(&b.path));
        environment
    }

    pub(super) fn override_in(
        &self,
        mut builder: ConfigBuilder<DefaultState>,
        problems: &mut Vec<Problem>,
    ) -> ConfigBuilder<DefaultState> {
        for Override {
            variable,
            path,
            value,
        } in &self.overrides
        {
            let value = Value::new(Some(variable), value.as_str());
            match builder.clone().set_override(path, value) {
                Ok(overridden) => builder = overridden,
                Err(_) => {
                    problems.push(Problem::new(variable, "names no key of the configuration"));
                }
            }
        }
        builder
    }

    pub(super) fn add_properties(self, root: &mut Map<String, Value>) {
        if self.properties.is_empty() {
            return;
        }
        let kafka = table_in(root, "kafka");
        table_in(kafka, "properties").extend(self.properties);
    }
}

/// `TABLE__0__NAME` → `table[0].name`
fn path_of(variable: &str) -> String {
    let mut path = String::new();
    for part in variable.split("__") {
        if !path.is_empty() && part.parse::<usize>().is_ok() {
            path = format!("{path}[{part}]");
            continue;
        }
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(&part.to_lowercase());
    }
    path
}

/// The table under a key; whatever else stands there gives way.
fn table_in<'a>(parent: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let empty = || ValueKind::Table(Map::new());
    let value = parent
        .entry(key.to_owned())
        .or_insert_with(|| Value::new(None, empty()));
    if !matches!(value.kind, ValueKind::Table(_)) {
        value.kind = empty();
    }
    match &mut value.kind {
        ValueKind::Table(table) => table,
        _ => unreachable!("the value was made a table"),
    }
}
