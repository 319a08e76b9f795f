//! The SQL of `schema/retail`, inside the binary.

use serde::Serialize;
use tokio_postgres::Config;

use crate::{Error, Session};

/// The files in the order in which they are applied: name and SQL.
pub const FILES: [(&str, &str); 4] = [
    (
        "01_tables.sql",
        include_str!("../../../schema/retail/01_tables.sql"),
    ),
    (
        "02_sales.sql",
        include_str!("../../../schema/retail/02_sales.sql"),
    ),
    (
        "03_tenants.sql",
        include_str!("../../../schema/retail/03_tenants.sql"),
    ),
    (
        "04_replication.sql",
        include_str!("../../../schema/retail/04_replication.sql"),
    ),
];

/// What `retail install` did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Installed {
    /// The files applied, in order.
    pub files: Vec<&'static str>,
}

// === impl Installed ===

impl std::fmt::Display for Installed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(formatter, "installed {}", self.files.join(", "))
    }
}

/// Applies the schema in one transaction; applying it again changes nothing.
///
/// # Errors
/// [`Error::Connect`], or [`Error::Install`] naming the file that failed; then nothing was applied.
pub async fn install(database: &Config) -> Result<Installed, Error> {
    let mut session = Session::connect(database).await?;
    let transaction = session
        .client_mut()
        .transaction()
        .await
        .map_err(Error::database("beginning the install"))?;
    for (file, sql) in FILES {
        transaction
            .batch_execute(sql)
            .await
            .map_err(|source| Error::Install { file, source })?;
    }
    transaction
        .commit()
        .await
        .map_err(Error::database("committing the install"))?;
    Ok(Installed {
        files: FILES.iter().map(|(file, _)| *file).collect(),
    })
}
