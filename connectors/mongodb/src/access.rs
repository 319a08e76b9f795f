//! Roles that read views of the collections, and nothing else.
//!
//! - A role may `find` in its own views. These are read with nobody's rights but the view's: their collections stay closed.
//! - What is made here is noted before it is made, so that what was begun is known; only that is changed or dropped.

mod error;
mod literal;
mod mask;
mod steps;
mod table;
mod unfit;
mod view;

use std::collections::{BTreeMap, BTreeSet};

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use mongodb::Collection;
use mongodb::options::WriteConcern;

use self::steps::FoundRole;
use crate::error::NAMESPACE_EXISTS;
use crate::staging::unless;
use crate::{Analyst, Query, Result, Settings};

pub use error::{AccessError, Taken};
pub use literal::Literal;
pub use mask::Mask;
pub use steps::{Found, Grants, Made, Privilege, Step};
pub use table::TableFields;
pub use unfit::Unfit;
pub use view::{Condition, Fields, Join, Masked, Parent, Rows, Shown, ShownId};

/// What was made: an `_id` of database, kind and name, and whom it was made for.
const ACCESS: &str = "access";
const ROLE_NOT_FOUND: i32 = 31;
const ROLE_EXISTS: i32 = 51_002;

const LOOKING: &str = "looking at the roles";
const NOTING: &str = "noting what is made for roles";
const CHANGING: &str = "changing roles";

/// Who makes views and roles, for one pipeline.
#[derive(Clone, Debug)]
pub struct Gatekeeper {
    analyst: Analyst,
    owner: String,
}

// === impl Gatekeeper ===

impl Gatekeeper {
    /// Connects; `owner` is whom roles and views are made for: no other's are touched.
    ///
    /// # Errors
    /// As [`crate::MongoSink::connect`].
    pub async fn connect(settings: Settings, owner: impl Into<String>) -> Result<Self> {
        let analyst = Analyst::connect(settings).await?;
        let owner = owner.into();
        Ok(Self { analyst, owner })
    }

    /// The database of the collections, the views and the roles.
    pub fn database(&self) -> &str {
        self.analyst.database()
    }

    /// What is there, of what was made here and of what is wanted.
    ///
    /// # Errors
    /// When the user may not look, or the server cannot be asked.
    pub async fn look(&self, wanted: &Grants) -> Result<Found> {
        let found = self.found(wanted).await;
        found.map_err(|error| AccessError::of_looking(LOOKING, self.database(), error))
    }

    /// What is to be done for these to be there.
    ///
    /// # Errors
    /// When a name is another's.
    pub fn steps(&self, wanted: &Grants, found: &Found) -> Result<Vec<Step>> {
        Ok(wanted.steps(found, &self.owner)?)
    }

    /// Takes a step.
    ///
    /// # Errors
    /// When the user may not, the name was taken meanwhile, or the server refuses.
    pub async fn take(&self, step: &Step) -> Result<()> {
        let taken = Box::pin(self.take_it(step)).await;
        taken.map_err(|error| AccessError::of(step, self.database(), error))
    }

    /// Whether the first document of a collection has a field; none when there is no document.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn has_field(&self, collection: &str, field: &str) -> Result<Option<bool>> {
        let store = &self.analyst.store;
        let collection = store.database().collection::<Document>(collection);
        let first = store.in_time(collection.find_one(doc! {}), LOOKING).await?;
        Ok(first.map(|document| document.contains_key(field)))
    }

    async fn found(&self, wanted: &Grants) -> Result<Found> {
        let made = self.made().await?;
        let roles = made.keys().filter_map(Made::role).cloned();
        let roles: BTreeSet<_> = roles.chain(wanted.roles.keys().cloned()).collect();
        Ok(Found {
            database: self.database().to_owned(),
            standing: self.analyst.standing().await?,
            roles: self.roles(&roles).await?,
            made,
            is_open: self.is_open().await?,
        })
    }

    async fn made(&self) -> Result<BTreeMap<Made, String>> {
        let store = &self.analyst.store;
        let known = self.known();
        let of_database = known.find(doc! { "_id.database": self.database() });
        let notes = store.in_time(of_database, LOOKING).await?;
        let notes: Vec<_> = store.in_time(notes.try_collect(), LOOKING).await?;
        Ok(notes.iter().filter_map(noted).collect())
    }

    /// These roles, as far as they are there.
    async fn roles(&self, names: &BTreeSet<String>) -> Result<BTreeMap<String, FoundRole>> {
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        let named = |role: &String| Bson::from(doc! { "role": role, "db": self.database() });
        let names: Vec<_> = names.iter().map(named).collect();
        let asked = doc! { "rolesInfo": names, "showPrivileges": true };
        let answer = self.analyst.command(asked, LOOKING).await?;
        let roles = answer.get_array("roles").map_or(&[][..], Vec::as_slice);
        Ok(roles.iter().filter_map(role).collect())
    }

    async fn is_open(&self) -> Result<bool> {
        let asked = doc! { "connectionStatus": 1 };
        let answer = self.analyst.command(asked, LOOKING).await?;
        let users = answer.get_document("authInfo").ok();
        let users = users.and_then(|it| it.get_array("authenticatedUsers").ok());
        Ok(users.is_some_and(Vec::is_empty))
    }

    async fn take_it(&self, step: &Step) -> Result<()> {
        match step {
            Step::DropRole { role } => self.drop_role(role).await,
            Step::Narrow {
                role,
                excess,
                inherits,
            } => self.narrow(role, excess, inherits).await,
            Step::DropView { view } => {
                self.analyst.drop(view).await?;
                self.forget(&Made::View(view.clone())).await
            }
            Step::MakeView { view, query } => self.make_view(view, query).await,
            Step::ChangeView { view, query } => {
                self.analyst.write_view("collMod", view, query).await
            }
            Step::MakeRole { role, views } => self.make_role(role, views).await,
            Step::Widen { role, views } => self.widen(role, views).await,
            Step::Forget { made } => self.forget(made).await,
        }
    }

    async fn make_view(&self, view: &str, query: &Query) -> Result<()> {
        let made = Made::View(view.to_owned());
        let is_new = self.note(&made).await?;
        match self.analyst.write_view("create", view, query).await {
            Err(error) if error.has_code(NAMESPACE_EXISTS) => self.taken(made, is_new).await,
            made => made,
        }
    }

    async fn make_role(&self, role: &str, views: &BTreeSet<String>) -> Result<()> {
        let made = Made::Role(role.to_owned());
        let is_new = self.note(&made).await?;
        let none: [Document; 0] = [];
        let command = doc! {
            "createRole": role,
            "privileges": self.privileges(views),
            "roles": none.to_vec(),
        };
        match self.change(command).await {
            Err(error) if error.has_code(ROLE_EXISTS) => self.taken(made, is_new).await,
            made => made,
        }
    }

    /// What somebody else made meanwhile is not ours; what was noted before may be another run's.
    async fn taken(&self, made: Made, is_new: bool) -> Result<()> {
        if is_new {
            self.forget(&made).await?;
        }
        Err(AccessError::Taken(vec![Taken { made, by: None }]).into())
    }

    async fn drop_role(&self, role: &str) -> Result<()> {
        let dropped = self.change(doc! { "dropRole": role }).await;
        unless(dropped, ROLE_NOT_FOUND)?;
        self.forget(&Made::Role(role.to_owned())).await
    }

    /// `updateRole` would take the right to revoke any role of the server; this takes that of the database alone.
    async fn narrow(&self, role: &str, excess: &[Privilege], inherits: &[Document]) -> Result<()> {
        if !inherits.is_empty() {
            let command = doc! { "revokeRolesFromRole": role, "roles": inherits.to_vec() };
            self.change(command).await?;
        }
        if excess.is_empty() {
            return Ok(());
        }
        let excess: Vec<_> = excess.iter().map(Privilege::document).collect();
        let command = doc! { "revokePrivilegesFromRole": role, "privileges": excess };
        self.change(command).await
    }

    async fn widen(&self, role: &str, views: &BTreeSet<String>) -> Result<()> {
        let command = doc! { "grantPrivilegesToRole": role, "privileges": self.privileges(views) };
        self.change(command).await
    }

    fn privileges(&self, views: &BTreeSet<String>) -> Vec<Document> {
        let privilege = |view: &String| Privilege::find(self.database(), view).document();
        views.iter().map(privilege).collect()
    }

    /// Notes what is about to be made; whether it was not noted before.
    async fn note(&self, made: &Made) -> Result<bool> {
        let id = self.id_of(made);
        let note = doc! { "_id": &id, "owner": &self.owner };
        let known = self.known();
        let noted = known
            .replace_one(doc! { "_id": id }, note)
            .upsert(true)
            .write_concern(WriteConcern::majority());
        let noted = self.analyst.store.in_time(noted, NOTING).await?;
        Ok(noted.upserted_id.is_some())
    }

    async fn forget(&self, made: &Made) -> Result<()> {
        let known = self.known();
        let forgotten = known
            .delete_one(doc! { "_id": self.id_of(made) })
            .write_concern(WriteConcern::majority());
        let forgotten = self.analyst.store.in_time(forgotten, NOTING);
        forgotten.await.map(|_| ())
    }

    fn known(&self) -> Collection<Document> {
        self.analyst.store.own_database().collection(ACCESS)
    }

    fn id_of(&self, made: &Made) -> Document {
        let (kind, name) = match made {
            Made::Role(role) => ("role", role),
            Made::View(view) => ("view", view),
        };
        doc! { "database": self.database(), "kind": kind, "name": name }
    }

    async fn change(&self, mut command: Document) -> Result<()> {
        command.insert("writeConcern", doc! { "w": "majority" });
        self.analyst.command(command, CHANGING).await.map(|_| ())
    }
}

// === impl Made ===

impl Made {
    /// The role's name, where it is one.
    pub fn role(&self) -> Option<&String> {
        match self {
            Self::Role(role) => Some(role),
            Self::View(_) => None,
        }
    }

    /// The view's name, where it is one.
    pub fn view(&self) -> Option<&String> {
        match self {
            Self::Role(_) => None,
            Self::View(view) => Some(view),
        }
    }
}

/// What a note tells of.
fn noted(note: &Document) -> Option<(Made, String)> {
    let id = note.get_document("_id").ok()?;
    let name = id.get_str("name").ok()?.to_owned();
    let made = match id.get_str("kind").ok()? {
        "role" => Made::Role(name),
        _ => Made::View(name),
    };
    Some((made, note.get_str("owner").ok()?.to_owned()))
}

/// What the server tells of a role.
fn role(told: &Bson) -> Option<(String, FoundRole)> {
    let told = told.as_document()?;
    let documents = |field: &str| {
        let listed = told.get_array(field).map_or(&[][..], Vec::as_slice);
        listed.iter().filter_map(Bson::as_document)
    };
    let found = FoundRole {
        privileges: documents("privileges").filter_map(Privilege::of).collect(),
        inherits: documents("roles").cloned().collect(),
    };
    Some((told.get_str("role").ok()?.to_owned(), found))
}
