//! Roles that see some of what was delivered, and nothing else: what `walferry access` does.
//!
//! - What a role names is held against the source before anything is made: a column that is not there is a mistake.
//! - Steps come in an order in which nobody ever sees more than before or after; a run that ends early is gone on with.

mod error;
mod notes;
mod wanted;

use walferry_core::Tasks;
use walferry_mongodb::{Found, Gatekeeper, Grants, Step};

use self::wanted::Wanted;
use crate::config::Config;
use crate::pipeline::connect::mongodb_settings;

pub use self::error::AccessError;

/// What there is to do, or what was done.
#[derive(Clone, Debug)]
pub struct Access {
    /// The database of the collections, the views and the roles.
    pub database: String,
    /// The steps in their order.
    pub steps: Vec<Step>,
    /// What is to be known.
    pub notes: Vec<String>,
}

/// A server that was looked at.
struct Look {
    keeper: Gatekeeper,
    found: Found,
}

/// What `apply` would do. Nothing is changed.
///
/// # Errors
/// When a role is mistaken, a name is another's, or a server cannot be asked.
pub async fn plan(config: &Config, tasks: &Tasks) -> Result<Access, AccessError> {
    let planned = Box::pin(planned(config, tasks));
    let planned = tasks.stop_signal().run_until_cancelled(planned).await;
    Ok(planned.ok_or(AccessError::Stopped)??.1)
}

/// Makes the roles and their views as they are configured, changes those that are different, and drops those that are no
/// longer configured.
///
/// # Errors
/// As [`plan`], and when the user may not do it; what was done before stays.
pub async fn apply(config: &Config, tasks: &Tasks) -> Result<Access, AccessError> {
    let planned = Box::pin(planned(config, tasks));
    let planned = tasks.stop_signal().run_until_cancelled(planned).await;
    let (keeper, access) = planned.ok_or(AccessError::Stopped)??;
    take(&keeper, &access.steps, tasks).await?;
    Ok(access)
}

/// Drops all roles and views that were made for this pipeline, configured or not.
///
/// # Errors
/// When the user may not, or MongoDB cannot be asked; what was done before stays.
pub async fn drop(config: &Config, tasks: &Tasks) -> Result<Access, AccessError> {
    let none = Grants::default();
    let look = Box::pin(Look::at(config, &none));
    let look = tasks.stop_signal().run_until_cancelled(look).await;
    let look = look.ok_or(AccessError::Stopped)??;
    let access = look.access(&none, Vec::new())?;
    take(&look.keeper, &access.steps, tasks).await?;
    Ok(access)
}

async fn planned(config: &Config, tasks: &Tasks) -> Result<(Gatekeeper, Access), AccessError> {
    let wanted = Wanted::of(config, tasks).await?;
    let look = Look::at(config, &wanted.grants).await?;
    let notes = notes::of(&wanted, &look.keeper, &look.found).await?;
    let access = look.access(&wanted.grants, notes)?;
    Ok((look.keeper, access))
}

/// A step is taken to its end: who wants to stop waits that long.
async fn take(keeper: &Gatekeeper, steps: &[Step], tasks: &Tasks) -> Result<(), AccessError> {
    for step in steps {
        if tasks.stop_signal().is_cancelled() {
            return Err(AccessError::Stopped);
        }
        keeper.take(step).await?;
        tracing::info!(%step, "done");
    }
    Ok(())
}

// === impl Look ===

impl Look {
    async fn at(config: &Config, wanted: &Grants) -> Result<Self, AccessError> {
        // A pipeline has another name once it was moved, and the same slot.
        let owner = &config.source.slot;
        let keeper = Box::pin(Gatekeeper::connect(mongodb_settings(config), owner)).await?;
        let found = keeper.look(wanted).await?;
        Ok(Self { keeper, found })
    }

    fn access(&self, wanted: &Grants, notes: Vec<String>) -> Result<Access, AccessError> {
        Ok(Access {
            database: self.keeper.database().to_owned(),
            steps: self.keeper.steps(wanted, &self.found)?,
            notes,
        })
    }
}
