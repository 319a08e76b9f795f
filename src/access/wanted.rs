//! From the configuration and the source's catalog to the views and roles that there should be.
//!
//! - Every mistake is told at once, each with its key.
//! - Tables are those that are streamed or loaded, with the columns that their documents have now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use walferry_core::{Fault, Tasks};
use walferry_etl::Mode;
use walferry_mongodb::{
    Condition, Fields, Grants, Join, Naming, Parent, Policies, Rows, Shown, TableFields,
};
use walferry_schema::{Relation, TableName};

use super::AccessError;
use crate::config::{Config, ConfigError, Filter, Problem, Read, Role, Through};
use crate::pipeline::connect::mongodb_settings;
use crate::snapshot::Preparation;

/// MongoDB's names of collections with their databases have so many bytes at most.
const MAX_NAMESPACE_BYTES: usize = 255;

/// What there should be, and what that rests on.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) grants: Grants,
    /// The collections that views read.
    pub(super) collections: BTreeSet<String>,
    /// Fields that filters compare and no catalog knows, each with its collection.
    pub(super) fields: BTreeSet<(String, String)>,
}

/// Puts it together.
struct Builder<'a> {
    config: &'a Config,
    policies: Policies,
    tables: Tables,
    wanted: Wanted,
    problems: Vec<Problem>,
}

/// The tables that roles name.
#[derive(Default)]
struct Tables {
    /// By the names that the configuration has for them; none for one that cannot be used.
    named: BTreeMap<String, Option<Arc<Relation>>>,
    /// Of every table that is there.
    all: BTreeSet<TableName>,
    /// The collections of all of them.
    collections: BTreeSet<String>,
}

// === impl Wanted ===

impl Wanted {
    /// What the configuration asks for.
    ///
    /// # Errors
    /// All mistakes in it; when PostgreSQL cannot be asked.
    pub(super) async fn of(config: &Config, tasks: &Tasks) -> Result<Self, AccessError> {
        let mut problems = Vec::new();
        let tables = Tables::look(config, tasks, &mut problems).await?;
        let mut builder = Builder {
            config,
            policies: mongodb_settings(config).policies,
            tables,
            wanted: Self::default(),
            problems,
        };
        for (index, role) in config.roles.iter().enumerate() {
            builder.role(index, role);
        }
        if builder.problems.is_empty() {
            return Ok(builder.wanted);
        }
        let file = config.file().to_owned();
        let problems = builder.problems;
        Err(ConfigError::Invalid { file, problems }.into())
    }
}

// === impl Tables ===

impl Tables {
    /// Describes the tables that roles name; asks nobody when there are no roles.
    async fn look(
        config: &Config,
        tasks: &Tasks,
        problems: &mut Vec<Problem>,
    ) -> Result<Self, Fault> {
        let names = names(&config.roles);
        let mut tables = Self::default();
        if config.roles.is_empty() {
            return Ok(tables);
        }
        let mut preparation = Box::pin(Preparation::begin(config, tasks)).await?;
        let all = preparation.listed().iter().map(|it| it.name.clone());
        tables.all = all.collect();
        let collections = tables.all.iter().map(|it| Naming.collection(it));
        tables.collections = collections.flatten().collect();
        for (name, key) in names {
            let relation = match preparation.choose(config, std::slice::from_ref(&name)) {
                Ok(chosen) => described(&mut preparation, chosen).await?,
                Err(error) => {
                    problems.push(Problem::new(key, error.to_string()));
                    None
                }
            };
            tables.named.insert(name, relation);
        }
        Ok(tables)
    }

    fn get(&self, name: &str) -> Option<Arc<Relation>> {
        self.named.get(name)?.clone()
    }

    /// Whether a role of this name could have views that are called like collections of tables.
    fn has(&self, role: &str) -> bool {
        let mut all = self.all.iter();
        all.any(|it| *it.schema == *role || *it.table == *role)
    }
}

async fn described(
    preparation: &mut Preparation,
    chosen: Vec<(TableName, Mode)>,
) -> Result<Option<Arc<Relation>>, Fault> {
    let Some((name, mode)) = chosen.into_iter().next() else {
        return Ok(None);
    };
    let table = preparation.describe(&name, mode == Mode::Stream).await?;
    Ok(Some(table.relation().clone()))
}

/// Every table that is named, with the first key that does.
fn names(roles: &[Role]) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for read in roles.iter().flat_map(|role| &role.reads) {
        for table in &read.tables {
            let key = || format!("{}.tables", read.key);
            names.entry(table.clone()).or_insert_with(key);
        }
        let mut through = read.through.as_ref();
        while let Some(it) = through {
            let key = || format!("{}.table", it.key);
            names.entry(it.table.clone()).or_insert_with(key);
            through = it.through.as_deref();
        }
    }
    names
}

// === impl Builder ===

impl Builder<'_> {
    fn role(&mut self, index: usize, role: &Role) {
        if self.tables.has(&role.name) {
            let message = "is the name of a table or a schema: its views could be called like a table's collections";
            self.problem(&format!("role[{index}].name"), message);
        }
        for read in &role.reads {
            for table in &read.tables {
                let relation = self.tables.get(table);
                let shown = relation.and_then(|it| self.table(read, &it));
                self.view(role, read, shown.as_ref());
            }
            for collection in &read.collections {
                let shown = self.collection(read, collection);
                self.view(role, read, shown.as_ref());
            }
        }
    }

    fn table(&mut self, read: &Read, relation: &Relation) -> Option<Shown> {
        let collection = self.collection_of(&read.key, "tables", &relation.name)?;
        let table = self.fields_of(relation);
        let fields = table.fields(read.columns.as_deref(), &read.masks.0);
        let fields = self.noted(&read.key, "columns", fields);
        let rows = self.rows(
            &read.key,
            &read.filter,
            read.through.as_ref(),
            Some(relation),
        );
        Some(Shown {
            collection,
            rows: rows?,
            fields: fields?,
        })
    }

    fn collection(&mut self, read: &Read, collection: &str) -> Option<Shown> {
        let fields = read.filter.0.keys().chain(read.columns.iter().flatten());
        let is_odd = |it: &str| it.is_empty() || it.starts_with('$') || it.contains('\0');
        let has_odd = fields.clone().any(|it| is_odd(it) || it.contains('.'));
        if has_odd || is_odd(collection) || collection.starts_with("system.") {
            let message =
                format!("{collection}, or a field of it, has no name that a view can use");
            self.problem(&format!("{}.collections", read.key), message);
            return None;
        }
        if self.tables.collections.contains(collection) {
            let message = format!("{collection} is a table's: name the table under tables");
            self.problem(&format!("{}.collections", read.key), message);
            return None;
        }
        let listed = |columns: &Vec<String>| Fields::of_collection(columns, &read.masks.0);
        let fields = read.columns.as_ref().map_or(Fields::All, listed);
        let rows = self.rows(&read.key, &read.filter, read.through.as_ref(), None)?;
        let of_filter = read.filter.0.keys();
        let of_filter = of_filter.map(|field| (collection.to_owned(), field.clone()));
        self.wanted.fields.extend(of_filter);
        let collection = collection.to_owned();
        Some(Shown {
            collection,
            rows,
            fields,
        })
    }

    fn view(&mut self, role: &Role, read: &Read, shown: Option<&Shown>) {
        let Some(shown) = shown else { return };
        let view = format!("{}.{}", role.name, shown.collection);
        let bytes = self.config.sink.database.len() + 1 + view.len();
        if bytes > MAX_NAMESPACE_BYTES {
            let message = format!("the view {view} would have too long a name for MongoDB");
            return self.problem(&read.key, message);
        }
        if self.tables.collections.contains(&view) {
            let message = format!("the view {view} would have the name of a table's collection");
            return self.problem(&read.key, message);
        }
        if self.wanted.grants.views.contains_key(&view) {
            let message = format!("reads {} a second time", shown.collection);
            return self.problem(&read.key, message);
        }
        self.wanted.collections.insert(shown.collection.clone());
        self.wanted.grants.views.insert(view.clone(), shown.query());
        let reads = self.wanted.grants.roles.entry(role.name.clone());
        reads.or_default().insert(view);
    }

    /// Which rows of a table, or of a collection that is none.
    fn rows(
        &mut self,
        key: &str,
        filter: &Filter,
        through: Option<&Through>,
        of: Option<&Relation>,
    ) -> Option<Rows> {
        let conditions = filter.0.iter().map(|(column, values)| {
            let condition = match of {
                Some(relation) => self.fields_of(relation).condition(column, values),
                None => Ok(Condition::of_field(column, values)),
            };
            self.noted(key, "filter", condition)
        });
        let conditions: Vec<_> = conditions.collect();
        let parent = match through {
            None => None,
            Some(through) => Some(Box::new(self.parent(through, of)?)),
        };
        let conditions = conditions.into_iter().collect::<Option<_>>()?;
        Some(Rows { conditions, parent })
    }

    fn parent(&mut self, through: &Through, child: Option<&Relation>) -> Option<Parent> {
        let relation = self.tables.get(&through.table)?;
        let collection = self.collection_of(&through.key, "table", &relation.name)?;
        let joins = self.joins(through, child, &relation);
        let rows = self.rows(
            &through.key,
            &through.filter,
            through.through.as_deref(),
            Some(&relation),
        );
        self.wanted.collections.insert(collection.clone());
        Some(Parent {
            collection,
            joins: joins?,
            rows: rows?,
        })
    }

    fn joins(
        &mut self,
        through: &Through,
        child: Option<&Relation>,
        parent: &Relation,
    ) -> Option<Vec<Join>> {
        let child = child.map(|it| self.fields_of(it));
        let joins = self
            .fields_of(parent)
            .parent_of(child.as_ref(), &through.by);
        self.noted(&through.key, "by", joins)
    }

    fn fields_of<'r>(&self, relation: &'r Relation) -> TableFields<'r> {
        TableFields {
            name: &relation.name,
            columns: &relation.columns,
            policies: self.policies,
        }
    }

    fn collection_of(&mut self, section: &str, key: &str, table: &TableName) -> Option<String> {
        let collection = Naming.collection(table);
        self.noted(section, key, collection)
    }

    /// What came of it, with a mistake noted at its key.
    fn noted<T>(
        &mut self,
        section: &str,
        key: &str,
        result: Result<T, impl std::fmt::Display>,
    ) -> Option<T> {
        result
            .map_err(|error| self.problem(&format!("{section}.{key}"), error.to_string()))
            .ok()
    }

    fn problem(&mut self, key: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(key, message));
    }
}
