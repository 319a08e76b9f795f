//! Where the servers' programs are: what the environment names, else what `make setup` installed.

use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The root of the project's checkout.
pub fn project_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

/// Where the versions of Debian's packages are.
const DEBIAN: &str = "/usr/lib/postgresql";
const POSTGRES: &str = "PG_BIN, WALFERRY_POSTGRES, .tools/postgres*, /usr/lib/postgresql/*/bin";

/// The directory of the PostgreSQL server's programs: `PG_BIN`, else of the major version that `WALFERRY_POSTGRES` asks
/// for, else the newest of Debian's.
pub(crate) fn postgres_bin() -> Result<PathBuf> {
    let bin = match (
        std::env::var_os("PG_BIN"),
        std::env::var("WALFERRY_POSTGRES"),
    ) {
        (Some(bin), _) => Some(PathBuf::from(bin)),
        (None, Ok(version)) => postgres_of(&version),
        (None, Err(_)) => newest_postgres(Path::new(DEBIAN)),
    };
    existing(bin.map(|b| b.join("initdb")), "PostgreSQL", POSTGRES)
        .map(|initdb| initdb.with_file_name(""))
}

/// One of PostgreSQL's own programs, as `pgbench`: the server's, else Debian's newest, since what `make test-matrix`
/// fetches is servers only.
///
/// # Errors
/// When PostgreSQL is not installed, or without this program.
pub fn postgres_program(name: &str) -> Result<PathBuf> {
    let of_server = postgres_bin()?.join(name);
    let program = if of_server.exists() {
        Some(of_server)
    } else {
        newest_postgres(Path::new(DEBIAN)).map(|bin| bin.join(name))
    };
    existing(program, "a program of PostgreSQL", POSTGRES)
}

/// A major version: one that `make test-matrix` fetched, else Debian's.
fn postgres_of(version: &str) -> Option<PathBuf> {
    let fetched = project_root().join(format!(".tools/postgres{version}/bin"));
    let debian = Path::new(DEBIAN).join(version).join("bin");
    [fetched, debian].into_iter().find(|bin| bin.exists())
}

/// The programs of a PostgreSQL that has the extension `vector`, where `make test` could fetch one.
pub(crate) fn pgvector_bin() -> Option<PathBuf> {
    let bin = project_root().join(".tools/pgvector/bin");
    bin.join("initdb").exists().then_some(bin)
}

/// The directory of Kafka's jars: `JARS`, else `.tools/kafka`.
pub(crate) fn kafka_jars() -> Result<PathBuf> {
    let jars =
        std::env::var_os("JARS").map_or_else(|| project_root().join(".tools/kafka"), PathBuf::from);
    existing(Some(jars), "Kafka", "JARS, .tools/kafka")
}

/// The directory of the jar behind `kafka-acls.sh`.
pub(crate) fn kafka_acls() -> Result<PathBuf> {
    let jar = project_root().join(".tools/acls");
    existing(Some(jar), "kafka-acls.sh", ".tools/acls")
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
