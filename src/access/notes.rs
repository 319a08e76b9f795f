//! What an operator should know before roles are relied on.

use walferry_mongodb::{Found, Gatekeeper, Result};

use super::Wanted;

const OPEN: &str = "nobody has to log in to this MongoDB: roles hold nobody back before it runs with authorization \
                    (keyFile, or --auth)";

/// What is to be known of what is wanted.
pub(super) async fn of(wanted: &Wanted, keeper: &Gatekeeper, found: &Found) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    if found.is_open() && !wanted.grants.roles.is_empty() {
        notes.push(OPEN.to_owned());
    }
    let views = &wanted.grants.views;
    let is_there = |name: &str| found.has(name) || views.contains_key(name);
    for collection in wanted.collections.iter().filter(|it| !is_there(it)) {
        let database = keeper.database();
        let note = format!(
            "there is no collection {collection} in the database {database} yet: views that need it are empty until it is \
             filled"
        );
        notes.push(note);
    }
    for (collection, field) in wanted.fields.iter().filter(|(it, _)| found.has(it)) {
        // What takes too long to look at, such as a view over all there is, gets no note.
        let has_field = keeper.has_field(collection, field).await;
        if matches!(has_field, Ok(Some(false))) {
            let note = format!(
                "the first document of {collection} has no field {field}: a filter on it shows no document without it"
            );
            notes.push(note);
        }
    }
    Ok(notes)
}
