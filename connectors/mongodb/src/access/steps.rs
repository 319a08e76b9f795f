//! From what is there to what should be: in which steps, so that nobody ever sees more than either allows.
//!
//! - Roles that see less do so first, then views go, come and change, and roles that see more do so last.
//! - Only what was made here goes or changes; a role that somebody gave more loses it again.
//! - What is as it should be takes no step.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bson::{Bson, Document, doc};

use super::{AccessError, Taken};
use crate::{Query, Standing};

/// All that a reader of a view needs.
const FIND: &str = "find";

/// What there should be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grants {
    /// The views by their names.
    pub views: BTreeMap<String, Query>,
    /// The roles by their names, each with the views that it reads.
    pub roles: BTreeMap<String, BTreeSet<String>>,
}

/// What there is.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub(super) database: String,
    pub(super) standing: BTreeMap<String, Standing>,
    pub(super) roles: BTreeMap<String, FoundRole>,
    /// What was made here or for another, with whom it was made for.
    pub(super) made: BTreeMap<Made, String>,
    pub(super) is_open: bool,
}

/// A role as the server has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct FoundRole {
    pub(super) privileges: Vec<Privilege>,
    pub(super) inherits: Vec<Document>,
}

/// What may be done with something.
#[derive(Clone, Debug, PartialEq)]
pub struct Privilege {
    pub(super) resource: Document,
    pub(super) actions: BTreeSet<String>,
}

/// Something that was made here, by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Made {
    /// A role.
    Role(String),
    /// A view.
    View(String),
}

/// A step on the way.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A role goes, from its users too.
    DropRole {
        /// The role.
        role: String,
    },
    /// A role loses what it should not have.
    Narrow {
        /// The role.
        role: String,
        /// What it loses.
        excess: Vec<Privilege>,
        /// The roles that it was given.
        inherits: Vec<Document>,
    },
    /// A view goes.
    DropView {
        /// The view.
        view: String,
    },
    /// A view comes.
    MakeView {
        /// The view.
        view: String,
        /// What it shows.
        query: Query,
    },
    /// A view becomes another, at once.
    ChangeView {
        /// The view.
        view: String,
        /// What it will show.
        query: Query,
    },
    /// A role comes.
    MakeRole {
        /// The role.
        role: String,
        /// What it reads.
        views: BTreeSet<String>,
    },
    /// A role reads more.
    Widen {
        /// The role.
        role: String,
        /// What it will read too.
        views: BTreeSet<String>,
    },
    /// What was made here is gone already.
    Forget {
        /// What that was.
        made: Made,
    },
}

// === impl Grants ===

impl Grants {
    /// The steps from what is there to these, for whoever `owner` names.
    ///
    /// # Errors
    /// When a name is another's; all such names at once.
    pub fn steps(&self, found: &Found, owner: &str) -> Result<Vec<Step>, AccessError> {
        let taken: Vec<_> = self.taken(found, owner).collect();
        if !taken.is_empty() {
            return Err(AccessError::Taken(taken));
        }
        let ours = found.made.iter().filter(|(_, of)| **of == owner);
        let ours: Vec<_> = ours.map(|(made, _)| made).collect();
        let mut steps = Vec::new();
        steps.extend(
            ours.iter()
                .filter_map(|made| self.dropped_role(made, found)),
        );
        steps.extend(self.roles.iter().filter_map(|it| narrowed(it, found)));
        steps.extend(
            ours.iter()
                .filter_map(|made| self.dropped_view(made, found)),
        );
        steps.extend(self.views.iter().filter_map(|it| shown(it, found)));
        steps.extend(self.roles.iter().filter_map(|it| widened(it, found)));
        steps.extend(ours.iter().filter_map(|made| self.forgotten(made, found)));
        Ok(steps)
    }

    /// Names that something else has.
    fn taken<'a>(&'a self, found: &'a Found, owner: &'a str) -> impl Iterator<Item = Taken> + 'a {
        let roles = self.roles.keys().filter_map(|role| {
            let made = Made::Role(role.clone());
            let is_there = found.roles.contains_key(role);
            found.taken(made, is_there, owner)
        });
        let views = self.views.keys().filter_map(|view| {
            let made = Made::View(view.clone());
            match found.standing.get(view) {
                Some(Standing::Collection(_)) => Some(Taken { made, by: None }),
                standing => found.taken(made, standing.is_some(), owner),
            }
        });
        roles.chain(views)
    }

    fn dropped_role(&self, made: &Made, found: &Found) -> Option<Step> {
        match made {
            Made::Role(role)
                if !self.roles.contains_key(role) && found.roles.contains_key(role) =>
            {
                Some(Step::DropRole { role: role.clone() })
            }
            _ => None,
        }
    }

    fn dropped_view(&self, made: &Made, found: &Found) -> Option<Step> {
        match made {
            Made::View(view) if !self.views.contains_key(view) && found.has_view(view) => {
                Some(Step::DropView { view: view.clone() })
            }
            _ => None,
        }
    }

    /// A step that was begun and not ended, or somebody's who dropped it.
    fn forgotten(&self, made: &Made, found: &Found) -> Option<Step> {
        let (is_wanted, is_there) = match made {
            Made::Role(role) => (
                self.roles.contains_key(role),
                found.roles.contains_key(role),
            ),
            Made::View(view) => (self.views.contains_key(view), found.has_view(view)),
        };
        let made = made.clone();
        (!is_wanted && !is_there).then_some(Step::Forget { made })
    }
}

// === impl Found ===

impl Found {
    /// Whether nobody has to log in, so that roles hold nobody back.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether there is a collection, or a view, of this name.
    pub fn has(&self, collection: &str) -> bool {
        self.standing.contains_key(collection)
    }

    fn has_view(&self, view: &str) -> bool {
        matches!(self.standing.get(view), Some(Standing::View(_)))
    }

    fn taken(&self, made: Made, is_there: bool, owner: &str) -> Option<Taken> {
        match self.made.get(&made) {
            Some(other) if other != owner => Some(Taken {
                by: Some(other.clone()),
                made,
            }),
            None if is_there => Some(Taken { made, by: None }),
            _ => None,
        }
    }

    fn views_of(&self, role: &FoundRole) -> BTreeSet<String> {
        let views = role
            .privileges
            .iter()
            .filter_map(|it| it.view(&self.database));
        views.map(str::to_owned).collect()
    }
}

// === impl Privilege ===

impl Privilege {
    pub(super) fn find(database: &str, view: &str) -> Self {
        Self {
            resource: doc! { "db": database, "collection": view },
            actions: [FIND.to_owned()].into(),
        }
    }

    /// As the server's commands have it.
    pub(super) fn document(&self) -> Document {
        let actions: Vec<_> = self.actions.iter().map(|it| Bson::from(&**it)).collect();
        doc! { "resource": &self.resource, "actions": actions }
    }

    /// What stands in the server's description of a role.
    pub(super) fn of(privilege: &Document) -> Option<Self> {
        let actions = privilege.get_array("actions").ok()?.iter();
        Some(Self {
            resource: privilege.get_document("resource").ok()?.clone(),
            actions: actions
                .filter_map(|it| it.as_str().map(str::to_owned))
                .collect(),
        })
    }

    /// The view that it lets read, where it does.
    fn view(&self, database: &str) -> Option<&str> {
        let view = self.resource.get_str("collection").ok()?;
        let is_of = self.resource.get_str("db").is_ok_and(|it| it == database);
        let is_ours = is_of && self.resource.len() == 2;
        (is_ours && !view.is_empty() && self.actions.contains(FIND)).then_some(view)
    }

    /// What of it nobody asked for.
    fn beyond(&self, views: &BTreeSet<String>, database: &str) -> Option<Self> {
        let mut excess = self.clone();
        if self.view(database).is_some_and(|it| views.contains(it)) {
            excess.actions.remove(FIND);
        }
        (!excess.actions.is_empty()).then_some(excess)
    }
}

impl fmt::Display for Privilege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let actions: Vec<_> = self.actions.iter().map(String::as_str).collect();
        write!(f, "{} on {}", actions.join(", "), self.resource)
    }
}

fn narrowed((role, views): (&String, &BTreeSet<String>), found: &Found) -> Option<Step> {
    let has = found.roles.get(role)?;
    let excess = has.privileges.iter();
    let excess: Vec<_> = excess
        .filter_map(|it| it.beyond(views, &found.database))
        .collect();
    let is_more = !excess.is_empty() || !has.inherits.is_empty();
    is_more.then(|| Step::Narrow {
        role: role.clone(),
        excess,
        inherits: has.inherits.clone(),
    })
}

fn widened((role, views): (&String, &BTreeSet<String>), found: &Found) -> Option<Step> {
    let role = role.clone();
    let Some(has) = found.roles.get(&role) else {
        let views = views.clone();
        return Some(Step::MakeRole { role, views });
    };
    let views: BTreeSet<_> = views.difference(&found.views_of(has)).cloned().collect();
    (!views.is_empty()).then_some(Step::Widen { role, views })
}

fn shown((view, query): (&String, &Query), found: &Found) -> Option<Step> {
    let (view, query) = (view.clone(), query.clone());
    match found.standing.get(&view) {
        Some(Standing::View(standing)) if *standing == query => None,
        Some(_) => Some(Step::ChangeView { view, query }),
        None => Some(Step::MakeView { view, query }),
    }
}

#[cfg(test)]
mod tests;
