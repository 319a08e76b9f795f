//! A first configuration for a database, with the reasons, and the statements that it needs.
//!
//! - It proposes; nothing is changed, neither there nor here.
//! - No password is in what it proposes: the pipeline has a role of its own.

use std::fmt::Write as _;

use walferry_core::{Fault, Tasks};
use walferry_postgres::identifier::{quoted, table};
use walferry_postgres::{Survey, Surveyed};

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
    let survey = walferry_postgres::survey(&wish.from, &wish.role, tasks).await?;
    Ok(Proposal {
        config: config(wish, &survey),
        sql: sql(&wish.role, &survey),
    })
}

fn config(wish: &Wish, survey: &Survey) -> String {
    let name = name_of(survey);
    let mut text = format!(
        "# Proposed by `walferry init`; the statements that it needs came with it. Next: `walferry check`, `walferry plan`.\n\n\
         [source]\n\
         # The role's password: WALFERRY__SOURCE__URL with it, or `url_file` in the place of `url`.\n\
         url = {}\nslot = {:?}\npublication = {:?}\n\n",
        quoted_url(&as_role(&wish.role, &wish.from)),
        format!("{name}_slot"),
        publication(survey),
    );
    // Writing to a string never fails.
    let _ = match &wish.brokers {
        Some(brokers) => writeln!(text, "[kafka]\nbrokers = {brokers:?}\nprefix = {name:?}\n"),
        None => writeln!(
            text,
            "# Without a [kafka] section changes go straight into MongoDB: PostgreSQL keeps its WAL while that is away.\n"
        ),
    };
    let _ = writeln!(
        text,
        "[sink]\nurl = {}\ndatabase = {:?}\n\n[admin]\nlisten = \"127.0.0.1:9187\"\n",
        quoted_url(&without_password(&wish.to)),
        database_in(&wish.to).unwrap_or(name),
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
    format!("[[table]] # {reason}\nname = {pattern:?}\nmode = {mode:?}\n\n")
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
                "CREATE PUBLICATION {publication} FOR TABLE {}",
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
    lower.chars().map(allowed).collect()
}

fn publication(survey: &Survey) -> String {
    let existing = survey.publication.clone();
    existing.unwrap_or_else(|| format!("{}_publication", name_of(survey)))
}

/// The same URL for the pipeline's own role.
fn as_role(role: &str, url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (_, after) = split_user(rest);
    format!("{scheme}://{role}@{after}")
}

fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (user, after) = split_user(rest);
    let user = user.and_then(|user| user.split(':').next());
    user.map_or(url.to_owned(), |user| format!("{scheme}://{user}@{after}"))
}

/// What stands before the host, and the rest.
fn split_user(rest: &str) -> (Option<&str>, &str) {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => (Some(&rest[..at]), &rest[at + 1..]),
        None => (None, rest),
    }
}

/// The database that a MongoDB URL names.
fn database_in(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let (_, path) = rest.split_once('/')?;
    let name = path.split('?').next().unwrap_or_default();
    (!name.is_empty()).then(|| name.to_owned())
}

fn quoted_url(url: &str) -> String {
    format!("{url:?}")
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
        let from = "postgres://admin:s3cr%40t@db:5433/shop?sslmode=require";
        assert_eq!(
            as_role("walferry", from),
            "postgres://walferry@db:5433/shop?sslmode=require"
        );
        let to = "mongodb://writer:s3cret@one,two:27018/shop?replicaSet=rs0";
        assert_eq!(
            without_password(to),
            "mongodb://writer@one,two:27018/shop?replicaSet=rs0"
        );
        assert_eq!(
            without_password("mongodb://one/?replicaSet=a@b"),
            "mongodb://one/?replicaSet=a@b"
        );
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
