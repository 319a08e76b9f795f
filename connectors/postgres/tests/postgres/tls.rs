//! Connections with TLS, to servers of a private authority, and what is said where one must not be made.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::sync::OnceCell;
use walferry_core::{Class, Source};
use walferry_harness::{Authority, Issued, Postgres, PostgresOptions, ServerTls, fresh_directory};
use walferry_postgres::{ReplicationSource, Settings};

use crate::support::{
    Database, Tested, chunks, database, database_on, public, refused, transactions,
};

/// Who may come how: `encrypted` only with TLS, `plain` only without, `certified` by a certificate, the others as they
/// like.
const HBA: [&str; 5] = [
    "hostssl all encrypted 127.0.0.1/32 scram-sha-256",
    "host all encrypted 127.0.0.1/32 reject",
    "hostnossl all plain 127.0.0.1/32 trust",
    "host all plain 127.0.0.1/32 reject",
    "hostssl all certified 127.0.0.1/32 cert",
];
const ROLES: &str = "create role encrypted login superuser password 'pass';
                     create role plain login superuser; create role certified login superuser";

/// Servers with TLS, and the files that their clients need.
struct Secured {
    server: Postgres,
    expired: Postgres,
    /// Issued the servers' certificates, which are for `localhost`.
    authority: PathBuf,
    /// Issued nothing.
    stranger: PathBuf,
    certified: Issued,
    forged: Issued,
}

async fn secured() -> &'static Secured {
    static SECURED: OnceCell<Secured> = OnceCell::const_new();
    SECURED.get_or_init(async || start().await.unwrap()).await
}

async fn start() -> walferry_harness::Result<Secured> {
    let root = fresh_directory("postgres-tls")?.keep();
    let authority = Authority::new(&root, "authority")?;
    let stranger = Authority::new(&root, "stranger")?;
    let options = |tls: ServerTls| PostgresOptions {
        hba: HBA.map(ToOwned::to_owned).to_vec(),
        tls: Some(tls),
        ..PostgresOptions::default()
    };
    let server = Postgres::start_with(&root, options(authority.server(&["localhost"])?)).await?;
    server
        .connect("postgres")
        .await?
        .batch_execute(ROLES)
        .await?;
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_hours(40 * 365 * 24);
    let old = options(authority.server_until(&["localhost"], long_ago)?);
    Ok(Secured {
        server,
        expired: Postgres::start_with(&root.join("expired"), old).await?,
        authority: authority.file().to_owned(),
        stranger: stranger.file().to_owned(),
        certified: authority.client("certified")?,
        forged: stranger.client("forged")?,
    })
}

impl Secured {
    /// `sslmode` with the servers' own authority.
    fn verified(&self, mode: &str) -> String {
        format!("sslmode={mode}&sslrootcert={}", self.authority.display())
    }
}

fn identity(issued: &Issued) -> String {
    let Issued {
        certificate, key, ..
    } = issued;
    format!(
        "&sslcert={}&sslkey={}",
        certificate.display(),
        key.display()
    )
}

/// A source by `localhost`, as this user with these parameters.
fn source(database: &Database, user: &str, parameters: &str) -> ReplicationSource {
    source_at(database, "localhost", user, parameters)
}

fn source_at(database: &Database, host: &str, user: &str, parameters: &str) -> ReplicationSource {
    let url = database
        .url
        .replace("postgres@127.0.0.1", &format!("{user}@{host}"));
    database.source_with(Settings {
        url: format!("{url}?{parameters}"),
        ..database.settings()
    })
}

/// Of each connection of ours to the database, whether it has TLS.
async fn encrypted(database: &Database) -> Vec<bool> {
    let sql = "select ssl from pg_stat_ssl join pg_stat_activity using (pid)
               where application_name = 'walferry' and datname = $1";
    let rows = database.sql.query(sql, &[&database.name]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn every_mode_makes_the_connections_that_libpq_would_make() -> Tested {
    let secured = secured().await;
    let cases = [
        ("postgres", "sslmode=disable".to_owned(), false),
        ("postgres", "sslmode=allow".to_owned(), false),
        ("encrypted:pass", "sslmode=allow".to_owned(), true),
        ("postgres", "connect_timeout=5".to_owned(), true),
        ("postgres", "sslmode=prefer".to_owned(), true),
        ("plain", "sslmode=prefer".to_owned(), false),
        ("encrypted:pass", "sslmode=require".to_owned(), true),
        ("postgres", secured.verified("require"), true),
        ("postgres", secured.verified("verify-ca"), true),
        ("encrypted:pass", secured.verified("verify-full"), true),
    ];
    for (user, parameters, expected) in cases {
        let database = database_on(&secured.server, "").await;
        let mut source = source(&database, user, &parameters);
        let inspected = source.inspect().await;
        inspected.map_err(|fault| format!("{user} {parameters}: {fault}"))?;
        // The link, the lock and the queries.
        assert_eq!(
            encrypted(&database).await,
            [expected; 3],
            "{user} {parameters}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_snapshot_and_a_stream_of_large_rows_come_whole_over_tls() -> Tested {
    let secured = secured().await;
    let schema =
        "create table t (id int primary key, v text); alter table t alter v set storage external;
                  insert into t select n, repeat(n::text, 100000) from generate_series(1, 40) n";
    let database = database_on(&secured.server, schema).await;
    let mut source = source(
        &database,
        "encrypted:pass",
        &secured.verified("verify-full"),
    );
    let keys: Vec<_> = source
        .tables()
        .await?
        .into_iter()
        .map(|table| (table.name, table.key))
        .collect();
    source.set_keys(&keys);
    source.inspect().await?;
    source.create_slot(&[public("t")]).await?;
    let rows: usize = chunks(&mut source)
        .await
        .iter()
        .map(|chunk| chunk.rows.len())
        .sum();
    assert_eq!(rows, 40);
    source.start().await?;
    database
        .run("insert into t select n, repeat(n::text, 1000000) from generate_series(41, 44) n")
        .await;
    let inserted = transactions(&mut source, 1).await;
    let bytes: Vec<_> = inserted[0].iter().map(String::len).collect();
    assert_eq!(bytes, ["n insert t 41,".len() + 2_000_000; 4]);
    assert!(encrypted(&database).await.into_iter().all(|is| is));
    Ok(())
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_with_both_names_unless_only_the_authority_counts()
-> Tested {
    let secured = secured().await;
    let database = database_on(&secured.server, "").await;
    let at = |mode: &str| source_at(&database, "127.0.0.1", "postgres", &secured.verified(mode));
    let error = refused(at("verify-full").inspect().await, Class::Fatal);
    assert!(
        error.contains("is for localhost, not for 127.0.0.1"),
        "{error}"
    );
    assert!(error.contains("subjectAltName"), "{error}");
    at("verify-ca").inspect().await?;
    // A name with its address beside it is looked up by nobody, but it is the certificate's.
    let named = format!("{}&hostaddr=127.0.0.1", secured.verified("verify-full"));
    source_at(&database, "localhost", "postgres", &named)
        .inspect()
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused_and_sslrootcert_named() -> Tested {
    let secured = secured().await;
    let database = database_on(&secured.server, "").await;
    let stranger = secured.stranger.display();
    for mode in ["require", "verify-ca", "verify-full"] {
        let parameters = format!("sslmode={mode}&sslrootcert={stranger}");
        let mut source = source(&database, "postgres", &parameters);
        for error in [
            refused(source.inspect().await, Class::Fatal),
            refused(source.tables().await, Class::Fatal),
        ] {
            assert!(
                error.contains("is not trusted") && error.contains("sslrootcert"),
                "{error}"
            );
        }
    }
    let error = refused(
        source(&database, "postgres", "sslrootcert=system")
            .inspect()
            .await,
        Class::Fatal,
    );
    assert!(error.contains("is not trusted"), "{error}");
    // Whoever prefers TLS goes without where it cannot be had.
    let parameters = format!("sslmode=prefer&sslrootcert={stranger}");
    source(&database, "postgres", &parameters).inspect().await?;
    assert!(!encrypted(&database).await.contains(&true));
    Ok(())
}

#[tokio::test]
async fn an_expired_certificate_is_a_passing_error_that_says_so() -> Tested {
    let secured = secured().await;
    let database = database_on(&secured.expired, "").await;
    for mode in ["verify-ca", "verify-full"] {
        let mut source = source(&database, "postgres", &secured.verified(mode));
        let error = refused(source.inspect().await, Class::Transient);
        assert!(error.contains("has expired: renew it"), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_asked_for() -> Tested {
    let secured = secured().await;
    let database = database("").await;
    for mode in ["require", "verify-ca", "verify-full"] {
        let mut source = source(&database, "postgres", &secured.verified(mode));
        let error = refused(source.inspect().await, Class::Fatal);
        let asked = format!("offers no TLS, as sslmode={mode} asks: set ssl = on");
        assert!(error.contains(&asked), "{error}");
    }
    source(&database, "postgres", "sslmode=prefer")
        .inspect()
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_client_is_known_by_its_certificate() -> Tested {
    let secured = secured().await;
    let database = database_on(&secured.server, "").await;
    let verified = secured.verified("verify-full");
    let with = |user: &str, issued: &Issued| {
        source(&database, user, &format!("{verified}{}", identity(issued)))
    };
    with("certified", &secured.certified).inspect().await?;
    let error = refused(
        source(&database, "certified", &verified).inspect().await,
        Class::Fatal,
    );
    assert!(error.contains("sslcert and sslkey"), "{error}");
    let error = refused(
        with("certified", &secured.forged).inspect().await,
        Class::Fatal,
    );
    assert!(
        error.contains("refuses our certificate") && error.contains("ssl_ca_file"),
        "{error}"
    );
    let error = refused(
        with("certified", &secured.forged).tables().await,
        Class::Fatal,
    );
    assert!(error.contains("refuses our certificate"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_named() -> Tested {
    let secured = secured().await;
    let database = database_on(&secured.server, "").await;
    let (authority, key) = (secured.authority.display(), secured.certified.key.display());
    let certificate = secured.certified.certificate.display();
    let other = secured.forged.key.display();
    let cases = [
        (
            "sslrootcert=/nowhere.pem".to_owned(),
            "sslrootcert of the source's URL, /nowhere.pem",
        ),
        (format!("sslrootcert={key}"), "it holds no certificate"),
        (
            format!("sslcert={certificate}&sslkey={authority}"),
            "sslkey of the source's URL",
        ),
        (
            format!("sslcert=/nowhere.pem&sslkey={key}"),
            "sslcert of the source's URL, /nowhere.pem",
        ),
        (
            format!("sslcert={certificate}&sslkey={other}"),
            "the key that belongs to it",
        ),
    ];
    for (parameters, expected) in cases {
        let mut source = source(&database, "postgres", &parameters);
        let error = refused(source.inspect().await, Class::File);
        assert!(error.contains(expected), "{error}");
    }
    Ok(())
}
