//! A first configuration for a database, with the reasons, and the statements that it needs.
//!
//! - It proposes; nothing is changed, neither there nor here.
//! - No password is in what it proposes: the pipeline has a role of its own.

use std::fmt::Write as _;

use walferry_core::{Class, Classify, Fault, Tasks};
use walferry_postgres::identifier::{quoted, table};
use walferry_postgres::{Survey, Surveyed};

/// How a server is trusted: these parameters of a URL are no secret.
const TRUST: [&str; 3] = ["sslmode", "sslrootcert", "target_session_attrs"];

/// A URL that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InitError {
    /// Not PostgreSQL's.
    #[error("--from has to be a URL: postgres://user@host:port/database")]
    Source,
    /// Not MongoDB's.
    #[error(
        "--to has to be a URL, special characters of a password percent-encoded: mongodb://host:port/database"
    )]
    Target,
}

impl Classify for InitError {
    fn class(&self) -> Class {
        Class::Fatal
    }
}

/// Where a pipeline is to lead from and to.
#[derive(Clone, Debug)]
pub struct Wish {
    /// PostgreSQL's URL, of somebody who may look at the catalog.
    pub from: String,
    /// MongoDB's URL; its path is the database.
    pub to: String,
    /// Kafka's brokers; none without Kafka.
    pub brokers: Option<String>,
    /// The role that the pipeline is to read as.
    pub role: String,
}

/// What is proposed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Proposal {
    /// The text of `walferry.toml`.
    pub config: String,
    /// What a superuser runs once.
    pub sql: String,
}

/// Looks at a database and proposes how to follow it.
///
/// # Errors
/// When the database cannot be asked.
pub async fn propose(wish: &Wish, tasks: &Tasks) -> Result<Proposal, Fault> {
    if !wish.from.starts_with("postgres") || !wish.from.contains("://") {
        return Err(InitError::Source.into());
    }
    let target = target_url(&wish.to)?;
    let survey = walferry_postgres::survey(&wish.from, &wish.role, tasks).await?;
    Ok(Proposal {
        config: config(wish, &target, &survey),
        sql: sql(&wish.role, &survey),
    })
}

fn config(wish: &Wish, target: &str, survey: &Survey) -> String {
    let name = name_of(survey);
    let mut text = format!(
        "# Proposed by `walferry init`; the statements that it needs came with it. Next: `walferry check`, `walferry plan`.\n\n\
         [source]\n\
         # The role's password: WALFERRY__SOURCE__URL with it, or `url_file` in the place of `url`.\n\
         url = {}\nslot = {}\npublication = {}\n\n",
        toml(&source_url(wish, survey)),
        toml(&format!("{name}_slot")),
        toml(&publication(survey)),
    );
    // Writing to a string never fails.
    let _ = match &wish.brokers {
        Some(brokers) => writeln!(
            text,
            "[kafka]\nbrokers = {}\nprefix = {}\n",
            toml(brokers),
            toml(&name)
        ),
        None => writeln!(
            text,
            "# Without a [kafka] section changes go straight into MongoDB: PostgreSQL keeps its WAL while that is away.\n"
        ),
    };
    let _ = writeln!(
        text,
        "[sink]\nurl = {}\ndatabase = {}\n\n[admin]\nlisten = \"127.0.0.1:9187\"\n",
        toml(target),
        toml(&database_in(target).unwrap_or(name)),
    );
    for table in &survey.tables {
        text.push_str(&rule(table));
    }
    text
}

/// What becomes of a table, and why.
fn rule(table: &Surveyed) -> String {
    let Surveyed { rows, changes, .. } = table;
    let (mode, reason) = if !table.has_key {
        (
            "ignore",
            "it has no key: give it one to follow it".to_owned(),
        )
    } else if changes > rows {
        ("stream", format!("{changes} changes, {rows} rows"))
    } else if *rows == 0 {
        ("stream", "nothing is known of it yet".to_owned())
    } else {
        (
            "batch",
            format!("{rows} rows, not changed since they were loaded"),
        )
    };
    let pattern = format!(
        "{}.{}",
        escaped(&table.name.schema),
        escaped(&table.name.table)
    );
    format!(
        "[[table]] # {reason}\nname = {}\nmode = {mode:?}\n\n",
        toml(&pattern)
    )
}

fn sql(role: &str, survey: &Survey) -> String {
    let role = quoted(role);
    let chosen = survey.tables.iter().filter(|table| table.has_key);
    let tables: Vec<_> = chosen.clone().map(|it| table(&it.name)).collect();
    let mut schemas: Vec<_> = chosen.clone().map(|it| quoted(&it.name.schema)).collect();
    schemas.dedup();
    let mut statements = Vec::new();
    if survey.wal_level != "logical" {
        statements.push(
            "ALTER SYSTEM SET wal_level = 'logical' /* then restart the server */".to_owned(),
        );
    }
    let bypass = if chosen.clone().any(|it| it.has_row_security) {
        " BYPASSRLS"
    } else {
        ""
    };
    statements.push(if survey.has_role {
        format!("ALTER ROLE {role} LOGIN REPLICATION{bypass}")
    } else {
        format!("CREATE ROLE {role} LOGIN REPLICATION{bypass} /* PASSWORD '...' */")
    });
    if !tables.is_empty() {
        statements.push(format!(
            "GRANT USAGE ON SCHEMA {} TO {role}",
            schemas.join(", ")
        ));
        statements.push(format!("GRANT SELECT ON {} TO {role}", tables.join(", ")));
        if survey.publication.is_none() {
            let publication = quoted(&publication(survey));
            statements.push(format!(
                "CREATE PUBLICATION {publication} FOR TABLE {} WITH (publish_via_partition_root = true)",
                tables.join(", ")
            ));
        }
    }
    statements.push(String::new());
    statements.join(";\n")
}

/// The database's name as slots and topics may have it.
fn name_of(survey: &Survey) -> String {
    let lower = survey.database.to_lowercase();
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    // PostgreSQL's names have 63 bytes; others are made of this one.
    lower.chars().map(allowed).take(40).collect()
}

fn publication(survey: &Survey) -> String {
    let existing = survey.publication.clone();
    existing.unwrap_or_else(|| format!("{}_publication", name_of(survey)))
}

/// PostgreSQL's URL for the pipeline's own role. Of what stood in the old one nothing is kept but how to trust the
/// server.
fn source_url(wish: &Wish, survey: &Survey) -> String {
    let (hosts, database) = (survey.hosts.join(","), encoded(&survey.database));
    let parameters = wish.from.split_once('?').map_or("", |(_, it)| it);
    let kept: Vec<_> = parameters
        .split('&')
        .filter(|it| TRUST.contains(&it.split('=').next().unwrap_or_default()))
        .collect();
    let mark = if kept.is_empty() { "" } else { "?" };
    format!(
        "postgres://{}@{hosts}/{database}{mark}{}",
        encoded(&wish.role),
        kept.join("&")
    )
}

/// MongoDB's URL without its secrets.
fn target_url(url: &str) -> Result<String, InitError> {
    let (scheme, rest) = url.split_once("://").ok_or(InitError::Target)?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, after) = rest.split_at(end);
    // An unescaped slash in a password: the driver takes that for no URL either.
    if !scheme.starts_with("mongodb")
        || after
            .split('?')
            .next()
            .is_some_and(|path| path.contains('@'))
    {
        return Err(InitError::Target);
    }
    let authority = match authority.rsplit_once('@') {
        Some((user, hosts)) => format!("{}@{hosts}", user.split(':').next().unwrap_or_default()),
        None => authority.to_owned(),
    };
    let (path, parameters) = after.split_once('?').unwrap_or((after, ""));
    let is_secret = |it: &&str| {
        let name = it.split('=').next().unwrap_or_default().to_lowercase();
        name.contains("password") || name == "authmechanismproperties"
    };
    let kept: Vec<_> = parameters
        .split('&')
        .filter(|it| !it.is_empty() && !is_secret(it))
        .collect();
    let mark = if kept.is_empty() { "" } else { "?" };
    Ok(format!(
        "{scheme}://{authority}{path}{mark}{}",
        kept.join("&")
    ))
}

/// The database that a MongoDB URL names.
fn database_in(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let (_, path) = rest.split_once('/')?;
    let name = path.split('?').next().unwrap_or_default();
    (!name.is_empty()).then(|| name.to_owned())
}

/// Text as a part of a URL.
fn encoded(text: &str) -> String {
    let mut url = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            url.push(char::from(byte));
        } else {
            // Writing to a string never fails.
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url
}

/// A TOML string: only what would end it or is no character to see is escaped.
fn toml(text: &str) -> String {
    let mut written = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => written.extend(['\\', c]),
            // Writing to a string never fails.
            c if c.is_control() => drop(write!(written, "\\u{:04X}", u32::from(c))),
            c => written.push(c),
        }
    }
    written.push('"');
    written
}

/// A name as a pattern that matches only it.
fn escaped(name: &str) -> String {
    let mut pattern = String::new();
    for c in name.chars() {
        if "*?[]{}\\!".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_proposed() {
        let survey = Survey {
            hosts: vec!["db:5433".to_owned(), "[::1]:5432".to_owned()],
            database: "the shop".to_owned(),
            wal_level: "logical".to_owned(),
            publication: None,
            has_role: false,
            tables: Vec::new(),
        };
        let wish = Wish {
            from: "postgres://admin:TOP/SECRET@db/shop?sslmode=require&user=x&password=TOPSECRET"
                .to_owned(),
            to: String::new(),
            brokers: None,
            role: "wal@ferry".to_owned(),
        };
        let expected = "postgres://wal%40ferry@db:5433,[::1]:5432/the%20shop?sslmode=require";
        assert_eq!(source_url(&wish, &survey), expected);
        for (url, expected) in [
            (
                "mongodb://writer:s3cret@one,two:27018/shop?replicaSet=rs0",
                "mongodb://writer@one,two:27018/shop?replicaSet=rs0",
            ),
            (
                "mongodb://one/?replicaSet=a@b",
                "mongodb://one/?replicaSet=a@b",
            ),
            (
                "mongodb://one?tls=true&tlsCertificateKeyFilePassword=s3cret",
                "mongodb://one?tls=true",
            ),
        ] {
            assert_eq!(target_url(url).as_deref(), Ok(expected));
        }
        assert_eq!(
            target_url("mongodb://u:pa/ss@h/shop"),
            Err(InitError::Target)
        );
        assert_eq!(target_url("host=h"), Err(InitError::Target));
    }

    #[test]
    fn any_name_is_a_toml_string() {
        for name in [
            "plain",
            "a\"b\\c",
            "\u{939}\u{93f}\u{928}\u{94d}\u{926}\u{940}",
            "e\u{301}",
            "\u{7f}\n\u{200b}",
        ] {
            let parsed = config::Config::builder()
                .add_source(config::File::from_str(
                    &format!("name = {}", toml(name)),
                    config::FileFormat::Toml,
                ))
                .build()
                .unwrap();
            assert_eq!(parsed.get_string("name").unwrap(), name);
        }
    }

    #[test]
    fn the_database_is_the_urls_path() {
        assert_eq!(
            database_in("mongodb://one/shop?replicaSet=rs0").as_deref(),
            Some("shop")
        );
        assert_eq!(database_in("mongodb://one/?replicaSet=rs0"), None);
        assert_eq!(database_in("mongodb://one"), None);
    }

    #[test]
    fn a_table_is_followed_when_it_changes_after_it_was_loaded() {
        let table = |rows, changes, has_key| Surveyed {
            name: walferry_schema::TableName::new("public", "t*"),
            rows,
            changes,
            has_key,
            has_row_security: false,
        };
        for (table, mode) in [
            (table(10, 11, true), "stream"),
            (table(10, 10, true), "batch"),
            (table(0, 0, true), "stream"),
            (table(10, 90, false), "ignore"),
        ] {
            let rule = rule(&table);
            assert!(rule.contains(&format!("mode = {mode:?}")), "{rule}");
            assert!(rule.contains(r#"name = "public.t\\*""#), "{rule}");
        }
    }
}
