//! Where the servers' programs are: what the environment names, else what `make setup` installed.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The root of the project's checkout.
pub fn project_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// The directory of PostgreSQL's programs: `PG_BIN`, else the newest of Debian's.
pub(crate) fn postgres_bin() -> Result<PathBuf> {
    let installed = || newest_postgres(Path::new("/usr/lib/postgresql"));
    let bin = std::env::var_os("PG_BIN")
        .map(PathBuf::from)
        .or_else(installed);
    existing(
        bin.map(|b| b.join("initdb")),
        "PostgreSQL",
        "PG_BIN, /usr/lib/postgresql/*/bin",
    )
    .map(|initdb| initdb.with_file_name(""))
}

/// One of PostgreSQL's own programs, as `pgbench`.
///
/// # Errors
/// When PostgreSQL is not installed, or without this program.
pub fn postgres_program(name: &str) -> Result<PathBuf> {
    let program = postgres_bin()?.join(name);
    existing(
        Some(program),
        "a program of PostgreSQL",
        "PG_BIN, /usr/lib/postgresql/*/bin",
    )
}

/// The directory of Kafka's jars: `JARS`, else `.tools/kafka`.
pub(crate) fn kafka_jars() -> Result<PathBuf> {
    let jars =
        std::env::var_os("JARS").map_or_else(|| project_root().join(".tools/kafka"), PathBuf::from);
    existing(Some(jars), "Kafka", "JARS, .tools/kafka")
}

/// The mongod program: `MONGOD`, else `.tools/mongod`.
pub(crate) fn mongod() -> Result<PathBuf> {
    let mongod = std::env::var_os("MONGOD").map_or_else(
        || project_root().join(".tools/mongod/mongod"),
        PathBuf::from,
    );
    existing(Some(mongod), "mongod", "MONGOD, .tools/mongod/mongod")
}

fn existing(path: Option<PathBuf>, what: &'static str, looked_at: &str) -> Result<PathBuf> {
    path.filter(|p| p.exists()).ok_or_else(|| Error::NotSetUp {
        what,
        looked_at: looked_at.to_owned(),
    })
}

fn newest_postgres(versions: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(versions)
        .ok()?
        .filter_map(std::result::Result::ok);
    entries
        .filter_map(|e| {
            Some((
                e.file_name().to_str()?.parse::<u32>().ok()?,
                e.path().join("bin"),
            ))
        })
        .filter(|(_, bin)| bin.join("initdb").exists())
        .max()
        .map(|(_, bin)| bin)
}
